"""Running single PTX instructions on many operands, and exact oracles for their results.

A Case is an instruction with operands %a, %b, %c, %e and a result %d (or %p, a predicate); `check` puts many of them
into one module, runs them over their inputs and compares bits.
"""
from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from conformance import SEED, has_compiler
from tilewright import emulate

if not has_compiler():
    pytest.skip("the emulator needs a C compiler", allow_module_level=True)

HEADER = ".version 8.5\n.target sm_90\n.address_size 64\n"
WIDTH = {"pred": 32, "b8": 8, "u8": 8, "s8": 8, "b16": 16, "u16": 16, "s16": 16, "f16": 16, "bf16": 16, "b32": 32,
         "u32": 32, "s32": 32, "f32": 32, "f16x2": 32, "bf16x2": 32, "tf32": 32, "b64": 64, "u64": 64, "s64": 64,
         "f64": 64}
FORMATS = {"f16": (5, 10), "bf16": (8, 7), "tf32": (8, 10), "f32": (8, 23), "f64": (11, 52)}  # exponent, mantissa
CANONICAL_NAN = {"f16": 0x7FFF, "bf16": 0x7FFF, "f32": 0x7FFFFFFF, "tf32": 0x7FFFE000}


@dataclass
class Case:
    text: str
    out: str
    inputs: tuple[str, ...]
    oracle: Callable[..., Any]  # of the operands' bits as ints; the result's bits
    operands: Sequence[tuple[int, ...]] | None = None  # instead of those that are drawn
    same_nan: bool = True  # whether a NaN must be the canonical one


def mask(type_: str) -> int:
    return (1 << WIDTH[type_]) - 1


def signed(x: int, width: int) -> int:
    return x - (1 << width) if x >> (width - 1) else x


def number(x: int, type_: str) -> int:
    """Bits as the integer of a type."""
    return signed(x, WIDTH[type_]) if type_[0] == "s" else x


# ---- operands ----

def specials(type_: str) -> list[int]:
    """Bit patterns at which things go wrong."""
    if type_ == "pred":
        return [0, 1]
    w = WIDTH[type_]
    if type_ in ("f16x2", "bf16x2"):
        part = specials(type_[:-2])
        return [a | b << 16 for a, b in zip(part, part[3:] + part[:3], strict=True)]
    if type_ in FORMATS:
        e, m = FORMATS[type_]
        if type_ == "tf32":
            e, m = FORMATS["f32"]
        one, infinity = ((1 << e - 1) - 1) << m, ((1 << e) - 1) << m
        positive = [0, 1, (1 << m) - 1, 1 << m, (1 << m) + 1, one, one + 1, one - 1, one + (1 << m - 1), one + (1 << m),
                    one - (1 << m), one + (8 << m) + 1, infinity - 1, infinity, infinity | 1 << m - 1, infinity | 1]
        return positive + [x | 1 << w - 1 for x in positive]
    top = 1 << w - 1
    return sorted({x & mask(type_) for x in (0, 1, 2, 3, 5, 7, 8, 31, 32, 33, 63, 64, 127, 128, 255, top - 1, top,
                                             top + 1, -1, -2, -7, 0x5555555555555555, 0x123456789ABCDEF0)})


def draw(inputs: Sequence[str], rng: np.random.Generator, n: int = 300) -> list[tuple[int, ...]]:
    """Operands: the specials with each other, and random bits."""
    lists = [specials(t) for t in inputs]
    if len(lists) <= 2:
        rows = list(itertools.product(*lists))
    else:
        rows = [tuple(x[i] for x, i in zip(lists, index, strict=True))
                for index in rng.integers(0, [len(x) for x in lists], (600, len(lists)))]
    for _ in range(n):
        rows.append(tuple(int.from_bytes(rng.bytes(8), "little") & (1 if t == "pred" else mask(t)) for t in inputs))
        row = list(rows[-1])
        for i, t in enumerate(inputs):  # floats of like size, so that they meet
            if t in FORMATS and t != "tf32":
                row[i] = bits_of(float(rng.normal() * 2.0 ** float(rng.integers(-3, 4))), t)
        rows.append(tuple(row))
    return rows


# ---- running ----

def register_type(type_: str) -> str:
    return f".b{max(16, WIDTH[type_])}"


def kernel(index: int, case: Case) -> str:
    """An entry that runs a case on element tid of its inputs."""
    names = "abce"[:len(case.inputs)]
    lines = [f".visible .entry case{index}(.param .u64 out" + "".join(f", .param .u64 in_{x}" for x in names) + ") {",
             "  .reg .pred %p, %q, %r; .reg .b64 %at, %i; .reg .b32 %t, %n, %k;",
             f"  .reg {register_type(case.out)} %d;"]
    lines += [f"  .reg {'.pred' if t == 'pred' else register_type(t)} %{x};" for x, t in
              zip(names, case.inputs, strict=True)]
    lines += ["  mov.u32 %t, %tid.x;", "  mov.u32 %n, %ctaid.x;", "  mad.lo.u32 %t, %n, 256, %t;"]

    def place(array: str, width: int) -> list[str]:
        return [f"  ld.param.u64 %at, [{array}];", f"  mul.wide.u32 %i, %t, {width // 8};", "  add.s64 %at, %at, %i;"]
    for x, t in zip(names, case.inputs, strict=True):
        lines += place(f"in_{x}", WIDTH[t])
        if t == "pred":
            lines += ["  ld.global.b32 %k, [%at];", f"  setp.ne.u32 %{x}, %k, 0;"]
        else:
            lines += [f"  ld.global.{'s8' if t == 's8' else f'b{WIDTH[t]}'} %{x}, [%at];"]
    lines += ["  " + case.text]
    if case.out == "pred":
        lines += ["  selp.b32 %d, 1, 0, %p;"]
    lines += place("out", WIDTH[case.out])
    return "\n".join([*lines, f"  st.global.b{WIDTH[case.out]} [%at], %d;", "  ret;", "}"])


def is_nan(bits: int, type_: str) -> bool:
    if type_ not in FORMATS:
        return False
    e, m = FORMATS["f32" if type_ == "tf32" else type_]
    return bits & ((1 << e + m) - 1) > ((1 << e) - 1) << m


def same(got: int, wanted: int, case: Case) -> bool:
    if case.out in ("f16x2", "bf16x2"):
        part = Case(case.text, case.out[:-2], (), case.oracle, same_nan=case.same_nan)
        return same(got & 0xFFFF, wanted & 0xFFFF, part) and same(got >> 16, wanted >> 16, part)
    if is_nan(wanted, case.out):
        if case.same_nan and case.out in CANONICAL_NAN:
            return got == CANONICAL_NAN[case.out]
        return is_nan(got, case.out)
    return got == wanted


def check(cases: Sequence[Case]) -> None:
    """Runs all cases in one module; fails with each that differs from its oracle and the first operands."""
    module = emulate.Module(HEADER + "\n".join(kernel(i, case) for i, case in enumerate(cases)))
    rng = np.random.default_rng(SEED)
    wrong = []
    for i, case in enumerate(cases):
        rows = list(case.operands) if case.operands is not None else draw(case.inputs, rng)
        rows += rows[:1] * (-len(rows) % 256)
        dtypes = [np.dtype(f"u{WIDTH[t] // 8}") for t in case.inputs]
        arrays = [np.array([row[k] for row in rows], np.uint64).astype(d) for k, d in enumerate(dtypes)]
        out = np.zeros(len(rows), f"u{WIDTH[case.out] // 8}")
        module.launch(f"case{i}", len(rows) // 256, 256, [np.uint64(a.ctypes.data) for a in (out, *arrays)],
                      memory=[(out, "w"), *((a, "r") for a in arrays)])
        for row, got in zip(rows, out.tolist(), strict=True):
            wanted = int(case.oracle(*row))
            if not same(got, wanted, case):
                wrong.append(f"{case.text}  of {', '.join(map(hex, row))}: {got:#x}, expected {wanted:#x}")
                break
    assert not wrong, f"TILEWRIGHT_TEST_SEED={SEED}\n" + "\n".join(wrong)


# ---- exact arithmetic on floats ----

def value(bits: int, type_: str) -> Fraction | float:
    """A number, or a float that is infinite or NaN."""
    if type_ == "tf32":
        type_ = "f32"
    e, m = FORMATS[type_]
    sign = -1 if bits >> e + m & 1 else 1
    exponent, mantissa = bits >> m & (1 << e) - 1, bits & (1 << m) - 1
    if exponent == (1 << e) - 1:
        return math.nan if mantissa else sign * math.inf
    bias = (1 << e - 1) - 1
    if exponent == 0:
        return sign * Fraction(mantissa) * Fraction(2) ** (1 - bias - m)
    return sign * Fraction(mantissa + (1 << m)) * Fraction(2) ** (exponent - bias - m)


def negative(bits: int, type_: str) -> bool:
    return bool(bits >> WIDTH[type_] - 1)


def flushed(bits: int, type_: str) -> int:
    """Subnormals as zeros of their sign."""
    e, m = FORMATS[type_]
    return bits if bits >> m & (1 << e) - 1 else bits & 1 << e + m


def round_up(kept: int, rest: Fraction, is_negative: bool, mode: str) -> bool:
    if mode == "rz":
        return False
    if mode in ("rm", "rp"):
        return rest > 0 and is_negative == (mode == "rm")
    half = Fraction(1, 2)
    return rest > half or rest == half and (mode == "rna" or kept % 2 == 1)


def bits_of(x: Fraction | float | int, type_: str, mode: str = "rn", zero_negative: bool = False) -> int:
    """The bits of a number rounded to a format, from the definition of rounding."""
    e, m = FORMATS[type_]
    shift = 13 if type_ == "tf32" else 0
    infinity, sign_bit = ((1 << e) - 1) << m, 1 << e + m
    if isinstance(x, float) and math.isnan(x):
        return CANONICAL_NAN.get(type_, infinity | 1 << m - 1)
    if isinstance(x, float) and math.isinf(x):
        return (infinity | (sign_bit if x < 0 else 0)) << shift
    exact = Fraction(x)
    if exact == 0:
        return (sign_bit if zero_negative or isinstance(x, float) and math.copysign(1, x) < 0 else 0) << shift
    is_negative, size = exact < 0, abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if size < Fraction(2) ** exponent:
        exponent -= 1
    least = 2 - (1 << e - 1)
    unit = Fraction(2) ** (max(exponent, least) - m)
    kept = size // unit
    kept += round_up(kept, size / unit - kept, is_negative, mode)
    bits = kept if exponent < least else kept + ((exponent - least) << m)
    if bits >= infinity:
        stays = mode == "rz" or mode == "rm" and not is_negative or mode == "rp" and is_negative
        bits = infinity - 1 if stays else infinity
    return (bits | (sign_bit if is_negative else 0)) << shift


def as_float(x: Fraction | float) -> float:
    """For arithmetic where an operand is infinite or NaN: the finite ones only count by sign."""
    return x if isinstance(x, float) else math.copysign(1.0, x) if x else 0.0
