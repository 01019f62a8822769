"""Softmax in C: three passes over rows that stay in L1; see csrc/softmax/rows.h."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.core import native
from tilewright.core.registry import Call, Kernel
from tilewright.kernels.activation.c_cpu import door


def _run(call: Call, outs: Sequence[np.ndarray]) -> None:
    door(call.op, *call.inputs, outs[0])


KERNELS = [Kernel(op, "c", _run, describe=lambda call: f"{native.isa()}, row by row")
           for op in ("softmax", "log_softmax", "softmax_backward", "log_softmax_backward")]
