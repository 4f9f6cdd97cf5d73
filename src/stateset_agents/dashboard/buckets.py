"""Many points to as many as a screen has.

Invariant: no extreme is lost: every value of a bucket lies between its low and its high, and both are values that were
measured. What has no value is left out of a bucket's mean, and a bucket without any is None.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.floating[Any]] | NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Buckets:
    """How rows are put together: `size` consecutive rows each, the last bucket with what is left.

    Attributes:
        rows: how many rows there are.
        size: rows in a bucket; 1 leaves every row by itself.
    """

    rows: int
    size: int

    @classmethod
    def of(cls, rows: int, most: int) -> Buckets:
        """The smallest buckets of which at most `most` hold so many rows."""
        return cls(rows, max(1, math.ceil(rows / max(1, most))))

    def last(self, values: Numbers) -> NDArray[np.float64]:
        """The last value of each bucket."""
        array = np.asarray(values, np.float64)
        ends = np.minimum(np.arange(self.size - 1, self.rows + self.size - 1, self.size), self.rows - 1)
        return array[ends] if self.rows else array

    def mean(self, values: Numbers) -> NDArray[np.float64]:
        """Mean of each bucket's finite values."""
        return self._over(values, np.nanmean)

    def low(self, values: Numbers) -> NDArray[np.float64]:
        """Smallest value of each bucket."""
        return self._over(values, np.nanmin)

    def high(self, values: Numbers) -> NDArray[np.float64]:
        """Largest value of each bucket."""
        return self._over(values, np.nanmax)

    def _over(self, values: Numbers, reduce: Any) -> NDArray[np.float64]:
        array = np.asarray(values, np.float64)
        if self.size == 1:
            return array
        padded = np.full(math.ceil(self.rows / self.size) * self.size, np.nan)
        padded[: self.rows] = array
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a bucket without any value is NaN
            found: NDArray[np.float64] = reduce(padded.reshape(-1, self.size), axis=1)
        return found


def plain(values: Numbers, digits: int = 6) -> list[float | None]:
    """For JSON: so many significant digits, None for what is not finite."""
    return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in np.asarray(values).tolist()]
