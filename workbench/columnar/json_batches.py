"""Steps that are functions of a batch of texts rather than expressions: escapes, dates, and what many rows share.

One rule: a function of a batch is a function of each of its texts; null gives null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable

UNESCAPED = pl.Struct({"value": pl.String(), "sure": pl.Boolean()})
"""What `unescaped` gives."""
_STRING = r'^"(?:[^"\\\x00-\x1f]|\\["\\bfnrt])*"$'
"""A JSON string whose escapes are all canonical ones; those by number are left out."""
_FORMS = {20: "0000-00-00T00:00:00Z", 24: "0000-00-00T00:00:00.000Z"}
"""Plain forms of a moment by length; `0` is any digit."""
_MOST_DISTINCT = 0.5
"""Share of distinct texts above which reading each once is no gain."""


def unescaped(texts: pl.Series) -> pl.Series:
    """What JSON strings say; `sure` is of no meaning for a text without quotes around it."""
    inner = texts.str.slice(1).str.head(-1)
    sure = ~inner.str.contains_any(['"', "\\"])
    rows = (~sure).arg_true()
    if rows.len():
        given = (
            texts.gather(rows).to_frame("text").lazy().with_columns(fits=pl.col("text").str.contains(_STRING))
        )
        read = given.select("fits", value=pl.when("fits").then("text").str.json_decode(pl.String)).collect()
        inner, sure = patched(inner, rows, read["value"]), patched(sure, rows, read["fits"])
    return pl.DataFrame({"value": inner, "sure": sure}).to_struct()


def patched(column: pl.Series, rows: pl.Series, values: pl.Series) -> pl.Series:
    """The column with other values in the places `rows`."""
    places = pl.int_range(column.len(), dtype=pl.UInt32, eager=True)
    new = pl.int_range(column.len(), column.len() + values.len(), dtype=pl.UInt32, eager=True)
    both = pl.concat([column.rename("both"), values.rename("both")], rechunk=True)
    return both.gather(places.scatter(rows, new)).rename(column.name)


def by_distinct(texts: pl.Series, read: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """Read each distinct text once, where that is a gain."""
    known = texts.drop_nulls().unique()
    if known.len() > texts.len() * _MOST_DISTINCT:
        return read(texts)
    codes = texts.cast(pl.Enum(known)).to_physical()
    return read(known).gather(codes.cast(pl.UInt32))


def moments(texts: pl.Series) -> pl.Series:
    """Milliseconds since 1970 of `2026-01-31T12:00:00Z` and `…00.250Z`; null for every other text."""
    sizes = texts.str.len_bytes()
    found = pl.Series(texts.name, [None], dtype=pl.Int64).new_from_index(0, texts.len())
    for size, form in _FORMS.items():
        rows = (sizes == size).fill_null(value=False).arg_true()
        if rows.len():
            values = _moments(texts if rows.len() == texts.len() else texts.gather(rows), form)
            found = values if rows.len() == texts.len() else patched(found, rows, values)
    return found


def _moments(texts: pl.Series, form: str) -> pl.Series:
    """Of texts of one length: their bytes as a table, a row a text."""
    array = texts.cast(pl.Binary).to_arrow()
    begin = array.offset * len(form)
    held = np.frombuffer(array.buffers()[2], dtype=np.uint8)[begin : begin + len(array) * len(form)]
    table = held.reshape(-1, len(form)).T
    digits = table - np.uint8(ord("0"))  # what is no digit wraps around, beyond nine
    fits = np.ones(len(array), dtype=bool)
    for place, letter in enumerate(form):
        fits &= digits[place] <= 9 if letter == "0" else table[place] == ord(letter)  # noqa: PLR2004 - a digit

    def number(begin: int, end: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        total = np.zeros(len(array), dtype=np.int64)
        for place in range(begin, end):
            total = total * 10 + digits[place]
        return total

    year, month, day = number(0, 4), number(5, 7), number(8, 10)
    hour, minute, second = number(11, 13), number(14, 16), number(17, 19)
    millis = number(20, 23) if len(form) > len(_FORMS[20]) else 0
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    lengths = _LENGTHS[np.minimum(month, 13)] + (leap & (month == 2))  # noqa: PLR2004 - February
    fits &= (day >= 1) & (day <= lengths) & (hour <= 23) & (minute <= 59) & (second <= 59)  # noqa: PLR2004 - a clock
    days = _days(year, month, day)
    value = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis
    return pl.select(pl.when(pl.Series(fits)).then(pl.Series(value))).to_series()


_LENGTHS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0])


def _days(year: np.ndarray, month: np.ndarray, day: np.ndarray) -> np.ndarray:
    """Days since 1970-01-01 in the proleptic Gregorian calendar; years begin in March."""
    moved = month <= 2  # noqa: PLR2004 - February
    year = year - moved
    month = month + np.where(moved, 9, -3)
    found: np.ndarray = (
        365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 1 - 719_468
    )
    return found
