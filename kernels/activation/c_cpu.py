"""Activations in C: one pass, vector polynomials. The doors take any strides; see csrc/activation/maps.h."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tilewright.core import native
from tilewright.core.registry import Call, Kernel

from .spec import DERIVATIVES


def _run(name: str) -> Callable[[Call, Sequence[np.ndarray]], Any]:
    def run(call: Call, outs: Sequence[np.ndarray]) -> Any:
        attrs = dict(call.attrs)
        suffix = "_tanh" if attrs.pop("approximate", "none") == "tanh" else ""
        door = getattr(native.door, name.replace("gelu", f"gelu{suffix}"))
        return door(*call.inputs, *attrs.values(), outs[0])
    return run


def _describe(call: Call) -> str:
    return f"{native.isa()}, one pass"


KERNELS = [Kernel(op, "c", _run(op), describe=_describe) for name in DERIVATIVES for op in (name, f"{name}_backward")]
