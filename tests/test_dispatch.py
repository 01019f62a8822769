"""Which kernel runs: the environment, use_backend, explain, and the table itself."""
from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from calls import AVAILABLE, PURE, SPECS, arguments
from tilewright import errors
from tilewright.core import capability, dispatch, native, registry, threads


def child(code: str, env: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own with some TILEWRIGHT_ variables."""
    variables = env | {f"TILEWRIGHT_{name}": value for name, value in more.items()}
    return subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)


# ---- use_backend

def test_use_backend_nests_and_restores() -> None:
    assert dispatch.active() is None
    with tw.use_backend("numpy"):
        assert dispatch.active() == "numpy"
        with tw.use_backend("auto"):
            assert tw.explain("relu", np.ones(3)).kernel.backend == AVAILABLE[0]
        assert tw.explain("relu", np.ones(3)).kernel.backend == "numpy"
        with pytest.raises(ZeroDivisionError), tw.use_backend("auto"):
            raise ZeroDivisionError
        assert dispatch.active() == "numpy"
    assert dispatch.active() is None


def test_an_argument_wins_over_use_backend() -> None:
    with tw.use_backend("numpy"):
        for backend in AVAILABLE:
            assert tw.explain("relu", np.ones(3), backend=backend).kernel.backend == backend


def test_use_backend_raises_at_once() -> None:
    with pytest.raises(errors.ArgumentError, match="fortran"):
        tw.use_backend("fortran")
    for name, reason in capability.reasons().items():
        if reason is not None:
            with pytest.raises(errors.BackendUnavailable) as caught:
                tw.use_backend(name)
            assert reason in str(caught.value)


def test_use_backend_can_be_entered_twice() -> None:
    block = tw.use_backend("numpy")
    with block:
        pass
    with block, tw.use_backend("auto"), block:
        assert dispatch.active() == "numpy"
    assert dispatch.active() is None


def test_use_backend_is_of_one_thread_and_one_task() -> None:
    seen: dict[str, Any] = {}

    def other() -> None:
        seen["thread"] = dispatch.active()

    async def task(name: str, backend: str) -> None:
        with tw.use_backend(backend):
            await asyncio.sleep(0.01)
            seen[name] = dispatch.active()

    async def both() -> None:
        await asyncio.gather(task("a", "numpy"), task("b", "auto"))
    with tw.use_backend("numpy"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    asyncio.run(both())
    assert seen == {"thread": None, "a": "numpy", "b": "auto"}


# ---- environment

REPORT = """
import numpy as np, tilewright as tw
print(tw.explain("relu", np.ones(3)).kernel.backend, tw.get_num_threads(), end=" ")
with tw.use_backend("numpy"):
    print(tw.explain("relu", np.ones(3)).kernel.backend)
"""


@pytest.mark.parametrize("backend", AVAILABLE)
def test_environment_names_the_default_backend(backend: str, child_env: dict[str, str]) -> None:
    assert child(REPORT, child_env, BACKEND=backend).stdout.split()[::2] == [backend, "numpy"]


def test_environment_with_an_unknown_backend(child_env: dict[str, str]) -> None:
    result = child(REPORT, child_env, BACKEND="fortran")
    assert result.returncode != 0
    assert "no backend 'fortran'; there are: auto, c, numba, numpy, cuda" in result.stderr


@pytest.mark.parametrize("n", ["1", "3"])
def test_environment_sets_the_threads(n: str, child_env: dict[str, str]) -> None:
    assert child(REPORT, child_env, NUM_THREADS=n).stdout.split()[1] == n


@pytest.mark.parametrize("n", ["0", "-2", "many", ""])
def test_a_senseless_number_of_threads_is_no_number(n: str, child_env: dict[str, str]) -> None:
    result = child(REPORT, child_env, NUM_THREADS=n)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[1]) >= 1


@pytest.mark.parametrize("backend", AVAILABLE)
def test_verbose_tells_each_call(backend: str, child_env: dict[str, str]) -> None:
    code = "import numpy as np, tilewright as tw; tw.relu(np.ones((3, 4), np.float32))"
    loud = child(code, child_env, VERBOSE="1", BACKEND=backend)
    assert loud.stderr.startswith(f"tilewright: relu(float32[3, 4]) on {backend}: ")
    assert loud.stderr.count("\n") == 1
    for value in ("0", ""):
        assert child(code, child_env, VERBOSE=value, BACKEND=backend).stderr == ""


def test_cache_folder(child_env: dict[str, str], tmp_path: Any) -> None:
    code = "import numpy as np, tilewright as tw; tw.relu(np.ones(3), backend='numba')"
    result = child(code, {k: v for k, v in child_env.items() if k != "NUMBA_CACHE_DIR"}, CACHE_DIR=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.rglob("*.nbi"))


# ---- threads

def test_threads_nest_and_restore() -> None:
    before = tw.get_num_threads()
    with tw.threads(3):
        assert tw.get_num_threads() == 3
        with tw.threads(1):
            assert tw.get_num_threads() == 1
        assert tw.get_num_threads() == 3
    with pytest.raises(ZeroDivisionError), tw.threads(2):
        raise ZeroDivisionError
    assert tw.get_num_threads() == before


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", None, True])
def test_senseless_threads(n: Any) -> None:
    for set_threads in (tw.set_num_threads, lambda n: threads.threads(n).__enter__()):
        with pytest.raises(errors.ArgumentError):
            set_threads(n)


def test_threads_of_a_block_are_of_one_thread() -> None:
    seen = []
    with tw.threads(3):
        thread = threading.Thread(target=lambda: seen.append(tw.get_num_threads()))
        thread.start()
        thread.join()
    assert seen == [tw.get_num_threads()]


def test_concurrent_callers_get_their_own_results(backend: str) -> None:
    """Eight Python threads, products and activations of different sizes at once: the bits of a single caller."""
    rng = np.random.default_rng(1)
    inputs = [(rng.standard_normal((n, 200)), rng.standard_normal((200, n))) for n in range(60, 140, 10)]

    def work(a: np.ndarray, b: np.ndarray) -> bytes:
        return tw.gelu(tw.matmul(a, b, backend=backend), backend=backend).tobytes()
    want = [work(*pair) for pair in inputs]
    found: list[Any] = [None] * len(inputs)

    def repeat(i: int) -> None:
        found[i] = {work(*inputs[i]) for _ in range(10)}
    workers = [threading.Thread(target=repeat, args=(i,)) for i in range(len(inputs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [{w} for w in want]


# ---- explain

@pytest.mark.parametrize("op", SPECS)
def test_explain_every_operation(op: str) -> None:
    """Names the kernel that runs and says of every other row why not; computes nothing."""
    inputs, attrs = arguments(op)
    before = [np.array(x) for x in inputs if isinstance(x, np.ndarray)]
    for backend in AVAILABLE:
        told = tw.explain(op, *inputs, backend=backend, **attrs)
        rows = {dispatch.row_name(k) for name in AVAILABLE for k in registry.variants(op, name)}
        missing = set(capability.BACKENDS) - set(AVAILABLE)
        assert {dispatch.row_name(told.kernel), *(name for name, _ in told.rejected)} == rows | missing
        assert all(reason for _, reason in told.rejected)
        assert told.how
        assert told.kernel.backend == backend
        text = str(told)
        assert text.startswith(f"{op}(")
        assert f"runs on   {backend}: {told.how}" in text
    assert all((a == b).all() for a, b in zip(before, (x for x in inputs if isinstance(x, np.ndarray)), strict=True))


def test_explain_tells_of_copies() -> None:
    x = np.ones((4, 6), np.float32)
    assert tw.explain("linear", x, x, np.ones(4, np.float32)).copies == ()
    assert "float32 to float64" in tw.explain("linear", x, x.astype(np.float64), None).copies[0]
    assert "byte order" in tw.explain("relu", x.astype(">f4")).copies[0]
    transposed = np.ones((4, 3, 6), np.float32).transpose(1, 0, 2)[:, ::2]
    assert "leading axes" in tw.explain("linear", transposed, x).copies[0]


def test_explain_of_absent_arguments() -> None:
    """Optional inputs may be left away, as in the call itself."""
    x = np.ones((4, 6))
    for inputs in (("linear", x, x), ("gemm", x, x.T), ("layer_norm", x), ("rms_norm", x)):
        assert tw.explain(*inputs).kernel.backend == AVAILABLE[0]


def test_explain_raises_what_the_call_raises() -> None:
    with pytest.raises(errors.ShapeError):
        tw.explain("matmul", np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(errors.ArgumentError, match="no operation 'matmull'"):
        tw.explain("matmull", np.ones((2, 3)))
    with pytest.raises(errors.ArgumentError):
        tw.explain("relu", np.ones(3), backend="fortran")


def test_auto_takes_the_first_that_can() -> None:
    for op in PURE:
        inputs, attrs = arguments(op)
        assert tw.explain(op, *inputs, **attrs).kernel.backend == AVAILABLE[0]


# ---- the table

def test_every_operation_has_a_public_call_and_back() -> None:
    from tilewright import ops
    assert set(SPECS) == set(ops.__all__) 
    assert all(callable(getattr(tw, name)) for name in ops.__all__)
    assert set(ops.__all__) <= set(dir(tw))


def test_every_row_is_an_operation() -> None:
    for family in registry.families():
        for backend in AVAILABLE:
            for (op, variant), kernel in registry.kernels(family, backend).items():
                assert SPECS[op].family == family
                assert (kernel.op, kernel.variant, kernel.backend) == (op, variant, backend)
                assert set(kernel.dtypes) <= set(SPECS[op].dtypes)
                assert (op, "") in registry.kernels(family, backend), "a ladder leads to a kernel"


def test_duplicates_in_the_table_raise() -> None:
    row = registry.kernels("activation", "numpy")["relu", ""]
    with pytest.raises(RuntimeError, match="twice"):
        registry.index([row, row], "numpy")
    with pytest.raises(RuntimeError, match="names backend 'c'"):
        registry.index([dataclasses.replace(row, backend="c")], "numpy")


def test_steps_of_the_ladder_are_asked_for_by_name() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 20, 20))
    for backend in AVAILABLE:
        names = [dispatch.row_name(k) for k in registry.variants("matmul", backend)]
        assert names[0] == backend
        for name in names:
            np.testing.assert_allclose(tw.matmul(a, b, backend=name), a @ b, rtol=1e-12)
            assert dispatch.row_name(tw.explain("matmul", a, b, backend=name).kernel) == name
    assert "naive" in {k.variant for k in registry.variants("matmul", AVAILABLE[0])}


def test_a_kernel_that_cannot_gives_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """auto passes on to the next backend, a name raises; both say why."""
    first = AVAILABLE[0]
    real = registry.kernels("activation", first)
    row = dataclasses.replace(real["relu", ""], supports=lambda call: "it is Tuesday")
    table = {("activation", name): registry.kernels("activation", name) for name in AVAILABLE}
    table["activation", first] = {**real, ("relu", ""): row}
    monkeypatch.setattr(registry, "kernels", lambda family, backend: table[family, backend])
    told = tw.explain("relu", np.ones(3))
    assert told.kernel.backend == AVAILABLE[1]
    assert (first, "it is Tuesday") in told.rejected
    with pytest.raises(errors.BackendUnavailable, match="relu cannot run on .*it is Tuesday"):
        tw.explain("relu", np.ones(3), backend=first)


def test_objects_may_take_over_a_call() -> None:
    class Mine:
        def __tilewright_function__(self, op: str, inputs: tuple, attrs: dict, out: Any, backend: Any) -> Any:
            return op, inputs[0] is self, attrs, out, backend
    assert tw.elu(Mine(), 0.5, backend="numpy") == ("elu", True, {"alpha": 0.5}, None, "numpy")
    assert tw.matmul(np.ones(3), Mine())[1] is False


def test_show_config(capsys: pytest.CaptureFixture[str]) -> None:
    tw.show_config()
    text = capsys.readouterr().out
    assert tw.__version__ in text
    assert native.isa() in text
    assert all(name in text for name in capability.BACKENDS)
