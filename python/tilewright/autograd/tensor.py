"""Tensor: an ndarray whose uses the tape remembers."""
from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from ..core import dispatch
from ..core.errors import DTypeError, GradientError, ReplayError, ShapeError
from ..core.packed import PackedMatrix
from . import table, tape
from .buffers import Spare
from .elementary import RULES, Rule, unbroadcast
from .tape import Guard, Node, Version, recording

_new = object.__new__


def is_float(dtype: np.dtype) -> bool:
    """Whether tensors of this dtype can have gradients."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


class Tensor:
    """An array that records what is computed from it, so that `backward` finds the derivatives.

    Tensor(data, *, requires_grad=False, dtype=None): `data` is anything NumPy takes; an ndarray is not copied and keeps
    its dtype. Arithmetic broadcasts and promotes as NumPy does; all public operations (`tw.linear`, `tw.softmax`, ...)
    accept tensors and return them.

    data            the ndarray; what is written straight into it is not seen by the tape
    grad            None, or the gradient as an ndarray of the same shape and dtype: of leaves only, added up by every
                    backward until it is set to None
    requires_grad   whether results computed from this go on the tape; only float dtypes can

    In-place changes (`t += 1`, `t[0] = 2`, `t.copy_(x)`) are counted: a backward that needs the value from before
    raises GradientError.

    >>> import tilewright as tw
    >>> x = tw.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    array([2., 4., 6.])
    """

    __slots__ = ("data", "requires_grad", "grad", "_node", "_version", "_spare", "__weakref__")
    __array_ufunc__ = None  # ndarray + Tensor asks Tensor
    __hash__ = object.__hash__

    def __init__(self, data: Any, *, requires_grad: bool = False, dtype: Any = None):
        if type(data) is not np.ndarray or dtype is not None:
            if requires_grad and isinstance(data, PackedMatrix):
                raise GradientError("a packed matrix is a snapshot and has no gradient; make a tensor of the matrix "
                                    "itself, and pack it once it stays as it is")
            data = _array(data, dtype)
        self.data: np.ndarray = data
        self.grad: np.ndarray | None = None
        self._node: Node | None = None
        self._version = Version()
        self._spare: Spare | None = None
        self.requires_grad = requires_grad
        if requires_grad and not is_float(data.dtype):
            raise DTypeError(f"only tensors of floats can require a gradient, not {data.dtype}")

    # ---- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.data.size

    @property
    def dtype(self) -> np.dtype:
        """NumPy's dtype."""
        return self.data.dtype

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by hand and not computed on the tape."""
        return self._node is None

    @property
    def T(self) -> Tensor:
        """The axes in reverse order."""
        return self.transpose()

    def numpy(self) -> np.ndarray:
        """The ndarray itself, off the tape; shares memory."""
        return self.data

    def item(self) -> Any:
        """The only element as a Python number."""
        return self.data.item()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.data, dtype, copy=copy)

    def __len__(self) -> int:
        return len(self.data)

    def __float__(self) -> float:
        return float(self.data.item())

    def __int__(self) -> int:
        return int(self.data.item())

    def __bool__(self) -> bool:
        return bool(self.data.item())

    def __repr__(self) -> str:
        text = np.array2string(self.data, separator=", ", prefix="Tensor(")
        made = f", from {self._node.name}" if self._node else ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({text}, {self.data.dtype}{made})"

    # ---- gradients

    def backward(self, gradient: Any = None, *, retain_graph: bool = False) -> None:
        """Add the derivative of this tensor to the `grad` of every leaf it was computed from.

        gradient: of the same shape; 1 for a tensor with one element. The values saved on the way are released, and a
        second backward raises, unless retain_graph. Raises GradientError where that cannot be right, ShapeError for a
        gradient of another shape.
        """
        if not self.requires_grad:
            raise GradientError("backward: nothing that this tensor was computed from requires a gradient")
        data = self.data
        if gradient is None:
            if data.size != 1:
                raise GradientError(f"backward: a tensor of shape {data.shape} needs a gradient of that shape; "
                                    f"reduce it to one number first, or pass gradient=")
            gradient = _one(data.dtype) if data.ndim == 0 else np.ones(data.shape, data.dtype)
        else:
            gradient = np.asarray(gradient, data.dtype)
            if gradient.shape != data.shape:
                raise ShapeError(f"backward: the gradient has shape {gradient.shape}, the tensor {data.shape}")
        if self._node is None:
            tape.accumulate(self, gradient, gradient)
        else:
            tape.backward(self._node, gradient, retain_graph)

    def detach(self) -> Tensor:
        """A tensor of the same memory that is not on the tape."""
        return _view_of(self, Tensor(self.data))

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Switch `requires_grad` of a leaf; returns it."""
        if self._node is not None:
            raise GradientError("requires_grad_: this tensor was computed; use detach() first")
        if requires_grad and not is_float(self.dtype):
            raise DTypeError(f"only tensors of floats can require a gradient, not {self.dtype}")
        self.requires_grad = requires_grad
        return self

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

    def __matmul__(self, other: Any) -> Tensor:
        return apply("matmul", (self, other), {})

    def __rmatmul__(self, other: Any) -> Tensor:
        return apply("matmul", (other, self), {})

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

    def matmul(self, other: Any) -> Tensor:
        """The product `self @ other`, as `tw.matmul`."""
        return apply("matmul", (self, other), {})

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
        return _view_of(self, _unary("reshape", self, _only(shape)))

    def transpose(self, *axes: Any) -> Tensor:
        """A view with the axes in another order; reversed where none is given."""
        order = _only(axes) or tuple(range(self.ndim))[::-1]
        return _view_of(self, _unary("transpose", self, order))

    def astype(self, dtype: Any) -> Tensor:
        """A copy in another dtype; the gradient comes back in this one's."""
        return _unary("cast", self, np.dtype(dtype))

    def __getitem__(self, index: Any) -> Tensor:
        return _view_of(self, _unary("index", self, _plain(index)))

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

    # ---- the operations of the table

    def __tilewright_function__(self, op: str, inputs: tuple, attrs: dict[str, Any], out: Any,
                                backend: str | None) -> Any:
        if out is not None:
            raise GradientError(f"{op}: out= cannot be given together with tensors; their results are new tensors")
        return apply(op, inputs, attrs, backend)


@cache
def _one(dtype: np.dtype) -> np.ndarray:
    """The number 1, where a backward usually starts; nobody writes into it."""
    one = np.ones((), dtype)
    one.flags.writeable = False
    return one


def _array(data: Any, dtype: Any) -> np.ndarray:
    if isinstance(data, Tensor):
        data = data.data
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
        return tuple(i.data if isinstance(i, Tensor) else i for i in index)
    return index.data if isinstance(index, Tensor) else index


def _view_of(base: Tensor, t: Tensor) -> Tensor:
    """Let `t` count changes together with `base` where they share memory."""
    if np.may_share_memory(base.data, t.data):
        t._version = base._version
        base._version.shared = True
    return t


def made(data: Any) -> Tensor:
    """The tensor of a result, not on the tape yet."""
    t = _new(Tensor)
    t.data = data if type(data) is np.ndarray else np.asarray(data)
    t.grad = None
    t._node = None
    t._version = Version()
    t._spare = None
    t.requires_grad = False
    return t


def _parent(x: Any) -> Any:
    """Where a gradient for this operand goes: a node, a leaf, or None."""
    return (x._node or x) if isinstance(x, Tensor) and x.requires_grad else None


def _not_replayed(name: str) -> None:
    """Only operations of the table are recorded by `compile`; the elementary functions are NumPy's."""
    if dispatch.recording() is not None:
        raise ReplayError(f"compile: {name} of tensors cannot be replayed; use the operations, layers and losses of "
                          "tilewright, or compute it outside of the step")


def _unary(name: str, x: Tensor, *attrs: Any) -> Tensor:
    if name not in ("reshape", "transpose", "index"):  # these are views, or will be found to be none
        _not_replayed(name)
    rule = RULES[name]
    try:
        y = rule.forward(x.data, *attrs)
    except ValueError as error:
        raise ShapeError(f"{name} of a tensor of shape {x.shape}: {error}") from None
    if not (x.requires_grad and recording()):
        return made(y)
    return _record(name, rule, (x,), (x._node or x,), y, attrs)


def _binary(name: str, a: Any, b: Any, *attrs: Any) -> Tensor:
    _not_replayed(name)
    rule = RULES[name]
    operands = a, b
    a_data, b_data = (x.data if isinstance(x, Tensor) else _operand(x) for x in operands)
    try:
        y = rule.forward(a_data, b_data, *attrs)
    except ValueError as error:
        raise ShapeError(f"{name} of shapes {np.shape(a_data)} and {np.shape(b_data)}: {error}") from None
    parents = (_parent(a), _parent(b)) if recording() else (None, None)
    if parents == (None, None):
        return made(y)
    return _record(name, rule, operands, parents, y, attrs)


def _operand(x: Any) -> Any:
    """A Python number stays one (and does not widen float32); everything else becomes an array."""
    return x if isinstance(x, (int, float)) else _array(x, None)


def _record(name: str, rule: Rule, operands: tuple[Any, ...], parents: tuple[Any, ...], y: Any, attrs: tuple) -> Tensor:
    """The tensor of a result, with a node that keeps what the gradients of the operands that want one will read."""
    reads = "".join(r for r, parent in zip(rule.reads, parents, strict=True) if parent is not None)
    arrays = [x.data if isinstance(x, Tensor) else x for x in operands]
    t = made(y)
    guards: list[Guard] = [(x._version, x._version.count) for x, letter in zip(operands, "ab", strict=False)
                           if letter in reads and isinstance(x, Tensor)]
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


def _in_place(name: str, target: Tensor, value: Any, *attrs: Any) -> Tensor:
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


def apply(op: str, inputs: Sequence[Any], attrs: dict[str, Any], backend: str | None = None) -> Any:
    """Run an operation of the table on tensors (and arrays); differentiable where the table has a gradient."""
    arrays, parents, guards, wanted = [], [], [], False
    for i, x in enumerate(inputs):
        parent = None
        if isinstance(x, Tensor):
            guards.append((i, x._version, x._version.count))
            if x.requires_grad:
                parent, wanted = x._node or x, True
            x = x.data
        arrays.append(x)
        parents.append(parent)
    run = table.runner(backend)
    outputs = run(op, *arrays, **attrs)
    if not (wanted and recording()):
        return tuple(map(Tensor, outputs)) if isinstance(outputs, tuple) else made(outputs)
    gradient = table.gradient_of(op)
    t = made(outputs)
    guards.append((-1, t._version, 0))
    t._node = Node(op, table.backward, tuple(parents), (op, gradient, tuple(arrays), t.data, attrs, run, guards), ())
    t.requires_grad = True
    return t


Tensor.__module__ = "tilewright"
