"""`out`: what it may be, what it may share memory with, and that a refusal leaves it as it was."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from calls import PURE, SPECS, WITH_OUT, WITH_OUTS, Subclass, arguments, floating, poisoned, result_form, results, run
from tilewright import errors


@pytest.mark.parametrize("op", WITH_OUT)
def test_wrong_out_is_refused_before_anything_is_written(op: str, backend: str) -> None:
    inputs, attrs = arguments(op)
    shape, dtype = result_form(op)
    locked = poisoned(shape, dtype)
    locked.flags.writeable = False
    wrong: list[tuple[Any, type[Exception]]] = [
        (poisoned((*shape, 1), dtype), errors.ShapeError), (poisoned((3, 5, 7), dtype), errors.ShapeError),
        (poisoned(shape, np.float16), errors.DTypeError), (np.full(shape, -1), errors.DTypeError),
        (poisoned(shape, dtype).tolist(), errors.DTypeError), ("out", errors.DTypeError),
        (locked, errors.ArgumentError)]
    if shape:
        wrong.append((np.broadcast_to(poisoned((), dtype), shape), errors.TilewrightError))
        strides = (0,) * (len(shape) - 1) + (dtype.itemsize,)
        stretched = np.lib.stride_tricks.as_strided(poisoned(shape[-1:], dtype), shape, strides)
        wrong += [(stretched, errors.AliasError)] if shape[0] > 1 and len(shape) > 1 else []
    for out, error in wrong:
        before = np.array(out).tobytes()
        with pytest.raises(error) as caught:
            run(op, inputs, attrs, out=out, backend=backend)
        assert op in str(caught.value)
        assert np.array(out).tobytes() == before


@pytest.mark.parametrize("op", WITH_OUT)
def test_every_form_of_out_is_written(op: str, backend: str) -> None:
    """Byte-swapped, unaligned and subclassed memory of the right shape and dtype; what comes back is `out` itself."""
    inputs, attrs = arguments(op)
    plain = np.asarray(run(op, inputs, attrs, backend=backend))
    shape, dtype = plain.shape, plain.dtype
    raw = np.zeros(plain.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(dtype).reshape(shape)
    for out in (unaligned, poisoned(shape, dtype).view(Subclass), poisoned(shape[::-1], dtype).T):
        assert run(op, inputs, attrs, out=out, backend=backend) is out
        assert (np.asarray(out) == plain).all()


CLOSE: dict[str, Any] = {"float64": {"rtol": 1e-11, "atol": 1e-13}, "float32": {"rtol": 1e-5, "atol": 1e-4}}


@pytest.mark.parametrize("op", WITH_OUT)
def test_overlapping_out(op: str, backend: str) -> None:
    """`out` in the memory of an input: the right result where the table allows it, else AliasError and nothing changed.

    Overlap is exact, shifted by one element, and reversed.
    """
    inputs, attrs = arguments(op)
    shape, dtype = result_form(op)
    want = np.asarray(run(op, inputs, attrs, backend="numpy"))
    for i, x in enumerate(inputs):
        if not isinstance(x, np.ndarray) or x.dtype != dtype or x.ndim == 0:  # numbers are copied
            continue
        size = max(x.size, int(np.prod(shape)))
        for name, place in {"exact": lambda m, n: m[:n], "shifted": lambda m, n: m[1:n + 1],
                            "behind": lambda m, n: m[-n:], "reversed": lambda m, n: m[:n][::-1]}.items():
            memory = np.full(size + 1, 7, dtype)
            inside = memory[:x.size].reshape(x.shape)
            inside[...] = x
            out = place(memory, int(np.prod(shape))).reshape(shape)
            if not np.shares_memory(out, inside):
                continue
            before = memory.copy()
            changed = inputs[:i] + [inside] + inputs[i + 1:]
            if i in SPECS[op].may_alias:
                assert run(op, changed, attrs, out=out, backend=backend) is out
                np.testing.assert_allclose(out, want, **CLOSE[dtype.name], err_msg=f"{op} {name}")
            else:
                with pytest.raises(errors.AliasError):
                    run(op, changed, attrs, out=out, backend=backend)
                assert (memory == before).all(), (op, name)


@pytest.mark.parametrize("op", WITH_OUTS)
def test_several_results_go_into_a_tuple(op: str, backend: str) -> None:
    """All of them, or those that are no None; the same bits as into new arrays, however the arrays lie."""
    inputs, attrs = arguments(op)
    plain = run(op, inputs, attrs, backend=backend)
    given = tuple(poisoned(shape[::-1], dtype).T for shape, dtype in results(op))
    for outs in (given, (None, *given[1:]), (*given[:-1], None)):
        returned = run(op, inputs, attrs, out=outs, backend=backend)
        assert all(out is None or out is r for out, r in zip(outs, returned, strict=True))
        assert all(np.array_equal(r, p) for r, p in zip(returned, plain, strict=True))


@pytest.mark.parametrize("op", WITH_OUTS)
def test_wrong_tuples_are_refused(op: str, backend: str) -> None:
    inputs, attrs = arguments(op)
    good = [poisoned(shape, dtype) for shape, dtype in results(op)]
    memory = poisoned((sum(x.size for x in good),), good[0].dtype)
    together = [memory[:x.size].reshape(x.shape) for x in good]
    i = next(i for i in floating(inputs) if inputs[i].shape == good[0].shape)
    wrong: list[tuple[Any, type[Exception]]] = [
        (good[0], errors.ArgumentError), (tuple(good[:-1]), errors.ArgumentError), ([*good], errors.ArgumentError),
        ((good[0][:-1], *good[1:]), errors.ShapeError), ((*good[:-1], good[-1].astype(np.float32)), errors.DTypeError),
        (tuple(together), errors.AliasError), ((inputs[i], *good[1:]), errors.AliasError)]
    for out, error in wrong:
        with pytest.raises(error) as caught:
            run(op, inputs, attrs, out=out, backend=backend)
        assert op in str(caught.value)
        assert all(np.isnan(x).all() for x in (*good, memory))


@pytest.mark.parametrize("op", [op for op in PURE if op not in WITH_OUT + WITH_OUTS])
def test_other_calls_take_no_out(op: str) -> None:
    inputs, attrs = arguments(op)
    with pytest.raises(TypeError):
        run(op, inputs, attrs, out=np.empty(3))
