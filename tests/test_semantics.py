"""What every public call promises on every backend: which arrays it takes, and what comes back."""
from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import conformance
import tilewright as tw
from calls import (
    AVAILABLE,
    ELEMENTWISE,
    FLOATING,
    PURE,
    SPECS,
    Subclass,
    arguments,
    bits,
    floating,
    read_only,
    run,
    several,
)
from tilewright import errors
from tilewright.core import capability, dispatch, registry, sampling

# ---- what is taken as an array

class OnlyArray:
    """An object that NumPy can convert."""

    def __init__(self, x: np.ndarray):
        self.x = x

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.x if dtype is None else self.x.astype(dtype)


class OnlyDLPack:
    """An object of another library."""

    def __init__(self, x: np.ndarray):
        self.x = x

    def __dlpack__(self, **options: Any) -> Any:
        return self.x.__dlpack__()

    def __dlpack_device__(self) -> Any:
        return self.x.__dlpack_device__()


def unaligned(x: np.ndarray) -> np.ndarray:
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:]
    raw[:] = np.frombuffer(x.tobytes(), np.uint8)
    y = raw.view(x.dtype).reshape(x.shape)
    assert not y.flags.aligned or x.itemsize == 1
    return y


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder("S")),
    "unaligned": unaligned,
    "read-only": read_only,
    "list": lambda x: x.tolist(),
    "memoryview": memoryview,
    "__array__": OnlyArray,
    "DLPack": OnlyDLPack,
    "subclass": lambda x: x.view(Subclass),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_array_is_taken(form: str, backend: str) -> None:
    """The same bits as from plain arrays, and a plain array comes back."""
    for op in PURE:
        inputs, attrs = arguments(op)
        plain = bits(run(op, inputs, attrs, backend=backend))
        for i in floating(inputs):
            changed = inputs[:i] + [FORMS[form](inputs[i])] + inputs[i + 1:]
            result = run(op, changed, attrs, backend=backend)
            assert bits(result) == plain, (op, i)
            assert all(type(r) is np.ndarray or isinstance(r, np.generic) for r in several(result))


@pytest.mark.parametrize("op", [op for op in PURE if any(name in ("labels", "indices") for name in SPECS[op].inputs)])
@pytest.mark.parametrize("kind", ["int8", "int32", "uint64", ">i8", "list", "strided"])
def test_every_kind_of_index_is_taken(op: str, kind: str, backend: str) -> None:
    inputs, attrs = arguments(op)
    i = next(i for i, name in enumerate(SPECS[op].inputs) if name in ("labels", "indices"))
    inputs[i] = inputs[i] % 10
    plain = bits(run(op, inputs, attrs, backend=backend))
    forms = {"list": lambda x: x.tolist(), "strided": lambda x: np.repeat(x, 3)[::-3][::-1]}
    inputs[i] = forms.get(kind, lambda x: x.astype(kind))(inputs[i])
    assert bits(run(op, inputs, attrs, backend=backend)) == plain


@pytest.mark.parametrize(("op", "kind"), [
    (op, kind) for op in FLOATING
    for kind in ("int32", "int64", "bool", "complex64", "float16", "longdouble", "U3", "O")
    if kind not in SPECS[op].dtypes])
def test_other_dtypes_are_refused(op: str, kind: str, backend: str) -> None:
    """Integers too: a product of integers in float32 would be silently inexact. The message names the argument."""
    inputs, attrs = arguments(op)
    for i in floating(inputs):
        wrong = inputs[:i] + [np.zeros(inputs[i].shape, kind)] + inputs[i + 1:]
        with pytest.raises(errors.DTypeError) as caught:
            run(op, wrong, attrs, backend=backend)
        assert SPECS[op].inputs[i] in str(caught.value)


@pytest.mark.parametrize("op", FLOATING)
@pytest.mark.parametrize("junk", [None, "text", object, {}, [[1.0], [1.0, 2.0]], [1, 2]], ids=str)
def test_junk_is_refused(op: str, junk: Any, backend: str) -> None:
    """As the first array of numbers; no junk reaches a kernel or comes out as an error of another kind."""
    inputs, attrs = arguments(op)
    i = floating(inputs)[0]
    inputs[i] = junk
    with pytest.raises(errors.TilewrightError):
        run(op, inputs, attrs, backend=backend)


def test_dtypes_promote_as_in_numpy(backend: str) -> None:
    for op in FLOATING:
        inputs, attrs = arguments(op, "float32")
        floats = floating(inputs)
        for i in floats if len(floats) > 1 else ():
            mixed = inputs[:i] + [inputs[i].astype(np.float64)] + inputs[i + 1:]
            wide = [x.astype(np.float64) if j in floats else x for j, x in enumerate(inputs)]
            result = run(op, mixed, attrs, backend=backend)
            assert np.asarray(several(result)[0]).dtype == np.float64
            assert bits(result) == bits(run(op, wide, attrs, backend=backend)), op


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_is_storage(half: str, backend: str, rng: np.random.Generator) -> None:
    """2000 small terms and a large one: summed in float32, rounded once. Mixed with float32 the result is float32."""
    import ml_dtypes
    dtype = np.dtype(getattr(ml_dtypes, half, half))
    a, b = np.full((3, 2001), 2.0 ** -6, dtype), np.ones((2001, 5), dtype)
    a[:, 0] = 64
    for y in (tw.matmul(a, b, backend=backend), tw.linear(a, np.ascontiguousarray(b.T), backend=backend)):
        assert y.dtype == dtype
        assert (y == np.full((3, 5), 95.25).astype(dtype)).all()
    x, w = rng.standard_normal((4, 6)).astype(dtype), rng.standard_normal((5, 6)).astype(np.float32)
    for y in (tw.linear(x, w, backend=backend), tw.matmul(x, w.T, backend=backend)):
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, x.astype(np.float64) @ w.T.astype(np.float64), rtol=1e-5, atol=1e-5)


def test_halves_of_two_kinds_are_refused(backend: str) -> None:
    """NumPy has no dtype for both."""
    import ml_dtypes
    a, b = np.ones((2, 2), np.float16), np.ones((2, 2), ml_dtypes.bfloat16)
    for call in (lambda: tw.matmul(a, b, backend=backend), lambda: tw.linear(b, a, backend=backend),
                 lambda: tw.quantized_linear(a, tw.quantize_weight(b), None, b, backend=backend)):
        with pytest.raises(errors.DTypeError, match="float16 and bfloat16|bfloat16 and float16"):
            call()


# ---- what comes back

def test_zero_dimensional_results_are_scalars(backend: str) -> None:
    x, row = np.array(0.5, np.float32), np.ones(3, np.float32)
    with tw.use_backend(backend):
        for result in (tw.relu(x), tw.matmul(row, row), tw.cross_entropy(row[None], [1]), tw.dropout(x, 0.5, 0)):
            assert type(result) is np.float32
    assert type(tw.sigmoid(0.5, backend=backend)) is np.float64
    out = np.empty((), np.float32)
    assert tw.relu(x, out=out, backend=backend) is out
    assert out == 0.5


MATMUL_SHAPES = [(), (3,), (4,), (1,), (0,), (3, 4), (4, 3), (4, 4), (1, 4), (4, 1), (0, 4), (4, 0),
                 (2, 3, 4), (2, 4, 3), (1, 4, 4), (5, 1, 4, 3), (2, 4, 0), (0, 4, 4)]


@pytest.mark.parametrize(("a", "b"), list(itertools.product(MATMUL_SHAPES, MATMUL_SHAPES)), ids=str)
def test_matmul_has_the_shapes_of_numpy(a: tuple, b: tuple, rng: np.random.Generator) -> None:
    x, y = rng.standard_normal(a), rng.standard_normal(b)
    try:
        want = np.matmul(x, y)
    except ValueError:
        want = None
    for backend in AVAILABLE:
        if want is None:
            with pytest.raises(errors.ShapeError):
                tw.matmul(x, y, backend=backend)
        else:
            found = tw.matmul(x, y, backend=backend)
            assert (type(found), found.shape, found.dtype) == (type(want), want.shape, want.dtype)
            np.testing.assert_allclose(found, want, rtol=1e-13, atol=1e-13)
            out = np.full(want.shape, np.nan)
            assert tw.matmul(x, y, out=out, backend=backend) is out
            np.testing.assert_allclose(out, want, rtol=1e-13, atol=1e-13)


def test_empty_arrays(backend: str) -> None:
    """Sizes of zero on each axis: sums of nothing are zeros, and nothing raises."""
    z = np.zeros
    assert tw.matmul(z((2, 0)), z((0, 3)), backend=backend).tolist() == z((2, 3)).tolist()
    assert tw.gemm(z((2, 0)), z((0, 3)), np.ones(3), beta=2.0, backend=backend).tolist() == [[2.0] * 3] * 2
    assert tw.linear(z((0, 4)), z((3, 4)), z(3), activation="gelu", backend=backend).shape == (0, 3)
    assert tw.linear(z((2, 0)), z((3, 0)), np.ones(3), activation="relu", backend=backend).tolist() == [[1.0] * 3] * 2
    dx, dw, dbias = tw.linear_backward(z((0, 3)), z((0, 4)), z((3, 4)), backend=backend)
    assert (dx.shape, dw.tolist(), dbias.tolist()) == ((0, 4), z((3, 4)).tolist(), z(3).tolist())
    assert tw.softmax(z((3, 0)), backend=backend).shape == (3, 0)
    dx, dw, db = tw.layer_norm_backward(z((0, 4)), z((0, 4)), np.ones(4), backend=backend)
    assert (dx.shape, dw.tolist(), db.tolist()) == ((0, 4), [0.0] * 4, [0.0] * 4)
    assert np.isnan(tw.cross_entropy(z((0, 3)), z(0, int), backend=backend))
    assert tw.cross_entropy(z((0, 3)), z(0, int), reduction="sum", backend=backend) == 0
    assert tw.embedding(z((2, 0), int), z((5, 3)), backend=backend).shape == (2, 0, 3)
    assert tw.embedding_backward(z((0, 3)), z(0, int), 4, backend=backend).tolist() == z((4, 3)).tolist()
    tw.sgd_step([], [], backend=backend)
    tw.adam_step([z(0)], [z(0)], [z(0)], [z(0)], step=1, backend=backend)
    assert tw.clip_grad_norm([], 1.0, backend=backend) == 0.0


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_view(data: st.DataObject, backend: str) -> None:
    """Slices with any start and step of arrays of up to four axes, transposed at random: the oracle's results."""
    op = data.draw(st.sampled_from([*ELEMENTWISE, "softmax", "rms_norm", "matmul"]))
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=9))
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True, max_dims=6))
    order = data.draw(st.randoms(use_true_random=False))

    def view() -> np.ndarray:
        x = np.asarray(rng.standard_normal(shape).astype(dtype)[index])
        axes = list(range(x.ndim))
        order.shuffle(axes)
        return x.transpose(axes)
    x = view()
    if x.ndim == 0 and op not in ELEMENTWISE:
        return
    inputs, attrs = {
        "matmul": lambda: ((x, rng.standard_normal((x.shape[-1], 3)).astype(dtype)[:, ::-1]), {}),
        "rms_norm": lambda: ((x, None), {}), "softmax": lambda: ((x,), {"axis": x.ndim // 2 - 1}),
        "dropout": lambda: ((x,), {"p": 0.5, "seed": 3}),
        "dropout_backward": lambda: ((x,), {"p": 0.25, "seed": 2**40}),
    }.get(op, lambda: ((x[...] * 0 + 2, x)[-len(SPECS[op].inputs):], {}))()
    sample = conformance.sample(SPECS[op], registry.Case(inputs, attrs, f"{shape} {index} {x.strides}"))
    kernel = registry.kernels(SPECS[op].family, backend)[op, ""]
    assert conformance.Check(kernel, sample, data.draw(st.sampled_from(sampling.LAYOUTS))).complaints == []


# ---- errors

@pytest.mark.parametrize(("error", "builtin"), [
    (errors.ShapeError, ValueError), (errors.DTypeError, TypeError), (errors.ArgumentError, ValueError),
    (errors.AliasError, ValueError), (errors.BackendUnavailable, RuntimeError), (errors.GradientError, RuntimeError),
    (errors.DataError, ValueError)])
def test_errors_are_also_built_in_errors(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, builtin)
    assert issubclass(error, errors.TilewrightError)


def test_backend_names(backend: str) -> None:
    x = np.ones(3)
    with pytest.raises(errors.ArgumentError, match="no backend 'fortran'"):
        tw.relu(x, backend="fortran")
    with pytest.raises(errors.BackendUnavailable, match="nosuch"):
        tw.relu(x, backend=f"{backend}:nosuch")
    assert (tw.relu(x, backend="auto") == x).all()


@pytest.mark.parametrize("name", [n for n, reason in capability.reasons().items() if reason is not None])
def test_unavailable_backends_say_why(name: str) -> None:
    out = np.full(3, np.nan)
    with pytest.raises(errors.BackendUnavailable) as caught:
        tw.relu(np.ones(3), out=out, backend=name)
    assert str(capability.reasons()[name]) in str(caught.value)
    assert np.isnan(out).all()
    assert name not in tw.backends()
    assert dispatch.active() is None
