"""The one place where Numba is imported first: cache folder, instruction set, register width, compile options.

Lanes follow the instruction set that Numba compiles for, and Numba's index of compiled code has that set in its key.
So a cache folder shared by several machines holds one entry for each, and a forced lower ISA has its own:

    avx512    16 x f32, 32 registers, masked memory access        avx2      8 x f32, 16 registers, fused multiply-add
    neon       4 x f32, 32 registers, fused multiply-add          baseline  4 x f32, 16 registers, none (SSE2)

Products of integers have rows of their own, avx512_vnni and avx2_vnni, where the processor has a dot product of bytes
(`HAS_VNNI`; avx512_amx means the same here); any other row multiplies pairs of 16-bit integers. TILEWRIGHT_ISA (a name
of either kind) forces a lower set: avx512 or avx2 without that product, avx2_vnni floats as with avx2. It must be set
before Numba compiles anything: afterwards the process has one target, and `ISA` and `INT8_ISA` say which.
TILEWRIGHT_CACHE_DIR moves the cache unless NUMBA_CACHE_DIR is set.

A trap: Numba's cache looks at the source file of the cached function only, not at the functions that it calls. After an
edit in this folder, delete the cached files of the kernels that use it (`__pycache__/*.nbi`, or the cache folder).
"""
from __future__ import annotations

import os
from typing import Any

if "NUMBA_CACHE_DIR" not in os.environ and os.environ.get("TILEWRIGHT_CACHE_DIR"):
    os.environ["NUMBA_CACHE_DIR"] = os.path.join(os.environ["TILEWRIGHT_CACHE_DIR"], "numba")

import llvmlite.binding as llvm
import numba
from numba.core import config
from numba.core.registry import cpu_target

from tilewright.core.errors import ArgumentError

_AVX512 = ("avx512f", "avx512bw", "avx512dq", "avx512vl")
_ABOVE = {"avx512_amx": (), "avx512_vnni": (), "avx512": ("avx512vnni", "avxvnni"),
          "avx2_vnni": ("avx512", "avx10", "amx", "evex512"),
          "avx2": ("avx512", "avx10", "amx", "evex512", "avxvnni"),
          "baseline": ("avx", "amx", "fma", "f16c", "xop", "sse3", "ssse3", "sse4", "vaes", "vpclmul", "gfni")}


def _force(isa: str) -> None:
    """Make Numba compile for no more than `isa`; without effect once it has compiled something."""
    if isa not in _ABOVE:
        raise ArgumentError(f"TILEWRIGHT_ISA={isa!r}: Numba kernels know {', '.join(_ABOVE)}")
    features = llvm.get_host_cpu_features()
    for name in features:
        if name.startswith(_ABOVE[isa]):
            features[name] = False
    vars(config).update(CPU_NAME=llvm.get_host_cpu_name(), CPU_FEATURES=features.flatten())


if os.environ.get("TILEWRIGHT_ISA") and "x86_64" in llvm.get_process_triple():
    _force(os.environ["TILEWRIGHT_ISA"])

TRIPLE, CPU, _features = cpu_target.target_context.codegen().magic_tuple()
FEATURES = frozenset(f[1:] for f in _features.split(",") if f.startswith("+"))

if FEATURES.issuperset(_AVX512):
    ISA, BYTES, REGISTERS = "avx512", 64, 32
elif FEATURES.issuperset(("avx2", "fma")):
    ISA, BYTES, REGISTERS = "avx2", 32, 16
elif TRIPLE.startswith(("aarch64", "arm64")):
    ISA, BYTES, REGISTERS = "neon", 16, 32
else:
    ISA, BYTES, REGISTERS = "baseline", 16, 16
HAS_FMA = ISA != "baseline"
"""Whether `fma` rounds once. Where it does not, formulas that depend on it split their operands instead."""
HAS_VNNI = {"avx512": "avx512vnni", "avx2": "avxvnni"}.get(ISA) in FEATURES
"""Whether one instruction multiplies unsigned by signed bytes and adds four neighbours to an int32."""
INT8_ISA = f"{ISA}_vnni" if HAS_VNNI else ISA

def _can_cache() -> bool:
    """Whether there is a folder that Numba can write to; where there is none, `cache=True` raises."""
    try:
        numba.njit(cache=True)(_can_cache)
    except RuntimeError:
        return False
    return True


KERNEL: dict[str, Any] = {"nogil": True, "error_model": "numpy", "cache": _can_cache()}
njit = numba.njit(**KERNEL)
"""For kernels: no GIL, division as NumPy's, compiled code kept on disk."""
inner = numba.njit(nogil=True, error_model="numpy")
"""For the functions that kernels call: compiled into each kernel that uses them, and cached with it."""
