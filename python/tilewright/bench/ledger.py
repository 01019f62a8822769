"""What sweeps have found so far, on disk: an interrupted one goes on, and the table of docs/ACCURACY.md is made of it.

    {"format": 1, "made_of": "5d0f…", "swept": {"gelu": {"inputs": 4294967296, "ulp": 2.9, …}}, "sampled": {…}}

One file for each backend and instruction set, in the folder of `tilewright tune`'s. `made_of` names the code that was
measured: what was found about another build, or is damaged, is forgotten.
"""
from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from ..core import native, tuning
from .sweep import INPUTS, Tally, functions

FORMAT = 1  # of the file
BACKENDS = ("c", "numba")  # of the table


def code_of(backend: str) -> str:
    """A digest of the code that computes: the C library, or the Python sources of the other backends."""
    here = Path(__file__).resolve().parents[1]
    rooms = ("activation", "vector")
    files: Iterable[Path] = sorted(p for room in rooms for p in (here / "kernels" / room).glob("*.py"))
    if backend == "c":
        files = [Path(native.get_library())]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def path(backend: str, isa: str) -> Path:
    """The file of a backend and an instruction set.

    >>> path("c", "avx2").name
    'accuracy-c-avx2.json'
    """
    return tuning.path(isa).with_name(f"accuracy-{backend}-{isa}.json")


class Ledger:
    """What was swept (in part, where `inputs` says so) and what was sampled, of the code that is here now."""

    def __init__(self, backend: str, isa: str, empty: bool = False):
        self.backend, self.file = backend, path(backend, isa)
        self.swept: dict[str, Tally] = {}
        self.sampled: dict[str, Tally] = {}
        try:
            found = json.loads(self.file.read_bytes())
            if (found["format"], found["made_of"]) == (FORMAT, code_of(backend)) and not empty:
                self.swept, self.sampled = ({name: Tally(**t) for name, t in found[kind].items()}
                                            for kind in ("swept", "sampled"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # none there, or damaged

    def keep(self, name: str, tally: Tally, sampled: bool = False) -> None:
        """Write it down; whoever is killed meanwhile leaves the old file or the new one."""
        (self.sampled if sampled else self.swept)[name] = tally
        self.file.parent.mkdir(parents=True, exist_ok=True)
        draft = self.file.with_suffix(f".{os.getpid()}")
        found = {kind: {name: asdict(t) for name, t in some.items()}
                 for kind, some in (("swept", self.swept), ("sampled", self.sampled))}
        draft.write_text(json.dumps({"format": FORMAT, "made_of": code_of(self.backend), **found}))
        os.replace(draft, self.file)

    def get(self, name: str) -> Tally | None:
        """The sweep of all numbers where there is one, else the sample."""
        swept = self.swept.get(name)
        return swept if swept is not None and swept.inputs == INPUTS else self.sampled.get(name)


def cell(found: Tally | None) -> str:
    """An error and its input; what was not over all numbers says so.

    >>> cell(Tally(INPUTS, 1.5, -0.25)), cell(Tally(10**6, 0.5, 2.0)), cell(None)
    ('1.50 at -0.25', '0.50 at 2 (of 1e6)', '-')
    """
    if found is None:
        return "-"
    text = f"{found.ulp:.2f} at {found.at:.9g}" if found.ulp else "exact"
    text += f", {found.wrong} wrong" if found.wrong else ""
    return text if found.inputs == INPUTS else f"{text} (of {found.inputs:.0e})".replace("e+0", "e")


def markdown(isas: Iterable[str]) -> str:
    """The table of everything found: a row for each function, a column for each backend and instruction set."""
    columns = {f"{b}, {isa}": Ledger(b, isa) for b in BACKENDS for isa in isas}
    columns = {heading: found for heading, found in columns.items() if found.swept or found.sampled}
    lines = ["| ULP |" + "".join(f" {heading} |" for heading in columns), "|---|" + "---|" * len(columns)]
    return "\n".join([*lines, *(f"| {name} | " + " | ".join(cell(found.get(name)) for found in columns.values()) + " |"
                                for name in functions())])
