"""What quantizing costs in accuracy: MLPs that have learned the digits and MNIST, as floats and in every other way.

    python bench/quantization.py [--seeds 5] [--write]      (a minute and a half)

Every seed splits the data anew: 80% to train on and to calibrate with, 20% to test. A cell holds the mean over the
seeds in percent, and how many points lie between it and the floats; it is bold where that misses the target. Training
further moves the accuracy of one model by half a point either way, more than 4 bits cost the larger ones: its cells are
means over trainings that take the rows in several orders, too. --write puts the table into docs/QUANTIZATION.md.
"""
from __future__ import annotations

import argparse
import copy
from statistics import mean
from typing import Any

from report import ROOT, put
from rich.console import Console
from rich.markdown import Markdown

from tilewright import data, nn, optim, quant
from tilewright.cli.progress import progress
from tilewright.cli.train_data import TrainData, load
from tilewright.cli.train_run import Options, Run

PAGE = ROOT / "docs/QUANTIZATION.md"
MODELS = [(name, layers) for layers in ("256,128", "64,32") for name in ("digits", "mnist")]
EPOCHS = 20
FURTHER, RATE = 8, 2e-3  # epochs and learning rate of training with rounding; 16 epochs at 1e-3 gain as much
ORDERS = 3  # in which every model is trained further
METHODS: dict[str, dict[str, Any]] = {  # what `quantize` is told
    "dynamic int8": {"method": "dynamic"},
    "static int8": {"method": "static"},
    "weight-only int8": {"method": "weight-only"},
    "weight-only int4, groups of 32": {"method": "weight-only", "bits": 4, "group_size": 32},
    "static int4": {"method": "static", "bits": 4, "observer": "mse"},  # which loses less than minmax
}
FLOAT, LONGER, STATIC, AWARE = "float32", "float32, trained as long", "static int4", "static int4, trained so"
MAY_LOSE = {"dynamic int8": 0.3, "static int8": 0.3, "weight-only int8": 0.3, "weight-only int4, groups of 32": 0.5}
RECOVERED = 0.5  # of what static int4 loses, by training


def train(model: Any, rows: TrainData, seed: int, epochs: int) -> Any:
    """Train a model that has learned something before; returns it."""
    batches = data.Batches(rows.x_train, rows.y_train, batch_size=32, seed=seed)
    optimizer = optim.Adam(model.parameters(), RATE)
    schedule = optim.CosineWithWarmup(optimizer, len(batches) // 4, epochs * len(batches))
    while batches.epoch < epochs:
        for x, y in batches:
            optimizer.zero_grad()
            nn.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
    return model


def accuracies(name: str, layers: str, seed: int, epochs: int = EPOCHS, further: int = FURTHER) -> dict[str, float]:
    """Percent of the test rows that one model gets right, in every way."""
    rows = load(name, "-1", seed)
    options = Options(name, layers=layers, activation="relu", norm="none", dropout=0.0, epochs=epochs, seed=seed)
    run = Run(options, rows)
    run.train(lambda run: None, lambda run: None)
    model = run.model.eval()

    def accuracy(model: Any) -> float:
        return 100 * float((model(rows.x_test).data.argmax(1) == rows.y_test).mean())

    found = {FLOAT: accuracy(model)}
    for method, arguments in METHODS.items():
        found[method] = accuracy(quant.quantize(model, calibration=rows.x_train, **arguments))
    orders = [seed + 1000 * order for order in range(ORDERS)]
    aware = [quant.convert(train(quant.prepare_qat(model, bits=4), rows, order, further)) for order in orders]
    longer = [train(copy.deepcopy(model), rows, order, further).eval() for order in orders]
    return found | {AWARE: mean(map(accuracy, aware)), LONGER: mean(map(accuracy, longer))}


def missed(method: str, found: dict[str, float]) -> bool:
    """Whether a mean is beyond its target."""
    if method == AWARE:
        return found[AWARE] - found[STATIC] < RECOVERED * (found[FLOAT] - found[STATIC])
    return found[FLOAT] - found[method] > MAY_LOSE.get(method, float("inf"))


def table(found: dict[tuple[str, str], dict[str, float]], seeds: int) -> str:
    """Markdown: a row a method, a column a model."""
    heads = [f"{name}, hidden {layers.replace(',', ' and ')}" for name, layers in found]
    lines = [f"Percent of the test rows, mean of {seeds} seeds.", "", f"| | {' | '.join(heads)} |",
             "|---" * (len(heads) + 1) + "|"]
    for method in next(iter(found.values())):
        cells = []
        for means in found.values():
            change = "" if method == FLOAT else f" ({means[method] - means[FLOAT]:+.2f})"
            mark = "**" if missed(method, means) else ""
            cells.append(f"{mark}{means[method]:.2f}{change}{mark}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    console = Console()
    console.width = max(console.width, 130)
    found = {}
    with progress(console) as bar:
        for i, model in enumerate(MODELS):
            each = []
            for seed in range(args.seeds):
                bar(i * args.seeds + seed, len(MODELS) * args.seeds, f"{model[0]} {model[1]}, seed {seed}")
                each.append(accuracies(*model, seed))
            found[model] = {method: mean(e[method] for e in each) for method in each[0]}
    text = table(found, args.seeds)
    console.print(Markdown(text))
    if args.write:
        put(PAGE, "accuracy", text)


if __name__ == "__main__":
    main()
