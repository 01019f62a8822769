"""What the activations are, and their derivatives.

Sources: PyTorch's and ONNX's definitions. gelu: Hendrycks and Gimpel 2016, x·Φ(x), "tanh" being their approximation;
silu: Elfwing 2018; elu: Clevert 2016; hardswish: Howard 2019. At -infinity the limit holds (gelu, silu, hardswish: 0),
where the formula would give NaN.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tilewright.core import arrays, sampling
from tilewright.core.checking import eps, tiny, ulp
from tilewright.core.errors import ArgumentError, ShapeError
from tilewright.core.registry import Call, Case, Spec

_PI: dict[Any, Any] = {np.dtype(np.float64): np.pi,
                       np.dtype(np.longdouble): np.longdouble("3.14159265358979323846264338327950288")}
_CUBIC: dict[Any, Any] = {np.dtype(np.float64): 0.044715,  # of gelu's tanh form
                          np.dtype(np.longdouble): np.longdouble("0.044715")}


def wide(x: np.ndarray) -> np.ndarray:
    """x in a type with bits to spare, in which the formulas below keep their digits far into the tails."""
    return x.astype(np.longdouble if x.dtype == np.float64 else np.float64)


def _finite(x: np.ndarray) -> np.ndarray:
    """Infinities replaced by numbers far enough out that every limit has been reached."""
    return np.clip(x, -1e30, 1e30)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def _phi(x: np.ndarray) -> np.ndarray:
    """The normal density."""
    return np.exp(-x * x / 2) * (x.dtype.type(1) / np.sqrt(x.dtype.type(2) * _PI[x.dtype]))


def _mills(t: np.ndarray) -> np.ndarray:
    """(1 - Φ(t)) / φ(t) for t >= 0, to the last bits of x's type."""
    if t.dtype == np.float64:  # for float32 results: SciPy's erfcx is good to 1e-15
        from scipy.special import erfcx
        return erfcx(t / np.sqrt(2.0)) * np.sqrt(np.pi / 2)
    near = np.minimum(t, 3)
    term = series = near.copy()
    # Φ(t) - 1/2 = φ(t)·(t + t³/3 + t⁵/15 + …): 11 bits to spare cover the cancellation up to 3
    for k in range(3, 121, 2):
        term = term * near * near / k
        series = series + term
    fraction = np.maximum(t, 3)
    far = fraction.copy()
    for k in range(160, 0, -1):  # Laplace: 1/(t + 1/(t + 2/(t + 3/(t + …))))
        far = fraction + k / far
    return np.where(t < 3, 0.5 / _phi(near) - series, 1 / far)


def _Phi(x: np.ndarray) -> np.ndarray:
    """The normal distribution function; the far tail keeps its digits."""
    t = np.abs(x)
    tail = _phi(t) * _mills(t)
    return np.where(x < 0, tail, 1 - tail)


def _inner(x: np.ndarray) -> np.ndarray:
    """2u, where gelu's tanh form is x (1 + tanh u) / 2 = x · sigmoid(2u)."""
    return 2 * np.sqrt(2 / _PI[x.dtype]) * x * (1 + _CUBIC[x.dtype] * x * x)


def _times(x: np.ndarray, share: np.ndarray) -> np.ndarray:
    """x · share, where a share of 0 wins over an infinite x."""
    return np.where(share == 0, np.copysign(0, x), x * share)


def _gelu(x: np.ndarray, approximate: str = "none") -> np.ndarray:
    return _times(x, _sigmoid(_inner(_finite(x))) if approximate == "tanh" else _Phi(_finite(x)))


def _elu(x: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    return np.where(x > 0, x, x.dtype.type(alpha) * np.expm1(np.minimum(x, 0)))


def _silu(x: np.ndarray) -> np.ndarray:
    return _times(x, _sigmoid(x))


def _hardswish(x: np.ndarray) -> np.ndarray:
    return np.where(x <= -3, 0 * _finite(x), np.where(x >= 3, x, x * (x + 3) / 6))


FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "relu": lambda x: np.where(x < 0, 0, x),  # of two zeros np.maximum takes either
    "leaky_relu": lambda x, negative_slope=0.01: np.where(x > 0, x, x.dtype.type(negative_slope) * x),
    "elu": _elu,
    "gelu": _gelu,
    "gelu_tanh": lambda x: _gelu(x, "tanh"),  # the name of gelu(approximate="tanh") as an activation of linear
    "silu": _silu,
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "hardswish": _hardswish,
}


def _gelu_terms(x: np.ndarray, approximate: str = "none") -> list[np.ndarray]:
    if approximate == "none":
        return [_Phi(x), x * _phi(x)]
    u2 = _inner(x)
    slope = 2 * np.sqrt(2 / _PI[x.dtype]) * (1 + 3 * _CUBIC[x.dtype] * x * x)
    return [_sigmoid(u2), x * _sigmoid(u2) * _sigmoid(-u2) * slope]


# The derivative of each at a finite x, as the terms that a kernel may add up: each term brings its own rounding.
DERIVATIVES: dict[str, Callable[..., list[np.ndarray]]] = {
    "relu": lambda x: [np.where(x > 0, 1.0, x * 0).astype(x.dtype)],
    "leaky_relu": lambda x, negative_slope=0.01: [np.where(x > 0, x.dtype.type(1),
                                                           x * 0 + x.dtype.type(negative_slope))],
    "elu": lambda x, alpha=1.0: [np.where(x > 0, x.dtype.type(1), x.dtype.type(alpha) * np.exp(np.minimum(x, 0)))],
    "gelu": _gelu_terms,
    "silu": lambda x: [_sigmoid(x), x * _sigmoid(x) * _sigmoid(-x)],
    "sigmoid": lambda x: [_sigmoid(x), -_sigmoid(x) ** 2],
    "tanh": lambda x: [np.ones_like(x), -np.tanh(x) ** 2],
    "softplus": lambda x: [_sigmoid(x)],
    "hardswish": lambda x: [np.where(np.abs(x) < 3, x / 3, x * 0),
                            np.where(x >= 3, 1, np.where(x <= -3, 0, 0.5)).astype(x.dtype)],
}

ATTRS: dict[str, dict[str, Any]] = {"leaky_relu": {"negative_slope": 0.01}, "elu": {"alpha": 1.0},
                                    "gelu": {"approximate": "none"}}
FLOPS = {"relu": 1, "leaky_relu": 2, "hardswish": 5}  # the others: about 20 for their exponential and polynomial
ULPS = {"float32": 4, "float64": 6}  # float64: 4 for the kernel, 2 for erfcx and the rounding of the oracle itself


# ---- normal forms

def _attrs(op: str, attrs: dict) -> dict[str, Any]:
    full = ATTRS.get(op.removesuffix("_backward"), {}) | attrs
    if "approximate" in full and full["approximate"] not in ("none", "tanh"):
        raise ArgumentError(f"{op}: approximate must be 'none' or 'tanh', not {full['approximate']!r}")
    return {k: v if isinstance(v, str) else float(v) for k, v in full.items()}


def _forward(name: str) -> Callable[[tuple, dict], Call]:
    def prepare(inputs: tuple, attrs: dict) -> Call:
        copies: list[str] = []
        x, = arrays.operands(name, ("x",), inputs, ("float32", "float64"), copies)
        return Call(name, (x,), _attrs(name, attrs), ((x.shape, x.dtype),), copies=copies)
    return prepare


def _backward(name: str) -> Callable[[tuple, dict], Call]:
    op = f"{name}_backward"

    def prepare(inputs: tuple, attrs: dict) -> Call:
        copies: list[str] = []
        dy, x = arrays.operands(op, ("dy", "x"), inputs, ("float32", "float64"), copies)
        if dy.shape != x.shape:
            raise ShapeError(f"{op}: dy {dy.shape} and x {x.shape} must have one shape")
        return Call(op, (dy, x), _attrs(op, attrs), ((x.shape, x.dtype),), copies=copies)
    return prepare


# ---- oracles and bounds

def _oracle(name: str) -> Callable[[Call], tuple]:
    def oracle(call: Call) -> tuple:
        with np.errstate(all="ignore"):
            return (FUNCTIONS[name](wide(call.inputs[0]), **call.attrs).astype(np.float64),)
    return oracle


def _bound(call: Call, expected: tuple) -> tuple:
    return (ULPS[call.dtype.name] * ulp(expected[0], call.dtype),)


def _backward_oracle(name: str) -> Callable[[Call], tuple]:
    def oracle(call: Call) -> tuple:
        dy, x = map(wide, call.inputs)
        with np.errstate(all="ignore"):
            return ((dy * sum(DERIVATIVES[name](_finite(x), **call.attrs))).astype(np.float64),)
    return oracle


def _backward_bound(name: str) -> Callable[[Call, tuple], tuple]:
    """4 ULP of the result; where the derivative's terms cancel, 4 roundings of each; underflow before dy multiplies."""
    def bound(call: Call, expected: tuple) -> tuple:
        dy, x = map(wide, call.inputs)
        with np.errstate(all="ignore"):
            terms = DERIVATIVES[name](_finite(x), **call.attrs)
            cancelled = eps(call.dtype) * sum(map(np.abs, terms)) if len(terms) > 1 else 0
            slack = np.asarray(4 * np.abs(dy) * (cancelled + tiny(call.dtype)))
        return (ULPS[call.dtype.name] * ulp(expected[0], call.dtype) + np.nan_to_num(slack.astype(np.float64)),)
    return bound


# ---- samples

def _arrays(rng: np.random.Generator, dtype: str, count: int) -> Iterator[tuple[tuple[np.ndarray, ...], str]]:
    """Every length around vectors and unrolled blocks, every layout, empty and 0-d, special values, wide ranges."""
    for n in (0, *range(1, 71), 127, 128, 129, 255, 257, 1023, 1031, 4099):
        yield tuple(sampling.normal(rng, (n,), dtype, scale=3.0) for _ in range(count)), f"{n}"
    for shape in ((), (3, 0, 2), (5, 7), (17, 33), (2, 3, 65), (2, 1, 3, 19)):
        for layout in sampling.LAYOUTS:
            yield tuple(sampling.normal(rng, shape, dtype, layout, 4.0) for _ in range(count)), f"{shape} {layout}"
    column = np.broadcast_to(sampling.normal(rng, (9, 1), dtype), (9, 33))
    yield (column,) * count, "zero strides"
    transposed = sampling.normal(rng, (40, 37), dtype).T
    yield (transposed, *(sampling.normal(rng, (37, 40), dtype) for _ in range(count - 1))), "transposed"
    special = sampling.specials(dtype)
    ones = sampling.normal(rng, special.shape, dtype)
    yield (*(ones,) * (count - 1), special), "special values"
    spread = sampling.to_dtype(rng.standard_normal(4000) * np.exp(rng.uniform(-40, 6, 4000)), dtype)
    yield (*(sampling.normal(rng, spread.shape, dtype),) * (count - 1), spread), "all magnitudes"


def _cases(name: str, count: int) -> Callable[[np.random.Generator, str], Iterator[Case]]:
    table: dict[str, list[dict]] = {"leaky_relu": [{}, {"negative_slope": 0.2}], "elu": [{}, {"alpha": 0.5}],
                                    "gelu": [{}, {"approximate": "tanh"}]}
    choices = table.get(name, [{}])

    def cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
        for attrs in choices:
            for inputs, label in _arrays(rng, dtype, count):
                yield Case(inputs, attrs, f"{label} {attrs or ''}".strip())
    return cases


BENCH_SHAPES = {"small": [(32, 32)], "medium": [(256, 1024)], "large": [(2048, 2048)]}


def _bench(name: str, count: int) -> Callable[[np.random.Generator, str, str], Iterator[Case]]:
    def bench(rng: np.random.Generator, dtype: str, size: str) -> Iterator[Case]:
        for attrs in ({}, {"approximate": "tanh"}) if name == "gelu" else ({},):
            for shape in BENCH_SHAPES[size]:
                suffix = " tanh" if attrs else ""
                inputs = tuple(sampling.normal(rng, shape, dtype, scale=3.0) for _ in range(count))
                yield Case(inputs, attrs, f"{shape[0]}x{shape[1]}{suffix}")
    return bench


def _flops(name: str, more: int) -> Callable[[Call], float]:
    return lambda call: float((FLOPS.get(name, 20) + more) * call.inputs[0].size)


def _nbytes(call: Call) -> float:
    return float((len(call.inputs) + 1) * call.inputs[0].nbytes)


def _gradient(name: str) -> Callable[..., tuple]:
    def gradient(run: Any, inputs: tuple, outputs: tuple, grads: tuple, attrs: dict) -> tuple:
        return (run(f"{name}_backward", grads[0], inputs[0], **attrs),)
    return gradient


def _specs() -> Iterator[Spec]:
    for name in DERIVATIVES:
        yield Spec(name, "activation", f"{name}(x), element by element", ("x",), _forward(name), _oracle(name), _bound,
                   _flops(name, 0), _nbytes, _cases(name, 1), _bench(name, 1), _gradient(name), like=(0,),
                   may_alias=(0,))
        yield Spec(f"{name}_backward", "activation", f"dy · {name}'(x)", ("dy", "x"), _backward(name),
                   _backward_oracle(name), _backward_bound(name), _flops(name, 2), _nbytes, _cases(name, 2),
                   _bench(name, 2), like=(1,), may_alias=(0, 1))


SPECS = list(_specs())
