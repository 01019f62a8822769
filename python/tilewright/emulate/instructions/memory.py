"""Loads, stores, atomics, addresses, fences, cp.async."""
from __future__ import annotations

from ..code import BITS, Code, items, kind_of
from ..errors import Unsupported
from ..syntax import Operand
from .table import instruction

Operands = tuple[Operand, ...]
SPACES = ("param", "global", "shared", "local", "const", "param::entry", "param::func", "shared::cta")
STRONG = ("volatile", "relaxed", "acquire", "release", "acq_rel", "mmio")
SCOPES = ("cta", "cluster", "gpu", "sys")
HINTS = ("ca", "cg", "cs", "lu", "cv", "wb", "wt", "unified")


def space_of(code: Code) -> str:
    """global, shared, local, const, param, or generic where none is named."""
    return code.m.one(*SPACES, default="generic").split("::")[0]


def order_of(code: Code) -> str:
    """How a load or store is ordered with others."""
    m = code.m
    m.has("weak")
    if m.one(*STRONG):
        m.one(*SCOPES)
        return "STRONG"
    return "CACHED" if m.has("nc") else "PLAIN"


def drop_hints(code: Code) -> None:
    """Takes what speaks of caches only."""
    code.m.left = [word for word in code.m.left if word not in HINTS and not word.startswith(("L1::", "L2::"))]


def access(code: Code, what: str, space: str, address: Operand, size: int, order: str = "PLAIN") -> str:
    """A checked access as a pointer of the host; `what` is load, store or atomic, `order` PLAIN, STRONG or CACHED."""
    if space == "const":
        if what != "load":
            raise Unsupported(f"a {what} in constant memory")
        space = "global"
    code.module.touch(space, size)
    width = 32 if space == "shared" else 64
    return (f"emu_{space}_{what}(t, {code.address(address, width)}, {size}, {order}, "
            f"{code.site()})")


@instruction("ld", "ldu")
def ld(code: Code, o: Operands) -> str:
    m = code.m
    order, space = order_of(code), space_of(code)
    drop_hints(code)
    vector = int(m.one("v2", "v4", "v8", default="v1")[1:])
    type_ = m.type()
    targets = items(o[0])
    if len(targets) != vector:
        raise Unsupported(f"{len(targets)} registers for .v{vector}")
    size = BITS[type_] // 8
    x = code.temporary()
    if space == "param":
        place = code.parameter_place(o[1], size * vector)
        if place is not None:
            c = f"const u8 *{x} = {place};"
        elif code.is_entry:
            c = f"const u8 *{x} = {access(code, 'load', 'global', o[1], size * vector)};"
        else:
            raise Unsupported("ld.param of a function through a register")
    else:
        c = f"const u8 *{x} = {access(code, 'load', space, o[1], size * vector, order)};"
    return c + " " + " ".join(code.load(target, type_, x, i * size) for i, target in enumerate(targets))


@instruction("st")
def st(code: Code, o: Operands) -> str:
    m = code.m
    order, space = order_of(code), space_of(code)
    drop_hints(code)
    vector = int(m.one("v2", "v4", "v8", default="v1")[1:])
    type_ = m.type()
    sources = items(o[1])
    if len(sources) != vector:
        raise Unsupported(f"{len(sources)} values for .v{vector}")
    size = BITS[type_] // 8
    x = code.temporary()
    if space == "param":
        place = code.parameter_place(o[0], size * vector)
        if place is None:
            raise Unsupported("st.param through a register")
        c = f"u8 *{x} = (u8 *){place};"
    else:
        c = f"u8 *{x} = {access(code, 'store', space, o[0], size * vector, order)};"
    return c + " " + " ".join(code.store(source, type_, x, i * size) for i, source in enumerate(sources))


OPERATIONS = ("and", "or", "xor", "cas", "exch", "add", "inc", "dec", "min", "max")


@instruction("atom", "red")
def atom(code: Code, o: Operands) -> str:
    m = code.m
    m.one(*STRONG)
    m.one(*SCOPES)
    space = space_of(code)
    drop_hints(code)
    operation = m.one(*OPERATIONS)
    m.has("noftz")
    type_ = m.type()
    if not operation or space not in ("global", "shared", "generic"):
        raise Unsupported(f"{m.name} of this kind")
    target, address, values = (o[0], o[1], o[2:]) if m.name == "atom" else (None, o[0], o[1:])
    w = BITS[type_]
    pointer, old, new = code.temporary(), code.temporary(), code.temporary()
    c = f"u8 *{pointer} = {access(code, 'atomic', space, address, w // 8, 'STRONG')}; u{w} {old} = get{w}({pointer}); "
    c += f"u{w} {new} = {updated(code, operation, type_, space, pointer, old, values)}; "
    c += f"put{w}({pointer}, {new}); t->launch->events += {new} != {old};"
    return c if target is None else c + " " + code.assign(target, f"b{w}", old)


def updated(code: Code, operation: str, type_: str, space: str, pointer: str, old: str, values: Operands) -> str:
    """The new contents of memory, as bits."""
    w = BITS[type_]
    if operation == "cas":
        return f"{old} == {code.bits(values[0], w)} ? {code.bits(values[1], w)} : {old}"
    b = code.bits(values[0], w)
    if operation == "exch":
        return b
    if operation in ("and", "or", "xor"):
        return f"{old} {dict(zip(('and', 'or', 'xor'), '&|^', strict=True))[operation]} {b}"
    if operation in ("inc", "dec"):
        if type_ != "u32":
            raise Unsupported(f"atom.{operation}.{type_}")
        return (f"{old} >= {b} ? 0 : {old} + 1" if operation == "inc" else
                f"{old} == 0 || {old} > {b} ? {b} : {old} - 1")
    if type_ in ("f16x2", "bf16x2"):
        part = type_.removesuffix("x2")

        def half(c: str, i: int) -> str:
            return f"from_{part}((u16)({c} >> {16 * i}))"
        parts = [sum_or_extreme(operation, part, half(old, i), half(f"({b})", i)) for i in (0, 1)]
        return f"(u32)to_{part}({parts[0]}) | (u32)to_{part}({parts[1]}) << 16"
    if type_ in ("f16", "bf16"):
        return f"to_{type_}({sum_or_extreme(operation, type_, f'from_{type_}({old})', f'from_{type_}({b})')})"
    if type_ in ("f32", "f64"):
        if operation != "add":
            raise Unsupported(f"atom.{operation}.{type_}")
        total = f"float{w}({old}) + {code.value(values[0], type_)}"
        if type_ == "f64":
            return f"bits64({total})"
        # on global memory, atom.add.f32 flushes subnormals; on shared memory it does not
        flushed = f"ftz(ftz(float32({old})) + ftz({code.value(values[0], type_)}))"
        if space == "generic":
            total = f"emu_is_shared(t, (u64){pointer}) ? {total} : {flushed}"
        elif space == "global":
            total = flushed
        return f"bits32(nan32({total}))"
    if operation == "add":
        return f"{old} + {b}"
    if kind_of(type_) not in ("s", "u"):
        raise Unsupported(f"atom.{operation}.{type_}")
    sign = "<" if operation == "min" else ">"
    a, other = (f"(s{w}){old}", f"(s{w})({b})") if type_[0] == "s" else (old, b)
    return f"{a} {sign} {other} ? {old} : {b}"


def sum_or_extreme(operation: str, type_: str, a: str, b: str) -> str:
    if operation == "add":
        return f"(f64){a} + {b}"
    if operation in ("min", "max"):
        return f"{operation}32({a}, {b})"
    raise Unsupported(f"atom.{operation}.{type_}")


@instruction("cvta")
def cvta(code: Code, o: Operands) -> str:
    """Generic addresses are the host's; those of shared memory are offsets in it, the others the same."""
    m = code.m
    to, space = m.has("to"), space_of(code)
    w = BITS[m.type()]
    if w != 64 or space == "generic":
        raise Unsupported("cvta of this kind")
    x = code.bits(o[1], 64)
    if space == "shared":
        x = f"{x} - (u64)t->launch->shared" if to else f"(u64)t->launch->shared + {x}"
    return code.assign(o[0], "b64", x)


@instruction("isspacep")
def isspacep(code: Code, o: Operands) -> str:
    space, x = space_of(code), code.bits(o[1], 64)
    tests = {"shared": f"emu_is_shared(t, {x})", "local": f"emu_is_local(t, {x})",
             "global": f"!emu_is_shared(t, {x}) && !emu_is_local(t, {x})"}
    if space not in tests:
        raise Unsupported(f"isspacep.{space}")
    return code.assign(o[0], "pred", tests[space])


@instruction("membar", "fence")
def fence(code: Code, o: Operands) -> str:
    m = code.m
    m.one("sc", "acq_rel", "acquire", "release")
    scope = m.one("cta", "gl", "sys", "gpu", "cluster")
    if not scope:
        raise Unsupported(f"{m.name} without a scope")
    return ";" if scope == "cta" else "emu_fence(t);"


@instruction("cp")
def cp_async(code: Code, o: Operands) -> str:
    m = code.m
    if not m.has("async") or "bulk" in m.left:
        raise Unsupported(f"{'.'.join([m.name, *m.left])}")
    if m.has("commit_group"):
        return "t->group++;"
    if m.has("wait_group"):
        return f"emu_copy_wait(t, {code.bits(o[0], 32)}, {code.site()});"
    if m.has("wait_all"):
        return f"t->group++; emu_copy_wait(t, 0, {code.site()});"
    cache = m.one("ca", "cg")
    if not cache or not m.one("shared", "shared::cta") or not m.has("global"):
        raise Unsupported("cp.async of this kind")
    drop_hints(code)
    size = int(code.bits(o[2], 32).removeprefix("(u32)").removesuffix("u"), 0)
    if size not in ((16,) if cache == "cg" else (4, 8, 16)):
        raise Unsupported(f"cp.async.{cache} of {size} bytes")
    code.module.touch("shared", size)
    code.module.touch("global", size)
    read = code.bits(o[3], 32) if len(o) > 3 else f"{size}"
    return f"emu_copy(t, {code.address(o[0], 32)}, {code.address(o[1], 64)}, {size}, {read}, {code.site()});"
