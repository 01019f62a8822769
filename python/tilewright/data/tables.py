"""CSV files as arrays of numbers, with the place of whatever is no number."""
from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import ArgumentError, DataError
from .cleaning import one_hot
from .files import existing

_MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}


@dataclass(frozen=True, slots=True)
class Table:
    """What a CSV file holds: `x` (rows, features) float64, the names of its columns, and `target`.

    `target` is None, or one value a row: float64, or an array of strings where the column holds text.
    """

    x: np.ndarray
    columns: tuple[str, ...]
    target: np.ndarray | None
    target_name: str | None


def read_csv(path: str | os.PathLike[str], *, target: str | int | None = None, categorical: Sequence[str | int] = (),
             delimiter: str = ",") -> Table:
    """Read a CSV file (gzipped where its name ends in .gz) of numbers.

    The first line is a header if nothing in it is a number. Empty cells and NA, nan, null, ? are missing: NaN.
    `target`: name or number (negative from the end) of the column to split off, which may hold text. `categorical`:
    columns of text, each to become one 0/1 column for every value ("colour=red", ...), in sorted order.

    Raises DataError naming the file, the line and the column of a cell that is no number, or of a line that has more or
    fewer cells than the first.

    >>> import tempfile, tilewright as tw
    >>> path = tempfile.mkdtemp() + "/t.csv"
    >>> with open(path, "w") as file:
    ...     _ = file.write("length,width,kind\\n1.5,2,a\\n,3,b\\n")
    >>> table = tw.data.read_csv(path, target="kind")
    >>> table.x.tolist(), table.target.tolist(), table.columns
    ([[1.5, 2.0], [nan, 3.0]], ['a', 'b'], ('length', 'width'))
    """
    path = existing(path)
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            try:
                return _parse(reader, path, target, categorical)
            except csv.Error as error:
                raise DataError(f"{path}, line {reader.line_num}: {error}") from None
    except (UnicodeDecodeError, OSError, EOFError) as error:
        raise DataError(f"{path}: is no readable CSV file: {error}") from None


def _parse(reader: Any, path: os.PathLike[str], target: str | int | None,
           categorical: Sequence[str | int]) -> Table:
    rows: list[list[str]] = []
    lines: list[int] = []
    for cells in reader:
        if not cells:  # an empty line
            continue
        if rows and len(cells) != len(rows[0]):
            raise DataError(f"{path}, line {reader.line_num}: {len(cells)} columns "
                            f"where the first line has {len(rows[0])}")
        rows.append(cells)
        lines.append(reader.line_num)
    if not rows:
        raise DataError(f"{path}: is empty")
    has_header = not any(_number(cell) is not None for cell in rows[0] if cell.strip().lower() not in _MISSING)
    names = [cell.strip() for cell in rows[0]] if has_header else [str(i) for i in range(len(rows[0]))]
    rows, lines = rows[has_header:], lines[has_header:]
    if not rows:
        raise DataError(f"{path}: has a header and no rows")

    at = None if target is None else _column(target, names, path)
    split = [_column(c, names, path) for c in categorical]
    parts, columns, values = [], [], None
    for j, name in enumerate(names):
        cells = [row[j] for row in rows]
        if j == at:
            values = _target(cells)
        elif j in split:
            kinds = sorted(set(cells))
            parts.append(one_hot(np.searchsorted(kinds, cells), len(kinds), dtype=np.float64))
            columns += [f"{name}={kind}" for kind in kinds]
        else:
            what = f"column {j + 1} ({name!r})" if has_header else f"column {j + 1}"
            parts.append(_numbers(cells, lines, what, path)[:, None])
            columns.append(name)
    x = np.concatenate(parts, 1) if parts else np.empty((len(rows), 0))
    return Table(x, tuple(columns), values, None if at is None else names[at])


def _column(which: str | int, names: list[str], path: os.PathLike[str]) -> int:
    """The number of a column given by name or by number, also as text ("-1")."""
    if which in names:
        return names.index(str(which))
    try:
        number = int(which)
    except ValueError:
        raise ArgumentError(f"{path} has no column {which!r}; there are: {', '.join(names[:20])}") from None
    if not -len(names) <= number < len(names):
        raise ArgumentError(f"{path} has {len(names)} columns, and none with the number {number}")
    return number % len(names)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _numbers(cells: list[str], lines: list[int], column: str, path: os.PathLike[str]) -> np.ndarray:
    try:
        return np.array(list(map(float, cells)))
    except ValueError:  # something is missing, or no number
        pass
    values = np.empty(len(cells))
    for i, cell in enumerate(cells):
        number = np.nan if cell.strip().lower() in _MISSING else _number(cell)
        if number is None:
            raise DataError(f"{path}, line {lines[i]}, {column}: expected a number and found {cell[:40]!r}. "
                            f"Is it the target (target=), or a column of text (categorical=)?")
        values[i] = number
    return values


def _target(cells: list[str]) -> np.ndarray:
    numbers = [np.nan if cell.strip().lower() in _MISSING else _number(cell) for cell in cells]
    return np.array([cell.strip() for cell in cells]) if None in numbers else np.array(numbers, np.float64)
