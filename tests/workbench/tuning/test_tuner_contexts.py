"""Policies that read what was not recorded are tuned over facts that are compiled again, once for all edits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from deltalake import write_deltalake

import workbench as wb
from runtime import Runtime
from runtime.bundle import bundle_from_files
from workbench.tuning.tuner import explained
from workbench.viewing.testing import Browser

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = """
entity Agent; entity Order;
action "refund" appliesTo { principal: [Agent], resource: [Order],
  context: { args: { order_id: String, cents: Long }, order?: { refundable: Long } } };
"""
PERMIT = '@id("permit") permit(principal, action, resource);\n'
OVER = (
    '@id("over") forbid(principal, action, resource) when {\n'
    "  context has order && context.args.cents > context.order.refundable };\n"
)
FACTS = """
[sources.orders]
kind = "delta"
[[facts]]
name = "order"
actions = ["refund"]
source = "orders"
key = { id = "args.order_id" }
fields = ["refundable"]
shared = true
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A lake that recorded no facts, a table that has them, and a candidate that reads them."""
    write_deltalake(str(tmp_path / "orders"), pa.table({"id": ["o-1", "o-2"], "refundable": [100, 9]}))
    plain = bundle_from_files({"p.cedar": PERMIT, "schema.cedarschema": SCHEMA}, "plain")
    with Runtime.open(plain, lake=tmp_path / "lake") as runtime:
        runtime.tool(lambda order_id, cents: cents, name="refund", resource="Order::{order_id}")
        with runtime.session(principal="Agent::bot", tenant="acme") as session:
            for cents in (5, 50, 500):
                for order in ("o-1", "o-2"):
                    session.call("refund", order_id=order, cents=cents)
    folder = tmp_path / "candidate"
    folder.mkdir()
    files = {"p.cedar": PERMIT + OVER, "schema.cedarschema": SCHEMA, "context.toml": FACTS}
    for name, text in files.items():
        (folder / name).write_text(text)
    return tmp_path


def test_a_tuner_decides_compares_and_explains_over_the_facts_it_was_given(root: Path) -> None:
    lake, folder = wb.open(root / "lake"), root / "candidate"
    axes = {"context": folder, "sources": {"orders": str(root / "orders")}}
    with Browser():
        recorded = wb.tune(lake, folder)
        assert recorded.answer.verdicts["undecided"] == 6, "nobody asked for the orders then"
        recorded.close()
        tuner = wb.tune(lake, folder, **axes)  # type: ignore[arg-type]  # by name
        assert {name: n for name, n in tuner.answer.verdicts.items() if n} == {"allow": 3, "block": 3}
        tuner.edit("p.cedar", PERMIT + OVER.replace("> context", "> 60 + context"))
        edited = lake.replay(tuner.bundle, **axes)  # type: ignore[arg-type]  # as above
        assert {name: n for name, n in tuner.answer.verdicts.items() if n} == dict(
            edited.rows["verdict"].value_counts().iter_rows()
        )
        diff = tuner.compare()
        assert diff.cand.frame.select("verdict").collect().equals(edited.frame.select("verdict").collect())
        blocked = edited.rows.filter(verdict="block")["decision_id"][0]
        shown = explained(lake, blocked, tuner.bundle, tuner._axes)
        assert "refundable" in shown
        tuner.close()
