"""QuantizedMatrix: the weights of a linear layer as small integers with scales."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from . import arrays, native
from .errors import ArgumentError, DTypeError, ShapeError
from .packed import fill_once
from .registry import FLOATS, HALVES

METHODS = ("dynamic", "weight-only")


class QuantizedMatrix:
    """A matrix (N, K) of int8 or int4 numbers with float32 scales, made by `quantize_weight`: the w of linear.

    Element (n, k) stands for (values[n, k] - zero_points[n, g]) * scales[n, g], g = k // group_size, 0 without groups.
    `values` is int8 (N, K); or, for 4 bits, uint8 (N, ceil(K / 2)), two's complement, even k in the low half of a byte.
    `zero_points` is int8 (N, G) or None, which stands for zeros. It cannot be changed, may be used by any number of
    threads, and pickles. ShapeError, DTypeError and ArgumentError say which part does not fit the others.
    """

    # c, numba, cuda: what a backend reads, made by the first product on it (see `form`)
    __slots__ = ("shape", "bits", "group_size", "method", "values", "scales", "zero_points", "c", "numba", "cuda")
    shape: tuple[int, int]
    bits: int
    group_size: int | None
    method: str
    values: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray | None
    c: Any
    numba: Any
    cuda: Any

    def __init__(self, values: Any, scales: Any, zero_points: Any = None, *, columns: int | None = None, bits: int = 8,
                 group_size: int | None = None, method: str = "dynamic"):
        """`columns`: K, where an odd one cannot be told from the values of 4 bits."""
        _check_scheme("QuantizedMatrix", bits, group_size, method)
        stored = _part("values", values, np.dtype(np.int8 if bits == 8 else np.uint8))
        per_byte = 8 // bits
        k = stored.shape[1] * per_byte if columns is None else columns
        if not isinstance(k, (int, np.integer)) or k < 0 or -(-k // per_byte) != stored.shape[1]:
            raise ShapeError(f"QuantizedMatrix: values {stored.shape} of {bits} bits do not hold {k!r} columns")
        k = int(k)
        shape = stored.shape[0], 1 if group_size is None else -(-k // group_size)
        parts = [_part("scales", scales, np.dtype(np.float32))]
        if zero_points is not None:
            parts.append(_part("zero_points", zero_points, np.dtype(np.int8)))
        for name, part in zip(("scales", "zero_points"), parts, strict=False):
            if part.shape != shape:
                raise ShapeError(f"QuantizedMatrix: {name} {part.shape} must have the shape {shape}: rows, groups")
        if not (np.isfinite(parts[0]) & (parts[0] > 0)).all():
            raise ArgumentError("QuantizedMatrix: every scale must be finite and positive")
        if len(parts) > 1 and parts[1].size and bits == 4 and not -8 <= parts[1].min() <= parts[1].max() <= 7:
            raise ArgumentError("QuantizedMatrix: zero points of 4 bits lie in -8 ... 7")
        found = {"shape": (stored.shape[0], k), "bits": bits, "group_size": group_size, "method": method,
                 "values": stored, "scales": parts[0], "zero_points": parts[1] if len(parts) > 1 else None,
                 "c": None, "numba": None, "cuda": None}
        for name, value in found.items():
            super().__setattr__(name, value)

    def form(self, slot: str, make: Callable[[QuantizedMatrix], Any]) -> Any:
        """What is in the slot of a backend, made if need be."""
        return fill_once(self, slot, lambda: make(self))

    def make_c(self) -> Any:
        """The form of the C doors; one that finds the slot empty calls this."""
        def make(m: QuantizedMatrix) -> Any:
            if m.method == "dynamic":
                return native.door.pack(m.values.T)
            group = m.group_size or m.shape[1]
            return native.door.pack_weights(m.values, m.scales, m.zero_points, m.bits, group, *m.shape)
        return self.form("c", make)

    def integers(self) -> np.ndarray:
        """The numbers as int8 (N, K), whatever their bits."""
        if self.bits == 8:
            return self.values
        halves = np.stack([self.values << 4, self.values & 0xF0], axis=-1).view(np.int8) >> 4
        return halves.reshape(self.values.shape[0], 2 * self.values.shape[1])[:, :self.shape[1]]

    def each(self, per_group: np.ndarray) -> np.ndarray:
        """(N, G) as (N, K) or (N, 1)."""
        return per_group if self.group_size is None else per_group.repeat(self.group_size, axis=1)[:, :self.shape[1]]

    def dequantize(self, dtype: Any = np.float32) -> np.ndarray:
        """The matrix that this one stands for."""
        centred = self.integers().astype(dtype)
        if self.zero_points is not None:
            centred -= self.each(self.zero_points)
        centred *= self.each(self.scales)
        return centred

    @property
    def nbytes(self) -> int:
        """Bytes of values, scales and zero points, without what backends made of them."""
        return self.values.nbytes + self.scales.nbytes + (0 if self.zero_points is None else self.zero_points.nbytes)

    def __reduce__(self) -> Any:
        scheme = self.shape[1], self.bits, self.group_size, self.method
        return _rebuild, (self.values, self.scales, self.zero_points, *scheme)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a QuantizedMatrix cannot be changed; quantize the new matrix (setting {name!r})")

    def __repr__(self) -> str:
        groups = "" if self.group_size is None else f", groups of {self.group_size}"
        return f"QuantizedMatrix({self.shape}, int{self.bits}{groups}, {self.method})"


def _rebuild(values: Any, scales: Any, zeros: Any, columns: int, bits: int, group: int | None, method: str) -> Any:
    return QuantizedMatrix(values, scales, zeros, columns=columns, bits=bits, group_size=group, method=method)


def check_bits(what: str, bits: Any) -> None:
    """ArgumentError unless bits is the integer 8 or 4."""
    if not isinstance(bits, (int, np.integer)) or bits not in (4, 8):
        raise ArgumentError(f"{what}: bits is 8 or 4, not {bits!r}")


def _check_scheme(what: str, bits: Any, group_size: Any, method: Any) -> None:
    check_bits(what, bits)
    if group_size is not None and (not isinstance(group_size, (int, np.integer)) or group_size < 1):
        raise ArgumentError(f"{what}: group_size is a positive number of columns or None, not {group_size!r}")
    if method not in METHODS:
        raise ArgumentError(f"{what}: no method {method!r}; there are: {', '.join(METHODS)}")
    if method == "dynamic" and (bits != 8 or group_size is not None):
        raise ArgumentError(f"{what}: the method 'dynamic' needs 8 bits and no groups; use method='weight-only'")


def _part(name: str, x: Any, dtype: np.dtype) -> np.ndarray:
    """A read-only snapshot of one part."""
    a = arrays.as_array(x, name)
    if a.dtype != dtype:
        raise DTypeError(f"QuantizedMatrix: {name} must be {dtype}, not {a.dtype}")
    if a.ndim != 2:
        raise ShapeError(f"QuantizedMatrix: {name} must be a matrix, it has shape {arrays.shape_of(a)}")
    copy = arrays.on_a_line(a.shape, dtype)
    copy[...] = a
    owner: Any = copy.base
    owner.flags.writeable = copy.flags.writeable = False
    return copy


def quantize_weight(w: Any, bits: int = 8, group_size: int | None = None, *, method: str | None = None,
                    symmetric: bool = True) -> QuantizedMatrix:
    """The weights w (N, K) of a linear layer as integers of 8 or 4 bits, with a scale for each row, or group of a row.

    w float32, float64, float16 or bfloat16. symmetric: values -127 ... 127, or -7 ... 7, by the largest magnitude of
    the row or group; otherwise the whole range of the integers over [min, max], 0 included, with zero points. method
    says what `linear` does with it: "dynamic", the default for 8 bits without groups, quantizes each row of x as well
    and multiplies integers; "weight-only", the default otherwise, computes in float32, for few rows of x, when reading
    the weights is what takes the time. Raises ArgumentError where w holds a NaN or an infinity and for a scheme that
    does not exist, ShapeError for anything but two dimensions, DTypeError for other dtypes.

    >>> import numpy as np, tilewright as tw
    >>> q = tw.quantize_weight(np.array([[1.0, -0.5], [0.0, 254.0]], np.float32))
    >>> q.values, q.scales[1]
    (array([[127, -64],
           [  0, 127]], dtype=int8), array([2.], dtype=float32))
    >>> tw.quantize_weight(np.ones((2, 64), np.float32), bits=4, group_size=32)
    QuantizedMatrix((2, 64), int4, groups of 32, weight-only)
    """
    if method is None:
        method = "dynamic" if bits == 8 and group_size is None else "weight-only"
    _check_scheme("quantize_weight", bits, group_size, method)
    a = arrays.as_array(w, "w")
    if arrays.name_of(a.dtype) not in FLOATS + HALVES:
        raise DTypeError(f"quantize_weight takes {', '.join(FLOATS + HALVES)}; w {arrays.shape_of(a)} is {a.dtype}")
    if a.ndim != 2:
        raise ShapeError(f"quantize_weight: w must be a matrix (out, in), it has shape {arrays.shape_of(a)}")
    with np.errstate(over="ignore"):
        a = a.astype(np.float32)
    if not np.isfinite(a).all():
        raise ArgumentError("quantize_weight: w holds a NaN, an infinity, or a number beyond float32")
    n, k = a.shape
    group = max(k, 1) if group_size is None else int(group_size)
    groups = 1 if group_size is None else -(-k // group)
    padded = np.zeros((n, groups * group), np.float32)
    padded[:, :k] = a
    padded = padded.reshape(n, groups, group)
    scales, zeros = grids(padded, bits, symmetric)
    q = np.rint(padded / scales[..., None]) + (0 if zeros is None else zeros[..., None].astype(np.float32))
    low = -(1 << bits - 1)
    values = np.clip(q, low, -low - 1).astype(np.int8).reshape(n, groups * group)[:, :k]
    if bits == 4:
        values = packed_int4(values)
    return QuantizedMatrix(values, scales, zeros, columns=k, bits=bits, method=method,
                           group_size=None if group_size is None else group)


def packed_int4(values: np.ndarray) -> np.ndarray:
    """int8 (N, K) in -8 ... 7 as uint8 (N, ceil(K / 2)): even k in the low half of a byte."""
    halves = values.view(np.uint8) & 15
    packed = halves[:, ::2].copy()
    packed[:, :halves.shape[1] // 2] |= halves[:, 1::2] << 4
    return packed


_TINY = np.float32(2.0 ** -120)  # the least scale: smaller weights are zeros, and no quotient overflows


def grids(x: np.ndarray, bits: int, symmetric: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Scales and zero points (None: all 0), (N, G), for groups x (N, G, size); a group of zeros has scale 1."""
    top = (1 << bits - 1) - 1
    if symmetric:
        scales = np.abs(x).max(axis=2, initial=0) / np.float32(top)
        return np.where(scales == 0, np.float32(1), np.maximum(scales, _TINY)), None
    steps = np.float32((1 << bits) - 1)
    low, high = x.min(axis=2, initial=0), x.max(axis=2, initial=0)
    scales = high / steps - low / steps
    scales = np.where(scales == 0, np.float32(1), np.maximum(scales, _TINY))
    return scales, np.clip(np.rint(-low / scales) - (top + 1), -top - 1, top).astype(np.int8)


QuantizedMatrix.__module__ = "tilewright"
if native.door is not None:
    native.door.set_quantized(QuantizedMatrix)
