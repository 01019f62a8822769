"""The C compiler, and the folder in which what it made is kept under the hash of what it was made from."""
from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

from .errors import Fault

RUNTIME = Path(__file__).resolve().parent / "runtime"
FLAGS = ["-std=gnu11", "-fPIC", "-shared", "-w", "-ffp-contract=off", "-fno-strict-aliasing", "-fwrapv"]


class CompilerMissing(Fault):
    """There is no C compiler; the emulator cannot run anything."""

    def __init__(self, message: str) -> None:
        super().__init__("compiler", message)


@cache
def compiler() -> tuple[str, ...]:
    """The command of the first C compiler found: $CC, the one Python was built with, or a usual name."""
    for command in (os.environ.get("CC", ""), sysconfig.get_config_var("CC") or "", "cc", "gcc", "clang"):
        words = shlex.split(command)
        if words and shutil.which(words[0]):
            return tuple(words) if command == os.environ.get("CC") else (words[0],)
    raise CompilerMissing("the emulator needs a C compiler, and there is none: install gcc, or name one in CC")


def default_cache() -> Path:
    """Where compiled kernels are kept: TILEWRIGHT_CACHE_DIR or the user's cache folder."""
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("TILEWRIGHT_CACHE_DIR") or os.path.join(user, "tilewright")) / "emulate"


def compile_library(folder: Path, key: list[str], sources: dict[str, str], arguments: list[str],
                    libraries: list[str]) -> Path:
    """A shared library in the cache, made if it is not there. `sources` are written where the compiler runs.

    It is written under another name and renamed, so that no process ever sees half of it.
    """
    command = [*compiler(), *FLAGS, *arguments]
    digest = hashlib.sha256("\0".join([*command, *key, *sources.values()]).encode()).hexdigest()[:32]
    target = folder / f"emu-{digest}.so"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        for name, text in sources.items():
            (Path(work) / name).write_text(text)
        made = Path(work) / "made.so"
        result = subprocess.run([*command, "-o", str(made), f"-Wl,-soname,{target.name}", *sources, *libraries, "-lm"],
                                cwd=work, capture_output=True, text=True)
        if result.returncode:
            raise Fault("compiler", f"{shlex.join(command)} failed:\n{result.stderr[:4000]}")
        os.replace(made, target)
    return target


def runtime(folder: Path) -> tuple[Path, ctypes.CDLL]:
    """The runtime, compiled once for all modules."""
    sources = {path.name: path.read_text() for path in sorted(RUNTIME.glob("*.[ch]"))}
    c_files = {name: text for name, text in sources.items() if name.endswith(".c")}
    path = compile_library(folder, list(sources.values()), c_files,
                           ["-O2", "-fno-builtin-fma", "-frounding-math", f"-I{RUNTIME}"], [])
    return path, ctypes.CDLL(str(path))


def module(folder: Path, source: str, trace: bool) -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """The runtime and the library of a translated module.

    -O1: -O0 takes as long to compile what is inline and runs three times slower, -O2 compiles more slowly for nothing.
    """
    path, library = runtime(folder)
    headers = [(RUNTIME / name).read_text() for name in ("emulate.h", "numeric.h")]
    made = compile_library(folder, [*headers, path.name], {"module.c": source},
                           ["-O1", f"-DEMU_TRACE={int(trace)}", f"-DEMU_FMA={library.emu_has_fma()}", f"-I{RUNTIME}"],
                           [str(path), "-Wl,-rpath,$ORIGIN"])
    return library, ctypes.CDLL(str(made))
