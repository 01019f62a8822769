"""Compare gradients with differences of the function itself."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.errors import ArgumentError, GradientError
from .tensor import Tensor, is_float


def gradcheck(function: Callable[..., Tensor], inputs: Sequence[Any], *, eps: float = 1e-6, atol: float = 1e-7,
              rtol: float = 1e-5, seed: int = 0) -> bool:
    """Whether the gradients of `function` for its floating inputs are its derivatives.

    True, or GradientError says where not. function(*tensors) returns a tensor of any shape. The inputs (arrays or
    tensors) are copied to float64; integers are passed on as they are. The result is weighted with fixed random numbers
    v; the derivative of sum(v * result) for each element is compared with central differences of step
    eps * max(1, |x|), within atol + rtol * |difference|. The values should lie more than eps away from kinks (relu
    at 0).

    >>> import numpy as np, tilewright as tw
    >>> tw.autograd.gradcheck(lambda x, w: tw.linear(x, w, activation="gelu"), [np.eye(3), np.ones((2, 3))])
    True
    """
    arrays = [np.array(x.data if isinstance(x, Tensor) else x) for x in inputs]
    floating = [is_float(a.dtype) for a in arrays]
    arrays = [a.astype(np.float64) if f else a for a, f in zip(arrays, floating, strict=True)]
    if not any(floating):
        raise ArgumentError("gradcheck: there is no floating input")

    tensors = [Tensor(a.copy(), requires_grad=f) for a, f in zip(arrays, floating, strict=True)]
    y = function(*tensors)
    v = np.random.default_rng(seed).uniform(0.5, 1.5, y.shape)
    if y.requires_grad:
        y.backward(v)

    def value() -> float:
        return float(np.sum(v * function(*(Tensor(a) for a in arrays)).data, dtype=np.longdouble))

    for number, (a, t) in enumerate(zip(arrays, tensors, strict=True)):
        if not t.requires_grad:
            continue
        gradient = np.zeros(a.shape) if t.grad is None else t.grad
        for at in np.ndindex(a.shape):
            x = float(a[at])
            step = eps * max(1.0, abs(x))
            a[at] = x + step
            above = value()
            a[at] = x - step
            difference = (above - value()) / (2 * step)
            a[at] = x
            if not abs(gradient[at] - difference) <= atol + rtol * abs(difference):
                raise GradientError(f"gradcheck: input {number}, element {tuple(map(int, at))}: the gradient is "
                                    f"{gradient[at]:.10g}, differences give {difference:.10g}")
    return True
