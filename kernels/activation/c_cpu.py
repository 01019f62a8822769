"""Activations in C: one pass, vector polynomials. The doors take any strides; see csrc/activation/maps.h."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tilewright.core import native
from tilewright.core.registry import Call, Kernel

from .spec import DERIVATIVES


def door(name: str, *args: Any) -> Any:
    """Call a door; calls in normal form are what doors take, so that a refusal is a fault of ours."""
    result = getattr(native.door, name)(*args)
    if result is NotImplemented:
        raise RuntimeError(f"the C function {name} refused a call in normal form")
    return result


def describe(call: Call) -> str:
    """The instruction set is all there is to choose."""
    return f"{native.isa()}, one pass"


def _run(name: str) -> Callable[[Call, Sequence[np.ndarray]], None]:
    def run(call: Call, outs: Sequence[np.ndarray]) -> None:
        attrs = dict(call.attrs)
        suffix = "_tanh" if attrs.pop("approximate", "none") == "tanh" else ""
        door(name.replace("gelu", f"gelu{suffix}"), *call.inputs, *attrs.values(), outs[0])
    return run


KERNELS = [Kernel(op, "c", _run(op), describe=describe) for name in DERIVATIVES for op in (name, f"{name}_backward")]
