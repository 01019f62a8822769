"""What PTX is made of: operands, statements, functions, variables."""
from __future__ import annotations

from dataclasses import dataclass, field

from .errors import Place

BYTES = {"pred": 1, "b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "f16": 2, "bf16": 2, "b32": 4, "u32": 4,
         "s32": 4, "f32": 4, "f16x2": 4, "bf16x2": 4, "b64": 8, "u64": 8, "s64": 8, "f64": 8}


# ---- operands ----

@dataclass(frozen=True, slots=True)
class Name:
    """A register, a variable, a label, a function or `_`."""
    text: str


@dataclass(frozen=True, slots=True)
class Number:
    text: str


@dataclass(frozen=True, slots=True)
class Not:
    operand: Operand


@dataclass(frozen=True, slots=True)
class Pair:
    """p|q"""
    first: Operand
    second: Operand


@dataclass(frozen=True, slots=True)
class Group:
    """{a, b} or (a, b)"""
    items: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Sum:
    """name+offset"""
    base: Operand
    offset: int


@dataclass(frozen=True, slots=True)
class Address:
    """[base+offset]"""
    base: Operand
    offset: int


Operand = Name | Number | Not | Pair | Group | Sum | Address


# ---- statements ----

@dataclass(frozen=True, slots=True)
class Instruction:
    line: int
    source: tuple[int, int] | None  # number of the file, line
    guard: str | None
    guard_negated: bool
    opcode: str
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Label:
    line: int
    name: str


@dataclass(frozen=True, slots=True)
class Scope:
    opens: bool


@dataclass(frozen=True, slots=True)
class Registers:
    type: str
    names: tuple[tuple[str, int | None], ...]  # with the count of name<count>


@dataclass(frozen=True, slots=True)
class Targets:
    """A table of labels for brx.idx."""
    name: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    line: int
    space: str
    type: str
    name: str
    count: int | None  # of elements; None for the array of unknown size that dynamic shared memory is
    align: int
    linkage: str
    values: tuple[str, ...]


Statement = Instruction | Label | Scope | Registers | Targets | Variable


@dataclass(slots=True)
class Function:
    line: int
    name: str
    is_entry: bool
    results: tuple[Variable, ...]
    parameters: tuple[Variable, ...]
    limits: dict[str, tuple[int, ...]]  # .maxntid and the like
    body: list[Statement] | None


@dataclass(slots=True)
class Program:
    functions: dict[str, Function] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
    files: dict[int, str] = field(default_factory=dict)

    def place(self, source: tuple[int, int] | None) -> Place | None:
        """The file and line that a .loc directive names."""
        if source is None or source[0] not in self.files:
            return None
        return self.files[source[0]], source[1]
