"""What quantizing a model costs and gains: each layer beside its float self, and the model before and after."""
from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from ..autograd import Tensor, no_grad
from ..bench import timing
from ..core.errors import ArgumentError, ShapeError
from ..nn import Module
from . import walk
from .layers import QuantizedLinear, StaticLinear
from .smooth import balanced

BATCH = 256  # rows of the second latency


class LayerReport(NamedTuple):
    """A quantized layer on the inputs that its float self gets.

    snr             signal to noise in dB: 10 log10(sum y² / sum (y - quantized y)²), before the activation
    weights_used    share of the integers' range that the largest weight of a scale reaches, on average
    inputs_used     share of the grid's integers between the least and the greatest that the inputs became; None where
                    they stay float, 1 where every row has a range of its own
    clipped         share of the inputs beyond the grid
    """

    name: str
    layer: str
    snr: float
    weights_used: float
    inputs_used: float | None
    clipped: float | None


class Figures(NamedTuple):
    """A model: share of labels that are right (None without labels), seconds a call, bytes of its state."""

    accuracy: float | None
    one_row: float
    batch: float
    nbytes: int


@dataclass(frozen=True, slots=True)
class Report:
    """The layers, the model `before` and `after`, and the signal to noise of its outputs in dB."""

    layers: list[LayerReport]
    before: Figures
    after: Figures
    snr: float


def report(model: Module, quantized: Module, x: Any, labels: Any = None) -> Report:
    """Compare a quantized model with the one that it was made from, on rows x and their labels.

    x: an array of rows or batches of such; labels: the class of each row. Raises ArgumentError where the two models do
    not belong together, or x is not finite; ShapeError where x or labels do not fit.

    >>> import numpy as np, tilewright as tw
    >>> model, x = tw.nn.MLP([4, 8, 3], seed=0), np.random.default_rng(0).random((16, 4), np.float32)
    >>> found = tw.quant.report(model, tw.quant.quantize(model), x)
    >>> [layer.name for layer in found.layers], found.snr > 30, found.after.nbytes < found.before.nbytes
    (['0', '2'], True, True)
    """
    data = walk.batches(x, "report")
    labels = None if labels is None else np.asarray(labels)
    rows = sum(map(len, data))
    if labels is not None and labels.shape != (rows,):
        raise ShapeError(f"report: labels {labels.shape} must be ({rows},), one for each row of x")
    model, quantized = (copy.deepcopy(m).eval() for m in (model, quantized))
    layers = _quantized_layers(model, quantized)
    expected, found = (outputs(m, data) for m in (model, quantized))
    noise = _Noise()
    noise.add(expected, found)
    seconds = _latencies(model, quantized, data[0])
    before, after = (
        Figures(None if labels is None else float(np.mean(y.argmax(axis=-1) == labels)), one_row, batch, size(m))
        for m, y, (one_row, batch) in zip((model, quantized), (expected, found), seconds, strict=True))
    return Report(_layers(model, layers, data), before, after, noise.snr())


def outputs(model: Module, data: list[np.ndarray]) -> np.ndarray:
    """What the model makes of all rows."""
    with no_grad():
        return np.concatenate([model(Tensor(x)).data for x in data])


def size(model: Module) -> int:
    """Bytes of all that the model knows, as it is saved."""
    return sum(a.nbytes for a in model.state_dict().values())


def _latencies(model: Module, quantized: Module, x: np.ndarray) -> list[tuple[float, float]]:
    """For both models: seconds for one row, and for BATCH."""
    def run(m: Module, rows: Tensor) -> None:
        with no_grad():
            m(rows)

    inputs = [Tensor(np.resize(x, (n, *x.shape[1:]))) for n in (1, BATCH)]
    one_row, batch = (timing.interleaved([partial(run, m, rows) for m in (model, quantized)]) for rows in inputs)
    return [(median(one), median(many)) for one, many in zip(one_row, batch, strict=True)]


@dataclass(slots=True)
class _Noise:
    """Signal and noise, added up in float64."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, y: np.ndarray, quantized: np.ndarray) -> None:
        y = y.astype(np.float64)
        self.signal += float((y * y).sum())
        self.noise += float(((y - quantized) ** 2).sum())

    def snr(self) -> float:
        """In dB; infinite without noise."""
        if self.noise == 0:
            return np.inf
        return float(10 * np.log10(self.signal / self.noise)) if self.signal else -np.inf


@dataclass(slots=True)
class _Grid:
    """How a static layer's grid is used."""

    least: int = 255
    greatest: int = 0
    beyond: int = 0
    count: int = 0

    def add(self, layer: StaticLinear, x: np.ndarray) -> None:
        q = np.rint(x / layer.input.scale) + np.float32(layer.input.zero)
        self.beyond += int(np.count_nonzero((q < 0) | (q > layer.input.top)))
        self.count += q.size
        self.least = min(self.least, int(max(q.min(), 0)))
        self.greatest = max(self.greatest, int(min(q.max(), layer.input.top)))


@dataclass(slots=True)
class _Seen:
    noise: _Noise = field(default_factory=_Noise)
    grid: _Grid = field(default_factory=_Grid)


def _quantized_layers(model: Module, quantized: Module) -> dict[str, QuantizedLinear]:
    """The quantized layers by name; ArgumentError where they cannot have been made from the model's."""
    layers = walk.once({name: m for name, m in walk.named(quantized).items() if isinstance(m, QuantizedLinear)})
    every = walk.linears(model)
    if not layers or not set(layers) <= set(every):
        raise ArgumentError(f"report: the quantized layers ({', '.join(layers) or 'none'}) are not among the linear "
                            f"layers of the model ({', '.join(every)})")
    for name, layer in layers.items():
        if layer.weight.shape != every[name].weight.shape:
            raise ArgumentError(f"report: layer {name!r} has weights {layer.weight.shape} in the quantized model, and "
                                f"{every[name].weight.shape} in the one that it should come from")
    return layers


def _layers(model: Module, layers: dict[str, QuantizedLinear], data: list[np.ndarray]) -> list[LayerReport]:
    # The float model balanced as the quantized one is: then both see the same inputs in every layer.
    model, _ = balanced(model, {name: m.balance for name, m in layers.items() if m.folded and m.balance is not None})
    alone = {name: _alone(layer) for name, layer in layers.items()}
    float_layers = {name: layer for name, layer in walk.linears(model).items() if name in layers}
    seen = {name: _Seen() for name in layers}

    def see(name: str, x: np.ndarray) -> None:
        layer = alone[name]
        seen[name].noise.add(float_layers[name](Tensor(x)).data, layer(x).data)
        if isinstance(layer, StaticLinear):
            seen[name].grid.add(layer, layer.balanced(x))

    walk.watch(model, float_layers, data, see)
    return [_row(name, layer, seen[name]) for name, layer in layers.items()]


def _alone(layer: QuantizedLinear) -> QuantizedLinear:
    """The layer with a float result."""
    layer = copy.copy(layer)
    if isinstance(layer, StaticLinear):
        layer.output = None
    return layer


def _row(name: str, layer: QuantizedLinear, seen: _Seen) -> LayerReport:
    used, clipped, grid = None, None, seen.grid
    if isinstance(layer, StaticLinear):
        used, clipped = (grid.greatest - grid.least + 1) / (layer.input.top + 1), grid.beyond / max(grid.count, 1)
    elif layer.method == "dynamic":
        used, clipped = 1.0, 0.0
    return LayerReport(name, f"{layer.method} int{layer.bits}", seen.noise.snr(), _weights_used(layer), used, clipped)


def _weights_used(layer: QuantizedLinear) -> float:
    integers = np.abs(layer.weight.integers().astype(np.int16))
    width = layer.weight.group_size or max(integers.shape[1], 1)
    reach = [integers[:, k:k + width].max(axis=1, initial=0) for k in range(0, integers.shape[1], width)]
    return float(np.mean(reach)) / (2 ** (layer.bits - 1) - 1) if integers.size else 0.0
