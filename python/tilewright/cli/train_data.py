"""What `tilewright train` learns from: digits, mnist, or a file of the user's."""
from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import data
from ..core.errors import DataError

TEST_PART = 0.2
MOST_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class TrainData:
    """Rows to train and to test on: x (rows, features) float32, y (rows,) int64 in [0, len(classes))."""

    name: str
    x_train: np.ndarray
    x_test: np.ndarray
    y_train: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]

    def checksum(self) -> str:
        """Tells whether a checkpoint belongs to these rows."""
        return f"{zlib.crc32(self.y_train.tobytes(), zlib.crc32(self.x_train.tobytes())):08x}"


def load(name: str, target: str, seed: int) -> TrainData:
    """Load, clean and split.

    Images lie in [0, 1]; columns of files are imputed and normalised as their training rows say.
    """
    if name in ("digits", "mnist"):
        x, y = data.load_digits() if name == "digits" else data.load_mnist()
        x_train, x_test, y_train, y_test = data.split(x, y, test=TEST_PART, seed=seed)
        return TrainData(name, x_train, x_test, y_train, y_test, tuple(map(str, range(10))))
    x, labels = _read(name, target)
    encoder = data.LabelEncoder().fit(labels)
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2 or len(classes) > MOST_CLASSES:
        raise DataError(f"{name}: the target has {len(classes)} distinct values; training needs 2 to {MOST_CLASSES}")
    if counts.min() < 2:
        raise DataError(f"{name}: the label {classes[counts.argmin()]} stands there once; "
                        "training and test need one row each")
    x_train, x_test, y_train, y_test = data.split(x, encoder.apply(labels), test=TEST_PART, seed=seed)
    if not len(x_test):
        raise DataError(f"{name}: {len(x)} rows are too few to set some aside for the test")
    imputer = data.Imputer("mean").fit(x_train)
    normalizer = data.Normalizer().fit(imputer.apply(x_train))
    x_train, x_test = (normalizer.apply(imputer.apply(part)).astype(np.float32) for part in (x_train, x_test))
    return TrainData(Path(name).name.split(".")[0], x_train, x_test, y_train, y_test, tuple(map(str, classes)))


def _read(name: str, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of a file; labels that are numbers must be whole."""
    path = Path(name)
    if path.suffix == ".npy":
        table = data.open_npy(path)
        if table.ndim != 2 or table.dtype.kind not in "fiu" or table.shape[1] < 2:
            raise DataError(f"{path}: expected a table of numbers with a column of labels, "
                            f"found {table.dtype} of shape {table.shape}")
        try:
            column = range(table.shape[1])[int(target)]
        except (ValueError, IndexError):
            raise DataError(f"{path}: --target is the number of a column, below {table.shape[1]}, "
                            f"not {target!r}") from None
        x, labels = np.delete(table, column, axis=1), np.array(table[:, column])
    elif path.name.endswith((".csv", ".csv.gz")):
        read = data.read_csv(path, target=target)
        assert read.target is not None
        x, labels = read.x, read.target
    else:
        raise DataError(f"{name}: train takes digits, mnist, or a file that ends in .csv, .csv.gz or .npy")
    if labels.dtype.kind == "f":
        whole = np.isfinite(labels) & (labels == np.round(labels))
        if not whole.all():
            row = int(np.argmin(whole))
            raise DataError(f"{name}: the target of row {row} is {labels[row]}; "
                            "labels are whole numbers or text (see --target)")
        labels = labels.astype(np.int64)
    return x, labels
