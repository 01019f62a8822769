"""Check a kernel's results against the oracle, and say how far off the worst element is."""
from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np

from ..core import checking, dispatch
from ..core.registry import Call, Case, Kernel, Spec

MANY_ULPS = 100.0  # past this a sum has cancelled, and the absolute error says more


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The worst element of a result.

    of_bound: its error as a part of the derived bound; wrong: what is wrong where an element is past its bound.
    """

    of_bound: float
    ulp: float
    absolute: float
    wrong: str | None = None

    def __str__(self) -> str:
        if self.absolute == 0:
            return "exact"
        return f"{self.ulp:.2g} ulp" if self.ulp <= MANY_ULPS else f"{self.absolute:.1e}"


class Expectation:
    """One case with its exact results, worked out once for all kernels that will be compared."""

    def __init__(self, spec: Spec, case: Case):
        self.spec, self.case = spec, case
        call = self.fresh()
        self.expected = spec.oracle(call)
        self.bound = spec.bound(call, self.expected)

    def fresh(self) -> Call:
        """The call in normal form, on its own copies where the operation changes its inputs."""
        inputs = copy.deepcopy(self.case.inputs) if self.spec.mutates else self.case.inputs
        return self.spec.prepare(inputs, self.case.attrs)

    def check(self, kernel: Kernel) -> Accuracy:
        """Run a kernel once, into outputs poisoned with NaN."""
        call = self.fresh()
        outs = poisoned(call)
        dispatch.run(kernel, call, call.kernel_outs(outs))
        return self.judge(self.results(call, outs))

    def results(self, call: Call, outs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """What a run has written: the outputs, or the inputs changed in place, in the oracle's order."""
        changed = [call.inputs[i] for i in self.spec.mutates if call.inputs[i] is not None]
        if not self.spec.mutates:
            return outs
        return tuple(x for many in changed for x in (many if isinstance(many, tuple) else (many,)))

    def judge(self, results: tuple[np.ndarray, ...]) -> Accuracy:
        """Compare results with the oracle's."""
        each = [_worst(*triple) for triple in zip(results, self.expected, self.bound, strict=True)]
        wrong = next((a.wrong for a in each if a.wrong), None)
        return Accuracy(max((a.of_bound for a in each), default=0.0), max((a.ulp for a in each), default=0.0),
                        max((a.absolute for a in each), default=0.0), wrong)


def poisoned(call: Call) -> tuple[np.ndarray, ...]:
    """Outputs for a call, filled with NaN, or 90 where they are integers."""
    return tuple(np.full(shape, 90 if dtype.kind in "iu" else np.nan).astype(dtype) for shape, dtype in call.outputs)


def _worst(actual: np.ndarray, expected: np.ndarray, bound: np.ndarray) -> Accuracy:
    wrong = checking.mismatch(actual, expected, bound)
    if actual.size == 0 or wrong is not None or actual.dtype.kind in "iu":  # integers are right or wrong
        return Accuracy(np.inf if wrong else 0.0, np.inf if wrong else 0.0, np.inf if wrong else 0.0, wrong)
    error = checking.errors(actual, expected)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(error > 0, error / bound, 0.0)
        ulps = error / checking.ulp(expected, actual.dtype)
    return Accuracy(float(parts.max()), float(ulps.max()), float(error.max()))
