"""Threads of the C kernels: same bits for any number, concurrent callers, fork, and who may set the number."""
from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading

import numpy as np
import pytest

import tilewright as tw
from tilewright.core import native

pytestmark = pytest.mark.skipif(native.door is None, reason="the C backend is not here")

# Each way through the driver, large enough for several threads: packed, transposed operands, streamed, dot, direct.
SHAPES = [(300, 310, 290), (64, 64, 2000), (3, 2000, 700), (9, 3000, 500), (2500, 10, 300), (10, 2500, 300),
          (3000, 40, 40)]


@pytest.fixture(autouse=True)
def keep_threads():
    before = native.get_num_threads()
    yield
    native.set_num_threads(before)


def operands(m: int, n: int, k: int, dtype: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, m, n, k])
    return rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_same_bits_for_any_number_of_threads(shape: tuple[int, int, int], dtype: str) -> None:
    a, b = operands(*shape, dtype)
    for x in (a, np.asfortranarray(a)):
        for y in (b, np.asfortranarray(b)):
            seen = set()
            for threads in (1, 2, 3, 4):
                native.set_num_threads(threads)
                seen.add(native.door.matmul(x, y, None).tobytes())
            assert len(seen) == 1


def test_eight_callers_at_once() -> None:
    native.set_num_threads(2)
    pairs = [operands(*SHAPES[i % len(SHAPES)], "float32", seed=i) for i in range(8)]
    alone = [native.door.matmul(a, b, None).tobytes() for a, b in pairs]
    start, wrong = threading.Barrier(8), []

    def call(i: int) -> None:
        start.wait()
        for _ in range(10):
            if native.door.matmul(*pairs[i], None).tobytes() != alone[i]:
                wrong.append(i)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert not wrong and not any(caller.is_alive() for caller in callers)


def product_in_child(queue: multiprocessing.Queue, seed: int) -> None:
    queue.put((native.get_num_threads(), native.door.matmul(*operands(300, 310, 290, "float32", seed), None).tobytes()))


def test_forked_child_computes_after_a_parallel_region() -> None:
    """The parent's workers do not exist in the child, and must not be waited for there."""
    native.set_num_threads(2)
    expected = native.door.matmul(*operands(300, 310, 290, "float32"), None).tobytes()
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        queue = context.Queue()
        child = context.Process(target=product_in_child, args=(queue, 0))
        child.start()
        try:
            assert queue.get(timeout=60) == (2, expected)
        finally:
            child.join(10)
            child.kill()
        assert native.door.matmul(*operands(300, 310, 290, "float32"), None).tobytes() == expected


def test_number_set_for_all_threads_and_for_one() -> None:
    native.set_num_threads(3)
    seen = []

    def look() -> None:
        seen.append(native.get_num_threads())
        assert native.set_local_threads(1) == 0
        seen.append(native.get_num_threads())
        assert native.set_local_threads(0) == 1 and native.get_num_threads() == 3

    other = threading.Thread(target=look)
    other.start()
    other.join()
    assert seen == [3, 1] and native.get_num_threads() == 3
    native.set_num_threads(0)  # at least one
    assert native.get_num_threads() == 1


def test_a_block_gives_the_thread_back_to_the_process() -> None:
    native.set_num_threads(2)
    with tw.threads(3):
        tw.set_num_threads(1)
    assert native.get_num_threads() == 1
    native.set_num_threads(2)
    with tw.threads(3), tw.threads(4):
        pass
    assert native.get_num_threads() == 2


def test_threadpoolctl_sees_and_limits_the_pool() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    native.set_num_threads(2)
    native.door.matmul(*operands(300, 310, 290, "float32"), None)
    assert [x["num_threads"] for x in threadpoolctl.threadpool_info() if x["internal_api"] == "tilewright"] == [2]
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        assert native.get_num_threads() == 1
    assert native.get_num_threads() == 2


def test_environment_sets_the_default(child_env: dict[str, str]) -> None:
    code = "from tilewright.core import native; print(native.get_num_threads())"
    for env, expected in (({"TILEWRIGHT_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, "3"),
                          ({"OMP_NUM_THREADS": "5"}, "5")):
        done = subprocess.run([sys.executable, "-c", code], env=child_env | env, capture_output=True, text=True,
                              check=True)
        assert done.stdout.strip() == expected
