"""The support desk: what is drawn is the same however it is drawn, and has every verdict in it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from runtime.bundle import load_bundle
from runtime.canonical import canonical
from workbench.bench import desk as desk_module
from workbench.bench.config import BenchConfigInvalid, bench_config
from workbench.bench.desk import COLUMNS, desk, desk_columns
from workbench.bench.desk_facts import DeskRecords
from workbench.bench.lake_rows import decision_rows
from workbench.bench.policies import multiplied
from workbench.shipped import shipped

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.bench.desk import DeskFrame


@pytest.fixture(scope="module")
def frame() -> DeskFrame:
    return desk_columns(20_000)


def test_rows_are_as_declared(frame: DeskFrame) -> None:
    rows = frame.rows
    assert tuple(rows.columns) == COLUMNS
    assert rows.height == 20_000
    never_null = [name for name in COLUMNS[: COLUMNS.index("args") + 1] if name not in ("tier", "country")]
    assert rows.select(never_null).null_count().row(0) == (0,) * len(never_null)
    assert 15 < rows.height / rows["session"].n_unique() < 25


def test_arguments_are_canonical_and_say_what_the_columns_say(frame: DeskFrame) -> None:
    for row in frame.rows.head(3_000).iter_rows(named=True):
        args = json.loads(row["args"])
        assert canonical(args) == row["args"]
        address = args.pop("address", None)
        assert args == {name: row[name] for name in args}
        assert address is None or tuple(address.values()) == (row["city"], row["to_country"], row["street"])


def test_shares_are_those_of_the_data_card() -> None:
    frame = desk_columns(100_000)
    bundle = load_bundle(shipped("support-desk/baseline"))
    cases, _ = DeskRecords.of(frame.tables).cases(frame.rows, bundle.context_spec_hash)
    found = decision_rows(frame.rows, cases, bundle)["verdict"].value_counts(normalize=True)
    shares = {verdict: round(share, 2) for verdict, share in found.iter_rows()}
    card = shipped("README.md").read_text()
    said = re.search(r"\| `baseline` \| (\d+) % \| (\d+) % \| (\d+) % \| (\d+) % \|", card)
    assert said is not None
    assert shares == {
        verdict: int(share) / 100
        for verdict, share in zip(("allow", "modify", "approve", "block"), said.groups(), strict=True)
    }


def test_facts_are_unique_and_refer_to_what_is_there(frame: DeskFrame) -> None:
    tables = frame.tables
    for table, key in (
        (tables.agents, "agent_id"),
        (tables.customers, "customer_id"),
        (tables.orders, "order_id"),
        (tables.tickets, "ticket_id"),
    ):
        assert table[key].n_unique() == table.height
        assert table[key].str.len_bytes().max() <= 12  # type: ignore[operator]  # not empty
        assert table.null_count().sum_horizontal().item() == 0
    for shop, of in ((tables.orders, "owner"), (tables.tickets, "assignee")):
        owners = pl.concat(
            [
                tables.customers.select(id="customer_id", of="tenant"),
                tables.agents.select(id="agent_id", of="tenant"),
            ]
        )
        joined = shop.join(owners, left_on=of, right_on="id", how="left")
        assert (joined["tenant"] == joined["of"]).all()


def test_the_same_seed_gives_the_same_rows_and_another_one_others() -> None:
    assert_frame_equal(desk_columns(3_000, 7).rows, desk_columns(3_000, 7).rows)
    assert not desk_columns(3_000, 8).rows.equals(desk_columns(3_000, 7).rows)


def test_blocks_do_not_depend_on_which_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "BLOCK", 1_000)
    made = desk(3_500, 7)
    every = list(made.blocks())
    assert [block.height for block in every] == [1_000, 1_000, 1_000, 500]
    assert_frame_equal(next(made.blocks(lambda number: number == 2)), every[2])
    sessions = pl.concat(every)["session"]
    assert sessions.is_sorted()
    assert sessions.n_unique() == sessions.max() + 1  # type: ignore[operator]  # numbers


def test_a_desk_without_calls_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 call, got 0"):
        desk(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("issue_refund = 0.30", "issue_refund = 30"), "between 0 and 1, got {'issue_refund': 30}"),
        (("newcomer", "newcommer"), "missing or unknown: newcomer, newcommer"),
        (("seed = ", "seed = = "), "not valid TOML"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    text = shipped("support-desk/bench.toml").read_text()
    assert change[0] in text
    (path := tmp_path / "bench.toml").write_text(text.replace(*change))
    with pytest.raises(BenchConfigInvalid, match=message):
        bench_config(path)


def test_copies_of_policies_all_differ() -> None:
    bundle = load_bundle(shipped("support-desk/baseline"))
    many = multiplied(bundle, 100)
    assert len(many.policies) == 100
    bodies = {policy.text.partition(")")[2] for policy in many.policies.values()}  # without their `@id`
    assert len(bodies) == 100
    assert set(bundle.policies) < set(many.policies)
    with pytest.raises(ValueError, match="more than 3"):
        multiplied(bundle, 3)
