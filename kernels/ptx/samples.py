"""Which sample calls of the table's operations launch a kernel: found by preparing them all and launching none.

So a kernel that is declared and registered gets its traces and its mutation tests without a list of its own; what no
operation launches (arithmetic.py, reductions.py) is called as it is.
"""
from __future__ import annotations

import ctypes
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, product
from typing import Any

import numpy as np

from tilewright import emulate
from tilewright.core import arrays, device, dispatch, registry
from tilewright.core.on_device import at
from tilewright.core.registry import FLOATS, Call, Case

from . import arithmetic, reductions
from .emulated import Emulated

ELEMENTWISE = sorted({*arithmetic.EXAMPLES, *arithmetic.UNARY_EXAMPLES})
MOST_WORK = 3e7  # operations and bytes of a sample call
CCS = ((9, 0), (7, 5))  # which hosts choose kernels for
SEED = 0
ALIGNMENT = 256  # bytes, of what a device's allocator gives
APART = 1 << 15  # bytes at least between arrays: an index that strays is not to find another one


@dataclass(frozen=True)
class Sample:
    """One call that launches some kernels. `run` makes it; `launches`: a kernel's name, its blocks and numbers."""

    op: str
    call: Callable[[], Call] | None  # gives it in normal form; None: a call of arithmetic.py or reductions.py
    run: Callable[[], Any]
    launches: tuple[tuple[str, tuple[int, int, int], tuple], ...]
    cc: tuple[int, int]  # of the device that it was prepared for: hosts choose kernels by it

    def of(self, name: str) -> tuple:
        """What decides a kernel's way in this call: its blocks and numbers, of every launch."""
        return tuple((blocks, numbers) for launched, blocks, numbers in self.launches if launched == name)


class Recorder(Emulated):
    """A device that launches nothing, and notes what it was to launch."""

    def __init__(self, cc: tuple[int, int] = device.EMULATED_CC):
        super().__init__(cc)
        self.launches: list[tuple[str, tuple[int, int, int], tuple]] = []
        self.kernels: dict[str, Any] = {}

    def launch(self, kernel: Any, blocks: tuple[int, int, int], values: Sequence[Any],
               reach: Sequence[tuple[np.ndarray, str]], shared: int, stream: Any = None) -> None:
        numbers = tuple(x for x in values if not isinstance(x, np.ndarray))
        self.launches.append((kernel.name, blocks, numbers))
        self.kernels[kernel.name] = kernel


class Tracer(Emulated):
    """A device that counts what one kernel does, or all."""

    def __init__(self, name: str | None = None, cc: tuple[int, int] = device.EMULATED_CC):
        super().__init__(cc)
        self.traced, self.reports = name, list[emulate.Report]()

    def traces(self, kernel: Any) -> bool:
        return self.traced in (None, kernel.name)

    def launched(self, kernel: Any, report: emulate.Report) -> None:
        if self.traces(kernel):
            self.reports.append(report)


def calls() -> Iterator[Sample]:
    """Every conformance case and small benchmark case of every CUDA kernel of the table, with what it launches."""
    recorders = [Recorder(cc) for cc in CCS]
    for op, spec in registry.specs().items():
        rows = list(registry.variants(op, "cuda"))
        for dtype in {name: 0 for row in rows for name in spec.dtypes if name in row.dtypes}:
            rng = np.random.default_rng([SEED, zlib.crc32(f"{op} {dtype}".encode())])
            cases = chain(spec.cases(rng, dtype), spec.bench(rng, dtype, "small"))
            for prepare in chain((partial(_prepared, spec, case) for case in cases),
                                 (partial(_there, spec, case) for case in spec.device_cases(rng, dtype))):
                call = prepare()
                if spec.flops(call) + spec.nbytes(call) > MOST_WORK:
                    continue
                outs = call.kernel_outs([np.empty(shape, kind) for shape, kind in call.outputs])
                for recorder, row in product(recorders, rows):
                    with device.using(recorder):
                        if dispatch.why_not(row, call) is not None:
                            continue
                        recorder.launches.clear()
                        dispatch.run(row, call, outs)
                    yield Sample(op, prepare, partial(_run, spec, row, prepare), tuple(recorder.launches), recorder.cc)
    for recorder in recorders:
        yield from _own(recorder)


def _prepared(spec: registry.Spec, case: Case) -> Call:
    return spec.prepare(tuple(map(_aligned, case.inputs)), case.attrs)


def _there(spec: registry.Spec, case: Case) -> Call:
    """Prepared as for arrays on a device, into which the host cannot look."""
    aligned = (_aligned(np.asarray(x)) for x in case.inputs)
    call = spec.prepare(tuple(at(arrays.address(x), x.shape, x.dtype, x.strides, x) for x in aligned), case.attrs)
    return replace(call, inputs=tuple(x.view(np.ndarray) for x in call.inputs))


def _run(spec: registry.Spec, row: registry.Kernel, prepare: Callable[[], Call]) -> tuple[np.ndarray, ...]:
    """A call on memory of its own; what it wrote, in the shapes of the oracle's results."""
    call = prepare()
    if spec.mutates:
        call = replace(call, inputs=tuple(_copied(x) if i in spec.mutates else x for i, x in enumerate(call.inputs)))
    outs = tuple(_aligned(np.full(shape, 90 if dtype.kind in "iu" else np.nan).astype(dtype))
                 for shape, dtype in call.outputs)
    seen = call.kernel_outs(outs)
    dispatch.run(row, call, seen)
    if not spec.mutates:
        return seen
    return tuple(x for i in spec.mutates if call.inputs[i] is not None for x in _many(call.inputs[i]))


def _aligned(x: Any) -> Any:
    """A contiguous array where a device's allocator would put it, so that sectors are counted as there, and alone."""
    if not isinstance(x, np.ndarray) or not x.flags.c_contiguous or not x.size:
        return x
    memory = np.empty(x.nbytes + ALIGNMENT + 2 * APART, np.uint8)
    start = APART + -(memory.ctypes.data + APART) % ALIGNMENT
    there = memory[start:start + x.nbytes].view(x.dtype).reshape(x.shape)
    there[...] = x
    return there


def _copied(x: Any) -> Any:
    """The same in memory of its own, with the same strides and gaps; of a tuple, of each."""
    if not isinstance(x, np.ndarray) or not x.size:
        return tuple(map(_copied, x)) if isinstance(x, tuple) else x
    low, high = arrays.extent(x)
    memory = np.ctypeslib.as_array((ctypes.c_uint8 * (high - low)).from_address(low)).copy()
    return np.ndarray(x.shape, x.dtype, memory, arrays.address(x) - low, x.strides)


def _many(x: Any) -> tuple:
    return x if isinstance(x, tuple) else (x,)


def _own(recorder: Recorder) -> Iterator[Sample]:
    """Of arithmetic.py, contiguous and in columns, with a tail and without; of reductions.py, by rows and by lines."""
    shapes = ((4096,), 1), ((1021,), 1), ((1020,), 1), ((1,), 1), ((31, 17), 2), ((3, 5), 3)
    runs = [(name, partial(_elementwise, name, dtype, shape, step)) for name, dtype in ELEMENTWISE
            for shape, step in shapes]
    runs += [("convert", partial(_converted, *dtypes, shape, step)) for dtypes in arithmetic.CONVERT_EXAMPLES
             for shape, step in shapes]
    runs += [(name, partial(_reduced, name, dtype, shape, axes)) for name, dtype in product(("sum", "max"), FLOATS)
             for shape, axes in (((3, 4096), (1,)), ((7, 61), (1,)), ((3, 201), (1,)), ((2, 1100), (1,)),
                                 ((141, 3), (0,)), ((2, 5), (0,)), ((2, 3, 9001), (0, 2)))]
    for name, run in runs:
        recorder.launches.clear()
        with device.using(recorder):
            run()
        yield Sample(name, None, run, tuple(recorder.launches), recorder.cc)


def _columns(shape: tuple[int, ...], step: int, dtype: Any, seed: int = SEED) -> np.ndarray:
    """Small integers, every `step`th of a row: whatever they are made into, and their sums, they stay exact."""
    whole = np.random.default_rng(seed).integers(1, 60, (*shape[:-1], step * shape[-1]))
    return _aligned(whole.astype(dtype))[..., ::step]


def _elementwise(name: str, dtype: str, shape: tuple[int, ...], step: int) -> tuple[np.ndarray, np.ndarray]:
    """What arithmetic.py gives, and NumPy: the same bits, being one rounding; of exp and log e^0 and log 1."""
    x, y = _columns(shape, step, dtype), _columns(shape, step, dtype, SEED + 1)
    out = _aligned(np.full(shape, np.nan, dtype))
    if name in arithmetic.BINARY:
        arithmetic.binary(name, x, y, out)
        return out, getattr(np, name)(x, y).astype(dtype)
    x[...] = {"exp": 0, "log": 1}.get(name, x)
    arithmetic.unary(name, x, out, 3.0)
    expected: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "copy": np.positive, "divided_by_it": lambda x: x.dtype.type(3) / x, "exp": np.exp, "log": np.log}
    return out, expected[name](x)


def _converted(source: str, target: str, shape: tuple[int, ...], step: int) -> tuple[np.ndarray, np.ndarray]:
    x = _columns(shape, step, source)
    out = _aligned(np.full(shape, 99).astype(target))
    arithmetic.convert(x, out)
    return out, x.astype(target)


def _reduced(name: str, dtype: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    x = _columns(shape, 1, dtype)
    expected = np.asarray(getattr(np, name)(x, axis=axes))
    out = _aligned(np.full(expected.shape, np.nan, dtype))
    reductions.over(name, x, axes, out)
    return out, expected


def trace(name: str, samples: Sequence[Sample]) -> emulate.Report | None:
    """What a kernel does in the launch of most threads among the sample calls; None where none launches it."""
    found = [s for s in samples if s.of(name)]
    if not found:
        return None
    most = max(found, key=lambda s: sum(int(np.prod(blocks)) for blocks, _ in s.of(name)))
    with device.using(Tracer(name, most.cc)) as tracer:
        most.run()
    return max(tracer.reports, key=lambda r: int(np.prod(r.grid)))


