"""No kernel reads or writes beyond the ends of its arrays: it would die at a page that may not be touched."""
from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

import conformance
from tilewright.core import capability, native

PLACES = [("c", isa) for isa in native.isas()] + [("numba", "")] * (capability.reasons()["numba"] is None)


@pytest.mark.skipif(platform.system() != "Linux", reason="protects pages with Linux's mprotect")
@pytest.mark.parametrize(("row", "isa"), PLACES)
def test_nothing_beyond_the_ends_is_touched(row: str, isa: str, child_env: dict[str, str]) -> None:
    command = [sys.executable, str(Path(conformance.__file__).with_name("fences.py")), row]
    child = subprocess.run(command, env=child_env | {"TILEWRIGHT_ISA": isa}, capture_output=True, text=True)
    assert child.returncode == 0, f"at {child.stdout.splitlines()[-1]}: {child.stderr[-2000:]}"


def test_the_fences_work(child_env: dict[str, str]) -> None:
    """One element further is fatal, on either side."""
    code = """
import ctypes, sys, numpy as np
from fences import fenced
x = fenced(np.arange(5.0), behind={behind})
print(x.sum(), flush=True)
ctypes.string_at(x.ctypes.data + ({offset}), 1)
"""
    env = child_env | {"PYTHONPATH": child_env["PYTHONPATH"] + ":" + str(Path(conformance.__file__).parent)}
    for behind, offset in ((True, 40), (False, -1)):
        command = [sys.executable, "-c", code.format(behind=behind, offset=offset)]
        child = subprocess.run(command, env=env, capture_output=True, text=True)
        assert child.stdout == "10.0\n", child.stderr
        assert child.returncode < 0
