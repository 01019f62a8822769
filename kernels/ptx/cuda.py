"""All that the project has of numba-cuda: what kernels are written in, and the compiler. Nothing else imports it.

    from tilewright.kernels.ptx.cuda import cuda, float32, uint32     cuda.threadIdx, cuda.shared.array, cuda.fma ...

PTX instructions that it has no names for are in intrinsics.py, the other file that knows numba-cuda. A successor of
numba-cuda is a change of these two.
"""
from __future__ import annotations

import hashlib
import re
import threading
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numba.cuda.dispatcher
import numba.cuda.extending
from numba import cuda
from numba.cuda import cgutils
from numba.cuda.extending import intrinsic
from numba.cuda.types import (
    Array,
    Type,
    UniTuple,
    boolean,
    float32,
    float64,
    int32,
    int64,
    none,
    uint16,
    uint32,
    uint64,
)

__all__ = ["Array", "UniTuple", "boolean", "cgutils", "cuda", "float32", "float64", "inline", "int32", "int64",
           "intrinsic", "none", "uint16", "uint32", "uint64"]

SCALARS = {"i32": int32, "u32": uint32, "i64": int64, "u64": uint64, "f32": float32, "f64": float64}
ADDRESS = uint64
NVVM = ("nvidia-nvvm", "nvidia-cuda-nvcc-cu12")  # the packages that the compiler is in, of CUDA 13 and of CUDA 12
_compiling = threading.Lock()


def inline(function: Callable[..., Any]) -> Any:
    """A device function that becomes part of its callers."""
    return cuda.jit(device=True, forceinline=True)(function)


def plain_function(x: Any) -> Any:
    """The Python function of a device function; None for anything else."""
    return x.py_func if isinstance(x, numba.cuda.dispatcher.CUDADispatcher) else None


def intrinsic_function(x: Any) -> Any:
    """The Python function that defines an intrinsic; None for anything else."""
    return x._defn if isinstance(x, numba.cuda.extending._Intrinsic) else None


def is_type(x: Any) -> bool:
    """Whether x is one of numba's types: float32, uint32."""
    return isinstance(x, Type)


@cache
def compiler() -> str:
    """What decides, beside the source of a kernel, which PTX comes out."""
    versions = [f"{d.name} {d.version}" for name in ("numba-cuda", *NVVM) for d in metadata.distributions(name=name)]
    return " ".join([*versions, hashlib.sha256(Path(__file__).read_bytes()).hexdigest()])


def compile_ptx(function: Callable[..., Any], signature: Sequence[Any], cc: tuple[int, int], name: str,
                threads: int, blocks_per_sm: int | None) -> str:
    """PTX of a kernel for a compute capability; needs no driver. Its entry is `name`; lines refer to the source."""
    bounds = threads if blocks_per_sm is None else (threads, blocks_per_sm)
    with _compiling, _current_device(cc), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # functions made by other functions have no source lines of their own
        ptx, _ = cuda.compile(function, tuple(signature), cc=cc, output="ptx", abi="numba", device=False,
                              launch_bounds=bounds, lineinfo=True)
    return _tidy(ptx, name)


@contextmanager
def _current_device(cc: tuple[int, int]) -> Iterator[None]:
    """Device functions are compiled for the current device: stand in for it, so that no driver is asked."""
    module = numba.cuda.dispatcher
    saved = module.get_current_device
    module.get_current_device = lambda: types.SimpleNamespace(compute_capability=cc)
    try:
        yield
    finally:
        module.get_current_device = saved


def _tidy(ptx: str, name: str) -> str:
    """The same PTX with readable names, which do not depend on what was compiled before."""
    mangled = re.search(r"\.visible \.entry ([\w$]+)", ptx)
    if mangled is None:
        raise RuntimeError(f"the compiler made no kernel of {name}")
    ptx = re.sub(r"^\.common \.global .*NumbaEnv.*\n", "", ptx, flags=re.M)
    ptx = re.sub(rf"{re.escape(mangled[1])}(?!\w)", name, ptx)
    ptx = re.sub(rf"{re.escape(mangled[1])}_param", f"{name}_param", ptx)
    for i, shared in enumerate(dict.fromkeys(re.findall(r"_cudapy_smem_\d+", ptx))):
        ptx = re.sub(rf"{shared}\b", f"shared_{i}", ptx)
    return ptx
