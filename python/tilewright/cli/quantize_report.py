"""What `tilewright quantize` shows: a table of layers, one of models, and two plots."""
from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from ..bench.report import time_text
from ..quant import Report
from .train_report import keep_figure, pyplot
from .train_run import Run

MARKERS = "os^vD"  # open, so that one does not hide another


def title(run: Run) -> str:
    """Which model, tested on what."""
    rows, sizes = run.rows, (run.rows.x_train.shape[1], *run.options.hidden(), len(run.rows.classes))
    return (f"{rows.name}: MLP of {'-'.join(map(str, sizes))} with {run.options.activation}, "
            f"{len(rows.x_test)} rows to test\n")


def layers(found: Mapping[str, Report]) -> Table:
    """A row for each quantized layer in each way."""
    t = _table("quantized", "layer", "weights", "signal to noise", "range of weights", "range of inputs", "clipped")
    for way, report in found.items():
        for i, layer in enumerate(report.layers):
            t.add_row(way if i == 0 else "", layer.name, layer.layer, f"{layer.snr:.1f} dB",
                      _share(layer.weights_used), _share(layer.inputs_used), _share(layer.clipped, 3))
    return t


def models(found: Mapping[str, Report]) -> Table:
    """The float model, and what each way of quantizing made of it."""
    t = _table("model", "accuracy", "change", "one row", "256 rows", "size", "of float", "signal to noise")
    for i, (way, report) in enumerate(found.items()):
        for name, model in (("float", report.before), (way, report.after))[i > 0:]:
            quantized = model is report.after
            change = 100 * ((model.accuracy or 0) - (report.before.accuracy or 0))
            t.add_row(name, f"{model.accuracy:.2%}", f"{change:+.2f}" if quantized else "", time_text(model.one_row),
                      time_text(model.batch), f"{model.nbytes / 1024:.1f} KiB",
                      f"{model.nbytes / report.before.nbytes:.0%}", f"{report.snr:.1f} dB" if quantized else "")
    return t


def plot(found: Mapping[str, Report], path: str) -> None:
    """Accuracy against size, and against the time for one row."""
    figure, axes = pyplot().subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    first = next(iter(found.values()))
    points = {"float": first.before} | {way: report.after for way, report in found.items()}
    for (name, model), marker in zip(points.items(), MARKERS, strict=False):
        for axis, value in zip(axes, (model.nbytes / 1024, model.one_row * 1e6), strict=True):
            axis.plot(value, 100 * (model.accuracy or 0), marker, markersize=10, fillstyle="none", label=name)
    for axis, label in zip(axes, ("size (KiB)", "time for one row (us)"), strict=True):
        axis.set(xlabel=label, xlim=(0, 1.1 * max(line.get_xdata()[0] for line in axis.lines)))
        axis.grid(alpha=0.3)
    percents = [100 * (model.accuracy or 0) for model in points.values()]
    low, high = min(percents), max(percents)
    room = 0.3 * max(high - low, 1)  # equal ones lie in the middle of half a point
    axes[0].set(ylabel="accuracy (%)", ylim=(low - room, min(high + room, max(high + room / 4, 100))))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(points))
    keep_figure(figure, path)


def _table(first: str, *others: str) -> Table:
    t = Table(box=None, header_style="bold", pad_edge=False)
    t.add_column(first)
    for heading in others:
        t.add_column(heading, justify="right", no_wrap=True)
    return t


def _share(part: float | None, digits: int = 0) -> str:
    return "-" if part is None else f"{part:.{digits}%}"
