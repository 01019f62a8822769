"""The table of instructions: a handler takes the modifiers it knows and gives C; a modifier left over is not known."""
from __future__ import annotations

from collections.abc import Callable

from ..code import Code, Handler
from ..errors import Unsupported
from ..syntax import Instruction

TABLE: dict[str, Handler] = {}


def instruction(*names: str) -> Callable[[Handler], Handler]:
    """Registers a handler; `names` are opcodes up to the first dot."""
    def register(handler: Handler) -> Handler:
        for name in names:
            if name in TABLE:
                raise ValueError(f"two handlers for {name}")
            TABLE[name] = handler
        return handler
    return register


def translate(code: Code, i: Instruction) -> str:
    """The C of an instruction without its guard; Unsupported where any part of it is unknown."""
    code.begin(i)
    handler = TABLE.get(code.m.name)
    if handler is None:
        raise Unsupported(f"the instruction {i.opcode}")
    try:
        c = handler(code, i.operands)
    except (IndexError, ValueError) as error:
        raise Unsupported(f"the operands of {i.opcode}: {error}") from error
    if code.m.left:
        raise Unsupported(f"the modifier .{code.m.left[0]} of {i.opcode}")
    return c
