"""Programs of one kernel, run by the emulator, and the fault that one ends with."""
from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from emulation import HEADER
from tilewright import emulate

THREADS = 64
# %t thread, %l its lane, %w its warp, %g address of out[t] (f32 or b32), %s offset of its word in shared memory
PROLOGUE = """
.visible .entry kernel(.param .u64 out, .param .u64 in)
{
  .reg .pred %p, %q; .reg .b32 %t, %l, %w, %s, %o, %r<8>;
  .reg .f32 %f<8>; .reg .b64 %g, %h, %i, %rd<4>; .reg .b16 %b<4>;
  .shared .align 16 .b8 shared_words[4096];
  .local .align 16 .b8 depot[64];
  ld.param.u64 %g, [out];
  ld.param.u64 %h, [in];
  mov.u32 %t, %tid.x;
  and.b32 %l, %t, 31;
  shr.u32 %w, %t, 5;
  mul.wide.u32 %i, %t, 4;
  add.s64 %g, %g, %i;
  mov.u32 %s, shared_words;
  shl.b32 %o, %t, 2;
  add.u32 %s, %s, %o;
"""

CP_ASYNC = """
  shl.b32 %r1, %t, 4;
  mov.u32 %r2, shared_words;
  add.u32 %r2, %r2, %r1;
  cvt.u64.u32 %i, %r1;
  add.s64 %h, %h, %i;
  cp.async.cg.shared.global [%r2], [%h], 16;
  cp.async.commit_group;
  cp.async.wait_group 0;
  bar.sync 0;
  ld.shared.u32 %r3, [%r2+4];  // HERE
  st.global.u32 [%g], %r3;
"""


def program(body: str) -> tuple[str, int | None]:
    """The PTX around a body, and the line of its mark HERE."""
    text = HEADER + PROLOGUE + body + "\n  ret;\n}\n"
    marked = [i for i, line in enumerate(text.splitlines(), 1) if "HERE" in line]
    return text, marked[0] if marked else None


def run(body: str, threads: int = THREADS, blocks: int = 1, out: np.ndarray | None = None,
        inputs_as: str = "r", **options: Any) -> np.ndarray:
    text, _ = program(body)
    out = np.zeros(1024, np.uint32) if out is None else out
    inputs = np.arange(1024, dtype=np.uint32)
    options = {"memory": [(out, "rw"), (inputs, inputs_as)]} | options
    emulate.Module(text).launch(None, blocks, threads, [np.uint64(out.ctypes.data), np.uint64(inputs.ctypes.data)],
                                **options)
    return out


def fault(body: str, kind: str, **options: Any) -> emulate.Fault:
    """The fault that a body must raise, at the line marked HERE; of a race, one of its two lines is that."""
    _, line = program(body)
    with pytest.raises(emulate.Fault) as caught:
        run(body, **options)
    places = [caught.value.ptx_line]
    if kind == "race":
        places += [int(n) for n in re.findall(r"PTX line (\d+)", caught.value.message)]
    assert caught.value.kind == kind and line in places, str(caught.value)
    return caught.value
