"""Breakers: the states of a circuit breaker, and what moves it between them, as a table.

One rule: everything that moves a breaker goes through `TRANSITIONS`. Pure: time comes in, in milliseconds.

```
closed ──tripped──▶ open ──waited──▶ half_open ──passed──▶ closed
                      ▲                  │
                      └──failed, lost────┘
```

`tripped` more of the last outcomes failed than it bears; `waited` it was open for its time; `passed` enough probes
succeeded; `failed` a probe failed; `lost` a probe has no outcome in its time: whoever ran it has crashed, or hangs.

A breaker whose state was begun in the future (the clock went back) begins it now: it is open for its time, not for as
long as the clock was ahead.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.canonical import Json
    from runtime.limits import Breaker

State = Literal["closed", "open", "half_open"]
Event = Literal["tripped", "waited", "passed", "failed", "lost"]

TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    ("closed", "tripped"): "open",
    ("open", "waited"): "half_open",
    ("half_open", "passed"): "closed",
    ("half_open", "failed"): "open",
    ("half_open", "lost"): "open",
}

WORKED: Final[Mapping[str, bool]] = {"succeeded": True, "failed": False, "in_doubt": False}
"""Whether an outcome says that the tool works; others (a guard's abort, the caller's cancellation) say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """Where one breaker stands, for one scope."""

    state: State = "closed"
    since: int = 0
    """When it came into this state; only read of `open`."""
    recent: str = ""
    """The last outcomes, oldest first: `0` worked, `1` failed. Kept while it is open, for the reason it gives."""
    probes: dict[str, int] = field(default_factory=dict)
    """Decisions that probe, and since when."""
    passed: int = 0
    """Probes that succeeded."""

    def at(self, now: int, breaker: Breaker) -> Circuit:
        """Return where it stands at a moment: waiting ends, and probes get lost, by time alone."""
        found = _not_after(self, now)
        if found.state == "half_open" and (lost := _first_lost(found, now, breaker)) is not None:
            found = _moved(found, "lost", lost)
        if found.state == "open" and now - found.since >= breaker.open_ms:
            found = _moved(found, "waited", now)
        return found

    def probing(self, decision_id: str, now: int) -> Circuit:
        """Return it with one more probe under way."""
        return replace(self, probes={**self.probes, decision_id: now})

    def ended(self, decision_id: str, status: str, now: int, breaker: Breaker) -> Circuit:
        """Return where it stands after the outcome of a call that it let through."""
        found, worked = self.at(now, breaker), WORKED.get(status)
        if found.state == "closed":
            return found if worked is None else _counted(found, "0" if worked else "1", now, breaker)
        if decision_id not in found.probes:
            return found  # let through before it opened, or lost
        left = {probe: began for probe, began in found.probes.items() if probe != decision_id}
        if worked is None and status != "cancelled":
            return replace(found, probes=left)
        if not worked:
            return _moved(found, "failed", now)
        found = replace(found, probes=left, passed=found.passed + 1)
        return _moved(found, "passed", now) if found.passed >= breaker.probes else found

    def lets_through(self, breaker: Breaker) -> bool:
        """Whether a call may run, of one that was taken `at` its moment."""
        return self.state == "closed" or (self.state == "half_open" and len(self.probes) < breaker.probes)

    def seen(self, breaker: Breaker) -> dict[str, Json]:
        """Return what decisions record, and are judged by."""
        told: dict[str, Json] = {
            "state": self.state,
            "calls": len(self.recent),
            "errors": self.recent.count("1"),
        }
        match self.state:
            case "open":
                told["until"] = self.since + breaker.open_ms
            case "half_open":
                told["probing"] = len(self.probes)
            case "closed":
                pass
        return told


def _not_after(circuit: Circuit, now: int) -> Circuit:
    """Bring back what was begun in the future."""
    if circuit.since <= now and all(began <= now for began in circuit.probes.values()):
        return circuit
    probes = {probe: min(began, now) for probe, began in circuit.probes.items()}
    return replace(circuit, since=min(circuit.since, now), probes=probes)


def _first_lost(circuit: Circuit, now: int, breaker: Breaker) -> int | None:
    """When the first probe was lost; None: none was."""
    ends = [began + breaker.probe_ms for began in circuit.probes.values()]
    return min((end for end in ends if end <= now), default=None)


def _moved(circuit: Circuit, event: Event, now: int) -> Circuit:
    state = TRANSITIONS[circuit.state, event]
    return Circuit(state=state, since=now, recent="" if state == "closed" else circuit.recent)


def _counted(circuit: Circuit, outcome: str, now: int, breaker: Breaker) -> Circuit:
    recent = (circuit.recent + outcome)[-breaker.last :]
    found = replace(circuit, recent=recent)
    calls, errors = len(recent), recent.count("1")
    tripped = calls >= breaker.min_calls and errors * 1_000_000 > breaker.max_error_ppm * calls
    return _moved(found, "tripped", now) if tripped else found
