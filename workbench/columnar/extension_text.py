"""What the texts of Cedar's extension values mean: decimal, datetime, duration and IP address.

One rule: a text is read exactly as Cedar's constructor reads it, or it is an error here as it is there (tests hold
both against each other). Numbers become 64-bit integers: decimals in ten-thousandths, times in milliseconds.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ExtensionKind: TypeAlias = Literal["decimal", "datetime", "duration", "ipaddr"]

_INT64 = range(-(2**63), 2**63)
_DECIMAL = re.compile(r"(-?)([0-9]+)\.([0-9]{1,4})")
_DATE = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{3}))?(?:Z|([+-])([0-9]{2})([0-9]{2})))?"
)
_DURATION = re.compile(r"(-?)(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?(?:([0-9]+)ms)?")
_UNITS = (86_400_000, 3_600_000, 60_000, 1_000, 1)
_PREFIX = re.compile(r"0|[1-9][0-9]{0,2}")
_LONGEST_DIGITS = 400
"""More digits than any value that fits 64 bits needs, leading zeros aside; beyond it Python itself would refuse."""


class NotAValue(ValueError):  # noqa: N818 - says what the text is
    """The constructor raises an error on this text."""


def _whole(digits: str) -> int:
    stripped = digits.lstrip("0") or "0"
    if len(stripped) > _LONGEST_DIGITS:
        raise NotAValue("does not fit 64 bits")
    return int(stripped)


def _fit(value: int) -> int:
    if value not in _INT64:
        raise NotAValue("does not fit 64 bits")
    return value


def decimal_units(text: str) -> int:
    """Read a decimal: one to four digits after the point, in ten-thousandths."""
    found = _DECIMAL.fullmatch(text)
    if found is None:
        raise NotAValue("is not a decimal such as `12.50`")
    units = _whole(found[2]) * 10_000 + int(found[3].ljust(4, "0"))
    return _fit(-units if found[1] else units)


def _day_number(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar; year 0 exists, unlike in Python's `date`."""
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    lengths = (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    if not 1 <= month <= len(lengths) or not 1 <= day <= lengths[month - 1]:
        raise NotAValue("is not a day of the calendar")
    before = year - 1
    return (
        year * 365 + before // 4 - before // 100 + before // 400 + sum(lengths[: month - 1]) + day - 719_528
    )


def datetime_ms(text: str) -> int:
    """Read a datetime, in milliseconds since 1970 UTC."""
    found = _DATE.fullmatch(text)
    if found is None:
        raise NotAValue("is not a datetime such as `2026-01-31T12:00:00Z`")
    days = _day_number(int(found[1]), int(found[2]), int(found[3]))
    if found[4] is None:
        return days * _UNITS[0]
    hours, minutes, seconds = int(found[4]), int(found[5]), int(found[6])
    off_hours, off_minutes = int(found[9] or 0), int(found[10] or 0)
    if max(hours, off_hours) > 23 or max(minutes, seconds, off_minutes) > 59:  # noqa: PLR2004 - a clock's
        raise NotAValue("is not a time of the day")
    offset = (off_hours * 60 + off_minutes) * (-1 if found[8] == "-" else 1)
    local = ((days * 24 + hours) * 60 + minutes - offset) * 60 + seconds
    return local * 1_000 + int(found[7] or 0)


def duration_ms(text: str) -> int:
    """Read a duration, in milliseconds."""
    found = _DURATION.fullmatch(text)
    if found is None or text in {"", "-"}:
        raise NotAValue("is not a duration such as `1d2h3m4s5ms`")
    counts = [_whole(digits or "0") for digits in found.groups()[1:]]
    total = sum(count * unit for count, unit in zip(counts, _UNITS, strict=True))
    return _fit(-total if found[1] else total)


def ip_text(text: str) -> str:
    """Read an address or range as a text of 100 characters whose parts compare as the addresses do.

    Returns:
        Family (`4` or `6`), address (32 hex digits), prefix length (3 digits), first and last address of the range.
    """
    body, slash, prefix = text.partition("/")
    if "%" in body or (":" in body and "." in body) or (slash and not _PREFIX.fullmatch(prefix)):
        raise NotAValue("is not an IP address or range")
    try:
        address = ipaddress.ip_address(body)
    except ValueError as exc:
        raise NotAValue("is not an IP address or range") from exc
    size = address.max_prefixlen
    length = int(prefix) if slash else size
    if length > size:
        raise NotAValue("has a prefix longer than the address")
    value = int(address)
    host = (1 << (size - length)) - 1
    return f"{address.version}{value:032x}{length:03d}{value & ~host:032x}{value | host:032x}"


READERS: Mapping[ExtensionKind, Callable[[str], int | str]] = {
    "decimal": decimal_units,
    "datetime": datetime_ms,
    "duration": duration_ms,
    "ipaddr": ip_text,
}
"""By kind."""

CONSTRUCTORS: Mapping[str, ExtensionKind] = {
    "decimal": "decimal",
    "datetime": "datetime",
    "duration": "duration",
    "ip": "ipaddr",
}
"""Kind by the name of Cedar's function."""
