"""Tensor: an ndarray whose uses the tape remembers."""
from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from ..core.device_arrays import DeviceArray, full_like, to_host
from ..core.errors import DTypeError, GradientError, ShapeError
from ..core.packed import PackedMatrix
from . import table, tape
from .arithmetic import Arithmetic, as_array, view_of
from .buffers import Spare
from .tape import Node, Version, recording

_new = object.__new__


def is_float(dtype: np.dtype) -> bool:
    """Whether tensors of this dtype can have gradients."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


class Tensor(Arithmetic):
    """An array that records what is computed from it, so that `backward` finds the derivatives.

    Tensor(data, *, requires_grad=False, dtype=None): `data` is anything NumPy takes, or an array on a CUDA device,
    which stays there; an ndarray is not copied and keeps its dtype. Arithmetic broadcasts and promotes as NumPy does;
    all public operations (`tw.linear`, `tw.softmax`, ...) accept tensors and return them.

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
            data = as_array(data, dtype)
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
        """The ndarray itself, off the tape; shares memory. Of a tensor on a device, a copy on the host."""
        return to_host(self.data)

    def item(self) -> Any:
        """The only element as a Python number."""
        return to_host(self.data).item()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.data, dtype, copy=copy)

    def __len__(self) -> int:
        return len(self.data)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __repr__(self) -> str:
        text = np.array2string(self.numpy(), separator=", ", prefix="Tensor(")
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
            gradient = _one(data.dtype) if type(data) is np.ndarray and data.ndim == 0 else full_like(data, 1)
        else:
            gradient = as_array(gradient, data.dtype)
            if isinstance(gradient, DeviceArray) != isinstance(data, DeviceArray):
                raise DTypeError("backward: the tensor and the gradient are not in one place; tw.to_device copies an "
                                 "array to the CUDA device, tw.to_host one back")
            if gradient.shape != data.shape:
                raise ShapeError(f"backward: the gradient has shape {gradient.shape}, the tensor {data.shape}")
        if self._node is None:
            tape.accumulate(self, gradient, gradient)
        else:
            tape.backward(self._node, gradient, retain_graph)

    def detach(self) -> Tensor:
        """A tensor of the same memory that is not on the tape."""
        return view_of(self, Tensor(self.data))

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Switch `requires_grad` of a leaf; returns it."""
        if self._node is not None:
            raise GradientError("requires_grad_: this tensor was computed; use detach() first")
        if requires_grad and not is_float(self.dtype):
            raise DTypeError(f"only tensors of floats can require a gradient, not {self.dtype}")
        self.requires_grad = requires_grad
        return self

    # ---- the operations of the table

    def __matmul__(self, other: Any) -> Tensor:
        return apply("matmul", (self, other), {})

    def __rmatmul__(self, other: Any) -> Tensor:
        return apply("matmul", (other, self), {})

    def matmul(self, other: Any) -> Tensor:
        """The product `self @ other`, as `tw.matmul`."""
        return apply("matmul", (self, other), {})

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


def made(data: Any) -> Tensor:
    """The tensor of a result, not on the tape yet."""
    t = _new(Tensor)
    t.data = data if tape.is_array(data) else np.asarray(data)
    t.grad = None
    t._node = None
    t._version = Version()
    t._spare = None
    t.requires_grad = False
    return t


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


Tensor._made = staticmethod(made)
Tensor.__module__ = "tilewright"
