"""The C of one function while it is being written: registers, operands, assignments, addresses.

What an instruction means is said in instructions/; they call the methods of Code. A register that holds floats more
often than bits becomes a float of C, any other an unsigned integer, so that a kernel's hot loop need not move its
values between the two. To know which, a function is written twice: the first time only to count.
"""
from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from .errors import Unsupported
from .syntax import BYTES, Address, Group, Instruction, Name, Not, Number, Operand, Sum, Variable

BITS = {name: 8 * size for name, size in BYTES.items()} | {"tf32": 32, "s16x2": 32, "u16x2": 32, "f32x2": 64}
FLOATS = {"f16": (5, 10), "bf16": (8, 7), "f32": (8, 23), "f64": (11, 52), "tf32": (8, 10)}  # exponent, mantissa bits
HALVES = {"f16x2": "f16", "bf16x2": "bf16", "s16x2": "s16", "u16x2": "u16", "f32x2": "f32"}

MAX_SITES = 1 << 20  # memory.c keeps the number of an instruction in 20 bits
WIDER = ("ld", "ldu", "st", "cvt")  # instructions whose registers may be wider than their type

# registers that the hardware sets: C, width
SPECIAL = {
    **{f"%tid.{axis}": (f"t->position[{i}]", 32) for i, axis in enumerate("xyz")},
    **{f"%ntid.{axis}": (f"t->launch->block[{i}]", 32) for i, axis in enumerate("xyz")},
    **{f"%ctaid.{axis}": (f"t->launch->at[{i}]", 32) for i, axis in enumerate("xyz")},
    **{f"%nctaid.{axis}": (f"t->launch->grid[{i}]", 32) for i, axis in enumerate("xyz")},
    "%laneid": ("t->lane", 32),
    "%warpid": ("t->warp->id", 32),
    "%nwarpid": ("t->launch->n_warps", 32),
    "%lanemask_eq": ("(1u << t->lane)", 32),
    "%lanemask_lt": ("((1u << t->lane) - 1)", 32),
    "%lanemask_le": ("((2u << t->lane) - 1)", 32),
    "%lanemask_gt": ("~((2u << t->lane) - 1)", 32),
    "%lanemask_ge": ("~((1u << t->lane) - 1)", 32),
    "%dynamic_smem_size": ("(t->launch->shared_size - t->launch->shared_fixed)", 32),
    "%total_smem_size": ("t->launch->shared_size", 32),
    "%clock": ("(++t->clock)", 32),
    "%clock64": ("(u64)(++t->clock)", 64),
    "%globaltimer": ("(++t->launch->ticks)", 64),
    "WARP_SZ": ("32u", 32),
}


def kind_of(type_: str) -> str:
    """'u' or 's' of integers, 'b' of bits, 'f' of floats, 'p' of predicates."""
    return "p" if type_ == "pred" else "f" if type_ in FLOATS else type_[0]


def c_type(type_: str) -> str:
    """The C type in which values of a PTX type are computed: float for f16 and bf16."""
    if type_ == "pred":
        return "bool"
    if type_ in FLOATS:
        return "f64" if type_ == "f64" else "f32"
    return f"{'s' if type_[0] == 's' else 'u'}{BITS[type_]}"


@dataclass(slots=True)
class Register:
    c: str
    width: int  # 1: a predicate
    uses: int = 0
    float_uses: int = 0
    is_float: bool = False


class Modifiers:
    """The parts of an opcode after its name, taken one by one; what is left over is something not known."""

    def __init__(self, opcode: str) -> None:
        self.name, *self.left = opcode.split(".")

    def has(self, word: str) -> bool:
        if word in self.left:
            self.left.remove(word)
            return True
        return False

    def one(self, *words: str, default: str = "") -> str:
        """The first modifier that is one of these."""
        for word in self.left:
            if word in words:
                self.left.remove(word)
                return word
        return default

    def type(self) -> str:
        """The first modifier that is a type."""
        for word in self.left:
            if word in BITS:
                self.left.remove(word)
                return word
        raise Unsupported(f"{self.name} has no type that is known")

    def next(self) -> str:
        return self.left.pop(0) if self.left else ""


class Code:
    """The function being written, and the instruction at hand."""

    def __init__(self, module: ModuleNames, is_entry: bool) -> None:
        self.module = module
        self.is_entry = is_entry
        self.scopes: list[dict[str, Register]] = [{}]
        self.registers: list[Register] = []
        self.locals: dict[str, str] = {}          # local variables: C of their addresses
        self.parameters: list[dict[str, tuple[str, int]]] = [{}]  # .param variables: C of a pointer, size
        self.scope_ids = [0]
        self.scope_labels: dict[int, dict[str, str]] = {}  # the labels of each scope and their names in C
        self.labels: set[str] = set()             # written so far
        self.targets: dict[str, tuple[str, ...]] = {}
        self.uses_carry = False
        self.instruction: Instruction | None = None
        self.m = Modifiers("")
        self._site: int | None = None
        self._temporaries = 0

    # -- the instruction at hand --

    def begin(self, instruction: Instruction) -> None:
        self.instruction, self.m, self._site = instruction, Modifiers(instruction.opcode), None

    def site(self) -> int:
        """The number by which a fault names this instruction."""
        if self._site is None:
            assert self.instruction is not None
            self._site = self.module.site(self.instruction)
        return self._site

    def temporary(self) -> str:
        self._temporaries += 1
        return f"x{self._temporaries}"

    # -- registers --

    def declare(self, name: str, type_: str) -> None:
        width = 1 if type_ == "pred" else BITS.get(type_)
        if width is None:
            raise Unsupported(f"registers of type .{type_}")
        known = self.module.floats.get((self.module.function, len(self.registers)), False)
        register = Register(f"{re.sub(r'[^A-Za-z0-9_]', '_', name)}_{len(self.registers)}", width, is_float=known)
        self.registers.append(register)
        self.scopes[-1][name] = register

    def register(self, name: str) -> Register | None:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return None

    def find(self, operand: Operand) -> Register | None:
        return self.register(operand.text) if isinstance(operand, Name) else None

    def need(self, operand: Operand) -> Register:
        register = self.find(operand)
        if register is None:
            raise Unsupported(f"{show(operand)} is not a register")
        register.uses += 1
        return register

    def label(self, name: str) -> str:
        for scope in reversed(self.scope_ids):
            if name in self.scope_labels.get(scope, {}):
                return self.scope_labels[scope][name]
        raise Unsupported(f"there is no label {name}")

    # -- operands as C --

    def bits(self, operand: Operand, width: int) -> str:
        """An unsigned expression of an operand's bits."""
        register = self.find(operand)
        if register is not None:
            register.uses += 1
            too_wide = register.width > width and self.m.name not in WIDER
            if register.width == 1 or register.width < width or too_wide:
                raise Unsupported(f"{show(operand)} has {register.width} bits where {width} are read")
            c = f"bits{register.width}({register.c})" if register.is_float else register.c
            return c if register.width == width else f"(u{width}){c}"
        if isinstance(operand, Number):
            return self.number(operand.text, width)
        if isinstance(operand, Name) and operand.text in SPECIAL:
            c, own = SPECIAL[operand.text]
            return c if own == width else f"(u{width}){c}"
        if isinstance(operand, (Name, Sum)):
            return self.symbol(operand, width)
        raise Unsupported(f"{show(operand)} is no value of {width} bits")

    def number(self, text: str, width: int) -> str:
        sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
        if digits[:2] in ("0f", "0F"):
            value = int(digits[2:], 16) ^ (sign < 0) << 31
            if width == 64:
                raise Unsupported(f"{text} where 64 bits are read")
        elif digits[:2] in ("0d", "0D"):
            value = int(digits[2:], 16) ^ (sign < 0) << 63
            if width != 64:
                raise Unsupported(f"{text} where {width} bits are read")
        elif "." in digits:
            if width < 32:
                raise Unsupported(f"{text} where {width} bits are read")
            value = int.from_bytes(struct.pack(">d" if width == 64 else ">f", sign * float(digits)), "big")
        else:
            value = sign * int(digits.rstrip("U"), 0)
        return f"(u{width})0x{value & (1 << width) - 1:x}{'ull' if width == 64 else 'u'}"

    def symbol(self, operand: Name | Sum, width: int) -> str:
        """The address of a variable: its offset in shared memory, or where the host has it."""
        base = operand.base if isinstance(operand, Sum) else operand
        offset = operand.offset if isinstance(operand, Sum) else 0
        if not isinstance(base, Name):
            raise Unsupported(f"cannot read {show(operand)}")
        if base.text in self.locals:
            return f"({self.locals[base.text]} + {offset})"
        if base.text in self.module.shared:
            return f"(u{width})({self.module.shared[base.text]} + {offset})"
        if base.text in self.module.globals:
            if width != 64:
                raise Unsupported(f"the address of {base.text} in {width} bits")
            return f"(u64)(t->launch->globals + {self.module.globals[base.text] + offset})"
        found = self.parameter(base.text)
        if found is not None and self.is_entry and width == 64 and len(self.parameters) == 1:
            return f"(u64)({found[0]} + {offset})"
        raise Unsupported(f"{base.text} is not declared")

    def value(self, operand: Operand, type_: str) -> str:
        """An expression of an operand as a value of a PTX type."""
        if type_ == "pred":
            return self.predicate(operand)
        width, kind = BITS[type_], kind_of(type_)
        register = self.find(operand)
        if register is not None and type_ in ("f32", "f64") and register.width == width:
            register.uses += 1
            register.float_uses += 1
            return register.c if register.is_float else f"float{width}({register.c})"
        c = self.bits(operand, width)
        if type_ in ("f32", "f64"):
            return f"float{width}({c})"
        if type_ in ("f16", "bf16"):
            return f"from_{type_}({c})"
        return f"(s{width})({c})" if kind == "s" else c

    def predicate(self, operand: Operand) -> str:
        if isinstance(operand, Not):
            return f"!{self.predicate(operand.operand)}"
        if isinstance(operand, Number):
            return str(int(int(operand.text, 0) != 0))
        register = self.need(operand)
        if register.width != 1:
            raise Unsupported(f"{show(operand)} is not a predicate")
        return register.c

    def halves(self, operand: Operand, type_: str) -> tuple[str, str]:
        """The two values of a packed operand, the low one first."""
        part, width = HALVES[type_], BITS[type_] // 2
        c = self.bits(operand, 2 * width)
        parts = [f"(u{width})({c})", f"(u{width})(({c}) >> {width})"]
        if part == "f32":
            return f"float32({parts[0]})", f"float32({parts[1]})"
        if part in FLOATS:
            return f"from_{part}({parts[0]})", f"from_{part}({parts[1]})"
        return (f"({part}){parts[0]}", f"({part}){parts[1]}")

    # -- assignments --

    def assign(self, target: Operand, type_: str, c: str) -> str:
        """Gives a register the value of an expression of a PTX type."""
        if isinstance(target, Name) and target.text == "_":
            return f"(void)({c});"
        register = self.need(target)
        if type_ == "pred":
            if register.width != 1:
                raise Unsupported(f"{show(target)} is not a predicate")
            return f"{register.c} = {c};"
        width = BITS[type_]
        if register.width < width:
            raise Unsupported(f"{show(target)} has {register.width} bits, too few for .{type_}")
        if type_ in ("f32", "f64") and register.width == width:
            register.float_uses += 1
            return f"{register.c} = {c};" if register.is_float else f"{register.c} = bits{width}({c});"
        if type_ in FLOATS and type_ != "tf32":
            c = f"bits{width}({c})" if type_ in ("f32", "f64") else f"to_{type_}({c})"
        elif type_[0] == "s":
            c = f"(u{register.width})(s{register.width})(s{width})({c})"
        elif register.width > width:
            c = f"(u{width})({c})"
        return f"{register.c} = {f'float{register.width}({c})' if register.is_float else c};"

    def assign_halves(self, target: Operand, type_: str, low: str, high: str) -> str:
        part, width = HALVES[type_], BITS[type_] // 2
        pack = {"f32": "bits32", "f16": "to_f16", "bf16": "to_bf16"}.get(part, f"(u{width})")
        return self.assign(target, f"b{2 * width}",
                           f"(u{2 * width}){pack}({low}) | (u{2 * width}){pack}({high}) << {width}")

    def copy(self, target: Operand, source: Operand, width: int) -> str:
        """Moves bits, as a float where both registers are floats."""
        a, b = self.find(target), self.find(source)
        if a is not None and b is not None and a.is_float and b.is_float and a.width == b.width:
            return f"{a.c} = {b.c};"
        return self.assign(target, f"b{width}", self.bits(source, width))

    # -- memory --

    def address(self, operand: Operand, width: int) -> str:
        """The address that [base+offset] names, in `width` bits."""
        if not isinstance(operand, Address):
            raise Unsupported(f"{show(operand)} is not an address")
        register = self.find(operand.base)
        if register is None:
            if isinstance(operand.base, Number):
                return self.number(str(int(operand.base.text, 0) + operand.offset), width)
            if not isinstance(operand.base, Name):
                raise Unsupported(f"{show(operand)} is not an address")
            return self.symbol(Sum(operand.base, operand.offset), width)
        c = self.bits(operand.base, register.width)
        if register.width != width:
            c = f"(u{width}){c}"
        if not operand.offset:
            return c
        return f"(u{width})({c} {'-' if operand.offset < 0 else '+'} {abs(operand.offset)}u)"

    def parameter(self, name: str) -> tuple[str, int] | None:
        for scope in reversed(self.parameters):
            if name in scope:
                return scope[name]
        return None

    def parameter_place(self, operand: Operand, size: int) -> str | None:
        """A pointer to a place in a .param variable, None where a register holds the address."""
        if not isinstance(operand, Address):
            raise Unsupported(f"{show(operand)} is not an address")
        found = self.parameter(operand.base.text) if isinstance(operand.base, Name) else None
        if found is None:
            return None
        pointer, room = found
        if operand.offset < 0 or operand.offset + size > room:
            raise Unsupported(f"{show(operand)} lies outside of its parameter of {room} bytes")
        return f"({pointer} + {operand.offset})"

    def load(self, target: Operand, type_: str, pointer: str, offset: int) -> str:
        """Gives a register what lies at a pointer of the host."""
        width = BITS[type_]
        register = self.find(target)
        at = f"{pointer} + {offset}" if offset else pointer
        if register is not None and type_ in ("f32", "f64"):
            register.float_uses += 1
        if register is not None and register.is_float and register.width == width:
            register.uses += 1
            return f"{register.c} = getf{width}({at});"
        return self.assign(target, type_ if type_[0] == "s" else f"b{width}", f"get{width}({at})")

    def store(self, source: Operand, type_: str, pointer: str, offset: int) -> str:
        width = BITS[type_]
        register = self.find(source)
        at = f"{pointer} + {offset}" if offset else pointer
        if register is not None and type_ in ("f32", "f64"):
            register.float_uses += 1
        if register is not None and register.is_float and register.width == width:
            register.uses += 1
            return f"putf{width}({at}, {register.c});"
        return f"put{width}({at}, {self.bits(source, width)});"


class ModuleNames:
    """What the functions of a module share while they are written."""

    def __init__(self) -> None:
        self.sites: list[Instruction] = []
        self.shared: dict[str, str] = {}   # offsets in shared memory, as C
        self.globals: dict[str, int] = {}  # offsets in the module's own global and constant memory
        self.functions: dict[str, str] = {}
        self.signatures: dict[str, tuple[tuple[Variable, ...], tuple[Variable, ...]]] = {}
        self.floats: dict[tuple[str, int], bool] = {}  # which registers become floats of C
        self.function = ""
        self.unit = {"shared": 16, "global": 16}  # bytes of the smallest access

    def site(self, instruction: Instruction) -> int:
        if len(self.sites) == MAX_SITES:
            raise Unsupported(f"more than {MAX_SITES} instructions that can fail")
        self.sites.append(instruction)
        return len(self.sites) - 1

    def touch(self, space: str, size: int) -> None:
        """Notes the size of an access."""
        for name in ("shared", "global") if space == "generic" else (space,):
            if name in self.unit:
                self.unit[name] = min(self.unit[name], size)


def items(operand: Operand) -> tuple[Operand, ...]:
    """The members of a vector, or the operand alone."""
    return operand.items if isinstance(operand, Group) else (operand,)


def show(operand: Operand) -> str:
    """An operand as PTX writes it."""
    if isinstance(operand, (Name, Number)):
        return operand.text
    if isinstance(operand, Not):
        return f"!{show(operand.operand)}"
    if isinstance(operand, Group):
        return "{" + ", ".join(map(show, operand.items)) + "}"
    if isinstance(operand, (Sum, Address)):
        return f"[{show(operand.base)}{operand.offset:+d}]"
    return f"{show(operand.first)}|{show(operand.second)}"


Handler = Callable[[Code, tuple[Operand, ...]], str]
