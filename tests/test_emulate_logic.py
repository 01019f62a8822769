"""The emulator's comparisons, selections, bit operations and jumps."""
from __future__ import annotations

import math

import numpy as np
import pytest

from emulation import HEADER, Case, check, flushed, is_nan, mask, number, signed, specials, value
from tilewright import emulate

ORDER = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
UNSIGNED = {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}


def holds(sign: str, x: float, y: float) -> bool:
    return {"==": x == y, "!=": x != y, "<": x < y, "<=": x <= y, ">": x > y, ">=": x >= y}[sign]


def compare(how: str, t: str):  # type: ignore[no-untyped-def]
    """The comparison as the manual defines it, on bits."""
    if t not in ("f16", "bf16", "f32", "f64"):
        return lambda a, b: holds((ORDER | UNSIGNED)[how], number(a, t), number(b, t))

    def oracle(a: int, b: int) -> bool:
        unordered = is_nan(a, t) or is_nan(b, t)
        if how in ("num", "nan"):
            return unordered == (how == "nan")
        if unordered:
            return how.endswith("u")
        return holds(ORDER[how[:2]], value(a, t), value(b, t))
    return oracle


def test_comparisons() -> None:
    cases = []
    for t in ("u16", "s16", "u32", "s32", "u64", "s64", "f16", "bf16", "f32", "f64"):
        hows = [*ORDER] + ([f"{how}u" for how in ORDER] + ["num", "nan"] if t[0] in "fb" else [])
        hows += [*UNSIGNED] if t[0] == "u" else []
        cases += [Case(f"setp.{how}.{t} %p, %a, %b;", "pred", (t, t), compare(how, t)) for how in hows]
    cases += [Case(f"setp.{how}.b32 %p, %a, %b;", "pred", ("b32", "b32"), compare(how, "u32")) for how in ("eq", "ne")]
    cases.append(Case("setp.lt.ftz.f32 %p, %a, %b;", "pred", ("f32", "f32"),
                      lambda a, b: compare("lt", "f32")(flushed(a, "f32"), flushed(b, "f32"))))
    check(cases)


def test_comparisons_with_predicates() -> None:
    lt = compare("lt", "s32")
    three = ("s32", "s32", "pred")
    both = "setp.lt.{0}.s32 %p|%q, %a, %b, {1}%c; selp.b32 %d, 1, 0, %p; @%q or.b32 %d, %d, 2; setp.ne.u32 %p, %d, 0;"
    cases = []
    for name, function in {"and": lambda x, y: x & y, "or": lambda x, y: x | y, "xor": lambda x, y: x ^ y}.items():
        cases += [
            Case(f"setp.lt.{name}.s32 %p, %a, %b, %c;", "pred", three,
                 lambda a, b, c, f=function: f(lt(a, b), bool(c))),
            Case(f"setp.lt.{name}.s32 %p, %a, %b, !%c;", "pred", three, lambda a, b, c, f=function: f(lt(a, b), not c)),
            Case(both.format(name, "").rpartition("setp")[0], "u32", three,
                 lambda a, b, c, f=function: f(lt(a, b), bool(c)) | f(not lt(a, b), bool(c)) << 1),
            Case(f"{name}.pred %p, %a, %b;", "pred", ("pred", "pred"), lambda a, b, f=function: f(a, b)),
            Case(f"set.lt.{name}.u32.s32 %d, %a, %b, %c;", "u32", three,
                 lambda a, b, c, f=function: mask("u32") * f(lt(a, b), bool(c))),
        ]
    cases += [
        Case("not.pred %p, %a;", "pred", ("pred",), lambda a: not a),
        Case("mov.pred %p, %a;", "pred", ("pred",), lambda a: a),
        Case("set.ge.u32.f32 %d, %a, %b;", "u32", ("f32", "f32"),
             lambda a, b: mask("u32") * compare("ge", "f32")(a, b)),
        Case("set.geu.f32.f32 %d, %a, %b;", "f32", ("f32", "f32"),
             lambda a, b: 0x3F800000 * compare("geu", "f32")(a, b)),
        Case("set.gt.f16x2.f16x2 %d, %a, %b;", "b32", ("f16x2", "f16x2"),
             lambda a, b: sum(0x3C00 * compare("gt", "f16")(a >> i & 0xFFFF, b >> i & 0xFFFF) << i for i in (0, 16))),
        Case("setp.lt.f16x2 %p|%q, %a, %b; selp.b32 %d, 1, 0, %p; @%q or.b32 %d, %d, 2;", "u32", ("f16x2", "f16x2"),
             lambda a, b: sum(compare("lt", "f16")(a >> i & 0xFFFF, b >> i & 0xFFFF) << i // 16 for i in (0, 16))),
    ]
    check(cases)


def test_selection() -> None:
    cases = [Case(f"selp.{t} %d, %a, %b, %c;", t, (t, t, "pred"), lambda a, b, c: a if c else b, same_nan=False)
             for t in ("b16", "b32", "b64", "s32", "f32", "f64")]
    cases += [
        Case("slct.b32.s32 %d, %a, %b, %c;", "b32", ("b32", "b32", "s32"), lambda a, b, c: b if c >> 31 else a),
        Case("slct.f64.f32 %d, %a, %b, %c;", "b64", ("b64", "b64", "f32"),
             lambda a, b, c: a if value(c, "f32") >= 0 else b),
        Case("slct.ftz.b32.f32 %d, %a, %b, %c;", "b32", ("b32", "b32", "f32"),
             lambda a, b, c: a if value(flushed(c, "f32"), "f32") >= 0 else b),
    ]
    check(cases)


def prmt(a: int, b: int, s: int, mode: str) -> int:
    """The manual's table of which byte goes where."""
    data = [(a | b << 32) >> 8 * i & 255 for i in range(8)]
    k = s & 3
    table = {"f4e": [k, k + 1, k + 2, k + 3], "b4e": [k, (k - 1) % 8, (k - 2) % 8, (k - 3) % 8], "rc8": [k] * 4,
             "ecl": [max(i, k) for i in range(4)], "ecr": [min(i, k) for i in range(4)],
             "rc16": [0, 1, 0, 1] if k % 2 == 0 else [2, 3, 2, 3]}
    if mode:
        picked = [data[i] for i in table[mode]]
    else:
        picked = []
        for i in range(4):
            n = s >> 4 * i & 15
            picked.append((255 if data[n & 7] >> 7 else 0) if n & 8 else data[n & 7])
    return sum(x << 8 * i for i, x in enumerate(picked))


def test_bits() -> None:
    cases = []
    for t in ("b16", "b32", "b64"):
        w, m = int(t[1:]), mask(t)
        amounts = [(x, n) for x in specials(t) for n in (0, 1, 5, w - 1, w, w + 1, 64, 255, 0x80000000, 0xFFFFFFFF)]
        cases += [
            Case(f"and.{t} %d, %a, %b;", t, (t, t), lambda a, b: a & b),
            Case(f"or.{t} %d, %a, %b;", t, (t, t), lambda a, b: a | b),
            Case(f"xor.{t} %d, %a, %b;", t, (t, t), lambda a, b: a ^ b),
            Case(f"not.{t} %d, %a;", t, (t,), lambda a, m=m: ~a & m),
            Case(f"cnot.{t} %d, %a;", t, (t,), lambda a: a == 0),
            Case(f"shl.{t} %d, %a, %b;", t, (t, "u32"), lambda a, b, m=m: a << min(b, 64) & m, amounts),
            Case(f"shr.u{w} %d, %a, %b;", t, (t, "u32"), lambda a, b: a >> min(b, 64), amounts),
            Case(f"shr.s{w} %d, %a, %b;", t, (t, "u32"),
                 lambda a, b, w=w, m=m: signed(a, w) >> min(b, 64) & m, amounts),
        ]
    three = ("b32", "b32", "b32")
    amounts3 = [(x, y, n) for x in specials("b32")[::3] for y in specials("b32")[1::3]
                for n in (0, 1, 17, 31, 32, 33, 99)]
    for mode, bound in {"wrap": lambda n: n & 31, "clamp": lambda n: min(n, 32)}.items():
        cases += [
            Case(f"shf.l.{mode}.b32 %d, %a, %b, %c;", "b32", three,
                 lambda a, b, c, f=bound: (b << 32 | a) << f(c) >> 32 & 0xFFFFFFFF, amounts3),
            Case(f"shf.r.{mode}.b32 %d, %a, %b, %c;", "b32", three,
                 lambda a, b, c, f=bound: (b << 32 | a) >> f(c) & 0xFFFFFFFF, amounts3),
        ]
    for table in (0x00, 0x01, 0x1E, 0x80, 0x96, 0xCA, 0xE8, 0xFE, 0xFF):
        cases.append(Case(f"lop3.b32 %d, %a, %b, %c, {table:#x};", "b32", three, lambda a, b, c, table=table: sum(
            (table >> (a >> i & 1) * 4 + (b >> i & 1) * 2 + (c >> i & 1) & 1) << i for i in range(32))))
    for mode in ("", "f4e", "b4e", "rc8", "ecl", "ecr", "rc16"):
        cases.append(Case(f"prmt.b32{'.' * bool(mode)}{mode} %d, %a, %b, %c;", "b32", three,
                          lambda a, b, c, mode=mode: prmt(a, b, c, mode)))
    check(cases)


def test_moves() -> None:
    check([
        Case("{ .reg .b32 %x, %y; mov.b64 {%x, %y}, %a; mov.b64 %d, {%y, %x}; }", "b64", ("b64",),
             lambda a: a >> 32 | (a & 0xFFFFFFFF) << 32),
        Case("{ .reg .b16 %x, %y; mov.b32 {%x, %y}, %a; mov.b32 %d, {%y, %x}; }", "b32", ("b32",),
             lambda a: a >> 16 | (a & 0xFFFF) << 16),
        Case("{ .reg .b16 %x<4>; mov.b64 {%x0, %x1, %x2, %x3}, %a; mov.b64 %d, {%x3, %x1, %x2, %x0}; }", "b64",
             ("b64",), lambda a: a & 0x0000FFFFFFFF0000 | a >> 48 | (a & 0xFFFF) << 48),
        Case("{ .reg .b32 %x; mov.b64 {_, %x}, %a; mov.b32 %d, %x; }", "b32", ("b64",), lambda a: a >> 32),
        Case("mov.f32 %d, 0fC1200000;", "f32", ("f32",), lambda a: 0xC1200000),
        Case("mov.f64 %d, 0d3FF8000000000000;", "f64", ("f64",), lambda a: 0x3FF8000000000000),
        Case("mov.f32 %d, -2.5;", "f32", ("f32",), lambda a: 0xC0200000),
        Case("mov.b32 %d, -3;", "b32", ("b32",), lambda a: 0xFFFFFFFD),
        Case("mov.u64 %d, 0xFFFFFFFFFFFFFFFFU;", "u64", ("u64",), lambda a: 2**64 - 1),
        Case("{ .reg .f32 %x; mov.b32 %x, %a; mov.b32 %d, %x; }", "b32", ("b32",), lambda a: a),
    ])


JUMPS = HEADER + """
.func (.param .b64 result) factorial(.param .b64 n)
{
  .reg .b64 %n, %m, %r; .reg .pred %p;
  ld.param.b64 %n, [n];
  setp.le.s64 %p, %n, 1;
  @%p bra LAST;
  sub.s64 %m, %n, 1;
  { .param .b64 a; .param .b64 b;
    st.param.b64 [a+0], %m;
    call.uni (b), factorial, (a);
    ld.param.b64 %r, [b+0]; }
  mul.lo.s64 %r, %r, %n;
  st.param.b64 [result+0], %r;
  ret;
LAST:
  st.param.b64 [result+0], 1;
  ret;
}
.visible .entry recursive(.param .u64 out, .param .u64 n)
{
  .reg .b64 %a, %n, %i; .reg .b32 %t;
  ld.param.u64 %a, [out];
  ld.param.u64 %n, [n];
  mov.u32 %t, %tid.x;
  cvt.u64.u32 %i, %t;
  add.s64 %n, %n, %i;
  { .param .b64 x; .param .b64 y;
    st.param.b64 [x], %n;
    call (y), factorial, (x);
    ld.param.b64 %n, [y]; }
  shl.b64 %i, %i, 3;
  add.s64 %a, %a, %i;
  st.global.b64 [%a], %n;
  ret;
}
.visible .entry table(.param .u64 out)
{
  .reg .b64 %a, %i; .reg .b32 %t, %r; .reg .pred %p;
  ld.param.u64 %a, [out];
  mov.u32 %t, %tid.x;
  mul.wide.u32 %i, %t, 4;
  add.s64 %a, %a, %i;
  ts: .branchtargets L0, L1, L2;
  brx.idx %t, ts;
L0: mov.u32 %r, 10; bra.uni END;
L1: mov.u32 %r, 20; bra.uni END;
L2: mov.u32 %r, 30; bra.uni END;
END:
  { .reg .b32 %t; mov.u32 %t, 1; add.u32 %r, %r, %t;
LOOP: setp.lt.u32 %p, %t, 5; @%p add.u32 %t, %t, 1; @%p bra LOOP; add.u32 %r, %r, %t; }
  { .reg .pred %q; setp.eq.u32 %q, %t, 1; @!%q bra LOOP; bra.uni NEXT;
LOOP: add.u32 %r, %r, 100; NEXT: }
  st.global.u32 [%a], %r;
  ret;
}
"""


def test_calls_and_tables() -> None:
    module = emulate.Module(JUMPS)
    out = np.zeros(8, np.int64)
    module.launch("recursive", 1, 8, [np.uint64(out.ctypes.data), np.uint64(5)], [(out, "w")])
    assert out.tolist() == [math.factorial(5 + i) for i in range(8)]
    picked = np.zeros(3, np.uint32)
    module.launch("table", 1, 3, [np.uint64(picked.ctypes.data)], [(picked, "w")])
    assert picked.tolist() == [116, 26, 136]


@pytest.mark.parametrize(("args", "kind"), [([np.uint64(10**6)], "stack"), ([np.uint64(2)], None)])
def test_recursion_has_a_limit(args: list[np.uint64], kind: str | None) -> None:
    module, out = emulate.Module(JUMPS), np.zeros(1, np.int64)
    try:
        module.launch("recursive", 1, 1, [np.uint64(out.ctypes.data), *args], [(out, "w")])
    except emulate.Fault as fault:
        assert fault.kind == kind
    else:
        assert kind is None


def test_a_jump_beyond_its_table() -> None:
    out = np.zeros(4, np.uint32)
    with pytest.raises(emulate.Fault, match="table") as caught:
        emulate.Module(JUMPS).launch("table", 1, 4, [np.uint64(out.ctypes.data)], [(out, "w")])
    assert (caught.value.kind, caught.value.thread) == ("undefined", (3, 0, 0))


@pytest.mark.parametrize("text", [
    "wgmma.fence.sync.aligned;", "cp.async.bulk.commit_group;", "add.rn.f32.oops %f, %f, %f;", "frobnicate.b32 %r, %r;",
    "cvt.rn.e4m3x2.f32 %h, %f, %f;", "add.f32 %r, %nothing, %r;", "tex.2d.v4.f32.f32 {%f, %f, %f, %f}, [t, {%f, %f}];",
    "bra NOWHERE;", "call vprintf, (x);", "mov.u32 %r, %smid;", "atom.global.add.v2.f32 {%f, %f}, [%l], {%f, %f};",
    "shfl.bfly.b32 %r, %r, 1, 31;", "add.f32 %r, %l, %r;", "ld.global.b128 %l, [%l];", "ld.param.u32 %r, [p+4];",
])
def test_what_is_not_known_is_refused(text: str) -> None:
    ptx = (HEADER + ".visible .entry k(.param .u32 p) {\n.reg .b32 %r; .reg .f32 %f; .reg .b16 %h; .reg .b64 %l;\n" +
           text + "\nret;\n}\n")
    with pytest.raises(emulate.Unsupported) as caught:
        emulate.Module(ptx)
    assert (caught.value.kind, caught.value.ptx_line) == ("unsupported", 6)
