"""Activations as modules; defaults are PyTorch's."""
from __future__ import annotations

from typing import Any

from ..autograd import Tensor, apply
from ..core.errors import ArgumentError
from .module import Module


class Activation(Module):
    """An elementwise operation of the table. `fused` is its name as an activation of `tw.linear`, or None."""

    op = ""
    fused: str | None = None

    def __init__(self) -> None:
        self.fused = self.op
        self.attrs: dict[str, Any] = {}

    def forward(self, x: Any) -> Tensor:
        """The operation on every element of x; any shape, float32 or float64."""
        return apply(self.op, (x,), self.attrs)


class ReLU(Activation):
    """max(x, 0).

    >>> import numpy as np, tilewright as tw
    >>> tw.nn.ReLU()(np.array([-1.0, 2.0])).data
    array([0., 2.])
    """

    op = "relu"


class LeakyReLU(Activation):
    """x where positive, else negative_slope * x."""

    op = "leaky_relu"

    def __init__(self, negative_slope: float = 0.01):
        self.fused = "leaky_relu" if negative_slope == 0.01 else None
        self.attrs = {"negative_slope": negative_slope}


class ELU(Activation):
    """x where positive, else alpha * (exp(x) - 1)."""

    op = "elu"

    def __init__(self, alpha: float = 1.0):
        self.fused = "elu" if alpha == 1.0 else None
        self.attrs = {"alpha": alpha}


class GELU(Activation):
    """x times the normal distribution function; approximate "none" or "tanh"."""

    op = "gelu"

    def __init__(self, approximate: str = "none"):
        if approximate not in ("none", "tanh"):
            raise ArgumentError(f"GELU: approximate is 'none' or 'tanh', not {approximate!r}")
        self.fused = "gelu" if approximate == "none" else "gelu_tanh"
        self.attrs = {"approximate": approximate}


class SiLU(Activation):
    """x * sigmoid(x)."""

    op = "silu"


class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    op = "sigmoid"


class Tanh(Activation):
    """tanh(x)."""

    op = "tanh"


class Softplus(Activation):
    """log(1 + exp(x))."""

    op = "softplus"


class Hardswish(Activation):
    """x * clip(x + 3, 0, 6) / 6."""

    op = "hardswish"


def activation(name: str) -> Activation:
    """An activation by the name of its operation, or "gelu_tanh"; ArgumentError lists those there are."""
    if name == "gelu_tanh":
        return GELU("tanh")
    classes = {c.op: c for c in Activation.__subclasses__()}
    if name not in classes:
        raise ArgumentError(f"no activation {name!r}; there are: {', '.join([*classes, 'gelu_tanh'])}")
    return classes[name]()
