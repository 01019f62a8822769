"""The README's code runs as it stands: the Python blocks in order, the C block compiled with the commands below it."""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tilewright as tw
from tilewright.core import native

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    """The code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), flags=re.DOTALL | re.MULTILINE)


def backend_missing(name: str) -> str | None:
    """A reason to skip, or None."""
    return None if name in tw.backends() else f"no {name} backend here"


@pytest.fixture(scope="module")
def names() -> dict:
    """What the Python blocks define, all of them run in one namespace."""
    for backend in ("c", "numba"):
        if reason := backend_missing(backend):
            pytest.skip(reason)
    found: dict = {}
    for block in blocks("python"):
        exec(compile(block, str(README), "exec"), found)
    return found


def test_the_api_block_computes(names: dict) -> None:
    assert names["y"].shape == (64, 256) and (names["y"] >= 0).all()
    np.testing.assert_allclose(names["z"].sum(0), 1, rtol=1e-5)
    assert np.isfinite(names["loss"].numpy())


def test_a_kernel_runs_inside_njit(names: dict) -> None:
    expected = tw.gelu(names["x"][0], backend="numpy")
    np.testing.assert_allclose(names["out"], expected, rtol=1e-6, atol=0)


def test_a_c_function_runs_inside_njit(names: dict) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((5, 7), np.float32), rng.standard_normal((7, 3), np.float32)
    c = np.full((5, 3), np.nan, np.float32)
    names["product"](a, b, c)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(native.lib is None, reason="no C backend here")
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_the_c_program_compiles_and_runs(tmp_path: Path) -> None:
    (program,), (commands,) = blocks("c"), blocks("sh")
    (tmp_path / "product.c").write_text(program)
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    package = str(Path(tw.__file__).parents[1])
    done = subprocess.run(["sh", "-e", "-c", commands], cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | {"PATH": path, "PYTHONPATH": package})
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"19 22 43 50 on {native.isa()}\n"


def test_files_that_it_points_to_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target
