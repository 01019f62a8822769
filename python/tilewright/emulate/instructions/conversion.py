"""cvt: between integers, floats and packed pairs of floats."""
from __future__ import annotations

from ..code import BITS, FLOATS, Code, kind_of
from ..errors import Unsupported
from ..syntax import Operand
from .floats import flush
from .table import instruction

Operands = tuple[Operand, ...]
TO_INTEGER = {"rni": "RN", "rzi": "RZ", "rmi": "RM", "rpi": "RP"}
TO_FLOAT = {"rn": "RN", "rz": "RZ", "rm": "RM", "rp": "RP", "rna": "RNA"}


def limits(type_: str) -> tuple[int, int]:
    w = BITS[type_]
    return (-(1 << w - 1), (1 << w - 1) - 1) if kind_of(type_) == "s" else (0, (1 << w) - 1)


def constant(value: int, type_: str) -> str:
    if kind_of(type_) == "s":
        return f"(s64)0x{value & (1 << 64) - 1:x}ull"
    return f"0x{value:x}ull"


def narrow(x: str, type_: str, mode: str) -> str:
    """The bits of a double rounded to a type."""
    exponent, mantissa = FLOATS[type_]
    c = f"emu_narrow({x}, {exponent}, {mantissa}, {mode})"
    return f"(u32)({c} << 13)" if type_ == "tf32" else c


def no_infinity(x: str, type_: str) -> str:
    """.satfinite: what is beyond the greatest number becomes that number."""
    exponent, mantissa = FLOATS[type_]
    greatest = (2.0 - 2.0 ** -mantissa) * 2.0 ** ((1 << exponent - 1) - 1)
    return f"({x} > {greatest.hex()} ? {greatest.hex()} : {x} < -{greatest.hex()} ? -{greatest.hex()} : {x})"


@instruction("cvt")
def cvt(code: Code, o: Operands) -> str:
    m = code.m
    if m.has("pack"):
        return pack(code, o)
    to_integer, mode = m.one(*TO_INTEGER), m.one(*TO_FLOAT)
    ftz, sat, relu, finite = m.has("ftz"), m.has("sat"), m.has("relu"), m.has("satfinite")
    to, from_ = m.type(), m.type()
    if to in ("f16x2", "bf16x2"):
        if from_ != "f32" or mode not in ("rn", "rz") or to_integer or sat or ftz:
            raise Unsupported(f"cvt to .{to} of this kind")
        part = to.removesuffix("x2")
        high, low = (narrow(adjusted(code.value(x, "f32"), part, relu, finite), part, TO_FLOAT[mode]) for x in o[1:3])
        return code.assign(o[0], "b32", f"(u32){low} | (u32){high} << 16")
    if from_ in ("f16x2", "bf16x2") or to in ("f32x2",) or from_ == "tf32":
        raise Unsupported(f"cvt.{to}.{from_}")
    if ftz and "f32" not in (to, from_):
        raise Unsupported(f"cvt.ftz.{to}.{from_}")
    source_float, target_float = from_ in FLOATS, to in FLOATS
    if not source_float and not target_float:
        if mode or to_integer or relu or finite:
            raise Unsupported(f"a rounding of cvt.{to}.{from_}")
        return integers(code, o, to, from_, sat)
    if not source_float:
        return from_integer(code, o, to, from_, mode, sat)
    x = code.value(o[1], from_)
    if ftz and from_ == "f32":
        x = flush(x, "f32")
    if not target_float:
        return from_float(code, o, to, from_, x, to_integer)
    return between_floats(code, o, to, from_, x, to_integer, mode, ftz, sat, relu, finite)


def adjusted(x: str, type_: str, relu: bool, finite: bool) -> str:
    if relu:
        x = f"max32_nan({x}, 0)"
    return no_infinity(x, type_) if finite else x


def integers(code: Code, o: Operands, to: str, from_: str, sat: bool) -> str:
    w, register = BITS[from_], code.find(o[1])
    if register is not None and register.width < w:
        raise Unsupported(f"cvt.{to}.{from_} of a register of {register.width} bits")
    x = code.value(o[1], from_)
    if kind_of(from_) == "u":
        x = f"(u{w})({x})"
    if sat:
        (least, most), (own_least, own_most) = limits(to), limits(from_)
        wide = "s64" if kind_of(from_) == "s" else "u64"
        name = code.temporary()
        c = f"{wide} {name} = {x}; "
        if own_least < least:
            c += f"{name} = {name} < {constant(least, from_)} ? {constant(least, from_)} : {name}; "
        if own_most > most:
            c += f"{name} = {name} > {constant(most, from_)} ? {constant(most, from_)} : {name}; "
        return c + code.assign(o[0], to, name)
    return code.assign(o[0], to, f"({'s' if to[0] == 's' else 'u'}{BITS[to]})({x})")


def from_integer(code: Code, o: Operands, to: str, from_: str, mode: str, sat: bool) -> str:
    if not mode or to == "tf32":
        raise Unsupported(f"cvt.{to}.{from_} without a rounding")
    x, signed = code.value(o[1], from_), kind_of(from_) == "s"
    if mode == "rn" and to in ("f32", "f64"):
        c = f"({'f32' if to == 'f32' else 'f64'})({x})"
    else:
        exponent, mantissa = FLOATS[to]
        c = f"emu_from_{'signed' if signed else 'unsigned'}({x}, {exponent}, {mantissa}, {TO_FLOAT[mode]})"
        if not sat:
            return code.assign(o[0], f"b{BITS[to]}", f"(u{BITS[to]}){c}")
        c = f"float{BITS[to]}({c})" if to in ("f32", "f64") else f"from_{to}((u16){c})"
    if sat:
        c = f"{'sat64' if to == 'f64' else 'sat32'}({c})"
    return code.assign(o[0], to, c)


def from_float(code: Code, o: Operands, to: str, from_: str, x: str, rounding: str) -> str:
    """Clamped to the range of the target; NaN is 0 but where 64 bits are involved, 1 followed by zeros."""
    if not rounding:
        raise Unsupported(f"cvt.{to}.{from_} without a rounding")
    least, most = limits(to)
    w = BITS[to]
    of_nan = 1 << w - 1 if from_ == "f64" or w == 64 else 0
    if kind_of(to) == "s":
        if of_nan:
            of_nan = least
        c = (f"emu_to_signed({x}, {TO_INTEGER[rounding]}, {constant(least, to)}, {constant(most, to)}, "
             f"{constant(of_nan, to)})")
    else:
        c = f"emu_to_unsigned({x}, {TO_INTEGER[rounding]}, {constant(most, to)}, {constant(of_nan, to)})"
    return code.assign(o[0], to, c)


def between_floats(code: Code, o: Operands, to: str, from_: str, x: str, rounding: str, mode: str, ftz: bool, sat: bool,
                   relu: bool, finite: bool) -> str:
    if rounding:
        if to != from_:
            raise Unsupported(f"cvt.{rounding}.{to}.{from_}")
        x = f"emu_integral({x}, {TO_INTEGER[rounding]})"
    elif to != from_ and FLOATS[to][1] < FLOATS[from_][1] and not mode:
        raise Unsupported(f"cvt.{to}.{from_} without a rounding")
    elif mode == "rna" and to != "tf32":
        raise Unsupported(f"cvt.rna.{to}.{from_}")
    if relu and (to not in ("f16", "bf16", "tf32") or from_ != "f32"):
        raise Unsupported(f"cvt.relu.{to}.{from_}")
    x = adjusted(x, to, relu, finite)
    w = BITS[to]
    if to in ("f16", "bf16", "tf32") or (mode not in ("", "rn") and FLOATS[to][1] < FLOATS[from_][1]):
        bits = f"(u{w}){narrow(x, to, TO_FLOAT.get(mode, 'RN'))}"
        if not sat and not ftz:
            return code.assign(o[0], f"b{w}", bits)
        x = f"float{w}({bits})" if to in ("f32", "tf32") else f"from_{to}({bits})"
    elif to == "f32":
        x = f"nan32((f32)({x}))"
    else:
        x = f"(f64)({x})"
    if ftz and to == "f32":
        x = flush(x, "f32")
    if sat:
        x = f"{'sat64' if to == 'f64' else 'sat32'}({x})"
    return code.assign(o[0], to, x)


def pack(code: Code, o: Operands) -> str:
    """Two integers clamped and set side by side: o[1] above o[2], and above both the low half of o[3]."""
    m = code.m
    if not m.has("sat"):
        raise Unsupported("cvt.pack without .sat")
    to, from_ = m.type(), m.type()
    if from_ != "s32" or to not in ("s8", "u8", "s16", "u16"):
        raise Unsupported(f"cvt.pack.{to}.{from_}")
    least, most = limits(to)
    w = BITS[to]

    def clamp(operand: Operand) -> str:
        x = code.value(operand, "s32")
        return f"((u32)({x} < {least} ? {least} : {x} > {most} ? {most} : {x}) & {(1 << w) - 1:#x}u)"
    c = f"{clamp(o[1])} << {w} | {clamp(o[2])}"
    if w == 8:
        if not m.has("b32"):
            raise Unsupported("cvt.pack to bytes without a third operand")
        c = f"{code.bits(o[3], 32)} << 16 | {c}"
    return code.assign(o[0], "b32", c)
