"""matmul_maddubs in C, one matrix of a batch after the other; see csrc/maddubs/maddubs.isa.c."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.core import native
from tilewright.core.registry import Call, Kernel
from tilewright.kernels.activation.c_cpu import door


def _run(call: Call, outs: Sequence[np.ndarray]) -> None:
    a, b = call.inputs
    y, clipped = outs
    clipped[...] = sum(door("matmul_maddubs", a[i], b[i], y[i]) for i in np.ndindex(*y.shape[:-2]))


def _describe(call: Call) -> str:
    instruction = "vpmaddubsw" if native.isa().startswith("avx") else "the same without vpmaddubsw"
    return f"{native.isa()}, {instruction}"


KERNELS = [Kernel("matmul_maddubs", "c", _run, dtypes=("uint8",), describe=_describe)]
