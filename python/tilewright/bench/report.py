"""Put a comparison into words: JSON for machines, Markdown for the README."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import groupby
from statistics import geometric_mean
from typing import Any

from .accuracy import Accuracy
from .comparison import BASELINE, DTYPE, Comparison, Result, Skipped
from .gpu import HEADINGS, DeviceTimes, wins


def time_text(seconds: float | None) -> str:
    """Three digits and a unit."""
    if seconds is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def rate_text(rate: float | None, unit: str) -> str:
    """12.3 GFLOP/s, GOP/s or GB/s."""
    return "-" if rate is None else f"{rate:.3g} {unit}" if rate < 1000 else f"{rate:.0f} {unit}"


def ratio_text(ratio: float | None) -> str:
    """How many times as fast as NumPy: 2.5x."""
    return "-" if ratio is None else f"{ratio:.3g}x" if ratio < 100 else f"{ratio:.0f}x"


def part_text(part: float | None) -> str:
    """A part as percent."""
    return "-" if part is None else f"{part:.0%}"


def groups(results: Iterable[Result]) -> Iterator[tuple[str, list[Result]]]:
    """Results by case, each with its heading; the parts of a fused operation follow it."""
    for (op, case, dtype, _, part_of), rows in groupby(results, lambda r: (r.op, r.case, r.dtype, r.size, r.part_of)):
        heading = f"+ {case}: {op}" if part_of else f"{op} {case}" + ("" if dtype == DTYPE else f" {dtype}")
        yield heading, list(rows)


def mean_ratios(results: Iterable[Result]) -> dict[str, tuple[float, int]]:
    """For each kernel but NumPy's: the geometric mean of its ratios to NumPy, and over how many cases; no parts."""
    ratios: dict[str, list[float]] = {}
    for r in results:
        if r.ratio and r.kernel != BASELINE and not r.part_of:
            ratios.setdefault(r.kernel, []).append(r.ratio)
    return {name: (geometric_mean(many), len(many)) for name, many in ratios.items()}


def peak_lines(comparison: Comparison) -> list[str]:
    """The measured peaks that "of peak" refers to."""
    if not any(comparison.peaks.values()):
        return ["of peak: unknown without the C library, which measures it"]
    units = {"fma": "GFLOP/s", "int8": "GOP/s"}
    known = ", ".join(f"{name} {rate_text(peak / 1e9, units.get(name.split()[0], 'GB/s'))}"
                      for name, peak in comparison.peaks.items() if peak)
    return [f"of peak: measured here ({known}); GB/s are held against a copy of as many bytes, which may fit a cache"]


def to_json(comparison: Comparison) -> dict[str, Any]:
    """All of a comparison as JSON would hold it; what is infinite or not a number becomes None."""
    def plain(x: Any) -> Any:
        if isinstance(x, dict):
            return {k: plain(v) for k, v in x.items()}
        if isinstance(x, list | tuple):
            return [plain(v) for v in x]
        return None if isinstance(x, float) and not abs(x) < float("inf") else x
    return plain(asdict(comparison))


def from_json(data: dict[str, Any]) -> Comparison:
    """What to_json wrote, as a comparison again."""
    results = [Result(**{**r, "accuracy": Accuracy(**r["accuracy"]),
                         "device": None if r.get("device") is None else DeviceTimes(**r["device"])})
               for r in data["results"]]
    return Comparison(**{**data, "results": results, "skipped": [Skipped(**s) for s in data["skipped"]]})


def markdown(comparison: Comparison) -> str:
    """One row a case, one column a kernel: time, how many times NumPy's speed, part of the measured peak, worst error.

    >>> print(markdown(Comparison({}, 1)))
    | |
    |---|
    """
    names = list(dict.fromkeys(r.kernel for r in comparison.results))
    lines = ["| |" + "".join(f" {name} |" for name in names), "|---|" + "---|" * len(names)]
    for heading, rows in groups(comparison.results):
        by_name = {r.kernel: r for r in rows}
        lines.append(f"| {heading} | " + " | ".join(_cell(by_name.get(name)) for name in names) + " |")
    return "\n".join(lines)


def _cell(r: Result | None) -> str:
    if r is None:
        return "-"
    if r.accuracy.wrong:
        return "wrong"
    if r.emulated:
        return f"emulated, {r.accuracy}"
    against = "" if r.kernel == BASELINE or r.ratio is None else f", **{ratio_text(r.ratio)}**"
    return f"{time_text(r.seconds)}{against}, {part_text(r.of_peak)}, {r.accuracy}"


def conditions(comparison: Comparison) -> str:
    """One sentence on what the results were taken on."""
    m, versions = comparison.machine, comparison.machine["versions"]
    threads = "one thread" if comparison.threads == 1 else f"{comparison.threads} threads"
    return (f"{m['cpu']} ({m['architecture']}, {m['int8_isa']}), {threads}; Python {m['python']}, "
            f"NumPy {versions['numpy']} with {m['blas']}, Numba {versions['numba'] or 'not installed'}.")


def device_rows(comparison: Comparison) -> list[list[str]]:
    """A heading and, for each case, the parts of its time on a CUDA device; without one each says so, and no number."""
    rows = [["on the CUDA device", *HEADINGS.values()]]
    for heading, same in groups(comparison.results):
        measured = {r.kernel: r.device for r in same if r.device is not None}
        for kernel, parts in measured.items():
            rows.append([f"{heading}, {kernel}", *(time_text(getattr(parts, part)) for part in HEADINGS)])
        if not measured:
            cuda = [r for r in same if r.kernel.partition(":")[0] == "cuda"]
            why = ("wrong" if any(r.accuracy.wrong for r in cuda) else "emulated" if any(r.emulated for r in cuda) else
                   "no device" if _no_device(comparison) else "no kernel")
            rows.append([heading, *[why] * len(HEADINGS)])
    return rows


def _no_device(comparison: Comparison) -> bool:
    """Whether there was no real device where the comparison was made."""
    machine = comparison.machine
    return machine["backends"]["cuda"] is not None or machine["manners"]["cuda"].startswith("emulated")


def win_lines(comparison: Comparison) -> list[str]:
    """From which case on the device beats the CPU's fastest kernel, for each operation; or that there is no device."""
    ops = dict.fromkeys(r.op for r in comparison.results if not r.part_of)
    known = {op: rest for op, *rest in wins(r for r in comparison.results if not r.part_of)}
    if not known:
        return ["GPU against CPU: no device"] if _no_device(comparison) else []
    says = {op: [f"from {case}" if case else "at none of these" for case in known[op]] for op in ops if op in known}
    return [f"GPU against CPU, {op}: faster {without} on resident data, {with_copies} with copies"
            for op, (without, with_copies) in says.items()]
