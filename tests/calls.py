"""Small calls of the public functions, for the tests of what they promise."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import conformance
from tilewright import ops
from tilewright.core import capability, registry

SPECS = registry.specs()
PURE = [op for op, spec in SPECS.items() if not spec.mutates]
FLOATING = [op for op in PURE if "float64" in SPECS[op].dtypes]
TAKE_OUT = [op for op in PURE if "out" in getattr(ops, op).__kwdefaults__]
AVAILABLE = capability.backends()


def arguments(op: str, dtype: str = "float64") -> tuple[list[Any], dict[str, Any]]:
    """Arguments of a small, contiguous call; an operation on integers has its own dtypes."""
    dtype = dtype if dtype in SPECS[op].dtypes else SPECS[op].dtypes[0]
    case = next(iter(SPECS[op].bench(np.random.default_rng(conformance.SEED), dtype, "small")))
    return list(case.inputs), dict(case.attrs)


def results(op: str) -> tuple:
    """(shape, dtype) of each result of `arguments`."""
    inputs, attrs = arguments(op)
    return SPECS[op].prepare(tuple(inputs), attrs).outputs


WITH_OUT = [op for op in TAKE_OUT if len(results(op)) == 1]
WITH_OUTS = [op for op in TAKE_OUT if len(results(op)) > 1]
ELEMENTWISE = [op for op in WITH_OUT if SPECS[op].family in ("activation", "dropout")]


def floating(inputs: list[Any]) -> list[int]:
    return [i for i, x in enumerate(inputs) if isinstance(x, np.ndarray) and x.dtype.kind not in "iub"]


def run(op: str, inputs: Any, attrs: dict, **more: Any) -> Any:
    return getattr(ops, op)(*inputs, **attrs, **more)


def several(result: Any) -> tuple:
    return result if isinstance(result, tuple) else (result,)


def bits(result: Any) -> list[bytes]:
    return [np.asarray(r).tobytes() for r in several(result)]


class Subclass(np.ndarray):
    """An array of somebody else's type."""


def read_only(x: np.ndarray) -> np.ndarray:
    y = x.copy()
    y.flags.writeable = False
    return y


def poisoned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.full(shape, 90 if np.dtype(dtype).kind in "iu" else np.nan, dtype)


def result_form(op: str, dtype: str = "float64") -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of the result of `arguments`."""
    inputs, attrs = arguments(op, dtype)
    (shape, dtype_), = SPECS[op].prepare(tuple(inputs), attrs).outputs
    return shape, dtype_


def refused(error: type[Exception], op: str, *inputs: Any, **attrs: Any) -> None:
    """The call raises that error on every backend, and the message names the operation."""
    for backend in (None, *AVAILABLE):
        with pytest.raises(error) as caught:
            getattr(ops, op)(*inputs, backend=backend, **attrs)
        assert op in str(caught.value)
