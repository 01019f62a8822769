"""Numba's integer products: from a user's own compiled functions, at extreme values, held to an instruction set."""
from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from tilewright.core import capability, native

pytestmark = pytest.mark.skipif(capability.reasons()["numba"] is not None, reason="Numba cannot run here")
blocked: Any = pytest.importorskip("tilewright.kernels.qgemm.blocked")
microkernel: Any = pytest.importorskip("tilewright.kernels.qgemm.microkernel")

TYPES = list(itertools.product(("int8", "uint8"), repeat=2))
ISAS = [*native.isas(), *(f"{isa}_vnni" for isa in native.isas() if isa in ("avx2", "avx512"))]
SIZES = [(1, 1, 1), (3, 5, 7), (8, 48, 64), (31, 33, 29), (13, 100, 130), (5, 530, 67), (9, 20, 2100), (4, 49, 0)]


def exact(a: np.ndarray, b: np.ndarray, a_zero: np.ndarray, b_zero: np.ndarray) -> np.ndarray:
    """Modulo 2^32."""
    return ((a.astype(np.int64) - a_zero[:, None]) @ (b.astype(np.int64) - b_zero)).astype(np.int32)


def packed(b: np.ndarray) -> np.ndarray:
    k, n = b.shape
    panels = np.full((-(-n // microkernel.NR), blocked.panel_words(k)), -1, np.int32)
    blocked.pack_range(b, panels, 0, len(panels))
    return panels


@numba.njit
def in_pieces(product, a, a_zero, panels, shift, b_zero, out, memory, panel):
    """Rectangles of 5 rows and a panel."""
    m, n = out.shape
    for i in range(0, m, 5):
        for j in range(0, n, panel):
            product(a, a_zero, panels, shift, b_zero, out, memory, i, min(i + 5, m), j, min(j + panel, n))


def check(a: np.ndarray, b: np.ndarray, a_zero: np.ndarray, b_zero: np.ndarray) -> None:
    out = np.full((a.shape[0], b.shape[1]), 77, np.int32)
    shift = microkernel.SHIFT * (b.dtype == np.uint8)
    in_pieces(blocked.product_range, a, a_zero, packed(b), shift, b_zero, out, np.empty(blocked.MEMORY, np.uint8),
              microkernel.NR)
    np.testing.assert_array_equal(out, exact(a, b, a_zero, b_zero))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("a_type", "b_type"), TYPES)
def test_product(a_type: str, b_type: str, size: tuple[int, int, int], rng: np.random.Generator) -> None:
    m, n, k = size
    a, b = (rng.integers(0, 256, shape, np.uint8).view(t) for shape, t in (((m, k), a_type), ((k, n), b_type)))
    a_zero, b_zero = rng.integers(-128, 256, m).astype(np.int32), rng.integers(-128, 256, n).astype(np.int32)
    check(a, b, a_zero, b_zero)
    check(a, b, np.broadcast_to(a_zero[:1], m), np.broadcast_to(np.int32(0), n))
    check(np.asfortranarray(a)[::-1], np.asfortranarray(b)[:, ::-1], a_zero[::-1], b_zero)


@pytest.mark.parametrize(("a_type", "b_type"), TYPES)
def test_extreme_values(a_type: str, b_type: str) -> None:
    """No sum of two or four products saturates; the sum of many wraps."""
    for ends, k in itertools.product(itertools.product(("min", "max"), repeat=2), (4, 100_000)):
        a, b = (np.full(shape, getattr(np.iinfo(t), end), t)
                for shape, t, end in zip(((2, k), (k, 3)), (a_type, b_type), ends, strict=True))
        check(a, b, np.array([0, 255], np.int32), np.array([0, -128, 255], np.int32))


SAMPLE = """
import numpy as np
from test_qgemm_numba import check
rng = np.random.default_rng(0)
check(rng.integers(-128, 128, (13, 70), np.int8), rng.integers(0, 256, (70, 60), np.uint8),
      rng.integers(-9, 9, 13).astype(np.int32), rng.integers(-9, 9, 60).astype(np.int32))
"""


def child(code: str, env: dict[str, str]) -> str:
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True,
                            cwd=Path(__file__).parent)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("isa", ISAS)
def test_instruction_set(isa: str, child_env: dict[str, str]) -> None:
    """A name without VNNI takes it away; one with it asks for it, and floats follow the same set."""
    code = "from tilewright.kernels.vector import host; print(host.ISA, host.INT8_ISA)"
    floats, integers = child(SAMPLE + code, child_env | {"TILEWRIGHT_ISA": isa}).split()
    assert floats == isa.removesuffix("_vnni")
    assert integers in (isa, floats)  # this processor may lack it


def test_where_no_instruction_has_a_name(child_env: dict[str, str], tmp_path: Path) -> None:
    """Processors other than x86 get plain LLVM code, in a cache of its own."""
    code = "from tilewright.kernels.vector import host; host.TRIPLE, host.HAS_VNNI = 'another', False"
    child(code + SAMPLE, child_env | {"NUMBA_CACHE_DIR": str(tmp_path)})
