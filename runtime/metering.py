"""Meters: the counters that limits are judged by, read before a decision and moved by its transaction.

One rule: what a decision was judged by still holds when it commits, or nothing is written and it is decided again.

Three moments. `read`, before a decision, gives the request its inputs: the session's counters, an emergency stop,
and what the bundle's limits count. `charges` goes into the decision's transaction: it looks for a stop again, takes
what is known before a call (calls, money in arguments), and lets a breaker's probe through. `settles` goes into the
outcome's: what the call cost, what its breakers make of it, and what is given back because nothing took effect
(`aborted`, `denied`, `expired`). So a budget of N lets exactly N calls run, over any threads and processes that share
the ledger, and a crash leaves neither more nor less.

Attempts count for loops whatever their verdict; a resumed call is no attempt of its own.

Accepted: what calls cost is charged when they have ended, so calls under way at the same time may together exceed
such a budget, by what they cost themselves. Wall time is the difference of two readings of the clock.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import msgspec

from runtime import meters, stops
from runtime.cycles import Attempts, signature
from runtime.errors import CommitConflict, GovernanceError
from runtime.ledger_state import ClaimTaken, SessionCounters, SessionMoved
from runtime.lifecycle import BROKEN

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from runtime.canonical import Json
    from runtime.ledger import Ledger, Move
    from runtime.limits import Limits
    from runtime.policy import Decision
    from runtime.record import Row
    from runtime.request import Request

TABLES: Final = (
    """
CREATE TABLE IF NOT EXISTS session_meters (
  tenant TEXT NOT NULL, session_id TEXT NOT NULL, cost_micros INTEGER NOT NULL, failures INTEGER NOT NULL,
  input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, wall_ms INTEGER NOT NULL, attempts TEXT NOT NULL,
  PRIMARY KEY (tenant, session_id)) WITHOUT ROWID;
"""
    + meters.TABLES
    + stops.TABLES
)
"""Statements that create this module's tables in the ledger, each ended by `;` and a new line. `attempts` is JSON:
by tools that are looked at together, the members of `cycles.Attempts`."""


class LimitsMoved(CommitConflict):
    """A limit, a breaker, a stop or a counter moved while the call was decided. Nothing was written; decide again."""

    kind: ClassVar[str] = "limits_moved"


MOVED: Final = (SessionMoved, ClaimTaken, LimitsMoved)
"""Raised by a commit whose decision rests on what no longer holds: decide again."""

COUNTERS: Final = ("cost_micros", "failures", "input_tokens", "output_tokens", "wall_ms")
"""Counters of a session that outcomes move."""
_COUNTERS: Final = ", ".join(COUNTERS)
_READ: Final = (
    f"SELECT next_step, calls, owner, {_COUNTERS}, attempts, ({stops.FIND}) FROM (SELECT 1)"  # noqa: S608 - constants
    " LEFT JOIN sessions AS s ON s.tenant = ?1 AND s.session_id = ?4"
    " LEFT JOIN session_meters AS m ON m.tenant = ?1 AND m.session_id = ?4"
)
_NO_EFFECT: Final = frozenset({"aborted", "denied", "expired"})

_Known = dict[str, tuple[tuple[str, ...], tuple[int, ...]]]
_decode: Final = msgspec.json.Decoder(_Known).decode
_encode: Final = msgspec.json.Encoder().encode


class Standing(NamedTuple):
    """What the ledger holds of a session and its stops, of one moment."""

    session: SessionCounters
    counters: dict[str, int]
    attempts: str | None
    stop: str | None


def look(ledger: Ledger, tenant: str, session_id: str, tool: str, principal: str) -> Standing:
    """Return where a session stands, and which stop is in force for its call; zeros for one that has not begun."""
    (found,) = ledger.glance(_READ, (tenant, tool, principal, session_id))
    step, calls, owner, *counted, attempts, stop = found
    counters = {name: value or 0 for name, value in zip(COUNTERS, counted, strict=True)}
    return Standing(SessionCounters(step or 0, calls or 0, owner), counters, attempts, stop)


def read(
    ledger: Ledger,
    limits: Limits,
    request: Request,
    *,
    resumed: bool = False,
    standing: Standing | None = None,
) -> Request:
    """Return the request with what its limits stage judges by.

    Args:
        ledger: holds the counters.
        limits: of the bundle that will decide.
        request: with `calls` in its `session_state`.
        resumed: it was attempted before, and waited for a person.
        standing: of its session; None: it is read.
    """
    if standing is None:
        standing = look(ledger, request.tenant, request.session_id, request.tool, str(request.principal))
    called = None if resumed else signature(request.tool, request.args_text)
    before = _attempts(standing.attempts)
    after = _attempted(before, limits, request.tool, called)
    kept = None if called is None else _encode(before | after).decode()
    inputs: dict[str, Json] = {"cycles": {key: state.recorded for key, state in after.items()}}
    if standing.stop is not None:
        inputs["stopped"] = stops.read_stop(ledger, standing.stop).inputs
    if limits.budgets or limits.breakers:
        inputs |= meters.read(ledger.glance, limits, request)
    session = {**request.session_state, "repeats": after["*"].repeats, **standing.counters}
    return request.judged_by(session, inputs, kept)


def _attempts(text: str | None) -> dict[str, Attempts]:
    return {} if text is None else {key: Attempts(*state) for key, state in _decode(text).items()}


def _attempted(
    before: Mapping[str, Attempts], limits: Limits, tool: str, called: str | None
) -> dict[str, Attempts]:
    """Where attempts stand with this one, by the tools that are looked at together; `*` always. None: it is none."""
    keys = ["*", *(loop.key for loop in limits.loops if loop.applies(tool))]
    if called is None:
        return dict.fromkeys(keys, Attempts())
    return {key: before.get(key, Attempts()).then(called) for key in keys}


def charges(limits: Limits, decision: Decision, *, runs: bool | None = None) -> Sequence[Move]:
    """Return what a decision moves, in its own transaction; after the session's step.

    Args:
        limits: it was decided by.
        decision: with the request that `read` returned.
        runs: whether a call begins by it; None: as its verdict says. False for an idempotent repeat.

    Raises:
        LimitsMoved: by the move, where what it was judged by no longer holds.
        GovernanceError: something that it hangs on was not read.
    """
    missing = decision.first.missing + (decision.enforced.missing if decision.enforced is not None else ())
    if missing:
        raise GovernanceError(f"limits were judged without {', '.join(missing)}; `metering.read` them first")
    begins, request = decision.runs if runs is None else runs, decision.request

    def move(db: sqlite3.Connection) -> None:
        _step(db, limits, decision)
        if limits.budgets or limits.breakers:
            if begins:
                _require(meters.charge(db, limits, decision))
            else:
                meters.rewind(db, limits, request)

    return (move,)


def _require(why: str | None) -> None:
    if why is not None:
        raise LimitsMoved(f"{why} meanwhile; decide again")


_SESSION: Final = (
    f"SELECT {_COUNTERS}, attempts, ({stops.FIND}) FROM (SELECT 1)"  # noqa: S608 - constants
    " LEFT JOIN session_meters ON tenant = ?1 AND session_id = ?4"
)


_AS_READ: Final = (
    "UPDATE session_meters SET attempts = coalesce(?5, attempts) WHERE tenant = ?1 AND session_id = ?4 AND "  # noqa: S608 - constants
    + " AND ".join(f"{name} = ?{number}" for number, name in enumerate(COUNTERS, 6))
    + f" AND NOT EXISTS ({stops.FIND})"
)
"""Adds an attempt where all stands as it was read, and no stop is in force."""


def _step(db: sqlite3.Connection, limits: Limits, decision: Decision) -> None:
    """Look for a stop again, hold the session to what was read of it, and add the attempt, if it is one.

    After the session's step, without which no attempt is added: attempts stand as they were read. Nearly always one
    statement; where anything stands otherwise, `_step_moved` says whether that matters.
    """
    request, kept = decision.request, decision.request.attempts
    if kept is None and decision.grants is None:
        raise GovernanceError(
            f"attempts of session {request.session_id!r} were not read; `metering.read` them first"
        )
    state = request.session_state
    whose = (request.tenant, request.tool, str(request.principal), request.session_id)
    if db.execute(_AS_READ, (*whose, kept, *map(state.get, COUNTERS))).rowcount:
        if decision.verdict != "block" and limits.budgets:
            _require(meters.session_spent(limits, request.tool, state))  # type: ignore[arg-type]  # as the ledger has them
    else:
        _step_moved(db, limits, decision, whose)


def _step_moved(
    db: sqlite3.Connection, limits: Limits, decision: Decision, whose: tuple[str, str, str, str]
) -> None:
    """Add the attempt where the session has no meters yet, or something of it moved that nobody looks at."""
    request, kept = decision.request, decision.request.attempts
    found, stop = _looked(db.execute(_SESSION, whose))
    if stop is not None and decision.verdict != "block":
        _require(f"emergency stop {stop} was set")
    counters = dict(zip(COUNTERS, (0,) * len(COUNTERS) if found is None else found[:-1], strict=True))
    for name in limits.watched & counters.keys():
        if counters[name] != request.session_state[name]:
            _require(f"`context.session.{name}` of session {request.session_id!r} moved")
    if decision.verdict != "block":
        _require(meters.session_spent(limits, request.tool, counters))
    who = (request.tenant, request.session_id)
    if found is None:
        db.execute("INSERT INTO session_meters VALUES (?, ?, 0, 0, 0, 0, 0, ?)", (*who, kept or "{}"))
    elif kept is not None:
        db.execute("UPDATE session_meters SET attempts = ? WHERE tenant = ? AND session_id = ?", (kept, *who))


def _looked(cursor: sqlite3.Cursor) -> tuple[tuple[Any, ...] | None, str | None]:
    """The row of the session's meters, if it has one, and the stop in force, if there is one."""
    *found, stop = cursor.fetchone()
    return (None if found[-1] is None else tuple(found)), stop


def settles(limits: Limits, outcome: Row) -> Sequence[Move]:
    """Return what an outcome moves, in its own transaction.

    Args:
        limits: of the bundle in force; a breaker that they no longer have is left as it is.
        outcome: of kind `execution`, with its usage; what is charged follows from what its decision took.
    """
    if outcome["kind"] != "execution":
        return ()
    used = used_by(outcome)

    def settle(db: sqlite3.Connection) -> None:
        moved = tuple(name for name, amount in used.items() if amount)
        if moved:
            db.execute(_add(moved), (*map(used.get, moved), outcome["tenant"], outcome["session_id"]))
        meters.settle(db, limits, outcome, used, gives_back=outcome["status"] in _NO_EFFECT)

    return (settle,)


@lru_cache(maxsize=32)  # two to the number of counters
def _add(names: tuple[str, ...]) -> str:
    """The statement that adds to counters of a session."""
    sums = ", ".join(f"{name} = min({name} + ?, {meters.MOST})" for name in names)
    return f"UPDATE session_meters SET {sums} WHERE tenant = ? AND session_id = ?"  # noqa: S608 - constants


def used_by(outcome: Row) -> dict[str, int]:
    """Return what a call used, by counter of a session: what was not reported is nothing, a begun millisecond one."""
    used = {name: _integer(outcome.get(name)) for name in ("cost_micros", "input_tokens", "output_tokens")}
    started, ended = outcome.get("started_at"), outcome.get("ended_at")
    ran = _integer(ended) - _integer(started) if started is not None and ended is not None else 0
    failed = outcome["status"] == "failed" or outcome.get("reason_code") in BROKEN
    return {**used, "wall_ms": max(0, -(-ran // 1000)), "failures": int(failed)}


def _integer(value: Json) -> int:
    return value if isinstance(value, int) else 0


__all__ = ["COUNTERS", "MOVED", "TABLES", "LimitsMoved", "charges", "read", "settles", "used_by"]
