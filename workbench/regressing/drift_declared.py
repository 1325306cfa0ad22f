"""The table `[drift]` of a job: what a window may differ in from the one before.

One rule: all that is wrong is told at once, with file, table and the closest key that there is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from workbench.errors import JobInvalid
from workbench.texts import shorten, visible
from workbench.weighing.stakes import closest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

COMPARE = ("last", "first")


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftGate:
    """What a window may differ in from the one before. The table `[drift]` of a job."""

    level: float = 0.95
    """How sure no alarm is false: over all nights, variables and shapes together."""
    least: float = 0.1
    """Jensen-Shannon distance below which a change does not matter: 9 in 10 against 8 in 10 is 0.1."""
    max_drifted: int = 0
    """Variables that may drift."""
    max_uncovered: float = 0.01
    """Share of the window's decisions that may have a tool, or a shape of context, that the other window had not;
    1: any."""
    ignore: tuple[str, ...] = ()
    """Variables that are not looked at, by name or pattern: `context.args.note*`, `*age`."""
    compare: str = "last"
    """With which window: `last` the one before, `first` the first of all."""


def read_drift(table: Mapping[str, Any], where: str) -> DriftGate:
    """Return the gate that a table `[drift]` declares; an empty one is the default.

    Args:
        table: as TOML reads it.
        where: file and table, for messages.

    Raises:
        JobInvalid: a key or a value is none of ours; names all that are wrong, a line each.

    Example:
        >>> read_drift({"least": 0.2, "ignore": ["*age"]}, "job.toml [drift]").ignore
        ('*age',)
    """
    known = [each.name for each in fields(DriftGate)]
    wrong = [
        f"there is no key `{visible(str(key))}`; {closest(str(key), known)}"
        if key not in known
        else f"`{key}` is {shorten(visible(repr(value)), 80)}; {_ALLOWED[key][1]}"
        for key, value in table.items()
        if key not in known or not _ALLOWED[key][0](value)
    ]
    if wrong:
        raise JobInvalid("\n".join(f"{where}: {each}" for each in wrong))
    given: dict[str, Any] = {**table}
    return DriftGate(**(given | {"ignore": tuple(given.get("ignore", ()))}))


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) and each for each in value)


_ALLOWED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "level": (lambda v: _number(v) and 0.5 < v < 1, "it lies between 0.5 and 1, as 0.95 for 95 %"),  # noqa: PLR2004
    "least": (lambda v: _number(v) and 0 < v <= 1, "it is a distance above 0 and at most 1, as 0.1"),
    "max_drifted": (lambda v: type(v) is int and v >= 0, "it is how many variables may drift, as 0"),
    "max_uncovered": (lambda v: _number(v) and 0 <= v <= 1, "it is a share of the decisions, as 0.01"),
    "ignore": (_texts, 'it is a list of variables, as ["context.args.note*"]'),
    "compare": (lambda v: v in COMPARE, 'it is "last" or "first"'),
}
"""What a value may be, and how that is said."""
