"""The oracles against what does not share their code: mpmath, exact fractions, published vectors, differences."""
from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf

import tilewright as tw
from tilewright.core import registry, sampling
from tilewright.core.checking import ulp
from tilewright.core.packed import PackedMatrix
from tilewright.kernels.activation.spec import DERIVATIVES, FUNCTIONS, wide
from tilewright.kernels.dropout.spec import dropout, philox, threshold


@pytest.fixture(autouse=True)
def forty_digits() -> Any:
    with mp.workdps(40):
        yield


def exact(op: str, *inputs: Any, **attrs: Any) -> Any:
    """The oracle's results in the shapes of the public call."""
    absent = (None,) * (len(registry.spec(op).inputs) - len(inputs))
    call = registry.spec(op).prepare(inputs + absent, attrs)
    results = [np.empty(shape) for shape, _ in call.outputs]
    for view, value in zip(call.kernel_outs(results), registry.spec(op).oracle(call), strict=True):
        view[...] = value
    return tuple(results) if len(results) > 1 else results[0]


# ---- activations, against their definitions in 40 digits

def sigmoid(x: mpf) -> mpf:
    return 1 / (1 + mp.exp(-x))


def Phi(x: mpf) -> mpf:
    return mp.erfc(-x / mp.sqrt(2)) / 2


def tanh_gelu(x: mpf) -> mpf:
    """x (1 + tanh u) / 2, written so that 40 digits are enough in the far tail."""
    return x * sigmoid(2 * mp.sqrt(2 / mp.pi) * (x + mpf("0.044715") * x**3))


F: dict[str, Callable[[mpf], mpf]] = {
    "relu": lambda x: max(x, mpf(0)),
    "leaky_relu": lambda x: x if x > 0 else x / 100,
    "elu": lambda x: x if x > 0 else mp.expm1(x),
    "gelu": lambda x: x * Phi(x),
    "gelu_tanh": tanh_gelu,
    "silu": lambda x: x * sigmoid(x),
    "sigmoid": sigmoid,
    "tanh": mp.tanh,
    "softplus": lambda x: mp.log1p(mp.exp(x)) if x < 100 else x + mp.log1p(mp.exp(-x)),
    "hardswish": lambda x: x * min(max(x + 3, mpf(0)), mpf(6)) / 6,
}
SLOPES: dict[str, Callable[[mpf], mpf]] = {
    "relu": lambda x: mpf(x > 0),
    "leaky_relu": lambda x: mpf(1) if x > 0 else mpf(1) / 100,
    "elu": lambda x: mpf(1) if x > 0 else mp.exp(x),
    "gelu": lambda x: Phi(x) + x * mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi),
    "silu": lambda x: sigmoid(x) * (1 + x * sigmoid(-x)),
    "sigmoid": lambda x: sigmoid(x) * sigmoid(-x),
    "tanh": lambda x: mp.sech(x) ** 2,
    "softplus": sigmoid,
    "hardswish": lambda x: mpf(0) if x <= -3 else mpf(1) if x >= 3 else x / 3 + mpf(1) / 2,
}


def points(dtype: str) -> np.ndarray:
    """Special values and random ones, over the range where no formula above needs more than 40 digits."""
    rng = np.random.default_rng(5)
    spread = np.concatenate([rng.normal(0, 4, 150), rng.normal(0, 1, 50) * 10.0 ** rng.integers(-12, 2, 50)])
    x = np.concatenate([sampling.specials(dtype), spread.astype(dtype)])
    return x[np.isfinite(x) & (np.abs(x) < 1e5)]


def distance(found: np.ndarray, x: np.ndarray, f: Callable[[mpf], mpf]) -> np.ndarray:
    """|found - f(x)| in units of the last place of x's dtype."""
    true = [f(mpf(float(v))) for v in x]
    unit = ulp(np.array([float(t) for t in true]), x.dtype)
    off = [abs(mpf(float(a)) + mpf(float(a - type(a)(float(a)))) - t) for a, t in zip(found, true, strict=True)]
    return np.array([float(o / mpf(float(u))) for o, u in zip(off, unit, strict=True)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_activation(name: str, dtype: str) -> None:
    """The oracle's own error: nothing beside a kernel's 4 ULP in float32, half of what ULPS grants it in float64."""
    x = points(dtype)
    with np.errstate(all="ignore"):
        found = FUNCTIONS[name](wide(x))
    assert distance(found, x, F[name]).max() < (1e-3 if dtype == "float32" else 1.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivative(name: str, dtype: str) -> None:
    """The terms add up to the derivative; where they cancel, to within the roundings that the bound grants a kernel."""
    x = points(dtype)
    with np.errstate(all="ignore"):
        terms = DERIVATIVES[name](wide(x))
        size = sum(map(np.abs, terms)).astype(float)
        total = sum(terms)
    off = distance(total, x, SLOPES[name]) * ulp(np.array([float(SLOPES[name](mpf(float(v)))) for v in x]), dtype)
    assert (off <= (1e-3 if dtype == "float32" else 1.0) * ulp(size, dtype)).all()


def test_tanh_gelu_derivative() -> None:
    x = points("float64")
    with np.errstate(all="ignore"):
        total = sum(DERIVATIVES["gelu"](wide(x), approximate="tanh"))
    for v, found in zip(x, total, strict=True):
        if abs(v) < 30 and abs(v) > 1e-8:
            assert abs(mpf(float(found)) - mp.diff(tanh_gelu, mpf(float(v)))) < mpf("1e-14")


LIMITS = {"leaky_relu": (-np.inf, np.inf), "elu": (-1, np.inf), "sigmoid": (0, 1), "tanh": (-1, 1)}  # others: (0, inf)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_activation_at_infinity_and_nan(name: str) -> None:
    with np.errstate(all="ignore"):
        low, high, none = FUNCTIONS[name](np.array([-np.inf, np.inf, np.nan]))
    assert (low, high) == LIMITS.get(name, (0, np.inf))
    assert np.isnan(none)


@pytest.mark.parametrize(("name", "at", "slope"), [("relu", 0.0, 0.0), ("leaky_relu", 0.0, 0.01), ("elu", 0.0, 1.0),
                                                   ("hardswish", 3.0, 1.0), ("hardswish", -3.0, 0.0)])
def test_derivative_at_the_kink(name: str, at: float, slope: float) -> None:
    """PyTorch's choice, where there are two."""
    assert sum(DERIVATIVES[name](np.array([at])))[0] == slope


# ---- softmax, norms and loss, element by element from their formulas

def numbers(*shape: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(list(shape)).standard_normal(shape) * scale


def close(found: Any, true: Any, digits: float = 1e-15) -> None:
    found, true = np.asarray(found).ravel(), [mpf(t) for t in np.asarray(true, object).ravel()]
    assert len(found) == len(true)
    for a, t in zip(found, true, strict=True):
        assert abs(mpf(float(a)) - t) <= digits * max(abs(t), 1)


def row_softmax(row: np.ndarray) -> list[mpf]:
    e = [mp.exp(mpf(float(v))) for v in row]
    return [v / mp.fsum(e) for v in e]


def test_softmax_and_log_softmax() -> None:
    x = numbers(3, 7, scale=20.0)
    p = [row_softmax(row) for row in x]
    close(exact("softmax", x), p)
    close(exact("log_softmax", x), [[mp.log(v) for v in row] for row in p])
    close(exact("softmax", x.T, axis=0), np.array(p, object).T)


@pytest.mark.parametrize("op", ["layer_norm", "rms_norm"])
def test_norms(op: str) -> None:
    x, weight, bias = numbers(3, 7), numbers(7), numbers(7) + 1
    want = []
    for row in x:
        v = [mpf(float(e)) for e in row]
        if op == "layer_norm":
            mean = mp.fsum(v) / 7
            v = [e - mean for e in v]
        root = mp.sqrt(mp.fsum(e * e for e in v) / 7 + mpf(0.125))
        shift = bias if op == "layer_norm" else np.zeros(7)
        want.append([e / root * mpf(float(w)) + mpf(float(b)) for e, w, b in zip(v, weight, shift, strict=True)])
    close(exact(op, x, weight, *([bias] if op == "layer_norm" else []), eps=0.125), want)


@pytest.mark.parametrize("smoothing", [0.0, 0.25, 1.0])
def test_cross_entropy(smoothing: float) -> None:
    """Row 2 is ignored; the mean is over the other three."""
    x, labels = numbers(4, 5, scale=3.0), np.array([0, 4, -1, 2])
    rows = []
    for row, label in zip(x, labels, strict=True):
        logp = [mp.log(v) for v in row_softmax(row)]
        s = mpf(smoothing)
        rows.append(mpf(0) if label == -1 else -(1 - s) * logp[label] - s / 5 * mp.fsum(logp))
    for reduction, want in (("none", rows), ("sum", [mp.fsum(rows)]), ("mean", [mp.fsum(rows) / 3])):
        close(exact("cross_entropy", x, labels, reduction=reduction, ignore_index=-1, label_smoothing=smoothing), want)


# ---- dropout

def philox4x32(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """Ten rounds, as in figure 5 of Salmon et al. 2011, on Python's integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = k0 + 0x9E3779B9 & 0xFFFFFFFF, k1 + 0xBB67AE85 & 0xFFFFFFFF
    return c0, c1, c2, c3


@pytest.mark.parametrize(("counter", "key", "words"), [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
])
def test_philox_known_answers(counter: str, key: str, words: str) -> None:
    """Random123's published vectors, for the definition above; the next test ties the spec to it."""
    def parse(text: str) -> tuple[int, ...]:
        return tuple(int(word, 16) for word in text.split())
    assert philox4x32(parse(counter), parse(key)) == parse(words)


def test_philox_of_the_spec() -> None:
    rng = np.random.default_rng(2)
    edges = np.array([0, 1, 2**32 - 1, 2**32, 2**64 - 1], np.uint64)
    blocks = np.concatenate([edges, rng.integers(0, 2**64, 50, np.uint64)])
    assert philox(np.zeros(1, np.uint64), 0).tolist() == [[0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]]
    for seed in (0, 1, 2**32, 2**64 - 1, 0x299F31D0A4093822):
        want = [philox4x32((int(b) & 0xFFFFFFFF, int(b) >> 32, 0, 0), (seed & 0xFFFFFFFF, seed >> 32)) for b in blocks]
        assert philox(blocks, seed).tolist() == [list(words) for words in want]


def test_dropout_places_its_bits() -> None:
    """Element i takes word i mod 4 of block i div 4, and is kept from the threshold on."""
    x = np.arange(1.0, 24.0).reshape(1, 23).repeat(2, 0)
    found = dropout(x, 0.25, 7)
    for i, (value, kept) in enumerate(zip(x.ravel(), found.ravel(), strict=True)):
        word = philox4x32((i // 4, 0, 0, 0), (7, 0))[i % 4]
        assert kept == (value * (1 / 0.75) if word >= 2**30 else 0)
    assert (threshold(0.0), threshold(0.5), threshold(1.0)) == (0, 2**31, 2**32)
    assert abs((dropout(np.ones(100_000), 0.3, 1) == 0).mean() - 0.3) < 0.005  # 3.4 standard deviations


# ---- products and embedding, in exact arithmetic

def whole(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Small whole numbers as floats: every sum below is exact."""
    return rng.integers(-9, 10, shape).astype(np.float64)


def test_products_of_whole_numbers(rng: np.random.Generator) -> None:
    a, b, c, bias = whole(rng, 4, 6), whole(rng, 6, 5), whole(rng, 4, 5), whole(rng, 5)
    want = np.array([[sum(int(a[i, k]) * int(b[k, j]) for k in range(6)) for j in range(5)] for i in range(4)])
    assert (exact("matmul", a, b) == want).all()
    assert (exact("gemm", a.T, b.T, c, alpha=2.0, beta=-3.0, trans_a=True, trans_b=True) == 2 * want - 3 * c).all()
    assert (exact("linear", a, b.T, bias, activation="relu") == np.maximum(want + bias, 0)).all()
    dx, dw, dbias = exact("linear_backward", c, a, b.T)
    assert (dx == np.einsum("mn,kn->mk", c, b)).all()
    assert (dw == np.einsum("mn,mk->nk", c, a)).all()
    assert (dbias == np.einsum("mn->n", c)).all()


def test_embedding(rng: np.random.Generator) -> None:
    weight, indices = whole(rng, 5, 3), np.array([[4, 0], [4, 4]])
    assert (exact("embedding", indices, weight) == np.stack([weight[[4, 0]], weight[[4, 4]]])).all()
    dy = whole(rng, 2, 2, 3)
    want = np.zeros((5, 3))
    for i, j in product(range(2), range(2)):
        want[indices[i, j]] += dy[i, j]
    assert (exact("embedding_backward", dy, indices, num_embeddings=5) == want).all()


# ---- optimizer steps, by hand in fractions

def stepped(op: str, *lists: list[float] | None, **attrs: Any) -> list[list[float]]:
    """The oracle's new values of each mutated list."""
    arrays = tuple(None if values is None else [np.array(values)] for values in lists)
    call = registry.spec(op).prepare(arrays, attrs)
    return [list(map(float, x)) for x in registry.spec(op).oracle(call)]


def same(found: list[list[float]], *want: list[Fraction]) -> None:
    for row, expected in zip(found, want, strict=True):
        np.testing.assert_allclose(row, [float(v) for v in expected], rtol=4e-16, atol=0)


def test_sgd_by_hand() -> None:
    """p = 2, g = 3, b = 4; lr = 1/2, momentum = 1/4, weight decay 1/8: g' = 3 + 2/8 = 13/4, b' = 1 + 13/4 = 17/4."""
    p, g, b = Fraction(2), Fraction(13, 4), Fraction(17, 4)
    same(stepped("sgd_step", [2.0], [3.0], None, lr=0.5, weight_decay=0.125), [p - g / 2])
    same(stepped("sgd_step", [2.0], [3.0], [4.0], lr=0.5, momentum=0.25, weight_decay=0.125), [p - b / 2], [b])
    same(stepped("sgd_step", [2.0], [3.0], [4.0], lr=0.5, momentum=0.25, nesterov=True, weight_decay=0.125),
         [p - (g + b / 4) / 2], [b])


def test_adam_by_hand() -> None:
    """Step 1, beta1 = 1/2, beta2 = 3/4, eps = 1/8, p = 2, g = 4: m = 2, v = 4, m̂ = √v̂ = 4; p -= lr · 4 / (4 + 1/8).

    Weight decay 1/2 makes Adam's g 5: m = 5/2, v = 25/4, m̂ = 5, sqrt(v̂) = 5. AdamW multiplies p by 1 - lr/2 first.
    """
    attrs: dict[str, Any] = {"step": 1, "lr": 0.25, "betas": (0.5, 0.75), "eps": 0.125}
    lr = Fraction(1, 4)
    plain = Fraction(2) - lr * 4 / Fraction(33, 8)
    same(stepped("adam_step", [2.0], [4.0], [0.0], [0.0], **attrs), [plain], [Fraction(2)], [Fraction(4)])
    same(stepped("adam_step", [2.0], [4.0], [0.0], [0.0], weight_decay=0.5, **attrs),
         [Fraction(2) - lr * 5 / Fraction(41, 8)], [Fraction(5, 2)], [Fraction(25, 4)])
    same(stepped("adamw_step", [2.0], [4.0], [0.0], [0.0], weight_decay=0.5, **attrs),
         [Fraction(2) * (1 - lr / 2) - lr * 4 / Fraction(33, 8)], [Fraction(2)], [Fraction(4)])


def test_second_adam_step_by_hand() -> None:
    """Step 2, beta1 = 1/2, beta2 = 3/5, m = 3/4, v = 1, g = 2: m = 11/8, v = 3/5 + 8/5 = 11/5; 1 - beta2² = 16/25."""
    m, v = Fraction(11, 8), Fraction(11, 5)
    root = mp.sqrt(mpf(11) / 5) / (mpf(4) / 5) + mpf(1) / 8
    p = 2 - mpf(1) / 4 / (mpf(3) / 4) * mpf(11) / 8 / root
    found = stepped("adam_step", [2.0], [2.0], [0.75], [1.0], step=2, lr=0.25, betas=(0.5, 0.6), eps=0.125)
    np.testing.assert_allclose([x[0] for x in found], [float(p), float(m), float(v)], rtol=1e-15)


def test_clip_by_hand() -> None:
    """The norm of (3, 4, 12) is 13."""
    half = stepped("clip_grad_norm", [3.0, 4.0, 12.0], max_norm=6.5)
    np.testing.assert_allclose(half[0], [v * 6.5 / (13 + 1e-6) for v in (3, 4, 12)], rtol=1e-15)
    assert stepped("clip_grad_norm", [3.0, 4.0, 12.0], max_norm=14.0) == [[3.0, 4.0, 12.0]]


# ---- gradients: backward oracles against differences of forward oracles

DIFFERENTIABLE = [op for op, spec in registry.specs().items() if spec.gradient is not None and "float64" in spec.dtypes]


def small_cases(op: str) -> list[registry.Case]:
    """A few of the table's own cases: small, not empty, finite, every choice of attributes once."""
    chosen: dict[str, registry.Case] = {}
    for case in registry.spec(op).cases(np.random.default_rng(3), "float64"):
        arrays = [np.asarray(x) for x in case.inputs if x is not None]
        absent = tuple(x is None for x in case.inputs)
        if any(isinstance(x, PackedMatrix) for x in case.inputs):  # a constant
            continue
        shapes = tuple(x.ndim for x in arrays)
        key = str((case.attrs if op != "dropout" else None, absent, shapes))
        if all(0 < x.size <= 3000 and np.isfinite(x).all() for x in arrays):
            chosen.setdefault(key, case)
    return list(chosen.values())[:60]


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_gradient_against_differences(op: str) -> None:
    """d/dt of sum(g · f(x + t·v)) for random g and v, by a central difference of the forward oracle, by each input."""
    spec, rng = registry.spec(op), np.random.default_rng(11)
    for case in small_cases(op):
        def along(i: int, v: np.ndarray, t: float, case: registry.Case = case) -> np.ndarray:
            inputs = list(case.inputs)
            inputs[i] = inputs[i] + t * v
            return np.asarray(exact(op, *inputs, **case.attrs))

        y = np.asarray(exact(op, *case.inputs, **case.attrs))
        if not np.isfinite(y).all():
            continue  # the mean of no rows
        g = rng.standard_normal(y.shape)
        found = spec.gradient(exact, case.inputs, (y,), (g,), case.attrs)
        for i, x in enumerate(case.inputs):
            if x is None or x.dtype.kind in "iu":
                assert found[i] is None
                continue
            assert found[i].shape == x.shape
            v, h = rng.standard_normal(x.shape), 1e-6
            rise = (g * (along(i, v, h) - along(i, v, -h))).sum() / (2 * h)
            size = np.abs(found[i] * v).sum() + np.abs(g * y).sum() + 1
            assert abs((found[i] * v).sum() - rise) < 1e-6 * size, f"{op} [{case.label}] input {i}"


def test_backward_oracles_take_the_slopes(rng: np.random.Generator) -> None:
    """X_backward is dy · X', X' being what test_derivative checked, also where dy is large or zero."""
    x, dy = rng.standard_normal(50) * 3, rng.standard_normal(50) * 1e3
    dy[::7] = 0
    for name in DERIVATIVES:
        want = [mpf(float(a)) * SLOPES[name](mpf(float(b))) for a, b in zip(dy, x, strict=True)]
        close(exact(f"{name}_backward", dy, x), want, 1e-15 if name != "gelu" else 3e-15)


# ---- conversions: against fractions

def _exact_quantize(x: float, scale: float, zero: int, low: int, high: int) -> int:
    """The definition in rational numbers: the quotient rounded to float32, then to an integer, halves to even."""
    if math.isnan(x):
        return low
    if math.isinf(x):
        return high if x > 0 else low
    quotient = Fraction(x) / Fraction(scale)
    rounded = quotient if abs(quotient) > 2 ** 26 else Fraction(float(nearest_float32(quotient)))
    return min(max(round(rounded) + zero, low), high)


def nearest_float32(value: Fraction) -> Fraction:
    """Halves to even; denormals are spaced like the smallest normal numbers."""
    if value == 0:
        return value
    exponent = max(math.frexp(float(value))[1] - 24, -149)
    step = Fraction(2) ** exponent
    return round(value / step) * step


def test_quantize_linear_is_exact(backend: str) -> None:
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.standard_normal(300) * 40, np.arange(-64, 64) / 4, [np.inf, -np.inf, np.nan, 1e30, 1e-44]])
    x = x.astype(np.float32)
    for scale in (0.25, 0.1, 3.0, 1e-3, 1e-20):
        for zero in (np.uint8(0), np.uint8(200), np.int8(-128), np.int8(5), np.int16(-7), np.uint16(65535)):
            info, s = np.iinfo(zero.dtype), float(np.float32(scale))
            want = [_exact_quantize(float(v), s, int(zero), info.min, info.max) for v in x]
            assert tw.quantize_linear(x, scale, zero, backend=backend).tolist() == want


def test_requantized_products_are_exact(backend: str) -> None:
    """qlinear_matmul from whole numbers: the scales' product, the sum and theirs round once each."""
    rng = np.random.default_rng(6)
    a, b = rng.integers(0, 256, (7, 40), np.uint8), rng.integers(-128, 128, (40, 9), np.int8)
    a_scale, b_scale, y_scale = (float(np.float32(v)) for v in (0.013, 0.21, 17.0))
    scale = nearest_float32(Fraction(a_scale) * Fraction(b_scale))
    found = tw.qlinear_matmul(a, a_scale, np.uint8(9), b, b_scale, np.int8(-3), y_scale, np.int8(4), backend=backend)
    for i, j in np.ndindex(found.shape):
        total = sum((int(p) - 9) * (int(q) + 3) for p, q in zip(a[i], b[:, j], strict=True))
        real = float(nearest_float32(nearest_float32(Fraction(total)) * scale))
        assert found[i, j] == _exact_quantize(real, y_scale, 4, -128, 127)
