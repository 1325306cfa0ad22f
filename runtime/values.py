"""Values of systems of record as JSON.

One rule: a value becomes JSON exactly, or it is refused; and what was recorded reads back as the same value.

| value | JSON |
|---|---|
| decimal | its plain digits, as a string |
| datetime with a zone | RFC 3339, UTC, milliseconds, `…Z`; finer digits are cut off, as Cedar's datetime has none |
| date | `YYYY-MM-DD` |
| UUID | its string |
| float | a number; a whole one becomes an integer, which is how canonical JSON writes it |
| numpy and Arrow scalars | as the Python value they stand for |

Refused: bytes, NaN and infinities, datetimes without a zone, integers beyond 64 bits, floats beyond 2**53.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from runtime.canonical import Json, canonical
from runtime.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_json(value: Any, what: str) -> Json:
    """Return `value` as JSON.

    Args:
        value: what a database, a table or a function returned.
        what: what it is, for messages: "column `amount`".

    Raises:
        SourceError: the value has no exact JSON form.

    Example:
        >>> to_json([Decimal("12.50"), 5.0, date(2026, 11, 22)], "column `x`")
        ['12.50', 5, '2026-11-22']
    """
    match value:
        case None | bool():
            return value
        case str():
            return value if type(value) is str else str.__str__(value)  # numpy's and enums' are subclasses
        case int():
            return _integer(value, what)
        case float():
            return _number(value, what)
        case dict():
            return {_member(name, what): to_json(item, f"{what}.{name}") for name, item in value.items()}
        case list() | tuple():
            return [to_json(item, f"{what}[{index}]") for index, item in enumerate(value)]
        case set() | frozenset():
            return as_set(to_json(item, f"{what}[]") for item in value)
        case _:
            return _scalar(value, what)


def as_set(items: Iterable[Json]) -> list[Json]:
    """Return the distinct items, sorted by canonical text: one list for one set, in whatever order it came.

    Example:
        >>> as_set(["b", "a", "b"])
        ['a', 'b']
    """
    by_text = {canonical(item): item for item in items}
    return [by_text[text] for text in sorted(by_text)]


def micros(moment: datetime) -> int:
    """Return microseconds since the epoch, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def timestamp(moment: datetime) -> str:
    """Return RFC 3339 text in UTC with milliseconds, as Cedar's `datetime` takes it; finer digits are cut off.

    Raises:
        ValueError: `moment` has no zone.
    """
    if moment.tzinfo is None:
        raise ValueError(f"datetime has no zone: {moment.isoformat()}")
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return utc.isoformat(timespec="milliseconds")[:-6] + "Z"  # without `+00:00`


def _integer(value: int, what: str) -> int:
    if not -(2**63) <= value < 2**63:
        raise SourceError(f"{what} holds an integer beyond 64 bits: {value!r:.40}; return it as a string")
    return int(value)


def _number(value: float, what: str) -> int | float:
    if not math.isfinite(value):
        raise SourceError(f"{what} holds {value!r}, which JSON cannot say; return null or a number")
    if abs(value) > 2**53:
        raise SourceError(f"{what} holds a float beyond 2**53: {value!r}; return an integer or a decimal")
    return int(value) if value.is_integer() else float(value)


def _member(name: Any, what: str) -> str:
    if not isinstance(name, str):
        raise SourceError(f"{what} holds a member whose name is not a string: {name!r:.40}")
    return name


def _scalar(value: Any, what: str) -> Json:
    match value:
        case Decimal() if value.is_finite():
            return format(value, "f")
        case datetime():
            return _zoned(value, what)
        case date():
            return value.isoformat()
        case UUID():
            return str(value)
        case _ if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "item"):
            return to_json(value.item(), what)
        case _ if hasattr(value, "as_py"):
            return to_json(value.as_py(), what)
        case _:
            raise SourceError(
                f"{what} holds {type(value).__name__} {value!r:.40}; allowed are strings, numbers, booleans, "
                "decimals, dates, datetimes with a zone, UUIDs, and lists and records of them"
            )


def _zoned(value: datetime, what: str) -> str:
    try:
        return timestamp(value)
    except ValueError as exc:
        raise SourceError(f"{what}: {exc}; store it in UTC, with its zone") from exc
