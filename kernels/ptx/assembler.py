"""What ptxas makes of a kernel, on a machine that needs neither a driver nor a device.

ptxas and nvdisasm come from the packages nvidia-cuda-nvcc and nvidia-cuda-nvdisasm, or from PATH. Results are kept on
disk beside the PTX, by its content and the assembler's version; code is taken apart only when somebody asks for it.
"""
from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path

from tilewright.core.errors import BackendUnavailable

from . import sass
from .cache import cached

PACKAGES = {"ptxas": "nvidia-cuda-nvcc", "nvdisasm": "nvidia-cuda-nvdisasm"}
FIGURES = {"stack": r"(\d+) bytes stack frame", "spills": r"(\d+) bytes spill stores",
           "reloads": r"(\d+) bytes spill loads", "registers": r"Used (\d+) registers", "shared": r"(\d+) bytes smem"}


@cache
def tool(name: str) -> Path | None:
    """Where ptxas or nvdisasm is: the package's first, which is of the compiler's version."""
    try:
        for file in metadata.files(PACKAGES[name]) or ():
            if file.name == name and (path := Path(str(file.locate()))).exists():
                return path
    except metadata.PackageNotFoundError:
        pass
    found = shutil.which(name)
    return Path(found) if found else None


def missing() -> str | None:
    """What has to be installed before kernels can be assembled, and how; None: nothing."""
    gone = [name for name in PACKAGES if tool(name) is None]
    if not gone:
        return None
    return (f"{' and '.join(gone)} not found: pip install {' '.join(PACKAGES[name] for name in gone)}, "
            "or put the CUDA toolkit's bin folder on PATH")


@dataclass(frozen=True)
class Assembled:
    """A kernel for one compute capability. Sizes are bytes; spills: stored and loaded again, of a thread."""

    name: str
    ptx: str
    cc: tuple[int, int]
    registers: int
    stack: int
    spills: int
    shared: int

    @cached_property
    def code(self) -> sass.Code:
        """Its machine code, taken apart now."""
        return sass.read(cached(f"{self.name}-sm_{self.cc[0]}{self.cc[1]}", (self.ptx, self.cc, version("nvdisasm")),
                                lambda: _disassembled(self.ptx, self.cc), "sass"))


def assemble(name: str, ptx: str, cc: tuple[int, int]) -> Assembled:
    """ptxas's report on a kernel's PTX; raises BackendUnavailable without ptxas, RuntimeError where it fails."""
    text = cached(f"{name}-sm_{cc[0]}{cc[1]}", (ptx, cc, version("ptxas")), lambda: _assembled(ptx, cc, None), "ptxas")
    found = {key: int(m[1]) if (m := re.search(pattern, text)) else 0 for key, pattern in FIGURES.items()}
    if not found["registers"]:
        raise RuntimeError(f"ptxas says nothing of the registers of {name}: {text}")
    return Assembled(name, ptx, cc, found["registers"], found["stack"], found["spills"] + found["reloads"],
                     found["shared"])


@cache
def version(name: str) -> str:
    """What a tool says of itself."""
    return _output([_needed(name), "--version"])


def _assembled(ptx: str, cc: tuple[int, int], to: Path | None) -> str:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        return _output([_needed("ptxas"), f"-arch=sm_{cc[0]}{cc[1]}", "-v", str(source), "-o",
                        str(to or Path(folder) / "kernel.cubin")])


def _disassembled(ptx: str, cc: tuple[int, int]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        _assembled(ptx, cc, cubin)
        return _output([_needed("nvdisasm"), "-c", str(cubin)])


def _needed(name: str) -> str:
    if (path := tool(name)) is None:
        raise BackendUnavailable(str(missing()))
    return str(path)


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} fails: {done.stderr.strip()[:500]}")
    return done.stdout + done.stderr
