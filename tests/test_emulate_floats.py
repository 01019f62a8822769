"""The emulator's floating-point instructions against exact arithmetic on fractions, rounded as IEEE 754 says."""
from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from conformance import SEED
from emulation import CANONICAL_NAN, Case, as_float, bits_of, check, flushed, is_nan, negative, specials, value

MODES = ("rn", "rz", "rm", "rp")
Bits = Callable[..., int]


def finite(*values: Fraction | float) -> bool:
    return all(isinstance(x, Fraction) for x in values)


def added(a: int, b: int, t: str, mode: str = "rn") -> int:
    x, y = value(a, t), value(b, t)
    if not finite(x, y):
        return bits_of(as_float(x) + as_float(y), t)
    both = negative(a, t) and negative(b, t)
    either = negative(a, t) or negative(b, t)
    return bits_of(x + y, t, mode, both if mode != "rm" else both or (x + y == 0 and either or x != 0))


def multiplied(a: int, b: int, t: str, mode: str = "rn") -> int:
    x, y = value(a, t), value(b, t)
    if not finite(x, y):
        with np.errstate(invalid="ignore"):
            return bits_of(float(np.float64(as_float(x)) * as_float(y)), t)
    return bits_of(x * y, t, mode, negative(a, t) != negative(b, t))


def fused(a: int, b: int, c: int, t: str, mode: str = "rn") -> int:
    x, y, z = value(a, t), value(b, t), value(c, t)
    if not finite(x, y, z):
        with np.errstate(invalid="ignore"):
            product = np.float64(as_float(x)) * as_float(y)
            return bits_of(float(product + as_float(z)), t)
    minus = negative(a, t) != negative(b, t)
    both, either = minus and negative(c, t), minus or negative(c, t)
    return bits_of(x * y + z, t, mode, both if mode != "rm" else both or x * y != 0 or either)


def divided(a: int, b: int, t: str, mode: str = "rn") -> int:
    x, y = value(a, t), value(b, t)
    minus = negative(a, t) != negative(b, t)
    if not finite(x, y) or y == 0:
        with np.errstate(invalid="ignore", divide="ignore"):
            q = float(np.float64(as_float(x)) / np.float64(-0.0 if y == 0 and negative(b, t) else as_float(y)))
        return bits_of(math.copysign(q, -1 if minus else 1), t)
    return bits_of(x / y, t, mode, minus)


def rooted(a: int, t: str, mode: str = "rn") -> int:
    x = value(a, t)
    if not finite(x) or x < 0:
        return bits_of(math.inf if x == math.inf else math.nan, t)
    if x == 0:
        return a
    scale = Fraction(4) ** 400  # so many digits that what is cut off is not half of anything
    root = Fraction(math.isqrt(int(x * scale * scale)), 1) / scale
    return bits_of(root if root * root == x else root + 1 / (scale * 16), t, mode)


def one(t: str) -> int:
    return bits_of(1, t)


def ftz(oracle: Bits) -> Bits:
    """With subnormal operands and results as zeros."""
    return lambda *x: flushed(oracle(*(flushed(v, "f32") for v in x)), "f32")


def saturated(oracle: Bits, t: str) -> Bits:
    def result(*x: int) -> int:
        r = oracle(*x)
        if is_nan(r, t) or negative(r, t):
            return 0
        return min(r, one(t))
    return result


def in_mode(function: Callable[..., int], t: str, mode: str) -> Bits:
    return lambda *x: function(*x, t, mode)


@pytest.mark.parametrize("t", ["f32", "f64"])
def test_arithmetic_in_every_rounding(t: str) -> None:
    cases = []
    for mode in MODES:
        def flipped(a: int, b: int, mode: str = mode) -> int:
            return added(a, b if is_nan(b, t) else b ^ 1 << int(t[1:]) - 1, t, mode)
        cases += [
            Case(f"add.{mode}.{t} %d, %a, %b;", t, (t, t), in_mode(added, t, mode)),
            Case(f"sub.{mode}.{t} %d, %a, %b;", t, (t, t), flipped),
            Case(f"mul.{mode}.{t} %d, %a, %b;", t, (t, t), in_mode(multiplied, t, mode)),
            Case(f"fma.{mode}.{t} %d, %a, %b, %c;", t, (t, t, t), in_mode(fused, t, mode)),
            Case(f"div.{mode}.{t} %d, %a, %b;", t, (t, t), in_mode(divided, t, mode)),
            Case(f"sqrt.{mode}.{t} %d, %a;", t, (t,), in_mode(rooted, t, mode)),
            Case(f"rcp.{mode}.{t} %d, %a;", t, (t,), lambda a, mode=mode: divided(one(t), a, t, mode)),
        ]
    cases += [Case(f"add.{t} %d, %a, %b;", t, (t, t), in_mode(added, t, "rn")),
              Case(f"mad.rn.{t} %d, %a, %b, %c;", t, (t, t, t), in_mode(fused, t, "rn"))]
    check(cases)


def test_flushing_and_saturation() -> None:
    t, two, three = "f32", ("f32", "f32"), ("f32", "f32", "f32")
    add, mul, fma = (in_mode(f, t, "rn") for f in (added, multiplied, fused))
    check([
        Case("add.ftz.f32 %d, %a, %b;", t, two, ftz(add)),
        Case("mul.ftz.f32 %d, %a, %b;", t, two, ftz(mul)),
        Case("fma.rn.ftz.f32 %d, %a, %b, %c;", t, three, ftz(fma)),
        Case("add.sat.f32 %d, %a, %b;", t, two, saturated(add, t)),
        Case("mul.ftz.sat.f32 %d, %a, %b;", t, two, saturated(ftz(mul), t)),
        Case("fma.rn.sat.f32 %d, %a, %b, %c;", t, three, saturated(fma, t)),
        Case("fma.rz.ftz.f32 %d, %a, %b, %c;", t, three, ftz(in_mode(fused, t, "rz"))),
        Case("div.rn.ftz.f32 %d, %a, %b;", t, two, ftz(in_mode(divided, t, "rn"))),
        Case("sqrt.rn.ftz.f32 %d, %a;", t, (t,), ftz(in_mode(rooted, t, "rn"))),
        Case("div.full.f32 %d, %a, %b;", t, two, in_mode(divided, t, "rn")),
        Case("div.approx.ftz.f32 %d, %a, %b;", t, two, ftz(in_mode(divided, t, "rn"))),
        Case("rcp.approx.ftz.f32 %d, %a;", t, (t,), ftz(lambda a: divided(one(t), a, t))),
        Case("sqrt.approx.f32 %d, %a;", t, (t,), in_mode(rooted, t, "rn")),
        Case("abs.ftz.f32 %d, %a;", t, (t,), lambda a: flushed(a, t) & 0x7FFFFFFF, same_nan=False),
        Case("neg.ftz.f32 %d, %a;", t, (t,), lambda a: flushed(a, t) ^ 0x80000000, same_nan=False),
    ])


def extreme(a: int, b: int, t: str, greatest: bool, nan: bool = False) -> int:
    if is_nan(a, t) or is_nan(b, t):
        if nan or is_nan(a, t) and is_nan(b, t):
            return bits_of(math.nan, t)
        return b if is_nan(a, t) else a

    def key(x: int) -> tuple[float, bool]:  # -0 lies below +0
        return value(x, t), not negative(x, t)
    return (max if greatest else min)(a, b, key=key)


@pytest.mark.parametrize("t", ["f16", "bf16", "f32", "f64"])
def test_minimum_and_maximum(t: str) -> None:
    cases = []
    for name in ("min", "max"):
        def plain(a: int, b: int, name: str = name) -> int:
            return extreme(a, b, t, name == "max")
        cases.append(Case(f"{name}.{t} %d, %a, %b;", t, (t, t), plain))
        if t != "f64":
            cases.append(Case(f"{name}.NaN.{t} %d, %a, %b;", t, (t, t),
                              lambda a, b, name=name: extreme(a, b, t, name == "max", True)))
    if t == "f32":
        cases.append(Case("max.ftz.f32 %d, %a, %b;", t, (t, t), ftz(lambda a, b: extreme(a, b, t, True))))

        def crossed(a: int, b: int) -> int:
            size = extreme(a & 0x7FFFFFFF, b & 0x7FFFFFFF, t, True, True)
            return size if is_nan(size, t) else size | (a ^ b) & 0x80000000
        cases.append(Case("max.NaN.xorsign.abs.f32 %d, %a, %b;", t, (t, t), crossed, same_nan=False))
    check(cases)


@pytest.mark.parametrize("t", ["f16", "bf16"])
def test_half_precision(t: str) -> None:
    """One rounding, though the arithmetic is done in a wider type."""
    def packed(function: Bits) -> Bits:
        return lambda *x: sum(function(*(v >> 16 * i & 0xFFFF for v in x)) << 16 * i for i in (0, 1))

    def subtracted(a: int, b: int) -> int:
        return added(a, b if is_nan(b, t) else b ^ 0x8000, t)

    def positive(a: int, b: int, c: int) -> int:
        r = fused(a, b, c, t)
        return r if is_nan(r, t) else 0 if negative(r, t) else r
    add, mul, fma = (in_mode(f, t, "rn") for f in (added, multiplied, fused))
    two, three = (t, t), (t, t, t)
    p = f"{t}x2"
    cases = [
        Case(f"add.rn.{t} %d, %a, %b;", t, two, add),
        Case(f"sub.rn.{t} %d, %a, %b;", t, two, subtracted),
        Case(f"mul.rn.{t} %d, %a, %b;", t, two, mul),
        Case(f"fma.rn.{t} %d, %a, %b, %c;", t, three, fma),
        Case(f"fma.rn.relu.{t} %d, %a, %b, %c;", t, three, positive),
        Case(f"neg.{t} %d, %a;", t, (t,), lambda a: a ^ 0x8000, same_nan=False),
        Case(f"abs.{t} %d, %a;", t, (t,), lambda a: a & 0x7FFF, same_nan=False),
        Case(f"add.rn.{p} %d, %a, %b;", p, (p, p), packed(add)),
        Case(f"sub.rn.{p} %d, %a, %b;", p, (p, p), packed(subtracted)),
        Case(f"mul.rn.{p} %d, %a, %b;", p, (p, p), packed(mul)),
        Case(f"fma.rn.{p} %d, %a, %b, %c;", p, (p, p, p), packed(fma)),
        Case(f"max.{p} %d, %a, %b;", p, (p, p), packed(lambda a, b: extreme(a, b, t, True))),
        Case(f"neg.{p} %d, %a;", p, (p,), lambda a: a ^ 0x80008000, same_nan=False),
    ]
    if t == "f16":
        cases += [
            Case("add.sat.f16 %d, %a, %b;", t, two, saturated(add, t)),
            Case("fma.rn.sat.f16 %d, %a, %b, %c;", t, three, saturated(fma, t)),
            Case("mul.ftz.f16 %d, %a, %b;", t, two,
                 lambda a, b: flushed(multiplied(flushed(a, t), flushed(b, t), t), t)),
        ]
    check(cases)


def test_pairs_of_floats() -> None:
    def packed(function: Bits) -> Bits:
        return lambda *x: sum(function(*(v >> 32 * i & 0xFFFFFFFF for v in x)) << 32 * i for i in (0, 1))
    rows = [tuple(a | b << 32 for a, b in zip(x, x[1:] + x[:1], strict=True))
            for x in zip(*(specials("f32")[i:] + specials("f32")[:i] for i in (0, 3, 7)), strict=True)]
    three = ("b64", "b64", "b64")
    check([
        Case("fma.rn.f32x2 %d, %a, %b, %c;", "b64", three, packed(in_mode(fused, "f32", "rn")), rows),
        Case("add.rn.f32x2 %d, %a, %b;", "b64", three[:2], packed(in_mode(added, "f32", "rn")), [r[:2] for r in rows]),
        Case("mul.rn.f32x2 %d, %a, %b;", "b64", three[:2], packed(in_mode(multiplied, "f32", "rn")),
             [r[:2] for r in rows]),
    ])


def test_approximate_instructions_are_exact_here() -> None:
    """Computed more closely than any device does: the double nearest to the result, rounded."""
    def of(function: Callable[[mpmath.mpf], mpmath.mpf], t: str = "f32") -> Bits:
        def oracle(a: int) -> int:
            x = value(a, t)
            if x == 0:
                x = Fraction(0)
            with mpmath.workprec(200):
                try:
                    y = function(mpmath.mpf(x) if isinstance(x, float) else
                                 mpmath.mpf(x.numerator) / x.denominator)
                except (ValueError, ZeroDivisionError):
                    return CANONICAL_NAN[t]
                if mpmath.isnan(y) or isinstance(y, mpmath.mpc):
                    return CANONICAL_NAN[t]
                if mpmath.isinf(y):
                    return bits_of(float(y), t)
                sign, mantissa, exponent, _ = y._mpf_
                exact = (-1) ** sign * Fraction(int(mantissa)) * Fraction(2) ** exponent
            if exact == 0:
                return bits_of(0, t, zero_negative=negative(a, t) and function is not exp2)
            return bits_of(exact, t)
        return oracle

    def exp2(x: mpmath.mpf) -> mpmath.mpf:
        return mpmath.mpf(2) ** (x if abs(x) < 4000 else math.copysign(4000, x)) if x == x else x

    def log2(x: mpmath.mpf) -> mpmath.mpf:
        if x == 0:
            return -mpmath.inf
        return mpmath.log(x, 2) if x > 0 else mpmath.nan

    def rsqrt(x: mpmath.mpf) -> mpmath.mpf:
        if x == 0:
            return mpmath.inf
        return 1 / mpmath.sqrt(x) if x > 0 else mpmath.nan

    def circular(function: Callable[[mpmath.mpf], mpmath.mpf]) -> Callable[[mpmath.mpf], mpmath.mpf]:
        return lambda x: mpmath.nan if mpmath.isinf(x) else function(x)
    rng = np.random.default_rng(SEED)
    t = "f32"
    rows = [(x,) for x in specials(t)] + [(bits_of(float(x), t),) for x in rng.normal(0, 8, 400)]
    positive = [(x,) for (x,) in rows if x not in (0x80000000,)]
    halves = [(bits_of(float(x), "f16"),) for x in rng.normal(0, 3, 300)]
    brains = [(bits_of(float(x), "bf16"),) for x in rng.normal(0, 3, 300)]
    check([
        Case("ex2.approx.f32 %d, %a;", t, (t,), of(exp2), rows),
        Case("lg2.approx.f32 %d, %a;", t, (t,), of(log2), rows),
        Case("rsqrt.approx.f32 %d, %a;", t, (t,), of(rsqrt), positive),
        Case("sin.approx.f32 %d, %a;", t, (t,), of(circular(mpmath.sin)), rows),
        Case("cos.approx.f32 %d, %a;", t, (t,), of(circular(mpmath.cos)), rows),
        Case("tanh.approx.f32 %d, %a;", t, (t,), of(mpmath.tanh), rows),
        Case("ex2.approx.ftz.f32 %d, %a;", t, (t,), ftz(of(exp2)), rows),
        Case("ex2.approx.f16 %d, %a;", "f16", ("f16",), of(exp2, "f16"), halves),
        Case("tanh.approx.f16 %d, %a;", "f16", ("f16",), of(mpmath.tanh, "f16"), halves),
        Case("tanh.approx.bf16 %d, %a;", "bf16", ("bf16",), of(mpmath.tanh, "bf16"), brains),
        Case("ex2.approx.ftz.bf16 %d, %a;", "bf16", ("bf16",), of(exp2, "bf16"), brains),
    ])


def test_coarse_reciprocals_of_doubles() -> None:
    """rcp.approx.ftz.f64 reads and gives the upper word only."""
    rng = np.random.default_rng(SEED)
    rows = [(int(x),) for x in (rng.normal(size=300) * 2.0 ** rng.integers(-900, 900, 300)).view(np.uint64)]

    def close(function: Callable[[float], float]) -> Bits:
        def oracle(a: int) -> int:
            x = float(np.uint64(a & ~0xFFFFFFFF).view(np.float64))
            return int(np.float64(function(x)).view(np.uint64)) & ~0xFFFFFFFF
        return oracle
    positive = [(a & (1 << 63) - 1,) for (a,) in rows]
    check([Case("rcp.approx.ftz.f64 %d, %a;", "f64", ("f64",), close(lambda x: 1 / x), rows),
           Case("rsqrt.approx.ftz.f64 %d, %a;", "f64", ("f64",), close(lambda x: 1 / math.sqrt(x)), positive)])


@pytest.mark.parametrize("t", ["f32", "f64"])
def test_signs_and_classes(t: str) -> None:
    w = int(t[1:])
    top = 1 << w - 1

    def kind(a: int) -> str:
        x = value(a, t)
        if not finite(x):
            return "notanumber" if math.isnan(x) else "infinite"
        return "zero" if x == 0 else "subnormal" if flushed(a, t) & ~top == 0 else "normal"
    classes = {"finite": ("zero", "subnormal", "normal"), "infinite": ("infinite",), "notanumber": ("notanumber",),
               "number": ("zero", "subnormal", "normal", "infinite"), "normal": ("normal",),
               "subnormal": ("subnormal",)}
    check([
        Case(f"copysign.{t} %d, %a, %b;", t, (t, t), lambda a, b: a & top | b & ~top, same_nan=False),
        Case(f"neg.{t} %d, %a;", t, (t,), lambda a: a ^ top, same_nan=False),
        Case(f"abs.{t} %d, %a;", t, (t,), lambda a: a & ~top, same_nan=False),
        *(Case(f"testp.{name}.{t} %p, %a;", "pred", (t,), lambda a, names=names: kind(a) in names)
          for name, names in classes.items()),
    ])
