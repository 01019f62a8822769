"""The reference: the formulas of the spec in NumPy, in float64 or wider, rounded once."""
from __future__ import annotations

import numpy as np

from tilewright.core.registry import Call, Kernel
from tilewright.kernels.optimizer.spec import clip_factor, flattened, stepped


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.longdouble if x.dtype == np.float64 else np.float64)


def _run(call: Call, outs: tuple) -> None:
    if not call.inputs[0]:
        return
    mutated = (call.inputs[0], *(x for x in call.inputs[2:] if x is not None))
    with np.errstate(all="ignore"):
        for old, new in zip((x for many in mutated for x in many), flattened(stepped(call, _wide)), strict=True):
            old[...] = new


def _clip(call: Call, outs: tuple) -> float:
    with np.errstate(all="ignore"):
        norm = float(np.sqrt(sum((_wide(g) ** 2).sum() for g in call.inputs[0])))
        factor = clip_factor(norm, call.attrs["max_norm"])
        if factor != 1:
            for g in call.inputs[0]:
                g *= g.dtype.type(factor)
    return norm


KERNELS = [Kernel(op, "numpy", _clip if op == "clip_grad_norm" else _run,
                  describe=lambda call: "NumPy, in a wider type")
           for op in ("sgd_step", "adam_step", "adamw_step", "clip_grad_norm")]
