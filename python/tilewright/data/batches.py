"""Mini-batches: shuffled by a seed, resumable anywhere, read row by row from memory-mapped files."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..core.errors import ArgumentError, DataError, ShapeError


class Batches:
    """Iterate over rows of one or more arrays of equal length, a tuple of ndarrays at a time.

    Each `for` loop is one epoch. The order of an epoch depends on the seed and the epoch's number alone, so that a run
    that was saved (`state_dict`) and resumed sees exactly the batches that an uninterrupted one sees; a loop left
    early, or a loaded state, continues where it stopped. Memory-mapped arrays (`open_npy`) are never loaded: only the
    rows of the batch are read. The last batch of an epoch may be smaller, unless drop_last.

    >>> import numpy as np, tilewright as tw
    >>> batches = tw.data.Batches(np.arange(5), np.arange(5) * 10, batch_size=2, seed=1)
    >>> [len(x) for x, y in batches], batches.epoch
    ([2, 2, 1], 1)
    """

    def __init__(self, *arrays: Any, batch_size: int, seed: int = 0, shuffle: bool = True, drop_last: bool = False):
        if not arrays:
            raise ArgumentError("Batches needs at least one array")
        self.arrays = tuple(a if isinstance(a, np.ndarray) else np.asarray(a) for a in arrays)
        if any(a.ndim == 0 for a in self.arrays):
            raise ShapeError("Batches: a number has no rows")
        if len({len(a) for a in self.arrays}) > 1:
            raise ShapeError(f"Batches: the arrays have {', '.join(str(len(a)) for a in self.arrays)} rows")
        if batch_size < 1:
            raise ArgumentError(f"Batches: batch_size is at least 1, not {batch_size}")
        if seed < 0:
            raise ArgumentError(f"Batches: seed is not negative, and {seed} is")
        self.batch_size, self.seed, self.shuffle, self.drop_last = batch_size, seed, shuffle, drop_last
        self.epoch = 0     # whole epochs done
        self.position = 0  # batches done in this one

    @property
    def rows(self) -> int:
        """Number of rows in the arrays."""
        return len(self.arrays[0])

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return self.rows // self.batch_size if self.drop_last else -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        # The position counts a batch as done when it is handed out: whoever saves between two steps has used it.
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.rows) if self.shuffle else None
        while self.position < len(self):
            begin = self.position * self.batch_size
            end = min(begin + self.batch_size, self.rows)
            self.position += 1
            if order is None:
                yield tuple(np.array(a[begin:end]) for a in self.arrays)
            else:
                chosen = order[begin:end]
                yield tuple(np.asarray(a[chosen]) for a in self.arrays)
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, np.ndarray]:
        """Where the iteration stands: the seed, the epoch and the position in it (int64)."""
        return {"seed": np.array(self.seed), "epoch": np.array(self.epoch), "position": np.array(self.position)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where another Batches over the same rows stood; raises DataError, nothing changed, if it cannot."""
        try:
            seed, epoch, position = (int(state[name]) for name in ("seed", "epoch", "position"))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"Batches: a state has seed, epoch and position: {error!r}") from None
        if seed < 0 or epoch < 0 or not 0 <= position <= len(self):
            raise DataError(f"Batches: epoch {epoch}, batch {position} of seed {seed} "
                            f"does not exist in {len(self)} batches")
        self.seed, self.epoch, self.position = seed, epoch, position
