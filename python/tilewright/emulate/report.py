"""What a launch found and counted, in Python's terms and in words."""
from __future__ import annotations

from dataclasses import dataclass, field

from .errors import Index, Place

# in the order of the WHY_ constants of runtime/emulate.h
(PLAIN, READ, WRITE, READ_ONLY, WRITE_WRITE, READ_WRITE, WRITE_READ, EXITED, DIFFERENT, NOT_NAMED, LANES, SOURCE_LANE,
 IN_FLIGHT, NEVER_WAITED, SOURCE_CHANGED, DIVISION, SPINNING, UNFILLED, COUNTS, CACHED, BRANCH) = range(21)
SPACES = ("", "shared", "global", "local")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong that did not end the launch: a race, where races are reported and not raised."""
    kind: str
    message: str
    count: int
    ptx_line: int
    source: Place | None
    other_ptx_line: int
    other_source: Place | None
    block: Index
    threads: tuple[Index, Index]

    def __str__(self) -> str:
        place = "" if self.source is None else f", {self.source[0]}:{self.source[1]}"
        return f"{self.kind}: {self.message} [PTX line {self.ptx_line}{place}; {self.count} times]"


@dataclass(frozen=True, slots=True)
class Accesses:
    """How an instruction moves memory, over all warps that executed it.

    requests   times that a warp executed it
    moved      mean of what a request takes: wavefronts of shared memory, sectors of 32 bytes of global memory
    ideal      mean of the least that its bytes could take
    """
    space: str
    opcode: str
    ptx_line: int
    source: Place | None
    requests: int
    moved: float
    ideal: float

    @property
    def factor(self) -> float:
        """How many times the least it takes: 1.0 is free of bank conflicts, or has full sectors."""
        return self.moved / self.ideal


@dataclass(frozen=True, slots=True)
class Report:
    """What a launch did. The last three are filled in where it was traced."""
    kernel: str
    grid: Index
    block: Index
    seed: int
    barriers: int
    collectives: int
    findings: tuple[Finding, ...]
    instructions: dict[str, int] = field(default_factory=dict)  # executed by all threads, by opcode
    shared: tuple[Accesses, ...] = ()
    global_: tuple[Accesses, ...] = ()

    @property
    def races(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.kind == "race")


def thread_index(thread: int, block: Index) -> Index:
    return thread % block[0], thread // block[0] % block[1], thread // block[0] // block[1]


def in_words(why: int, space: int, address: int, size: int, other: str, where: str) -> str:
    """A fault's message. `other` names the other thread of a race, `where` what lies at a global address."""
    place = f"{SPACES[space]} memory"
    at = f"byte {address}" if SPACES[space] == "shared" else f"address {address:#x}"
    lanes = f"lanes {address:#x} must take part"
    return {
        PLAIN: "",
        READ: f"a load of {size} bytes from {place} at {at}{where}",
        WRITE: f"a store of {size} bytes to {place} at {at}{where}",
        READ_ONLY: f"a store of {size} bytes to memory that was given as read-only, at {at}{where}",
        WRITE_WRITE: f"two writes of {place} at {at}{where} in no order: this one, and {other}",
        READ_WRITE: f"a write of {place} at {at}{where} in no order with a read by {other}",
        WRITE_READ: f"a read of {place} at {at}{where} in no order with a write by {other}",
        EXITED: f"{other} ended before this barrier, for which it is counted",
        DIFFERENT: f"threads that should meet wait at different places: this one, and {other}",
        NOT_NAMED: f"the thread is not among the lanes {address:#x} of the instruction's mask",
        LANES: f"{lanes}, and only lanes {size:#x} came",
        SOURCE_LANE: f"reads from lane {address}, which takes no part (lanes {size:#x} do)",
        IN_FLIGHT: f"an access to {place} at {at} while a cp.async to it is in flight, issued by {other}",
        NEVER_WAITED: "the thread ends with a cp.async that it never waited for",
        SOURCE_CHANGED: f"the source of a cp.async at {at}{where} changed before it was waited for",
        DIVISION: "a division of integers by zero",
        SPINNING: f"a loop that waits for what no thread will do: {address} jumps backward, and none stores or ends",
        UNFILLED: f"barrier {address} waits for {size} threads, which never come",
        COUNTS: f"barrier {address} with {size} threads: no multiple of 32, or not the count of the others",
        CACHED: f"a read through the read-only cache (.nc) of what this launch has written, at {at}{where}",
        BRANCH: "a jump beyond the end of its table",
    }[why]
