"""quantize: a model with integers for weights, made from one with floats."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np

from ..core.errors import ArgumentError
from ..core.quantized import QuantizedMatrix, check_bits, quantize_weight
from ..core.registry import check_names
from ..nn import Dropout, Linear, Module
from . import smooth as smoothing
from . import walk
from .layers import Grid, QuantizedLinear, StaticLinear, matrix
from .observers import OBSERVERS, Observer

METHODS = ("dynamic", "static", "weight-only")


def quantize(model: Module, method: str = "dynamic", calibration: Any = None, observer: str = "minmax",
             per_channel: bool = True, bits: int = 8, group_size: int | None = None, skip: Iterable[str] = (),
             smooth: float | None = None) -> Any:
    """A copy of the model for inference whose linear layers have integers for weights; the model stays as it is.

    method       "dynamic": x is quantized row by row as it comes; "static": on grids fixed by calibration, and static
                 layers with at most a relu between them hand on uint8; "weight-only": x stays float32
    calibration  for static and smooth: rows like those the model will see, an array or an iterable of batches
    observer     how the range of a grid is chosen: "minmax", "percentile", "entropy" or "mse" (see `observers`)
    per_channel  a scale for each output, or one for all
    bits         8 or 4: of the weights, and of x on fixed grids; x quantized row by row has 8
    group_size   weight-only: a scale for each so many columns
    skip         names of layers that stay float, as in state_dict: "0", "encoder"
    smooth       alpha in [0, 1], or None: balance x and weights first, as SmoothQuant does (see quant/smooth.py)

    Dropout is switched off for good. Raises ArgumentError for arguments that do not go together, unknown names, and
    data or weights that are not finite; ShapeError where the model does not take the calibration's rows.

    >>> import numpy as np, tilewright as tw
    >>> model, x = tw.nn.MLP([4, 8, 3], seed=0), np.random.default_rng(0).random((16, 4), np.float32)
    >>> quantized = tw.quant.quantize(model, "static", calibration=x)
    >>> quantized
    MLP(
      0: StaticLinear(weight (8, 4) int8, static)
      1: ReLU()
      2: StaticLinear(weight (3, 8) int8, static)
    )
    >>> np.abs(quantized(x).data - model(x).data).max() < 0.02
    np.True_
    """
    check_names("method", (method,), METHODS)
    check_names("observer", (observer,), OBSERVERS)
    _check(method, bits, group_size, per_channel, calibration, smooth)
    chosen = walk.linears(model, skip)
    data = walk.batches(calibration) if calibration is not None else []
    balance: dict[str, np.ndarray] = {}
    folded: set[str] = set()
    if smooth is not None:
        balance = smoothing.factors(model, chosen, data, smooth)
        model, folded = smoothing.balanced(model, balance)
        chosen = walk.linears(model, skip)
    divided = {name: s for name, s in balance.items() if name not in folded}
    grids = _grids(model, chosen, data, divided, observer, bits) if method == "static" else {}
    products = "weight-only" if method == "weight-only" else "dynamic"
    layers: dict[str, Module] = {}
    for name, layer in chosen.items():
        w = layer.weight.data * divided[name] if name in divided else layer.weight.data
        bias = None if layer.bias is None else layer.bias.data
        more: dict[str, Any] = {"bits": bits, "balance": balance.get(name), "folded": name in folded}
        weight = weight_of(name, w, bits, group_size, per_channel, products)
        layers[name] = (StaticLinear(weight, bias, input=grids[name], **more) if method == "static"
                        else QuantizedLinear(weight, bias, **more))
    return finished(model, layers, chosen)


def finished(model: Module, layers: Mapping[str, Module], old: Mapping[str, Module]) -> Any:
    """A copy of the model for inference in which quantized layers have taken the places of the old ones."""
    quantized = walk.replaced(model, layers, old)
    for _, module in quantized.named_modules():
        if isinstance(module, Dropout):
            module.p = 0.0
    _join(quantized)
    return quantized


def _check(method: str, bits: int, group_size: int | None, per_channel: bool, calibration: Any,
           smooth: float | None) -> None:
    """ArgumentError for arguments that do not go together."""
    check_bits("quantize", bits)
    if group_size is not None and method != "weight-only":
        raise ArgumentError(f"quantize: groups need method='weight-only'; {method!r} multiplies integers of whole rows")
    if group_size is not None and not per_channel:
        raise ArgumentError("quantize: group_size asks for several scales a row, per_channel=False for one in all")
    if calibration is None and (method == "static" or smooth is not None):
        what = "the method 'static'" if method == "static" else "smooth"
        raise ArgumentError(f"quantize: {what} needs calibration: rows like those that the model will see")
    if smooth is not None and not (isinstance(smooth, Real) and 0 <= smooth <= 1):
        raise ArgumentError(f"quantize: smooth is None or lies in [0, 1], not {smooth!r}")


def weight_of(name: str, w: np.ndarray, bits: int, group_size: int | None, per_channel: bool,
              method: str) -> QuantizedMatrix:
    """The integers for the weights of the layer so called."""
    try:
        if per_channel:
            q = quantize_weight(w, bits, group_size, method="weight-only")
            return matrix(q.integers(), q.scales, bits, q.group_size, method)
        q = quantize_weight(w.reshape(1, w.size), bits, method="weight-only")
        return matrix(q.integers().reshape(w.shape), np.repeat(q.scales, len(w), axis=0), bits, None, method)
    except ArgumentError as error:
        raise ArgumentError(f"layer {name!r}: {error}") from None


def _grids(model: Module, layers: dict[str, Linear], data: list[np.ndarray], divided: dict[str, np.ndarray],
           observer: str, bits: int) -> dict[str, Grid]:
    """The grid on which each layer takes its inputs."""
    seen: dict[str, Observer] = {name: OBSERVERS[observer](bits) for name in layers}

    def see(name: str, x: np.ndarray) -> None:
        try:
            seen[name].observe(x / divided[name] if name in divided else x)
        except ArgumentError as error:
            raise ArgumentError(f"the inputs of layer {name!r}: {error}") from None

    walk.watch(model, layers, data, see)
    try:
        return {name: Grid.over(*o.range(), bits) for name, o in seen.items()}
    except ArgumentError:
        missed = [name for name, o in seen.items() if not o.count]
        raise ArgumentError(f"calibration never reached layer {', '.join(map(repr, missed))}; skip it") from None


def _join(model: Module) -> None:
    """Let static layers with nothing but relu between them hand on integers."""
    alone = walk.in_one_place(model)
    for steps in walk.sequences(model):
        for (_, layer, activation), (_, after, _) in pairwise(steps):
            if isinstance(layer, StaticLinear) and isinstance(after, StaticLinear) and activation in (None, "relu"):
                if alone(layer, after):
                    layer.output, after.fed = after.input, True
