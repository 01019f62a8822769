"""Weights of 8 and 4 bits under float rows: bits that do not depend on threads or on who else is in the call."""
from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tilewright.core import capability, sampling

SCHEMES = ({"method": "weight-only"}, {"bits": 4, "group_size": 32}, {"bits": 4, "group_size": 20, "symmetric": False})
BACKENDS = [b for b in ("c", "numba") if capability.reasons()[b] is None]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_same_bits_on_any_number_of_threads(backend: str, scheme: dict, rng: np.random.Generator) -> None:
    w = tw.quantize_weight(sampling.normal(rng, (500, 1100), "float32"), **scheme)
    for rows in (1, 7, 70):
        x = sampling.normal(rng, (rows, 1100), "float32")
        results = []
        for n in (1, 2, 3):
            with tw.threads(n):
                results.append(tw.quantized_linear(x, w, backend=backend))
        assert all(np.array_equal(results[0], y) for y in results[1:])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_zeros_of_the_weights_hide_no_infinity(backend: str, scheme: dict, rng: np.random.Generator) -> None:
    w = tw.quantize_weight(np.abs(sampling.normal(rng, (40, 64), "float32")) + 1, **scheme)
    x = np.ones((2, 64), np.float32)
    x[1, 3] = np.inf
    assert np.isfinite(tw.quantized_linear(x, w, backend=backend)[0]).all()
    assert (tw.quantized_linear(x, w, backend=backend)[1] == np.inf).all()


@pytest.mark.skipif("c" not in BACKENDS, reason="the C backend is not here")
def test_explain_says_when_the_weights_become_floats(rng: np.random.Generator) -> None:
    w = tw.quantize_weight(sampling.normal(rng, (50, 40), "float32"), 4, 32)
    few, many = (str(tw.explain("linear", np.zeros((rows, 40), np.float32), w, backend="c")) for rows in (64, 65))
    assert "panels of" in few and "slabs in float32" in many
