"""The table of operations and of the kernels that implement them.

`kernels/<family>/spec.py` holds `SPECS`, `kernels/<family>/<stem>.py` holds `KERNELS`; a stem is a backend's file name
(`capability.BACKENDS`). Both are found by enumerating the folders: there is no other list. Dispatch, explain, tests,
benchmarks and the generated tables of the documentation all read this table.
"""
from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from . import capability
from .errors import ArgumentError

FLOATS = ("float32", "float64")
HALVES = ("float16", "bfloat16")  # storage only: computed in float32
BYTES = ("uint8", "int8")


View = Callable[[np.ndarray], np.ndarray]


@dataclass(slots=True)
class Call:
    """One call in normal form: what every kernel of the operation accepts.

    `inputs` are ndarrays (or None, or tuples of ndarrays for operations on lists) of one dtype, in native byte order,
    aligned, with any strides. `attrs` are complete and validated. `outputs` are the (shape, dtype) of the results as
    the caller sees them; `views` (one for each, or none at all) turn such arrays into the views that kernels write: an
    axis moved last, a 1-D product as a matrix. `copies` says in words what had to be copied on the way, for `explain`.
    `packed`: the PackedMatrix or QuantizedMatrix whose matrix, or its transpose (True), stands among the inputs.
    `key`: the dtype that decides which kernel runs, where that is not the one of the first floating input.
    `place`: None for arrays in the host's memory, else the Place of those on a device (core/device_arrays.py).
    """

    op: str
    inputs: tuple[Any, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[tuple[tuple[int, ...], np.dtype], ...] = ()
    views: tuple[View | None, ...] = ()
    copies: list[str] = field(default_factory=list)
    packed: tuple[Any, bool] | None = None
    key: np.dtype | None = None
    place: Any = None

    @property
    def dtype(self) -> np.dtype:
        """The dtype that decides which kernel runs: `key`, else that of the first floating input."""
        if self.key is not None:
            return self.key
        for x in self.inputs:
            first = x[0] if isinstance(x, tuple) and x else x
            if isinstance(first, np.ndarray) and first.dtype.kind not in "iub":
                return first.dtype
        return np.dtype(np.float32)  # an empty list of parameters: any kernel does

    def kernel_outs(self, outs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """The caller's results as the kernels see them."""
        if not self.views:
            return tuple(outs)
        return tuple(o if view is None else view(o) for o, view in zip(outs, self.views, strict=True))

    def note_copy(self, what: str) -> None:
        """Record a copy that a kernel's wrapper makes, so that `explain` can tell."""
        self.copies.append(what)


@dataclass(frozen=True, slots=True)
class Case:
    """One sample call of a public function: `ops.<op>(*inputs, **attrs)`.

    product: one of many of a product of what kernels distinguish; where every kernel takes seconds to compile, on the
    emulator, others stand for it
    """

    inputs: tuple[Any, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    product: bool = False


def _no_cases(rng: np.random.Generator, dtype: str) -> Iterable[Case]:
    return ()


@dataclass(frozen=True, slots=True)
class Spec:
    """What an operation is, apart from how any backend computes it.

    prepare(inputs, attrs) -> Call     checks the arguments of the public call and brings them into normal form
    oracle(call) -> (array, ...)       the exact results, in float64 (or integers), one for each output or mutated input
    bound(call, expected) -> (array, ...)    largest absolute error allowed, element by element, derived in its comment
    flops(call), nbytes(call)          work, and the least traffic: each operand read once, each result written once
    cases(rng, dtype) -> Case, ...     conformance: tile edges, odd and empty shapes, strides, special values
    device_cases(rng, dtype) -> Case, ...    what the host refuses for its elements, and answers on a device instead
    bench(rng, dtype, size) -> Case, ...     size "small" | "medium" | "large", for compare and the benchmarks
    gradient(run, inputs, outputs, grads, attrs) -> (array | None, ...)      one for each public input, where
                                       run(op, *inputs, **attrs) calls another public operation
    like: for each result, the input whose shape and dtype it has (None: none of them); () where that says nothing
    may_alias: inputs whose memory `out` may be; mutates: inputs that are changed in place (then there are no outputs)
    parts(*inputs, **attrs) -> (operation, Case), ...    of an operation that fuses several: the calls that do it one by
                                       one, each labelled with what it does there; compare times them apart
    sums(call): name of the dtype in which products are summed, "int32" for integers; None: that of the call
    """

    name: str
    family: str
    summary: str
    inputs: tuple[str, ...]
    prepare: Callable[[tuple, dict], Call]
    oracle: Callable[[Call], tuple]
    bound: Callable[[Call, tuple], tuple]
    flops: Callable[[Call], float]
    nbytes: Callable[[Call], float]
    cases: Callable[[np.random.Generator, str], Iterable[Case]]
    bench: Callable[[np.random.Generator, str, str], Iterable[Case]]
    gradient: Callable[..., tuple] | None = None
    dtypes: tuple[str, ...] = FLOATS
    like: tuple[int | None, ...] = ()
    may_alias: tuple[int, ...] = ()
    mutates: tuple[int, ...] = ()
    parts: Callable[..., Iterable[tuple[str, Case]]] | None = None
    sums: Callable[[Call], str] | None = None
    device_cases: Callable[[np.random.Generator, str], Iterable[Case]] = _no_cases


def _no_reason(call: Call) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Kernel:
    """One implementation: `run(call, outs)` writes every element of every array in `outs`.

    `variant` is "" for the kernel that a backend uses by default; the steps of the ladder that lead to it have names
    and are asked for as `backend="c:naive"`. `supports(call)` is None, or the reason why this kernel cannot run the
    call. `describe(call)` says in a few words how it would: ISA, tile, path, threads.
    """

    op: str
    backend: str
    run: Callable[[Call, Any], Any]
    variant: str = ""
    dtypes: tuple[str, ...] = FLOATS
    describe: Callable[[Call], str] = lambda call: ""
    supports: Callable[[Call], str | None] = _no_reason


def check_names(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise ArgumentError for the first name that is none of those known, and say which there are."""
    for name in given:
        if name not in known:
            raise ArgumentError(f"no {what} {name!r}; there are: {', '.join(known)}")


def families() -> list[str]:
    """The folders of `kernels/` that define operations."""
    package = importlib.import_module("tilewright.kernels")
    return [m.name for m in pkgutil.iter_modules(package.__path__)
            if m.ispkg and importlib.util.find_spec(f"tilewright.kernels.{m.name}.spec")]


@cache
def specs() -> dict[str, Spec]:
    """Every operation by name."""
    table: dict[str, Spec] = {}
    for family in families():
        for spec in importlib.import_module(f"tilewright.kernels.{family}.spec").SPECS:
            if spec.name in table:
                first = table[spec.name].family
                raise RuntimeError(f"operation {spec.name!r} is defined twice: in {first} and {family}")
            table[spec.name] = spec
    return table


def spec(op: str) -> Spec:
    """The definition of one operation."""
    check_names("operation", (op,), specs())
    return specs()[op]


@cache
def kernels(family: str, backend: str) -> dict[tuple[str, str], Kernel]:
    """The kernels of one family on one backend, by (operation, variant); empty where the backend has none."""
    name = f"tilewright.kernels.{family}.{capability.BACKENDS[backend].stem}"
    if importlib.util.find_spec(name) is None:
        return {}
    return index(importlib.import_module(name).KERNELS, backend)


def index(rows: Iterable[Kernel], backend: str) -> dict[tuple[str, str], Kernel]:
    """Index rows by (operation, variant); a duplicate, or a row of another backend, raises."""
    table: dict[tuple[str, str], Kernel] = {}
    for row in rows:
        if row.backend != backend:
            raise RuntimeError(f"kernel {row.op!r} names backend {row.backend!r} but stands among those of {backend!r}")
        if (row.op, row.variant) in table:
            raise RuntimeError(f"kernel {row.op!r} is registered twice on {backend!r} as variant {row.variant!r}")
        table[row.op, row.variant] = row
    return table


def variants(op: str, backend: str) -> Iterator[Kernel]:
    """The kernels of one operation on one backend, the default one first."""
    rows = kernels(spec(op).family, backend)
    yield from sorted((k for (name, _), k in rows.items() if name == op), key=lambda k: k.variant)
