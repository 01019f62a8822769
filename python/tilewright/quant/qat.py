"""Quantization-aware training: learn weights that are still right after rounding.

    x ─> FakeQuantize, grid over a running range ──┐
    weight ─> FakeQuantize, a grid for each row ───┴─> fused.linear ─> y

Forward, the nodes round to the grid that the quantized model will have; backward, they let the gradient through where
nothing was clipped (straight-through: Bengio et al. 2013; Jacob et al. 2018 for the scheme as a whole).
"""
from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import ops
from ..autograd import Tensor
from ..autograd.buffers import empty, empty_like
from ..autograd.tape import Node, recording
from ..autograd.tensor import made
from ..core.device_arrays import DeviceArray
from ..core.errors import ArgumentError, DTypeError
from ..core.quantized import check_bits, grids
from ..core.replay import recorded
from ..nn import Linear, Module, fused
from . import walk
from .convert import finished, weight_of
from .layers import Grid, StaticLinear

_BOOL = np.dtype(bool)


def to_grid(x: np.ndarray, scale: Any, zero_point: int, low: int, high: int, y: np.ndarray, inside: np.ndarray) -> None:
    """y = dequantize_linear(quantize_linear(x)) for integers low ... high; inside: where nothing was clipped.

    Integers of 16 bits, all of those among them, show what lies beyond. scale: a number, or one a row.
    """
    zero = np.int16(zero_point) if np.ndim(scale) == 0 else np.full(len(scale), zero_point, np.int16)
    wide = ops.quantize_linear(x, scale, zero, axis=0)
    q = np.clip(wide, low, high)
    np.equal(q, wide, out=inside)
    ops.dequantize_linear(q, scale, zero, axis=0, out=y)


class FakeQuantize(Module):
    """Rounds its input to a grid of 2^bits numbers and keeps it float32; the gradient passes where nothing was clipped.

    The result is that of `quantize_linear` and `dequantize_linear`, to the bit. Base: `grid` says which grid.
    """

    def __init__(self, bits: int):
        self.bits = bits

    def grid(self, x: np.ndarray) -> tuple[Any, int, int, int]:
        """(scale, zero point, smallest integer, largest integer) for x."""
        raise NotImplementedError

    def forward(self, x: Any) -> Tensor:
        """float32 of any shape -> the same shape."""
        if not isinstance(x, Tensor):
            x = Tensor(x)
        if isinstance(x.data, DeviceArray):
            raise DTypeError("training with rounding runs on the host: the model's to_host() and tw.to_host(x)")
        if x.data.dtype != np.float32:
            x = x.astype(np.float32)
        y, inside = empty_like(x.data), empty(x.data.shape, _BOOL)
        recorded(self._run, (y, inside), x.data)
        t = made(y)
        if x.requires_grad and recording():
            t._node = Node("fake_quantize", _straight_through, (x._node or x,), (inside,), ())
            t.requires_grad = True
        return t

    def _run(self, y: np.ndarray, inside: np.ndarray, x: np.ndarray) -> None:
        to_grid(x, *self.grid(x), y, inside)


def _straight_through(dy: Any, saved: Any, parents: tuple[Any, ...]) -> tuple[Any]:
    inside, = saved
    dx = empty_like(dy)
    recorded(_where_inside, (dx,), dy, inside)
    return dx,


def _where_inside(dx: np.ndarray, dy: np.ndarray, inside: np.ndarray) -> None:
    np.multiply(dy, inside, out=dx)


class FakeQuantizeWeight(FakeQuantize):
    """On the grids of `quantize_weight`: as far as the largest magnitude of each row, or of all. Nothing is clipped."""

    def __init__(self, bits: int, per_channel: bool):
        super().__init__(bits)
        self.per_channel = per_channel

    def grid(self, x: np.ndarray) -> tuple[Any, int, int, int]:
        rows = x[:, None] if self.per_channel else x.reshape(1, 1, x.size)
        scales = grids(rows, self.bits, symmetric=True)[0][:, 0]
        top = (1 << self.bits - 1) - 1
        return scales if self.per_channel else scales[0], 0, -top, top


class FakeQuantizeInput(FakeQuantize):
    """On one grid over a running range: in training each batch moves it by `momentum` of the way to its own range.

    range (2,): the smallest and the largest number, NaN before the first batch; part of the state.
    """

    def __init__(self, bits: int, momentum: float):
        super().__init__(bits)
        self.momentum = momentum
        self.range = np.full(2, np.nan)

    def grid(self, x: np.ndarray) -> tuple[Any, int, int, int]:
        if self.training:
            self._follow(x)
        grid = self.learned()
        return grid.scale, int(grid.zero), 0, grid.top

    def _follow(self, x: np.ndarray) -> None:
        seen = np.array([x.min(initial=0), x.max(initial=0)], np.float64)
        if not np.isfinite(seen).all():
            raise ArgumentError("the input of a layer holds a NaN or an infinity; is the learning rate too high?")
        self.range = np.where(np.isnan(self.range), seen, self.range + self.momentum * (seen - self.range))

    def learned(self) -> Grid:
        """The grid over the range; ArgumentError before the first batch."""
        if np.isnan(self.range).any():
            raise ArgumentError("prepare_qat: a layer has seen no batch in training mode yet, and knows no range")
        low, high = self.range
        return Grid.over(float(low), float(high), self.bits)

    def extra_state(self) -> dict[str, np.ndarray]:
        return {"range": self.range.copy()}

    def load_extra_state(self, state: dict[str, np.ndarray]) -> None:
        self.range = state["range"].copy()


class QATLinear(Module):
    """A Linear that computes on rounded inputs and weights. Made by `prepare_qat`."""

    takes_activation = True

    def __init__(self, layer: Linear, bits: int, per_channel: bool, momentum: float):
        self.weight, self.bias = layer.weight, layer.bias
        self.bits, self.per_channel = bits, per_channel
        self.input = FakeQuantizeInput(bits, momentum)
        self.rounded = FakeQuantizeWeight(bits, per_channel)

    def forward(self, x: Any, activation: str | None = None) -> Tensor:
        """(..., in) -> (..., out) float32."""
        return fused.linear(self.input(x), self.rounded(self.weight), self.bias, activation)


def prepare_qat(model: Module, bits: int = 8, *, per_channel: bool = True, skip: Iterable[str] = (),
                momentum: float = 0.1) -> Any:
    """A copy of a float32 model whose linear layers round inputs and weights to `bits` (8 or 4), to be trained further.

    Train it as any model (its parameters have the names they had; a tenth of the learning rate of before is a start),
    then `convert` it. bits, per_channel and skip as in `quantize`; momentum: how far each batch moves the range of a
    layer's inputs towards its own. Raises ArgumentError or DTypeError.

    >>> import numpy as np, tilewright as tw
    >>> model = tw.quant.prepare_qat(tw.nn.MLP([4, 8, 3], seed=0), bits=4)
    >>> optimizer = tw.optim.Adam(model.parameters())
    >>> x, labels = np.random.default_rng(0).random((9, 4), np.float32), np.arange(9) % 3
    >>> for _ in range(3):
    ...     optimizer.zero_grad()
    ...     tw.nn.cross_entropy(model(x), labels).backward()
    ...     optimizer.step()
    >>> quantized = tw.quant.convert(model)
    >>> np.abs(quantized(x).data - model.eval()(x).data).max() < 1e-6
    np.True_
    """
    check_bits("prepare_qat", bits)
    if not 0 < momentum <= 1:
        raise ArgumentError(f"prepare_qat: momentum lies in (0, 1], not {momentum}")
    chosen = walk.linears(model, skip)
    for name, layer in chosen.items():
        if layer.weight.dtype != np.float32:
            raise DTypeError(f"prepare_qat: layer {name!r} is {layer.weight.dtype}; rounding is defined in float32")
    layers = {name: QATLinear(copy.deepcopy(layer), bits, per_channel, momentum) for name, layer in chosen.items()}
    return walk.replaced(model, layers, chosen).train()


def convert(model: Module) -> Any:
    """The static model of integers that a model from `prepare_qat` has learned to be; the model stays as it is.

    It is the one that `quantize(..., "static")` would make with the learned ranges. Raises ArgumentError where nothing
    is prepared, or a layer has seen no batch.
    """
    chosen = {prefix.rstrip("."): m for prefix, m in model.named_modules() if isinstance(m, QATLinear)}
    if not chosen:
        raise ArgumentError("convert: nothing in this model was prepared; see prepare_qat")
    layers = {}
    for name, layer in chosen.items():
        weight = weight_of(name, layer.weight.data, layer.bits, None, layer.per_channel, "dynamic")
        bias = None if layer.bias is None else layer.bias.data
        layers[name] = StaticLinear(weight, bias, input=layer.input.learned(), bits=layer.bits)
    return finished(model, layers, chosen)
