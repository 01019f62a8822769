"""What quantize_linear, dequantize_linear and dynamic_quantize_linear are.

Source: ONNX QuantizeLinear, DequantizeLinear (opset 25, integers only), DynamicQuantizeLinear (opset 11). All
arithmetic is float32, each operation rounded once, so that every backend gives the same bits:

    quantize      saturate(round_half_even(x / scale) + zero)      the quotient is limited before it is converted
    dequantize    float32(x - zero) * scale
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tilewright.core import arrays, sampling
from tilewright.core.checking import ulp
from tilewright.core.errors import ArgumentError, DTypeError, ShapeError
from tilewright.core.registry import FLOATS, HALVES, Call, Case, Spec

INTEGERS = ("uint8", "int8", "uint16", "int16")
SMALL = {"int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}  # of ml_dtypes, where each has a byte
_FLOAT32 = np.dtype(np.float32)


def range_of(dtype: np.dtype) -> tuple[int, int]:
    """Smallest and largest integer of a dtype that quantize_linear gives."""
    name = arrays.name_of(dtype)
    if name in SMALL:
        return SMALL[name]
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def stored(dtype: np.dtype) -> np.dtype:
    """The dtype as kernels know it: what is smaller than a byte is int8 or uint8, with a range of its own."""
    name = arrays.name_of(dtype)
    return np.dtype(f"{name[:-1]}8") if name in SMALL else dtype


# ---- scales and zero points, also of the quantized products

def scales(op: str, x: Any, name: str) -> np.ndarray:
    """Scales as float32: finite and positive."""
    if x is None:
        raise DTypeError(f"{op} needs a number or an array for {name}, not None")
    a = arrays.as_array(x, name)
    if a.dtype.kind not in "iuf" and arrays.name_of(a.dtype) not in HALVES:
        raise DTypeError(f"{op}: {name} must be a float, it is {a.dtype}")
    if not arrays.readable(a):  # whatever it holds: that is for a kernel to find out
        return arrays.normal(a, _FLOAT32, name, [])
    with np.errstate(over="ignore", under="ignore"):
        a = a.astype(np.float32)
    good = np.isfinite(a) & (a > 0)
    if not good.all():
        wrong = a[~good].flat[0] if a.ndim else a
        raise ArgumentError(f"{op}: {name} must be finite and positive in float32, it is or holds {wrong}")
    return a


def zero_points(op: str, x: Any, name: str, dtype: np.dtype) -> np.ndarray | None:
    """Zero points as int32, in the range of `dtype`; None stays None, and stands for zeros."""
    if x is None:
        return None
    a = arrays.as_array(x, name)
    if type(x) is not int and a.dtype.kind not in "iu" and arrays.name_of(a.dtype) not in SMALL:
        raise DTypeError(f"{op}: {name} must be an integer of dtype {dtype}, it is {a.dtype}")
    if not arrays.readable(a):
        return arrays.normal(a, np.dtype(np.int32), name, [])
    if a.dtype.kind not in "iuO":  # what is smaller than a byte; Python's integers of more than 64 bits are objects
        a = a.astype(np.int64)
    low, high = range_of(dtype)
    wrong = (a < low) | (a > high)
    if wrong.any():
        raise ArgumentError(f"{op}: {name} {a[wrong].flat[0] if a.ndim else a} is outside of {dtype}, {low} ... {high}")
    return a.astype(np.int32)


def _spread(op: str, name: str, p: np.ndarray, x: np.ndarray, axis: Any, block: Any) -> np.ndarray:
    """Scales or zero points as an array of x's shape: a view with zero strides, but for blocks."""
    if not isinstance(block, (int, np.integer)) or block < 0:
        raise ArgumentError(f"{op}: block_size is a number of elements, or 0 for none, not {block!r}")
    if p.ndim == 0 or (p.size == 1 and not block):
        return np.broadcast_to(p.reshape(()), x.shape)
    at = arrays.normal_axis(axis, x.ndim, op)
    if block:
        want = (*x.shape[:at], -(-x.shape[at] // block), *x.shape[at + 1:])
        if p.shape != want:
            raise ShapeError(f"{op}: {name} {p.shape} must have the shape {want}: x {x.shape} in blocks of {block} "
                             f"along axis {at}")
        return p.repeat(block, axis=at)[(slice(None),) * at + (slice(x.shape[at]),)]
    if p.shape != (x.shape[at],):
        raise ShapeError(f"{op}: {name} {p.shape} must be one number, or have the shape ({x.shape[at]},) of x's axis "
                         f"{at}")
    return np.broadcast_to(p.reshape(-1, *(1,) * (x.ndim - at - 1)), x.shape)


def _parameters(op: str, x: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, attrs: dict) -> tuple:
    axis, block = attrs.get("axis", 1), attrs.get("block_size", 0)
    if zero is not None and zero.shape != scale.shape and zero.size * scale.size != 1:
        raise ShapeError(f"{op}: zero points {zero.shape} must have the shape {scale.shape} of the scales")
    if zero is None:
        zero = np.zeros((), np.int32)
        return _spread(op, "the scales", scale, x, axis, block), np.broadcast_to(zero, x.shape)
    return (_spread(op, "the scales", scale, x, axis, block), _spread(op, "the zero points", zero, x, axis, block))


# ---- normal forms: (x, scale, zero), the last two of x's shape

def _prepare_quantize(inputs: tuple, attrs: dict) -> Call:
    op, copies = "quantize_linear", list[str]()
    x = _floats(op, inputs[0], copies)
    scale = scales(op, inputs[1], "y_scale")
    given = inputs[2]
    dtype = _result_dtype(op, given, attrs.get("output_dtype"))
    low, high = range_of(dtype)
    zero = zero_points(op, given, "y_zero_point", dtype)
    kind = stored(dtype)
    view = (lambda out: out.view(kind)) if kind != dtype else None
    return Call(op, (x, *_parameters(op, x, scale, zero, attrs)), {"low": low, "high": high}, ((x.shape, dtype),),
                (view,), copies, key=kind)


def _floats(op: str, x: Any, copies: list[str]) -> np.ndarray:
    x, = arrays.operands(op, ("x",), (x,), FLOATS + HALVES, copies)
    return arrays.normal(x, _FLOAT32, "x", copies)


def _result_dtype(op: str, zero: Any, asked: Any) -> np.dtype:
    """output_dtype, else that of the zero points, else uint8; Python's integers say nothing."""
    if asked is None and isinstance(zero, (np.ndarray, np.generic)):
        asked = zero.dtype
    if asked is None:
        return np.dtype(np.uint8)
    dtype = _small(asked) if isinstance(asked, str) and asked in SMALL else np.dtype(asked)
    if arrays.name_of(dtype) not in (*INTEGERS, *SMALL):
        raise DTypeError(f"{op} gives {', '.join((*INTEGERS, *SMALL))}, not {dtype}; say which by output_dtype, or by "
                         "the dtype of the zero point")
    return dtype


def _small(name: str) -> np.dtype:
    import ml_dtypes
    return np.dtype(getattr(ml_dtypes, name))


def _prepare_dequantize(inputs: tuple, attrs: dict) -> Call:
    op, copies = "dequantize_linear", list[str]()
    x = arrays.as_array(inputs[0], "x")
    name = arrays.name_of(x.dtype)
    if name not in (*INTEGERS, *SMALL, "int32"):
        raise DTypeError(f"{op} takes {', '.join((*INTEGERS, *SMALL, 'int32'))}; x {arrays.shape_of(x)} is {x.dtype}")
    scale, zero = scales(op, inputs[1], "x_scale"), zero_points(op, inputs[2], "x_zero_point", x.dtype)
    if name == "int32" and zero is not None and zero.any():
        raise ArgumentError(f"{op}: int32 has no zero point but 0")
    x = arrays.normal(x, stored(x.dtype), "x", copies)
    return Call(op, (x, *_parameters(op, x, scale, zero, attrs)), {}, ((x.shape, _FLOAT32),), (), copies, key=x.dtype)


def _prepare_dynamic(inputs: tuple, attrs: dict) -> Call:
    op, copies = "dynamic_quantize_linear", list[str]()
    x = _floats(op, inputs[0], copies)
    uint8 = np.dtype(np.uint8)
    return Call(op, (x,), {}, ((x.shape, uint8), ((), _FLOAT32), ((), uint8)), copies=copies)


# ---- definitions; the oracles, and what NumPy's kernels run

def quantize(x: np.ndarray, scale: Any, zero: Any, low: int, high: int) -> np.ndarray:
    """Integers as int32. All arguments float32 or int32; NaN becomes `low`."""
    with np.errstate(all="ignore"):
        q = np.rint(x / scale)
    least, most = (np.asarray(limit - zero, np.float32) for limit in (low, high))
    return np.where(q > least, np.minimum(q, most), least).astype(np.int32) + zero


def dynamic_parameters(x: np.ndarray) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of dynamic_quantize_linear; the scale is NaN where x's range is not a finite float32."""
    low, high = (np.float32(f(x, initial=0)) for f in (np.min, np.max))
    with np.errstate(all="ignore"):
        scale = (high - low) / np.float32(255)
        if not np.isfinite(scale):
            return np.float32(np.nan), np.uint8(0)
        scale = scale if scale > 0 else np.float32(1)
        return scale, np.uint8(np.rint(np.clip(-low / scale, 0, 255)))


def dynamic(x: np.ndarray) -> tuple[np.ndarray, np.float32, np.uint8]:
    """dynamic_quantize_linear of x float32."""
    scale, zero = dynamic_parameters(x)
    if np.isnan(scale):
        return np.zeros(x.shape, np.uint8), scale, zero
    return quantize(x, scale, np.int32(zero), 0, 255).astype(np.uint8), scale, zero


def _quantize_oracle(call: Call) -> tuple:
    x, scale, zero = call.inputs
    return (quantize(x, scale, zero, call.attrs["low"], call.attrs["high"]),)


def _dequantize_oracle(call: Call) -> tuple:
    x, scale, zero = call.inputs
    return ((x.astype(np.int64) - zero).astype(np.float32).astype(np.float64) * scale,)


def _dynamic_oracle(call: Call) -> tuple:
    y, scale, zero = dynamic(call.inputs[0])
    return y.astype(np.int32), np.asarray(scale, np.float64), np.asarray(zero, np.int32)


def _exact(call: Call, expected: tuple) -> tuple:
    return tuple(np.zeros(e.shape) for e in expected)


def _dequantize_bound(call: Call, expected: tuple) -> tuple:
    """One rounding of the product, to nearest."""
    return (0.5 * ulp(expected[0], np.float32),)


# ---- samples

SHAPES = ((), (0,), (1,), (7,), (1000,), (3, 1), (1, 65), (33, 129), (17, 64), (2, 0, 5), (4, 3, 50), (2, 3, 4, 17),
          (70, 700))


def integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, layout: str = "c") -> np.ndarray:
    """Numbers of the whole range of a dtype, its ends more often than others."""
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max, shape, np.int64, endpoint=True)
    ends = rng.integers(0, 16, shape)
    x = np.where(ends == 0, info.min, np.where(ends == 1, info.max, x))
    return sampling.laid_out(x.astype(dtype), layout)


def _forms(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Iterator[tuple[Any, Any, dict]]:
    """(scale, zero point, attributes): one number; one an index of an axis; blocks."""
    def exponents(size: Any) -> Any:  # quotients half way between integers
        return np.float32(2) ** rng.integers(-6, 3, size).astype(np.float32)
    yield rng.uniform(0.01, 2, ()).astype(np.float32), integers(rng, (), dtype), {}
    yield exponents(()), None, {"output_dtype": dtype}
    if not shape:
        return
    axis = int(rng.integers(-len(shape), len(shape)))
    size = shape[axis]
    yield rng.uniform(0.01, 2, size).astype(np.float32), integers(rng, (size,), dtype), {"axis": axis}
    yield exponents(size), integers(rng, (size,), dtype), {"axis": axis}
    if len(shape) > 1:
        blocked = (*shape[:1], -(-shape[1] // 5), *shape[2:])
        yield exponents(blocked), integers(rng, blocked, dtype), {"axis": 1, "block_size": 5}


def _quantize_cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
    spread = float(np.iinfo(dtype).max)
    for shape in SHAPES:
        for scale, zero, attrs in _forms(rng, shape, dtype):
            layout = sampling.any_layout(rng)
            x = sampling.normal(rng, shape, "float32", "c", spread / 2)
            x = np.where(rng.integers(0, 3, shape) > 0, x, np.round(2 * x) / 2).astype(np.float32)  # halves: ties
            yield Case((sampling.laid_out(x, layout), scale, zero), attrs, f"{shape} {layout} {attrs}")
    special = sampling.specials("float32")
    for size in (1e-30, 0.3, 1.0, 1e30):
        yield Case((special, np.float32(size), np.dtype(dtype).type(3)), {}, f"special values, scale {size}")
    ties = np.arange(-600, 600, dtype=np.float32) / 2
    yield Case((ties, 1.0, np.dtype(dtype).type(1)), {}, "every tie")
    for other in FLOATS[1:] + HALVES:
        yield Case((sampling.normal(rng, (9, 33), other, "c", 50.0), 0.5, np.dtype(dtype).type(7)), {}, other)
    if dtype in ("int8", "uint8"):
        yield Case((sampling.normal(rng, (9, 33), "float32", "c", 9.0), 1.5, None),
                   {"output_dtype": dtype.replace("8", "4")}, "4 bits")


def _dequantize_cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
    for shape in SHAPES:
        for scale, zero, attrs in _forms(rng, shape, dtype):
            layout = sampling.any_layout(rng)
            attrs = {name: value for name, value in attrs.items() if name != "output_dtype"}
            yield Case((integers(rng, shape, dtype, layout), scale, None if dtype == "int32" else zero), attrs,
                       f"{shape} {layout} {attrs}")
    if dtype in ("int8", "uint8"):
        halves = integers(rng, (9, 33), dtype) >> 4
        yield Case((halves.astype(_small(dtype.replace("8", "4"))), 0.7, None), {}, "4 bits")
    if dtype != "int32":
        yield Case((integers(rng, (64,), dtype), np.float32(1e-44), None), {}, "denormal scale")


def _dynamic_cases(rng: np.random.Generator, dtype: str) -> Iterator[Case]:
    for shape in SHAPES:
        for shift in (0.0, 3.0, -3.0):
            layout = sampling.any_layout(rng)
            x = rng.standard_normal(shape) * np.float32(10) ** int(rng.integers(-3, 4)) + shift
            yield Case((sampling.laid_out(x.astype(np.float32), layout),), {}, f"{shape} {layout} {shift:+}")
    yield Case((sampling.normal(rng, (2, 4, 12), "float32")[:, :3, :8],), {}, "rows and planes with gaps between them")
    for label, values in (("zeros", [0.0, -0.0, 0.0]), ("NaN", [1.0, np.nan, -1.0]), ("infinity", [1.0, np.inf, -1.0]),
                          ("-infinity", [1.0, -np.inf]), ("range beyond float32", [3e38, -3e38]),
                          ("denormals", [1e-44, 2e-44]), ("one denormal", [1e-45, 0.0]),
                          ("ties", [0.0, 255.0, 0.5, 1.5, 2.5, 253.5])):
        yield Case((np.array(values, np.float32).repeat(11),), {}, label)


_BENCH = {"small": (64, 64), "medium": (256, 1024), "large": (2048, 2048)}


def _bench(op: str) -> Any:
    def bench(rng: np.random.Generator, dtype: str, size: str) -> Iterator[Case]:
        shape = _BENCH[size]
        for label, scale_shape in (("", ()), (" by column", shape[1:])) if op != "dynamic" else (("", ()),):
            scale = rng.uniform(0.01, 0.03, scale_shape).astype(np.float32)
            zero = integers(rng, scale_shape, dtype) if op != "dynamic" and dtype != "int32" else None
            x = integers(rng, shape, dtype) if op == "dequantize" else sampling.normal(rng, shape, "float32")
            yield Case((x,) if op == "dynamic" else (x, scale, zero), {}, f"{shape[0]}x{shape[1]}{label}")
    return bench


def _nbytes(call: Call) -> float:
    x = call.inputs[0]
    return float(x.nbytes + sum(np.prod(shape) * dtype.itemsize for shape, dtype in call.outputs))


def _flops(call: Call) -> float:
    return 2.0 * call.inputs[0].size


SPECS = [
    Spec("quantize_linear", "quantize", "saturate(round(x / y_scale) + y_zero_point)", ("x", "y_scale", "y_zero_point"),
         _prepare_quantize, _quantize_oracle, _exact, _flops, _nbytes, _quantize_cases, _bench("quantize"),
         dtypes=INTEGERS),
    Spec("dequantize_linear", "quantize", "(x - x_zero_point) · x_scale", ("x", "x_scale", "x_zero_point"),
         _prepare_dequantize, _dequantize_oracle, _dequantize_bound, _flops, _nbytes, _dequantize_cases,
         _bench("dequantize"), dtypes=(*INTEGERS, "int32")),
    Spec("dynamic_quantize_linear", "quantize", "x as uint8 over its own range", ("x",), _prepare_dynamic,
         _dynamic_oracle, _exact, _flops, _nbytes, _dynamic_cases, _bench("dynamic"), dtypes=("float32",)),
]
