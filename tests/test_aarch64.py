"""The C library built for aarch64 by a cross compiler and run by qemu: the NEON kernels, without such a machine."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CC, QEMU, SYSROOT = "aarch64-linux-gnu-gcc", "qemu-aarch64", Path("/usr/aarch64-linux-gnu")
BUILDER = ROOT / "csrc" / "build_c.py"


Run = Callable[..., str]


@pytest.fixture(scope="module")
def self_check(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """self_check.c, built for aarch64: a function that runs it on a processor and gives what it printed."""
    missing = [tool for tool in (CC, QEMU) if shutil.which(tool) is None]
    missing += [str(p) for p in (SYSROOT, BUILDER) if not p.exists()]
    if missing:
        reason = f"no {', '.join(missing)}: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("aarch64")
    library = folder / "libtilewright.so"
    subprocess.run([sys.executable, str(BUILDER), "--cc", CC, "--out", str(library)], check=True)
    program, source = folder / "self_check", ROOT / "tests" / "c" / "self_check.c"
    subprocess.run([CC, "-std=c11", "-O1", "-I", str(ROOT / "csrc"), str(source), str(library), "-lm",
                    "-o", str(program)], check=True)

    def run(cpu: str, *arguments: str) -> str:
        done = subprocess.run([QEMU, "-cpu", cpu, "-L", str(SYSROOT), "-E", f"LD_LIBRARY_PATH={folder}", str(program),
                               *arguments], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
    return run


def test_self_check_on_aarch64(self_check: Run) -> None:
    assert "isa neon, complaints 0" in self_check("max")


@pytest.mark.parametrize(("cpu", "isa"),
                         [("max", "neon_i8mm"), ("neoverse-n1", "neon_dotprod"), ("cortex-a72", "neon")])
def test_integer_products(cpu: str, isa: str, self_check: Run) -> None:
    """With usdot, with sdot alone, and with neither."""
    assert f"int8 isa {isa}, complaints 0" in self_check(cpu, "integers")
