"""The fast door of the Numba backend: it answers as the long way does, to the bit, and takes plain calls."""
from __future__ import annotations

import copy
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calls import SPECS, arguments, bits, run
from conformance import SEED
from tilewright import ops
from tilewright.core import capability, dispatch
from tilewright.core.registry import BYTES

pytestmark = pytest.mark.skipif(capability.reasons()["numba"] is not None, reason="Numba cannot run here")


def answer(op: str, inputs: Any, attrs: dict) -> list[bytes]:
    """The results, or the changed arguments, of a call on copies."""
    inputs = copy.deepcopy(inputs)
    result = run(op, inputs, attrs, backend="numba")
    changed = [inputs[i] if isinstance(inputs[i], (list, tuple)) else [inputs[i]] for i in SPECS[op].mutates]
    return bits(result) + [x.tobytes() for many in changed for x in many if x is not None]


def with_dtypes(operations: Iterable[str]) -> list[tuple[str, str]]:
    """Each with both floats, or with bytes where it takes no others."""
    return [(op, dtype) for op in operations for dtype in ("float32", "float64", *BYTES)
            if dtype in SPECS[op].dtypes and (dtype not in BYTES or "float32" not in SPECS[op].dtypes)]


@pytest.mark.parametrize(("op", "dtype"), with_dtypes(SPECS))
def test_both_ways_give_the_same_bits(op: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = list(SPECS[op].cases(np.random.default_rng(SEED), dtype))[::3]
    fast = [answer(op, case.inputs, case.attrs) for case in cases]
    monkeypatch.setattr(dispatch, "_numba_door", lambda: None)
    for case, got in zip(cases, fast, strict=True):
        assert got == answer(op, case.inputs, case.attrs), case.label


def doors() -> list[str]:
    """Operations that have a door of their own name."""
    door: Any = dispatch.door("numba") if capability.reasons()["numba"] is None else None
    return [] if door is None else [op for op in SPECS if op in dir(door)]


@pytest.mark.parametrize(("op", "dtype"), with_dtypes(doors()))
def test_plain_calls_take_the_door(op: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*arguments: Any, **more: Any) -> None:
        raise AssertionError("the long way")
    inputs, attrs = arguments(op, dtype)
    monkeypatch.setattr(sys.modules[getattr(ops, op).__module__], "call", no)
    run(op, inputs, attrs, backend="numba")


def test_a_door_it_does_not_have_refuses() -> None:
    assert dispatch.door("numba").no_such_operation(1, 2) is NotImplemented


def test_concurrent_callers(rng: np.random.Generator) -> None:
    """Several Python threads at once, each with products and maps large enough to use the pool."""
    a, b = rng.standard_normal((2, 300, 300))
    want = bits(ops.gelu(ops.matmul(a, b, backend="numba"), backend="numba"))
    wrong: list[int] = []

    def caller() -> None:
        for i in range(5):
            if bits(ops.gelu(ops.matmul(a, b, backend="numba"), backend="numba")) != want:
                wrong.append(i)
    callers = [threading.Thread(target=caller) for _ in range(4)]
    for c in callers:
        c.start()
    for c in callers:
        c.join()
    assert not wrong


def test_nothing_is_compiled_after_warmup(child_env: dict[str, str], tmp_path: Path) -> None:
    """A process that comes after finds kernels, tasks and doors in the cache, those of every operation."""
    warmup = "import tilewright as tw; tw.warmup(dtypes=('float32',))"
    calls = """
from calls import SPECS, arguments, run
from tilewright.kernels.vector.timing import compile_seconds
with compile_seconds() as compiled:
    for op in SPECS:
        inputs, attrs = arguments(op, "float32")
        run(op, inputs, attrs, backend="numba")
assert not compiled, compiled
"""
    env = child_env | {"TILEWRIGHT_CACHE_DIR": str(tmp_path)}
    env.pop("NUMBA_CACHE_DIR", None)
    for code in (warmup, calls):
        result = subprocess.run([sys.executable, "-c", code], env=env, cwd=Path(__file__).parent, capture_output=True,
                                text=True)
        assert result.returncode == 0, result.stderr
