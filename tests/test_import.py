"""What an import costs: no Numba, no SciPy, no command line until somebody asks for them."""
from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("numba", "llvmlite", "scipy", "typer", "rich", "click", "matplotlib", "ml_dtypes", "torch", "onnx",
         "pytest")


def loaded(code: str, env: dict[str, str]) -> set[str]:
    """Which of the heavy packages a piece of code has imported."""
    report = f"\nimport sys; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code + report], env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.parametrize("code", [
    "import tilewright",
    "import tilewright as tw; tw.__version__; tw.relu; tw.explain; tw.backends; tw.errors; tw.Tensor; tw.nn; tw.optim; "
    "tw.onnx.export",
    "import tilewright as tw; dir(tw); tw.backends()",
    "import tilewright.ops",
    "import tilewright.core.registry as r; r.specs()",
])
def test_importing_is_light(code: str, child_env: dict[str, str]) -> None:
    assert loaded(code, child_env) == set()


@pytest.mark.skipif("'c' not in __import__('tilewright').backends()", reason="the C backend is not here")
def test_the_c_path_stays_light(child_env: dict[str, str]) -> None:
    code = """
import numpy as np, tilewright as tw
x = np.ones((4, 4), np.float32)
tw.linear(x, x, x[0], activation="gelu"), tw.softmax(x), tw.cross_entropy(x, np.arange(4))
tw.gelu(x[::2].T, backend="c")
model = tw.nn.MLP([4, 8, 4], activation="relu", seed=0)
tw.nn.cross_entropy(model(tw.Tensor(x)), np.arange(4)).backward()
"""
    assert loaded(code, child_env) == set()


def test_numba_loads_on_first_use(child_env: dict[str, str]) -> None:
    code = "import numpy as np, tilewright as tw; tw.relu(np.ones(3), backend='numba')"
    assert {"numba", "llvmlite"} <= loaded(code, child_env)


def test_an_unknown_name_is_an_attribute_error(child_env: dict[str, str]) -> None:
    code = """
import tilewright as tw
for name in ("matmull", "_private", "np", "call", "__wrapped__"):
    assert not hasattr(tw, name), name
try:
    from tilewright import nothing
except ImportError:
    pass
"""
    assert loaded(code, child_env) == set()


def test_star_import_and_copies_of_modules(child_env: dict[str, str]) -> None:
    """`from tilewright import *` works, and kernels exist once: tilewright.kernels, not a top-level `kernels`."""
    code = "from tilewright import *; import tilewright.kernels.gemm.spec, sys; assert 'kernels' not in sys.modules"
    assert loaded(code, child_env) <= {"ml_dtypes"}
