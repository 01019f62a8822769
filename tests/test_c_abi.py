"""The public C interface as a C programmer meets it: a header, a shared library, no Python."""
from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tilewright.core import native

SELF_CHECK = Path(__file__).parent / "c" / "self_check.c"
CC = shutil.which(os.environ.get("CC", "cc").split()[0])

pytestmark = pytest.mark.skipif(native.lib is None or CC is None,
                                reason="the C backend is not here, or no C compiler is")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """self_check.c, compiled and linked as the documentation says."""
    out = tmp_path_factory.mktemp("c_abi") / "self_check"
    library = Path(native.get_library())
    subprocess.run([CC, "-std=c11", "-Wall", "-Wextra", "-Werror", "-I", native.get_include(), str(SELF_CHECK),
                    str(library), f"-Wl,-rpath,{library.parent}", "-lm", "-o", str(out)], check=True)
    return out


@pytest.mark.parametrize("isa", native.int8_isas())
def test_plain_c_program(program: Path, isa: str) -> None:
    env = {**os.environ, "TILEWRIGHT_ISA": isa}
    done = subprocess.run([program], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"isa {isa.partition('_')[0]}, complaints 0" in done.stdout
    assert "tw_cblas_sgemm: lda is less than A's rows are long; nothing was computed" in done.stderr


def test_library_needs_no_python() -> None:
    needed = subprocess.run(["ldd", native.get_library()], check=True, capture_output=True, text=True).stdout
    assert "libpython" not in needed


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm (binutils) is not here")
def test_library_exports_the_header_and_nothing_else() -> None:
    nm = subprocess.run(["nm", "-D", "--defined-only", native.get_library()], check=True, capture_output=True,
                        text=True)
    exported = {line.split()[-1] for line in nm.stdout.splitlines()}
    header = (Path(native.get_include()) / "tilewright.h").read_text()
    assert {name for name in exported if f"{name}(" not in header} == set()
    assert {"tw_gemm", "tw_cblas_sgemm", "tw_cblas_dgemm", "tw_set_num_threads"} <= exported


def test_header_is_cplusplus(tmp_path: Path) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    source = tmp_path / "user.cpp"
    source.write_text('#include "tilewright.h"\nint main() { return tw_get_num_threads() < 1; }\n')
    subprocess.run([compiler, "-Wall", "-Werror", "-I", native.get_include(), str(source), native.get_library(),
                    f"-Wl,-rpath,{Path(native.get_library()).parent}", "-o", str(tmp_path / "user")], check=True)
    subprocess.run([tmp_path / "user"], check=True)
