"""A training step of an MLP: eager, compiled, and its kernels alone.

The kernels alone are the calls that `tw.compile` records, run in a plain loop; what a step takes beyond them is the
share of Python, saved with the results as `python_share`. `python bench/bench_step.py` prints it.
"""
from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright.bench.timing import interleaved
from tilewright.core import dispatch
from tilewright.core.replay import Recording

CASES = {  # layer sizes, batch, optimizer, activation
    "64-64-10 batch 32 sgd relu": ([64, 64, 10], 32, tw.optim.SGD, "relu"),
    "64-64-10 batch 32 adam gelu": ([64, 64, 10], 32, tw.optim.Adam, "gelu"),
    "784-256-128-10 batch 128 sgd relu": ([784, 256, 128, 10], 128, tw.optim.SGD, "relu"),
}


def steps(case: str) -> dict[str, Callable[[], Any]]:
    """The ways to make the step of a case, each with a model of its own."""
    sizes, batch, optimizer, activation = CASES[case]
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((batch, sizes[0]), np.float32), rng.integers(0, sizes[-1], batch)

    def step_of_a_new_model() -> Callable[..., Any]:
        model = tw.nn.MLP(sizes, activation, seed=0)
        # so small a rate that the loss stays where denormals are far
        optim = optimizer(model.parameters(), lr=1e-6)

        def step(x: Any, labels: Any) -> Any:
            optim.zero_grad()
            loss = tw.nn.cross_entropy(model(x), labels)
            loss.backward()
            optim.step()
            return loss
        return step

    eager, compiled, recorded = step_of_a_new_model(), tw.compile(step_of_a_new_model()), step_of_a_new_model()
    with Recording(dispatch.active()) as recording:
        recorded(x, labels)

    def kernels() -> None:
        for f, args in recording.steps:
            f(*args)
    return {"eager": lambda: eager(x, labels), "compiled": lambda: compiled(x, labels), "kernels": kernels}


def medians(case: str) -> dict[str, float]:
    """Seconds a step, each way."""
    ways = steps(case)
    for _ in range(3):
        for call in ways.values():
            call()
    return {who: median(turns) for who, turns in zip(ways, interleaved(list(ways.values())), strict=True)}


@pytest.mark.parametrize("who", ["eager", "compiled", "kernels"])
@pytest.mark.parametrize("case", CASES)
def bench_step(benchmark: Any, facts: dict[str, Any], case: str, who: str) -> None:
    step = steps(case)[who]
    for _ in range(3):
        step()
    benchmark.group = case
    benchmark(step)
    if benchmark.stats is not None:  # None with --benchmark-disable
        seconds = medians(case)
        benchmark.extra_info |= facts | {"python_share": 1 - seconds["kernels"] / seconds[who]}


if __name__ == "__main__":
    for case in CASES:
        seconds = medians(case)
        print(case, *(f"{who} {t * 1e6:.1f} us, {1 - seconds['kernels'] / t:.0%} Python"
                      for who, t in seconds.items() if who != "kernels"), f"kernels {seconds['kernels'] * 1e6:.1f} us",
              sep="  ")
