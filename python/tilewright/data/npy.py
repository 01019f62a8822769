"""NumPy's .npy files, opened without trusting them and without loading them."""
from __future__ import annotations

import os

import numpy as np

from ..core.errors import DataError
from .files import existing


def open_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """A .npy file as a read-only, memory-mapped array: rows are read from disk when they are used.

    Any shape and any dtype but Python objects, which would have to be unpickled and are refused. What the header claims
    is checked against the size of the file. Raises DataError naming the file.

    >>> import numpy as np, tempfile, tilewright as tw
    >>> path = tempfile.mkdtemp() + "/x.npy"
    >>> np.save(path, np.arange(6.0).reshape(3, 2))
    >>> x = tw.data.open_npy(path)
    >>> for rows, in tw.data.Batches(x, batch_size=2, shuffle=False):
    ...     print(rows.tolist())
    [[0.0, 1.0], [2.0, 3.0]]
    [[4.0, 5.0]]
    """
    path = existing(path)
    with open(path, "rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise DataError(f"{path}: is no .npy file (it does not begin with the magic string)")
    try:
        with np.errstate(over="ignore"):  # a claimed size beyond 2^63; the check of the size follows
            return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy reads the header with Python's parser, which has many ways to fail
        raise DataError(f"{path}: {_reason(str(error), path)}") from None


def _reason(text: str, path: os.PathLike[str]) -> str:
    if "Python objects" in text:
        return "holds Python objects, which are not unpickled; save it with a numeric dtype"
    if "mmap length" in text or "too big" in text:
        return f"the header claims more data than the file's {os.path.getsize(path)} bytes hold (truncated?)"
    return f"the header is not understood: {text}"
