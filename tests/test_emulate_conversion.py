"""The emulator's cvt against the manual's rules: truncation, saturation, rounding, NaN."""
from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from conformance import SEED
from emulation import (
    CANONICAL_NAN,
    FORMATS,
    WIDTH,
    Case,
    as_float,
    bits_of,
    check,
    flushed,
    is_nan,
    mask,
    negative,
    number,
    signed,
    specials,
    value,
)

INTEGERS = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")
TO_INTEGER = {"rni": round, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}


def limits(t: str) -> tuple[int, int]:
    w = WIDTH[t]
    return (-1 << w - 1, (1 << w - 1) - 1) if t[0] == "s" else (0, (1 << w) - 1)


def clamped(x: int, t: str) -> int:
    least, most = limits(t)
    return min(max(x, least), most)


def test_between_integers() -> None:
    """Into a register of 64 bits, which takes the sign or zeros in its upper part."""
    cases = []
    for to in INTEGERS:
        for from_ in INTEGERS:
            if to == from_:
                continue
            out = "b64" if to[0] == "s" or WIDTH[to] < 64 else to

            def wraps(a: int, to: str = to, from_: str = from_) -> int:
                x = number(a, from_) & mask(to)
                return number(x, to) & mask("b64")

            def clamps(a: int, to: str = to, from_: str = from_) -> int:
                return clamped(number(a, from_), to) & mask("b64")
            cases += [Case(f"cvt.{to}.{from_} %d, %a;", out, (from_,), wraps),
                      Case(f"cvt.sat.{to}.{from_} %d, %a;", out, (from_,), clamps)]
    check(cases)


def floats(t: str) -> list[tuple[int]]:
    """Numbers around the limits of the integer types, halves, and what is special."""
    around = [s * (b + d) for b in (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 2**31, 2**32, 2**63, 2**64)
              for d in (-1, -0.5, 0, 0.5, 1, 1.5, 0.25, 0.75) for s in (1, -1)]
    rng = np.random.default_rng(SEED)
    return [(x,) for x in specials(t)] + [(bits_of(float(x), t),) for x in (*around, *rng.normal(0, 100, 200))]


def test_floats_to_integers() -> None:
    cases = []
    for from_ in ("f16", "bf16", "f32", "f64"):
        for to in INTEGERS:
            for mode, function in TO_INTEGER.items():
                def oracle(a: int, from_: str = from_, to: str = to,  # type: ignore[no-untyped-def]
                           function=function) -> int:
                    x, w = value(a, from_), WIDTH[to]
                    if isinstance(x, float) and math.isnan(x):
                        r = 1 << w - 1 if from_ == "f64" or w == 64 else 0
                        return number(r, to) & mask("b64")
                    least, most = limits(to)
                    r = (most if x > 0 else least) if isinstance(x, float) else clamped(function(x), to)
                    return r & mask("b64")
                cases.append(Case(f"cvt.{mode}.{to}.{from_} %d, %a;", "b64", (from_,), oracle, floats(from_)))
    cases.append(Case("cvt.rni.ftz.s32.f32 %d, %a;", "s32", ("f32",),
                      lambda a: 0 if flushed(a, "f32") & 0x7FFFFFFF == 0 or is_nan(a, "f32") else
                      clamped(round(value(a, "f32")), "s32") & mask("s32"),
                      [row for row in floats("f32") if row[0] & 0x7FFFFFFF != 0x7F800000]))
    cases.append(Case("cvt.rpi.ftz.s32.f32 %d, %a;", "s32", ("f32",), lambda a: 0, [(1,), (0x7FFFFF,), (0x80000001,)]))
    check(cases)


def test_integers_to_floats() -> None:
    cases = []
    for to in ("f16", "bf16", "f32", "f64"):
        for from_ in INTEGERS:
            for mode in ("rn", "rz", "rm", "rp"):
                cases.append(Case(f"cvt.{mode}.{to}.{from_} %d, %a;", to, (from_,),
                                  lambda a, to=to, from_=from_, mode=mode: bits_of(number(a, from_), to, mode)))
    cases.append(Case("cvt.rn.sat.f32.s32 %d, %a;", "f32", ("s32",),
                      lambda a: bits_of(min(max(signed(a, 32), 0), 1), "f32")))
    check(cases)


def convert(a: int, from_: str, to: str, mode: str) -> int:
    x = value(a, from_)
    if isinstance(x, float) and math.isnan(x):
        return CANONICAL_NAN.get(to, bits_of(math.nan, to))
    return bits_of(x, to, mode, negative(a, from_))


def near_ties(from_: str, to: str) -> list[tuple[int]]:
    """Numbers halfway between two of the target, and just beside."""
    rng = np.random.default_rng(SEED)
    rows = []
    for x in rng.normal(0, 4, 150):
        target = bits_of(float(x), to)
        a, b = value(target, to), value(target + (1 << 13 if to == "tf32" else 1), to)
        middle = bits_of((a + b) / 2, from_)
        rows += [(middle,), (middle + 1,), (middle - 1,)]
    return rows + [(x,) for x in specials(from_)]


def test_between_floats() -> None:
    cases = []
    for from_, to in (("f64", "f32"), ("f64", "f16"), ("f64", "bf16"), ("f32", "f16"), ("f32", "bf16")):
        for mode in ("rn", "rz", "rm", "rp") if to in ("f32", "f16") else ("rn", "rz"):
            cases.append(Case(f"cvt.{mode}.{to}.{from_} %d, %a;", to, (from_,),
                              lambda a, from_=from_, to=to, mode=mode: convert(a, from_, to, mode),
                              near_ties(from_, to)))
    for mode in ("rn", "rz", "rna"):
        cases.append(Case(f"cvt.{mode}.tf32.f32 %d, %a;", "tf32", ("f32",),
                          lambda a, mode=mode: convert(a, "f32", "tf32", mode), near_ties("f32", "tf32")))
    for from_, to in (("f16", "f32"), ("bf16", "f32"), ("f16", "f64"), ("f32", "f64")):
        cases.append(Case(f"cvt.{to}.{from_} %d, %a;", to, (from_,),
                          lambda a, from_=from_, to=to: convert(a, from_, to, "rn")))
    check(cases)


def test_to_integral_floats_and_modifiers() -> None:
    cases = []
    for t in ("f16", "f32", "f64"):
        for mode, function in TO_INTEGER.items():
            def integral(a: int, t: str = t, function=function) -> int:  # type: ignore[no-untyped-def]
                x = value(a, t)
                return bits_of(x, t) if isinstance(x, float) else bits_of(function(x), t, zero_negative=negative(a, t))
            cases.append(Case(f"cvt.{mode}.{t}.{t} %d, %a;", t, (t,), integral, floats(t)))

    def relu(a: int, t: str) -> int:
        return convert(0 if negative(a, "f32") and not is_nan(a, "f32") else a, "f32", t, "rn")

    def finite(a: int, t: str) -> int:
        r = convert(a, "f32", t, "rn")
        e, m = FORMATS[t]
        infinity = ((1 << e) - 1) << m
        shift = 13 if t == "tf32" else 0
        return r - (1 << shift) if r >> shift & ~(1 << e + m) == infinity else r
    cases += [
        Case("cvt.sat.f32.f32 %d, %a;", "f32", ("f32",), lambda a: 0 if is_nan(a, "f32") or negative(a, "f32") else
             bits_of(min(as_float(1.0), float(x)) if isinstance(x := value(a, "f32"), float) else min(x, Fraction(1)),
                     "f32")),
        Case("cvt.ftz.f32.f32 %d, %a;", "f32", ("f32",),
             lambda a: CANONICAL_NAN["f32"] if is_nan(a, "f32") else flushed(a, "f32")),
        Case("cvt.rn.ftz.f32.f64 %d, %a;", "f32", ("f64",), lambda a: flushed(convert(a, "f64", "f32", "rn"), "f32"),
             near_ties("f64", "f32")),
        Case("cvt.rn.ftz.f16.f32 %d, %a;", "f16", ("f32",), lambda a: convert(flushed(a, "f32"), "f32", "f16", "rn")),
        Case("cvt.rn.relu.f16.f32 %d, %a;", "f16", ("f32",), lambda a: relu(a, "f16"), near_ties("f32", "f16")),
        Case("cvt.rn.relu.bf16.f32 %d, %a;", "bf16", ("f32",), lambda a: relu(a, "bf16"), near_ties("f32", "bf16")),
        Case("cvt.rn.satfinite.f16.f32 %d, %a;", "f16", ("f32",), lambda a: finite(a, "f16"), near_ties("f32", "f16")),
        Case("cvt.rna.satfinite.tf32.f32 %d, %a;", "tf32", ("f32",),
             lambda a: convert(a, "f32", "tf32", "rna") if convert(a, "f32", "tf32", "rna") & 0x7FFFFFFF != 0x7F800000
             else convert(a, "f32", "tf32", "rna") - (1 << 13)),
    ]
    check(cases)


def test_packing() -> None:
    def pair(t: str, mode: str):  # type: ignore[no-untyped-def]
        return lambda a, b: convert(a, "f32", t, mode) << 16 | convert(b, "f32", t, mode)

    def relu(a: int) -> int:
        return convert(0 if negative(a, "f32") and not is_nan(a, "f32") else a, "f32", "bf16", "rn")
    cases = [
        Case("cvt.rn.bf16x2.f32 %d, %a, %b;", "bf16x2", ("f32", "f32"), pair("bf16", "rn")),
        Case("cvt.rn.f16x2.f32 %d, %a, %b;", "f16x2", ("f32", "f32"), pair("f16", "rn")),
        Case("cvt.rz.f16x2.f32 %d, %a, %b;", "f16x2", ("f32", "f32"), pair("f16", "rz")),
        Case("cvt.rn.relu.bf16x2.f32 %d, %a, %b;", "bf16x2", ("f32", "f32"), lambda a, b: relu(a) << 16 | relu(b)),
    ]
    for t in ("s8", "u8", "s16", "u16"):
        w = WIDTH[t]

        def packed(a: int, b: int, c: int = 0, t: str = t, w: int = w) -> int:
            low, high = (clamped(signed(x, 32), t) & mask(t) for x in (b, a))
            return c << 16 & mask("b32") | high << w | low
        three = ("s32", "s32", "b32")[:3 if w == 8 else 2]
        tail = ".b32 %d, %a, %b, %c;" if w == 8 else " %d, %a, %b;"
        cases.append(Case(f"cvt.pack.sat.{t}.s32{tail}", "b32", three, packed))
    check(cases)
