"""Canonical JSON and content addresses.

The one rule: equal values give equal bytes, in every process and on every machine.

Bytes are those of RFC 8785 wherever RFC 8785 defines them exactly. It maps every number to a double, so an
integer beyond 2**53 has no exact form there; Cedar's `Long` has 64 bits. Such an integer is written as plain
decimal digits (which JSON permits), and a value that mixes one with a float is refused rather than rounded.

Speed: `msgspec` writes a record in under a microsecond; `rfc8785` (24 µs) is used only where a float or a
non-ASCII member name occurs, for number format and UTF-16 member order.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import rfc8785

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"
"""A JSON value as Python holds it."""

_encoder = msgspec.json.Encoder(order="sorted")
_encode = _encoder.encode
_sha256 = hashlib.sha256
_SAFE = 2**53 - 1
_INT64 = range(-(2**63), 2**63)
_LONG = re.compile("[0-9]{19}")
"""What the text of an integer beyond 64 bits has, and little else; msgspec writes those below 2**64."""
_VARIANT = {digit: "89ab"[number % 4] for number, digit in enumerate("0123456789abcdef")}
"""The digit of a UUID that says its variant, with two random bits."""
_UNSURE = re.compile("[0-9](?:[.eE]|[0-9]{18})")
"""What the text of each float has, and of each integer beyond 64 bits."""
_NAMES = frozenset({str})
_FIT = frozenset({str, bool, type(None)})
"""Types whose values are written by msgspec as they must be; a lone surrogate is found when it is written."""
_WHOLE = _FIT | {int}
_SCALARS = _WHOLE | {float}
_LISTS = frozenset({list, tuple})
_CONTAINERS = _LISTS | {dict}
_KNOWN = _SCALARS | _CONTAINERS


class NotCanonical(ValueError):  # noqa: N818 - named for what the value is
    """The value has no canonical form: NaN, an integer beyond 64 bits, a lone surrogate, not JSON."""


def canonical(value: Json) -> str:
    """Return the canonical JSON text of `value`.

    Raises:
        NotCanonical: naming what is wrong and, for members, where.

    Example:
        >>> canonical({"b": 1, "a": [True, None, "é"]})
        '{"a":[true,null,"é"],"b":1}'
        >>> canonical(9007199254740993)
        '9007199254740993'
    """
    # Most are flat records: judged and written here, because what is called below would be most of their cost.
    if (
        type(value) is dict
        and _WHOLE.issuperset(map(type, value.values()))
        and _NAMES.issuperset(map(type, value))
        and "".join(value).isascii()
    ):
        try:
            text = _encode(value).decode()
        except (OverflowError, UnicodeError):
            pass  # what is wrong is said below
        else:
            if _LONG.search(text) is None:
                return text
    try:
        return _text(value)
    except (_Unfit, OverflowError):
        where, why = next(_faults(value, "$"), ("$", "a number out of range"))
        raise NotCanonical(f"value has no canonical JSON form: {why} at {where}") from None
    except (rfc8785.CanonicalizationError, TypeError, UnicodeError, RecursionError) as exc:
        raise NotCanonical(f"value has no canonical JSON form: {exc}") from exc


def _text(value: Json) -> str:
    if _needs_rfc8785(value):
        _require_known_integers(value)
        return rfc8785.dumps(_doubles(value)).decode()
    text = _encoder.encode(value).decode()
    if _LONG.search(text) is not None:
        _require_known_integers(value)
    return text


def canonical_own(value: Json) -> str:
    """Return the canonical text of a value that this package made: nothing is in it but JSON's types.

    So floats and member names beyond ASCII need only be looked for in the text; where it might hold one, or an
    integer beyond 64 bits, `canonical` decides.
    """
    try:
        text = _encode(value).decode()
    except (OverflowError, UnicodeError):
        return canonical(value)
    return text if text.isascii() and _UNSURE.search(text) is None else canonical(value)


def canonical_texts(value: str | Mapping[str, str | None]) -> str:
    """Return the canonical text of a text, or of a record of texts whose names are ASCII: nothing else is in it.

    Raises:
        NotCanonical: a lone surrogate.
    """
    try:
        return _encoder.encode(value).decode()
    except UnicodeError as exc:
        raise NotCanonical(f"value has no canonical JSON form: {exc}") from exc


class _Unfit(Exception):  # noqa: N818 - never leaves this module
    """Something in the value is not JSON; where it is, is looked for only then."""


def _needs_rfc8785(value: Json) -> bool:
    """Whether a float or a non-ASCII member name occurs. Every member is looked at; this is the hot path.

    Members are judged by the set of their types, made in C: few have any that must be looked at one by one.
    """
    kind = type(value)
    if kind is dict:
        if not _NAMES.issuperset(map(type, value)):  # type: ignore[arg-type]  # mypy does not narrow by `type(…) is`
            raise _Unfit
        slow = not "".join(value).isascii()  # type: ignore[arg-type]  # as above
        members: Collection[Json] = value.values()  # type: ignore[union-attr]  # as above
    else:
        slow, members = False, value if kind in _LISTS else (value,)  # type: ignore[assignment]  # as above
    kinds = set(map(type, members))
    if kinds <= _FIT:
        return slow
    slow |= float in kinds
    if kinds <= _SCALARS:
        return slow
    if not kinds <= _KNOWN:
        raise _Unfit
    return any([_needs_rfc8785(each) for each in members if type(each) in _CONTAINERS]) or slow


def _require_known_integers(value: Json) -> None:
    """Refuse integers beyond 64 bits."""
    if next(_faults(value, "$"), None) is not None:
        raise _Unfit


def _doubles(value: Json) -> Json:
    """Write integers beyond 2**53 as doubles where that gives the same digits: they were floats once."""
    if type(value) is int and abs(value) > _SAFE and rfc8785.dumps(float(value)).decode() == str(value):
        return float(value)
    if isinstance(value, dict):
        return {key: _doubles(item) for key, item in value.items()}
    return [_doubles(item) for item in value] if isinstance(value, list | tuple) else value


def _faults(value: object, path: str) -> Iterator[tuple[str, str]]:
    """Yield (path, what is wrong) of everything that is not JSON."""
    if type(value) not in (type(None), bool, str, float, int, dict, list, tuple):
        yield path, f"a {type(value).__name__}"  # a subclass need not be what it inherits from
    elif isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                yield path, f"a member name that is no plain string, {key!r:.40},"
            yield from _faults(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _faults(item, f"{path}[{index}]")
    elif type(value) is int and value not in _INT64:
        yield path, f"the integer {value!r:.40} beyond 64 bits"


def parse(text: str) -> Json:
    """Read canonical text back: `canonical(parse(text)) == text`.

    RFC 8785 writes a whole float as an integer, so digits beyond 64 bits can only come from a float.

    Raises:
        ValueError: not JSON.
    """
    found: Json = json.loads(text, parse_int=_integer)
    return found


def _integer(digits: str) -> int | float:
    value = int(digits)
    return value if value in _INT64 else float(digits)


def without_doubles(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """Make an object of its members, for `json.loads(object_pairs_hook=…)`, which would keep the last of two.

    Raises:
        ValueError: a member is there twice.
    """
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has the same member twice")
    return members


def sha256(text: str) -> str:
    """Return the SHA-256 of the UTF-8 bytes of `text`, as 64 lower-case hex digits."""
    return _sha256(text.encode()).hexdigest()


def content_hash(value: Json) -> str:
    """Return the content address of a JSON value: SHA-256 of its canonical text."""
    return sha256(canonical(value))


def new_id() -> str:
    """Return a fresh UUID version 7 (RFC 9562 section 5.7) as 32 hex digits: sorts by time of creation."""
    millis = time.time_ns() // 1_000_000 & (2**48 - 1)
    rand = os.urandom(10).hex()  # 12 bits after the version, 62 after the variant, which takes two of a digit
    return f"{millis:012x}7{rand[:3]}{_VARIANT[rand[3]]}{rand[4:19]}"
