"""TILEWRIGHT_ISA, and the choice by CPU: on processors that qemu imitates, end to end with Python and NumPy."""
from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tilewright.core import capability, native

X86 = platform.machine() in ("x86_64", "AMD64")
needs_c = pytest.mark.skipif(native.lib is None, reason="the C backend is not here")

REPORT = """
import json, numpy as np, tilewright as tw, warnings
from tilewright.core import capability, native
rng = np.random.default_rng(0)
a, b = rng.standard_normal((33, 65)).astype(np.float32), rng.standard_normal((65, 47)).astype(np.float32)
reason = capability.reasons()["c"]
if reason is None:
    for found, want in ((tw.matmul(a, b, backend="c"), a @ b), (tw.relu(a, backend="c"), np.maximum(a, 0)),
                        (tw.softmax(a, backend="c"), tw.softmax(a, backend="numpy"))):
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)
auto = tw.explain("relu", a).kernel.backend
print(json.dumps({"isa": native.isa(), "int8_isa": native.int8_isa(), "isas": native.isas(), "reason": reason,
                  "auto": auto}))
"""


def report(env: dict[str, str], *launcher: str, isa: str | None = None) -> dict:
    if isa is not None:
        env = env | {"TILEWRIGHT_ISA": isa}
    result = subprocess.run([*launcher, sys.executable, "-c", REPORT], env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout) | {"stderr": result.stderr}


@needs_c
def test_the_best_is_taken() -> None:
    assert native.int8_isa() == os.environ.get("TILEWRIGHT_ISA", native.int8_isas()[0])
    assert native.isa() == native.int8_isa().partition("_")[0]
    assert native.isas()[-1] == native.int8_isas()[-1]
    assert native.isas()[-1] in ("baseline", "neon")


@needs_c
@pytest.mark.parametrize("isa", native.int8_isas())
def test_forced(isa: str, child_env: dict[str, str]) -> None:
    told = report(child_env, isa=isa)
    assert (told["isas"], told["reason"], told["auto"]) == (native.isas(), None, "c")
    assert (told["isa"], told["int8_isa"]) == (isa.partition("_")[0], isa)  # avx2 alone has no VNNI


@needs_c
@pytest.mark.parametrize("isa", ["sse9", "AVX2", "neon" if X86 else "avx2"])
def test_unknown_isa_turns_c_off_aloud(isa: str, child_env: dict[str, str]) -> None:
    """Not silently another one: the reason names what there is; a warning goes to standard error; auto still works."""
    told = report(child_env, isa=isa)
    assert f"TILEWRIGHT_ISA={isa} is unknown here; this build has" in told["reason"]
    assert "the C backend is off" in told["stderr"]
    assert told["auto"] in ("numba", "numpy")


@needs_c
def test_numba_is_held_to_the_same_isa(child_env: dict[str, str]) -> None:
    code = "from tilewright.kernels.vector import host; print(host.ISA)"
    for isa in native.isas():
        env = child_env | {"TILEWRIGHT_ISA": isa}
        child = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert child.stdout.strip() == isa, child.stderr


@needs_c
def test_isas_round_alike_where_they_must(child_env: dict[str, str]) -> None:
    """Dropout, embedding and relu have one result, whichever instruction set computes it."""
    code = """
import numpy as np, tilewright as tw, hashlib
x = np.random.default_rng(0).standard_normal((37, 129)).astype(np.float32)
rows = np.arange(36, -1, -3)
for y in (tw.dropout(x, 0.3, 7), tw.relu(x), tw.leaky_relu(x), tw.embedding(rows, x), tw.relu_backward(x, x)):
    print(hashlib.sha256(y.tobytes()).hexdigest())
"""
    found = set()
    for isa in native.isas():
        env = child_env | {"TILEWRIGHT_ISA": isa, "TILEWRIGHT_BACKEND": "c"}
        child = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        found.add(child.stdout)
    assert len(found) == 1


@needs_c
@pytest.mark.skipif(not X86 or shutil.which("qemu-x86_64") is None, reason="needs qemu-x86_64 (qemu-user)")
@pytest.mark.parametrize(("cpu", "isas"), [("Haswell", ["avx2", "baseline"]), ("Nehalem", ["baseline"])])
def test_on_another_processor(cpu: str, isas: list[str], child_env: dict[str, str]) -> None:
    """CPUID decides, also in a build that has more; asking for more than the processor has is refused by name."""
    env = child_env | {"OMP_NUM_THREADS": "1", "OPENBLAS_CORETYPE": cpu, "NPY_DISABLE_CPU_FEATURES": ""}
    told = report(env, "qemu-x86_64", "-cpu", cpu)
    assert (told["isa"], told["isas"], told["reason"], told["auto"]) == (isas[0], isas, None, "c")
    if cpu == "Nehalem":
        told = report(env, "qemu-x86_64", "-cpu", cpu, isa="avx512")
        assert told["reason"] == "TILEWRIGHT_ISA=avx512, but this machine supports at most baseline"
        assert told["auto"] != "c"


def test_without_the_extension(child_env: dict[str, str], tmp_path: Path) -> None:
    """A package whose C part was never built says so, and computes on."""
    import tilewright
    copy = tmp_path / "tilewright"
    shutil.copytree(next(iter(tilewright.__path__)), copy, symlinks=False,
                    ignore=shutil.ignore_patterns("_c*.so", "libtilewright*", "_build_info.json", "__pycache__"))
    told = report(child_env | {"PYTHONPATH": str(tmp_path)})
    assert told["reason"].startswith("the C extension is not built")
    assert told["auto"] == "numba"
    (copy / "_build_info.json").write_text(json.dumps({"missing": "built without a C compiler"}))
    assert report(child_env | {"PYTHONPATH": str(tmp_path)})["reason"] == "built without a C compiler"


def test_backends_are_those_without_a_reason() -> None:
    assert capability.backends() == [name for name, reason in capability.reasons().items() if reason is None]
