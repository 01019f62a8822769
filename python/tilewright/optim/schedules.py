"""Schedules: the learning rate as a function of how many steps were made."""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core.errors import ArgumentError
from ..core.replay import recorded
from ..nn.module import check_state
from .optimizers import Optimizer


class Schedule:
    """Base: sets optimizer.lr to the rate it had at the start times factor(steps), now and at every `step`.

    What a step is (a batch, an epoch) is up to who calls `step`. The rate is computed from the count, not from the last
    rate, so that a resumed run has the same rates to the bit.
    """

    def __init__(self, optimizer: Optimizer):
        self.optimizer = optimizer
        self.base_lr = optimizer.lr
        self.steps = 0
        self._set()

    def factor(self, steps: int) -> float:
        """What the rate at the start is multiplied with."""
        raise NotImplementedError

    def _set(self) -> None:
        self.optimizer.lr = self.base_lr * self.factor(self.steps)

    def step(self) -> None:
        """One step further."""
        recorded(self._step, ())

    def _step(self) -> None:
        self.steps += 1
        self._set()

    def state_dict(self) -> dict[str, np.ndarray]:
        """The rate at the start and the count."""
        return {"base_lr": np.array(self.base_lr, np.float64), "steps": np.array(self.steps, np.int64)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where another schedule of the same kind stood, and set the rate."""
        new = check_state(type(self).__name__, state, self.state_dict())
        self.base_lr, self.steps = float(new["base_lr"]), int(new["steps"])
        self._set()


class StepLR(Schedule):
    """The rate times gamma after every step_size steps.

    >>> import tilewright as tw
    >>> optimizer = tw.optim.SGD([tw.Tensor([0.0], requires_grad=True)], lr=1.0)
    >>> schedule = tw.optim.StepLR(optimizer, step_size=2, gamma=0.5)
    >>> rates = []
    >>> for _ in range(5):
    ...     rates.append(optimizer.lr)
    ...     schedule.step()
    >>> rates
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1):
        if step_size < 1:
            raise ArgumentError(f"StepLR: step_size is at least 1, not {step_size}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def factor(self, steps: int) -> float:
        return self.gamma ** (steps // self.step_size)


class ExponentialLR(Schedule):
    """The rate times gamma after every step.

    >>> import tilewright as tw
    >>> optimizer = tw.optim.SGD([tw.Tensor([0.0], requires_grad=True)], lr=1.0)
    >>> tw.optim.ExponentialLR(optimizer, 0.5).step()
    >>> optimizer.lr
    0.5
    """

    def __init__(self, optimizer: Optimizer, gamma: float):
        self.gamma = gamma
        super().__init__(optimizer)

    def factor(self, steps: int) -> float:
        return self.gamma ** steps


class CosineWithWarmup(Schedule):
    """Rise linearly for `warmup` steps, then fall along half a cosine to `final` times the rate at step `total`.

    Loshchilov and Hutter 2017, without restarts; the first step already has a rate above 0.

    >>> import tilewright as tw
    >>> optimizer = tw.optim.SGD([tw.Tensor([0.0], requires_grad=True)], lr=1.0)
    >>> schedule = tw.optim.CosineWithWarmup(optimizer, warmup=1, total=3)
    >>> rates = []
    >>> for _ in range(4):
    ...     rates.append(round(optimizer.lr, 6))
    ...     schedule.step()
    >>> rates
    [0.5, 1.0, 0.5, 0.0]
    """

    def __init__(self, optimizer: Optimizer, warmup: int, total: int, final: float = 0.0):
        if not 0 <= warmup < total:
            raise ArgumentError(f"CosineWithWarmup: a warmup of {warmup} steps does not lie within {total} steps")
        self.warmup, self.total, self.final = warmup, total, final
        super().__init__(optimizer)

    def factor(self, steps: int) -> float:
        if steps < self.warmup:
            return (steps + 1) / (self.warmup + 1)
        done = min((steps - self.warmup) / (self.total - self.warmup), 1.0)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))
