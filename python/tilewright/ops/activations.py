"""Activations and their gradients: float32 within 4 ULP of the exact value for every input, far tails included."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.dispatch import call, door


def relu(x: Any, *, out: Any = None, backend: str | None = None) -> Any:
    """max(x, 0), element by element; NaN stays NaN.

    >>> import numpy as np, tilewright as tw
    >>> tw.relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    c = door(backend)
    if c is not None and (y := c.relu(x, out)) is not NotImplemented:
        return y
    return call("relu", (x,), {}, out, backend)


def leaky_relu(x: Any, negative_slope: float = 0.01, *, out: Any = None, backend: str | None = None) -> Any:
    """x where x > 0, else negative_slope · x.

    >>> import numpy as np, tilewright as tw
    >>> tw.leaky_relu(np.array([-1.0, 2.0]), 0.1)
    array([-0.1,  2. ])
    """
    c = door(backend)
    if c is not None and (y := c.leaky_relu(x, negative_slope, out)) is not NotImplemented:
        return y
    return call("leaky_relu", (x,), {"negative_slope": negative_slope}, out, backend)


def elu(x: Any, alpha: float = 1.0, *, out: Any = None, backend: str | None = None) -> Any:
    """x where x > 0, else alpha · (exp(x) - 1).

    >>> import numpy as np, tilewright as tw
    >>> tw.elu(np.array([-np.inf, 2.0]))
    array([-1.,  2.])
    """
    c = door(backend)
    if c is not None and (y := c.elu(x, alpha, out)) is not NotImplemented:
        return y
    return call("elu", (x,), {"alpha": alpha}, out, backend)


def gelu(x: Any, *, approximate: str = "none", out: Any = None, backend: str | None = None) -> Any:
    """x·Φ(x), Φ being the normal distribution function; approximate="tanh" is Hendrycks and Gimpel's approximation.

    >>> import numpy as np, tilewright as tw
    >>> tw.gelu(np.array([0.0, 1.0])).round(6)
    array([0.      , 0.841345])
    """
    c = door(backend)
    if c is not None:
        f = c.gelu if approximate == "none" else c.gelu_tanh if approximate == "tanh" else None
        if f is not None and (y := f(x, out)) is not NotImplemented:
            return y
    return call("gelu", (x,), {"approximate": approximate}, out, backend)


def silu(x: Any, *, out: Any = None, backend: str | None = None) -> Any:
    """x · sigmoid(x), also called swish.

    >>> import numpy as np, tilewright as tw
    >>> tw.silu(np.array([0.0, 1.0])).round(6)
    array([0.      , 0.731059])
    """
    c = door(backend)
    if c is not None and (y := c.silu(x, out)) is not NotImplemented:
        return y
    return call("silu", (x,), {}, out, backend)


def sigmoid(x: Any, *, out: Any = None, backend: str | None = None) -> Any:
    """1 / (1 + exp(-x)).

    >>> import numpy as np, tilewright as tw
    >>> tw.sigmoid(np.array([-np.inf, 0.0]))
    array([0. , 0.5])
    """
    c = door(backend)
    if c is not None and (y := c.sigmoid(x, out)) is not NotImplemented:
        return y
    return call("sigmoid", (x,), {}, out, backend)


def tanh(x: Any, *, out: Any = None, backend: str | None = None) -> Any:
    """The hyperbolic tangent.

    >>> import numpy as np, tilewright as tw
    >>> tw.tanh(np.array([0.0, np.inf]))
    array([0., 1.])
    """
    c = door(backend)
    if c is not None and (y := c.tanh(x, out)) is not NotImplemented:
        return y
    return call("tanh", (x,), {}, out, backend)


def softplus(x: Any, *, out: Any = None, backend: str | None = None) -> Any:
    """log(1 + exp(x)), without overflow.

    >>> import numpy as np, tilewright as tw
    >>> tw.softplus(np.array([-1000.0, 1000.0]))
    array([   0., 1000.])
    """
    c = door(backend)
    if c is not None and (y := c.softplus(x, out)) is not NotImplemented:
        return y
    return call("softplus", (x,), {}, out, backend)


def hardswish(x: Any, *, out: Any = None, backend: str | None = None) -> Any:
    """x · min(max(x + 3, 0), 6) / 6.

    >>> import numpy as np, tilewright as tw
    >>> tw.hardswish(np.array([-4.0, 0.0, 4.0]))
    array([-0.,  0.,  4.])
    """
    c = door(backend)
    if c is not None and (y := c.hardswish(x, out)) is not NotImplemented:
        return y
    return call("hardswish", (x,), {}, out, backend)


def _backward(name: str) -> Callable[..., Any]:
    op = f"{name}_backward"

    def backward(dy: Any, x: Any, *, out: Any = None, backend: str | None = None) -> Any:
        c = door(backend)
        if c is not None and (dx := getattr(c, op)(dy, x, out)) is not NotImplemented:
            return dx
        return call(op, (dy, x), {}, out, backend)
    backward.__name__ = backward.__qualname__ = op
    backward.__doc__ = f"dy · {name}'(x): the gradient of {name} by x, element by element; dy has x's shape."
    return backward


relu_backward = _backward("relu")
silu_backward = _backward("silu")
sigmoid_backward = _backward("sigmoid")
tanh_backward = _backward("tanh")
softplus_backward = _backward("softplus")
hardswish_backward = _backward("hardswish")


def leaky_relu_backward(dy: Any, x: Any, negative_slope: float = 0.01, *, out: Any = None,
                        backend: str | None = None) -> Any:
    """dy · leaky_relu'(x); the derivative at 0 is the slope."""
    c = door(backend)
    if c is not None and (dx := c.leaky_relu_backward(dy, x, negative_slope, out)) is not NotImplemented:
        return dx
    return call("leaky_relu_backward", (dy, x), {"negative_slope": negative_slope}, out, backend)


def elu_backward(dy: Any, x: Any, alpha: float = 1.0, *, out: Any = None, backend: str | None = None) -> Any:
    """dy · elu'(x); the derivative at 0 is alpha."""
    c = door(backend)
    if c is not None and (dx := c.elu_backward(dy, x, alpha, out)) is not NotImplemented:
        return dx
    return call("elu_backward", (dy, x), {"alpha": alpha}, out, backend)


def gelu_backward(dy: Any, x: Any, *, approximate: str = "none", out: Any = None, backend: str | None = None) -> Any:
    """dy · gelu'(x), of the exact form or of the tanh form."""
    c = door(backend)
    if c is not None:
        f = c.gelu_backward if approximate == "none" else c.gelu_tanh_backward if approximate == "tanh" else None
        if f is not None and (dx := f(dy, x, out)) is not NotImplemented:
            return dx
    return call("gelu_backward", (dy, x), {"approximate": approximate}, out, backend)
