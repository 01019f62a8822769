"""The safetensors format (https://huggingface.co/docs/safetensors), version of 2023, read with suspicion.

    8 bytes          N, length of the header, little endian
    N bytes          JSON {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...,
                           "__metadata__": {text: text}}
    the rest         the arrays, C order, little endian, one behind the other without gaps
"""
from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from ..core.errors import DataError, DTypeError
from .files import existing, write_atomically

_DTYPES = {"BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
           "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8"}
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}
_LONGEST_HEADER = 100_000_000  # the limit of the reference implementation


def _dtype(name: str) -> np.dtype | None:
    if name == "BF16":
        try:
            import ml_dtypes
        except ImportError:
            raise DataError("bfloat16 arrays need ml_dtypes: pip install ml_dtypes") from None
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(_DTYPES[name]) if name in _DTYPES else None


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
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    # Wide items first keeps every array aligned, as the reference implementation does.
    order = sorted(arrays, key=lambda name: (-np.asarray(arrays[name]).itemsize, name))
    chunks: list[bytes | memoryview] = []
    begin = 0
    for name in order:
        a = np.asarray(arrays[name])
        if name == "__metadata__":
            raise DataError(f"{path}: no array can be called '__metadata__'")
        code = "BF16" if a.dtype.name == "bfloat16" else _NAMES.get(a.dtype.newbyteorder("<"))
        if code is None:
            raise DTypeError(f"{path}: safetensors has no dtype for {name!r}, which is {a.dtype}")
        if code != "BF16":
            a = a.astype(a.dtype.newbyteorder("<"), copy=False)
        header[name] = {"dtype": code, "shape": list(a.shape), "data_offsets": [begin, begin + a.nbytes]}
        begin += a.nbytes
        chunks.append(np.ascontiguousarray(a).reshape(-1).view(np.uint8).data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_atomically(path, [len(text).to_bytes(8, "little"), text, *chunks])


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All arrays of a file by name, and its metadata.

    Every claim of the header is checked against the file's size before memory is taken. Raises DataError naming the
    file and what is wrong in it.
    """
    path = existing(path)
    with open(path, "rb") as file:
        header, start, size = _header(file, path)
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
            raise DataError(f"{path}: __metadata__ is not a table of strings")
        places = {name: _place(entry, name, path) for name, entry in header.items()}
        end = 0
        for name, (_, _, span) in sorted(places.items(), key=lambda item: item[1][2]):
            if span[0] != end:
                raise DataError(f"{path}: {name!r} begins at byte {span[0]} of the data where {end} was expected")
            end = span[1]
        if start + end != size:
            raise DataError(f"{path}: the header describes {start + end} bytes and the file has {size}"
                            f"{' (truncated?)' if start + end > size else ''}")
        arrays = {}
        for name, (dtype, shape, span) in places.items():
            file.seek(start + span[0])
            flat = np.fromfile(file, np.uint8, span[1] - span[0])
            if flat.size != span[1] - span[0]:
                raise DataError(f"{path}: ended while {name!r} was read")
            arrays[name] = flat.view(dtype).reshape(shape)
    return arrays, metadata


def _header(file: BinaryIO, path: os.PathLike[str]) -> tuple[dict[str, Any], int, int]:
    """The header, where the data starts, and the size of the file."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _LONGEST_HEADER):
        raise DataError(f"{path}: no safetensors file, or truncated: {size} bytes, of which the header claims {length}")
    try:
        header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: the header is no valid JSON: {error}") from None
    if not isinstance(header, dict):
        raise DataError(f"{path}: the header is not a table")
    return header, 8 + length, size


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands there twice")
    return table


def _place(entry: Any, name: str, path: os.PathLike[str]) -> tuple[np.dtype, tuple[int, ...], tuple[int, int]]:
    """(dtype, shape, (begin, end)) of one array, if the header's entry makes sense."""
    def whole(numbers: Any) -> bool:
        return isinstance(numbers, list) and all(type(n) is int and 0 <= n < 2**63 for n in numbers)

    if not isinstance(entry, dict) or not whole(entry.get("shape")) or not whole(entry.get("data_offsets")) or \
            len(entry["data_offsets"]) != 2:
        raise DataError(f"{path}: the header's entry for {name!r} is not understood: {str(entry)[:100]}")
    dtype = _dtype(str(entry.get("dtype")))
    if dtype is None:
        raise DataError(f"{path}: {name!r} has the dtype {entry.get('dtype')!r}, which NumPy does not have")
    begin, end = entry["data_offsets"]
    if len(entry["shape"]) > 64 or end - begin != math.prod(entry["shape"]) * dtype.itemsize:
        raise DataError(f"{path}: {name!r} of shape {tuple(entry['shape'])} and {dtype} does not take {end - begin} bytes")
    return dtype, tuple(entry["shape"]), (begin, end)
