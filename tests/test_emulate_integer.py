"""The emulator's integer instructions against Python's integers."""
from __future__ import annotations

import pytest

from emulation import Case, check, mask, number, signed, specials
from tilewright import emulate

WIDE = {"u16": "u32", "s16": "s32", "u32": "u64", "s32": "s64"}
ALL = ("u16", "s16", "u32", "s32", "u64", "s64")


def clamp(x: int, least: int, most: int) -> int:
    return min(max(x, least), most)


def sat32(x: int) -> int:
    return clamp(x, -2**31, 2**31 - 1) & 0xFFFFFFFF


def truncated(a: int, b: int) -> int:
    """Division toward zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def arithmetic(t: str) -> list[Case]:
    w, m = t[1:], mask(t)

    def n(x: int) -> int:
        return number(x, t)
    nonzero = [(a, b) for a in specials(t) for b in specials(t) if b]
    cases = [
        Case(f"add.{t} %d, %a, %b;", t, (t, t), lambda a, b: a + b & m),
        Case(f"sub.{t} %d, %a, %b;", t, (t, t), lambda a, b: a - b & m),
        Case(f"mul.lo.{t} %d, %a, %b;", t, (t, t), lambda a, b: a * b & m),
        Case(f"mul.hi.{t} %d, %a, %b;", t, (t, t), lambda a, b: n(a) * n(b) >> int(w) & m),
        Case(f"mad.lo.{t} %d, %a, %b, %c;", t, (t, t, t), lambda a, b, c: a * b + c & m),
        Case(f"mad.hi.{t} %d, %a, %b, %c;", t, (t, t, t), lambda a, b, c: (n(a) * n(b) >> int(w)) + c & m),
        Case(f"min.{t} %d, %a, %b;", t, (t, t), lambda a, b: min(n(a), n(b)) & m),
        Case(f"max.{t} %d, %a, %b;", t, (t, t), lambda a, b: max(n(a), n(b)) & m),
        Case(f"sad.{t} %d, %a, %b, %c;", t, (t, t, t), lambda a, b, c: c + abs(n(a) - n(b)) & m),
        Case(f"div.{t} %d, %a, %b;", t, (t, t), lambda a, b: truncated(n(a), n(b)) & m, nonzero),
        Case(f"rem.{t} %d, %a, %b;", t, (t, t), lambda a, b: n(a) - n(b) * truncated(n(a), n(b)) & m, nonzero),
        Case(f"add.{t} %d, %a, -7;", t, (t,), lambda a: a - 7 & m),
    ]
    if t[0] == "s":
        cases += [Case(f"abs.{t} %d, %a;", t, (t,), lambda a: abs(n(a)) & m),
                  Case(f"neg.{t} %d, %a;", t, (t,), lambda a: -a & m)]
    if t in WIDE:
        d = WIDE[t]
        cases += [Case(f"mul.wide.{t} %d, %a, %b;", d, (t, t), lambda a, b: n(a) * n(b) & mask(d)),
                  Case(f"mad.wide.{t} %d, %a, %b, %c;", d, (t, t, d), lambda a, b, c: n(a) * n(b) + c & mask(d))]
    return cases


def test_arithmetic() -> None:
    check([case for t in ALL for case in arithmetic(t)])


def test_saturation_and_24_bits() -> None:
    def s(x: int) -> int:
        return signed(x, 32)

    def s24(x: int) -> int:
        return signed(x & 0xFFFFFF, 24)
    check([
        Case("add.sat.s32 %d, %a, %b;", "s32", ("s32", "s32"), lambda a, b: sat32(s(a) + s(b))),
        Case("sub.sat.s32 %d, %a, %b;", "s32", ("s32", "s32"), lambda a, b: sat32(s(a) - s(b))),
        Case("mad.hi.sat.s32 %d, %a, %b, %c;", "s32", ("s32", "s32", "s32"),
             lambda a, b, c: sat32((s(a) * s(b) >> 32) + s(c))),
        Case("mul24.lo.s32 %d, %a, %b;", "s32", ("s32", "s32"), lambda a, b: s24(a) * s24(b) & 0xFFFFFFFF),
        Case("mul24.hi.s32 %d, %a, %b;", "s32", ("s32", "s32"), lambda a, b: s24(a) * s24(b) >> 16 & 0xFFFFFFFF),
        Case("mul24.lo.u32 %d, %a, %b;", "u32", ("u32", "u32"),
             lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF) & 0xFFFFFFFF),
        Case("mad24.lo.u32 %d, %a, %b, %c;", "u32", ("u32", "u32", "u32"),
             lambda a, b, c: (a & 0xFFFFFF) * (b & 0xFFFFFF) + c & 0xFFFFFFFF),
    ])


@pytest.mark.parametrize("w", [32, 64])
def test_carries(w: int) -> None:
    """Sums, differences and products of twice the width, made of carries."""
    t, m = f"u{w}", (1 << w) - 1
    four = (t, t, t, t)

    def pair(low: int, high: int) -> int:
        return low | high << w
    products = [
        Case(f"mad.lo.cc.{t} %d, %a, %b, %c; madc.hi.{t} %d, %a, %b, %e;", t, four,
             lambda a, b, c, e: a * b + pair(c, e) >> w & m),
        Case(f"mad.lo.cc.{t} %d, %a, %b, %c; madc.lo.cc.{t} %d, %a, %a, %e; addc.{t} %d, 0, 0;", t, four,
             lambda a, b, c, e: (a * a & m) + e + ((a * b & m) + c >> w) >> w),
        Case(f"mad.hi.cc.{t} %d, %a, %b, %c; addc.{t} %d, %e, 0;", t, four,
             lambda a, b, c, e: e + ((a * b >> w) + c >> w) & m),
    ]
    check([
        Case(f"add.cc.{t} %d, %a, %c; addc.{t} %d, %b, %e;", t, four,
             lambda a, b, c, e: pair(a, b) + pair(c, e) >> w & m),
        Case(f"add.cc.{t} %d, %a, %c; addc.cc.{t} %d, %b, %e; addc.{t} %d, 0, 0;", t, four,
             lambda a, b, c, e: pair(a, b) + pair(c, e) >> 2 * w),
        Case(f"sub.cc.{t} %d, %a, %c; subc.{t} %d, %b, %e;", t, four,
             lambda a, b, c, e: pair(a, b) - pair(c, e) >> w & m),
        Case(f"sub.cc.{t} %d, %a, %c; subc.cc.{t} %d, %b, %e; subc.{t} %d, 0, 0;", t, four,
             lambda a, b, c, e: -(pair(a, b) < pair(c, e)) & m),
        *products,
    ])


def bfe(x: int, position: int, length: int, w: int, is_signed: bool) -> int:
    """The manual's definition, bit by bit."""
    position, length = position & 255, length & 255
    sign = x >> min(position + length - 1, w - 1) & 1 if is_signed and length else 0
    bits = [x >> position + i & 1 if i < length and position + i < w else sign for i in range(w)]
    return sum(bit << i for i, bit in enumerate(bits))


def bfi(a: int, b: int, position: int, length: int, w: int) -> int:
    position, length = position & 255, length & 255
    for i in range(length):
        if position + i < w:
            b = b & ~(1 << position + i) | (a >> i & 1) << position + i
    return b


def test_bits() -> None:
    cases = []
    places = [(p, n) for p in (0, 1, 5, 31, 32, 33, 63, 64, 200, 255, 257) for n in (0, 1, 7, 31, 32, 33, 63, 64, 255)]
    for w in (32, 64):
        t = f"b{w}"
        rows = [(x, p, n) for x in specials(t) for p, n in places]
        for sign in "us":
            cases.append(Case(f"bfe.{sign}{w} %d, %a, %b, %c;", t, (t, "u32", "u32"),
                              lambda a, b, c, w=w, s=sign == "s": bfe(a, b, c, w, s), rows))
        cases += [
            Case(f"bfi.{t} %d, %a, %b, %c, %e;", t, (t, t, "u32", "u32"),
                 lambda a, b, c, e, w=w: bfi(a, b, c, e, w),
                 [(x, y, p, n) for x, y in zip(specials(t), specials(t)[::-1], strict=True) for p, n in places]),
            Case(f"popc.{t} %d, %a;", "u32", (t,), lambda a: a.bit_count()),
            Case(f"clz.{t} %d, %a;", "u32", (t,), lambda a, w=w: w - a.bit_length()),
            Case(f"brev.{t} %d, %a;", t, (t,), lambda a, w=w: int(f"{a:0{w}b}"[::-1], 2)),
            Case(f"bfind.u{w} %d, %a;", "u32", (t,), lambda a: (a.bit_length() - 1) & 0xFFFFFFFF),
            Case(f"bfind.s{w} %d, %a;", "u32", (t,),
                 lambda a, w=w: ((a ^ (1 << w) - 1 if a >> w - 1 else a).bit_length() - 1) & 0xFFFFFFFF),
            Case(f"bfind.shiftamt.u{w} %d, %a;", "u32", (t,),
                 lambda a, w=w: w - a.bit_length() if a else 0xFFFFFFFF),
        ]
    cases.append(Case("fns.b32 %d, %a, %b, %c;", "b32", ("b32", "u32", "s32"), fns,
                      [(x, b, n & 0xFFFFFFFF) for x in specials("b32") for b in (0, 5, 31) for n in (-3, -1, 0, 1, 2)]))
    check(cases)


def fns(x: int, base: int, offset: int) -> int:
    offset = signed(offset, 32)
    at = [i for i in (range(base, 32) if offset >= 0 else range(base, -1, -1)) if x >> i & 1]
    if offset == 0:
        return base if x >> base & 1 else 0xFFFFFFFF
    return at[abs(offset) - 1] if abs(offset) <= len(at) else 0xFFFFFFFF


def parts(x: int, width: int, count: int, is_signed: bool) -> list[int]:
    found = [x >> width * i & (1 << width) - 1 for i in range(count)]
    return [signed(v, width) for v in found] if is_signed else found


def test_dot_products() -> None:
    cases = []
    for a in "us":
        for b in "us":
            def dp4a(x: int, y: int, z: int, a: str = a, b: str = b) -> int:
                return z + sum(p * q for p, q in zip(parts(x, 8, 4, a == "s"), parts(y, 8, 4, b == "s"),
                                                     strict=True)) & 0xFFFFFFFF

            def dp2a(x: int, y: int, z: int, high: int, a: str = a, b: str = b) -> int:
                return z + sum(p * q for p, q in zip(parts(x, 16, 2, a == "s"),
                                                     parts(y, 8, 4, b == "s")[2 * high:2 * high + 2],
                                                     strict=True)) & 0xFFFFFFFF
            three = ("b32", "b32", "b32")
            cases += [Case(f"dp4a.{a}32.{b}32 %d, %a, %b, %c;", "b32", three, dp4a),
                      Case(f"dp2a.lo.{a}32.{b}32 %d, %a, %b, %c;", "b32", three, lambda x, y, z, f=dp2a: f(x, y, z, 0)),
                      Case(f"dp2a.hi.{a}32.{b}32 %d, %a, %b, %c;", "b32", three, lambda x, y, z, f=dp2a: f(x, y, z, 1))]
    check(cases)


def test_packed_halves() -> None:
    def each(function, is_signed: bool):  # type: ignore[no-untyped-def]
        def oracle(a: int, b: int) -> int:
            return sum((function(x, y) & 0xFFFF) << 16 * i for i, (x, y) in
                       enumerate(zip(parts(a, 16, 2, is_signed), parts(b, 16, 2, is_signed), strict=True)))
        return oracle
    cases = []
    for s in "us":
        two = ("b32", "b32")
        cases += [Case(f"add.{s}16x2 %d, %a, %b;", "b32", two, each(lambda x, y: x + y, s == "s")),
                  Case(f"min.{s}16x2 %d, %a, %b;", "b32", two, each(min, s == "s")),
                  Case(f"max.{s}16x2 %d, %a, %b;", "b32", two, each(max, s == "s"))]
    cases.append(Case("max.relu.s16x2 %d, %a, %b;", "b32", ("b32", "b32"),
                      each(lambda x, y: max(x, y, 0), True)))
    check(cases)


@pytest.mark.parametrize("what", ["div.s32", "rem.u64"])
def test_division_by_zero_is_a_fault(what: str) -> None:
    w = what[-2:]
    with pytest.raises(emulate.Fault, match="division") as caught:
        check([Case(f"{what} %d, %a, %b;", f"u{w}", (f"u{w}", f"u{w}"), lambda a, b: 0, [(5, 1), (5, 0)])])
    assert caught.value.kind == "undefined"
    assert caught.value.thread == (1, 0, 0)
