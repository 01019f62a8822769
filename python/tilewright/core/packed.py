"""PackedMatrix: a matrix that many products share, in the layouts that their kernels read."""
from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from . import arrays, native
from .errors import DTypeError, ShapeError
from .foreign import is_device_array
from .registry import BYTES, FLOATS, HALVES

_filling = threading.Lock()


def fill_once(owner: Any, slot: str, make: Callable[[], Any]) -> Any:
    """What is in a slot of an immutable object, made if need be.

    Threads that meet here all make it, and the first to have done so fills the slot for good: doors read what is there
    while they hold no reference to it.
    """
    found = getattr(owner, slot)
    if found is None:
        made = make()
        with _filling:
            found = getattr(owner, slot)
            if found is None:
                object.__setattr__(owner, slot, found := made)
    return found


class PackedMatrix:
    """A snapshot of a matrix for many products, made by `pack`: the b of matmul and its kin, the w of linear.

    What a backend reads in its own layout is made by the first product on that side, (K, N) or as a weight (N, K), and
    kept; later ones pack nothing. Where nothing is gained by that, and anywhere else an array is taken, it is its plain
    matrix. It cannot be changed, may be used by any number of threads, and pickles as the plain matrix.
    """

    # A form for each backend and side. c_*: (matrix (K, N), its panels), read by csrc/python/door_gemm.c
    __slots__ = ("_matrix", "c_b", "c_w", "numba_b", "numba_w", "cuda_b")
    _matrix: np.ndarray
    c_b: Any
    c_w: Any
    numba_b: Any
    numba_w: Any
    cuda_b: Any

    def __init__(self, matrix: np.ndarray):
        set_once = super().__setattr__
        for name in self.__slots__:
            set_once(name, None)
        owner: Any = matrix.base
        owner.flags.writeable = matrix.flags.writeable = False  # no view of read-only memory can be made writeable
        set_once("_matrix", matrix)

    def form(self, slot: str, make: Callable[[np.ndarray], Any]) -> Any:
        """What is in a slot, made from the plain matrix if need be."""
        return fill_once(self, slot, lambda: make(self._matrix))

    def make_c(self, transpose: bool) -> Any:
        """The form of the C doors; one that finds the slot empty calls this."""
        def make(matrix: np.ndarray) -> Any:
            b = matrix.T if transpose else matrix
            return b, native.door.pack(b.astype(np.float32) if arrays.name_of(b.dtype) in HALVES else b)
        return self.form("c_w" if transpose else "c_b", make)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, as they were given."""
        return self._matrix.shape  # type: ignore[return-value]

    @property
    def dtype(self) -> np.dtype:
        """NumPy's dtype of the plain matrix; float16 and bfloat16 are packed as float32, in which they are computed."""
        return self._matrix.dtype

    @property
    def nbytes(self) -> int:
        """The memory that it holds by now: the plain matrix and what was packed."""
        panels = [form[1] for form in (self.c_b, self.c_w) if form is not None]
        panels += [form for form in (self.numba_b, self.numba_w) if form is not None]
        return self._matrix.nbytes + sum(x.nbytes for x in panels)

    def numpy(self) -> np.ndarray:
        """The plain matrix, read-only."""
        return self._matrix

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._matrix, dtype, copy=copy)

    def __reduce__(self) -> Any:
        return pack, (np.asarray(self._matrix),)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a PackedMatrix cannot be changed; pack the new matrix (setting {name!r})")

    def __repr__(self) -> str:
        return f"PackedMatrix({self.shape}, {self.dtype})"


def pack(b: Any) -> PackedMatrix:
    """A snapshot of a matrix for many products: matmul(a, P), gemm(a, P), and linear(x, P) for a weight (out, in).

    What is written to b later does not show. float32, float64, float16, bfloat16; int8 or uint8 for matmul_integer and
    qlinear_matmul. Raises ShapeError for anything but two dimensions, DTypeError for other dtypes. Packing
    pays from the second product on, most with 12 to 128 rows.

    >>> import numpy as np, tilewright as tw
    >>> P = tw.pack(np.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> P
    PackedMatrix((2, 2), float64)
    >>> tw.matmul(np.eye(2), P)
    array([[1., 2.],
           [3., 4.]])
    """
    if isinstance(b, PackedMatrix):
        return b
    if is_device_array(b):
        raise DTypeError("pack: the matrix is on a CUDA device, where nothing is gained by packing: give it as it is")
    x = arrays.as_array(b, "b")
    if x.ndim != 2:
        raise ShapeError(f"pack: b must be a matrix, it has shape {arrays.shape_of(x)}")
    if arrays.name_of(x.dtype) not in FLOATS + HALVES + BYTES:
        raise DTypeError(f"pack takes {', '.join(FLOATS + HALVES + BYTES)}; b {arrays.shape_of(x)} is {x.dtype}. "
                         "Convert it first, for example b.astype(np.float32)")
    matrix = arrays.on_a_line(x.shape, x.dtype.newbyteorder("="))
    matrix[...] = x
    return PackedMatrix(matrix)


PackedMatrix.__module__ = "tilewright"
if native.door is not None:
    native.door.set_packed(PackedMatrix)
