"""What `tilewright train` shows: progress, the figures of each epoch, the result, and curves."""
from __future__ import annotations

import resource
import statistics
import sys
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..core.errors import ArgumentError
from .train_run import Epoch, Run

LARGEST_MATRIX = 20


class Reporter:
    """A live bar on a terminal; one plain line an epoch everywhere else."""

    def __init__(self, run: Run, console: Console):
        self.console, self.epochs = console, run.options.epochs
        self.bar = Progress(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
                            TextColumn("{task.fields[loss]}"), TimeRemainingColumn(), console=console, transient=True,
                            disable=not console.is_terminal)
        done = run.batches.epoch * len(run.batches) + run.batches.position
        self.task = self.bar.add_task("", total=self.epochs * len(run.batches), completed=done, loss="")

    def __enter__(self) -> Reporter:
        self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()

    def step(self, run: Run) -> None:
        """After a step."""
        if not self.bar.disable:
            self.bar.update(self.task, advance=1, description=f"epoch {run.batches.epoch + 1}/{self.epochs}",
                            loss=f"loss {run.tally[0] / run.tally[2]:.4f}")

    def epoch(self, run: Run) -> None:
        """After an epoch."""
        self.line(epoch_line(run.history[-1], self.epochs))

    def line(self, text: str) -> None:
        """Print above the bar."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def title(run: Run) -> str:
    """What is learnt from what."""
    rows = run.rows
    return (f"{rows.name}: {len(rows.x_train)} rows to train, {len(rows.x_test)} to test, "
            f"{rows.x_train.shape[1]} features, {len(rows.classes)} classes; "
            f"{sum(p.size for p in run.model.parameters()):,} parameters")


def epoch_line(e: Epoch, epochs: int) -> str:
    """One epoch in words."""
    return (f"epoch {e.number:3d}/{epochs}  loss {e.loss:.4f}  accuracy {e.accuracy:7.2%}  "
            f"test accuracy {e.test_accuracy:7.2%}")


def summary(run: Run) -> str:
    """The result: accuracy, speed, memory, and which classes were taken for which."""
    rows, predicted = run.rows, run.predict(run.rows.x_test)
    right = int(np.count_nonzero(predicted == rows.y_test))
    lines = [f"test accuracy    {right / len(predicted):.2%} ({right} of {len(predicted)} rows)"]
    if run.emulated:
        lines.append("time per step    none: emulated")
    elif run.step_seconds:
        median = statistics.median(run.step_seconds)
        steps, batch = len(run.step_seconds), run.options.batch
        lines += [f"time per step    {median * 1e6:.0f} us (median of {steps} steps of {batch} rows)",
                  f"samples/s        {batch / median:,.0f}"]
    lines.append(f"peak memory      {peak_memory() / 2**20:.0f} MiB")
    if len(rows.classes) <= LARGEST_MATRIX:
        lines += ["", *confusion_lines(confusion(rows.y_test, predicted, len(rows.classes)), rows.classes)]
    return "\n".join(lines)


def peak_memory() -> int:
    """The most memory that this process has held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes): how many rows of class i were taken for class j."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def confusion_lines(matrix: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    """The matrix as text; a dot for none."""
    names = [name[:12] for name in classes]
    side, width = max(map(len, names)), max(4, *(len(n) + 1 for n in names), len(str(matrix.max())) + 1)
    head = "confusion matrix (rows: the label, columns: what it was taken for)"
    body = [f"{name:>{side}} |" + "".join(f"{n or '.':>{width}}" for n in row)
            for name, row in zip(names, matrix.tolist(), strict=True)]
    return [head, " " * side + "  " + "".join(f"{name:>{width}}" for name in names), *body]


def pyplot() -> Any:
    """matplotlib.pyplot without a display; ArgumentError with the command where it is not installed."""
    try:
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        raise ArgumentError("--plot needs matplotlib, which is not installed: pip install matplotlib") from None
    return plt


def plot(run: Run, path: str) -> None:
    """Draw loss and accuracies over the epochs."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    numbers = [e.number for e in run.history]
    left.plot(numbers, [e.loss for e in run.history])
    left.set(xlabel="epoch", ylabel="training loss", yscale="log")
    right.plot(numbers, [100 * e.accuracy for e in run.history], label="training")
    right.plot(numbers, [100 * e.test_accuracy for e in run.history], label="test")
    right.set(xlabel="epoch", ylabel="accuracy (%)")
    right.legend()
    keep_figure(figure, path)


def keep_figure(figure: Any, path: str) -> None:
    """Write a figure and let go of it; ArgumentError says why it cannot be written."""
    plt = pyplot()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise ArgumentError(f"--plot {path}: {error}") from None
    finally:
        plt.close(figure)
