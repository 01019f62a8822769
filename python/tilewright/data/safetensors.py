"""Arrays by name in a safetensors file, by the reference implementation, whose errors are made to name the file."""
from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from ..core.errors import DataError, DTypeError
from .files import existing, write_atomically


def write_safetensors(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray],
                      metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays of any shape under their names, atomically.

    Dtypes: bool, integers, float16/32/64, bfloat16. Raises DTypeError for others, DataError when the file cannot be
    written.

    >>> import numpy as np, tempfile, tilewright as tw
    >>> path = tempfile.mkdtemp() + "/w.safetensors"
    >>> tw.data.write_safetensors(path, {"w": np.eye(2)}, {"made by": "an example"})
    >>> tw.data.read_safetensors(path)[0]["w"]
    array([[1., 0.],
           [0., 1.]])
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save

    plain = {name: np.ascontiguousarray(a).reshape(np.shape(a)) for name, a in arrays.items()}
    for name, a in plain.items():
        if name == "__metadata__":
            raise DataError(f"{path}: no array can be called '__metadata__'")
        if a.dtype.kind not in "biuf" and a.dtype.name != "bfloat16":
            raise DTypeError(f"{path}: safetensors has no dtype for {name!r}, which is {a.dtype}")
    try:
        data = save(plain, dict(metadata) if metadata else None)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DTypeError(f"{path}: cannot be written as safetensors: {error}") from None
    write_atomically(path, [data])


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All arrays of a file by name, and its metadata.

    The header is checked against the file's size before memory is taken. Raises DataError naming the file and what is
    wrong in it.
    """
    from safetensors import SafetensorError, safe_open

    path = existing(path)
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise DataError(f"{path}: no readable safetensors file: {error}") from None
