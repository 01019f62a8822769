"""ldmatrix, movmatrix and mma.sync. Where their elements lie in the lanes is said in runtime/matrix.c."""
from __future__ import annotations

from ..code import Code, items
from ..errors import Unsupported
from ..syntax import Operand
from .table import instruction
from .warp import collective

Operands = tuple[Operand, ...]

# shape, type of D and C, type of A and B -> registers of A, B, C
FLOATS = {
    ("m16n8k16", "f32", "f16"): (4, 2, 4),
    ("m16n8k16", "f32", "bf16"): (4, 2, 4),
    ("m16n8k16", "f16", "f16"): (4, 2, 2),
    ("m16n8k8", "f32", "f16"): (2, 1, 4),
    ("m16n8k8", "f32", "bf16"): (2, 1, 4),
    ("m16n8k8", "f16", "f16"): (2, 1, 2),
    ("m16n8k8", "f32", "tf32"): (4, 2, 4),
    ("m16n8k4", "f32", "tf32"): (2, 1, 4),
}
BYTES = {"m16n8k16": (2, 1, 4), "m16n8k32": (4, 2, 4), "m8n8k16": (1, 1, 2)}


@instruction("ldmatrix")
def ldmatrix(code: Code, o: Operands) -> str:
    m = code.m
    if not (m.has("sync") and m.has("aligned") and m.has("m8n8")):
        raise Unsupported("ldmatrix of this shape")
    count, transposed = m.one("x1", "x2", "x4"), m.has("trans")
    if not m.one("shared", "shared::cta") or not m.has("b16") or len(items(o[0])) != int(count[1:]):
        raise Unsupported("ldmatrix of this kind")
    code.module.touch("shared", 16)
    c = collective(code, f"ldmatrix_{count}{'_trans' if transposed else ''}", "~0u", [code.address(o[1], 32)], True)
    return c + "".join(" " + code.assign(target, "b32", f"t->out[{i}]") for i, target in enumerate(items(o[0])))


@instruction("movmatrix")
def movmatrix(code: Code, o: Operands) -> str:
    if [code.m.next() for _ in range(5)] != ["sync", "aligned", "m8n8", "trans", "b16"]:
        raise Unsupported("movmatrix of this kind")
    return (collective(code, "movmatrix", "~0u", [code.bits(o[1], 32)], True) + " " +
            code.assign(o[0], "b32", "t->out[0]"))


@instruction("mma")
def mma(code: Code, o: Operands) -> str:
    m = code.m
    if not (m.has("sync") and m.has("aligned")):
        raise Unsupported("mma without .sync.aligned")
    shape = m.next()
    if (m.next(), m.next()) != ("row", "col"):
        raise Unsupported("mma of this layout")
    clamped = m.has("satfinite")
    d, a, b, c = (m.next() for _ in range(4))
    operands = [items(x) for x in o[1:4]]
    if d == c == "s32" and a in ("s8", "u8") and b in ("s8", "u8") and shape in BYTES:
        counts, op = BYTES[shape], f"mma_{shape}_s32"
        flags = [str((a == "s8") | (b == "s8") << 1 | clamped << 2)]
    elif d == c and a == b and (shape, d, a) in FLOATS and not clamped:
        counts, op, flags = FLOATS[shape, d, a], f"mma_{shape}_{d}_{a}", []
    else:
        raise Unsupported(f"mma.{shape}.{d}.{a}.{b}.{c}")
    if tuple(map(len, operands)) != counts or len(items(o[0])) != counts[2]:
        raise Unsupported(f"mma.{shape} with other numbers of registers than {counts}")
    inputs = [code.bits(x, 32) for group in operands for x in group]
    result = collective(code, op, "~0u", inputs + flags, True)
    type_ = "f32" if d == "f32" else "b32"
    return result + "".join(
        " " + code.assign(target, type_, f"float32(t->out[{i}])" if d == "f32" else f"t->out[{i}]")
        for i, target in enumerate(items(o[0])))


