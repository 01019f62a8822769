"""What the assembler made of a kernel: its machine code as nvdisasm prints it, counted.

The hot loop is, of the loops with no other inside, the one that is most densely multiply-adds and has no small part of
them (an epilogue unrolled over all results may have more, thinly); loops with matrix instructions go before others. A
loop is what lies between a label and a branch back to it: a block that the assembler moved away is not in it.
"""
from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

LINE = re.compile(r"^(?P<label>\.L_x_\d+):|"
                  r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(?P<opcode>[A-Z][\w.]*)(?P<rest>.*?);?\s*$", re.MULTILINE)
ACCESS = re.compile(r"(LDG|STG|LD|ST|LDS|STS|LDGSTS|LDSM)\b(.*)")
WIDTHS = {".U8": 8, ".S8": 8, ".U16": 16, ".S16": 16, ".64": 64, ".128": 128, ".256": 256}
DOUBLE = re.compile(r"D(ADD|MUL|FMA|SETP|MNMX|MMA)\b|\w+.*\.(F64|RCP64H|RSQ64H)\b|MUFU\.(RCP|RSQ)64H")
MATRIX = re.compile(r"(H|I|D|Q|B|O)MMA\b")
MATH = re.compile(r"(FFMA2?|DFMA|HFMA2|IDP)\b|(H|I|D|Q|B|O)MMA\b")
MATRICES = {"884": 8 * 8 * 4, "1684": 16 * 8 * 4, "1688": 16 * 8 * 8, "16816": 16 * 8 * 16, "16832": 16 * 8 * 32}
WARP = 32
NO_SMALL_PART = 1 / 8  # of the multiply-adds of the loop that has most
LOCAL = re.compile(r"(LDL|STL)\b")
BARRIER = re.compile(r"(BAR|WARPSYNC)\b")


@dataclass(frozen=True, slots=True)
class Loop:
    """The instructions of one loop, without those that do nothing."""

    opcodes: tuple[str, ...]

    @property
    def ffma(self) -> float:
        """The part of them that are multiply-adds of float32."""
        return sum(o.partition(".")[0] in ("FFMA", "FFMA2") for o in self.opcodes) / len(self.opcodes)

    @property
    def matrix(self) -> int:
        """Matrix instructions among them."""
        return sum(bool(MATRIX.match(o)) for o in self.opcodes)

    @property
    def math(self) -> int:
        """Multiply-adds and matrix instructions among them."""
        return sum(bool(MATH.match(o)) for o in self.opcodes)

    @property
    def products(self) -> int:
        """Products that a warp makes and adds in one turn: of each thread, and of matrices."""
        return sum(_products(o) for o in self.opcodes)

    @property
    def loads(self) -> Counter[tuple[str, int]]:
        """How many loads there are of each kind and width in bits, as ("LDS", 128)."""
        return Counter({key: n for key, n in _accesses(self.opcodes).items() if key[0].startswith("LD")})


@dataclass(frozen=True, slots=True)
class Code:
    """A kernel's instructions."""

    opcodes: tuple[str, ...]
    hot: Loop | None  # None: no loop has arithmetic

    @property
    def accesses(self) -> Counter[tuple[str, int]]:
        """How many accesses there are of each kind and width in bits, as ("STG", 128)."""
        return _accesses(self.opcodes)

    def count(self, what: re.Pattern[str]) -> int:
        """How many opcodes a pattern matches: DOUBLE, LOCAL, BARRIER, MATRIX."""
        return sum(bool(what.match(o)) for o in self.opcodes)


def read(text: str) -> Code:
    """The output of `nvdisasm -c` for one kernel."""
    opcodes: list[str] = []
    labels: dict[str, int] = {}
    jumps: list[tuple[int, str]] = []
    for match in LINE.finditer(text):
        if match["label"]:
            labels[match["label"]] = len(opcodes)
            continue
        if match["opcode"].startswith("BRA") and (target := re.search(r"`\((\.L_x_\d+)\)", match["rest"])):
            jumps.append((len(opcodes), target[1]))
        opcodes.append(match["opcode"])
    spans = {(labels[to], at) for at, to in jumps if to in labels and labels[to] < at}
    inner = [s for s in spans if not any(s != o and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    loops = [Loop(tuple(o for o in opcodes[a:b + 1] if o != "NOP")) for a, b in inner]
    return Code(tuple(o for o in opcodes if o != "NOP"), _hot(loops))


def _products(opcode: str) -> int:
    """HMMA.16816 multiplies 16 x 16 by 16 x 8; IDP.4A adds four products, FFMA2 and HFMA2 make two, in 32 threads."""
    name, *parts = opcode.split(".")
    if shape := next((MATRICES[part] for part in parts if part in MATRICES), 0) if MATRIX.match(opcode) else 0:
        return shape
    return WARP * {"FFMA": 1, "DFMA": 1, "FFMA2": 2, "HFMA2": 2, "IDP": 2 if "2A" in parts else 4}.get(name, 0)


def _hot(loops: list[Loop]) -> Loop | None:
    chosen = [loop for loop in loops if loop.matrix] or [loop for loop in loops if loop.math]
    most = max((loop.math for loop in chosen), default=0)
    return max((loop for loop in chosen if loop.math >= NO_SMALL_PART * most),
               key=lambda loop: loop.math / len(loop.opcodes), default=None)


def _accesses(opcodes: tuple[str, ...]) -> Counter[tuple[str, int]]:
    found: Counter[tuple[str, int]] = Counter()
    for opcode in opcodes:
        if match := ACCESS.match(opcode):
            if match[1] == "LDSM":  # ldmatrix: rows of 128 bits
                found["LDSM", 128] += 1
                continue
            found[match[1], max((w for part, w in WIDTHS.items() if part + "." in match[2] + "."), default=32)] += 1
    return found
