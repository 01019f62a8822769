"""The embedding in C: rows copied, or added in the order of the indices by threads that own columns."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.core import native
from tilewright.core.registry import Call, Kernel
from tilewright.kernels.activation.c_cpu import door


def _c_order(call: Call, x: np.ndarray, name: str) -> np.ndarray:
    if x.flags.c_contiguous:
        return x
    call.note_copy(f"{name} is not contiguous: copied")
    return np.ascontiguousarray(x).reshape(x.shape)


def _embedding(call: Call, outs: Sequence[np.ndarray]) -> None:
    indices = _c_order(call, call.inputs[0], "indices")
    if native.door.embedding(indices, call.inputs[1], outs[0]) is NotImplemented:
        call.note_copy("out has rows that no single stride separates: copied")
        outs[0][...] = door("embedding", indices, call.inputs[1], None)


def _embedding_backward(call: Call, outs: Sequence[np.ndarray]) -> None:
    dy, indices = call.inputs
    indices = _c_order(call, indices, "indices")
    if native.door.embedding_backward(dy, indices, outs[0]) is NotImplemented:
        door("embedding_backward", _c_order(call, dy, "dy"), indices, outs[0])


KERNELS = [Kernel("embedding", "c", _embedding, describe=lambda call: "rows copied"),
           Kernel("embedding_backward", "c", _embedding_backward, describe=lambda call: "rows added in order")]
