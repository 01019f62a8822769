"""Quantized layers: a Linear whose weights are integers. They compute in float32, for inference: without gradients.

    QuantizedLinear   x float ─> tw.linear with a QuantizedMatrix ─> float      (dynamic, or weight-only)
    StaticLinear      x float or uint8 ─> tw.qlinear on fixed grids ─> uint8 or float
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ops
from ..autograd import Tensor
from ..autograd.arithmetic import as_array
from ..autograd.tensor import made
from ..core.device_arrays import DeviceArray, host_copy
from ..core.errors import ArgumentError, ShapeError
from ..core.quantized import QuantizedMatrix, check_bits, packed_int4
from ..nn import Module

_UINT8 = np.dtype(np.uint8)


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers that a uint8 q below 2^bits can stand for: (q - zero) * scale.

    >>> import tilewright as tw
    >>> tw.quant.Grid.over(-1.0, 254.0)
    Grid(scale=np.float32(1.0), zero=np.uint8(1), bits=8)
    """

    scale: np.float32
    zero: np.uint8
    bits: int = 8

    def __post_init__(self) -> None:
        set_once = object.__setattr__
        check_bits("Grid", self.bits)
        with np.errstate(over="ignore", under="ignore"):
            set_once(self, "scale", np.float32(self.scale))
        if not 0 < self.scale < np.inf:
            raise ArgumentError(f"Grid: the scale must be finite and positive, not {self.scale}")
        if not isinstance(self.zero, (int, np.integer)) or not 0 <= self.zero <= self.top:
            raise ArgumentError(f"Grid: the zero point is an integer in 0 ... {self.top}, and {self.zero} is not")
        set_once(self, "zero", np.uint8(self.zero))

    @classmethod
    def over(cls, low: float, high: float, bits: int = 8) -> Grid:
        """The grid from low to high, which 0 lies between; any grid serves where nothing but 0 is expected."""
        check_bits("Grid", bits)
        if not -np.inf < low <= 0 <= high < np.inf:
            raise ArgumentError(f"Grid: a range is finite and holds 0; {low} ... {high} does not")
        top = (1 << bits) - 1
        scale = float(np.float32((high - low) / top)) or 1.0
        return cls(np.float32(scale), np.uint8(min(round(-low / scale), top)), bits)

    @property
    def top(self) -> int:
        """The largest q."""
        return (1 << self.bits) - 1

    def clip(self, q: np.ndarray) -> np.ndarray:
        """q (uint8), with what lies beyond the grid brought to its end in place."""
        return q if self.bits == 8 else np.minimum(q, np.uint8(self.top), out=q)


def matrix(integers: np.ndarray, scales: np.ndarray, bits: int, group_size: int | None, method: str) -> QuantizedMatrix:
    """int8 (N, K) of so many bits with scales (N, G). Integers are multiplied as int8, even those of 4 bits."""
    if method == "dynamic" or bits == 8:
        return QuantizedMatrix(integers, scales, group_size=group_size, method=method)
    return QuantizedMatrix(packed_int4(integers), scales, columns=integers.shape[1], bits=4, group_size=group_size,
                           method=method)


class QuantizedLinear(Module):
    """y = x @ weight.T + bias for x (..., in), with a QuantizedMatrix (out, in), whose method says how it is computed.

    bits: of the weights; 4 may also be held as int8, and are two to a byte in the state. balance: None, or factors
    (in,) by which columns of the weights were multiplied and x must be divided (see `smooth` of `quantize`); folded:
    the layer before gives x divided already.

    >>> import numpy as np, tilewright as tw
    >>> layer = tw.quant.QuantizedLinear(tw.quantize_weight(np.eye(2, dtype=np.float32)))
    >>> layer(np.float32([[3, 0]])).data.round(3)
    array([[3., 0.]], dtype=float32)
    """

    takes_activation = True
    beside = ("bias", "balance")

    def __init__(self, weight: QuantizedMatrix, bias: Any = None, *, bits: int | None = None, balance: Any = None,
                 folded: bool = False):
        self.weight = weight
        self.bias = None if bias is None else np.array(bias, np.float32)
        self.bits = weight.bits if bits is None else bits
        self.balance = None if balance is None else np.array(balance, np.float32)
        self.folded = folded
        for name, part, length in (("bias", self.bias, weight.shape[0]), ("balance", self.balance, weight.shape[1])):
            if part is not None and part.shape != (length,):
                raise ShapeError(f"{type(self).__name__}: {name} {part.shape} must be ({length},) for weights "
                                 f"{weight.shape}")

    def forward(self, x: Any, activation: str | None = None) -> Tensor:
        """(..., in) -> (..., out) float32; activation: a name as in `tw.linear`."""
        return made(ops.linear(self.balanced(x), self.weight, self.bias, activation=activation))

    def balanced(self, x: Any) -> np.ndarray:
        """x as float32, divided by the factors unless the layer before did so."""
        data = as_array(x, None)
        if data.dtype != np.float32:
            data = data.astype(np.float32)
        return data if self.balance is None or self.folded else data / self.balance

    def __repr__(self) -> str:
        groups = "" if self.weight.group_size is None else f", groups of {self.weight.group_size}"
        return f"{type(self).__name__}(weight {self.weight.shape} int{self.bits}{groups}, {self.method})"

    @property
    def method(self) -> str:
        """As in `quantize`."""
        return self.weight.method

    # ---- state

    def extra_state(self) -> dict[str, np.ndarray]:
        weight = self.weight
        integers = weight.values if weight.bits == self.bits else packed_int4(weight.values)
        state = {"weight": integers, "weight_scales": weight.scales, "weight_zero_points": weight.zero_points,
                 "bias": self.bias, "balance": self.balance}
        return {name: host_copy(value) for name, value in state.items() if value is not None}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        there = isinstance(self.bias, DeviceArray) or isinstance(self.balance, DeviceArray)
        vars(self).update(vars(self.restored(self.options(), state)))
        if there:
            self.to_device()

    def check_extra_state(self, state: Mapping[str, Any]) -> None:
        self.restored(self.options(), state)

    def options(self) -> dict[str, Any]:
        """All that the arrays of the state do not tell, as JSON holds it; `restored` takes it back."""
        return {"bits": self.bits, "columns": self.weight.shape[1], "group_size": self.weight.group_size,
                "method": self.weight.method, "folded": self.folded}

    @classmethod
    def restored(cls, options: Mapping[str, Any], state: Mapping[str, Any]) -> QuantizedLinear:
        """A layer from its options and its state."""
        bits, method = options["bits"], options["method"]
        parts = state["weight"], state["weight_scales"], state.get("weight_zero_points")
        weight = QuantizedMatrix(*parts, columns=options["columns"], bits=bits, group_size=options["group_size"],
                                 method=method if bits == 8 else "weight-only")
        if weight.method != method:
            weight = QuantizedMatrix(weight.integers(), *parts[1:], method=method)
        return cls(weight, state.get("bias"), bits=bits, balance=state.get("balance"), folded=options["folded"],
                   **cls._more(options, state))

    @classmethod
    def _more(cls, options: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
        """What a subclass is made of besides."""
        return {}


class StaticLinear(QuantizedLinear):
    """The same on grids that calibration fixed: x on the grid `input`, y on the grid `output`, or float without one.

    fed: the layer before gives uint8 on the grid `input`; anything else is quantized first. With an `output` the
    activation is None or "relu".

    >>> import numpy as np, tilewright as tw
    >>> weight = tw.quantize_weight(np.eye(2, dtype=np.float32))
    >>> layer = tw.quant.StaticLinear(weight, input=tw.quant.Grid.over(0, 255), output=tw.quant.Grid.over(0, 25.5))
    >>> layer(np.float32([[3, 0], [1000, 7]])).data
    array([[ 30,   0],
           [255,  70]], dtype=uint8)
    """

    def __init__(self, weight: QuantizedMatrix, bias: Any = None, *, input: Grid, output: Grid | None = None,
                 fed: bool = False, **more: Any):
        super().__init__(weight, bias, **more)
        self.input, self.output, self.fed = input, output, fed

    def forward(self, x: Any, activation: str | None = None) -> Tensor:
        """(..., in) float or uint8 -> (..., out) uint8 or float32."""
        q, at, to = as_array(x, None), self.input, self.output
        if not (self.fed and q.dtype is _UINT8):
            q = at.clip(ops.quantize_linear(self.balanced(q), at.scale, at.zero))
        if to is None:
            return made(ops.qlinear(q, at.scale, at.zero, self.weight, self.bias, activation=activation))
        y = ops.qlinear(q, at.scale, at.zero, self.weight, self.bias, to.scale, to.zero, activation=activation)
        return made(to.clip(y))

    @property
    def method(self) -> str:
        """As in `quantize`."""
        return "static"

    def extra_state(self) -> dict[str, np.ndarray]:
        state = super().extra_state()
        for name, grid in self._grids().items():
            state |= {f"{name}_scale": np.array(grid.scale), f"{name}_zero_point": np.array(grid.zero)}
        return state

    def options(self) -> dict[str, Any]:
        return super().options() | {"fed": self.fed, "grid_bits": {name: g.bits for name, g in self._grids().items()}}

    def _grids(self) -> dict[str, Grid]:
        return {"input": self.input} if self.output is None else {"input": self.input, "output": self.output}

    @classmethod
    def _more(cls, options: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
        grids = {name: Grid(np.float32(state[f"{name}_scale"]), state[f"{name}_zero_point"].reshape(())[()], bits)
                 for name, bits in options["grid_bits"].items()}
        return {"fed": options["fed"], **grids}
