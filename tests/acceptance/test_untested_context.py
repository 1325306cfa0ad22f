"""The third seed failure: the evaluation passed, production met a context nobody tested.

Found by coverage, shown by replay over another version of the facts, explained, and turned into a test that fails
for the candidate and passes for the rules in force.
"""

from __future__ import annotations

import contextlib
import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pytest
from deltalake import DeltaTable

import workbench as wb
from runtime import Blocked, Runtime
from workbench.shipped import shipped

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.lake import Lake

WHO = {"principal": "Agent::refund-bot", "on_behalf_of": "Customer::ana", "tenant": "acme"}
GATES = [{"quantity": "calls_released", "at_most": 0, "on": "log"}]


def load_orders(folder: Path, *, refunded: int) -> int:
    """Write the orders; returns the table's version."""
    orders = {
        "tenant": ["acme", "acme"],
        "order_id": ["o-17", "o-18"],
        "owner": ["ana", "ana"],
        "paid_cents": [4_200, 15_000],
        "refunded_cents": [refunded, 0],
        "updated_at": [datetime.now(UTC) - timedelta(minutes=5)] * 2,
    }
    pl.DataFrame(orders).write_delta(folder / "orders", mode="overwrite")
    return DeltaTable(folder / "orders").version()


def desk(folder: Path, name: str, *refunds: tuple[str, int]) -> Lake:
    """Let the assistant refund; returns the lake of its decisions."""
    bundle, sources = shipped("refund-desk/baseline"), {"orders": folder / "orders"}
    with Runtime.open(bundle, lake=folder / name, sources=sources) as runtime:
        runtime.tool(
            lambda order_id, amount_cents: amount_cents,
            name="issue_refund",
            resource="Order::{order_id}",
            effect="idempotent",
            writes=["Order::{order_id}"],
        )
        with runtime.session(**WHO) as session:
            for order_id, amount in refunds:
                with contextlib.suppress(Blocked):
                    session.call("issue_refund", order_id=order_id, amount_cents=amount)
    return wb.open(folder / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("untested")


@pytest.fixture(scope="module")
def tidied(folder: Path) -> Path:
    """The rules, with what was refunded already left out: a special case, somebody thought."""
    made = folder / "tidied"
    shutil.copytree(shipped("refund-desk/baseline"), made)
    rules = (made / "refunds.cedar").read_text()
    changed = rules.replace("  resource has refunded_cents &&\n", "").replace(
        "paid_cents - resource.refunded_cents", "paid_cents"
    )
    assert changed != rules
    (made / "refunds.cedar").write_text(changed)
    return made


def test_the_evaluation_passed_and_production_met_what_nobody_tested(folder: Path, tidied: Path) -> None:
    load_orders(folder, refunded=0)
    evaluation = desk(folder, "evaluation", ("o-17", 4_200), ("o-17", 4_300), ("o-18", 9_000))
    assert wb.compare(evaluation.replay(), evaluation.replay(tidied)).summary()["decisions_changed"] == 0

    now = load_orders(folder, refunded=4_200)
    production = desk(folder, "production", ("o-17", 4_200), ("o-18", 9_000))
    gap = wb.coverage(production).against(wb.coverage(evaluation)).frame.collect()
    assert "resource.refunded_cents is above 0" in gap["what"].to_list()

    versions: dict[str, int | str] = {"orders": now}
    shown = wb.compare(evaluation.replay(versions=versions), evaluation.replay(tidied, versions=versions))
    (row,) = shown.changed.collect().iter_rows(named=True)
    assert (row["from"], row["to"]) == ("block", "allow")
    told = " ".join(shown.why(row["decision_id"]).page().lines)
    assert "no-more-than-was-paid" in told
    assert "context.args.amount_cents <= resource.paid_cents" in told

    verdicts = {
        name: wb.compare(production.replay(), production.replay(bundle), gates=GATES).outcome
        for name, bundle in (("tidied", tidied), ("in force", shipped("refund-desk/baseline")))
    }
    assert {name: found.exit_code for name, found in verdicts.items() if found} == {
        "tidied": 1,
        "in force": 0,
    }

    kept = wb.save(production.replay(tidied), name="the refunded order")
    load_orders(folder, refunded=0)
    DeltaTable(folder / "production" / "decisions").optimize.compact()
    again = wb.open(folder / "production").reopen("the refunded order")
    assert again.digest() == kept.digest
