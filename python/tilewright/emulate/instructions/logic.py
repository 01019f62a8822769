"""Comparisons, selections, bits, moves, branches."""
from __future__ import annotations

from ..code import BITS, FLOATS, HALVES, SPECIAL, Code, items, kind_of
from ..errors import Unsupported
from ..syntax import Group, Name, Number, Operand, Pair
from .floats import flush
from .table import instruction

Operands = tuple[Operand, ...]
SIGNS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
         "lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
BOOLEAN = {"and": "&", "or": "|", "xor": "^"}


def comparison(how: str, type_: str, a: str, b: str) -> str:
    """A condition of C. Comparisons of floats that end in u hold where an operand is NaN, the others do not."""
    if type_ in FLOATS:
        opposite = {"equ": "ne", "neu": "eq", "ltu": "ge", "leu": "gt", "gtu": "le", "geu": "lt"}
        if how == "num":
            return f"({a} == {a} && {b} == {b})"
        if how == "nan":
            return f"({a} != {a} || {b} != {b})"
        if how == "ne":
            return f"({a} < {b} || {a} > {b})"
        if how == "equ":
            return f"!({a} < {b} || {a} > {b})"
        if how in opposite:
            return f"!({a} {SIGNS[opposite[how]]} {b})"
    if how not in SIGNS or (type_ in FLOATS and how in ("lo", "ls", "hi", "hs")):
        raise Unsupported(f"the comparison .{how} of .{type_}")
    return f"({a} {SIGNS[how]} {b})"


def compared(code: Code, how: str, type_: str, ftz: bool, a: Operand, b: Operand) -> list[str]:
    """The condition, or the two of packed operands."""
    if type_ in HALVES:
        part, values = HALVES[type_], zip(code.halves(a, type_), code.halves(b, type_), strict=True)
    else:
        part, values = type_, zip([code.value(a, type_)], [code.value(b, type_)], strict=True)
    return [comparison(how, part, *(flush(c, part) if ftz else c for c in pair)) for pair in values]


@instruction("setp", "set")
def setp(code: Code, o: Operands) -> str:
    m = code.m
    how, boolean, ftz = m.next(), m.one(*BOOLEAN), m.has("ftz")
    to = m.type() if m.name == "set" else ""
    conditions = compared(code, how, m.type(), ftz, o[1], o[2])
    if boolean:
        other = f" {BOOLEAN[boolean]} {code.predicate(o[3])}"
    elif len(o) > 3:
        raise Unsupported("a fourth operand without .and, .or or .xor")
    else:
        other = ""
    if m.name == "set":
        results = [f"({c}){other}" for c in conditions]
        if to in ("f16x2", "bf16x2") and len(results) == 2:
            return code.assign_halves(o[0], to, *(f"({c} ? 1.0f : 0.0f)" for c in results))
        if len(results) == 2 or to not in ("u32", "s32", "f32", "f16", "bf16"):
            raise Unsupported(f"set.{to} of this type")
        yes, no = ("0xffffffffu", "0u") if to in ("u32", "s32") else ("1.0f", "0.0f")
        return code.assign(o[0], to, f"(({results[0]}) ? {yes} : {no})")
    if isinstance(o[0], Pair):
        if len(conditions) == 1:
            conditions.append(f"!{conditions[0]}")
        x = code.temporary()
        return (f"bool {x} = ({conditions[0]}){other}; " +
                code.assign(o[0].second, "pred", f"({conditions[1]}){other}") + code.assign(o[0].first, "pred", x))
    if len(conditions) == 2:
        raise Unsupported("a packed comparison into one predicate")
    return code.assign(o[0], "pred", f"({conditions[0]}){other}")


@instruction("selp")
def selp(code: Code, o: Operands) -> str:
    type_ = code.m.type()
    if type_ in ("f32", "f64"):
        a, b = code.value(o[1], type_), code.value(o[2], type_)
        return code.assign(o[0], type_, f"{code.predicate(o[3])} ? {a} : {b}")
    w, target = BITS[type_], code.find(o[0])
    if target is not None and target.is_float and target.width == w:
        a, b = code.value(o[1], f"f{w}"), code.value(o[2], f"f{w}")
        return code.assign(o[0], f"f{w}", f"{code.predicate(o[3])} ? {a} : {b}")
    return code.assign(o[0], f"b{w}", f"{code.predicate(o[3])} ? {code.bits(o[1], w)} : {code.bits(o[2], w)}")


@instruction("slct")
def slct(code: Code, o: Operands) -> str:
    ftz, to, by = code.m.has("ftz"), code.m.type(), code.m.type()
    if by not in ("s32", "f32"):
        raise Unsupported(f"slct by .{by}")
    x, w = code.value(o[3], by), BITS[to]
    x = flush(x, by) if ftz else x
    return code.assign(o[0], f"b{w}", f"{x} >= 0 ? {code.bits(o[1], w)} : {code.bits(o[2], w)}")


@instruction("and", "or", "xor")
def boolean(code: Code, o: Operands) -> str:
    type_, sign = code.m.type(), BOOLEAN[code.m.name]
    if type_ == "pred":
        return code.assign(o[0], "pred", f"({code.predicate(o[1])} {sign} {code.predicate(o[2])})")
    w = BITS[type_]
    return code.assign(o[0], f"b{w}", f"{code.bits(o[1], w)} {sign} {code.bits(o[2], w)}")


@instruction("not", "cnot")
def invert(code: Code, o: Operands) -> str:
    type_ = code.m.type()
    if type_ == "pred":
        return code.assign(o[0], "pred", f"!{code.predicate(o[1])}")
    w = BITS[type_]
    x = code.bits(o[1], w)
    return code.assign(o[0], f"b{w}", f"({x} == 0)" if code.m.name == "cnot" else f"(u{w})~({x})")


@instruction("lop3")
def lop3(code: Code, o: Operands) -> str:
    code.m.type()
    if not isinstance(o[4], Number):
        raise Unsupported("lop3 with a table that is no constant")
    table = int(o[4].text, 0)
    a, b, c = (code.bits(x, 32) for x in o[1:4])
    terms = [f"({'' if i & 4 else '~'}{a} & {'' if i & 2 else '~'}{b} & {'' if i & 1 else '~'}{c})"
             for i in range(8) if table >> i & 1]
    return code.assign(o[0], "b32", " | ".join(terms) or "0u")


@instruction("shl", "shr")
def shift(code: Code, o: Operands) -> str:
    """A shift by the width or more leaves nothing, or the sign."""
    type_ = code.m.type()
    w = BITS[type_]
    by = code.bits(o[2], 32)
    if code.m.name == "shr" and type_[0] == "s":
        return code.assign(o[0], type_, f"{code.value(o[1], type_)} >> ({by} < {w} ? {by} : {w - 1})")
    sign = "<<" if code.m.name == "shl" else ">>"
    return code.assign(o[0], f"b{w}", f"{by} < {w} ? (u{w})({code.bits(o[1], w)} {sign} {by}) : (u{w})0")


@instruction("shf")
def funnel(code: Code, o: Operands) -> str:
    side, mode = code.m.one("l", "r"), code.m.one("clamp", "wrap")
    code.m.type()
    low, high, by = (code.bits(x, 32) for x in o[1:4])
    by = f"({by} & 31)" if mode == "wrap" else f"({by} < 32 ? {by} : 32)"
    both = f"((u64){high} << 32 | {low})"
    return code.assign(o[0], "b32", f"(u32)({both} << {by} >> 32)" if side == "l" else f"(u32)({both} >> {by})")


@instruction("prmt")
def prmt(code: Code, o: Operands) -> str:
    code.m.type()
    mode = code.m.one("f4e", "b4e", "rc8", "ecl", "ecr", "rc16")
    a, b, selector = (code.bits(x, 32) for x in o[1:4])
    return code.assign(o[0], "b32", f"emu_prmt({a}, {b}, {selector}, {f'PRMT_{mode.upper()}' if mode else 'PRMT'})")


@instruction("mov")
def mov(code: Code, o: Operands) -> str:
    type_ = code.m.type()
    if type_ == "pred":
        return code.assign(o[0], "pred", code.predicate(o[1]))
    w = BITS[type_]
    if isinstance(o[0], Group):
        part = w // len(o[0].items)
        x = code.temporary()
        return f"u{w} {x} = {code.bits(o[1], w)}; " + " ".join(
            code.assign(target, f"b{part}", f"(u{part})({x} >> {part * i})") for i, target in enumerate(o[0].items))
    if isinstance(o[1], Group):
        part = w // len(o[1].items)
        return code.assign(o[0], f"b{w}", " | ".join(
            f"(u{w})(u{part})({code.bits(x, part)}) << {part * i}" for i, x in enumerate(o[1].items)))
    if kind_of(type_) == "f" and w >= 32 and not (isinstance(o[1], Name) and o[1].text in SPECIAL):
        return code.assign(o[0], type_, code.value(o[1], type_))
    return code.copy(o[0], o[1], w)


@instruction("bra")
def bra(code: Code, o: Operands) -> str:
    code.m.has("uni")
    return jump(code, o[0])


def jump(code: Code, label: Operand) -> str:
    """A jump backward lets others go first once in a while, lest a thread that waits for them wait for ever."""
    if not isinstance(label, Name):
        raise Unsupported("a jump to something that is no label")
    target = code.label(label.text)
    if target in code.labels:
        return f"{{ emu_loop(t, {code.site()}); goto {target}; }}"
    return f"goto {target};"


@instruction("brx")
def brx(code: Code, o: Operands) -> str:
    if not code.m.has("idx") or not isinstance(o[1], Name):
        raise Unsupported("a jump through a table of this kind")
    code.m.has("uni")
    targets = code.targets.get(o[1].text)
    if targets is None:
        raise Unsupported(f"no table of labels {o[1].text}")
    cases = " ".join(f"case {i}: {jump(code, Name(label))}" for i, label in enumerate(targets))
    return (f"switch ({code.bits(o[0], 32)}) {{ {cases} "
            f"default: emu_fail(t, FAULT_UNDEFINED, WHY_BRANCH, {code.site()}); }}")


@instruction("ret")
def ret(code: Code, o: Operands) -> str:
    code.m.has("uni")
    return "goto leave;"


@instruction("exit")
def exit_(code: Code, o: Operands) -> str:
    return "goto leave;" if code.is_entry else "emu_exit(t);"


@instruction("trap")
def trap(code: Code, o: Operands) -> str:
    return f"emu_fail(t, FAULT_TRAP, WHY_PLAIN, {code.site()});"


@instruction("pragma", "nanosleep", "prefetch", "prefetchu")
def nothing(code: Code, o: Operands) -> str:
    """Hints, and a pause that is none here."""
    code.m.left.clear()
    return ";"


@instruction("call")
def call(code: Code, o: Operands) -> str:
    code.m.has("uni")
    results, rest = (o[0].items, o[1:]) if isinstance(o[0], Group) else ((), o)
    if not rest or not isinstance(rest[0], Name):
        raise Unsupported("a call through a pointer")
    name = rest[0].text
    arguments = items(rest[1]) if len(rest) > 1 else ()
    if name not in code.module.functions or len(rest) > 2:
        raise Unsupported(f"a call of {name}, which this module does not define")
    wanted_results, wanted = code.module.signatures[name]
    passed = []
    for operand, variable in zip((*results, *arguments), (*wanted_results, *wanted), strict=True):
        found = code.parameter(operand.text) if isinstance(operand, Name) else None
        if found is None:
            raise Unsupported("a call with something else than .param variables")
        size = BITS[variable.type] // 8 * (variable.count or 0)
        if found[1] < size:
            raise Unsupported(f"a call of {name} with {found[1]} bytes for {variable.name} of {size}")
        passed.append(found[0])
    return f"{code.module.functions[name]}({', '.join(['t', *passed])});"


