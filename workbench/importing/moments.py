"""When calls were made: read from a column, or derived from their order.

One rule: the same file gives the same times, on every machine. What is not there is derived, one second a call, and
its session says so by a label; nothing is taken from the clock.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from runtime.values import micros
from workbench.errors import MappingInvalid
from workbench.importing.causes import Unmappable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.importing.mapping import Time

SECOND: Final = 1_000_000
EPOCH_US: Final = 946_684_800 * SECOND
"""2000-01-01: where a file without any time begins."""
_UNITS: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}
_FIRST: Final = micros(datetime(1900, 1, 1, tzinfo=UTC))
_LAST: Final = micros(datetime(9000, 1, 1, tzinfo=UTC))
"""Beyond these a time is a misread one; and so late ones stay within what Python and Cedar can say."""


@lru_cache(maxsize=16)
def zone_of(name: str) -> ZoneInfo:
    """Return a zone.

    Raises:
        MappingInvalid: there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as exc:
        raise MappingInvalid(
            f'`time.zone` must be an IANA zone such as "Europe/Berlin", got {name!r}'
        ) from exc


def moment(value: Any, time: Time, column: str) -> int | None:
    """Return a time as microseconds UTC; None: there is none.

    Raises:
        Unmappable: it cannot be read.
    """
    if value is None:
        return None
    found = None if isinstance(value, bool) else _read(value, time)
    if found is None or not _FIRST <= found <= _LAST:
        allowed = f"a timestamp, an ISO 8601 text, or a number ({time.unit} since 1970)"
        raise Unmappable("time_unreadable", f"`{column}` must be {allowed}, got {value!r:.60}")
    return found


def _read(value: Any, time: Time) -> int | None:
    match value:
        case int():
            return value * _UNITS[time.unit]
        case float():
            return round(value * _UNITS[time.unit]) if abs(value) < 1e18 else None  # noqa: PLR2004 - infinities, too
        case str():
            try:
                value = datetime.fromisoformat(value.strip())
            except ValueError:
                return None
        case datetime():
            pass
        case _:
            return None
    aware = value if value.tzinfo is not None else value.replace(tzinfo=zone_of(time.zone))
    return micros(aware)


def derived(times: Sequence[int | None], start: int | None, otherwise: int) -> list[int]:
    """Return the times of a session's calls, in order; those that are missing derived from the others.

    A missing one is a second after the one before it; those before the first known one lead up to it by seconds. A
    session without any begins at `start`, or else at `otherwise`.

    Example:
        >>> derived([None, 7_000_000, None], None, 0)
        [6000000, 7000000, 8000000]
    """
    first = next((place for place, time in enumerate(times) if time is not None), None)
    if first is None:
        begin = otherwise if start is None else start
        return [begin + place * SECOND for place in range(len(times))]
    known = times[first] or 0
    found = [known - (first - place) * SECOND for place in range(first)]
    for time in times[first:]:
        found.append(found[-1] + SECOND if time is None else time)
    return found


def at_of(time_us: int) -> datetime:
    """Return the UTC moment of microseconds."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)
