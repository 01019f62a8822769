"""Balancing, as SmoothQuant does it (Xiao et al., 2023): from inputs that are hard to quantize to weights that are not.

A column of x that reaches far spoils the grid of all others. Dividing column j of x and multiplying column j of the
weights by s[j] leaves the product as it is:

    s[j] = max |x[:, j]| ** alpha / max |w[:, j]| ** (1 - alpha)
"""
from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..nn import Linear, Module
from . import walk


def factors(model: Module, layers: Mapping[str, Linear], data: Iterable[np.ndarray],
            alpha: float) -> dict[str, np.ndarray]:
    """s (in,) float32 of each layer by name.

    A column of x or of the weights that holds nothing but zeros gets the geometric mean of the others: with 1, units
    that calibration never woke would keep their weights among others made far smaller, and set the scale for all.
    """
    reach = {name: np.zeros(layer.weight.shape[1], np.float32) for name, layer in layers.items()}

    def see(name: str, x: np.ndarray) -> None:
        np.maximum(reach[name], np.abs(x).reshape(-1, x.shape[-1]).max(axis=0, initial=0), out=reach[name])

    walk.watch(model, layers, data, see)
    found = {}
    for name, layer in layers.items():
        weights = np.abs(layer.weight.data).max(axis=0, initial=0).astype(np.float32)
        both = (reach[name] > 0) & (weights > 0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            s = reach[name] ** np.float32(alpha) / weights ** np.float32(1 - alpha)
            s = np.where(both, s, np.exp(np.log(s[both]).mean()) if both.any() else np.float32(1))
        found[name] = np.clip(s, np.float32(1e-5), np.float32(1e5))  # no column vanishes from float32
    return found


def balanced(model: Module, by: Mapping[str, np.ndarray]) -> tuple[Any, set[str]]:
    """A copy of the model that computes the same, and the names of the layers whose inputs come divided by `by`.

    Those are the ones whose factors fit into the layer before: a Linear or a norm, with nothing but relu between. The
    others are left as they are.
    """
    model = copy.deepcopy(model)
    before = walk.scalable(model)
    modules = walk.named(model)
    folded = set(by) & set(before)
    for name in folded:
        for p in before[name].parameters():
            p.data.T[...] /= by[name].astype(p.dtype)
        weight: Any = modules[name].weight  # type: ignore[attr-defined]
        weight.data *= by[name].astype(weight.dtype)
    return model, folded
