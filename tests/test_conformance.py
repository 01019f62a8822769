"""Every kernel of the table, on every case of its operation, on every instruction set that this machine has."""
from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import conformance
from tilewright.core import capability, dispatch, native, registry

NATIVE = [(kernel, dtype) for op, spec in registry.specs().items() for dtype in spec.dtypes
          for kernel in conformance.rows(op) if dtype in kernel.dtypes]


def report(record: Any, *outcomes: conformance.Outcome) -> None:
    """Enter outcomes in the matrix, and fail with their first complaints."""
    for o in outcomes:
        backend, variant = dispatch.parse(o.row)
        place = (f"{o.op}:{variant}" if variant else o.op, f"{backend}@{o.isa}" if o.isa else backend)
        record("conformance", (*place, o.ran, sum(o.refused.values()), len(o.complaints), o.left_out))
    complaints = [c for o in outcomes for c in o.complaints]
    if complaints:
        first = "\n  ".join(complaints[:6])
        pytest.fail(f"{len(complaints)} complaints, seed {conformance.SEED}:\n  {first}", pytrace=False)


@pytest.mark.parametrize("backend", conformance.expected_backends())
def test_expected_backend_is_there(backend: str) -> None:
    assert conformance.why_not(backend) is None


@pytest.mark.parametrize("backend", conformance.expected_backends())
def test_every_operation_has_a_kernel(backend: str) -> None:
    missing = [op for op, spec in registry.specs().items() if (op, "") not in registry.kernels(spec.family, backend)]
    assert not missing


@pytest.mark.parametrize(("kernel", "dtype"), [
    pytest.param(k, d, id=f"{k.op}-{d}-{dispatch.row_name(k)}") for k, d in NATIVE])
def test_kernel(kernel: registry.Kernel, dtype: str, record_property: Any) -> None:
    outcome = conformance.conform(kernel, dtype)
    report(record_property, outcome)
    assert outcome.ran, f"no case ran: {outcome.refused}"
    assert kernel.variant or not outcome.refused, outcome.refused  # a backend's own kernel takes every call


def lower_isas() -> Iterator[tuple[str, str, str]]:
    """Instruction set, backend, family."""
    backends = [b for b in ("c", "numba") if capability.reasons()[b] is None]
    for family, backend in product(registry.families(), backends):
        integer = conformance.has_integer_isas(family)
        for isa in native.int8_isas() if integer else native.isas():
            known = backend == "c" or isa in native.isas() or isa.endswith("_vnni")  # Numba has no others of NEON
            if known and isa != (native.int8_isa() if integer else native.isa()):
                yield isa, backend, family


@pytest.mark.parametrize(("isa", "backend", "family"), list(lower_isas()))
def test_lower_isa(isa: str, backend: str, family: str, record_property: Any, child_env: dict[str, str]) -> None:
    """In a child process held to a lower instruction set."""
    env = child_env | {"TILEWRIGHT_ISA": isa, "TILEWRIGHT_TEST_SEED": str(conformance.SEED)}
    command = [sys.executable, str(Path(conformance.__file__)), family, backend]
    child = subprocess.run(command, env=env, capture_output=True, text=True)
    outcomes = [conformance.Outcome(**json.loads(line)) for line in child.stdout.splitlines()]
    report(record_property, *outcomes)
    assert child.returncode == 0, child.stderr[-3000:]
    assert {o.isa for o in outcomes} == {isa}
