"""Files: what is read back, and that hostile ones raise with their name and change nothing."""
from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest

from tilewright import data
from tilewright.core.errors import ArgumentError, DataError, DTypeError


def safetensors_bytes(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HOSTILE_SAFETENSORS = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "header longer than the file": (10**6).to_bytes(8, "little") + b"{}",
    "huge header": (2**63 - 1).to_bytes(8, "little") + b"{}",
    "no JSON": safetensors_bytes(b"hello there"),
    "no UTF-8": safetensors_bytes(b"{\xff\xfe}"),
    "JSON of endless depth": safetensors_bytes(b"[" * 200_000),
    "a list": safetensors_bytes([1, 2]),
    "a name twice": safetensors_bytes(b'{"__metadata__":{},"__metadata__":{}}'),
    "metadata of numbers": safetensors_bytes({"__metadata__": {"a": 1}}),
    "no dtype": safetensors_bytes({"a": {"shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8),
    "unknown dtype": safetensors_bytes({"a": entry("F8_E4M3", (8,))}, b"\0" * 8),
    "negative shape": safetensors_bytes({"a": entry(shape=(-2,))}, b"\0" * 8),
    "shape of text": safetensors_bytes({"a": entry(shape=("2",))}, b"\0" * 8),
    "shape of booleans": safetensors_bytes({"a": entry(shape=(True, 2))}, b"\0" * 8),
    "shape larger than its bytes": safetensors_bytes({"a": entry(shape=(2**40, 2**40))}, b"\0" * 8),
    "offsets beyond the file": safetensors_bytes({"a": entry(shape=(2**30,), offsets=(0, 2**32))}, b"\0" * 8),
    "offsets backwards": safetensors_bytes({"a": entry(offsets=(8, 0))}, b"\0" * 8),
    "three offsets": safetensors_bytes({"a": entry(offsets=(0, 8, 9))}, b"\0" * 8),
    "overlapping arrays": safetensors_bytes({"a": entry(), "b": entry(offsets=(4, 12))}, b"\0" * 12),
    "a gap": safetensors_bytes({"a": entry(offsets=(4, 12))}, b"\0" * 12),
    "bytes too many": safetensors_bytes({"a": entry()}, b"\0" * 9),
    "truncated": safetensors_bytes({"a": entry()}, b"\0" * 7),
}


@pytest.mark.parametrize("case", HOSTILE_SAFETENSORS)
def test_hostile_safetensors_names_the_file(case, tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(HOSTILE_SAFETENSORS[case])
    with pytest.raises(DataError, match="bad.safetensors"):
        data.read_safetensors(path)


def some_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"w": rng.standard_normal((3, 5), dtype=np.float32), "b": rng.standard_normal(5),
            "empty": np.empty((0, 4), np.float32), "scalar": np.array(7, np.int64), "flags": np.array([True, False]),
            "half": np.arange(3, dtype=np.float16),
            "strided": rng.standard_normal((6, 8))[::-2, 1::3], "big endian": np.arange(4, dtype=">f4"),
            "u8": np.arange(3, dtype=np.uint8)}


def test_safetensors_round_trip(tmp_path):
    path = tmp_path / "x.safetensors"
    arrays = some_arrays()
    data.write_safetensors(path, arrays, {"about": "a test"})
    back, metadata = data.read_safetensors(path)
    assert metadata == {"about": "a test"} and set(back) == set(arrays)
    for name, a in arrays.items():
        assert back[name].dtype == a.dtype.newbyteorder("="), name
        np.testing.assert_array_equal(back[name], a)
        assert back[name].flags.writeable


def test_safetensors_agrees_with_the_reference_implementation(tmp_path):
    reference = pytest.importorskip("safetensors.numpy")
    arrays = {name: np.ascontiguousarray(a) for name, a in some_arrays().items() if name != "big endian"}
    data.write_safetensors(tmp_path / "ours", arrays)
    theirs = reference.load_file(tmp_path / "ours")
    reference.save_file(arrays, tmp_path / "theirs", {"k": "v"})
    ours, metadata = data.read_safetensors(tmp_path / "theirs")
    assert metadata == {"k": "v"}
    for name, a in arrays.items():
        np.testing.assert_array_equal(theirs[name], a)
        np.testing.assert_array_equal(ours[name], a)


def test_safetensors_bfloat16(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    a = np.arange(5, dtype=ml_dtypes.bfloat16)
    data.write_safetensors(tmp_path / "x", {"a": a})
    back = data.read_safetensors(tmp_path / "x")[0]["a"]
    assert back.dtype == a.dtype and (back == a).all()


def test_safetensors_refuses_what_the_format_lacks(tmp_path):
    with pytest.raises(DTypeError, match="'c'"):
        data.write_safetensors(tmp_path / "x", {"c": np.zeros(2, complex)})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    data.write_safetensors(path, {"a": np.ones(3)})
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        data.write_safetensors(path, {"a": np.zeros(3)})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        data.write_safetensors(tmp_path / "nowhere" / "x", {"a": np.ones(1)})
    for read in (data.read_safetensors, data.open_npy, data.read_csv):
        with pytest.raises(DataError, match="no such file"):
            read(tmp_path / "nowhere" / "x")
        with pytest.raises(DataError, match="not a file"):
            read(tmp_path)


def npy_bytes(header: str, body: bytes = b"") -> bytes:
    text = header.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def npy_header(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


HOSTILE_NPY = {
    "empty": b"",
    "text": b"1,2,3\n",
    "a zip archive": b"PK\x03\x04 and so on",
    "a pickle": b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00K\x01.",
    "half a header": b"\x93NUMPY\x01\x00\xff\xff{'a",
    "a version of the future": b"\x93NUMPY\x09\x00" + b"\0" * 80,
    "an open bracket": npy_bytes("{'descr': '<f4', 'shape': (1,"),
    "code": npy_bytes("__import__('os').abort()"),
    "huge": npy_bytes(npy_header("(1000000000000, 1000)")),
    "overflowing": npy_bytes(npy_header("(4294967296, 4294967296)")),
    "overflowing to a small number": npy_bytes(npy_header("(4294967296, 4294967296, 1)", "'<i1'"), b"\0" * 64),
    "negative": npy_bytes(npy_header("(-1, 4)"), b"\0" * 64),
    "booleans for lengths": npy_bytes(npy_header("(True, 4)"), b"\0" * 64),
    "truncated": npy_bytes(npy_header("(100, 4)"), b"\0" * 64),
    "objects": npy_bytes(npy_header("(1,)", "'|O'"), b"\0" * 64),
    "objects in a record": npy_bytes(npy_header("(1,)", "[('a', 'O')]"), b"\0" * 64),
}


@pytest.mark.parametrize("case", HOSTILE_NPY)
def test_hostile_npy_names_the_file(case, tmp_path):
    path = tmp_path / "bad.npy"
    path.write_bytes(HOSTILE_NPY[case])
    with pytest.raises(DataError, match="bad.npy"):
        data.open_npy(path)


def test_pickled_objects_are_called_that(tmp_path):
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(DataError, match="Python objects"):
        data.open_npy(tmp_path / "o.npy")


@pytest.mark.parametrize("shape", [(6, 4), (0, 4), (5,), ()])
def test_npy_is_mapped(shape, tmp_path):
    a = np.random.default_rng(1).standard_normal(shape)
    np.save(tmp_path / "a.npy", a)
    mapped = data.open_npy(tmp_path / "a.npy")
    np.testing.assert_array_equal(mapped, a)
    assert isinstance(mapped, np.memmap) and not mapped.flags.writeable


def csv_file(tmp_path, text: str):
    path = tmp_path / "t.csv"
    path.write_text(text)
    return path


def test_csv_of_numbers(tmp_path):
    table = data.read_csv(csv_file(tmp_path, "1,2.5\n\n-3,inf\n,NA\n"))
    np.testing.assert_array_equal(table.x, [[1, 2.5], [-3, np.inf], [np.nan, np.nan]])
    assert table.columns == ("0", "1") and table.target is None


def test_csv_header_target_and_categories(tmp_path):
    path = csv_file(tmp_path, '\ufeff"len, cm",colour,kind\n1,red,x\n2,blue,y\n')
    table = data.read_csv(path, target="kind", categorical=["colour"])
    assert table.columns == ("len, cm", "colour=blue", "colour=red") and table.target_name == "kind"
    assert table.x.tolist() == [[1, 0, 1], [2, 1, 0]] and table.target.tolist() == ["x", "y"]


@pytest.mark.parametrize("target", ["-1", -1, 2, "2"])
def test_csv_target_by_number(tmp_path, target):
    table = data.read_csv(csv_file(tmp_path, "1,2,7\n3,4,8\n"), target=target)
    assert table.target.tolist() == [7, 8] and table.x.shape == (2, 2)


@pytest.mark.parametrize("text, place", [
    ("a,b\n1,2\n3,four\n", r"t\.csv, line 3, column 2 \('b'\).*'four'"),
    ("1,2\n3,x\n", r"t\.csv, line 2, column 2:.*'x'"),
    ("a,b\n1,2\n\n3\n", r"t\.csv, line 4: 1 columns"),
    ("a,b\n1,2,3\n", r"t\.csv, line 2: 3 columns"),
    ("", "empty"),
    ("a,b\n", "no rows"),
    ("1,2\n3,0x10\n", "line 2, column 2"),
    ('1,2\n3,"4\n', r"t\.csv, line 2: unexpected end"),
])
def test_hostile_csv_names_the_place(tmp_path, text, place):
    with pytest.raises(DataError, match=place):
        data.read_csv(csv_file(tmp_path, text))


def test_csv_of_bytes(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"1,2\n\xff\xfe,3\n")
    with pytest.raises(DataError, match="t.csv"):
        data.read_csv(path)
    (tmp_path / "t.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="t.csv.gz"):
        data.read_csv(tmp_path / "t.csv.gz")


def test_csv_column_that_is_not_there(tmp_path):
    path = csv_file(tmp_path, "a,b\n1,2\n")
    for target in ("c", 2, -3):
        with pytest.raises(ArgumentError, match="t.csv"):
            data.read_csv(path, target=target)
