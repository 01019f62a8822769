"""Arithmetic of tensors: the methods that are NumPy's functions, put on the tape by the rules of elementary.py."""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import dispatch
from ..core.device_arrays import DeviceArray, shares_memory
from ..core.errors import DTypeError, GradientError, ReplayError, ShapeError
from ..core.foreign import view_of as view_on_device
from .elementary import RULES, Rule, unbroadcast
from .tape import Guard, Node, Version, recording

if TYPE_CHECKING:
    from .tensor import Tensor


class Arithmetic:
    """What Tensor inherits: operators, functions of elements, reductions, views, changes in place."""

    __slots__ = ()

    data: np.ndarray
    requires_grad: bool
    _node: Node | None
    _version: Version
    _made: Callable[[Any], Tensor]  # the tensor of a result

    # ---- functions

    def __add__(self, other: Any) -> Tensor:
        return _binary("add", self, other)

    def __radd__(self, other: Any) -> Tensor:
        return _binary("add", other, self)

    def __sub__(self, other: Any) -> Tensor:
        return _binary("subtract", self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return _binary("subtract", other, self)

    def __mul__(self, other: Any) -> Tensor:
        return _binary("multiply", self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return _binary("multiply", other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return _binary("divide", self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return _binary("divide", other, self)

    def __pow__(self, other: Any) -> Tensor:
        return _binary("power", self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return _binary("power", other, self)

    def __neg__(self) -> Tensor:
        return _unary("negative", self)

    def __abs__(self) -> Tensor:
        return _unary("abs", self)

    def abs(self) -> Tensor:
        """Absolute value; the derivative at 0 is 0."""
        return _unary("abs", self)

    def exp(self) -> Tensor:
        """e to the power of each element."""
        return _unary("exp", self)

    def log(self) -> Tensor:
        """Natural logarithm."""
        return _unary("log", self)

    def sqrt(self) -> Tensor:
        """Square root."""
        return _unary("sqrt", self)

    def pow(self, exponent: Any) -> Tensor:
        """Each element to a power; a number or a tensor that broadcasts."""
        return _binary("power", self, exponent)

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """Sum over all axes, one or several."""
        return _unary("sum", self, axis, keepdims)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """Mean over all axes, one or several."""
        return _unary("mean", self, axis, keepdims)

    def max(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """Largest element; the gradient is shared equally where several are the largest."""
        return _unary("max", self, axis, keepdims)

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in another shape, as NumPy: a view where that is possible."""
        return view_of(self, _unary("reshape", self, _only(shape)))

    def transpose(self, *axes: Any) -> Tensor:
        """A view with the axes in another order; reversed where none is given."""
        order = _only(axes) or tuple(range(self.data.ndim))[::-1]
        return view_of(self, _unary("transpose", self, order))

    def astype(self, dtype: Any) -> Tensor:
        """A copy in another dtype; the gradient comes back in this one's."""
        return _unary("cast", self, np.dtype(dtype))

    def __getitem__(self, index: Any) -> Tensor:
        return view_of(self, _unary("index", self, _plain(index)))

    # ---- in place

    def __setitem__(self, index: Any, value: Any) -> None:
        _in_place("set", self, value, _plain(index))

    def __iadd__(self, other: Any) -> Tensor:
        return _in_place("add", self, other)

    def __isub__(self, other: Any) -> Tensor:
        return _in_place("subtract", self, other)

    def __imul__(self, other: Any) -> Tensor:
        return _in_place("multiply", self, other)

    def __itruediv__(self, other: Any) -> Tensor:
        return _in_place("divide", self, other)

    def add_(self, other: Any) -> Tensor:
        """Add in place."""
        return _in_place("add", self, other)

    def mul_(self, other: Any) -> Tensor:
        """Multiply in place."""
        return _in_place("multiply", self, other)

    def copy_(self, other: Any) -> Tensor:
        """Take over the values of another array, broadcast to this shape."""
        return _in_place("set", self, other, ...)

    def zero_(self) -> Tensor:
        """Set every element to 0."""
        return _in_place("set", self, 0, ...)


def as_array(data: Any, dtype: Any) -> np.ndarray:
    """What a tensor is made of: floats, integers or booleans."""
    if isinstance(data, Arithmetic):
        data = data.data
    if (view := view_on_device(data)) is not None:
        if dtype is not None and np.dtype(dtype) != view.dtype:
            raise DTypeError(f"Tensor: an array on a device stays {view.dtype}; astype converts it there")
        return DeviceArray(view)  # type: ignore[return-value]
    try:
        array = np.asarray(data, dtype)
    except (TypeError, ValueError) as error:
        raise DTypeError(f"Tensor: this cannot be read as an array: {error}") from None
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise DTypeError(f"Tensor: holds floats, integers or booleans, not {array.dtype}")
    return array


def _only(args: tuple[Any, ...]) -> Any:
    """f((2, 3)) and f(2, 3) mean the same."""
    return args[0] if len(args) == 1 and isinstance(args[0], (tuple, list)) else args


def _plain(index: Any) -> Any:
    """An index without tensors in it."""
    if isinstance(index, tuple):
        return tuple(i.data if isinstance(i, Arithmetic) else i for i in index)
    return index.data if isinstance(index, Arithmetic) else index


def view_of(base: Arithmetic, t: Tensor) -> Tensor:
    """Let `t` count changes together with `base` where they share memory."""
    if shares_memory(base.data, t.data):
        t._version = base._version
        base._version.shared = True
    return t


def _parent(x: Any) -> Any:
    """Where a gradient for this operand goes: a node, a leaf, or None."""
    return (x._node or x) if isinstance(x, Arithmetic) and x.requires_grad else None


def _not_replayed(name: str) -> None:
    """Only operations of the table are recorded by `compile`; the elementary functions are NumPy's."""
    if dispatch.recording() is not None:
        raise ReplayError(f"compile: {name} of tensors cannot be replayed; use the operations, layers and losses of "
                          "tilewright, or compute it outside of the step")


def _unary(name: str, x: Arithmetic, *attrs: Any) -> Tensor:
    if name not in ("reshape", "transpose", "index"):  # these are views, or will be found to be none
        _not_replayed(name)
    rule = RULES[name]
    try:
        y = rule.forward(x.data, *attrs)
    except ValueError as error:
        raise ShapeError(f"{name} of a tensor of shape {x.data.shape}: {error}") from None
    if not (x.requires_grad and recording()):
        return x._made(y)
    return _record(name, rule, (x,), (x._node or x,), y, attrs)


def _binary(name: str, a: Any, b: Any, *attrs: Any) -> Tensor:
    _not_replayed(name)
    rule = RULES[name]
    operands = a, b
    a_data, b_data = (x.data if isinstance(x, Arithmetic) else _operand(x) for x in operands)
    try:
        y = rule.forward(a_data, b_data, *attrs)
    except ValueError as error:
        raise ShapeError(f"{name} of shapes {np.shape(a_data)} and {np.shape(b_data)}: {error}") from None
    parents = (_parent(a), _parent(b)) if recording() else (None, None)
    if parents == (None, None):
        return (a if isinstance(a, Arithmetic) else b)._made(y)
    return _record(name, rule, operands, parents, y, attrs)


def _operand(x: Any) -> Any:
    """A Python number stays one (and does not widen float32); everything else becomes an array."""
    return x if isinstance(x, (int, float)) else as_array(x, None)


def _record(name: str, rule: Rule, operands: tuple[Any, ...], parents: tuple[Any, ...], y: Any, attrs: tuple) -> Tensor:
    """The tensor of a result, with a node that keeps what the gradients of the operands that want one will read."""
    reads = "".join(r for r, parent in zip(rule.reads, parents, strict=True) if parent is not None)
    arrays = [x.data if isinstance(x, Arithmetic) else x for x in operands]
    t = next(x for x in operands if isinstance(x, Arithmetic))._made(y)
    guards: list[Guard] = [(x._version, x._version.count) for x, letter in zip(operands, "ab", strict=False)
                           if letter in reads and isinstance(x, Arithmetic)]
    if "y" in reads:
        guards.append((t._version, 0))
    saved = rule, arrays[0], arrays[1] if len(arrays) > 1 else None, t.data if "y" in reads else None, attrs
    t._node = Node(name, _elementary_backward, parents, saved, tuple(guards))
    t.requires_grad = True
    return t


def _elementary_backward(dy: Any, saved: Any, parents: tuple[Any, ...]) -> list[Any]:
    rule, a, b, y, attrs = saved
    return [None if parent is None else unbroadcast(gradient(dy, a, b, y, *attrs), np.shape(x))
            for parent, gradient, x in zip(parents, rule.gradients, (a, b), strict=False)]


def _in_place(name: str, target: Any, value: Any, *attrs: Any) -> Any:
    """Write a result into the target's own memory; on the tape, the target becomes that result."""
    if recording():
        if target.requires_grad and target._node is None:
            raise GradientError("a leaf that requires a gradient is not changed in place while the tape records; "
                                "do it in `with tw.no_grad():`")
        if target._version.shared and (target.requires_grad or _parent(value) is not None):
            raise GradientError("a tensor that shares its memory with another (a view) is not changed in place while "
                                "the tape records; use an operation that makes a new tensor, or `with tw.no_grad():`")
    result = _binary(name, target, value, *attrs)
    if result.shape != target.shape:
        raise ShapeError(f"in place: the result has shape {result.shape}, the tensor {target.shape}")
    if not np.can_cast(result.dtype, target.dtype, "same_kind"):
        raise DTypeError(f"in place: the result is {result.dtype}, the tensor {target.dtype}")
    target.data[...] = result.data
    target._version.count += 1
    if result._node is not None:
        target._node, target.requires_grad = result._node, True
        # y is the target's memory from now on: `result` lives only in the node's record.
    return target
