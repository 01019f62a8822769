"""docs/ADDING_A_KERNEL.md to the letter: its Python files conform, its C files compile for every instruction set."""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import conformance
import tilewright as tw
from tilewright.core import native

ROOT = Path(__file__).resolve().parents[1]
DOC = (ROOT / "docs/ADDING_A_KERNEL.md").read_text()
BLOCKS = re.DOTALL | re.MULTILINE
FILES = dict(re.findall(r"^`((?:kernels|csrc)/[^`]+)`\n\n```(?:python|c)\n(.*?)^```$", DOC, BLOCKS))
PUBLIC_CALL, = re.findall(r"^```python\n(def square.*?)^```$", DOC, BLOCKS)
PROTOTYPE, = re.findall(r"^```c\n(int tw_square.*?)^```$", DOC, BLOCKS)
CHECK = """
import sys
import conformance
from tilewright import bench
from tilewright.core import registry
complaints = [c for row in sys.argv[1:] for kernel in registry.variants("square", row)
              for dtype in kernel.dtypes for c in conformance.conform(kernel, dtype).complaints]
found = bench.compare(["square"], size="small")
assert {r.kernel for r in found.results} == set(sys.argv[1:]) and not found.wrong, found
sys.exit("\\n".join(complaints[:5]) or 0)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the installed package with the document's files put into it; not those for C, which want a build."""
    package = tmp_path / "tilewright"
    shutil.copytree(Path(tw.__file__).parent, package, symlinks=False, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in FILES.items():
        if name.startswith("kernels/") and not name.endswith("c_cpu.py"):
            target = package / name
            target.parent.mkdir(exist_ok=True)
            target.write_text(text)
    (package / "kernels/square/__init__.py").write_text('"""square: x · x."""\n')
    fast_door = re.compile(r"    c = door\(backend\)\n.*?return y\n", re.DOTALL)
    ops = package / "ops/activations.py"
    ops.write_text(f"{ops.read_text()}\n\n{fast_door.sub('', PUBLIC_CALL)}")
    return tmp_path


def test_the_python_files_conform_and_are_compared(tree: Path) -> None:
    rows = [b for b in ("numpy", "numba") if b in tw.backends()] + ["cuda"] * (conformance.why_not("cuda") is None)
    emulate = {"TILEWRIGHT_CUDA": "emulate"} if tw.backends()[-1] != "cuda" and "cuda" in rows else {}
    path = {"PYTHONPATH": os.pathsep.join((str(tree), str(ROOT / "tests")))}
    done = subprocess.run([sys.executable, "-c", CHECK, *rows], capture_output=True, text=True,
                          env=os.environ | path | emulate)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(native.lib is None or shutil.which("cc") is None, reason="no C compiler here")
def test_the_c_files_compile(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "csrc"))
    try:
        from build_c import CFLAGS, ISAS, target
    finally:
        sys.path.remove(str(ROOT / "csrc"))
    csrc = tmp_path / "csrc"
    shutil.copytree(ROOT / "csrc", csrc)
    for name, text in FILES.items():
        if name.startswith("csrc/"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
    header = csrc / "tilewright.h"
    end = "#pragma GCC visibility pop"
    header.write_text(header.read_text().replace(end, PROTOTYPE + end, 1))
    includes = [f"-I{p}" for p in (csrc, sysconfig.get_path("include"), np.get_include())]
    for source in sorted(csrc.glob("square/*.c")) + [csrc / "python/door_square.c"]:
        variants = ISAS.get(target(["cc"]), {"baseline": []}) if source.name.endswith(".isa.c") else {"": []}
        for isa, flags in variants.items():
            command = ["cc", *CFLAGS, *flags, f"-DTW_ISA={isa}", *includes, "-Werror", "-fsyntax-only", str(source)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
