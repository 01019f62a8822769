"""Arithmetic on integers; the opcodes that floats share are split by type here."""
from __future__ import annotations

from ..code import BITS, Code, kind_of
from ..errors import Unsupported
from ..syntax import Operand
from . import floats
from .table import instruction

Operands = tuple[Operand, ...]


def type_of(code: Code) -> str:
    """The type of an instruction that has one, left in place."""
    found = [word for word in code.m.left if word in BITS]
    return found[0] if found else ""


def is_float(type_: str) -> bool:
    return type_ in ("f16", "bf16", "f32", "f64", "f16x2", "bf16x2", "f32x2")


@instruction("add", "sub")
def add_sub(code: Code, o: Operands) -> str:
    m = code.m
    if is_float(type_of(code)):
        return floats.add_sub_mul(code, o)
    carry, sign = m.has("cc"), "+" if m.name == "add" else "-"
    saturate = m.has("sat")
    type_ = m.type()
    if type_ in ("s16x2", "u16x2"):
        (a, b), (c, d) = code.halves(o[1], type_), code.halves(o[2], type_)
        return code.assign_halves(o[0], type_, f"{a} {sign} {c}", f"{b} {sign} {d}")
    if saturate:
        if type_ != "s32" or carry:
            raise Unsupported(f"{m.name}.sat of .{type_}")
        x = code.temporary()
        return (f"s64 {x} = (s64){code.value(o[1], type_)} {sign} {code.value(o[2], type_)}; " +
                code.assign(o[0], type_, f"{x} < INT32_MIN ? INT32_MIN : {x} > INT32_MAX ? INT32_MAX : (s32){x}"))
    if carry:
        return with_carry(code, o[0], type_, sign, code.bits(o[1], BITS[type_]), code.bits(o[2], BITS[type_]), False,
                          True)
    w = BITS[type_]
    return code.assign(o[0], f"b{w}", f"(u{w})({code.bits(o[1], w)} {sign} {code.bits(o[2], w)})")


def with_carry(code: Code, target: Operand, type_: str, sign: str, a: str, b: str, carry_in: bool,
               carry_out: bool) -> str:
    """a ± b ± carry, in twice the width: the bit above the result is the carry, or the borrow."""
    w, x = BITS[type_], code.temporary()
    if w < 32:
        raise Unsupported(f"a carry of .{type_}")
    code.uses_carry = True
    double = f"u{2 * w}"
    c = f"{double} {x} = ({double})({a}) {sign} ({b}){f' {sign} carry' if carry_in else ''}; "
    if carry_out:
        c += f"carry = (u32)({x} >> {w}) & 1; "
    return c + code.assign(target, f"b{w}", f"(u{w}){x}")


@instruction("addc", "subc")
def addc_subc(code: Code, o: Operands) -> str:
    carry, type_ = code.m.has("cc"), code.m.type()
    return with_carry(code, o[0], type_, "+" if code.m.name == "addc" else "-", code.bits(o[1], BITS[type_]),
                      code.bits(o[2], BITS[type_]), True, carry)


def product(code: Code, o: Operands, type_: str, part: str) -> str:
    """The low, the high or the whole product of o[1] and o[2], unsigned."""
    w, signed = BITS[type_], kind_of(type_) == "s"
    double = f"{'s' if signed else 'u'}{2 * w}"
    if part == "lo":
        least = max(w, 32)  # so that the product of two u16 is not an int of C
        return f"(u{w})((u{least}){code.bits(o[1], w)} * (u{least}){code.bits(o[2], w)})"
    a, b = (f"({double}){code.value(x, type_)}" for x in o[1:3])
    if part == "wide":
        if w == 64:
            raise Unsupported("mul.wide of 64 bits")
        return f"(u{2 * w})({a} * {b})" if w > 16 else f"(u{2 * w})((s64){a} * {b})"
    return f"(u{w})(({f'(u{2 * w})' if w > 16 else ''}({'(s64)' if w == 16 else ''}{a} * {b})) >> {w})"


@instruction("mul")
def mul(code: Code, o: Operands) -> str:
    if is_float(type_of(code)):
        return floats.add_sub_mul(code, o)
    part, type_ = code.m.one("lo", "hi", "wide"), code.m.type()
    if not part:
        raise Unsupported("mul of integers without .lo, .hi or .wide")
    w = BITS[type_] * (2 if part == "wide" else 1)
    return code.assign(o[0], f"b{w}", product(code, o, type_, part))


@instruction("mad")
def mad(code: Code, o: Operands) -> str:
    if is_float(type_of(code)):
        return floats.fma(code, o)
    part, saturate, carry, type_ = (code.m.one("lo", "hi", "wide"), code.m.has("sat"), code.m.has("cc"),
                                    code.m.type())
    w = BITS[type_] * (2 if part == "wide" else 1)
    a = product(code, o, type_, part)
    if saturate:
        if part != "hi" or type_ != "s32":
            raise Unsupported(f"mad.{part}.sat.{type_}")
        x = code.temporary()
        return (f"s64 {x} = (s64)(s32){a} + {code.value(o[3], type_)}; " +
                code.assign(o[0], type_, f"{x} < INT32_MIN ? INT32_MIN : {x} > INT32_MAX ? INT32_MAX : (s32){x}"))
    if carry:
        return with_carry(code, o[0], type_, "+", a, code.bits(o[3], w), False, True)
    return code.assign(o[0], f"b{w}", f"(u{w})({a} + {code.bits(o[3], w)})")


@instruction("madc")
def madc(code: Code, o: Operands) -> str:
    part, carry, type_ = code.m.one("lo", "hi"), code.m.has("cc"), code.m.type()
    return with_carry(code, o[0], type_, "+", product(code, o, type_, part), code.bits(o[3], BITS[type_]), True, carry)


@instruction("mul24", "mad24")
def mul24(code: Code, o: Operands) -> str:
    part, type_ = code.m.one("lo", "hi"), code.m.type()
    wide = "s64" if type_ == "s32" else "u64"
    a, b = ((f"((s64)((u64){code.bits(x, 32)} << 40) >> 40)" if type_ == "s32" else
             f"((u64){code.bits(x, 32)} & 0xffffff)") for x in o[1:3])
    c = f"(u32)(({wide})({a} * {b}) >> {16 if part == 'hi' else 0})"
    if code.m.name == "mad24":
        c = f"{c} + {code.bits(o[3], 32)}"
    return code.assign(o[0], "b32", c)


@instruction("div", "rem")
def div_rem(code: Code, o: Operands) -> str:
    if is_float(type_of(code)):
        return floats.div(code, o)
    type_ = code.m.type()
    a, b, x = code.value(o[1], type_), code.value(o[2], type_), code.temporary()
    w, divides = BITS[type_], code.m.name == "div"
    c = f"{'s' if type_[0] == 's' else 'u'}{w} {x} = {b}; "
    c += f"if ({x} == 0) emu_fail(t, FAULT_UNDEFINED, WHY_DIVISION, {code.site()}); "
    result = f"{a} {'/' if divides else '%'} {x}"
    if type_[0] == "s":  # the least number by -1 overflows: in C that is undefined, here it wraps
        result = f"{x} == -1 ? ({f'(s{w})(0 - {code.bits(o[1], w)})' if divides else '0'}) : {result}"
    return c + code.assign(o[0], type_, result)


@instruction("min", "max")
def min_max(code: Code, o: Operands) -> str:
    if is_float(type_of(code)):
        return floats.min_max(code, o)
    relu, type_ = code.m.has("relu"), code.m.type()
    sign = "<" if code.m.name == "min" else ">"

    def choose(a: str, b: str) -> str:
        c = f"({a} {sign} {b} ? {a} : {b})"
        return f"({c} > 0 ? {c} : 0)" if relu else c
    if type_ in ("s16x2", "u16x2"):
        (a, b), (c, d) = code.halves(o[1], type_), code.halves(o[2], type_)
        return code.assign_halves(o[0], type_, choose(a, c), choose(b, d))
    return code.assign(o[0], type_, choose(code.value(o[1], type_), code.value(o[2], type_)))


@instruction("abs", "neg")
def abs_neg(code: Code, o: Operands) -> str:
    if is_float(type_of(code)):
        return floats.abs_neg(code, o)
    type_ = code.m.type()
    w, a = BITS[type_], code.bits(o[1], BITS[type_])
    negated = f"(u{w})(0 - {a})"
    if code.m.name == "abs":
        negated = f"{code.value(o[1], type_)} < 0 ? {negated} : {a}"
    return code.assign(o[0], f"b{w}", negated)


@instruction("sad")
def sad(code: Code, o: Operands) -> str:
    type_ = code.m.type()
    w, a, b = BITS[type_], code.value(o[1], type_), code.value(o[2], type_)
    x, y = code.bits(o[1], w), code.bits(o[2], w)
    return code.assign(o[0], f"b{w}", f"(u{w})({code.bits(o[3], w)} + ({a} < {b} ? {y} - {x} : {x} - {y}))")


@instruction("dp4a", "dp2a")
def dot(code: Code, o: Operands) -> str:
    m = code.m
    high = m.name == "dp2a" and m.one("lo", "hi") == "hi"
    a, b = m.type(), m.type()
    if a not in ("s32", "u32") or b not in ("s32", "u32"):
        raise Unsupported(f"{m.name}.{a}.{b}")
    x, y, z = (code.bits(operand, 32) for operand in o[1:4])
    signs = f"{int(a == 's32')}, {int(b == 's32')}"
    if m.name == "dp4a":
        return code.assign(o[0], "b32", f"emu_dot({x}, {y}, {signs}, {z})")
    return code.assign(o[0], "b32", f"emu_dot2({x}, {y}, {signs}, {int(high)}, {z})")


@instruction("popc", "clz", "brev", "bfind")
def count(code: Code, o: Operands) -> str:
    m = code.m
    shift = m.has("shiftamt")
    type_ = m.type()
    w, a = BITS[type_], code.bits(o[1], BITS[type_])
    if m.name == "brev":
        return code.assign(o[0], type_, f"emu_brev({a}, {w})")
    c = {"popc": f"popc64({a})", "clz": f"clz{w}({a})",
         "bfind": f"emu_bfind({a}, {w}, {int(type_[0] == 's')}, {int(shift)})"}[m.name]
    return code.assign(o[0], "b32", c)


@instruction("bfe")
def bfe(code: Code, o: Operands) -> str:
    type_ = code.m.type()
    w = BITS[type_]
    c = f"emu_bfe_{type_[0]}({code.bits(o[1], w)}, {code.bits(o[2], 32)}, {code.bits(o[3], 32)}, {w})"
    return code.assign(o[0], f"b{w}", f"(u{w}){c}")


@instruction("bfi")
def bfi(code: Code, o: Operands) -> str:
    w = BITS[code.m.type()]
    return code.assign(o[0], f"b{w}", f"(u{w})emu_bfi({code.bits(o[1], w)}, {code.bits(o[2], w)}, "
                                      f"{code.bits(o[3], 32)}, {code.bits(o[4], 32)}, {w})")


@instruction("fns")
def fns(code: Code, o: Operands) -> str:
    code.m.type()
    return code.assign(o[0], "b32", f"emu_fns({code.bits(o[1], 32)}, {code.bits(o[2], 32)}, "
                                    f"{code.value(o[3], 's32')})")
