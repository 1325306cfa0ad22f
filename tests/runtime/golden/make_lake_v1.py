"""Makes `lake_v1`, the golden lake of schema version 1, and `expected_v1.json`, what its replays gave then.

It was run once, with the release before version 2 (commit ef2f532), and is kept for whoever wants to know what is in
the lake or make the next one; it does not run under a later schema:

    git worktree add /tmp/v1 ef2f532
    cd /tmp && PYTHONPATH=/tmp/v1 python make_lake_v1.py FOLDER

In it: two tenants, one with a name that a path cannot hold; every verdict, decided by request, context, limits and
policy, with errors and patches; a duplicate; outcomes `succeeded`, `failed`, `cancelled`, and none because the process
died; labels of decisions and of a session; a result in `blobs`; facts of a Delta table in two versions. Two drains,
and after the last one a few rows that are in the ledger only, an action without an outcome among them.
"""
# mypy: ignore-errors
# Against the release it was run with, not this one.

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from deltalake import CommitProperties, write_deltalake

from runtime import ApprovalRequired, Blocked, Runtime
from runtime.trace import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DIED = 7
NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)
TENANTS = ("acme", "globex/eu é")
BUNDLE = {
    "schema.cedarschema": """entity User;
entity Agent = { level?: Long };
entity Order = { tenant?: String, refundable?: Long };
action refund appliesTo { principal: [Agent], resource: [Order], context: {
  args: { order_id: String, amount: Long, note?: String }, on_behalf_of?: User } };
action look appliesTo { principal: [Agent], resource: [Order], context: { args: { order_id: String } } };
""",
    "policies.cedar": """@id("permit") permit(principal is Agent, action, resource is Order)
when { resource has tenant && resource.tenant == context.tenant };

@id("large") @verdict("approve") @approvers("Role::\\"finance\\"")
forbid(principal, action == Action::"refund", resource) when { context.args.amount >= 500 };

@id("cut") @verdict("modify") @patch("{\\"amount\\": {\\"$ref\\": \\"resource.refundable\\"}}")
forbid(principal, action == Action::"refund", resource)
when { resource has refundable && context.args.amount > resource.refundable };

@id("secret") forbid(principal, action, resource)
when { context.args has note && context.args.note like "*password*" };

@id("erring") forbid(principal, action == Action::"refund", resource)
when { context.args has note && context.args.note == "overflow" && 9223372036854775807 + context.args.amount > 0 };
""",
    "context.toml": """version = 1

[sources.orders]
kind = "delta"
uri = "facts/orders"

[[facts]]
name = "order"
actions = ["*"]
source = "orders"
key = { order_id = "resource.id" }
tenant_column = "tenant"
into = "resource"
fields = ["tenant", "refundable"]
max_age = "30d"
""",
    "limits.toml": """version = 1

[[budget]]
name = "calls"
per = "session"
measure = "calls"
max = 5
actions = ["refund"]
""",
}
CANDIDATE = BUNDLE | {
    "policies.cedar": BUNDLE["policies.cedar"].replace("amount >= 500", "amount >= 50"),
    "limits.toml": BUNDLE["limits.toml"].replace("max = 5", "max = 3"),
}
SHOWN = (
    "decision_id", "status", "cause", "verdict", "decided_by", "reason_code", "determining", "enforced_args", "then",
    "effect", "decidable", "recompilable",
)  # fmt: skip
"""Columns of a replay that are kept row by row."""


def clock(start: datetime) -> Callable[[], datetime]:
    """A clock that moves by 250 ms each time it is asked."""
    moments: Iterator[datetime] = (start + timedelta(milliseconds=250 * n) for n in itertools.count())
    return lambda: next(moments)


def write_facts(lake: Path, refundable: int, when: datetime) -> None:
    """Write a version of the orders; its commit says `when`."""
    rows = [
        {"order_id": f"{tenant[:4]}-{number}", "tenant": tenant, "refundable": refundable * number}
        for tenant in TENANTS
        for number in (1, 9)
    ]
    stamp = CommitProperties(custom_metadata={"inCommitTimestamp": str(int(when.timestamp() * 1000))})
    table = pa.Table.from_pylist(rows)
    write_deltalake(str(lake / "facts/orders"), table, mode="overwrite", commit_properties=stamp)


def opened(lake: Path, bundle: Path, start: datetime) -> Runtime:
    """Open a runtime with the two tools."""
    runtime = Runtime.open(bundle, lake=lake, clock=clock(start))

    def refund(order_id: str, amount: int, note: str | None = None) -> Any:
        match note:
            case "die":
                os._exit(DIED)
            case "fail":
                raise TimeoutError("the bank did not answer")
            case "stop":
                raise KeyboardInterrupt
            case "big":
                return {"receipt": "x" * 33_000}
        return {"order": order_id, "paid": amount}

    runtime.tool(refund, resource="Order::{order_id}")
    runtime.tool(lambda order_id: {"order": order_id}, name="look", resource="Order::{order_id}")
    return runtime


def act(runtime: Runtime, tenant: str, *, notes: tuple[str, ...]) -> None:
    """One session of each kind of call for a tenant, and labels."""
    short = tenant[:4]
    with runtime.session(principal="Agent::bot", on_behalf_of="User::ana", tenant=tenant) as session:
        with suppress(Blocked, ApprovalRequired):
            session.call("look", order_id=f"{short}-1")
        for order, amount, note in [
            (1, 10, None),
            (9, 700, None),
            (1, 300, None),
            *((1, 10, n) for n in notes),
        ]:
            more = {} if note is None else {"note": note}
            with suppress(Blocked, ApprovalRequired, TimeoutError, KeyboardInterrupt):
                session.call("refund", order_id=f"{short}-{order}", amount=amount, **more)
            told = session.last_decision
        assert told is not None
        runtime.label("origin", "user", session=session, source="test")
        runtime.label("chargeback", "yes", session=session, decision_id=told["decision_id"], source="bank")


def refused(runtime: Runtime) -> None:
    """Refusals of the stages before policy, and a duplicate."""
    with runtime.session(principal="Agent::bot", tenant=TENANTS[0]) as session:
        for call in (
            {"order_id": "none-such", "amount": 1},
            {"order_id": "glob-1", "amount": 1},  # of the other tenant
            {"order_id": "acme-9", "amount": 2**70},
            {"order_id": "acme-9", "amount": 5, "idempotency_key": "k-1"},
            {"order_id": "acme-9", "amount": 5, "idempotency_key": "k-1"},
            {"order_id": "acme-9", "amount": 6},
            {"order_id": "acme-9", "amount": 7},
            {"order_id": "acme-9", "amount": 8},
            {"order_id": "acme-9", "amount": 9},
            {"order_id": "acme-9", "amount": 10},  # beyond the budget
        ):
            with suppress(Blocked, ApprovalRequired):
                session.call("refund", **call)


def die(lake: Path, bundle: Path, start: datetime) -> None:
    """A process that is gone while its tool runs: an action without an outcome."""
    command = [
        sys.executable,
        "-P",
        "-W",
        "ignore",
        __file__,
        "die",
        str(lake),
        str(bundle),
        start.isoformat(),
    ]
    assert subprocess.run(command, check=False).returncode == DIED


def dying(lake: Path, bundle: Path, start: datetime) -> None:
    """What that process does."""
    runtime = opened(lake, bundle, start)
    with runtime.session(principal="Agent::bot", tenant=TENANTS[0]) as session:
        session.call("refund", order_id="acme-1", amount=9, note="die")


def make(golden: Path) -> None:
    """Write the lake, its ledger, its bundles."""
    lake, bundle = golden / "lake_v1", golden / "candidate_v1"
    bundle.mkdir(parents=True)
    for name, text in BUNDLE.items():
        (bundle / name).write_text(text)
    write_facts(lake, 100, NOON - timedelta(hours=2))
    die(lake, bundle, NOON - timedelta(hours=1))
    with opened(lake, bundle, NOON) as runtime:
        act(runtime, TENANTS[0], notes=("fail", "the password"))
        act(runtime, TENANTS[1], notes=("stop",))
        refused(runtime)
    write_facts(lake, 200, NOON + timedelta(days=1))
    runtime = opened(lake, bundle, NOON + timedelta(days=2))
    act(runtime, TENANTS[0], notes=("big", "overflow"))
    act(runtime, TENANTS[1], notes=("overflow", "big"))
    runtime.close(drain=False)
    with opened(lake, bundle, NOON + timedelta(days=90)) as runtime:
        act(runtime, TENANTS[0], notes=())  # facts too old: refused by context
    die(lake, bundle, NOON + timedelta(days=3))
    runtime = opened(lake, bundle, NOON + timedelta(days=3, hours=1))
    act(runtime, TENANTS[0], notes=("fail",))
    runtime.close(drain=False)
    for name, text in CANDIDATE.items():
        (bundle / name).write_text(text)


def expected(golden: Path) -> dict[str, Any]:
    """Replay the lake in every way that must give the same for ever."""
    import workbench as wb
    from workbench import redeciding
    from workbench.doctor import lake_findings
    from workbench.lake import open_lake

    redeciding.COLUMNS_PAY = 0  # so that `auto` is columns, with Cedar for what they do not take

    lake = open_lake(golden / "lake_v1")
    told: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "ledgers": dict(lake.pins.ledgers),
        "replays": {},
    }
    sides: dict[str, dict[str, Any]] = {
        "self": {},
        "candidate": {"policy": golden / "candidate_v1", "limits": golden / "candidate_v1"},
        "recompiled": {"policy": golden / "candidate_v1", "context": golden / "candidate_v1"},
    }
    for name, arguments in sides.items():
        by_engine = {engine: lake.replay(engine=engine, **arguments) for engine in ("rows", "auto")}
        rows = {
            engine: found.frame.select(SHOWN).sort("decision_id").collect().to_dicts()
            for engine, found in by_engine.items()
        }
        assert rows["rows"] == rows["auto"], name
        told["replays"][name] = {
            "rows": rows["rows"],
            "counts": by_engine["rows"].counts(),
            "digests": {engine: found.digest() for engine, found in by_engine.items()},
        }
    told["summary"] = wb.compare(lake.replay(), lake.replay(policy=golden / "candidate_v1")).summary()
    told["doctor"] = [
        [each.subject, each.status]
        for each in lake_findings(str(golden / "lake_v1"))
        if each.subject != "lake"
    ]
    return told


if __name__ == "__main__" and sys.argv[1] == "die":
    dying(Path(sys.argv[2]), Path(sys.argv[3]), datetime.fromisoformat(sys.argv[4]))
elif __name__ == "__main__":
    place = Path(sys.argv[1]).absolute()
    assert SCHEMA_VERSION == 1, "run it with the release that wrote version 1"
    make(place)
    told = expected(place)
    shutil.rmtree(place / "lake_v1" / "_cache")  # the replays' own
    (place / "expected_v1.json").write_text(json.dumps(told, indent=1) + "\n")
