"""Exact conversion of JSON values to Cedar's extension types and scaled integers.

One rule: the text returned is one that Cedar's constructor accepts, and means the value given, exactly.

Source: the Cedar documentation, "Data types", constructors `decimal`, `datetime`, `duration` and `ip`; each limit
below was held against `cedarpy` by generated cases.
"""

from __future__ import annotations

import calendar
import ipaddress
import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.canonical import Json

_LONGEST = 100
"""Characters. Longer numbers and durations are refused: none that fits is that long, and parsing stays cheap."""
_INT64 = range(-(2**63), 2**63)
_DECIMAL_UNITS = 10_000
_MOST_DIGITS = 20
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,4})?")
_DATETIME = re.compile(
    r"(?P<date>([0-9]{4})-([0-9]{2})-([0-9]{2}))"
    r"(?:T(?P<time>([0-9]{2}):([0-9]{2}):([0-9]{2}))(?:\.(?P<fraction>[0-9]{1,9}))?"
    r"(?P<offset>Z|(?P<sign>[+-])([0-9]{2}):?([0-9]{2})))?"
)
_DURATION = re.compile(r"(-?)(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?(?:([0-9]+)ms)?")
_UNITS_MS = (86_400_000, 3_600_000, 60_000, 1_000, 1)
_PREFIX = re.compile(r"0|[1-9][0-9]{0,2}")


class NotExact(ValueError):  # noqa: N818 - says what is wrong with the value
    """The value is not one of the type's. The message says what is allowed, and fits after the value's path."""


def number_of(value: Json) -> Decimal:
    """Return a JSON number, or the text of one, as an exact decimal.

    Raises:
        NotExact: another type, NaN, an infinity, or text that is no number.
    """
    match value:
        case bool():
            pass
        case int() if abs(value) < 2**64:
            return Decimal(value)
        case float() if math.isfinite(value):
            return Decimal(repr(value))
        case str() if len(value) <= _LONGEST and _NUMBER.fullmatch(value):
            return Decimal(value)
    raise NotExact("must be a finite number, or its text such as `12.50`")


def exact_product(number: Decimal, factor: int) -> int | None:
    """Return `number * factor` if it is an integer, else null.

    Integers are used, because `decimal`'s own arithmetic would round to 28 digits.

    Raises:
        NotExact: the number is beyond 64 bits whatever the factor.
    """
    sign, digits, exponent = number.as_tuple()
    product = int("".join(map(str, digits))) * factor * (-1 if sign else 1)
    if not product or not isinstance(exponent, int):
        return 0
    if number.adjusted() > _MOST_DIGITS:
        raise NotExact("must fit 64 bits")
    scale: int = 10 ** min(abs(exponent), 2 * _LONGEST)
    if exponent >= 0:
        return product * scale
    # A number that goes on beyond `scale` leaves a rest as well: it has at most `_LONGEST` digits.
    quotient, rest = divmod(product, scale)
    return None if rest else quotient


def scaled_integer(value: Json, factor: int) -> int:
    """Return a JSON number (or its text) times `factor`.

    Raises:
        NotExact: the product is no integer, or beyond 64 bits.
    """
    product = exact_product(number_of(value), factor)
    if product is None:
        raise NotExact(f"times {factor} must be an integer, exactly: round it before the call")
    if product not in _INT64:
        raise NotExact(f"times {factor} must fit a `Long` of 64 bits")
    return product


def decimal_text(value: Json) -> str:
    """Return the argument of Cedar's `decimal` for a JSON number or its text.

    Raises:
        NotExact: more than four fractional digits, or beyond Cedar's range.

    Example:
        >>> decimal_text(5), decimal_text("-0.50"), decimal_text(1e3)
        ('5.0', '-0.5', '1000.0')
    """
    units = exact_product(number_of(value), _DECIMAL_UNITS)
    if units is None:
        raise NotExact("has more than the four fractional digits of a `decimal`: round it before the call")
    if units not in _INT64:
        raise NotExact(
            "is beyond a `decimal`, which reaches from -922337203685477.5808 to 922337203685477.5807"
        )
    whole, fraction = divmod(abs(units), _DECIMAL_UNITS)
    return f"{'-' if units < 0 else ''}{whole}.{f'{fraction:04d}'.rstrip('0') or '0'}"


def extension_text(name: str, value: Json) -> str:
    """Return the argument of Cedar's `datetime`, `duration` or `ip` for a JSON string.

    Raises:
        NotExact: not a string of the form the type takes.
    """
    if not isinstance(value, str):
        raise NotExact(f"must be the text of a `{name}`")
    match name:
        case "datetime":
            return _datetime(value)
        case "duration":
            return _duration(value)
        case _:
            return _ipaddr(value)


def _datetime(text: str) -> str:
    match = _DATETIME.fullmatch(text)
    if match is None:
        raise NotExact(
            "must be a `datetime`, such as `2026-11-22`, `2026-11-22T10:00:00Z` or `…T10:00:00.250+01:00`"
        )
    _, year, month, day, _, hour, minute, second, fraction, offset, sign, off_hour, off_minute = (
        match.groups()
    )
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= calendar.monthrange(int(year), int(month))[1]):  # noqa: PLR2004
        raise NotExact("must be a `datetime` of a day that exists")
    if match["time"] is None:
        return match["date"]
    if not (_clock(hour, minute) and int(second) < 60 and (sign is None or _clock(off_hour, off_minute))):  # noqa: PLR2004
        raise NotExact("must be a `datetime` with hours below 24, minutes and seconds below 60")
    millis = (fraction or "").ljust(3, "0")
    if millis[3:].strip("0"):
        raise NotExact("is finer than a `datetime`, which takes milliseconds: round it before the call")
    return f"{match['date']}T{match['time']}{f'.{millis[:3]}' if fraction else ''}{offset.replace(':', '')}"


def _clock(hour: str, minute: str) -> bool:
    return int(hour) < 24 and int(minute) < 60  # noqa: PLR2004 - a day, an hour


def _duration(text: str) -> str:
    match = _DURATION.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None or not any(match.groups()[1:]):
        raise NotExact("must be a `duration`, such as `1d2h30m`, `90s` or `-250ms`, units in this order")
    total = sum(int(n) * unit for n, unit in zip(match.groups()[1:], _UNITS_MS, strict=True) if n)
    if (-total if match[1] else total) not in _INT64:
        raise NotExact("is beyond a `duration`, which has 64 bits of milliseconds")
    return text


def _ipaddr(text: str) -> str:
    address, slash, prefix = text.partition("/")
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        parsed = None
    embedded = "%" in address or (":" in address and "." in address)
    if parsed is None or embedded:
        raise NotExact("must be an `ipaddr`, such as `10.0.0.1`, `10.0.0.0/8` or `2001:db8::/32`")
    if slash and not (_PREFIX.fullmatch(prefix) and int(prefix) <= parsed.max_prefixlen):
        raise NotExact(f"must be an `ipaddr` with a prefix from 0 to {parsed.max_prefixlen}, no leading zero")
    return text
