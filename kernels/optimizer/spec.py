"""What the optimizer steps are: PyTorch's formulas, over lists of arrays, in place.

    sgd_step    g += wd·p;  b = momentum·b + g;  p -= lr·(g + momentum·b if nesterov else b)     (b starts as zeros)
    adam_step   g += wd·p;  m += (1 - beta1)·(g - m);  v = beta2·v + (1 - beta2)·g²;
                p -= lr / (1 - beta1^step) · m / (sqrt(v) / sqrt(1 - beta2^step) + eps)          (Kingma and Ba 2015)
    adamw_step  p *= 1 - lr·wd first, and g without wd                                    (Loshchilov and Hutter 2019)
    clip_grad_norm   n = sqrt of the sum of all squares;  g *= min(1, max_norm / (n + 1e-6));  n is returned
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tilewright.core import arrays, sampling
from tilewright.core.checking import eps, tiny
from tilewright.core.errors import AliasError, ArgumentError, DTypeError, ShapeError
from tilewright.core.registry import FLOATS, Call, Case, Spec

ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
DEFAULTS: dict[str, dict[str, Any]] = {
    "sgd_step": {"lr": 1e-3, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0},
    "adam_step": ADAM, "adamw_step": ADAM | {"weight_decay": 0.01}, "clip_grad_norm": {},
}
INPUTS = {
    "sgd_step": ("params", "grads", "momentum_buffers"), "adam_step": ("params", "grads", "exp_avgs", "exp_avg_sqs"),
    "adamw_step": ("params", "grads", "exp_avgs", "exp_avg_sqs"), "clip_grad_norm": ("grads",),
}
MUTATES = {"sgd_step": (0, 2), "adam_step": (0, 2, 3), "adamw_step": (0, 2, 3), "clip_grad_norm": (0,)}


# ---- normal forms

def _list(op: str, name: str, value: Any, mutated: bool) -> tuple[np.ndarray, ...]:
    """One array or a sequence of them; nothing may be converted, since results are written in place."""
    many = (value,) if isinstance(value, np.ndarray) else tuple(value)
    for i, x in enumerate(many):
        if not isinstance(x, np.ndarray) or x.dtype.name not in FLOATS or not (x.dtype.isnative and x.flags.aligned):
            raise DTypeError(f"{op}: {name}[{i}] must be a NumPy array of float32 or float64 in native byte order, not "
                             f"{getattr(x, 'dtype', type(x).__name__)}")
        if mutated:
            arrays.check_out(f"{op}: {name}[{i}]", x, x.shape, x.dtype)
    return many


def _numbers(op: str, attrs: dict) -> dict[str, Any]:
    full = DEFAULTS[op] | attrs
    if "betas" in full:
        full["beta1"], full["beta2"] = full.pop("betas")
        if isinstance(full["step"], bool) or int(full["step"]) != full["step"] or full["step"] < 1:
            raise ArgumentError(f"{op}: step counts from 1, it cannot be {full['step']!r}")
    for name, value in full.items():
        full[name] = bool(value) if name == "nesterov" else int(value) if name == "step" else float(value)
        if not full[name] >= 0 or (name.startswith("beta") and full[name] >= 1):
            raise ArgumentError(f"{op}: {name} cannot be {value!r}")
    if full.get("nesterov") and not full["momentum"]:
        raise ArgumentError(f"{op}: nesterov needs a momentum above 0")
    return full


def _prepare(op: str) -> Callable[[tuple, dict], Call]:
    names, mutates = INPUTS[op], MUTATES[op]

    def prepare(inputs: tuple, attrs: dict) -> Call:
        lists: tuple[Any, ...] = tuple(None if v is None else _list(op, n, v, i in mutates)
                                       for i, (n, v) in enumerate(zip(names, inputs, strict=True)))
        full = _numbers(op, attrs)
        if op == "sgd_step" and full["momentum"] and lists[2] is None:
            raise ArgumentError("sgd_step: momentum needs momentum_buffers, arrays of zeros like params at first")
        present = [(n, v) for n, v in zip(names, lists, strict=True) if v is not None]
        for name, many in present:
            if len(many) != len(lists[0]):
                raise ShapeError(f"{op}: {len(lists[0])} {names[0]} but {len(many)} {name}")
        for i, group in enumerate(zip(*(v for _, v in present), strict=True)):
            for (name, _), x in zip(present, group, strict=True):
                if x.shape != group[0].shape or x.dtype != lists[0][0].dtype:
                    raise ShapeError(f"{op}: {name}[{i}] is {x.dtype} {x.shape}, "
                                     f"{names[0]}[{i}] is {group[0].dtype} {group[0].shape}; "
                                     "all must be of one dtype and agree in shape")
            for j in mutates:
                if j < len(group) and any(k != j and arrays.overlaps(group[j], x) for k, x in enumerate(group)):
                    raise AliasError(f"{op}: {present[j][0]}[{i}] shares memory with another of its arrays")
        return Call(op, lists, full)
    return prepare


# ---- oracles and bounds: the new values of every mutated array, in the order of the inputs

def sgd(p: Any, g: Any, b: Any, *, lr: float, momentum: float, nesterov: bool, weight_decay: float) -> tuple:
    """New p and b of one parameter."""
    g = g + weight_decay * p
    if b is None:
        return (p - lr * g,)
    b = momentum * b + g
    return p - lr * (g + momentum * b if nesterov else b), b


def adam(p: Any, g: Any, m: Any, v: Any, *, step: int, lr: float, beta1: float, beta2: float, eps: float,
         weight_decay: float, decoupled: bool) -> tuple:
    """New p, m and v of one parameter."""
    if decoupled:
        p = p * (1 - lr * weight_decay)
    else:
        g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    root = np.sqrt(v) / np.sqrt(1 - beta2 ** step) + eps
    with np.errstate(all="ignore"):
        return p - lr / (1 - beta1 ** step) * m / root, m, v


def clip_factor(norm: float, max_norm: float) -> float:
    """What every gradient is multiplied with; NaN where the norm is."""
    factor = max_norm / (norm + 1e-6)
    return 1.0 if factor > 1 else factor


def stepped(call: Call, widen: Callable[[np.ndarray], np.ndarray]) -> list[tuple]:
    attrs = call.attrs if call.op == "sgd_step" else call.attrs | {"decoupled": call.op == "adamw_step"}
    f: Callable[..., tuple] = sgd if call.op == "sgd_step" else adam
    return [f(*(None if x is None else widen(x) for x in group), **attrs) for group in groups(call)]


def groups(call: Call) -> Iterator[tuple]:
    """(p, g, …) of each parameter, None where a list is absent."""
    absent = (None,) * len(call.inputs[0])
    return zip(*(absent if x is None else x for x in call.inputs), strict=True)


def flattened(results: list[tuple]) -> tuple:
    """Per parameter (p, b) … as all p, then all b: the order of the mutated inputs."""
    return tuple(x for many in zip(*results, strict=True) for x in many)


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.longdouble)


def _oracle(call: Call) -> tuple:
    return tuple(x.astype(np.float64) for x in flattened(stepped(call, _wide)))


def _sgd_bound(call: Call, expected: tuple) -> tuple:
    u, a = eps(call.dtype), call.attrs

    def one(p: Any, g: Any, b: Any) -> tuple:
        s = np.abs(g) + a["weight_decay"] * np.abs(p)
        if b is None:
            return (u * (np.abs(p) + 4 * a["lr"] * s) + tiny(call.dtype),)
        t = a["momentum"] * np.abs(b) + s
        step = s + a["momentum"] * t if a["nesterov"] else t
        return u * (np.abs(p) + 6 * a["lr"] * (step + a["lr"] * step)) + tiny(call.dtype), 4 * u * t + tiny(call.dtype)
    return flattened([one(*(None if x is None else _wide(x) for x in group)) for group in groups(call)])


def _adam_bound(call: Call, expected: tuple) -> tuple:
    """Each rounding of the formula once, with its terms' magnitudes; first order through the quotient and the root."""
    u, a, floor = eps(call.dtype), call.attrs, tiny(call.dtype)
    decoupled = call.op == "adamw_step"
    c1, c2 = 1 - a["beta1"] ** a["step"], np.sqrt(1 - a["beta2"] ** a["step"])

    def one(p: Any, g: Any, m: Any, v: Any) -> tuple:
        s = np.abs(g) + (0 if decoupled else a["weight_decay"] * np.abs(p))
        _, m1, v1 = adam(p, g, m, v, **a, decoupled=decoupled)
        em = 4 * u * (np.abs(m) + s) + floor
        ev = 6 * u * (v + (1 - a["beta2"]) * s * s) + floor
        root = np.sqrt(v1) / c2 + a["eps"]
        with np.errstate(all="ignore"):
            ed = np.fmin(ev / (2 * np.sqrt(v1)), np.sqrt(ev)) / c2 + 4 * u * root
            update = a["lr"] / c1 * (em / root + np.abs(m1) * ed / root**2 + 6 * u * np.abs(m1) / root)
        return 3 * u * np.abs(p) + u * a["lr"] / c1 * np.abs(m1) / root + update + floor, em, ev
    return flattened([one(*map(_wide, group)) for group in groups(call)])


def _clip_oracle(call: Call) -> tuple:
    norm = np.sqrt(sum((_wide(g) ** 2).sum() for g in call.inputs[0]))
    return tuple((_wide(g) * clip_factor(norm, call.attrs["max_norm"])).astype(np.float64) for g in call.inputs[0])


def _clip_bound(call: Call, expected: tuple) -> tuple:
    """A sum of n squares errs by n·u relative, its root by half of that."""
    n = sum(g.size for g in call.inputs[0])
    return tuple((n / 4 + 4) * eps(call.dtype) * np.abs(e) + tiny(call.dtype) for e in expected)


# ---- samples

def _parameters(op: str, rng: np.random.Generator, dtype: str, shapes: list[tuple[int, ...]],
                layout: str = "c") -> list[Any]:
    lists = []
    for name in INPUTS[op]:
        new = [sampling.normal(rng, shape, dtype, "c") for shape in shapes]
        new = [np.square(x) * x.dtype.type(0.01) for x in new] if name == "exp_avg_sqs" else new
        lists.append([sampling.laid_out(np.asarray(x), layout) for x in new])
    return lists


SHAPES: list[list[tuple[int, ...]]] = [
    [(n,) for n in range(40)], [(63,), (64, 65), (129,)], [(1000,), (3, 0), (), (17, 31)], [(5000, 7)],
    [(523,), (1037,), (1549,), (2061,), (3089,)]]  # one element behind any number of vectors


def _cases(op: str) -> Callable[[np.random.Generator, str], Iterator[Case]]:
    choices: list[dict] = {
        "sgd_step": [{"lr": 0.1}, {"lr": 0.01, "momentum": 0.9},
                     {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}],
        "clip_grad_norm": [{"max_norm": 1.0}, {"max_norm": 1e6}, {"max_norm": 0.0}],
    }.get(op, [{"step": 1}, {"step": 3, "lr": 0.1, "weight_decay": 0.1},
               {"step": 1000, "betas": (0.5, 0.9), "eps": 1e-3}])

    def cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
        for attrs in choices:
            for shapes in SHAPES:
                yield Case(tuple(_parameters(op, rng, dtype, shapes)), attrs, f"{len(shapes)} arrays {attrs}")
            for layout in sampling.LAYOUTS:
                yield Case(tuple(_parameters(op, rng, dtype, [(9, 17), (33,)], layout)), attrs, f"{layout} {attrs}")
        if op == "sgd_step":
            for layout in sampling.LAYOUTS:
                params, grads, _ = _parameters(op, rng, dtype, SHAPES[-1] if layout == "c" else [(33,), (4, 5)], layout)
                yield Case((params, grads, None), {"lr": 0.1, "weight_decay": 0.1}, f"no buffers {layout}")
    return cases


def _bench(op: str) -> Callable[[np.random.Generator, str, str], Iterator[Case]]:
    def bench(rng: np.random.Generator, dtype: str, size: str) -> Iterator[Case]:
        sizes = {"small": (64, 64, 10), "medium": (784, 256, 10), "large": (1024, 1024, 1024)}[size]
        shapes: list[tuple[int, ...]] = [s for i, o in zip(sizes, sizes[1:], strict=False) for s in ((o, i), (o,))]
        table = {"sgd_step": {"lr": 1e-6, "momentum": 0.9}, "clip_grad_norm": {"max_norm": 1.0}}
        attrs = table.get(op, {"step": 10, "lr": 1e-6})
        yield Case(tuple(_parameters(op, rng, dtype, shapes)), attrs, "-".join(map(str, sizes)))
    return bench


def _size(call: Call) -> int:
    return sum(x.size for x in call.inputs[0])


def _spec(op: str, summary: str, bound: Any, flops: int, oracle: Any = _oracle) -> Spec:
    traffic = len(INPUTS[op]) + len(MUTATES[op])
    return Spec(op, "optimizer", summary, INPUTS[op], _prepare(op), oracle, bound,
                lambda call: float(flops * _size(call)),
                lambda call: float(traffic * _size(call) * call.dtype.itemsize),
                _cases(op), _bench(op), mutates=MUTATES[op])


SPECS = [
    _spec("sgd_step", "stochastic gradient descent with momentum, in place", _sgd_bound, 6),
    _spec("adam_step", "Adam, in place", _adam_bound, 14),
    _spec("adamw_step", "Adam with decoupled weight decay, in place", _adam_bound, 14),
    _spec("clip_grad_norm", "scale gradients in place to a norm of at most max_norm", _clip_bound, 3, _clip_oracle),
]
