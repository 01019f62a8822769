"""From a public call to a kernel: normal form, choice, output, run."""
from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import numpy as np

from . import arrays, capability, device, device_arrays, native, registry
from .capability import require, unavailable
from .errors import AliasError, ArgumentError, BackendUnavailable
from .registry import Call, Kernel

# `use_backend` blocks, innermost last
_entered: ContextVar[tuple[Any, ...]] = ContextVar("tilewright_backend", default=())
_transfer: ContextVar[bool] = ContextVar("tilewright_transfer", default=False)  # of the innermost of them


def parse(name: str) -> tuple[str, str]:
    """("c", "naive") from "c:naive"; raises for a name that is no backend."""
    backend, _, variant = name.partition(":")
    if backend != "auto" and backend not in capability.BACKENDS:
        raise ArgumentError(f"no backend {backend!r}; there are: auto, {', '.join(capability.BACKENDS)}")
    return backend, variant


def _from_environment() -> str | None:
    name = os.environ.get("TILEWRIGHT_BACKEND") or None
    if name is not None:
        parse(name)
    return name


_default = _from_environment()
_verbose = os.environ.get("TILEWRIGHT_VERBOSE", "0") not in ("", "0")  # print each call's kernel to standard error
_door = None if _verbose else native.door  # verbose: everything takes the long way, which can tell


def active() -> str | None:
    """The backend in force where a call names none: of `use_backend`, else of TILEWRIGHT_BACKEND, else None (auto)."""
    entered = _entered.get()
    return entered[-1] if entered else _default


class use_backend:
    """Use one backend for all calls in a `with` block (of this thread or task) that name none.

    transfer: of "cuda": takes NumPy arrays too, which every call copies to the device and back. Raises ArgumentError
    for an unknown name and BackendUnavailable, with the reason, for one that cannot run here.

    >>> import numpy as np, tilewright as tw
    >>> with tw.use_backend("numpy"):
    ...     tw.relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    """

    __slots__ = ("name", "transfer", "_tokens")

    def __init__(self, name: str, *, transfer: bool = False):
        backend, _ = parse(name)
        if backend != "auto":
            require(backend)
        if transfer and backend != "cuda":
            raise ArgumentError(f"use_backend: transfer=True is of 'cuda', not {name!r}, which runs on the host")
        self.name, self.transfer = name, transfer
        self._tokens: list[Any] = []

    def __enter__(self) -> use_backend:
        enter(self.name)
        self._tokens.append(_transfer.set(self.transfer))
        return self

    def __exit__(self, *exc: object) -> None:
        _transfer.reset(self._tokens.pop())
        leave()


@contextmanager
def transfers() -> Iterator[None]:
    """Let NumPy arrays onto a device, as use_backend(..., transfer=True) does, whichever backend is in force."""
    token = _transfer.set(True)
    try:
        yield
    finally:
        _transfer.reset(token)


def enter(name: Any) -> None:
    """Put a backend's name, or a recording, in force; `leave` ends that."""
    _entered.set((*_entered.get(), name))


def leave() -> None:
    _entered.set(_entered.get()[:-1])


def recording() -> Any:
    """The recording that is in force as a backend (core/replay.py), or None."""
    entered = _entered.get()
    return entered[-1] if entered and hasattr(entered[-1], "through_door") else None


def door(backend: str | None) -> Any:
    """The functions of the backend in force that take ndarrays directly, where it has such (C and Numba); else None.

    This is the fast path of the public calls: compiled code checks plain arguments in a hundred nanoseconds and answers
    NotImplemented, having written nothing, for everything that wants the long way through `call`.
    """
    if backend is None:
        entered = _entered.get()
        backend = entered[-1] if entered else _default
    if backend is None or backend == "c" or backend == "auto":
        return _door
    return _numba_door() if backend == "numba" else getattr(backend, "door", None)  # a recording has one


@cache
def _numba_door() -> Any:
    """Numba's functions, where it can run; they are imported and compiled at first use."""
    if _verbose or unavailable("numba") is not None:
        return None
    return importlib.import_module("tilewright.kernels.vector.door").door()


def why_not(kernel: Kernel, call: Call) -> str | None:
    """None if the kernel can run this call here, else the reason."""
    reason = unavailable(kernel.backend)
    if reason is None and arrays.name_of(call.dtype) not in kernel.dtypes:
        reason = f"{call.dtype} is not among its dtypes ({', '.join(kernel.dtypes)})"
    return reason or _out_of_reach(kernel, call) or kernel.supports(call)


def _out_of_reach(kernel: Kernel, call: Call) -> str | None:
    """Why a kernel cannot get at a call's arrays where they are."""
    if call.place is not None:
        return None if kernel.backend == "cuda" else "its arrays are on a CUDA device; tw.to_host(x) copies one back"
    if kernel.backend != "cuda" or device.emulated() or _transfer.get():
        return None
    return ("its arrays are on the host; tw.to_device copies one to the device, and "
            "tw.use_backend('cuda', transfer=True) those of every call there and back")


def select(call: Call, backend: str | None = None) -> Kernel:
    """The kernel for a call: the one named, else the first in the order of `capability.BACKENDS` that can run it.

    That order is the measured one: on every machine tried the C kernels lead Numba's, and those lead NumPy's. Arrays on
    a device are computed there.
    """
    name, variant = parse(backend or active() or "auto")
    if name == "auto" and call.place is not None:
        name = "cuda"
    family = registry.spec(call.op).family
    if name != "auto":
        require(name)
        rows = registry.kernels(family, name)
        kernel = rows.get((call.op, variant))
        if kernel is None:
            known = ", ".join(row_name(k) for (op, _), k in rows.items() if op == call.op)
            raise BackendUnavailable(f"{call.op} has no kernel {backend or active()!r}; there are: {known or 'none'}")
        reason = why_not(kernel, call)
        if reason is not None:
            raise BackendUnavailable(f"{call.op} cannot run on {row_name(kernel)!r}: {reason}")
        return kernel
    reasons = []
    for name in capability.BACKENDS:
        if name == "cuda" and device.emulated():
            reason = "emulated: it runs only when asked for by name"
        elif (reason := unavailable(name)) is None:
            kernel = registry.kernels(family, name).get((call.op, ""))
            reason = "no kernel of this operation" if kernel is None else why_not(kernel, call)
            if kernel is not None and reason is None:
                return kernel
        reasons.append(f"{name}: {reason}")
    raise BackendUnavailable(f"no backend can run {call.op}: " + "; ".join(reasons))


def call(op: str, inputs: tuple, attrs: dict[str, Any], out: Any = None, backend: str | None = None) -> Any:
    """Run one operation the long way: any argument that makes sense is taken, everything else raises before a write.

    Arguments that define `__tilewright_function__(op, inputs, attrs, out, backend)` take over the call, as Tensor does.
    """
    for x in inputs:
        takes_over = getattr(type(x), "__tilewright_function__", None)
        if takes_over is not None:
            return takes_over(x, op, inputs, attrs, out, backend)
    if backend is None and (record := recording()) is not None:
        return record.call(op, inputs, attrs, out)
    c = prepared(op, inputs, attrs, out)
    kernel = select(c, backend)
    if _verbose:
        print(f"tilewright: {op}({shapes(c)}) on {row_name(kernel)}: {how(kernel, c)}", file=sys.stderr)
    if c.place is not None:
        return _on_device(c, kernel, out)
    if not c.outputs:
        return run(kernel, c, ())
    if out is not None:
        _into(c, kernel, outs := _outs(c, out))
        return outs if len(outs) > 1 else out
    outs = tuple(np.empty(shape, dtype) for shape, dtype in c.outputs)
    run(kernel, c, c.kernel_outs(outs))
    results = tuple(out if out.ndim else out[()] for out in outs)  # NumPy's scalars for those without axes
    return results if len(results) > 1 else results[0]


def prepared(op: str, inputs: tuple, attrs: dict[str, Any], out: Any = None) -> Call:
    """A public call in normal form, wherever its arrays are; linear with a quantized matrix is another operation."""
    place = device_arrays.place_of(inputs, out)
    if place is not None:
        inputs = tuple(place.enter(x, op) for x in inputs)
    c = registry.spec(op).prepare(inputs, attrs)
    c.place = place
    return c


def run(kernel: Kernel, c: Call, outs: tuple[np.ndarray, ...]) -> Any:
    """Run a kernel on a call with arrays of the host; one of a device on copies of them."""
    if _lends(kernel, c):
        return device_arrays.lend(kernel, c, registry.spec(c.op).mutates, outs)
    return kernel.run(c, outs)


def how(kernel: Kernel, c: Call) -> str:
    """How a kernel would compute a call, in a few words; on a device, or emulated, that too."""
    if _lends(kernel, c):
        there = device_arrays.nbytes(c.inputs)
        back = sum(math.prod(shape) * dtype.itemsize for shape, dtype in c.outputs)
        c.note_copy(f"{there} bytes to the device, {back} back")
        return f"{kernel.describe(c)}, on copies"
    said = kernel.describe(c)
    return f"emulated, {said}" if kernel.backend == "cuda" and device.emulated() else said


def _lends(kernel: Kernel, c: Call) -> bool:
    return kernel.backend == "cuda" and c.place is None and not device.emulated()


def _on_device(c: Call, kernel: Kernel, out: Any) -> Any:
    """Run a kernel on arrays of the device; results are of the caller's kind, or are `out` itself."""
    place, spec = c.place, registry.spec(c.op)
    if not c.outputs:
        return place.leave(kernel.run(c, ()))
    given = out if isinstance(out, tuple) else (out,) if len(c.outputs) == 1 else (out,) * len(c.outputs)
    outs = _outs(c, tuple(place.enter(x, c.op) for x in given) if len(c.outputs) > 1 else place.enter(given[0], c.op),
                 place.empty)
    views = c.kernel_outs(outs)
    for o, view in zip(outs, views, strict=True):
        if not _writes_through(c, spec, o, o, view):
            raise AliasError(f"{c.op}: out on a device overlaps an input shifted, or has strides that the operation "
                             "cannot write; pass another array")
    kernel.run(c, views)
    results = tuple(place.leave(o) if g is None else g for o, g in zip(outs, given, strict=True))
    return results if len(results) > 1 else results[0]


def _outs(c: Call, out: Any, empty: Any = np.empty) -> tuple[np.ndarray, ...]:
    """The caller's arrays, checked; those that are None are made here."""
    given = (out,) if len(c.outputs) == 1 else out
    if not isinstance(given, tuple) or len(given) != len(c.outputs):
        raise ArgumentError(f"{c.op} returns {len(c.outputs)} arrays; out is a tuple of as many, or of None")
    outs = tuple(empty(shape, dtype) if x is None else arrays.check_out(c.op, x, shape, dtype)
                 for x, (shape, dtype) in zip(given, c.outputs, strict=True))
    for i, x in enumerate(outs):
        if any(arrays.overlaps(x, other) for other in outs[:i]):
            raise AliasError(f"{c.op}: two arrays of out share memory")
    return outs


def _into(c: Call, kernel: Kernel, outs: tuple[np.ndarray, ...]) -> None:
    """Run a kernel into the caller's arrays, those that it cannot write directly by way of new ones."""
    spec = registry.spec(c.op)
    plain = tuple(out.view(np.ndarray) for out in outs)  # kernels know no subclasses
    views = c.kernel_outs(plain)
    targets = tuple(p if _writes_through(c, spec, out, p, view) else np.empty(out.shape, out.dtype)
                    for out, p, view in zip(outs, plain, views, strict=True))
    run(kernel, c, c.kernel_outs(targets))
    for out, p, target in zip(outs, plain, targets, strict=True):
        if target is not p:
            out[...] = target


def _writes_through(c: Call, spec: registry.Spec, out: np.ndarray, plain: np.ndarray, view: np.ndarray) -> bool:
    """Whether a kernel can write this result in its place; AliasError where an input may not lie there."""
    direct = out.dtype.isnative and out.flags.aligned
    for i, x in enumerate(c.inputs):
        if not isinstance(x, np.ndarray) or not arrays.overlaps(out, x):
            continue
        if i not in spec.may_alias:
            raise AliasError(f"{c.op}: out shares memory with {spec.inputs[i]}; pass another array, or out=None")
        if not arrays.same_view(view, x):
            c.note_copy(f"out: it overlaps {spec.inputs[i]} shifted")
            direct = False
    return direct and (view is plain or np.may_share_memory(view, out) or out.size == 0)


def row_name(kernel: Kernel) -> str:
    """The name by which a kernel can be asked for: "c", "c:naive"."""
    return f"{kernel.backend}:{kernel.variant}" if kernel.variant else kernel.backend


def shapes(c: Call) -> str:
    return ", ".join(map(_shown, c.inputs))


def _shown(x: Any) -> str:
    if isinstance(x, tuple):
        return f"[{len(x)} arrays]"
    return "None" if x is None else f"{x.dtype}{list(x.shape)}"
