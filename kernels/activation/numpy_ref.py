"""The reference activations: the definitions in the next wider type, rounded once."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tilewright.core.registry import Call, Kernel
from tilewright.kernels.activation.spec import DERIVATIVES, FUNCTIONS, wide


def _forward(name: str) -> Callable:
    def run(call: Call, outs: tuple) -> None:
        x, = call.inputs
        with np.errstate(all="ignore"):
            outs[0][...] = FUNCTIONS[name](x if name == "relu" else wide(x), **call.attrs)  # relu is exact as it is
    return run


def _backward(name: str) -> Callable:
    def run(call: Call, outs: tuple) -> None:
        dy, x = map(wide, call.inputs)
        with np.errstate(all="ignore"):
            outs[0][...] = dy * sum(DERIVATIVES[name](np.clip(x, -1e30, 1e30), **call.attrs))
    return run


def _how(call: Call) -> str:
    return "NumPy and SciPy, in a wider type"


KERNELS = [Kernel(name, "numpy", _forward(name), describe=_how) for name in DERIVATIVES]
KERNELS += [Kernel(f"{name}_backward", "numpy", _backward(name), describe=_how) for name in DERIVATIVES]
