"""Rows by what policies say of them: small columns of small numbers, made into one number a row.

One rule: rows have one class if, and only if, all columns agree; a class is decided once.

Accepted: counted by position, not hashed; a row costs some nanoseconds a column, whatever the number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

VALUES = 4
"""A column's numbers are below this: bit 0 satisfied, bit 1 in error."""
_MOST = 1 << 14
"""Combinations that are counted before they are renumbered."""


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of some rows."""

    codes: NDArray[np.intp]
    """One a row."""
    table: NDArray[np.uint8]
    """One row a class, one column a column that was given."""


def classes_of(columns: Sequence[NDArray[np.uint8]], height: int) -> Classes:
    """Number rows by what columns say; each column has `height` numbers below `VALUES`."""
    codes, count = np.zeros(height, np.intp), 1
    for column in columns:
        if count * VALUES > _MOST:
            codes, count = renumbered(codes, count)
        codes = codes * VALUES + column
        count *= VALUES
    codes, count = renumbered(codes, count)
    first = np.zeros(count, np.intp)
    first[codes[::-1]] = np.arange(height - 1, -1, -1)
    told = [column[first] for column in columns]
    table = np.stack(told, axis=1) if told else np.zeros((count, 0), np.uint8)
    return Classes(codes, table)


def renumbered(codes: NDArray[np.intp], count: int) -> tuple[NDArray[np.intp], int]:
    """Number what occurs without gaps, in order; and say how much does."""
    there = np.bincount(codes, minlength=count) > 0
    numbers = np.cumsum(there) - 1
    return numbers[codes], int(there.sum())


def numbered(values: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Number small numbers without gaps: the number of each, and what each number stands for, in order."""
    if not len(values):
        return np.zeros(0, np.intp), values
    codes, _ = renumbered(values.astype(np.intp), int(values.max()) + 1)
    return codes, np.flatnonzero(np.bincount(values)).astype(np.int32)
