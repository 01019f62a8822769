"""Arithmetic on floats. f16 and bf16 are computed in float or double and rounded once to their own type."""
from __future__ import annotations

from collections.abc import Callable

from ..code import BITS, HALVES, Code
from ..errors import Unsupported
from ..syntax import Operand
from .table import instruction

Operands = tuple[Operand, ...]
ROUNDINGS = ("rn", "rz", "rm", "rp")


def flush(c: str, type_: str) -> str:
    """A subnormal becomes zero of its sign."""
    if type_ == "f16":
        return f"(fabsf({c}) < 0x1p-14f ? copysignf(0, {c}) : {c})"
    if type_ != "f32":
        raise Unsupported(f".ftz of .{type_}")
    return f"ftz({c})"


class Arithmetic:
    """The modifiers that floating-point instructions share: rounding, .ftz, .sat, .relu, and the type."""

    def __init__(self, code: Code) -> None:
        m = code.m
        self.code = code
        self.rounding = m.one(*ROUNDINGS, default="rn")
        self.ftz, self.sat, self.relu = m.has("ftz"), m.has("sat"), m.has("relu")
        self.type = m.type()
        self.part = HALVES.get(self.type, self.type)

    def operands(self, operand: Operand) -> tuple[str, ...]:
        """One value, or the two of a packed operand, subnormals flushed where asked for."""
        code = self.code
        values = code.halves(operand, self.type) if self.type in HALVES else (code.value(operand, self.type),)
        return tuple(flush(c, self.part) for c in values) if self.ftz else values

    def result(self, c: str) -> str:
        """What becomes of a computed value before it is stored."""
        part = self.part
        if part in ("f16", "bf16") and (self.ftz or self.relu):
            c = f"from_{part}(to_{part}({c}))"
        elif part == "f32":
            c = f"nan32({c})"
        if self.ftz:
            c = flush(c, part)
        if self.sat:
            c = f"{'sat64' if part == 'f64' else 'sat32'}({c})"
        if self.relu:
            c = f"max32_nan({c}, 0)"
        return c

    def apply(self, o: Operands, function: Callable[..., str]) -> str:
        """Assigns function(values of the operands), half by half where they are packed."""
        sources = [self.operands(x) for x in o[1:]]
        results = [self.result(function(*values)) for values in zip(*sources, strict=True)]
        if self.type in HALVES:
            return self.code.assign_halves(o[0], self.type, *results)
        return self.code.assign(o[0], self.type, results[0])

    def rounded(self, name: str) -> str:
        """The function for another rounding than to nearest."""
        if self.part not in ("f32", "f64"):
            raise Unsupported(f".{self.rounding} of .{self.type}")
        return f"emu_{name}{BITS[self.part]}"


def add_sub_mul(code: Code, o: Operands) -> str:
    name, a = code.m.name, Arithmetic(code)
    sign = {"add": "+", "sub": "-", "mul": "*"}[name]

    def compute(x: str, y: str) -> str:
        if a.rounding != "rn":
            y = f"-({y})" if name == "sub" else y
            return f"{a.rounded('mul' if name == 'mul' else 'add')}({x}, {y}, {a.rounding.upper()})"
        if a.part in ("f16", "bf16"):
            return f"(f64){x} {sign} {y}"
        return f"{x} {sign} {y}"
    return a.apply(o[:3], compute)


@instruction("fma")
def fma(code: Code, o: Operands) -> str:
    a = Arithmetic(code)

    def compute(x: str, y: str, z: str) -> str:
        if a.rounding != "rn":
            return f"{a.rounded('fma')}({x}, {y}, {z}, {a.rounding.upper()})"
        if a.part in ("f16", "bf16"):
            return f"emu_fma_odd({x}, {y}, {z})"
        return f"fma{BITS[a.part]}({x}, {y}, {z})"
    return a.apply(o[:4], compute)


def div(code: Code, o: Operands) -> str:
    if code.m.name != "div":
        raise Unsupported("rem of floats")
    if code.m.one("approx", "full"):  # computed to the last bit, whatever the hardware does
        a = Arithmetic(code)
        return a.apply(o[:3], lambda x, y: f"{x} / {y}")
    a = Arithmetic(code)
    if a.rounding != "rn":
        return a.apply(o[:3], lambda x, y: f"{a.rounded('div')}({x}, {y}, {a.rounding.upper()})")
    return a.apply(o[:3], lambda x, y: f"{x} / {y}")


def min_max(code: Code, o: Operands) -> str:
    m = code.m
    nan, xorsign = m.has("NaN"), m.has("xorsign") and m.has("abs")
    a = Arithmetic(code)
    function = f"{m.name}{'64' if a.part == 'f64' else '32'}{'_nan' if nan else ''}"
    if nan and a.part == "f64":
        raise Unsupported(f"{m.name}.NaN.f64")

    def compute(x: str, *more: str) -> str:
        c = x
        for y in more:
            if xorsign:
                c = f"copysignf({function}(fabsf({c}), fabsf({y})), float32(bits32({c}) ^ bits32({y})))"
            else:
                c = f"{function}({c}, {y})"
        return c
    return a.apply(o, compute)


def abs_neg(code: Code, o: Operands) -> str:
    name, a = code.m.name, Arithmetic(code)
    if a.part in ("f16", "bf16") and not a.ftz:  # bits, so that a NaN stays what it is
        w = BITS[a.type]
        bit = "0x8000" if w == 16 else "0x80008000u"
        x = code.bits(o[1], w)
        return code.assign(o[0], f"b{w}", f"(u{w})({x} {'^' if name == 'neg' else '& ~'}{bit})")
    suffix = "" if a.part == "f64" else "f"
    sources = a.operands(o[1])
    results = [f"-({c})" if name == "neg" else f"fabs{suffix}({c})" for c in sources]
    if a.type in HALVES:
        return code.assign_halves(o[0], a.type, *results)
    return code.assign(o[0], a.type, results[0])


@instruction("rcp", "sqrt", "rsqrt")
def roots(code: Code, o: Operands) -> str:
    name, approx = code.m.name, code.m.has("approx")
    a = Arithmetic(code)
    if a.part == "f64" and approx:
        if name == "sqrt":
            raise Unsupported("sqrt.approx.f64")
        if a.ftz:
            return code.assign(o[0], "f64", f"emu_{name}_high({code.value(o[1], 'f64')})")
        return code.assign(o[0], "f64", f"1 / sqrt({code.value(o[1], 'f64')})")
    if a.part not in ("f32", "f64"):
        raise Unsupported(f"{name}.{a.type}")
    if not approx and a.rounding != "rn":
        mode = a.rounding.upper()
        if name == "rcp":
            return a.apply(o[:2], lambda x: f"{a.rounded('div')}(1, {x}, {mode})")
        return a.apply(o[:2], lambda x: f"{a.rounded('sqrt')}({x}, {mode})")
    if name == "rcp":
        return a.apply(o[:2], lambda x: f"1 / {x}")
    if name == "sqrt":
        return a.apply(o[:2], lambda x: f"sqrt{'' if a.part == 'f64' else 'f'}({x})")
    return a.apply(o[:2], lambda x: f"(f32)(1 / sqrt((f64){x}))")


@instruction("ex2", "lg2", "sin", "cos", "tanh")
def approximate(code: Code, o: Operands) -> str:
    """Computed in double and rounded once: more exact than the hardware, which is not modelled."""
    m = code.m
    if not m.has("approx"):
        raise Unsupported(f"{m.name} without .approx")
    function = {"ex2": "exp2", "lg2": "log2"}.get(m.name, m.name)
    bf16_flushes = m.name == "ex2" and "bf16" in m.left or "bf16x2" in m.left
    if bf16_flushes:
        m.has("ftz")  # subnormals of bf16 have the exponents of f32: the value is below them where ex2 matters
    a = Arithmetic(code)
    if a.part == "f64" or (a.part != "f32" and m.name not in ("ex2", "tanh")):
        raise Unsupported(f"{m.name}.approx.{a.type}")
    return a.apply(o[:2], lambda x: f"(f32){function}((f64){x})" if a.part == "f32" else f"{function}((f64){x})")


@instruction("copysign")
def copysign(code: Code, o: Operands) -> str:
    type_ = code.m.type()
    w = BITS[type_]
    sign = f"((u{w})1 << {w - 1})"
    return code.assign(o[0], f"b{w}", f"({code.bits(o[1], w)} & {sign}) | ({code.bits(o[2], w)} & ~{sign})")


@instruction("testp")
def testp(code: Code, o: Operands) -> str:
    test = code.m.one("finite", "infinite", "number", "notanumber", "normal", "subnormal")
    type_ = code.m.type()
    if type_ not in ("f32", "f64") or not test:
        raise Unsupported("testp of this kind")
    x = code.value(o[1], type_)
    c = {"finite": f"isfinite({x})", "infinite": f"isinf({x})", "number": f"!isnan({x})", "notanumber": f"isnan({x})",
         "normal": f"isnormal({x})", "subnormal": f"fpclassify({x}) == FP_SUBNORMAL"}[test]
    return code.assign(o[0], "pred", f"({c}) != 0")


