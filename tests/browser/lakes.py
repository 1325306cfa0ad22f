"""Small lakes for the browser: an ordinary one, a hostile one, and one with very many names."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from runtime import Blocked, Runtime, trace
from runtime.evidence import chain
from runtime.lake import LakeStore
from runtime.record import label_row
from workbench.bench.lake import build_lake
from workbench.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from runtime.session import Session

CANDIDATE = shipped("support-desk/candidate")
DECISIONS = 5_200
"""Enough for columns to decide (5,000), which take a tenth of the time."""
NAMES = 10_000
"""Distinct policies and principals of the crowded lake."""
TENANTS = 100

PWN = "window.__pwned=1"
MARKUP = f"<img src=x onerror={PWN}><script>{PWN}</script>"
"""What must be shown as these characters."""
HOSTILE_TENANT = f"<img src=x onerror={PWN}>"
HOSTILE_TOOL = f"pay<script>{PWN}</script>"
HOSTILE_POLICY = f'limit"><svg onload={PWN}>'
HOSTILE_AGENT = f"bot</script><img src=x onerror={PWN}>"
HUGE_CHARS = 2_000_000
_LABELLED = datetime(2026, 9, 2, tzinfo=UTC)
_SCHEMA = (
    "entity Agent;\nentity Order;\n"
    'action "{tool}" appliesTo {{ principal: Agent, resource: Order, '
    "context: {{ args: {{ order_id: String, cents: Long, note: String }} }} }};\n"
)
_POLICIES = """@id("may")
@doc("{markup}")
permit (principal, action, resource);

@id("{policy}")
@tune("{{\\"most\\": {{\\"value\\": {limit}, \\"min\\": 0, \\"max\\": 100000}}}}")
forbid (principal, action, resource)
when {{ context.args.cents > {limit} }};
"""


def desk(place: Path) -> Path:
    """Build the support desk's lake, and label every call by whose idea it was: one session in seven is hijacked."""
    build_lake(place, DECISIONS, told=lambda _: None)
    store = LakeStore(place, write=True)
    store.append(trace.OUTCOMES, _chained(trace.OUTCOMES, _labels(_rows(store)), "labels"))
    return place


def _rows(store: LakeStore) -> pl.DataFrame:
    frame = pl.from_arrow(store.read(trace.DECISIONS))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _labels(decisions: pl.DataFrame) -> Iterable[dict[str, Any]]:
    seen = set()
    columns = decisions.sort("writer", "position").select("decision_id", "session_id", "tenant", "tool")
    for decision, session, tenant, tool in columns.iter_rows():
        hijacked = int(session.removeprefix("s-")) % 7 == 0
        said = {"session_id": session, "tenant": tenant, "source": "test", "recorded_at": _LABELLED}
        origin = "attack" if hijacked and tool in ("issue_refund", "change_address") else "user"
        yield label_row(**said, decision_id=decision, label="origin", value=origin)
        if session not in seen:
            seen.add(session)
            scenario = "hijacked" if hijacked else "honest"
            yield label_row(**said, decision_id=None, label="scenario", value=scenario)


def _chained(table: trace.Table, rows: Iterable[Mapping[str, Any]], writer: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    last = trace.GENESIS
    for position, row in enumerate(rows, start=1):
        found.append(chain(table, row, writer, position, last))
        last = str(found[-1]["hash"])
    return found


def hostile_bundle(folder: Path, *, limit: int) -> Path:
    """Write the bundle whose names hold markup: a payment above the limit is refused."""
    folder.mkdir()
    quoted = HOSTILE_POLICY.replace('"', '\\"')
    policies = _POLICIES.format(markup=MARKUP, policy=quoted, limit=limit)
    (folder / "pay.cedar").write_text(policies, encoding="utf-8")
    (folder / "schema.cedarschema").write_text(_SCHEMA.format(tool=HOSTILE_TOOL), encoding="utf-8")
    return folder


def hostile(place: Path) -> Path:
    """Govern a few calls whose names and arguments hold markup; one argument has two million characters."""
    with Runtime.open(hostile_bundle(place.with_name("hostile"), limit=500), lake=place) as runtime:

        @runtime.tool(name=HOSTILE_TOOL, resource="Order::{order_id}")
        def pay(order_id: str, cents: int, note: str) -> str:
            return MARKUP

        with runtime.session(principal=f"Agent::{HOSTILE_AGENT}", tenant=HOSTILE_TENANT) as session:
            for number in range(12):
                _paid(session, pay, order_id=f"o-{number}{MARKUP}", cents=number * 100, note=MARKUP)
            _paid(session, pay, order_id="huge", cents=50, note=(MARKUP + "x" * HUGE_CHARS)[:HUGE_CHARS])
            runtime.label("scenario", MARKUP, session=session, source="test")
        runtime.drain()
    store = LakeStore(place, write=True)
    store.append(trace.OUTCOMES, _chained(trace.OUTCOMES, _origins(_rows(store)), "labels"))
    return place


def _origins(decisions: pl.DataFrame) -> Iterable[dict[str, Any]]:
    """Label every other call as an attack."""
    columns = decisions.sort("position").select("decision_id", "session_id", "tenant")
    for number, (decision, session, tenant) in enumerate(columns.iter_rows()):
        said = {"session_id": session, "tenant": tenant, "source": "test", "recorded_at": _LABELLED}
        yield label_row(**said, decision_id=decision, label="origin", value=("user", "attack")[number % 2])


def _paid(session: Session, tool: Any, **args: Any) -> None:
    with suppress(Blocked):  # it is recorded either way
        session.call(tool, **args)


def crowded(place: Path) -> Path:
    """Write a desk's decisions again, each by a principal of its own, decided by a policy of its own."""
    beside = place.with_name("before")
    build_lake(beside, NAMES, seed=3, told=lambda _: None)
    store, source = LakeStore(place, write=True), LakeStore(beside)
    for table in (trace.POLICIES, trace.CONTEXTS, trace.SLICES, trace.ENTITIES):
        store.append(table, source.read(table).to_pylist())
    number = pl.int_range(pl.len())
    found = _rows(source).with_columns(
        principal_id=pl.format("agent-{}", number.cast(pl.String).str.zfill(5)),
        determining=pl.concat_list(pl.format("policy-{}", number.cast(pl.String).str.zfill(5))),
        tenant=pl.format("tenant-{}", (number % TENANTS).cast(pl.String).str.zfill(3)),
    )
    times = [column.name for column in trace.DECISIONS.columns if column.dtype == "timestamp"]
    rows = found.drop("schema_version", "writer", "position", "prev_hash", "hash").with_columns(
        pl.col(times).dt.epoch("us")
    )
    store.append(trace.DECISIONS, _chained(trace.DECISIONS, rows.iter_rows(named=True), "crowd"))
    store.create(trace.OUTCOMES)
    return place
