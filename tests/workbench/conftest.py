"""A small history by hand, compared: every effect and status, two tenants, and what an attacker would put in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from workbench.compare import Diff, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

HOSTILE = '<script>alert("args")</script>'
HOSTILE_TENANT = "<b>slack</b> & co"
HOSTILE_POLICY = 'known"><img src=x onerror=alert(1)>'
LONG = "lorem ipsum " * 700

SCHEMA: dict[str, Any] = {
    "decision_id": pl.String,
    "session_id": pl.String,
    "step": pl.Int32,
    "tenant": pl.String,
    "principal": pl.String,
    "tool": pl.String,
    "resource": pl.String,
    "args": pl.String,
    "kind": pl.String,
    "decided_at": pl.Datetime("us", "UTC"),
    "recorded_verdict": pl.String,
    "recorded_decided_by": pl.String,
    "recorded_reason_code": pl.String,
    "recorded_determining": pl.List(pl.String),
    "status": pl.String,
    "cause": pl.String,
    "missing": pl.List(pl.String),
    "verdict": pl.String,
    "decided_by": pl.String,
    "reason_code": pl.String,
    "reason": pl.String,
    "determining": pl.List(pl.String),
    "errors": pl.List(pl.Struct({"policy": pl.String, "message": pl.String})),
    "enforced_args": pl.String,
    "engine": pl.String,
    "then": pl.String,
    "effect": pl.String,
    "verdict_changed": pl.Boolean,
    "decidable": pl.Boolean,
    "recompilable": pl.Boolean,
}
LABELS = dict.fromkeys(("tenant", "session_id", "decision_id", "label", "value", "source"), pl.String)


@dataclass(frozen=True)
class FrameLake:
    """The labels of a lake."""

    labels: pl.LazyFrame
    uri: str = "s3://key:secret@bucket/lake"


@dataclass(frozen=True)
class FrameReplay:
    """A replay whose rows were written by hand."""

    frame: pl.LazyFrame
    lake: FrameLake
    id: str = "r-1"
    policy: tuple[str, str] = ("candidate", "c" * 64)
    context: str = "recorded"
    pins: Mapping[str, object] = field(
        default_factory=lambda: {"ledgers": {"ledger-1": 40}, "schema_version": 1}
    )


@dataclass(frozen=True)
class Row:
    """One decision, as the record and as the candidate has it. `to` is a verdict, `undecided` or `quarantined`."""

    session: str
    tool: str
    recorded: str
    then: str
    to: str
    effect: str
    by: Sequence[str] = ()
    origin: str | None = "user"
    tenant: str = "banking"
    args: str = "{}"
    cause: str | None = None
    missing: Sequence[str] = ()


B, S = "banking", HOSTILE_TENANT
HISTORY = (
    Row("b-honest-1", "read_file", "allow", "ran", "allow", "same"),
    Row("b-honest-1", "send_money", "allow", "ran", "block", "prevented", ("limit",), args='{"note":"rent"}'),
    Row("b-honest-1", "send_money", "block", "did_not_run", "allow", "released", ("may",)),
    Row("b-honest-2", "read_file", "allow", "ran", "allow", "same"),
    Row(
        "b-honest-2",
        "get_iban",
        "allow",
        "ran",
        "undecided",
        "undecided",
        cause="missing",
        missing=("payee",),
    ),
    Row("b-hijack-1", "read_file", "allow", "ran", "allow", "same"),
    Row(
        "b-hijack-1",
        "send_money",
        "allow",
        "ran",
        "block",
        "prevented",
        (HOSTILE_POLICY, "limit"),
        "attack",
        args=f'{{"note":"{HOSTILE}","pad":"{LONG}"}}',
    ),
    Row("b-hijack-1", "send_money", "allow", "ran", "approve", "held", ("large",), "attack"),
    Row("b-hijack-2", "send_money", "allow", "ran", "modify", "altered", ("large",), "attack"),
    Row("b-hijack-2", "update_password", "allow", "ran", "allow", "same", (), "attack"),
    Row("b-hijack-2", "send_money", "approve", "waiting", "approve", "same", ("large",), "attack"),
    Row("s-hijack-3", "read_channel", "allow", "ran", "allow", "same", (), "user", S),
    Row(
        "s-hijack-3",
        "invite",
        "allow",
        "ran",
        "block",
        "prevented",
        (),
        "attack",
        S,
        args=f'{{"to":"{HOSTILE}"}}',
    ),
    Row("s-hijack-4", "invite", "block", "did_not_run", "approve", "escalated", ("large",), "attack", S),
    Row("s-hijack-5", "invite", "allow", "ran", "allow", "same", ("may",), "attack", S),
    Row("s-honest-3", "post", "allow", "in_doubt", "block", "unknown", ("limit",), "user", S),
    Row(
        "s-honest-3",
        "post",
        "allow",
        "ran",
        "quarantined",
        "quarantined",
        (),
        "user",
        S,
        cause="context_hash",
    ),
    Row("s-plain-1", "post", "allow", "ran", "modify", "altered", ("large",), None, S),
    Row("s-plain-1", "post", "modify", "ran", "modify", "altered", ("large",), None, S),  # another patch
)
SCENARIOS = {"honest": "honest", "hijack": "hijacked"}


def _frame_row(number: int, row: Row, *, recorded: bool) -> dict[str, Any]:
    """One row of `Replay.frame`: the self-replay's if `recorded`, else the candidate's."""
    to = row.recorded if recorded and row.to != "quarantined" else row.to
    effect = "same" if recorded and to != "quarantined" else row.effect
    decided = to not in ("undecided", "quarantined")
    return {
        "decision_id": f"d-{number:02}",
        "session_id": row.session,
        "step": number,
        "tenant": row.tenant,
        "principal": 'Agent::"bot"',
        "tool": row.tool,
        "resource": f'Account::"{number}"',
        "args": row.args,
        "kind": "call",
        "decided_at": datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=number),
        "recorded_verdict": row.recorded,
        "recorded_decided_by": "policy",
        "recorded_reason_code": "permitted",
        "recorded_determining": ["may"],
        "status": "decided" if decided else to,
        "cause": None if decided else row.cause,
        "missing": [] if decided else list(row.missing),
        "verdict": to if decided else None,
        "decided_by": "policy" if decided else None,
        "reason_code": ("permitted" if to == "allow" else "no_permit") if decided else None,
        "reason": f"because {HOSTILE}" if decided else None,
        "determining": ["may"] if recorded and decided else list(row.by),
        "errors": [],
        "enforced_args": '{"cut":"<i>"}' if to == "modify" else row.args if to == "allow" else None,
        "engine": "cedarpy 4.12.2",
        "then": row.then,
        "effect": effect,
        "verdict_changed": to != row.recorded if decided else None,
        "decidable": to != "quarantined",
        "recompilable": None,
    }


def replay_of(
    rows: Iterable[Row], *, recorded: bool = False, labelled: bool = True, **options: Any
) -> FrameReplay:
    rows = list(rows)
    frame = pl.LazyFrame(
        [_frame_row(number, row, recorded=recorded) for number, row in enumerate(rows)], schema=SCHEMA
    )
    if recorded:
        options = {"id": "r-0", "policy": ("recorded", "b" * 64)} | options
    return FrameReplay(frame, FrameLake(_labels(rows if labelled else [])), **options)


def _labels(rows: Sequence[Row]) -> pl.LazyFrame:
    calls = [
        {"decision_id": f"d-{number:02}", "label": "origin", "value": row.origin}
        | {"tenant": row.tenant, "session_id": row.session, "source": "test"}
        for number, row in enumerate(rows)
        if row.origin
    ]
    sessions = [
        {"tenant": tenant, "session_id": session, "label": "scenario", "value": value, "source": "test"}
        for tenant, session in sorted({(row.tenant, row.session) for row in rows})
        if (value := SCENARIOS.get("".join(session.split("-")[1:2])))
    ]
    return pl.LazyFrame(calls + sessions, schema=LABELS)


def diff_of(rows: Iterable[Row], *, labelled: bool = True) -> Diff:
    rows = list(rows)
    return compare(replay_of(rows, recorded=True, labelled=labelled), replay_of(rows, labelled=labelled))


@pytest.fixture(scope="session")
def history() -> tuple[Row, ...]:
    return HISTORY


@pytest.fixture(scope="session")
def diff() -> Diff:
    """Return the hand-made comparison, labelled."""
    return diff_of(HISTORY)


@pytest.fixture(scope="session")
def unlabelled() -> Diff:
    """Return the same comparison of a lake without labels."""
    return diff_of(HISTORY, labelled=False)


@pytest.fixture(scope="session")
def made() -> Callable[..., FrameReplay]:
    """Return `replay_of`: rows to a replay."""
    return replay_of


@pytest.fixture(scope="session")
def compared() -> Callable[[Iterable[Mapping[str, Any]]], Diff]:
    """Return what makes a comparison of rows given as dicts of `Row`'s fields."""
    return lambda rows: diff_of([Row(**row) for row in rows])


@pytest.fixture(scope="session")
def hostile_tenant() -> str:
    return HOSTILE_TENANT


@pytest.fixture(scope="session")
def hostile_policy() -> str:
    return HOSTILE_POLICY
