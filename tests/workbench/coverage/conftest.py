"""A small desk, its policies' lines numbered by hand, and lakes that the real runtime writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from runtime import ApprovalRequired, Blocked, Runtime
from workbench.lake import Lake, open_lake

SCHEMA = """
entity Agent = { level?: Long };
entity Order;
action "refund" appliesTo {
  principal: [Agent], resource: [Order],
  context: { args: { order_id: String, amount_cents: Long, note?: String }, order?: { refundable_cents: Long } }
};
action "look" appliesTo { principal: [Agent], resource: [Order], context: { args: { order_id: String } } };
action "cancel" appliesTo { principal: [Agent], resource: [Order], context: { args: { order_id: String } } };
"""
POLICIES = """\
@id("read")
permit (principal, action in [Action::"refund", Action::"look"], resource is Order);

@id("huge")
forbid (principal, action == Action::"refund", resource)
when { context.args.amount_cents > 9000 };

@id("over")
forbid (principal, action == Action::"refund", resource)
when {
  context has order &&
  context.args.amount_cents > context.order.refundable_cents
}
unless { context.args has note && (context.args.note == "ok" || context.args.note like "boss*") };

@id("never")
forbid (principal, action == Action::"cancel", resource) when { context.args.order_id == "o-1" };
"""
FACTS = """
[sources.orders]
kind = "delta"
uri = "../orders"
[[facts]]
name = "order"
actions = ["refund"]
source = "orders"
key = { order_id = "args.order_id" }
fields = ["refundable_cents"]
tenant_column = "tenant"
"""
Call = tuple[str, dict[str, Any]]
CALLS: list[Call] = [
    ("refund", {"order_id": "o-1", "amount_cents": 50}),
    ("refund", {"order_id": "o-1", "amount_cents": 500}),  # over
    ("refund", {"order_id": "o-1", "amount_cents": 500, "note": "ok"}),
    ("refund", {"order_id": "o-1", "amount_cents": 500, "note": "boss"}),
    ("refund", {"order_id": "o-1", "amount_cents": 500, "note": "no"}),  # over
    ("refund", {"order_id": "o-9", "amount_cents": 500}),  # no such order
    ("refund", {"order_id": "o-2", "amount_cents": 9001}),  # huge
    ("refund", {"order_id": "o-2", "amount_cents": 9000}),
    ("look", {"order_id": "o-1"}),
    ("refund", {"order_id": "o-1", "amount_cents": "x"}),  # does not project
    ("refund", {"order_id": "o-1"}),  # nor does this
    ("shell", {}),  # in no schema
]


@dataclass(frozen=True)
class Desk:
    """Writes bundles and lakes below a folder."""

    root: Path

    def bundle(
        self,
        name: str,
        policies: str = POLICIES,
        *,
        schema: str = SCHEMA,
        context: str = FACTS,
        limits: str = "",
    ) -> Path:
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "p.cedar").write_text(policies)
        (folder / "schema.cedarschema").write_text(schema)
        (folder / "context.toml").write_text(context)
        (folder / "limits.toml").write_text(limits)
        return folder

    def schema(self, *, more: bool) -> str:
        """The schema, with a fact that no record asked for if there is to be more."""
        order = "order?: { refundable_cents: Long }"
        return SCHEMA.replace(order, f"{order}, score?: {{ value: Long }}") if more else SCHEMA

    def lake(self, name: str, calls: list[Call], bundle: Path | None = None) -> Lake:
        rows = pa.table({"tenant": ["acme"] * 2, "order_id": ["o-1", "o-2"], "refundable_cents": [200, 9999]})
        write_deltalake(str(self.root / "orders"), rows, mode="overwrite")
        lake = self.root / name
        with Runtime.open(bundle or self.bundle("base"), lake=lake) as runtime:
            runtime.tool(
                lambda order_id, amount_cents, note=None: "paid", name="refund", resource="Order::{order_id}"
            )
            runtime.tool(lambda order_id: "seen", name="look", resource="Order::{order_id}")
            runtime.tool(lambda: None, name="shell")
            with runtime.session(principal="Agent::bot", tenant="acme", session_id="s") as session:
                for tool, args in calls:
                    try:
                        session.call(tool, **args)
                    except (Blocked, ApprovalRequired):
                        continue
        return open_lake(lake)


@pytest.fixture(scope="package")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Where lakes are made."""
    return Desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture(scope="package")
def lake(desk: Desk) -> Lake:
    """All of `CALLS`."""
    return desk.lake("lake", CALLS)


@pytest.fixture(scope="package")
def tested(desk: Desk) -> Lake:
    """The calls that somebody thought of when writing an evaluation."""
    return desk.lake("tested", [CALLS[0], CALLS[2], ("refund", {"order_id": "o-2", "amount_cents": 600})])
