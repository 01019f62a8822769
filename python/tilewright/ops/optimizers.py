"""Optimizer steps, in place: an array or a sequence of arrays for each argument."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.dispatch import call, door

Lists = np.ndarray | Sequence[np.ndarray]


def sgd_step(params: Lists, grads: Lists, momentum_buffers: Lists | None = None, *, lr: float = 1e-3,
             momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0,
             backend: str | None = None) -> None:
    """One step of stochastic gradient descent, in place, with PyTorch's formula. The buffers start as zeros.

    >>> import numpy as np, tilewright as tw
    >>> p = np.array([1.0, 2.0])
    >>> tw.sgd_step(p, np.array([10.0, -10.0]), lr=0.5)
    >>> p
    array([-4.,  7.])
    """
    c = door(backend)
    if c is not None and c.sgd_step(params, grads, momentum_buffers, lr, momentum, nesterov,
                                    weight_decay) is not NotImplemented:
        return
    attrs = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    call("sgd_step", (params, grads, momentum_buffers), attrs, None, backend)


def adam_step(params: Lists, grads: Lists, exp_avgs: Lists, exp_avg_sqs: Lists, *, step: int, lr: float = 1e-3,
              betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
              backend: str | None = None) -> None:
    """One step of Adam (Kingma and Ba 2015), in place; `step` counts from 1, the averages start as zeros."""
    _adam("adam_step", False, params, grads, exp_avgs, exp_avg_sqs, step, lr, betas, eps, weight_decay, backend)


def adamw_step(params: Lists, grads: Lists, exp_avgs: Lists, exp_avg_sqs: Lists, *, step: int, lr: float = 1e-3,
               betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01,
               backend: str | None = None) -> None:
    """One step of Adam with decoupled weight decay (Loshchilov and Hutter 2019), in place."""
    _adam("adamw_step", True, params, grads, exp_avgs, exp_avg_sqs, step, lr, betas, eps, weight_decay, backend)


def _adam(op: str, decoupled: bool, params: Lists, grads: Lists, exp_avgs: Lists, exp_avg_sqs: Lists, step: int,
          lr: float, betas: tuple[float, float], eps: float, weight_decay: float, backend: str | None) -> None:
    c = door(backend)
    if c is not None and c.adam_step(params, grads, exp_avgs, exp_avg_sqs, step, lr, betas[0], betas[1], eps,
                                     weight_decay, decoupled) is not NotImplemented:
        return
    attrs = {"step": step, "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
    call(op, (params, grads, exp_avgs, exp_avg_sqs), attrs, None, backend)


def clip_grad_norm(grads: Lists, max_norm: float, *, backend: str | None = None) -> float:
    """Scale gradients in place so that their common 2-norm is at most max_norm; returns the norm before. As in PyTorch.

    >>> import numpy as np, tilewright as tw
    >>> g = np.array([3.0, 4.0])
    >>> tw.clip_grad_norm(g, 1.0)
    5.0
    """
    c = door(backend)
    if c is not None and (norm := c.clip_grad_norm(grads, max_norm)) is not NotImplemented:
        return norm
    return call("clip_grad_norm", (grads,), {"max_norm": max_norm}, None, backend)
