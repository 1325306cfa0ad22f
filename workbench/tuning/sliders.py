r"""Sliders: how a tunable literal is moved by hand, and what a position means.

One rule: a slider carries texts, never numbers. A `Long` has 64 bits and a `decimal` four exact digits, and the
numbers of a browser hold neither; so Python writes every position of a slider as text, and reads what comes back by
the literal's own kind (`Tunable.checked`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Literal

from workbench.texts import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.bundle import Bundle
    from runtime.literals import Value
    from runtime.tunables import Tunable

Control = Literal["range", "choice", "switch", "field"]
"""`range` is dragged, between declared bounds; `choice` is one of a list; `switch` is true or false; `field` is
written."""

POSITIONS = 400
"""Of a slider, about; any value between may be written beside it."""
_STEPS = (1, 2, 5, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slider:
    """One tunable literal, as it is moved by hand. All values are texts, as they are written without quotes."""

    key: str
    """`policy.name`."""
    name: str
    policy: str
    kind: str
    value: str
    control: Control
    positions: tuple[str, ...] = ()
    """Of a `range` from its least to its greatest value, of a `choice` in the order declared; else empty."""
    allowed: str
    """What it may be, in words."""
    file: str
    line: int
    """Of its policy, from 1."""


def sliders_of(bundle: Bundle) -> tuple[Slider, ...]:
    """Return a slider for each tunable of a bundle, in the order of files and lines."""
    found = sorted(bundle.tunables.values(), key=lambda each: (each.file, each.line))
    return tuple(_slider(tunable) for tunable in found)


def _slider(tunable: Tunable) -> Slider:
    control, positions = _control(tunable)
    return Slider(
        key=tunable.key, name=visible(tunable.name), policy=visible(tunable.policy), kind=tunable.kind,
        value=written(tunable.value), control=control, positions=positions, allowed=visible(tunable.allowed),
        file=tunable.file, line=tunable.line,
    )  # fmt: skip


def _control(tunable: Tunable) -> tuple[Control, tuple[str, ...]]:
    if tunable.choices:
        return "choice", tuple(written(choice) for choice in tunable.choices)
    if tunable.kind == "Bool":
        return "switch", ()
    low, high = _number(tunable.min), _number(tunable.max)
    if tunable.kind not in ("Long", "decimal") or low is None or high is None or low >= high:
        return "field", ()
    unit = Decimal(1) if tunable.kind == "Long" else _unit(low, high, _number(tunable.value))
    return "range", tuple(_text(each, tunable) for each in _positions(low, high, unit))


def written(value: Value) -> str:
    """Write a value as a slider carries it.

    Example:
        >>> written(5000), written(True), written("10.50")
        ('5000', 'true', '10.50')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def parsed(tunable: Tunable, text: str) -> Value:
    """Read what a slider, or a person in its field, wrote.

    Raises:
        PolicyError: it is no value of this kind, or one that is not allowed; names what is.
    """
    given: object = text
    if tunable.kind == "Bool":
        given = {"true": True, "false": False}.get(text, text)
    elif tunable.kind == "Long" and text.strip().removeprefix("-").isdecimal() and text.isascii():
        given = int(text) if len(text) < _LONGEST else text
    elif tunable.kind != "String":
        given = text.strip()
    return tunable.checked(given)


_LONGEST = 32
"""Characters of a `Long` that are read as a number; more cannot be one of 64 bits."""


def _number(value: Value | None) -> Decimal | None:
    try:
        return None if value is None else Decimal(value)
    except InvalidOperation:
        return None


def _unit(*values: Decimal | None) -> Decimal:
    """The last digit that any of some decimals is written with."""
    digits = [-int(each.as_tuple().exponent) for each in values if each is not None]
    return Decimal(1).scaleb(-max(1, *digits))


def _positions(low: Decimal, high: Decimal, unit: Decimal) -> Iterator[Decimal]:
    """Both bounds, and the multiples of a round step between them."""
    step = _round_step((high - low) / POSITIONS, unit)
    yield low
    place = math.floor(low / step) + 1
    while (at := place * step) < high:
        yield at
        place += 1
    yield high


def _round_step(wanted: Decimal, unit: Decimal) -> Decimal:
    """The least 1, 2 or 5 times a power of ten that is no less than `wanted`, and no less than `unit`."""
    if wanted <= unit:
        return unit
    power = Decimal(1).scaleb(wanted.adjusted())
    return next(step for each in _STEPS if (step := each * power) >= wanted)


def _text(value: Decimal, tunable: Tunable) -> str:
    if tunable.kind == "Long":
        return str(int(value))
    places = max(
        1, -int(value.as_tuple().exponent)
    )  # Cedar's `decimal` has one digit after the point at least
    return f"{value:.{places}f}"
