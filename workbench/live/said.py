"""What is said of a decision, and of whom: small values that a million rows are numbers of.

One rule: whatever is counted or shown of a row follows from two numbers, its *key* (what was recorded of it) and what
is *said* of it now. Both tables are small; rows never hold texts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from workbench.effects import EFFECTS, now_of
from workbench.history.sweeping import Told

if TYPE_CHECKING:
    from workbench.effects import Effect, Then

STATUS_LEFT = "handed_over"
"""Of rows that columns leave to Cedar, and that it was not asked about yet."""


class Said(NamedTuple):
    """What is said of a decision."""

    status: str
    """`decided`, `undecided`, `quarantined` or `handed_over`."""
    verdict: str | None = None
    decided_by: str | None = None
    reason_code: str | None = None
    determining: tuple[str, ...] = ()
    same: bool = False
    """What would be run is what was enforced; only of what would run."""

    @property
    def state(self) -> str:
        """One of the six states; what Cedar was not asked about yet is undecided."""
        if self.verdict is not None:
            return self.verdict
        return "undecided" if self.status == STATUS_LEFT else self.status


LEFT = Said(STATUS_LEFT)
UNDECIDED = Said("undecided")


class Key(NamedTuple):
    """What was recorded of a decision, as far as anything counted depends on it."""

    then: Then
    kind: str
    verdict: str
    side: str
    tool: str


@dataclass(slots=True)
class Book:
    """Distinct things said, by number; numbers stay."""

    every: list[Said] = field(default_factory=list)
    _numbers: dict[Said, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.number(LEFT)

    def number(self, said: Said) -> int:
        """Return the number of what is said; equal things have one. `LEFT` is 0."""
        if said not in self._numbers:
            self._numbers[said] = len(self.every)
            self.every.append(said)
        return self._numbers[said]


def effect_of(key: Key, said: Said) -> Effect:
    """Return the effect of what is said."""
    if said.verdict is None:
        return "quarantined" if said.status == "quarantined" else "undecided"
    now = now_of(said.verdict, kind=key.kind, same_action=said.same)
    return EFFECTS[key.then, now]


def told_of(key: Key, said: Said) -> Told:
    """Return what is counted of a decision."""
    status = "undecided" if said.status == STATUS_LEFT else said.status
    changed = None if said.verdict is None else said.verdict != key.verdict
    return Told(status, said.verdict, changed, effect_of(key, said), key.then, key.side)
