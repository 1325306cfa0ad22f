"""Sweeps: each version's numbers are those of its replay; versions are made, or refused, before anything runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from deltalake import DeltaTable

import workbench.redeciding
from runtime import Runtime
from runtime.bundle import load_bundle
from runtime.errors import ApprovalRequired, Blocked, PolicyError
from runtime.tuning import tuned
from workbench.compare import compare
from workbench.effects import ALL_EFFECTS
from workbench.errors import BundleNotFound, ColumnUnknown, ReplayFailure, WorkbenchError
from workbench.history.sweeping import Tagged, Tally, Told
from workbench.lake import open_lake
from workbench.metrics import SIDES, STATES, UNRESOLVED
from workbench.replay import FRAME
from workbench.splitting import Split, clusters
from workbench.sweep import COUNTS, tallied, versions_of, weighed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.lake import Lake

SCHEMA = """
entity Agent;
entity Order;
action "refund" appliesTo {
  principal: [Agent], resource: [Order], context: { args: { cents: Long, note?: String }, payee?: { known: Bool } }
};
"""
PERMIT = '@id("may") permit (principal, action, resource);\n'
NEXT = (
    PERMIT
    + r"""
@id("big") @tune("{\"limit\": {\"value\": 500, \"min\": 0, \"max\": 900}}")
forbid (principal, action, resource) when { context.args.cents > 500 };
@id("ask") @verdict("approve") @tune("{\"limit\": {\"value\": 300}, \"allow\": {\"value\": true}}")
forbid (principal, action, resource) when { context.args.cents > 300 && true };
@id("cut") @verdict("modify") @patch("{\"note\": null}") @tune("{\"word\": {\"value\": \"x\", \"choices\": [\"x\", \"y\"]}}")
forbid (principal, action, resource) when { context.args has note && context.args.note == "x" };
"""
)
MISSING = (
    PERMIT
    + r"""
@id("stranger") @tune("{\"from\": {\"value\": 100}}")
forbid (principal, action, resource)
when { context.args.cents > 100 && context has payee && !context.payee.known };
"""
)


def bundle(folder: Path, policies: str) -> Path:
    folder.mkdir()
    for name, text in (("p.cedar", policies), ("schema.cedarschema", SCHEMA)):
        (folder / name).write_text(text)
    return folder


CALLS: tuple[tuple[dict[str, Any], str | None], ...] = (
    ({"cents": 50}, "user"),
    ({"cents": 200, "note": "x"}, "user"),
    ({"cents": 200, "note": "y"}, None),
    ({"cents": 350}, "attack"),
    ({"cents": 600}, "attack"),
    ({"cents": 700}, "user"),
    ({"cents": 950}, "user"),
)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Seven refunds, six of which ran; some are labelled, one is damaged."""
    folder = tmp_path_factory.mktemp("sweep")
    cap = '@id("cap") forbid (principal, action, resource) when { context.args.cents > 900 };\n'
    with Runtime.open(bundle(folder / "base", PERMIT + cap), lake=folder / "lake") as runtime:
        runtime.tool(lambda cents, note=None: cents, name="refund", resource="Order::o")
        for number, (args, origin) in enumerate(CALLS):
            with runtime.session(principal="Agent::bot", tenant="acme") as session:
                try:
                    session.call("refund", **args)
                except (Blocked, ApprovalRequired):
                    assert number == len(CALLS) - 1
                if origin is not None:
                    assert session.last_decision is not None
                    ident = str(session.last_decision["decision_id"])
                    runtime.label("origin", origin, session=session, decision_id=ident, source="test")
    return open_lake(folder / "lake")


@pytest.fixture(scope="module")
def next_(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("next") / "next", NEXT)


def test_a_row_a_version_with_the_numbers_of_its_replay(lake: Lake, next_: Path, tmp_path: Path) -> None:
    """The oracle: each version written to a folder, loaded, replayed and compared as if there were no sweep."""
    base = lake.replay()
    sweep = lake.sweep(next_, over={"big.limit": [0, 300, 900], "word": ["x", "y"]})
    frame = sweep.frame.collect()
    assert frame.select("version", "big.limit", "word").rows() == [
        (0, 0, "x"), (1, 0, "y"), (2, 300, "x"), (3, 300, "y"), (4, 900, "x"), (5, 900, "y"),
    ]  # fmt: skip
    for row in frame.rows(named=True):
        folder = tmp_path / str(row["version"])
        folder.mkdir()
        for file, text in sweep.bundle(row["version"]).files.items():
            (folder / file).write_text(text)
        alone = lake.replay(policy=folder)
        assert alone.policy[1] == row["policy_version"]
        assert alone.digest() == sweep.replay(row["version"]).digest()
        summary = compare(base, alone).summary()
        states = alone.frame.select(
            pl.when(pl.col("status") == "decided").then("verdict").otherwise("status").alias("state")
        )
        found = dict(states.collect()["state"].value_counts().rows())
        assert {state: row[state] for state in STATES} == {state: found.get(state, 0) for state in STATES}
        shared = [name for name in COUNTS if name not in STATES]
        assert {name: row[name] for name in shared} == {name: summary[name] for name in shared}
        assert sum(row[state] for state in STATES) == row["decisions"] == len(CALLS)
        assert sum(row[f"effect_{effect}"] for effect in ALL_EFFECTS) == len(CALLS)
        assert sum(row[f"{side}_calls"] for side in SIDES) == len(CALLS)


def test_numbers_by_hand(lake: Lake, next_: Path) -> None:
    frame = lake.sweep(next_, over={"big.limit": [900, 500]}).frame
    names = (
        "allow",
        "modify",
        "approve",
        "block",
        "undecided",
        "attack_calls_stopped",
        "honest_calls_disturbed",
    )
    assert frame.select(names).collect().rows() == [(2, 1, 3, 1, 0, 2, 2), (2, 1, 1, 3, 0, 2, 2)]


def test_a_list_of_bundles_and_versions_of_the_lake(lake: Lake, next_: Path) -> None:
    recorded = lake.bundles.collect()["bundle_version"][0]
    sweep = lake.sweep([next_, load_bundle(next_), recorded[:12], str(next_)])
    frame = sweep.frame.collect()
    assert frame["name"].to_list() == ["next", "next", "base", "next"]
    assert frame["policy_version"].to_list()[2] == recorded
    assert frame["effect_same"].to_list()[2] == len(CALLS)
    assert frame.drop("version").unique().height == 2
    assert [column for column in frame.columns if column not in COUNTS] == [
        "version",
        "name",
        "policy_version",
    ]


def test_bundles_and_values_are_combined(lake: Lake, next_: Path) -> None:
    other = tuned(load_bundle(next_), {"word": "y"})
    frame = lake.sweep([next_, other], over={"big.limit": range(0, 901, 300)}).frame.collect()
    assert frame["big.limit"].to_list() == [0, 300, 600, 900] * 2
    assert frame["policy_version"].n_unique() == 8


def test_equal_versions_are_replayed_once(lake: Lake, next_: Path) -> None:
    told: list[int] = []
    sweep = lake.sweep(next_, over={"big.limit": [5, 5, 7, 5]}, on_rows=told.append)
    assert sum(told) == 2 * len(CALLS)
    rows = sweep.frame.drop("version").collect().rows()
    assert rows[0] == rows[1] == rows[3] != rows[2]


def test_decisions_on_demand_are_the_replays(lake: Lake, next_: Path) -> None:
    sweep = lake.sweep(next_, over={"big.limit": [100, 900]})
    decisions = sweep.decisions(0)
    assert decisions.collect_schema().names() == list(FRAME)
    assert decisions.collect()["verdict"].to_list() == ["allow", *["block"] * 6]
    assert sweep.replay(0) is sweep.replay(0)
    first = sweep.replay(0)
    assert sweep.decisions(1).collect()["verdict"].to_list()[:3] == ["allow", "modify", "allow"]
    assert sweep.replay(0) is not first
    assert compare(lake.replay(), sweep.replay(1)).summary()["sessions"] == len(CALLS)
    for number in (-1, 2):
        with pytest.raises(BundleNotFound, match=rf"no version {number}; they are numbered 0 to 1"):
            sweep.decisions(number)


def test_a_tuned_name_that_is_a_column_gets_its_policys(lake: Lake, next_: Path) -> None:
    frame = lake.sweep(next_, over={"allow": [True, False], "ask.limit": [1]}).frame.collect()
    assert frame.select("ask.allow", "ask.limit").rows() == [(True, 1), (False, 1)]
    assert frame["allow"].dtype == pl.UInt32
    assert frame["approve"].to_list() == [4, 0]


def test_what_was_not_recorded_is_undecided_in_every_version_it_matters_to(
    lake: Lake, tmp_path: Path
) -> None:
    folder = bundle(tmp_path / "missing", MISSING)
    frame = lake.sweep(folder, over={"from": [0, 400, 1000]}).frame.collect()
    assert frame["undecided"].to_list() == [7, 3, 0]
    assert frame["effect_undecided"].to_list() == frame["undecided"].to_list()


def test_what_does_not_reproduce_stays_in_every_count(lake: Lake, next_: Path, tmp_path: Path) -> None:
    shutil.copytree(lake.uri, tmp_path / "copy")
    handle = DeltaTable(tmp_path / "copy" / "contexts")
    handle.update(new_values={"context": "{}"})
    row = open_lake(tmp_path / "copy").sweep(next_).frame.collect().row(0, named=True)
    assert (row["quarantined"], row["decisions"], row["effect_quarantined"]) == (7, 7, 7)


@pytest.mark.parametrize("over", [{"big.limit": [0, 300, 900], "word": ["x", "y"]}, {"allow": [True, False]}])
def test_columns_and_rows_count_the_same(
    lake: Lake, next_: Path, over: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over one scan for all versions, or a replay each."""
    rows = lake.sweep(next_, over=over, engine="rows")
    monkeypatch.setattr(workbench.redeciding, "COLUMNS_PAY", 0)
    columns = lake.sweep(next_, over=over)
    assert columns.rows.equals(rows.rows)
    assert (rows.seconds, columns.engine != rows.engine) == ({}, True)
    assert {"reading", "self-replay", "typing", "deciding"} <= set(columns.seconds)


def counted(rows: pl.DataFrame, side: pl.Series) -> dict[str, int]:
    """What `COUNTS` are of a replay, counted row by row."""
    found: dict[str, int] = rows.with_columns(side.alias("side")).select(**COUNTS).row(0, named=True)
    return found


def tagged(rows: pl.DataFrame, part: Sequence[str] = ()) -> Tagged:
    side = pl.Series(["attack", "honest", "unlabelled", "honest", "attack", "attack", "honest"])
    money = pl.int_range(rows.height, eager=True)
    return Tagged(side, pl.Series(part or [""] * rows.height), money)


def test_tallies_are_weighed_as_rows_are_counted(lake: Lake, next_: Path) -> None:
    rows = lake.replay(next_).rows
    tags = tagged(rows)
    tally = tallied(rows, tags)
    twice = Tally()
    for told, n in tally.n.items():
        twice.add(told, 2 * n, 0)
    once, doubled, nothing = weighed([tally, twice, Tally()])
    assert once == counted(rows, tags.side)
    assert doubled == {name: 2 * n for name, n in once.items()}
    assert set(nothing.values()) == {0}
    assert all(isinstance(told, Told) for told in tally.n)


def test_a_session_without_the_label_is_a_cluster_of_its_own() -> None:
    rows = pl.DataFrame({"tenant": ["a"] * 6, "session_id": ["1", "1", "2", "3", "4", "4"]})
    said = {"label": "desk", "tenant": "a", "decision_id": None}
    labels = pl.LazyFrame(
        [said | {"session_id": "1", "value": "north"}, said | {"session_id": "2", "value": "north"}],
        schema_overrides={"decision_id": pl.String},
    )
    found = clusters(rows, labels, ("tenant", "desk"))
    assert found.to_list()[:3] == ['{"tenant":"a","desk":"north"}'] * 3
    assert found.n_unique() == 3
    assert found[4] == found[5] != found[3]


def test_money_is_added_up_where_rows_are_counted(lake: Lake, next_: Path) -> None:
    rows = lake.replay(next_).rows
    tags = tagged(rows)
    (found,) = weighed([tallied(rows, tags)], of="money")
    for place, row in enumerate(rows.iter_slices(1)):
        alone = counted(row, tags.side[place : place + 1])
        found = {name: number - alone[name] * tags.money[place] for name, number in found.items()}
    assert set(found.values()) == {0}


def test_parts_are_counted_apart_and_add_up(lake: Lake, next_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whole sessions, the same over one scan and over a replay each; a seed draws others."""
    over = {"big.limit": [0, 300, 900]}
    split = Split(cluster=("decision_id",))
    rows = lake.sweep(next_, over=over, split=split, engine="rows")
    monkeypatch.setattr(workbench.redeciding, "COLUMNS_PAY", 0)
    columns = lake.sweep(next_, over=over, split=split)
    for part in ("search", "confirm", None):
        assert columns.part(part).equals(rows.part(part))
    search, confirm, whole = (rows.part(part).select(*COUNTS) for part in ("search", "confirm", None))
    assert (search + confirm).equals(whole)
    assert 0 < search["decisions"][0] < whole["decisions"][0]
    drawn = {
        tuple(Split(cluster=("decision_id",), seed=n).part(lake.replay().rows, lake.labels)) for n in range(9)
    }
    assert len(drawn) > 1


def test_a_cluster_is_in_one_part(lake: Lake) -> None:
    rows = pl.DataFrame({"tenant": ["a", "a", "b"] * 40, "session_id": [str(n // 3) for n in range(120)]})
    for cluster in (("tenant", "session_id"), ("session_id",), ("tenant",)):
        part = Split(cluster=cluster).part(rows, lake.labels)
        assert (
            rows.with_columns(part=part).group_by(cluster).agg(pl.col("part").n_unique())["part"].max() == 1
        )
    assert 30 < (Split(cluster=("session_id",), share=0.5).part(rows, lake.labels) == "search").sum() < 90
    with pytest.raises(ColumnUnknown, match="a decision, with its session's labels, has no column `custmer`"):
        Split(cluster=("custmer",)).part(rows, lake.labels)
    with pytest.raises(WorkbenchError, match="between 0 and 1"):
        Split(share=1.0)


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "an unknown name": ({"lmit": [1]}, PolicyError, "bundle 'next' has no tunable `lmit`; did you mean"),
    "a name of two": ({"limit": [1]}, PolicyError, "say which: `ask.limit`, `big.limit`"),
    "out of range": ({"big.limit": [1, 901]}, PolicyError, "`limit` cannot be 901; it must be a Long of at least 0 and at most 900"),
    "no choice": ({"word": ["z"]}, PolicyError, 'cannot be "z"; it must be a String, one of "x", "y"'),
    "another type": ({"big.limit": ["1"]}, PolicyError, 'cannot be "1"'),
    "one value": ({"big.limit": 5}, ReplayFailure, "`over` must give a list of values for `big.limit`"),
    "a text": ({"word": "xy"}, ReplayFailure, "must give a list of values for `word`"),
    "no values": ({"word": []}, ReplayFailure, "must give a list of values for `word`"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_versions_that_cannot_be_made_are_errors_before_anything_runs(
    lake: Lake, next_: Path, name: str
) -> None:
    over, error, hint = WRONG[name]
    told: list[int] = []
    with pytest.raises(error) as caught:
        lake.sweep(next_, over=over, on_rows=told.append)
    assert hint in str(caught.value)
    assert told == []


def test_counts_are_the_same_of_strings_and_of_enums(lake: Lake, next_: Path) -> None:
    """What a columnar replay gives is counted as what the row engine gives, and counts of parts add up."""
    rows = lake.replay(next_).rows
    side = pl.Series(
        ["attack", "honest", "unlabelled", "honest", "attack", "attack", "honest"],
        dtype=pl.Enum(tuple(SIDES)),
    )
    enums = rows.with_columns(
        pl.col("status").cast(pl.Enum(["decided", *UNRESOLVED])),
        pl.col("verdict").cast(pl.Enum(STATES)),
        pl.col("effect").cast(pl.Enum(ALL_EFFECTS)),
        pl.col("then").cast(pl.Categorical),
    )
    whole = counted(rows, side)
    assert counted(enums, side) == whole
    parts = counted(enums[:3], side[:3]), counted(enums[3:], side[3:])
    assert {name: sum(part[name] for part in parts) for name in COUNTS} == whole


def test_no_bundle_at_all(lake: Lake) -> None:
    with pytest.raises(ReplayFailure, match="a list of at least one"):
        lake.sweep([])
    with pytest.raises(BundleNotFound, match="no bundle of version 'abcdef0'"):
        lake.sweep(["abcdef0"])


def test_versions_made_are_what_is_swept(lake: Lake, next_: Path) -> None:
    made = versions_of(lake, next_, {"big.limit": iter([1, 2])})
    assert [dict(version.values) for version in made] == [{"big.limit": 1}, {"big.limit": 2}]


def test_text_and_cell_say_the_frames_numbers(lake: Lake, next_: Path) -> None:
    sweep = lake.sweep(next_, over={"big.limit": [0, 900]})
    said = repr(sweep)
    assert said.splitlines()[:4] == [
        "Sweep: 2 versions of next, contexts recorded",
        "7 decisions each.",
        "Stop 2 of 2 attack calls that ran.",
        "Disturb 2 to 3 of 3 honest calls that ran.",
    ]
    table = [line.split() for line in said.splitlines()[6:]]
    assert [line[-3:] for line in table[:2]] == [
        ["attack", "honest", "unlabelled"],
        ["stopped", "disturbed", "stopped"],
    ]
    assert table[2:] == [
        ["0", "0", "0", "0", "0", "7", "2", "3", "1"],
        ["1", "900", "2", "1", "3", "1", "2", "2", "0"],
    ]
    cell = sweep._repr_html_()
    assert "<script" not in cell
    assert "Sweep: 2 versions of next" in cell
    assert "<td>900</td>" in cell.replace(' class=""', "")
    assert sweep.pins["policies"] == sweep.frame.collect()["policy_version"].to_list()
    assert sweep.pins["ledgers"] == lake.replay().pins["ledgers"]


@pytest.mark.slow
def test_many_versions_are_cut_in_the_table_and_whole_in_the_frame(lake: Lake, next_: Path) -> None:
    sweep = lake.sweep(next_, over={"big.limit": range(50)})
    assert "10 more in `sweep.frame`" in repr(sweep)
    assert "10 more" in sweep._repr_html_()
    assert sweep.frame.collect().height == 50


def test_hostile_names_are_shown_not_obeyed(lake: Lake, next_: Path) -> None:
    from dataclasses import replace

    hostile = replace(load_bundle(next_), name="<img src=x>\x1b[2J")
    sweep = lake.sweep(hostile)
    assert "\x1b" not in repr(sweep)
    assert "<img" not in sweep._repr_html_()
