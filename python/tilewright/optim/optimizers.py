"""Optimizers: one fused call of the table updates all parameters in place."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from .. import ops
from ..autograd import Tensor
from ..core.device_arrays import DeviceArray, full_like, host_copy, overwritten, to_device, to_host
from ..core.errors import ArgumentError, DTypeError
from ..core.replay import recorded
from ..nn.module import check_state


class Optimizer:
    """Base: parameters, the learning rate `lr` (set it freely between steps), and state that can be saved.

    Parameters whose `grad` is None are left alone by `step`. The state is a flat dictionary of arrays.
    """

    slots: tuple[str, ...] = ()  # arrays like the parameters that the state consists of

    def __init__(self, parameters: Iterable[Tensor], lr: float):
        self.parameters = list(parameters)
        if not self.parameters:
            raise ArgumentError(f"{type(self).__name__}: there are no parameters")
        for i, p in enumerate(self.parameters):
            if not isinstance(p, Tensor) or not p.requires_grad or not p.is_leaf:
                raise ArgumentError(f"{type(self).__name__}: parameter {i} is no leaf tensor that requires a gradient")
        if not lr >= 0:
            raise ArgumentError(f"{type(self).__name__}: the learning rate is not negative, and {lr} is")
        self.lr = lr
        self.steps = 0
        self.state = {slot: [full_like(p.data, 0) for p in self.parameters] for slot in self.slots}

    def zero_grad(self) -> None:
        """Forget the gradients; until then every backward adds to them."""
        for p in self.parameters:
            p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        params, grads = self.parameters, [p.grad for p in self.parameters]
        first = next(iter(self.state.values()), None)
        if first and isinstance(first[0], DeviceArray) != isinstance(params[0].data, DeviceArray):
            raise DTypeError(f"{type(self).__name__}: the parameters were moved and the optimizer's state was not; its "
                             "to_device() or to_host() moves it")
        slots = [self.state[slot] for slot in self.slots]
        for g in grads:
            if g is None:
                chosen = [i for i, g in enumerate(grads) if g is not None]
                params, grads = [params[i] for i in chosen], [grads[i] for i in chosen]
                slots = [[slot[i] for i in chosen] for slot in slots]
                break
        recorded(self._step, (), params, [p.data for p in params], grads, *slots)

    def _step(self, params: list[Tensor], arrays: list[np.ndarray], grads: list[Any], *slots: list[np.ndarray]) -> None:
        if params:
            self._update(arrays, grads, *slots)
        self.steps += 1
        for p in params:
            p._version.count += 1

    def _update(self, params: list[np.ndarray], grads: list[Any], *slots: list[np.ndarray]) -> None:
        raise NotImplementedError

    def to_device(self) -> Optimizer:
        """Move the state to the CUDA device, after the module's parameters; returns the optimizer."""
        return self._moved(to_device, False)

    def to_host(self) -> Optimizer:
        """Move the state back from the CUDA device; returns the optimizer."""
        return self._moved(to_host, True)

    def _moved(self, move: Callable[[Any], Any], there: bool) -> Optimizer:
        for arrays in self.state.values():
            arrays[:] = [move(a) if isinstance(a, DeviceArray) == there else a for a in arrays]
        return self

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of everything that an exact continuation needs."""
        state = {"lr": np.array(self.lr, np.float64), "steps": np.array(self.steps, np.int64)}
        for slot, arrays in self.state.items():
            state.update((f"{slot}.{i}", host_copy(a)) for i, a in enumerate(arrays))
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state of the same kind of optimizer; checked completely before anything is changed."""
        new = check_state(type(self).__name__, state, self.state_dict())
        self.lr, self.steps = float(new["lr"]), int(new["steps"])
        for slot, arrays in self.state.items():
            for i, a in enumerate(arrays):
                arrays[i] = overwritten(a, new[f"{slot}.{i}"])


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as PyTorch's (Sutskever et al. 2013 for Nesterov's form).

    >>> import tilewright as tw
    >>> x = tw.Tensor([2.0], requires_grad=True)
    >>> optimizer = tw.optim.SGD([x], lr=0.25)
    >>> (x * x).sum().backward()
    >>> optimizer.step()
    >>> x.data
    array([1.])
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float = 0.01, *, momentum: float = 0.0, nesterov: bool = False,
                 weight_decay: float = 0.0):
        self.slots = ("momentum",) if momentum else ()
        super().__init__(parameters, lr)
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay

    def _update(self, params: list[np.ndarray], grads: list[Any], *slots: list[np.ndarray]) -> None:
        ops.sgd_step(params, grads, slots[0] if slots else None, lr=self.lr, momentum=self.momentum,
                     nesterov=self.nesterov, weight_decay=self.weight_decay)


class Adam(Optimizer):
    """Adam with bias correction (Kingma and Ba 2015), as PyTorch's; weight_decay is added to the gradient.

    >>> import tilewright as tw
    >>> x = tw.Tensor([2.0], requires_grad=True)
    >>> optimizer = tw.optim.Adam([x], lr=0.5)
    >>> (x * x).sum().backward()
    >>> optimizer.step()
    >>> x.data.round(6)
    array([1.5])
    """

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(self, parameters: Iterable[Tensor], lr: float = 1e-3, *, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.0):
        super().__init__(parameters, lr)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def _update(self, params: list[np.ndarray], grads: list[Any], *slots: list[np.ndarray]) -> None:
        ops.adam_step(params, grads, *slots, step=self.steps + 1, lr=self.lr, betas=self.betas, eps=self.eps,
                      weight_decay=self.weight_decay)


class AdamW(Adam):
    """Adam whose weight_decay shrinks the parameters directly (Loshchilov and Hutter 2019), as PyTorch's.

    >>> import tilewright as tw
    >>> x = tw.Tensor([2.0], requires_grad=True)
    >>> optimizer = tw.optim.AdamW([x], lr=0.5, weight_decay=0.1)
    >>> (x * x).sum().backward()
    >>> optimizer.step()
    >>> x.data.round(6)
    array([1.4])
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float = 1e-3, *, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.01):
        super().__init__(parameters, lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _update(self, params: list[np.ndarray], grads: list[Any], *slots: list[np.ndarray]) -> None:
        ops.adamw_step(params, grads, *slots, step=self.steps + 1, lr=self.lr, betas=self.betas, eps=self.eps,
                       weight_decay=self.weight_decay)


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients in place so that their common 2-norm is at most max_norm; returns the norm from before.

    >>> import numpy as np, tilewright as tw
    >>> x = tw.Tensor([0.0, 0.0], requires_grad=True)
    >>> x.grad = np.array([3.0, 4.0])
    >>> tw.optim.clip_grad_norm([x], 1.0), x.grad.round(5).tolist()
    (5.0, [0.6, 0.8])
    """
    return ops.clip_grad_norm([p.grad for p in parameters if p.grad is not None], max_norm)
