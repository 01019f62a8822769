"""Write down what a piece of code computes, so that the same can be computed again without that code.

A Recording takes the place of the backend that is in force. It runs every call of an operation as that backend would
and keeps the function that did it with its arguments, results included: arrays, so that running the functions again
writes the same memory anew. What is computed otherwise goes through `recorded`, or is not seen.

Whether it was seen is found out by recording twice. In a recording every array has a name: the number of the call that
made it, or, for arrays from elsewhere, its identity. Arrays that are really constant (parameters, tables) have the same
identity in both recordings; those that unseen code makes anew each time have not. Numbers must be equal in both.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from . import dispatch
from .device_arrays import place_of
from .errors import ReplayError

Step = tuple[Callable[..., Any], tuple[Any, ...]]
NOT_ON_DEVICE = "compile: steps on arrays of a CUDA device are not replayed; call the step itself"
_PLAIN = (int, float, str, bool, type(None), np.generic, np.dtype, type)


def recorded(f: Callable[..., None], outs: tuple[Any, ...], *inputs: Any) -> None:
    """f(*outs, *inputs), which writes the arrays `outs` and may change state of its own; goes into a recording."""
    recording = dispatch.recording()
    if recording is None:
        f(*outs, *inputs)
    else:
        recording.note(f, outs, inputs)


class Recording:
    """Stands for a backend while `with recording: ...` is in force."""

    def __init__(self, backend: str | None):
        self.backend = backend or "auto"
        self.steps: list[Step] = []
        self.names: list[tuple[Any, ...]] = []  # of the function and the arguments of each step
        self._numbers: dict[int, int] = {}  # of the arrays made so far, by the identity of what owns their memory
        self._kept: list[Any] = []  # keeps identities unique
        self.door = None if (door := dispatch.door(self.backend)) is None else _Door(self, door)

    def __enter__(self) -> Recording:
        dispatch.enter(self)
        return self

    def __exit__(self, *exc: object) -> None:
        dispatch.leave()

    # ---- what is called while it is in force

    def note(self, f: Callable[..., None], outs: tuple[Any, ...], inputs: tuple[Any, ...]) -> None:
        """Run f(*outs, *inputs), unseen inside, and keep it."""
        with dispatch.use_backend(self.backend):
            f(*outs, *inputs)
        self._keep(f, (*outs, *inputs), outs)

    def call(self, op: str, inputs: tuple, attrs: dict[str, Any], out: Any) -> Any:
        """`dispatch.call`."""
        if place_of(inputs, out) is not None:
            raise ReplayError(NOT_ON_DEVICE)
        result = dispatch.call(op, inputs, attrs, out, self.backend)
        outs = result if isinstance(result, (np.ndarray, tuple)) else None
        overwritten = inputs[2:] if op == "linear_backward_weights" and attrs["beta"] == 0 else ()
        self._keep(dispatch.call, (op, inputs, attrs, outs, self.backend), overwritten if outs is None else outs)
        return result

    def through_door(self, f: Callable[..., Any], *args: Any) -> Any:
        """A function of the door to C."""
        result = f(*args)
        if result is NotImplemented:
            return result
        outs = result if isinstance(result, tuple) else (result,) if isinstance(result, np.ndarray) else ()
        if outs:  # new ones take the place of the None that asked for them
            args = args[:-len(outs)] + outs
        elif f.__name__ == "linear_backward_weights" and args[-1] == 0:
            outs = args[2:4]
        self._keep(f, args, outs)
        return result

    # ---- names

    def name(self, array: np.ndarray) -> None:
        """Count an array among those made: an argument of the code."""
        self._kept.append(_owner(array))
        self._numbers.setdefault(id(_owner(array)), len(self._numbers))

    def knows(self, array: Any) -> bool:
        """Whether this is memory that the steps write, or an argument."""
        return isinstance(array, np.ndarray) and id(_owner(array)) in self._numbers

    def _keep(self, f: Callable[..., Any], args: tuple[Any, ...], outs: Any) -> None:
        for x in arrays_in(outs):
            self.name(x)
        self.steps.append((f, args))
        self.names.append((f, self._name_of(args)))

    def _name_of(self, x: Any) -> Any:
        if isinstance(x, np.ndarray):
            owner = _owner(x)
            self._kept.append(owner)
            number = self._numbers.get(id(owner))
            at = x.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
            which = ("found", id(owner)) if number is None else ("made", number)
            return *which, at, x.shape, x.strides, x.dtype
        if isinstance(x, (tuple, list)):
            return tuple(map(self._name_of, x))
        if isinstance(x, dict):
            return tuple((key, self._name_of(value)) for key, value in x.items())
        if isinstance(x, _PLAIN):
            return type(x), x
        self._kept.append(x)
        return "object", id(x)

    def check(self, first: Recording) -> None:
        """ReplayError unless the first recording was of the same steps."""
        for (f, mine), (g, others) in zip(self.names, first.names, strict=False):
            if f != g:
                raise ReplayError(f"compile: the second step calls {_called(f, mine)} where the first called "
                                  f"{_called(g, others)}; steps must be alike")
            if mine != others:
                raise ReplayError(f"compile: an argument of {_called(f, mine)} is not the same in two steps, and no "
                                  "operation of tilewright computed it; pass it to the step or make it before, and for "
                                  "gradients call zero_grad in the step")
        if len(self.names) != len(first.names):
            raise ReplayError(f"compile: the first step makes {len(first.names)} calls, the second {len(self.names)}; "
                              "steps must be alike")


class _Door:
    """The C functions, recorded."""

    def __init__(self, recording: Recording, door: Any):
        self._recording, self._door = recording, door

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self._recording.through_door, getattr(self._door, name))


def arrays_in(x: Any) -> Iterator[np.ndarray]:
    """The arrays in nested tuples and lists."""
    if isinstance(x, np.ndarray):
        yield x
    elif isinstance(x, (tuple, list)):
        for part in x:
            yield from arrays_in(part)


def _owner(x: np.ndarray) -> np.ndarray:
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x


def _called(f: Callable[..., Any], names: Any) -> str:
    return names[0][1] if f is dispatch.call else getattr(f, "__qualname__", str(f)).lstrip("_")
