"""Norms in C: statistics and result row by row; see csrc/norm/rows.h."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.core import native
from tilewright.core.registry import Call, Kernel
from tilewright.kernels.activation.c_cpu import door


def _vector(call: Call, x: np.ndarray | None, name: str) -> np.ndarray | None:
    """The doors want weight and bias contiguous; they are one row."""
    if x is None or x.flags.c_contiguous:
        return x
    call.note_copy(f"{name} is not contiguous: copied")
    return np.ascontiguousarray(x)


def _forward(call: Call, outs: Sequence[np.ndarray]) -> None:
    x, *vectors = call.inputs
    vectors = [_vector(call, v, name) for v, name in zip(vectors, ("weight", "bias"), strict=False)]
    door(call.op, x, *vectors, call.attrs["eps"], outs[0])


def _backward(call: Call, outs: Sequence[np.ndarray]) -> None:
    """The sums over rows want all rows in one matrix, and contiguous results; anything else goes through copies."""
    dy, x, weight = call.inputs
    arguments = (_vector(call, weight, "weight"), call.attrs["eps"])
    if getattr(native.door, call.op)(dy, x, *arguments, *outs) is not NotImplemented:
        return
    call.note_copy("rows that no single stride separates: copied")
    results = door(call.op, np.ascontiguousarray(dy), np.ascontiguousarray(x), *arguments, *(None for _ in outs))
    for out, result in zip(outs, results, strict=True):
        out[...] = result


KERNELS = [Kernel(op, "c", run, describe=lambda call: f"{native.isa()}, row by row")
           for name in ("layer_norm", "rms_norm") for op, run in ((name, _forward), (f"{name}_backward", _backward))]
