"""The benchmark library: it enumerates the table, catches wrong results before it times, and takes turns."""
from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tilewright as tw
from tilewright import bench
from tilewright.bench import comparison, peaks, report, timing
from tilewright.core import capability, registry
from tilewright.core.errors import ArgumentError
from tilewright.core.registry import Case, Kernel


def small_case(op: str) -> tuple[registry.Spec, Case]:
    spec = registry.spec(op)
    dtype = "float32" if "float32" in spec.dtypes else spec.dtypes[0]
    return spec, next(iter(spec.bench(np.random.default_rng(0), dtype, "small")))


def numpy_kernel(op: str) -> Kernel:
    return next(registry.variants(op, "numpy"))


# ---- accuracy: kernels broken on purpose are caught, the reference is not


@pytest.mark.parametrize("op", sorted(registry.specs()))
def test_the_reference_passes_on_every_operation(op: str) -> None:
    spec, case = small_case(op)
    before = copy.deepcopy(case.inputs)
    accuracy = bench.Expectation(spec, case).check(numpy_kernel(op))
    assert accuracy.wrong is None and 0 <= accuracy.of_bound <= 1
    for now, then in zip(case.inputs, before, strict=True):  # operations in place had copies of their own
        if not isinstance(now, tw.PackedMatrix | tw.QuantizedMatrix):  # which cannot be changed
            np.testing.assert_equal(now, then)


@pytest.mark.parametrize("op", sorted(registry.specs()))
def test_kernels_say_how_they_compute_every_case(op: str) -> None:
    for spec, _, dtype, case in comparison.cases([op], ["small"]):
        for kernel in bench.contestants(spec, ladder=True)[0]:
            call = bench.Expectation(spec, case).fresh()
            if dtype in kernel.dtypes and kernel.supports(call) is None:
                assert isinstance(kernel.describe(call), str)


def nan_in_one(out: np.ndarray) -> None:
    out.flat[-1] = np.nan


def swapped_columns(out: np.ndarray) -> None:
    out[:, [0, 1]] = out[:, [1, 0]]


def dropped_tail(out: np.ndarray) -> None:
    out[-1, :] = 0


def last_bits(out: np.ndarray) -> None:
    out *= np.float32(1 + 1e-4)


def nothing_written(out: np.ndarray) -> None:
    out.fill(np.nan)


@pytest.mark.parametrize("harm", [nan_in_one, swapped_columns, dropped_tail, last_bits, nothing_written])
@pytest.mark.parametrize("op", ["matmul", "gelu"])
def test_a_broken_kernel_is_wrong(op: str, harm: Callable[[np.ndarray], None]) -> None:
    spec, case = small_case(op)
    good = numpy_kernel(op)

    def run(call: registry.Call, outs: tuple) -> None:
        good.run(call, outs)
        harm(outs[0])

    accuracy = bench.Expectation(spec, case).check(dataclasses.replace(good, run=run))
    assert accuracy.wrong is not None


def test_a_kernel_in_place_that_forgets_an_array_is_wrong() -> None:
    spec, case = small_case("adam_step")
    idle = dataclasses.replace(numpy_kernel("adam_step"), run=lambda call, outs: None)
    assert bench.Expectation(spec, case).check(idle).wrong is not None


# ---- timing


def test_contestants_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "TURN", 0.0)  # one call a turn
    monkeypatch.setattr(timing, "SHARE", 1e9)
    log: list[str] = []
    times = timing.interleaved([lambda: log.append("a"), lambda: log.append("b")], rounds=4)
    assert "".join(log) == "aabb" + "abababab"  # two calls each to see how long one takes, then turns
    assert [len(t) for t in times] == [4, 4]


def test_slow_contestants_get_fewer_turns_but_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SHARE", 0.0)
    assert [len(t) for t in timing.interleaved([lambda: None])] == [timing.FEWEST]


# ---- roofs


def test_products_stand_under_the_fma_roof_and_maps_under_the_memory_roof() -> None:
    for op, kind, unit in (("matmul", "FMA", "GFLOP/s"), ("matmul_integer", "dot", "GOP/s"),
                           ("relu", "memory", "GB/s")):
        spec, case = small_case(op)
        roof = bench.roof(spec, bench.Expectation(spec, case).fresh())
        assert (roof.kind, roof.unit) == (kind, unit)
        assert roof.work == (spec.nbytes if kind == "memory" else spec.flops)(bench.Expectation(spec, case).fresh())


def test_a_row_times_quantized_weights_stands_under_the_memory_roof() -> None:
    x, w = np.ones((1, 512), np.float32), np.ones((256, 512), np.float32)
    for how in ({"method": "weight-only"}, {"bits": 4, "group_size": 128}, {}):
        spec, case = registry.spec("quantized_linear"), Case((x, tw.quantize_weight(w, **how), None, None))
        assert bench.roof(spec, bench.Expectation(spec, case).fresh()).kind == "memory"


def test_peaks_are_measured_once_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    if peaks.native.lib is None:
        assert bench.fma_peak() is None and bench.dot_peak() is None and bench.copy_peak() is None
        return
    assert bench.fma_peak("float16") == bench.fma_peak("float32") > 0
    assert bench.dot_peak() == bench.dot_peak() > 0
    assert bench.copy_peak(100_000) == bench.copy_peak(120_000) > 0


def test_without_the_library_parts_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks.native, "lib", None)
    measurements = peaks._fma, peaks._dot, peaks._copy
    for measurement in measurements:
        measurement.cache_clear()
    assert bench.fma_peak() is None and bench.dot_peak() is None and bench.copy_peak(1 << 20) is None
    assert bench.Roof("FMA", 10.0, None).part(1.0) is None
    for measurement in measurements:
        measurement.cache_clear()


# ---- comparisons


def test_cases_are_those_of_the_table() -> None:
    found = comparison.cases((), ("small",))
    assert [spec.name for spec, *_ in found] == [
        name for name, spec in registry.specs().items() for dtype in spec.dtypes
        if dtype == "float32" or "float32" not in spec.dtypes
        for _ in spec.bench(np.random.default_rng(0), dtype, "small")]


def test_operations_on_integers_come_with_all_their_dtypes_or_with_those_asked_for(monkeypatch) -> None:
    bytes_only = dataclasses.replace(registry.spec("relu"), dtypes=("int8", "uint8"),
                                     bench=lambda rng, dtype, size: [Case((np.ones(3, dtype),))])
    monkeypatch.setitem(registry.specs(), "relu", bytes_only)
    for asked, shown in ((None, ["int8", "uint8"]), (("uint8",), ["uint8"]), (("float32",), [])):
        assert [dtype for *_, dtype, _ in comparison.cases(["relu"], ["small"], asked)] == shown


@pytest.mark.parametrize("wrong", [{"size": "huge"}, {"dtype": "int3"}])
def test_unknown_names_are_refused(wrong: dict) -> None:
    with pytest.raises(ArgumentError):
        bench.compare(["relu"], **wrong)
    with pytest.raises(ArgumentError):
        bench.compare(["no_such_operation"])


def test_every_backend_is_compared_or_has_a_reason() -> None:
    found = bench.compare(["relu", "sgd_step"], size="small")
    assert not found.wrong
    for op in ("relu", "sgd_step"):
        ran = {r.kernel for r in found.results if r.op == op}
        told = {s.backend for s in found.skipped if s.op in (op, "")}
        assert ran | told == set(capability.BACKENDS) and not ran & told
        assert all(s.reason for s in found.skipped)
        assert "numpy" in ran
    assert all(r.ratio == 1 for r in found.results if r.kernel == "numpy")


def test_the_calls_that_a_fused_one_stands_for_are_shown_under_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def parts(x: np.ndarray, w: np.ndarray, bias: np.ndarray, *_: None, **attrs: str) -> list[tuple[str, Case]]:
        return [("matmul", Case((x, w.T), label="product")), ("relu", Case((bias,), label="activation"))]

    spec, case = small_case("linear")
    monkeypatch.setitem(registry.specs(), "linear", dataclasses.replace(spec, parts=parts, bench=lambda *_: [case]))
    found = bench.compare(["linear"], size="small")
    assert not found.wrong
    headings = [heading for heading, _ in report.groups(found.results)]
    assert headings == [f"linear {case.label}", "+ product: matmul", "+ activation: relu"]
    assert {r.part_of for r in found.results if r.op != "linear"} == {f"linear {case.label}"}
    assert all(r.seconds for r in found.results)
    assert {count for _, count in report.mean_ratios(found.results).values()} <= {1}  # parts count in no mean
    assert bench.from_json(bench.to_json(found)) == found


@pytest.mark.parametrize("op", [name for name, spec in registry.specs().items() if spec.parts])
def test_the_parts_of_an_operation_are_good_calls_that_compute_the_same(op: str) -> None:
    """As near as one range of x for all rows comes to a range each; they leave out bias and activation."""
    spec = registry.spec(op)
    for case in spec.bench(np.random.default_rng(1), spec.dtypes[0], "small"):
        inputs = tuple(None if name == "bias" else x for name, x in zip(spec.inputs, case.inputs, strict=True))
        parts = [bench.Expectation(registry.spec(name), part) for name, part in spec.parts(*inputs)]
        labels = [part.case.label for part in parts]
        assert "GEMM" in labels and len(set(labels)) == len(labels)
        assert all(part.check(numpy_kernel(part.spec.name)).wrong is None for part in parts)
        both = parts[-1], bench.Expectation(spec, Case(inputs))
        result, expected = (x.expected[0].astype(np.float64) for x in both)
        assert np.linalg.norm(result - expected) <= 0.05 * np.linalg.norm(expected)


def test_a_wrong_kernel_is_reported_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    good = numpy_kernel("relu")
    bad = dataclasses.replace(good, variant="broken", run=lambda call, outs: outs[0].fill(0))
    raising = dataclasses.replace(good, variant="raising", run=lambda call, outs: 1 // 0)
    monkeypatch.setattr(comparison, "contestants", lambda spec, ladder: ([good, bad, raising], []))
    found = bench.compare(["relu"], size="small")
    assert [r.kernel for r in found.wrong] == ["numpy:broken", "numpy:raising"]
    assert all(r.seconds is None and r.ratio is None for r in found.wrong)
    assert "ZeroDivisionError" in found.wrong[1].accuracy.wrong
    assert "| wrong |" in bench.markdown(found)


def test_a_backend_that_does_not_load_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    good = numpy_kernel("relu")

    def variants(op: str, backend: str) -> list[Kernel]:
        if backend != "numpy":
            raise ImportError("broken on purpose")
        return [good]

    monkeypatch.setattr(registry, "variants", variants)
    kernels, missing = bench.contestants(registry.spec("relu"))
    assert [k.backend for k in kernels] == ["numpy"]
    assert {s.backend for s in missing} == set(capability.BACKENDS) - {"numpy"}


# ---- words


def test_a_comparison_is_valid_json_and_one_markdown_row_a_case() -> None:
    found = bench.compare(["gelu"], size="small")
    loaded = json.loads(json.dumps(bench.to_json(found), allow_nan=False))
    assert {r["case"] for r in loaded["results"]} == {"32x32", "32x32 tanh"}
    assert bench.markdown(bench.from_json(loaded)) == bench.markdown(found)
    rows = bench.markdown(found).splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == ["gelu 32x32", "gelu 32x32 tanh"]


@pytest.mark.parametrize(("seconds", "text"), [
    (None, "-"), (2.5, "2.5 s"), (1.234e-3, "1.23 ms"), (45.6e-6, "45.6 us"), (7.8e-8, "78 ns")])
def test_times_read_well(seconds: float | None, text: str) -> None:
    assert report.time_text(seconds) == text


def test_facts_about_the_machine_hold_no_names_or_paths() -> None:
    facts = bench.machine()
    assert "node" not in facts and "host" not in facts
    assert str(Path.home()) not in json.dumps(facts) and str(Path(tw.__file__).parent) not in json.dumps(facts)
