"""cross_entropy in C: maximum, sum and loss of each row in one visit; see csrc/loss/rows.h."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.core import native
from tilewright.core.registry import Call, Kernel
from tilewright.kernels.activation.c_cpu import door

from .spec import REDUCTIONS


def _run(call: Call, outs: Sequence[np.ndarray]) -> None:
    *floats, labels = call.inputs
    a = call.attrs
    if not labels.flags.c_contiguous:
        call.note_copy("labels are not contiguous: copied")
    numbers = REDUCTIONS.index(a["reduction"]), a["ignore_index"], a["label_smoothing"]
    door(call.op, *floats, np.ascontiguousarray(labels), *numbers, outs[0])


KERNELS = [Kernel(op, "c", _run, describe=lambda call: f"{native.isa()}, row by row")
           for op in ("cross_entropy", "cross_entropy_backward")]
