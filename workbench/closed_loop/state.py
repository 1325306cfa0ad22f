"""A replay whose state was simulated, and what the simulation did and had to assume.

One rule: what was assumed is counted, and what hangs on it is undecided, not guessed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from workbench.replay import Replay
from workbench.texts import count

Approvals = Literal["recorded", "granted", "denied"]
"""`recorded` what was resumed then is resumed now, if it is still asked for; what asks now and did not then waits.
`granted` whatever asks is granted at once, and runs where it asks; `denied` nothing that asks ever runs."""

APPROVALS: tuple[Approvals, ...] = get_args(Approvals)

STATE_UNKNOWN = "state_unknown"
"""Cause of a row that hangs on state which calls before it would have left, and the log cannot tell."""


AT_LEAST = "; at least, as calls before it may have used more"
"""Ends the reason of a limit that refuses for sure, and counts what is not known for sure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a simulation did."""

    approvals: Approvals
    passes: int
    """Times the history was gone through, until nothing changed."""
    redecided: int
    """Rows that were decided again over other state than they were recorded with, each time they were."""
    limited: int
    """Rows that a budget or breaker refuses over the simulated state."""
    assumed: int
    """Calls that run now and did not then, or with other arguments: they are taken to take effect; what they cost and
    whether they failed is not known, and what hangs on it is undecided."""
    unsure: int
    """Calls of which it is not known whether they run."""

    def __str__(self) -> str:
        return "; ".join(filter(None, (f"state simulated, approvals {self.approvals}", self.doubt)))

    @property
    def doubt(self) -> str:
        """What had to be assumed, in words; empty: nothing."""
        said = []
        if self.assumed:
            said.append(f"{count(self.assumed, 'call')} assumed to take effect, at a cost that is not known")
        if self.unsure:
            said.append(f"{count(self.unsure, 'call')} may or may not run")
        return "; ".join(said)


@dataclass(frozen=True)
class Simulated(Replay):
    """A replay over state simulated again; every column of `frame` as in any other."""

    state: State = field(kw_only=True)

    @cached_property
    def pins(self) -> dict[str, Any]:
        """As of any replay, with `state` and `approvals`."""
        return {**Replay.pins.func(self), "state": "simulated", "approvals": self.state.approvals}  # type: ignore[attr-defined]  # a cached property of the class

    @property
    def headline(self) -> str:
        """Say how much was replayed, and what was assumed of state."""
        return "; ".join(filter(None, (super().headline, self.state.doubt)))


def label(context: str, approvals: Approvals) -> str:
    """How contexts and state came about, in a few words.

    Example:
        >>> label("recorded", "granted")
        'recorded, state simulated, approvals granted'
    """
    return f"{context}, state simulated, approvals {approvals}"
