"""What is counted: a small history by hand, in both engines; sums; pieces that add up."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from deltalake import DeltaTable

from workbench.covering import Coverage, coverage
from workbench.errors import ColumnUnknown
from workbench.lake import Lake, open_lake

if TYPE_CHECKING:
    from workbench.redeciding import EngineName

ENGINES: tuple[EngineName, ...] = ("auto", "rows", "columnar")
CLAUSES = {  # policy:key → true, false, error, not reached, unknown
    "read:action": (9, 0, 0, 2, 0),
    "read:resource": (9, 0, 0, 2, 0),
    "huge:action": (8, 0, 0, 2, 0),
    "huge:1.1": (1, 7, 0, 2, 0),
    "over:action": (8, 0, 0, 2, 0),
    "over:1.1": (7, 1, 0, 2, 0),
    "over:1.2": (4, 3, 0, 3, 0),
    "over:2.1": (3, 1, 0, 6, 0),
    "over:2.2": (2, 1, 0, 7, 0),
    "over:2.2.1": (1, 2, 0, 7, 0),
    "over:2.2.2": (1, 1, 0, 8, 0),
    "never:action": (0, 0, 0, 0, 0),
    "never:1.1": (0, 0, 0, 0, 0),
}
TRUTHS = ("true", "false", "error", "not_reached", "unknown")


def clauses_of(found: Coverage) -> dict[str, tuple[int, ...]]:
    rows = found.clauses.collect().iter_rows(named=True)
    return {f"{row['policy']}:{row['key']}": tuple(row[truth] for truth in TRUTHS) for row in rows}


def rows_of(frame: pl.LazyFrame, *columns: str) -> list[tuple[Any, ...]]:
    return frame.select(columns).collect().rows()


@pytest.fixture(scope="module", params=ENGINES)
def found(request: pytest.FixtureRequest, lake: Lake) -> Coverage:
    return coverage(lake, engine=request.param)


def test_clauses_are_what_they_are_by_hand(found: Coverage) -> None:
    assert clauses_of(found) == CLAUSES


def test_policies_satisfied_and_decisive(found: Coverage) -> None:
    told = rows_of(found.policies, "policy", "decisions", "evaluated", "satisfied", "decisive", "errored")
    assert told == [
        ("read", 11, 9, 9, 6, 0), ("huge", 10, 8, 1, 1, 0), ("over", 10, 8, 2, 2, 0), ("never", 0, 0, 0, 0, 0),
    ]  # fmt: skip


def test_sides_of_literals(found: Coverage) -> None:
    names = ("policy", "value", "literal", "below", "at", "above", "other", "absent", "unread", "uncovered")
    assert rows_of(found.boundaries, *names) == [
        ("huge", "context.args.amount_cents", "9000", 6, 1, 1, None, 0, 2, []),
        ("over", "context.args.note", '"ok"', None, 1, None, 2, 5, 2, []),
        ("never", "context.args.order_id", '"o-1"', None, 0, None, 0, 0, 0, ["at", "other"]),
    ]


def test_contexts_arguments_and_tools(found: Coverage) -> None:
    told = rows_of(found.contexts, "tool", "principal", "resource", "facts", "decisions")
    assert told == [
        ("look", "Agent", "Order", "no facts asked", 1),
        ("refund", "Agent", "Order", "order found", 7),
        ("refund", "Agent", "Order", "not compiled", 1),
        ("refund", "Agent", "Order", "order none", 1),
        ("refund", "Agent", "nothing", "not compiled", 1),
        ("shell", "Agent", "nothing", "not compiled", 1),
    ]
    assert rows_of(found.facts, "tool", "fact", "status", "decisions") == [
        ("refund", "order", "found", 7),
        ("refund", "order", "none", 1),
    ]
    assert rows_of(found.optional, "tool", "argument", "given", "omitted") == [("refund", "note", 3, 5)]
    assert rows_of(found.tools, "tool", "decisions", "declared", "evaluated", "before") == [
        ("refund", 10, True, 8, 2), ("look", 1, True, 1, 0), ("shell", 1, False, 0, 1), ("cancel", 0, True, 0, 0),
    ]  # fmt: skip


def test_ranges(found: Coverage) -> None:
    names = ("path", "read", "absent", "unread", "distinct", "low", "p05", "p50", "p95", "high")
    told = {row[0]: row[1:] for row in rows_of(found.ranges.filter(tool="refund"), *names)}
    assert told["context.args.amount_cents"] == (8, 0, 2, 4, 50, 50, 500, 9001, 9001)
    assert told["context.order.refundable_cents"] == (7, 1, 2, 2, 200, 200, 200, 9999, 9999)
    texts = rows_of(found.ranges.filter(tool="refund", path="context.args.order_id"), "values", "counts")
    assert texts == [(["o-1", "o-2", "o-9"], [5, 2, 1])]


def test_every_table_sums_to_its_decisions(found: Coverage) -> None:
    assert found.counts["decisions"]["n"].sum() == found.counts["asked"]["n"].sum() == 12
    for row in found.clauses.collect().iter_rows(named=True):
        assert sum(row[truth] for truth in TRUTHS) == row["decisions"]
    for row in found.boundaries.collect().iter_rows(named=True):
        sides = ("below", "at", "above", "other", "absent", "unread")
        assert sum(row[side] or 0 for side in sides) == row["decisions"]
    for row in found.ranges.collect().iter_rows(named=True):
        assert row["read"] + row["absent"] + row["unread"] == row["decisions"]


def test_examples_are_decisions_of_their_kind(found: Coverage, lake: Lake) -> None:
    rows = found.counts["clauses"].filter(truth="true")
    places = found.views.asking[next(iter(found.bundles))].clauses.places
    liked = next(row for row in rows.iter_rows(named=True) if places[row["clause"]][1].key == "2.2.2")
    args = lake.decisions.filter(pl.col("decision_id").is_in(liked["examples"])).select("args").collect()
    assert args["args"].to_list() == ['{"amount_cents":500,"note":"boss","order_id":"o-1"}']


@pytest.mark.parametrize("cut", [3, 11])
def test_two_windows_are_the_whole(lake: Lake, found: Coverage, cut: int) -> None:
    before, after = pl.col("position") <= cut, pl.col("position") > cut
    parts = coverage(lake, where=before) + coverage(lake, where=after)
    assert 0 < coverage(lake, where=before).views.decisions < found.views.decisions
    for name, table in found.counts.tables.items():
        keys = [column for column in table.columns if column not in ("examples", "n")]
        one, other = parts.counts[name].sort(keys), table.sort(keys)
        assert one.equals(other), (name, one, other)
    assert clauses_of(parts) == CLAUSES


def test_where(lake: Lake) -> None:
    nothing = coverage(lake, where=pl.col("tool") == "none such")
    assert nothing.views.decisions == 0
    assert repr(nothing).startswith("Coverage of the recorded policies by 0 decisions")
    with pytest.raises(ColumnUnknown, match="has no column `toll`; did you mean `tool`"):
        coverage(lake, where=pl.col("toll") == "look")


def damaged(lake: Lake, to: Path, table: str, where: str | None = None) -> Lake:
    shutil.copytree(lake.uri, to, ignore=shutil.ignore_patterns("_cache"))
    DeltaTable(str(to / table)).delete(where)
    return open_lake(to)


@pytest.mark.parametrize("engine", ENGINES)
def test_quarantined_decisions_stay_in_the_denominator(
    lake: Lake, tmp_path: Path, engine: EngineName
) -> None:
    found = coverage(damaged(lake, tmp_path / "lake", "contexts"), engine=engine)
    assert dict(rows_of(found.tools, "tool", "quarantined")) == {
        "refund": 8,
        "look": 1,
        "shell": 0,
        "cancel": 0,
    }
    for name, told in clauses_of(found).items():
        total = sum(CLAUSES[name])
        before = min(2, total)
        assert told == (0, 0, 0, before, total - before), name


def test_decisions_under_a_lost_bundle_are_told(lake: Lake, tmp_path: Path) -> None:
    found = coverage(damaged(lake, tmp_path / "lake", "policies"))
    assert found.views.decisions == 12
    assert found.bundles == {}
    assert "12 made under policies that the lake lost" in repr(found)


MORE_SCHEMA = """
entity Agent = { level?: Long };
entity Order;
action "refund" appliesTo {
  principal: [Agent], resource: [Order],
  context: { args: { order_id: String, amount_cents: Long, note?: String }, order?: { refundable_cents: Long },
             score?: { value: Long } }
};
action "look" appliesTo { principal: [Agent], resource: [Order], context: { args: { order_id: String } } };
"""
RISKY = """
@id("read") permit (principal, action, resource);
@id("risk") forbid (principal, action == Action::"refund", resource)
when { context.args.amount_cents > 100 && context has score && context.score.value > 5 }
unless { context.args.amount_cents == 500 };
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_what_the_record_did_not_ask_for_is_unknown(lake: Lake, desk: Any, engine: EngineName) -> None:
    """`score` was never asked for; a call of 50 cents is known not to get that far, one of 500 to be excepted."""
    found = coverage(lake, desk.bundle("risky", RISKY, schema=MORE_SCHEMA), engine=engine)
    told = clauses_of(found)
    assert told["risk:action"] == (8, 0, 0, 2, 0)
    assert told["risk:1.1"] == (7, 1, 0, 2, 0)
    assert told["risk:1.2"] == told["risk:1.3"] == told["risk:2.1"] == (0, 0, 0, 3, 7)
    policies = {row[0]: row[1:] for row in rows_of(found.policies, "policy", "satisfied", "unknown")}
    assert policies["risk"] == (0, 2)
    (file,) = found.files
    assert [line.state for line in file.lines if line.state] == ["both", "unknown", "unknown", "unknown"]
    assert file.missing == "not known 4-5"
    sides = rows_of(found.boundaries, "value", "literal", "below", "at", "above", "absent", "unread")
    assert sides[0] == ("context.args.amount_cents", "100", 1, 0, 7, 0, 2)


def test_a_candidate_and_its_errors(lake: Lake, desk: Any) -> None:
    wrong = (
        '@id("all") permit (principal, action, resource);\n'
        '@id("sum") forbid (principal, action == Action::"refund", resource)\n'
        "when { context.args.amount_cents * 9223372036854775807 > 0 };\n"
    )
    for engine in ENGINES:
        found = coverage(lake, desk.bundle("wrong", wrong), engine=engine)
        assert clauses_of(found)["sum:1.1"] == (0, 0, 8, 2, 0)
        assert rows_of(found.policies.filter(policy="sum"), "satisfied", "errored", "decisive") == [(0, 8, 8)]
        assert [file.missing for file in found.files] == ["only in error 3"]
        assert found.files[0].lines[2].state == "one"
