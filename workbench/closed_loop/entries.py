"""What a pass over a history reads and writes: calls and outcomes as integers, and what was found.

One rule: values alone; what moves them stands in `workbench.closed_loop.sequence`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.canonical import Json
    from runtime.limits import Meter
    from workbench.closed_loop.rules import Ruleset
    from workbench.closed_loop.tracks import Guard, Place, Track, Used

_encode: Final = msgspec.json.Encoder(order="sorted").encode

NO: Final = 0
YES: Final = 1
UNSURE: Final = 2

_CLOSED: Final[dict[str, Json]] = {"calls": 0, "errors": 0, "state": "closed"}
NO_EFFECT: Final = frozenset({"aborted", "denied", "expired"})
"""Ends by which nothing took effect: what was taken is given back."""


@dataclass(slots=True, kw_only=True)
class Calls:
    """Decisions as lists, a place a row of the log."""

    free: Sequence[int]
    """Whether it runs if no budget or breaker is in its way."""
    asks: Sequence[int]
    """Whether it waits for approval then."""
    early: Sequence[bool]
    """Whether a stage before the limits refused it, or something that hangs on no verdict before it."""
    ran: Sequence[bool]
    known: Sequence[bool]
    """Whether it ran then with the same arguments: it ends as it ended."""
    at: Sequence[int]
    rules: Sequence[int]
    """Place of its rules among `rulesets`; -1: none."""
    per: Mapping[str, Sequence[int]]
    """Codes of its scopes."""
    ledger: Sequence[int]
    asked: Mapping[str, Sequence[int]]
    """By measure in arguments: what it asks for."""
    taken: Mapping[str, Sequence[int]]
    """And after a patch."""
    then: Mapping[str, Sequence[int | None]]
    """Counters of its session as recorded."""
    resumes: Sequence[int]
    """Row of the decision whose approval it used; -1: none."""
    heir: Sequence[int]
    """Row of the call that resumed it and ran then with what it would run now; -1: none."""
    key: Sequence[int]
    """Code of its idempotency key; -1: none."""
    repeat: Sequence[bool]
    """Whether it was recorded as the repeat of another."""
    conflict: Sequence[bool]
    """Whether it was refused because of another call under its key."""
    args: Sequence[int]
    """Code of its arguments as given."""
    plain: Sequence[bool]
    """Whether it is decided, and by nothing that comes before budgets."""
    action: Sequence[int]
    """Code of its arguments as they would run; -1: they would not."""


class End(NamedTuple):
    """An execution outcome."""

    row: int
    status: str
    started: bool
    at: int
    used: Mapping[str, int] | None
    """By counter of a session; None: nobody counts it."""
    broken: bool


class Charge(NamedTuple):
    """What a call took of a meter before it ran."""

    track: Track
    calls: bool
    low: int
    high: int
    place: Place


@dataclass(slots=True)
class Open:
    """A call that was begun and has not ended."""

    before: list[Charge] = field(default_factory=list)
    after: list[tuple[Track, Meter]] = field(default_factory=list)
    guards: list[Guard] = field(default_factory=list)


class Told(NamedTuple):
    """What the limits said of a row that they touch."""

    refused: bool
    rules: Ruleset
    used: list[Used]
    """By `rules.read`."""
    guards: list[dict[str, Json] | None]
    """By `rules.breakers`, as decisions record them; None: not known."""
    unknown: list[str]
    """What is not known and it hangs on: `limits.<meter>`, `limits.<breaker>`; nothing where a refusal is sure."""

    @property
    def at_least(self) -> bool:
        """Whether more may have been used than is told."""
        return any(low != high for low, high in self.used)

    @property
    def inputs(self) -> str:
        """What to judge it by, as decisions record it: the least that was used.

        By that it passes what it is not known to exceed.
        """
        meters = {
            m.name: used.low for m, used in zip(self.rules.read, self.used, strict=True) if not m.of_session
        }
        seen = zip(self.rules.breakers, self.guards, strict=True)
        breakers = {each.key: _CLOSED if found is None else found for each, found in seen}
        return _encode({"limits": {"breakers": breakers, "meters": meters}}).decode()


Numbers = tuple[int | None, int, int]
"""What the reason of a limit tells: of a budget what was used and what is asked for; see `closed_loop.wording`."""
Refusal = tuple[int, int, int | None, int, int]
"""Place of the rules, place of the limit in them (breakers first), and its `Numbers`."""


@dataclass(slots=True)
class Run:
    """What a pass found."""

    runs: bytearray
    told: dict[int, Told]
    """Rows that some budget or breaker refuses, or may; but for those `refused`."""
    refused: defaultdict[Refusal, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Rows that are refused for sure, as they were asked for, by what refuses them."""
    examples: dict[int, Told] = field(default_factory=dict)
    """Of these the first row of each limit."""
    unasked: list[int] = field(default_factory=list)
    """Resumed calls whose approval nobody asked for now, or nobody gave."""
    unsure: list[int] = field(default_factory=list)
    """Resumed calls and repeats that hang on a row that is unsure."""
    fresh: list[int] = field(default_factory=list)
    """Recorded as repeats; now the first under their key."""
    repeats: list[int] = field(default_factory=list)
    """Not recorded as repeats; now they are, of a call that runs now."""
    conflicts: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Refused now because of another call under their key: by which code, and its row."""


@dataclass(slots=True)
class Session:
    """How a session's own counters differ from what was recorded, between bounds."""

    low: dict[str, int]
    high: dict[str, int]
    is_open: bool = False
