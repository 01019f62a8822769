"""PTX text into functions, variables and instructions: syntax only, no instruction is known here."""
from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import Unsupported
from .syntax import (
    BYTES,
    Address,
    Function,
    Group,
    Instruction,
    Label,
    Name,
    Not,
    Number,
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

TOKENS = re.compile(r"""
    (?P<space>[ \t\r\n]+ | //[^\n]* | /\*.*?\*/)
  | (?P<word>[%$_.A-Za-z][\w$.]*(?:::[\w.]+)*)
  | (?P<number>0[fF][0-9a-fA-F]{8} | 0[dD][0-9a-fA-F]{16} | 0[xX][0-9a-fA-F]+U? | 0[bB][01]+U?
             | \d+\.\d*(?:[eE][+-]?\d+)? | \d+U?)
  | (?P<string>"[^"\n]*")
  | (?P<mark>[@!,;:{}()\[\]<>|=+\-])
""", re.VERBOSE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    line: int


LINKAGE = (".visible", ".extern", ".weak", ".common")
SPACES = (".global", ".shared", ".const", ".local", ".param")


class Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[Token] = []
        self.at = 0
        self.program = Program()
        self.source: tuple[int, int] | None = None
        position, line = 0, 1
        while position < len(text):
            match = TOKENS.match(text, position)
            if match is None:
                raise Unsupported(f"cannot read {text[position:position + 20]!r} as PTX", line)
            kind = match.lastgroup or ""
            if kind != "space":
                self.tokens.append(Token(kind, match.group(), line))
            line += text.count("\n", position, match.end())
            position = match.end()
        self.end = Token("end", "", line)

    # -- tokens --

    def peek(self, ahead: int = 0) -> Token:
        index = self.at + ahead
        return self.tokens[index] if index < len(self.tokens) else self.end

    def next(self) -> Token:
        token = self.peek()
        self.at += 1
        return token

    def accept(self, text: str) -> bool:
        if self.peek().text == text:
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> Token:
        token = self.next()
        if token.text != text:
            raise Unsupported(f"expected {text!r} and found {token.text!r}", token.line)
        return token

    def integer(self) -> int:
        sign = -1 if self.accept("-") else 1
        token = self.next()
        try:
            return sign * int(token.text.rstrip("U"), 0)
        except ValueError:
            raise Unsupported(f"expected an integer and found {token.text!r}", token.line) from None

    def rest_of_line(self) -> list[Token]:
        line, found = self.peek(-1).line, []
        while self.peek().kind != "end" and self.peek().line == line:
            found.append(self.next())
        return found

    def skip_braces(self) -> None:
        depth = 0
        while True:
            token = self.next()
            if token.kind == "end":
                raise Unsupported("a section that does not end", token.line)
            depth += {"{": 1, "}": -1}.get(token.text, 0)
            if depth == 0 and token.text == "}":
                return

    # -- the module --

    def parse(self) -> Program:
        while self.peek().kind != "end":
            token = self.peek()
            if token.text in (".version", ".target", ".address_size"):
                self.next()
                words = self.rest_of_line()
                if token.text == ".address_size" and [w.text for w in words] != ["64"]:
                    raise Unsupported("addresses that are not of 64 bits", token.line)
            elif token.text == ".file":
                self.next()
                number = self.integer()
                self.program.files[number] = self.next().text.strip('"')
                self.rest_of_line()
            elif token.text == ".section":
                self.skip_braces()
            elif token.text == ".pragma":
                while not self.accept(";"):
                    self.next()
            else:
                self.declaration()
        return self.program

    def declaration(self) -> None:
        linkage = ""
        while self.peek().text in LINKAGE:
            linkage = self.next().text[1:]
        token = self.peek()
        if token.text in (".entry", ".func"):
            self.function()
        elif token.text in SPACES:
            self.program.variables.extend(self.variables(linkage))
        else:
            raise Unsupported(f"unknown directive {token.text!r}", token.line)

    def function(self) -> None:
        token = self.next()
        results: tuple[Variable, ...] = ()
        if self.peek().text == "(":
            results = self.parameters()
        name = self.next().text
        parameters = self.parameters() if self.peek().text == "(" else ()
        limits: dict[str, tuple[int, ...]] = {}
        while self.peek().text not in ("{", ";"):
            directive = self.next()
            if not directive.text.startswith("."):
                raise Unsupported(f"expected a body and found {directive.text!r}", directive.line)
            numbers = []
            while self.peek().kind == "number":
                numbers.append(self.integer())
                self.accept(",")
            limits[directive.text[1:]] = tuple(numbers)
        body = None if self.accept(";") else self.body()
        known = self.program.functions.get(name)
        if known is None or known.body is None:
            self.program.functions[name] = Function(token.line, name, token.text == ".entry", results, parameters,
                                                    limits, body)

    def parameters(self) -> tuple[Variable, ...]:
        self.expect("(")
        found: list[Variable] = []
        while not self.accept(")"):
            if self.peek().text != ".param":
                raise Unsupported(f"parameters in {self.peek().text}", self.peek().line)
            found.append(self.variable(self.next().text[1:], ""))
            self.accept(",")
        return tuple(found)

    def variables(self, linkage: str) -> list[Variable]:
        space = self.next().text[1:]
        found = [self.variable(space, linkage)]
        while self.accept(","):
            found.append(Variable(found[0].line, space, found[0].type, self.next().text, 1, found[0].align, linkage,
                                  ()))
        self.expect(";")
        return found

    def variable(self, space: str, linkage: str) -> Variable:
        align, kind, line = 0, "", self.peek().line
        while self.peek().text.startswith("."):
            word = self.next()
            if word.text == ".align":
                align = self.integer()
            elif word.text == ".ptr":  # of what is pointed to: its space and alignment
                while self.peek().text in SPACES or self.peek().text == ".align":
                    if self.next().text == ".align":
                        self.integer()
            elif word.text[1:] in BYTES and not kind:
                kind = word.text[1:]
            elif word.text in (".attribute", ".managed"):
                raise Unsupported(f"variables with {word.text}", word.line)
            else:
                raise Unsupported(f"variables of type {word.text}", word.line)
        name = self.next().text
        if not kind:
            raise Unsupported(f"{name} has no type", line)
        count: int | None = 1
        while self.accept("["):
            size = None if self.peek().text == "]" else self.integer()
            count = None if size is None or count is None else count * size
            self.expect("]")
        values: list[str] = []
        if self.accept("="):
            depth = 0
            while depth or self.peek().text not in (";", ","):
                token = self.next()
                depth += {"{": 1, "}": -1, "(": 1, ")": -1}.get(token.text, 0)
                if token.kind == "end":
                    raise Unsupported(f"the values of {name} do not end", line)
                if token.text not in ("{", "}", ","):
                    values.append(token.text)
        return Variable(line, space, kind, name, count, max(align, BYTES[kind]), linkage, tuple(values))

    # -- bodies --

    def body(self) -> list[Statement]:
        self.expect("{")
        self.source = None
        statements: list[Statement] = []
        depth = 1
        while True:
            token = self.peek()
            if token.kind == "end":
                raise Unsupported("a body that does not end", token.line)
            if token.text in ("{", "}"):
                self.next()
                depth += 1 if token.text == "{" else -1
                if not depth:
                    return statements
                statements.append(Scope(token.text == "{"))
            elif token.text == ";":
                self.next()
            elif token.kind == "word" and self.peek(1).text == ":":
                self.at += 2
                if self.peek().text == ".branchtargets":
                    self.next()
                    labels = [self.next().text]
                    while self.accept(","):
                        labels.append(self.next().text)
                    self.expect(";")
                    statements.append(Targets(token.text, tuple(labels)))
                else:
                    statements.append(Label(token.line, token.text))
            elif token.text.startswith("."):
                statements.extend(self.directive())
            else:
                statements.append(self.instruction())

    def directive(self) -> list[Statement]:
        token = self.peek()
        if token.text == ".loc":
            self.next()
            words = self.rest_of_line()
            self.source = int(words[0].text), int(words[1].text)
            return []
        if token.text == ".pragma":
            while not self.accept(";"):
                self.next()
            return []
        if token.text == ".reg":
            self.next()
            kind = self.next().text[1:]
            names: list[tuple[str, int | None]] = []
            while True:
                name, count = self.next().text, None
                if self.accept("<"):
                    count = self.integer()
                    self.expect(">")
                names.append((name, count))
                if not self.accept(","):
                    break
            self.expect(";")
            return [Registers(kind, tuple(names))]
        linkage = ""
        while self.peek().text in LINKAGE:
            linkage = self.next().text[1:]
        if self.peek().text in SPACES:
            return list(self.variables(linkage))
        raise Unsupported(f"unknown directive {token.text!r}", token.line)

    def instruction(self) -> Instruction:
        line = self.peek().line
        guard, negated = None, False
        if self.accept("@"):
            negated = self.accept("!")
            guard = self.next().text
        opcode = self.next()
        if opcode.kind != "word":
            raise Unsupported(f"expected an instruction and found {opcode.text!r}", line)
        operands: list[Operand] = []
        while not self.accept(";"):
            if self.peek().kind == "end":
                raise Unsupported(f"{opcode.text} does not end", line)
            if operands:
                self.expect(",")
            operands.append(self.operand())
        return Instruction(line, self.source, guard, negated, opcode.text, tuple(operands))

    def operand(self) -> Operand:
        token = self.peek()
        if self.accept("!"):
            return Not(self.operand())
        if self.accept("["):
            base = self.operand()
            address = Address(base.base, base.offset) if isinstance(base, Sum) else Address(base, 0)
            self.expect("]")
            return address
        if token.text in ("{", "("):
            self.next()
            close = "}" if token.text == "{" else ")"
            items: list[Operand] = []
            while not self.accept(close):
                if items:
                    self.expect(",")
                items.append(self.operand())
            return Group(tuple(items))
        if self.accept("-"):
            return Number("-" + self.next().text)
        self.next()
        if token.kind == "number":
            return Number(token.text)
        if token.kind != "word":
            raise Unsupported(f"cannot read {token.text!r} as an operand", token.line)
        name = Name(token.text)
        if self.accept("|"):
            return Pair(name, self.operand())
        if self.peek().text in ("+", "-"):
            sign = -1 if self.next().text == "-" else 1
            return Sum(name, sign * self.integer())
        return name


def parse(text: str) -> Program:
    """The functions and variables of a PTX module."""
    return Parser(text).parse()
