"""Run kernels on arrays that end, or begin, where memory may not be touched: `python fences.py ROW`.

A read or a write beyond them ends the process. Prints each kernel before it runs: the last line names the culprit.
"""
from __future__ import annotations

import ctypes
import mmap
import sys
from typing import Any

import numpy as np

from tilewright.core import dispatch, registry, threads

PAGE = mmap.PAGESIZE
PROT_NONE = 0
mprotect = ctypes.CDLL(None, use_errno=True).mprotect
mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def fenced(x: np.ndarray, behind: bool) -> np.ndarray:
    """A contiguous copy of x with a page that cannot be read right behind its last byte, or right before its first."""
    pages = -(-x.nbytes // PAGE)
    memory = np.frombuffer(mmap.mmap(-1, (pages + 2) * PAGE), np.uint8)
    start = memory.ctypes.data
    for fence in (start, start + (pages + 1) * PAGE):
        if mprotect(fence, PAGE, PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    first = PAGE + (pages * PAGE - x.nbytes if behind else 0)
    y = memory[first:first + x.nbytes].view(x.dtype).reshape(x.shape)
    y[...] = x
    return y


def fence(x: Any, behind: bool) -> Any:
    if isinstance(x, (list, tuple)):
        return type(x)(fence(v, behind) for v in x)
    return fenced(x, behind) if isinstance(x, np.ndarray) and x.size else x


def main(row: str) -> None:
    backend, variant = dispatch.parse(row)
    for op, spec in registry.specs().items():
        kernel = registry.kernels(spec.family, backend).get((op, variant))
        for dtype in spec.dtypes if kernel is not None else ():
            print(row, op, dtype, flush=True)
            for case in spec.cases(np.random.default_rng(1), dtype):
                for behind in (True, False):
                    inputs = tuple(fence(x, behind) for x in case.inputs)
                    call = spec.prepare(inputs, case.attrs)
                    outs = call.kernel_outs([fence(np.empty(shape, d), behind) for shape, d in call.outputs])
                    with threads.threads(1):
                        kernel.run(call, outs)


if __name__ == "__main__":
    main(*sys.argv[1:])
