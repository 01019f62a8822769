"""A parsed module into C: one function for each function of PTX, and what a launch must know about each kernel."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .code import BITS, Code, ModuleNames, Register
from .errors import Unsupported
from .instructions import translate
from .syntax import (
    BYTES,
    Address,
    Function,
    Group,
    Instruction,
    Label,
    Name,
    Not,
    Operand,
    Pair,
    Program,
    Registers,
    Scope,
    Statement,
    Sum,
    Targets,
    Variable,
)

RECURSIVE_STACK, RECURSIVE_LOCAL = 1 << 20, 1 << 16  # bytes a thread gets where functions call themselves


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    type: str
    size: int
    offset: int


@dataclass(slots=True)
class Kernel:
    """What a launch must know."""
    name: str
    symbol: str
    parameters: tuple[Parameter, ...]
    params_size: int
    shared: int
    local: int
    stack: int
    limits: dict[str, tuple[int, ...]]


@dataclass(slots=True)
class Translation:
    source: str
    kernels: dict[str, Kernel]
    sites: list[Instruction]
    blocks: list[tuple[str, ...]]                 # the opcodes of each basic block
    units: tuple[int, int]                        # log2 of the smallest access to shared and to global memory
    globals: bytes
    globals_map: bytes
    relocations: list[tuple[int, int]]            # where in the globals the address of another place in them stands
    program: Program = field(repr=False)


def size_of(variable: Variable) -> int:
    if variable.count is None:
        raise Unsupported(f"{variable.name} has no size", variable.line)
    return BYTES[variable.type] * variable.count


def aligned(offset: int, to: int) -> int:
    return -(-offset // to) * to


def names(operand: Operand) -> Iterator[str]:
    """All names in an operand."""
    if isinstance(operand, Name):
        yield operand.text
    elif isinstance(operand, (Sum, Address)):
        yield from names(operand.base)
    elif isinstance(operand, Not):
        yield from names(operand.operand)
    elif isinstance(operand, Group):
        for item in operand.items:
            yield from names(item)
    elif isinstance(operand, Pair):
        yield from names(operand.first)
        yield from names(operand.second)


def names_in(function: Function) -> set[str]:
    return {name for s in function.body or () if isinstance(s, Instruction) for o in s.operands for name in names(o)}


class Translator:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.module = ModuleNames()
        self.defined = {name: f for name, f in program.functions.items() if f.body is not None}
        self.uses = {name: names_in(f) for name, f in self.defined.items()}
        self.blocks: list[tuple[str, ...]] = []
        self.frames: dict[str, tuple[int, int]] = {}  # bytes of stack and of local memory of each function
        for i, (name, f) in enumerate(self.defined.items()):
            if not f.is_entry:
                self.module.functions[name] = f"function_{i}"
                self.module.signatures[name] = (f.results, f.parameters)

    # -- variables --

    def variables(self, *spaces: str) -> list[Variable]:
        inside = [s for f in self.defined.values() for s in f.body or () if isinstance(s, Variable)]
        found: dict[str, Variable] = {}
        for v in (*self.program.variables, *inside):
            if v.space in spaces:
                known = found.setdefault(v.name, v)
                if known is not v and known.count is not None:  # dynamic shared memory is declared wherever it is used
                    raise Unsupported(f"two variables of the name {v.name}", v.line)
        return list(found.values())

    def lay_out_shared(self, function: Function) -> int:
        """Gives shared variables their places as this function sees them; the bytes that a kernel needs.

        What any .func uses comes first and lies where it does in every kernel; then what the kernel alone uses.
        """
        common = set().union(*(self.uses[name] for name in self.module.functions))
        self.module.shared = {}
        offset, dynamic, dynamic_align = 0, [], 16
        for own in (False, True):
            for v in self.variables("shared"):
                if v.count is None:
                    if not own:
                        dynamic.append(v.name)
                        dynamic_align = max(dynamic_align, v.align)
                elif (v.name not in common) == own and v.name in (self.uses[function.name] if own else common):
                    offset = aligned(offset, v.align)
                    self.module.shared[v.name] = str(offset)
                    offset += size_of(v)
        if dynamic:
            offset = aligned(offset, dynamic_align)
            self.module.shared |= dict.fromkeys(dynamic, "t->launch->shared_fixed")
        return offset

    def lay_out_globals(self) -> tuple[bytes, bytes, list[tuple[int, int]]]:
        """The contents of .global and .const variables, what each byte allows, and the addresses among them."""
        image, allowed = bytearray(), bytearray()
        relocations = []
        found = [v for v in self.variables("global", "const") if v.linkage != "extern" and v.count is not None]
        for v in found:
            offset = aligned(len(image), max(v.align, 16))
            self.module.globals[v.name] = offset
            for part in (image, allowed):
                part.extend(bytes(offset + size_of(v) - len(part)))
            allowed[offset:] = bytes([5 if v.space == "const" else 7]) * size_of(v)  # MAY_READ, MAY_WRITE, HAS_VALUE
        for v in found:
            at, width = self.module.globals[v.name], BITS[v.type]
            for text in [x for x in v.values if x not in ("generic", "(", ")")]:
                if text in self.module.globals:
                    relocations.append((at, self.module.globals[text]))
                else:
                    code = Code(self.module, False)
                    constant = code.number(text, width).partition("0x")[2].rstrip("ul")
                    image[at:at + width // 8] = int(constant, 16).to_bytes(width // 8, "little")
                at += width // 8
        return bytes(image), bytes(allowed), relocations

    # -- functions --

    def statements(self, code: Code, function: Function) -> Iterator[str]:
        """The C of a body, statement by statement."""
        body = function.body or []
        code.scope_labels = scope_labels(body)
        next_scope = 0
        block: list[str] = []

        def close_block() -> str:
            self.blocks.append(tuple(block))
            block.clear()
            return f"COUNT({len(self.blocks)});"
        yield f"COUNT({len(self.blocks)});"
        for s in body:
            if isinstance(s, Scope):
                if s.opens:
                    next_scope += 1
                    code.scopes.append({})
                    code.parameters.append({})
                    code.scope_ids.append(next_scope)
                    yield "{"
                else:
                    for stack in (code.scopes, code.parameters, code.scope_ids):
                        stack.pop()
                    yield ";}"
            elif isinstance(s, Label):
                c = code.label(s.name)
                code.labels.add(c)
                yield f"{c}:; {close_block()}"
            elif isinstance(s, Registers):
                for name, count in s.names:
                    for one in [name] if count is None else [f"{name}{i}" for i in range(count)]:
                        code.declare(one, s.type)
            elif isinstance(s, Targets):
                code.targets[s.name] = s.labels
            elif isinstance(s, Variable):
                if s.space == "param":
                    c = f"p_{len(code.parameters)}_{len(code.parameters[-1])}"
                    code.parameters[-1][s.name] = c, size_of(s)
                    yield f"u8 {c}[{size_of(s)}] __attribute__((aligned(16)));"
            else:
                block.append(s.opcode)
                yield self.instruction(code, s)
                if s.opcode.split(".")[0] in ("bra", "brx", "ret", "exit", "call"):
                    yield close_block()
        self.blocks.append(tuple(block))

    def instruction(self, code: Code, s: Instruction) -> str:
        try:
            c = translate(code, s)
            if s.guard is None:
                return f"{{ {c} }}"
            sign = "!" if s.guard_negated else ""
            return f"if ({sign}{code.predicate(Name(s.guard))}) {{ {c} }}"
        except Unsupported as error:
            raise Unsupported(error.message, s.line, self.program.place(s.source)) from None

    def write(self, function: Function, header: str) -> str:
        self.module.function = function.name
        self.lay_out_shared(function)
        code = Code(self.module, function.is_entry)
        local = 0
        lines: list[str] = []
        if function.is_entry:
            for p in parameters_of(function):
                code.parameters[0][p.name] = f"(t->params + {p.offset})", p.size
        else:
            for i, v in enumerate((*function.results, *function.parameters)):
                code.parameters[0][v.name] = f"a{i}", size_of(v)
            code.begin(Instruction(function.line, None, None, False, function.name, ()))
            lines.append(f"if ((char *)__builtin_frame_address(0) < t->stack_limit) "
                         f"emu_fail(t, FAULT_STACK, WHY_PLAIN, {code.site()});")
        for s in function.body or ():
            if isinstance(s, Variable) and s.space == "local":
                local = aligned(local, s.align)
                code.locals[s.name] = f"(frame + {local})"
                local += size_of(s)
        if local:
            code.begin(Instruction(function.line, None, None, False, function.name, ()))
            lines.append(f"const u32 top = t->local_top; const u64 frame = emu_frame(t, {local}, {code.site()});")
        body = list(self.statements(code, function))
        declared = [declaration(r) for r in code.registers if r.uses]
        if code.uses_carry:
            declared.append("u32 carry = 0;")
        for i, r in enumerate(code.registers):
            self.module.floats[function.name, i] = r.float_uses * 2 > r.uses and r.width in (32, 64)
        self.frames[function.name] = 512 + 24 * len(declared) + 16 * len(body), aligned(local, 64)
        end = "leave:" + (" t->local_top = top;" if local else "") + " return;"
        return "\n".join([f"{header} {{", *declared, *lines, *body, end, "}", ""])

    def deepest(self, name: str, seen: tuple[str, ...] = ()) -> tuple[int, int]:
        """Stack and local memory that a function and all that it calls can need."""
        if name in seen:
            return RECURSIVE_STACK, RECURSIVE_LOCAL
        called = [self.deepest(n, (*seen, name)) for n in self.uses[name] if n in self.module.functions]
        stack, local = self.frames[name]
        return (min(RECURSIVE_STACK, stack + max((s for s, _ in called), default=0)),
                min(RECURSIVE_LOCAL, local + max((n for _, n in called), default=0)))

    def translate(self) -> Translation:
        image, allowed, relocations = self.lay_out_globals()
        headers = {}
        for i, (name, f) in enumerate(self.defined.items()):
            arguments = "".join(f", u8 *a{k}" for k in range(len(f.results) + len(f.parameters)))
            headers[name] = (f"void kernel_{i}(Thread *t)" if f.is_entry else
                             f"static void function_{i}(Thread *t{arguments})")
        for name, f in self.defined.items():  # to see which registers hold floats
            self.write(f, headers[name])
        self.module.sites.clear()
        self.blocks.clear()
        parts = ['#include "emulate.h"', "#if EMU_TRACE", "#define COUNT(block) (t->launch->counts[block]++)", "#else",
                 "#define COUNT(block) ((void)0)", "#endif", *(f"{h};" for h in headers.values())]
        parts.extend(self.write(f, headers[name]) for name, f in self.defined.items())
        kernels = {}
        for i, (name, f) in enumerate(self.defined.items()):
            if f.is_entry:
                parameters = parameters_of(f)
                stack, local = self.deepest(name)
                kernels[name] = Kernel(name, f"kernel_{i}", parameters,
                                       max((p.offset + p.size for p in parameters), default=0), self.lay_out_shared(f),
                                       local, aligned(2 * (stack + 16384), 4096), f.limits)
        units = tuple((self.module.unit[space]).bit_length() - 1 for space in ("shared", "global"))
        return Translation("\n".join(parts), kernels, list(self.module.sites), list(self.blocks), (units[0], units[1]),
                           image, allowed, relocations, self.program)


def declaration(r: Register) -> str:
    if r.is_float:
        return f"f{r.width} {r.c} = 0;"
    return f"bool {r.c} = 0;" if r.width == 1 else f"u{r.width} {r.c} = 0;"


def scope_labels(body: list[Statement]) -> dict[int, dict[str, str]]:
    """The labels of each scope, scopes numbered as they open."""
    found: dict[int, dict[str, str]] = {}
    stack, scopes = [0], 0
    for s in body:
        if isinstance(s, Scope):
            if s.opens:
                scopes += 1
                stack.append(scopes)
            else:
                stack.pop()
        elif isinstance(s, Label):
            found.setdefault(stack[-1], {})[s.name] = f"L{stack[-1]}_{len(found.get(stack[-1], {}))}"
    return found


def parameters_of(function: Function) -> tuple[Parameter, ...]:
    offset, found = 0, []
    for v in function.parameters:
        offset = aligned(offset, v.align)
        found.append(Parameter(v.name, v.type, size_of(v), offset))
        offset += size_of(v)
    return tuple(found)


def translate_module(program: Program) -> Translation:
    """The C of a module; Unsupported names the first thing that is not known."""
    return Translator(program).translate()
