"""The emulator's runtime on other processors, and with fibres that switch by other means."""
from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conformance import has_compiler
from tilewright import emulate
from tilewright.emulate import build, errors, report
from tilewright.emulate.module import CLaunch

CHECK = Path(__file__).resolve().parent / "c" / "emulate_check.c"
SYSROOT = Path("/usr/aarch64-linux-gnu")

pytestmark = pytest.mark.skipif(not has_compiler(), reason="the emulator needs a C compiler")


@pytest.mark.parametrize("flags", [[], ["-DEMU_UCONTEXT"]], ids=["assembly", "ucontext"])
@pytest.mark.parametrize("machine", ["host", "aarch64"])
def test_runtime(machine: str, flags: list[str], tmp_path: Path) -> None:
    cc, run = list(build.compiler()), []
    if machine == "aarch64":
        cc, run = ["aarch64-linux-gnu-gcc"], ["qemu-aarch64", "-L", str(SYSROOT)]
        missing = [tool for tool in (cc[0], run[0]) if shutil.which(tool) is None]
        missing += [] if SYSROOT.exists() else [str(SYSROOT)]
        if missing:
            reason = f"no {', '.join(missing)}: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
    program = tmp_path / "check"
    sources = [str(CHECK), *map(str, sorted(build.RUNTIME.glob("*.c")))]
    strict = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-frounding-math",
              "-fno-builtin-fma"]
    subprocess.run([*cc, *strict, *flags, "-I", str(build.RUNTIME), *sources, "-o", str(program), "-lm"], check=True)
    done = subprocess.run([*run, str(program)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "complaints 0" in done.stdout, done.stdout + done.stderr


def test_both_languages_agree(tmp_path: Path) -> None:
    """Constants and structures are written down in C and in Python."""
    header = (build.RUNTIME / "emulate.h").read_text()
    kinds = re.findall(r"\bFAULT_(\w+)", re.search(r"enum \{\s*FAULT_NONE[^}]*\}", header).group())
    assert [kind.lower().replace("_", "-") for kind in kinds] == list(errors.KINDS)
    reasons = re.findall(r"\bWHY_(\w+)", re.search(r"enum \{\s*WHY_PLAIN[^}]*\}", header).group())
    assert [getattr(report, name) for name in reasons] == list(range(len(reasons)))
    emulate.Module(".visible .entry k() { ret; }", cache=tmp_path)
    _, runtime = build.runtime(tmp_path)
    assert runtime.emu_launch_head() == ctypes.sizeof(CLaunch)
