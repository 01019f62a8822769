"""Barriers, and what the lanes of a warp do together."""
from __future__ import annotations

from ..code import Code
from ..errors import Unsupported
from ..syntax import Operand, Pair
from .table import instruction

Operands = tuple[Operand, ...]


def collective(code: Code, op: str, mask: str, inputs: list[str], aligned: bool = False) -> str:
    """Puts the inputs where the others find them and waits until all lanes of the mask have come."""
    c = "".join(f"t->in[{i}] = {x}; " for i, x in enumerate(inputs))
    return c + f"emu_collective(t, op_{op}, {mask}, {int(aligned)}, {code.site()});"


def parts(target: Operand) -> tuple[Operand, Operand | None]:
    """d|p as d and p."""
    return (target.first, target.second) if isinstance(target, Pair) else (target, None)


@instruction("bar", "barrier")
def bar(code: Code, o: Operands) -> str:
    m = code.m
    if m.name == "bar" and m.has("warp"):
        if not m.has("sync"):
            raise Unsupported("bar.warp of this kind")
        return collective(code, "syncwarp", code.bits(o[0], 32), [])
    m.has("cta")
    kind = m.one("sync", "arrive", "red")
    aligned = int(m.has("aligned") or m.name == "bar")
    site = code.site()
    if kind == "arrive":
        return f"emu_arrive(t, {code.bits(o[0], 32)}, {code.bits(o[1], 32)}, {site});"
    if kind == "sync":
        expected = code.bits(o[1], 32) if len(o) > 1 else "0"
        return f"emu_barrier(t, {code.bits(o[0], 32)}, {expected}, BARRIER_PLAIN, 0, {aligned}, {site});"
    if kind != "red":
        raise Unsupported(f"{m.name} of this kind")
    operation = m.one("popc", "and", "or")
    type_ = m.type()
    expected = code.bits(o[2], 32) if len(o) > 3 else "0"
    if type_ != ("u32" if operation == "popc" else "pred"):
        raise Unsupported(f"{m.name}.red.{operation}.{type_}")
    return (f"emu_barrier(t, {code.bits(o[1], 32)}, {expected}, BARRIER_{operation.upper()}, "
            f"{code.predicate(o[-1])}, {aligned}, {site}); " +
            code.assign(o[0], type_, "t->out[0]" if operation == "popc" else "t->out[0] != 0"))


@instruction("shfl")
def shfl(code: Code, o: Operands) -> str:
    m = code.m
    if not m.has("sync"):
        raise Unsupported("shfl without .sync")
    mode = m.one("idx", "up", "down", "bfly")
    if not mode or m.type() != "b32":
        raise Unsupported("shfl of this kind")
    target, in_range = parts(o[0])
    c = collective(code, f"shfl_{mode}", code.bits(o[4], 32), [code.bits(x, 32) for x in o[1:4]])
    c += " " + code.assign(target, "b32", "t->out[0]")
    return c if in_range is None else c + " " + code.assign(in_range, "pred", "t->out[1] != 0")


@instruction("vote")
def vote(code: Code, o: Operands) -> str:
    m = code.m
    if not m.has("sync"):
        raise Unsupported("vote without .sync")
    mode = m.one("ballot", "any", "all", "uni")
    type_ = m.type()
    if type_ != ("b32" if mode == "ballot" else "pred"):
        raise Unsupported(f"vote.{mode}.{type_}")
    c = collective(code, f"vote_{mode}", code.bits(o[2], 32), [code.predicate(o[1])])
    return c + " " + code.assign(o[0], type_, "t->out[0]" if type_ == "b32" else "t->out[0] != 0")


@instruction("match")
def match(code: Code, o: Operands) -> str:
    m = code.m
    mode = m.one("any", "all")
    if not mode or not m.has("sync"):
        raise Unsupported("match of this kind")
    type_ = m.type()
    if type_ == "b64":
        x = code.bits(o[1], 64)
        inputs = [f"(u32)({x})", f"(u32)({x} >> 32)"]
    else:
        inputs = [code.bits(o[1], 32), "0"]
    target, same = parts(o[0])
    c = collective(code, f"match_{mode}", code.bits(o[2], 32), inputs) + " " + code.assign(target, "b32", "t->out[0]")
    return c if same is None else c + " " + code.assign(same, "pred", "t->out[1] != 0")


@instruction("activemask")
def activemask(code: Code, o: Operands) -> str:
    code.m.type()
    return collective(code, "activemask", "~0u", []) + " " + code.assign(o[0], "b32", "t->out[0]")


@instruction("elect")
def elect(code: Code, o: Operands) -> str:
    if not code.m.has("sync"):
        raise Unsupported("elect without .sync")
    target, leads = parts(o[0])
    if leads is None:
        raise Unsupported("elect without a predicate")
    return (collective(code, "elect", code.bits(o[1], 32), []) + " " + code.assign(target, "b32", "t->out[0]") + " " +
            code.assign(leads, "pred", "t->out[1] != 0"))


@instruction("redux")
def redux(code: Code, o: Operands) -> str:
    m = code.m
    if not m.has("sync"):
        raise Unsupported("redux without .sync")
    operation, type_ = m.one("add", "min", "max", "and", "or", "xor"), m.type()
    allowed = ("b32",) if operation in ("and", "or", "xor") else ("u32", "s32")
    if type_ not in allowed:
        raise Unsupported(f"redux.{operation}.{type_}")
    suffix = f"_{type_}" if operation in ("min", "max") else ""
    c = collective(code, f"redux_{operation}{suffix}", code.bits(o[2], 32), [code.bits(o[1], 32)])
    return c + " " + code.assign(o[0], "b32", "t->out[0]")
