"""PTX instructions as functions for kernels; the only file that has any.

    v = ptx.ldg_f32x4(x + uint64(i) * uint64(16))      four float32 at an address of global memory, a tuple
    ptx.stg_f32x4(address, v[0], v[1], v[2], v[3])     index tuples by literals, or unpack them: never by a variable

Global addresses are uint64, addresses of shared memory uint32 (`smem_addr`). An access of n bytes wants an address that
is a multiple of n. A letter stands for a register: f float32, d float64, r uint32, i int32, l uint64, h uint16.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from .cuda import (
    Array,
    UniTuple,
    cgutils,
    float32,
    float64,
    inline,
    int32,
    intrinsic,
    none,
    uint16,
    uint32,
    uint64,
)

# letter: numba's type, LLVM's, the constraint of inline assembly
REGISTERS: dict[str, tuple[Any, Any, str]] = {
    "f": (float32, ir.FloatType(), "f"), "d": (float64, ir.DoubleType(), "d"), "r": (uint32, ir.IntType(32), "r"),
    "i": (int32, ir.IntType(32), "r"), "l": (uint64, ir.IntType(64), "l"), "h": (uint16, ir.IntType(16), "h"),
}


def instruction(text: str, outs: str, ins: str, *, pure: bool = False) -> Any:
    """A function of as many arguments as `ins` has letters, which gives nothing, a number, or a tuple of one type.

    `text` names operands as inline assembly does, results first: $0, $1 ... Unless `pure`, it is neither moved nor left
    out, and no access to memory moves past it.
    """
    if len(set(outs)) > 1:
        raise ValueError(f"{text}: results of several types, {outs}")
    result = none if not outs else REGISTERS[outs[0]][0]
    constraints = ["=" + REGISTERS[c][2] for c in outs] + [REGISTERS[c][2] for c in ins] + ["~{memory}"] * (not pure)
    many = [REGISTERS[c][1] for c in outs]
    llvm_result = ir.VoidType() if not many else many[0] if len(many) == 1 else ir.LiteralStructType(many)
    asm = ir.InlineAsm(ir.FunctionType(llvm_result, [REGISTERS[c][1] for c in ins]), text, ",".join(constraints),
                       side_effect=not pure)

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = builder.call(asm, args)
        if not many:
            return context.get_dummy_value()
        if len(many) == 1:
            return found
        return cgutils.pack_array(builder, [builder.extract_value(found, i) for i in range(len(many))])

    signature = (UniTuple(result, len(outs)) if len(outs) > 1 else result)(*(REGISTERS[c][0] for c in ins))
    return _with_arguments(len(ins), f"{text} {outs} {ins} {pure}", lambda: (signature, lower))


def _with_arguments(count: int, what: str, typed: Callable[[], Any]) -> Any:
    """An intrinsic of `count` arguments: numba counts those of the Python function."""
    names = ", ".join(["context", *(f"a{i}" for i in range(count))])
    scope: dict[str, Any] = {"typed": typed, "__name__": __name__}
    exec(f"def ptx({names}):\n    return typed()", scope)
    scope["ptx"].__qualname__ = what  # the cache of compiled kernels knows it by that
    return intrinsic(scope["ptx"])


def _operands(first: int, count: int) -> str:
    return f"${first}" if count == 1 else _vector(first, count)


def _vector(first: int, count: int) -> str:
    return "{" + ", ".join(f"${first + i}" for i in range(count)) + "}"


def _load(space: str, kind: str, letter: str, count: int) -> Any:
    vector = f".v{count}" if count > 1 else ""
    return instruction(f"ld.{space}{vector}.{kind} {_operands(0, count)}, [${count}];", letter * count,
                       "r" if space == "shared" else "l", pure=space == "global.nc")


def _store(space: str, kind: str, letter: str, count: int) -> Any:
    vector = f".v{count}" if count > 1 else ""
    return instruction(f"st.{space}{vector}.{kind} [$0], {_operands(1, count)};", "",
                       ("r" if space == "shared" else "l") + letter * count)


# ---- memory; _nc: through the read-only cache, for memory that nothing writes while the kernel runs

ldg_f32, ldg_f32x2, ldg_f32x4 = (_load("global", "f32", "f", n) for n in (1, 2, 4))
ldg_f64, ldg_f64x2 = (_load("global", "f64", "d", n) for n in (1, 2))
ldg_u32, ldg_u32x2, ldg_u32x4 = (_load("global", "b32", "r", n) for n in (1, 2, 4))
ldg_u64, ldg_u64x2 = (_load("global", "b64", "l", n) for n in (1, 2))
ldg_u16, ldg_u8, ldg_s8 = _load("global", "u16", "r", 1), _load("global", "u8", "r", 1), _load("global", "s8", "i", 1)
ldg_nc_f32, ldg_nc_f32x2, ldg_nc_f32x4 = (_load("global.nc", "f32", "f", n) for n in (1, 2, 4))
ldg_nc_f64, ldg_nc_f64x2 = (_load("global.nc", "f64", "d", n) for n in (1, 2))
ldg_nc_u32, ldg_nc_u32x2, ldg_nc_u32x4 = (_load("global.nc", "b32", "r", n) for n in (1, 2, 4))
ldg_nc_u64 = _load("global.nc", "b64", "l", 1)
ldg_nc_u16, ldg_nc_u8 = _load("global.nc", "u16", "r", 1), _load("global.nc", "u8", "r", 1)
ldg_nc_s8 = _load("global.nc", "s8", "i", 1)
stg_f32, stg_f32x2, stg_f32x4 = (_store("global", "f32", "f", n) for n in (1, 2, 4))
stg_f64, stg_f64x2 = (_store("global", "f64", "d", n) for n in (1, 2))
stg_u32, stg_u32x2, stg_u32x4 = (_store("global", "b32", "r", n) for n in (1, 2, 4))
stg_u64, stg_u64x2 = (_store("global", "b64", "l", n) for n in (1, 2))
stg_u16, stg_u8 = _store("global", "u16", "r", 1), _store("global", "u8", "r", 1)
lds_f32, lds_f32x2, lds_f32x4 = (_load("shared", "f32", "f", n) for n in (1, 2, 4))
lds_f64, lds_f64x2 = (_load("shared", "f64", "d", n) for n in (1, 2))
lds_u32, lds_u32x2, lds_u32x4 = (_load("shared", "b32", "r", n) for n in (1, 2, 4))
lds_u16, lds_u8 = _load("shared", "u16", "r", 1), _load("shared", "u8", "r", 1)
sts_f32, sts_f32x2, sts_f32x4 = (_store("shared", "f32", "f", n) for n in (1, 2, 4))
sts_f64, sts_f64x2 = (_store("shared", "f64", "d", n) for n in (1, 2))
sts_u32, sts_u32x2, sts_u32x4 = (_store("shared", "b32", "r", n) for n in (1, 2, 4))
sts_u16, sts_u8 = _store("shared", "u16", "r", 1), _store("shared", "u8", "r", 1)

atom_add_u32 = instruction("atom.global.add.u32 $0, [$1], $2;", "r", "lr")  # gives what was there before
atom_add_u64 = instruction("atom.global.add.u64 $0, [$1], $2;", "l", "ll")


@intrinsic
def smem_addr(context, array):
    """Address of a shared array's first element."""
    if not isinstance(array, Array):
        return None

    def lower(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        shared = builder.addrspacecast(data, ir.PointerType(ir.IntType(8), 3))
        return builder.ptrtoint(shared, ir.IntType(32))
    return uint32(array), lower


# ---- copies from global to shared memory that run on their own (sm_80 on); bytes beyond the last one given become 0

cp_async_16 = instruction("cp.async.cg.shared.global [$0], [$1], 16;", "", "rl")
cp_async_8 = instruction("cp.async.ca.shared.global [$0], [$1], 8;", "", "rl")
cp_async_4 = instruction("cp.async.ca.shared.global [$0], [$1], 4;", "", "rl")
cp_async_16_first = instruction("cp.async.cg.shared.global [$0], [$1], 16, $2;", "", "rlr")  # reads $2 of 16 bytes
cp_async_8_first = instruction("cp.async.ca.shared.global [$0], [$1], 8, $2;", "", "rlr")
cp_async_4_first = instruction("cp.async.ca.shared.global [$0], [$1], 4, $2;", "", "rlr")
cp_async_commit = instruction("cp.async.commit_group;", "", "")
# waits until at most that many groups, the latest ones, are under way
cp_async_wait_0, cp_async_wait_1, cp_async_wait_2, cp_async_wait_3 = (
    instruction(f"cp.async.wait_group {n};", "", "") for n in range(4))


# ---- tensor cores: d = a b + c on the tiles of a warp; row.col: a (m, k) by rows, b (k, n) by columns

def _mma(shape: str, kinds: str, a: int, b: int, c: int, letter: str) -> Any:
    """a, b, c: registers of each operand; kinds: those of d, a, b, c"""
    d_, a_, b_, c_ = _vector(0, c), _vector(c, a), _vector(c + a, b), _vector(c + a + b, c)
    return instruction(f"mma.sync.aligned.{shape}.row.col.{kinds} {d_}, {a_}, {b_}, {c_};", letter * c,
                       "r" * (a + b) + letter * c)


mma_bf16 = _mma("m16n8k16", "f32.bf16.bf16.f32", 4, 2, 4, "f")  # sm_80
mma_f16 = _mma("m16n8k16", "f32.f16.f16.f32", 4, 2, 4, "f")  # sm_80
mma_f16_k8 = _mma("m16n8k8", "f32.f16.f16.f32", 2, 1, 4, "f")  # sm_75
mma_tf32 = _mma("m16n8k8", "f32.tf32.tf32.f32", 4, 2, 4, "f")  # sm_80
_SIGNS = ("s8.s8", "u8.u8", "u8.s8", "s8.u8")  # a's type, then b's; sums wrap
mma_s8, mma_u8, mma_u8s8, mma_s8u8 = (_mma("m16n8k32", f"s32.{ab}.s32", 4, 2, 4, "i") for ab in _SIGNS)  # sm_80
mma_s8_k16, mma_u8_k16, mma_u8s8_k16, mma_s8u8_k16 = (  # sm_75
    _mma("m8n8k16", f"s32.{ab}.s32", 1, 1, 2, "i") for ab in _SIGNS)


def _ldmatrix(count: int, trans: str) -> Any:
    return instruction(f"ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {_operands(0, count)}, [${count}];",
                       "r" * count, "r")


ldmatrix_x2, ldmatrix_x4 = _ldmatrix(2, ""), _ldmatrix(4, "")  # lane i gives the address of row i
ldmatrix_x2_trans, ldmatrix_x4_trans = _ldmatrix(2, ".trans"), _ldmatrix(4, ".trans")

# four products of bytes and an int32, which wraps
dp4a_ss = instruction("dp4a.s32.s32 $0, $1, $2, $3;", "i", "rri", pure=True)
dp4a_uu = instruction("dp4a.u32.u32 $0, $1, $2, $3;", "r", "rrr", pure=True)
dp4a_us = instruction("dp4a.u32.s32 $0, $1, $2, $3;", "i", "rri", pure=True)
dp4a_su = instruction("dp4a.s32.u32 $0, $1, $2, $3;", "i", "rri", pure=True)

byte_perm = instruction("prmt.b32 $0, $1, $2, $3;", "r", "rrr", pure=True)  # byte i: number $3's digit i of $2 $1


# ---- numbers

tf32 = instruction("cvt.rna.tf32.f32 $0, $1;", "r", "f", pure=True)  # sm_80
f16x2_of = instruction("cvt.rn.f16x2.f32 $0, $2, $1;", "r", "ff", pure=True)  # sm_80; the first is the low half
bf16x2_of = instruction("cvt.rn.bf16x2.f32 $0, $2, $1;", "r", "ff", pure=True)  # sm_80
f32_bits = instruction("mov.b32 $0, $1;", "r", "f", pure=True)
bits_f32 = instruction("mov.b32 $0, $1;", "f", "r", pure=True)
f64_bits = instruction("mov.b64 $0, $1;", "l", "d", pure=True)
bits_f64 = instruction("mov.b64 $0, $1;", "d", "l", pure=True)
_f32_of_f16 = instruction("cvt.f32.f16 $0, $1;", "f", "h", pure=True)
_f16_of_f32 = instruction("cvt.rn.f16.f32 $0, $1;", "h", "f", pure=True)
# a product, a sum, a difference rounded by themselves: the compiler fuses x * y + z of Python into one rounding
mul_rn, add_rn, sub_rn = (instruction(f"{name}.rn.f32 $0, $1, $2;", "f", "ff", pure=True)
                          for name in ("mul", "add", "sub"))
mul_rn_f64, add_rn_f64, sub_rn_f64 = (instruction(f"{name}.rn.f64 $0, $1, $2;", "d", "dd", pure=True)
                                      for name in ("mul", "add", "sub"))
rcp_approx = instruction("rcp.approx.ftz.f32 $0, $1;", "f", "f", pure=True)  # within 1 ULP
div_rn = instruction("div.rn.f32 $0, $1, $2;", "f", "ff", pure=True)
rint_f32 = instruction("cvt.rni.f32.f32 $0, $1;", "f", "f", pure=True)  # halves to even


@inline
def f16_f32(h):
    """float32 of float16 bits in the low half of h"""
    return _f32_of_f16(uint16(h))


@inline
def f32_f16(x):
    """float16 bits of x, rounded to nearest, halves to even"""
    return uint32(_f16_of_f32(x))


@inline
def bf16_f32(h):
    """float32 of bfloat16 bits in the low half of h"""
    return bits_f32(uint32(h << uint32(16)))


@inline
def f32_bf16(x):
    """bfloat16 bits of x, rounded to nearest, halves to even, on every compute capability; NaN stays NaN"""
    bits = f32_bits(x)
    rounded = uint32(uint32(bits + uint32(0x7FFF)) + uint32(uint32(bits >> uint32(16)) & uint32(1)))
    return uint32((rounded if x == x else uint32(bits | uint32(0x400000))) >> uint32(16))
