"""A training step that is recorded and then replayed: the kernels alone, without the tape."""
from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np

from ..core import dispatch
from ..core.errors import ArgumentError, ReplayError
from ..core.foreign import is_device_array
from ..core.replay import NOT_ON_DEVICE, Recording, Step
from .tensor import Tensor, made

MOST = 16  # programs that one step keeps: for other shapes, dtypes, backends and plain arguments


def compile(step: Callable[..., Any]) -> Callable[..., Any]:  # noqa: A001  the name that people know from PyTorch
    """A function that does what `step` does, to the bit, and from its third call on without the tape.

    step(*args) computes a loss, calls `zero_grad` and `backward`, lets an optimizer step. Whatever changes from call to
    call is an argument: arrays and tensors (inputs, labels), or plain values, for each of which it is recorded anew, as
    for other shapes, dtypes and backends. It returns None, a tensor, or a tuple of tensors; they come back as copies,
    off the tape.

    The first two calls run `step` and write down its operations; the others run these again, on the same memory.
    Optimizers (their `lr` can be set between calls), schedules, nn.Dropout and the losses of nn go on as they would.
    Other Python code in `step` is not run again: `model.eval()` later has no effect, and neither has what a call with
    `backend=` or NumPy changes in place. Gradients are in memory that the next call overwrites.

    Raises ReplayError for arrays on a device, and after the first or second call if `step` computes with arrays outside
    of tilewright's operations, or not the same in both calls. Errors of the operations (a label out of range) are those
    of `step`.

    >>> import numpy as np, tilewright as tw
    >>> model = tw.nn.MLP([4, 8, 3], seed=0)
    >>> optimizer = tw.optim.Adam(model.parameters())
    >>> @tw.compile
    ... def step(x, labels):
    ...     optimizer.zero_grad()
    ...     loss = tw.nn.cross_entropy(model(x), labels)
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> losses = [step(np.ones((5, 4), np.float32), np.arange(5) % 3).item() for _ in range(9)]
    >>> losses[8] < losses[0]
    True
    """
    programs: dict[tuple[Any, ...], _Program] = {}
    lock = Lock()

    def compiled(*args: Any) -> Any:
        if dispatch.recording() is not None:
            return step(*args)
        key = dispatch.active(), *map(_form, args)
        with lock:
            program = programs.get(key)
            if program is None or not program.holds():
                while len(programs) >= MOST:
                    del programs[next(iter(programs))]
                program = programs[key] = _Program(step, args)
            return program.run(args)

    compiled.__doc__ = step.__doc__
    compiled.__wrapped__ = step  # type: ignore[attr-defined]
    return compiled


def _form(x: Any) -> Any:
    """What must be the same for a program to be used again."""
    if isinstance(x, np.ndarray) or (isinstance(x, Tensor) and type(x.data) is np.ndarray and not x.requires_grad):
        return type(x), x.shape, x.dtype
    if x is None or isinstance(x, (int, float, str)):
        return type(x), x
    if is_device_array(x.data if isinstance(x, Tensor) else x):
        raise ReplayError(NOT_ON_DEVICE)
    raise ArgumentError("compile: arguments of a step are arrays, tensors that want no gradient, numbers, strings or "
                        f"None, not {type(x).__name__}")


class _Program:
    """A step for arguments of one form: recorded twice, then replayed."""

    def __init__(self, step: Callable[..., Any], args: tuple[Any, ...]):
        self.step = step
        self.args = tuple(np.empty(x.shape, x.dtype) if isinstance(x, (np.ndarray, Tensor)) else x for x in args)
        self.first: Recording | None = None
        self.steps: list[Step] | None = None  # of the second recording, once it was found to be like the first
        self.leaves: list[tuple[Tensor, np.ndarray, Any]] = []  # with their data and their gradients after the step
        self.result: Any = None

    def holds(self) -> bool:
        """Whether the parameters are still the arrays that they were."""
        for leaf, data, _ in self.leaves:  # all() with a generator takes three times as long, and this is a hot path
            if leaf.data is not data:
                return False
        return True

    def run(self, args: tuple[Any, ...]) -> Any:
        for own, x in zip(self.args, args, strict=True):
            if isinstance(own, np.ndarray):
                np.copyto(own, x.data if isinstance(x, Tensor) else x)
        if self.steps is None:
            return self._record(args)
        for f, inputs in self.steps:
            if f(*inputs) is NotImplemented:  # a label out of range: the step itself says so
                return self.step(*args)
        for leaf, _, grad in self.leaves:
            leaf.grad = grad
        return _copy(self.result)

    def _record(self, args: tuple[Any, ...]) -> Any:
        with Recording(dispatch.active()) as recording:
            for own in self.args:
                if isinstance(own, np.ndarray):
                    recording.name(own)
            result = self.step(*(Tensor(own) if isinstance(x, Tensor) else own
                                 for own, x in zip(self.args, args, strict=True)))
        self.result = _seen(recording, result)
        if self.first is None:
            self.first = recording
        else:
            recording.check(self.first)
            self.leaves = [(t, t.data, t.grad) for t in _leaves(recording)]
            self.steps, self.first = recording.steps, None
        return _copy(self.result)  # its memory will be written again


def _leaves(recording: Recording) -> list[Tensor]:
    found = {id(t): t for _, args in recording.steps for part in args if isinstance(part, (list, tuple))
             for t in part if isinstance(t, Tensor)}
    return list(found.values())


def _seen(recording: Recording, result: Any) -> Any:
    """The arrays of a result; ReplayError where they are not memory that the recorded steps write."""
    if result is None:
        return None
    if isinstance(result, tuple):
        return tuple(_seen(recording, r) for r in result)
    if isinstance(result, Tensor) and recording.knows(result.data):
        return result.data
    raise ReplayError("compile: a step returns None or tensors that operations of tilewright computed, "
                      f"not {type(result).__name__}s that were computed otherwise")


def _copy(result: Any) -> Any:
    if result is None:
        return None
    return tuple(map(_copy, result)) if isinstance(result, tuple) else made(result.copy())
