"""From raw tables to what a model can learn from. What is learnt from the training rows is applied to the others."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..core.errors import ArgumentError, DataError, DTypeError, ShapeError


def _matrix(x: Any) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim != 2:
        raise ShapeError(f"expected a table of shape (rows, columns), not {x.shape}")
    if x.dtype.kind not in "fiub":
        raise DTypeError(f"expected a table of numbers, not {x.dtype}")
    return x


class _Fitted:
    """Something learnt from the columns of a table: `fit` learns, `apply` uses it on any rows with the same columns."""

    width: int | None = None

    def _columns(self, x: Any) -> np.ndarray:
        x = _matrix(x)
        if self.width is None:
            raise ArgumentError(f"{type(self).__name__}: call fit on the training rows before apply")
        if x.shape[1] != self.width:
            raise ShapeError(f"{type(self).__name__} was fitted on {self.width} columns "
                             f"and got a table of shape {x.shape}")
        return x


class Imputer(_Fitted):
    """Replace missing and infinite values, column by column.

    strategy: "mean" or "median" of the finite values of the column in the rows given to fit (0 if there are none), or a
    number. Keeps float dtypes; integer tables pass unchanged. To drop rows instead see `drop_missing`.

    >>> import numpy as np, tilewright as tw
    >>> x = np.array([[1.0, np.nan], [3.0, 4.0], [np.inf, 8.0]])
    >>> tw.data.Imputer("mean").fit(x).apply(x).tolist()
    [[1.0, 6.0], [3.0, 4.0], [2.0, 8.0]]
    """

    def __init__(self, strategy: str | float = "mean"):
        if isinstance(strategy, str) and strategy not in ("mean", "median"):
            raise ArgumentError(f"Imputer: strategy is 'mean', 'median' or a number, not {strategy!r}")
        self.strategy = strategy

    def fit(self, x: Any) -> Imputer:
        """Learn the replacement for every column of `x` (rows, columns)."""
        x = _matrix(x)
        self.width = x.shape[1]
        self.values = np.zeros(x.shape[1])
        for j in range(x.shape[1]):
            if not isinstance(self.strategy, str):
                self.values[j] = self.strategy
            elif (finite := x[np.isfinite(x[:, j]), j].astype(np.float64)).size:
                self.values[j] = finite.mean() if self.strategy == "mean" else np.median(finite)
        return self

    def apply(self, x: Any) -> np.ndarray:
        """A copy of `x` with every value finite."""
        x = self._columns(x)
        return np.where(np.isfinite(x), x, self.values.astype(x.dtype)) if x.dtype.kind == "f" else x.copy()


def drop_missing(x: Any, *others: Any) -> tuple[np.ndarray, ...]:
    """The rows of `x` (rows, columns) in which every value is finite, and the same rows of the other arrays.

    >>> import numpy as np, tilewright as tw
    >>> x, y = tw.data.drop_missing(np.array([[1.0], [np.nan], [3.0]]), np.array([7, 8, 9]))
    >>> x.tolist(), y.tolist()
    ([[1.0], [3.0]], [7, 9])
    """
    x = _matrix(x)
    _same_rows(x, others)
    keep = np.isfinite(x).all(1)
    return x[keep], *(np.asarray(o)[keep] for o in others)


class Normalizer(_Fitted):
    """Bring every column to mean 0 and standard deviation 1, as measured on the rows given to fit.

    Columns that were constant there are only centred. Sums run in float64; float tables keep their dtype, others become
    float32. Raises DataError where a value is missing or infinite (see `Imputer`).

    >>> import numpy as np, tilewright as tw
    >>> tw.data.Normalizer().fit(np.array([[0.0], [2.0]])).apply(np.array([[4.0]])).tolist()
    [[3.0]]
    """

    def fit(self, x: Any) -> Normalizer:
        """Learn mean and standard deviation of every column of `x` (rows, columns)."""
        x = _matrix(x)
        if not len(x):
            raise ShapeError("Normalizer: there are no rows to fit on")
        if not np.isfinite(x).all():
            row, column = np.argwhere(~np.isfinite(x))[0]
            raise DataError(f"Normalizer: row {row}, column {column} holds {x[row, column]}; "
                            "use Imputer or drop_missing first")
        self.width = x.shape[1]
        self.mean = x.mean(0, dtype=np.float64)
        deviation = x.std(0, dtype=np.float64)
        self.scale = np.where(deviation > 1e-12 * np.abs(self.mean), deviation, 1.0)
        return self

    def apply(self, x: Any) -> np.ndarray:
        """(x - mean) / scale, a new array."""
        x = self._columns(x)
        return ((x - self.mean) / self.scale).astype(x.dtype if x.dtype.kind == "f" else np.float32)


class LabelEncoder:
    """Number the distinct values of a column of labels 0, 1, 2, ... in sorted order.

    >>> import tilewright as tw
    >>> encoder = tw.data.LabelEncoder().fit(["cat", "dog", "cat"])
    >>> encoder.apply(["dog", "cat"]).tolist(), encoder.classes.tolist()
    ([1, 0], ['cat', 'dog'])
    """

    classes: np.ndarray | None = None

    def fit(self, labels: Any) -> LabelEncoder:
        """Learn which labels there are."""
        labels = np.asarray(labels)
        if labels.ndim != 1:
            raise ShapeError(f"LabelEncoder: labels have one dimension, not the shape {labels.shape}")
        if labels.dtype.kind == "f" and not np.isfinite(labels).all():
            raise DataError(f"LabelEncoder: the label of row {int(np.argmin(np.isfinite(labels)))} is missing")
        self.classes = np.unique(labels)
        return self

    def apply(self, labels: Any) -> np.ndarray:
        """The numbers of `labels`, int64; DataError names the first that fit has not seen."""
        if self.classes is None:
            raise ArgumentError("LabelEncoder: call fit before apply")
        labels = np.asarray(labels)
        numbers = np.minimum(np.searchsorted(self.classes, labels), max(len(self.classes) - 1, 0))
        unknown = self.classes[numbers] != labels if len(self.classes) else np.ones(labels.shape, bool)
        if unknown.any():
            row = int(np.argmax(unknown))
            raise DataError(f"LabelEncoder: the label {labels[row]!r} of row {row} "
                            "was not among those it was fitted on")
        return numbers.astype(np.int64)


def one_hot(labels: Any, classes: int, dtype: Any = np.float32) -> np.ndarray:
    """(rows, classes) with a 1 in the column of each row's label; labels are integers in [0, classes).

    >>> import tilewright as tw
    >>> tw.data.one_hot([1, 0], 2).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" and labels.size:
        raise DTypeError(f"one_hot: labels are integers, not {labels.dtype}")
    if labels.ndim != 1:
        raise ShapeError(f"one_hot: labels have one dimension, not the shape {labels.shape}")
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ArgumentError(f"one_hot: labels run from {labels.min()} to {labels.max()}, outside [0, {classes})")
    table = np.zeros((len(labels), classes), dtype)
    table[np.arange(len(labels)), labels.astype(np.int64)] = 1
    return table


def split(x: Any, y: Any, *, test: float = 0.2, seed: int | np.random.Generator = 0,
          stratify: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x_train, x_test, y_train, y_test: a random part `test` in (0, 1) of the rows set aside.

    stratify: every label of `y` has its share on both sides, rounded to whole rows. The rows keep a shuffled order.

    >>> import numpy as np, tilewright as tw
    >>> x_train, x_test, y_train, y_test = tw.data.split(np.arange(10), np.arange(10) % 2, test=0.4)
    >>> len(x_train), np.bincount(y_test).tolist()
    (6, [2, 2])
    """
    x, y = np.asarray(x), np.asarray(y)
    _same_rows(x, (y,))
    if not 0 < test < 1:
        raise ArgumentError(f"split: test is a part between 0 and 1, not {test}")
    order = np.random.default_rng(seed).permutation(len(x))
    if stratify:
        aside = np.zeros(len(x), bool)
        for label in np.unique(y):
            rows = order[y[order] == label]
            aside[rows[:round(test * len(rows))]] = True
        train, held = order[~aside[order]], order[aside[order]]
    else:
        count = round(test * len(x))
        train, held = order[count:], order[:count]
    return x[train], x[held], y[train], y[held]


def _same_rows(x: np.ndarray, others: tuple[Any, ...]) -> None:
    for other in others:
        if len(other) != len(x):
            raise ShapeError(f"the arrays have {len(x)} and {len(other)} rows")
