"""The conformance check is checked: kernels broken on purpose, each in one way that kernels break, must be caught."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import conformance
from tilewright.core import checking, registry, threads
from tilewright.core.registry import Call, Case, Kernel
from tilewright.kernels.maddubs.spec import maddubs

Outs = Sequence[np.ndarray]
Fault = Callable[[Kernel, Call, Outs], Any]


def mutant(op: str, fault: Fault) -> Kernel:
    """NumPy's kernel of an operation, with a fault around it. It has a variant name: public calls do not reach it."""
    real = registry.kernels(registry.spec(op).family, "numpy")[op, ""]
    return dataclasses.replace(real, variant="broken", run=lambda call, outs: fault(real, call, outs))


def complaints(op: str, fault: Fault, *cases: Case, layout: str = "c") -> list[str]:
    kernel, spec = mutant(op, fault), registry.spec(op)
    return [c for case in cases for c in conformance.Check(kernel, conformance.sample(spec, case), layout).complaints]


def case(op: str, dtype: str = "float32") -> Case:
    """A fresh case with enough rows, columns and elements for every fault to show."""
    rng = np.random.default_rng(conformance.SEED)

    def new(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(dtype)
    return {
        "matmul": lambda: Case((new(19, 23), new(23, 37))),
        "gemm": lambda: Case((new(19, 23), new(23, 37), new(19, 37)), {"alpha": 0.5, "beta": 2.0}),
        "linear": lambda: Case((new(19, 23), new(37, 23), new(37), new(19, 37)), {"activation": "gelu"}),
        "gelu": lambda: Case((new(19, 37),)),
        "softmax": lambda: Case((new(19, 37),)),
        "layer_norm": lambda: Case((new(19, 37), new(37), new(37))),
        "cross_entropy_backward": lambda: Case((new(), new(19, 37), rng.integers(0, 37, 19))),
        "embedding_backward": lambda: Case((new(60, 37), rng.integers(0, 19, 60)), {"num_embeddings": 19}),
    }[op]()


def nothing(real: Kernel, call: Call, outs: Outs) -> None:
    real.run(call, outs)


def nan(real: Kernel, call: Call, outs: Outs) -> None:
    real.run(call, outs)
    outs[0][7, 11] = np.nan


def swapped_columns(real: Kernel, call: Call, outs: Outs) -> None:
    real.run(call, outs)
    outs[0][:, [3, 4]] = outs[0][:, [4, 3]]


def swapped_rows(real: Kernel, call: Call, outs: Outs) -> None:
    real.run(call, outs)
    outs[0][[3, 4]] = outs[0][[4, 3]]


def dropped_tail(real: Kernel, call: Call, outs: Outs) -> None:
    kept = outs[0][:, -1].copy()
    real.run(call, outs)
    outs[0][:, -1] = kept


def zeroed_tail(real: Kernel, call: Call, outs: Outs) -> None:
    real.run(call, outs)
    outs[0][:, 32:] = 0


def overrun(real: Kernel, call: Call, outs: Outs) -> None:
    real.run(call, outs)
    rows, columns = outs[0].shape
    as_strided(outs[0], (rows, columns + 1), outs[0].strides)[-1, -1] = 1.0


def underrun(real: Kernel, call: Call, outs: Outs) -> None:
    real.run(call, outs)
    backwards = outs[0][::-1, ::-1]
    as_strided(backwards, (backwards.shape[0], backwards.shape[1] + 1), backwards.strides)[-1, -1] = 1.0


def out_of_bound(real: Kernel, call: Call, outs: Outs) -> None:
    """Off by three bounds in one element: little more than what can be told for certain."""
    real.run(call, outs)
    expected = registry.spec(call.op).oracle(call)
    bound = registry.spec(call.op).bound(call, expected)[0]
    outs[0][5, 6] = expected[0][5, 6] + 3 * bound[5, 6]


def writes_input(real: Kernel, call: Call, outs: Outs) -> None:
    real.run(call, outs)
    x = next(x for x in call.inputs if x is not None and x.ndim)
    x.flags.writeable = True
    x[..., 0] = 0


def depends_on_threads(real: Kernel, call: Call, outs: Outs) -> None:
    """One last place more in one element with three threads: well within the bound."""
    real.run(call, outs)
    if threads.get_num_threads() == 3:
        outs[0][5, 6] = np.nextafter(outs[0][5, 6], np.float32(np.inf))


def depends_on_the_past(real: Kernel, call: Call, outs: Outs) -> None:
    """Adds to what was there instead of writing."""
    before = outs[0].copy()
    real.run(call, outs)
    outs[0][...] += before


FAULTS = [nan, swapped_columns, swapped_rows, dropped_tail, zeroed_tail, overrun, underrun, out_of_bound, writes_input,
          depends_on_threads, depends_on_the_past]
OPS = ["matmul", "gemm", "linear", "gelu", "softmax", "layer_norm", "cross_entropy_backward", "embedding_backward"]


@pytest.mark.parametrize("op", OPS)
def test_the_unbroken_kernel_passes(op: str) -> None:
    for layout in ("c", "step", "negative"):
        assert complaints(op, nothing, case(op), layout=layout) == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("op", OPS)
def test_caught(op: str, fault: Fault) -> None:
    assert complaints(op, fault, case(op))


def reads_c(real: Kernel, call: Call, outs: Outs) -> None:
    real.run(call, outs)
    if call.inputs[2] is not None:
        outs[0][...] += np.float32(call.attrs["beta"]) * call.inputs[2]


def reads_a(real: Kernel, call: Call, outs: Outs) -> None:
    outs[0][...] = call.attrs["alpha"] * np.matmul(*call.inputs[:2]) + np.float32(call.attrs["beta"]) * call.inputs[2]


@pytest.mark.parametrize(("fault", "attrs"), [(reads_c, {"beta": 0.0}), (reads_a, {"alpha": 0.0})])
def test_reading_what_must_not_be_read_is_caught(fault: Fault, attrs: dict) -> None:
    """The table's own cases hold NaN in the operands that a factor of zero shuts off."""
    cases = [c for c in registry.spec("gemm").cases(np.random.default_rng(0), "float32") if "does not read" in c.label]
    assert len(cases) == 2
    assert complaints("gemm", fault, *(c for c in cases if c.attrs == attrs))


# ---- integer products: what instructions and shortcuts make of them, as a function of a, b and their zero points

def exact(a: np.ndarray, b: np.ndarray, a_zero: Any, b_zero: Any, dtype: Any = np.float64) -> np.ndarray:
    """By float64's BLAS, below 2^53."""
    return np.matmul((a - a_zero[..., None]).astype(dtype), (b - b_zero[..., None, :]).astype(dtype))


def pairs_of_16_bits(a: np.ndarray, b: np.ndarray, a_zero: Any, b_zero: Any) -> np.ndarray:
    """vpmaddubsw, with zero points applied exactly."""
    y = exact(a, b, a_zero, b_zero)
    return y - np.matmul(a.astype(np.int64), b) + maddubs(a, b)[0] if (a.dtype, b.dtype) == (np.uint8, np.int8) else y


def sums_that_stop(a: np.ndarray, b: np.ndarray, a_zero: Any, b_zero: Any) -> np.ndarray:
    """An int32 that saturates instead of wrapping."""
    return np.clip(exact(a, b, a_zero, b_zero), -2**31, 2**31 - 1)


def sums_of_floats(a: np.ndarray, b: np.ndarray, a_zero: Any, b_zero: Any) -> np.ndarray:
    return exact(a, b, a_zero, b_zero, np.float32)


def one_zero_for_all_rows(a: np.ndarray, b: np.ndarray, a_zero: Any, b_zero: Any) -> np.ndarray:
    return exact(a, b, a_zero[..., :1], b_zero)


def one_zero_for_all_columns(a: np.ndarray, b: np.ndarray, a_zero: Any, b_zero: Any) -> np.ndarray:
    return exact(a, b, a_zero, b_zero[..., :1])


def zeros_counted_in_the_padding(a: np.ndarray, b: np.ndarray, a_zero: Any, b_zero: Any) -> np.ndarray:
    """k rounded up to whole words of four."""
    return exact(a, b, a_zero, b_zero) + (-a.shape[-1] % 4) * a_zero[..., None].astype(np.int64) * b_zero[..., None, :]


def bytes_without_a_sign(a: np.ndarray, b: np.ndarray, a_zero: Any, b_zero: Any) -> np.ndarray:
    return exact(a, b.view(np.uint8), a_zero, b_zero)


INTEGER_FAULTS = [pairs_of_16_bits, sums_that_stop, sums_of_floats, one_zero_for_all_rows, one_zero_for_all_columns,
                  zeros_counted_in_the_padding, bytes_without_a_sign]


@pytest.mark.parametrize("product", [exact, *INTEGER_FAULTS], ids=lambda f: f.__name__)
def test_integer_products_are_caught_where_they_break(product: Callable[..., np.ndarray]) -> None:
    """By the table's own cases at the ends of the ranges."""
    def fault(real: Kernel, call: Call, outs: Outs) -> None:
        a, b, a_zero, b_zero = call.inputs
        zeros = (np.zeros(shape, np.int64) if zero is None else zero
                 for zero, shape in ((a_zero, a.shape[:-1]), (b_zero, (*b.shape[:-2], b.shape[-1]))))
        y = product(a, b, *zeros)
        outs[0][...] = y.astype(np.int64).astype(np.uint32).view(np.int32)

    least, most = (0, 100) if product not in (sums_that_stop, sums_of_floats) else (1000, 100_000)
    samples = [s for s in conformance.samples("matmul_integer", "uint8")
               if "extremes" in s.case.label and least <= s.call.inputs[0].shape[-1] <= most]
    assert any(conformance.Check(mutant("matmul_integer", fault), s, "c").complaints
               for s in samples) == (product is not exact)


def test_ignoring_strides_is_caught() -> None:
    """A kernel that writes as if its result were contiguous."""
    def fault(real: Kernel, call: Call, outs: Outs) -> None:
        real.run(call, (as_strided(outs[0], outs[0].shape, (outs[0].shape[1] * outs[0].itemsize, outs[0].itemsize)),))
    for layout in ("f", "step", "offset"):
        assert complaints("gelu", fault, case("gelu"), layout=layout)


def test_forgetting_a_special_value_is_caught() -> None:
    """tanh by exp(2x) overflows: the special values of the table tell."""
    def fault(real: Kernel, call: Call, outs: Outs) -> None:
        with np.errstate(all="ignore"):
            e = np.exp(2 * call.inputs[0])
            outs[0][...] = (e - 1) / (e + 1)
    cases = registry.spec("tanh").cases(np.random.default_rng(0), "float32")
    assert complaints("tanh", fault, *(c for c in cases if c.label == "special values"))


def test_wrong_mutation_is_caught() -> None:
    """An optimizer step that forgets one element, one that writes into the gradients, one that writes past the end."""
    arrays = [[np.full((5, 7), value, np.float32)] for value in (1.0, 0.5, 0.25, 0.125)]
    sample = Case(tuple(arrays), {"step": 3})

    def forgets(real: Kernel, call: Call, outs: Outs) -> None:
        kept = call.inputs[0][0][4, 6]
        real.run(call, outs)
        call.inputs[0][0][4, 6] = kept

    def writes_grads(real: Kernel, call: Call, outs: Outs) -> None:
        real.run(call, outs)
        call.inputs[1][0][...] = 0

    def writes_past(real: Kernel, call: Call, outs: Outs) -> None:
        real.run(call, outs)
        as_strided(call.inputs[2][0], (5, 8), call.inputs[2][0].strides)[4, 7] = 0

    assert complaints("adam_step", nothing, sample) == []
    for fault in (forgets, writes_grads, writes_past):
        assert complaints("adam_step", fault, sample)


def test_raising_is_caught() -> None:
    def fault(real: Kernel, call: Call, outs: Outs) -> None:
        raise MemoryError("no")
    outcome = conformance.conform(mutant("dropout", fault), "float32")
    assert len(outcome.complaints) == outcome.ran > 50


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e300])
def test_mismatch_rejects_what_is_no_number(wrong: float) -> None:
    """Also where the bound is NaN or the other side is not finite."""
    one = np.array([1.0])
    assert checking.mismatch(np.array([wrong]), one, np.array([0.1]))
    assert checking.mismatch(one, np.array([wrong]), np.array([0.1]))
    assert checking.mismatch(one, np.array([2.0]), np.array([np.nan]))
    assert checking.mismatch(np.array([wrong]), np.array([wrong]), np.array([0.0])) is None


def test_mismatch_at_the_edge_of_the_range() -> None:
    """A result past the largest number may be infinite, of the right sign only; one well below it may not."""
    largest, bound = float(np.finfo(np.float32).max), np.array([1e32])
    inf = np.array([np.inf], np.float32)
    assert checking.mismatch(inf, np.array([largest * 2]), bound) is None
    assert checking.mismatch(-inf, np.array([largest * 2]), bound)
    assert checking.mismatch(inf, np.array([largest / 2]), bound)
    assert checking.mismatch(np.zeros(1, np.float32), np.array([largest * 2]), bound)


def test_mismatch_compares_shapes_and_integers() -> None:
    assert checking.mismatch(np.zeros(3), np.zeros(4), np.zeros(4))
    assert checking.mismatch(np.array([1, 2]), np.array([1, 3]), np.array([9.0, 9.0]))
    assert checking.mismatch(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3))) is None
