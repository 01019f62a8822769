"""The C library built for aarch64 by a cross compiler and run by qemu: the NEON kernels, without such a machine."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CC, QEMU, SYSROOT = "aarch64-linux-gnu-gcc", "qemu-aarch64", Path("/usr/aarch64-linux-gnu")
BUILDER = ROOT / "csrc" / "build_c.py"


def test_self_check_on_aarch64(tmp_path: Path) -> None:
    missing = [tool for tool in (CC, QEMU) if shutil.which(tool) is None]
    missing += [str(p) for p in (SYSROOT, BUILDER) if not p.exists()]
    if missing:
        reason = f"no {', '.join(missing)}: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    library = tmp_path / "libtilewright.so"
    subprocess.run([sys.executable, str(BUILDER), "--cc", CC, "--out", str(library)], check=True)
    program, source = tmp_path / "self_check", ROOT / "tests" / "c" / "self_check.c"
    subprocess.run([CC, "-std=c11", "-O1", "-I", str(ROOT / "csrc"), str(source), str(library), "-lm",
                    "-o", str(program)], check=True)
    done = subprocess.run([QEMU, "-L", str(SYSROOT), "-E", f"LD_LIBRARY_PATH={tmp_path}", str(program)],
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "isa neon, complaints 0" in done.stdout
