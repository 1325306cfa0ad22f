"""The ledger's tables of counters: meters of budgets, circuits of breakers, and what each call under way has taken.

One rule: every function but `read` runs inside a write transaction, reads what stands there and moves it; so two that
would exceed a limit together are one after the other.

`metered` holds a row for each call under way that something counts: what was taken for it, and what is still to be
charged. Its outcome takes the row away; one that is in doubt keeps what may have to be given back.

Rows that say nothing any more (a window all of which is out, a breaker that saw nothing for a week) are deleted, a
few with each new row. Accepted: what is counted for ever is kept for ever, a row for each meter and scope.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from runtime.breakers import Circuit
from runtime.lifecycle import BROKEN
from runtime.limits import AFTER
from runtime.values import micros
from runtime.windows import Window

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from runtime.canonical import Json
    from runtime.limits import Breaker, Budget, Limits, Meter
    from runtime.policy import Decision
    from runtime.record import Row
    from runtime.request import Request

    _Select = Callable[[str, tuple[object, ...]], Iterable[Any]]
    """Runs a SELECT, and returns its rows."""

TABLES: Final = """
CREATE TABLE IF NOT EXISTS meters (
  tenant TEXT NOT NULL, meter TEXT NOT NULL, scope TEXT NOT NULL, used INTEGER NOT NULL, buckets TEXT,
  expires INTEGER, PRIMARY KEY (tenant, meter, scope)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS meters_expiring ON meters (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS circuits (
  tenant TEXT NOT NULL, breaker TEXT NOT NULL, scope TEXT NOT NULL, circuit TEXT NOT NULL, expires INTEGER NOT NULL,
  PRIMARY KEY (tenant, breaker, scope)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS circuits_expiring ON circuits (expires);
CREATE TABLE IF NOT EXISTS metered (decision_id TEXT PRIMARY KEY, taken TEXT NOT NULL) WITHOUT ROWID;
"""
"""`buckets` of a sliding window, JSON, null: for ever; `expires` in milliseconds, null: never; `taken` JSON."""

MOST: Final = 2**62
"""Where counters stop: beyond it nothing is added, and nothing overflows."""
KEPT_MS: Final = 7 * 86_400_000
"""How long a breaker without outcomes is remembered."""
_PRUNED: Final = 8
"""Stale rows deleted with each new one."""


class _Charge(msgspec.Struct, array_like=True, frozen=True):
    """What was taken of a meter, or is still to be charged to it."""

    meter: str
    scope: str
    measure: str
    window_ms: int | None
    amount: int = 0
    bucket: int = 0


class _Taken(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a call under way has taken."""

    tenant: str
    before: list[_Charge] = []
    """Given back if nothing takes effect."""
    after: list[_Charge] = []
    """Charged once it is known."""
    circuits: list[tuple[str, str]] = []
    """Breakers it went through: their key, and the scope."""

    @property
    def is_nothing(self) -> bool:
        """Whether its outcome has nothing to do here."""
        return not (self.before or self.after or self.circuits)


_CIRCUIT: Final = "SELECT circuit FROM circuits WHERE tenant = ? AND breaker = ? AND scope = ?"

_encode: Final = msgspec.json.Encoder().encode
_taken: Final = msgspec.json.Decoder(_Taken).decode
_buckets: Final = msgspec.json.Decoder(tuple[tuple[int, int], ...]).decode
_circuit: Final = msgspec.json.Decoder(Circuit).decode


def read(select: _Select, limits: Limits, request: Request) -> dict[str, Json]:
    """Return `meters` and `breakers` of a request's inputs, as far as its limits look at them.

    Args:
        select: runs a SELECT.
        limits: that will judge.
        request: to be judged.
    """
    now = _millis(request)
    counted = {budget.meter.name: budget.meter for budget, _ in _metered(limits, request)}
    used = _windows(select, request, counted.values())
    circuits = _circuits(select, request, [breaker for breaker, _ in _guarding(limits, request)])
    found: dict[str, Json] = {}
    if counted:
        found["meters"] = {name: _left(used, meter, now).used for name, meter in counted.items()}
    if circuits:
        found["breakers"] = {b.key: circuit.at(now, b).seen(b) for b, circuit in circuits}
    return found


def _millis(request: Request) -> int:
    return micros(request.at) // 1000


def _metered(limits: Limits, request: Request) -> Iterator[tuple[Budget, str]]:
    """Budgets that a request is held to, with their scope; those over the session's own counters left out."""
    for budget in limits.budgets:
        if not budget.meter.of_session and budget.applies(request.tool):
            scope = budget.meter.scope(request)
            if scope is not None:
                yield budget, scope


def _guarding(limits: Limits, request: Request) -> Iterator[tuple[Breaker, str]]:
    for breaker in limits.breakers:
        if breaker.applies(request.tool) and (scope := breaker.scope(request)) is not None:
            yield breaker, scope


def _windows(select: _Select, request: Request, counted: Iterable[Meter]) -> dict[str, Window]:
    """What stands there, by meter; a counter for ever is one bucket."""
    keys = [(meter.name, meter.scope(request)) for meter in counted]
    if not keys:
        return {}
    pairs = " OR ".join(["meter = ? AND scope = ?"] * len(keys))
    sql = f"SELECT meter, used, buckets FROM meters WHERE tenant = ? AND ({pairs})"  # noqa: S608 - constants
    rows = select(sql, (request.tenant, *(each for key in keys for each in key)))
    return {
        name: Window(((0, used),)) if buckets is None else Window(_buckets(buckets))
        for name, used, buckets in rows
    }


def _left(used: Mapping[str, Window], meter: Meter, now: int) -> Window:
    window = used.get(meter.name, Window())
    return window if meter.window_ms is None else window.at(now, meter.window_ms)


def _circuits(
    select: _Select, request: Request, breakers: Iterable[Breaker]
) -> list[tuple[Breaker, Circuit]]:
    """Where breakers stand, as it was written."""
    found = []
    for breaker in breakers:
        rows = list(select(_CIRCUIT, (request.tenant, breaker.key, breaker.scope(request))))
        found.append((breaker, _circuit(rows[0][0]) if rows else Circuit()))
    return found


def session_spent(limits: Limits, tool: str, counters: Mapping[str, int]) -> str | None:
    """Return why a budget over the session's own counters refuses a call by now; None: none does."""
    for budget in limits.budgets:
        meter = budget.meter
        if meter.of_session and meter.is_after and budget.applies(tool):
            used = sum(counters[name] for name in AFTER[meter.measure])
            if budget.exceeded(used, 0):
                return budget.message(used, 0)
    return None


# -- in the decision's transaction -----------------------------------------------------------------------------------


def charge(db: sqlite3.Connection, limits: Limits, decision: Decision) -> str | None:
    """Take what a call that begins uses up; return why it may not begin after all.

    The caller undoes the transaction where it may not.
    """
    request = decision.request
    taken = _Taken(request.tenant)
    projection = (decision.enforced or decision.first).projection
    select = _select(db)
    budgets = list(_metered(limits, request))
    used = _windows(select, request, {b.meter.name: b.meter for b, _ in budgets}.values())
    for meter, scope in {b.meter.name: (b.meter, scope) for b, scope in budgets}.values():
        left = _left(used, meter, _millis(request))
        asked = meter.asks(projection) or 0
        for budget, _ in budgets:
            if budget.meter == meter and budget.exceeded(left.used, asked):
                return budget.message(left.used, asked)
        item = _Charge(meter.name, scope, meter.measure, meter.window_ms, asked)
        if meter.is_after:
            taken.after.append(item)
        elif asked:
            taken.before.append(_add(db, request.tenant, item, used.get(meter.name), _millis(request)))
    for breaker, circuit in _circuits(select, request, [b for b, _ in _guarding(limits, request)]):
        if (why := _pass(db, decision, breaker, circuit)) is not None:
            return why
        taken.circuits.append((breaker.key, breaker.scope(request) or ""))
    if not taken.is_nothing:
        db.execute("INSERT INTO metered VALUES (?, ?)", (request.decision_id, _encode(taken).decode()))
    return None


def _select(db: sqlite3.Connection) -> _Select:
    return lambda sql, parameters: db.execute(sql, parameters).fetchall()


def _add(db: sqlite3.Connection, tenant: str, item: _Charge, before: Window | None, now: int) -> _Charge:
    """Add to a meter; return the charge with the bucket it is in."""
    window = before or Window()
    if item.window_ms is None:
        window, bucket = Window(((0, window.used + item.amount),)), 0
    else:
        window, bucket = window.add(item.amount, now, item.window_ms)
    _write(db, tenant, item, window, new=before is None, now=now)
    return msgspec.structs.replace(item, bucket=bucket)


def _write(
    db: sqlite3.Connection, tenant: str, item: _Charge, window: Window, *, new: bool, now: int
) -> None:
    ever = item.window_ms is None
    expires = None if item.window_ms is None else window.expires_ms(item.window_ms)
    buckets = None if ever else _encode(window.buckets).decode()
    values = (tenant, item.meter, item.scope, min(window.used, MOST), buckets, expires)
    db.execute("INSERT OR REPLACE INTO meters VALUES (?, ?, ?, ?, ?, ?)", values)
    if new and not ever:
        _prune(db, "meters", "meter", now)


def _prune(db: sqlite3.Connection, table: str, name: str, now: int) -> None:
    key = f"tenant, {name}, scope"
    stale = f"SELECT {key} FROM {table} WHERE expires < ? ORDER BY expires LIMIT {_PRUNED}"  # noqa: S608 - constants
    db.execute(f"DELETE FROM {table} WHERE ({key}) IN ({stale})", (now,))  # noqa: S608 - constants


def _pass(db: sqlite3.Connection, decision: Decision, breaker: Breaker, circuit: Circuit) -> str | None:
    """Let a call through a breaker, as a probe where it is half open; return why not."""
    request = decision.request
    now, scope = _millis(request), breaker.scope(request) or ""
    stands = circuit.at(now, breaker)
    if not stands.lets_through(breaker):
        return f"breaker {breaker.name!r} came to be {stands.state}"
    if stands.state == "half_open":
        _save(db, request.tenant, breaker, scope, stands.probing(request.decision_id, now), now)
    return None


def _save(
    db: sqlite3.Connection, tenant: str, breaker: Breaker, scope: str, circuit: Circuit, now: int
) -> None:
    values = (tenant, breaker.key, scope, _encode(circuit).decode(), now + breaker.open_ms + KEPT_MS)
    if not db.execute(_CIRCUIT, values[:3]).fetchone():
        _prune(db, "circuits", "breaker", now)
    db.execute("INSERT OR REPLACE INTO circuits VALUES (?, ?, ?, ?, ?)", values)


def rewind(db: sqlite3.Connection, limits: Limits, request: Request) -> None:
    """Bring back what a clock that was ahead left in the future, so that it ends after its time from now.

    For decisions that take nothing: what is spent until tomorrow would stay so, as nothing else moves it.
    """
    now, select = _millis(request), _select(db)
    windowed = [(b.meter, scope) for b, scope in _metered(limits, request) if b.meter.window_ms is not None]
    used = _windows(select, request, {meter.name: meter for meter, _ in windowed}.values())
    for meter, scope in windowed:
        before, left = used.get(meter.name), _left(used, meter, now)
        if before is not None and left.buckets and left.buckets[-1] not in before.buckets:
            item = _Charge(meter.name, scope, meter.measure, meter.window_ms)
            _write(db, request.tenant, item, left, new=False, now=now)
    for breaker, circuit in _circuits(select, request, [b for b, _ in _guarding(limits, request)]):
        if circuit.since > now or any(began > now for began in circuit.probes.values()):
            _save(db, request.tenant, breaker, breaker.scope(request) or "", circuit.at(now, breaker), now)


# -- in the outcome's transaction ------------------------------------------------------------------------------------


def settle(
    db: sqlite3.Connection, limits: Limits, outcome: Row, used: Mapping[str, int], *, gives_back: bool
) -> None:
    """Charge what a call has cost, tell its breakers, and give back what was taken if nothing took effect."""
    row = db.execute("SELECT taken FROM metered WHERE decision_id = ?", (outcome["decision_id"],)).fetchone()
    if row is None:
        return
    taken, now = _taken(row[0]), _recorded(outcome)
    for item in taken.after:
        amount = sum(used[name] for name in AFTER[item.measure])
        if amount:
            charged = msgspec.structs.replace(item, amount=amount)
            _add(db, taken.tenant, charged, _window(db, taken.tenant, item), now)
    for item in taken.before if gives_back else ():
        if item.measure != "calls" or outcome.get("started_at") is None:  # a call that was begun was made
            _give_back(db, taken.tenant, item, now)
    known = {breaker.key: breaker for breaker in limits.breakers}
    for key, scope in taken.circuits:
        if (breaker := known.get(key)) is not None:
            _end(db, taken.tenant, breaker, scope, outcome, now)
    _finish(db, outcome, taken)


def _recorded(outcome: Row) -> int:
    recorded = outcome["recorded_at"]
    return recorded // 1000 if isinstance(recorded, int) else 0


def _window(db: sqlite3.Connection, tenant: str, item: _Charge) -> Window | None:
    sql = "SELECT used, buckets FROM meters WHERE tenant = ? AND meter = ? AND scope = ?"
    row = db.execute(sql, (tenant, item.meter, item.scope)).fetchone()
    if row is None:
        return None
    return Window(((0, row[0]),)) if row[1] is None else Window(_buckets(row[1]))


def _give_back(db: sqlite3.Connection, tenant: str, item: _Charge, now: int) -> None:
    window = _window(db, tenant, item)
    if window is not None:
        _write(db, tenant, item, window.give_back(item.amount, item.bucket), new=False, now=now)


def _end(db: sqlite3.Connection, tenant: str, breaker: Breaker, scope: str, outcome: Row, now: int) -> None:
    row = db.execute(_CIRCUIT, (tenant, breaker.key, scope)).fetchone()
    before = _circuit(row[0]) if row else Circuit()
    status = "failed" if outcome.get("reason_code") in BROKEN else str(outcome["status"])
    after = before.ended(str(outcome["decision_id"]), status, now, breaker)
    if after != before:
        _save(db, tenant, breaker, scope, after, now)


def _finish(db: sqlite3.Connection, outcome: Row, taken: _Taken) -> None:
    """Forget the call, unless what was taken for it may still have to be given back."""
    decision_id = outcome["decision_id"]
    if outcome["status"] == "in_doubt":
        kept = _Taken(taken.tenant, before=taken.before, after=taken.after)
        db.execute(
            "UPDATE metered SET taken = ? WHERE decision_id = ?", (_encode(kept).decode(), decision_id)
        )
    else:
        db.execute("DELETE FROM metered WHERE decision_id = ?", (decision_id,))
