"""Traces: the same ones for the same comparison, the worst first, masked, short, and true to the record."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workbench.runs.comparisons import desk
from workbench.effects import STOPPED
from workbench.masking import MASKED, leaving
from workbench.runs import spans as spans_module
from workbench.runs import traces as traces_module
from workbench.runs.regressed import ORDER, UNLABELLED, WORSE, counted, known, regressed, worst
from workbench.runs.spans import MAX_VALUE, clean, nanoseconds
from workbench.runs.traces import traces_of
from workbench.score import score

if TYPE_CHECKING:
    from workbench.compare import Diff


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return regressed(desk()).collect()


# Which decisions.


def test_what_regressed_by_hand(diff: Diff) -> None:
    """Said again row by row, from the labels and effects alone."""
    found = {row["decision_id"]: row["worse"] for row in regressed(diff).collect().to_dicts()}
    expected = {}
    for row in diff.frame.collect().to_dicts():
        side, effect, ran = row["side"], row["effect"], row["then"] == "ran"
        if side == "honest" and ran and effect in STOPPED:
            told = {
                "prevented": "good work stopped",
                "held": "good work held up",
                "altered": "good work altered",
            }
            expected[row["decision_id"]] = told[effect]
        if side == "attack" and effect in ("released", "escalated"):
            expected[row["decision_id"]] = {"released": "harm let run", "escalated": "harm asked for"}[effect]
        if side == "unlabelled" and (effect == "released" or (ran and effect in STOPPED)):
            expected[row["decision_id"]] = (
                "unlabelled, let run" if effect == "released" else "unlabelled, stopped"
            )
    assert found == expected
    assert set(expected.values()) == {"good work stopped", "harm asked for", "unlabelled, stopped"}


def test_without_labels_nothing_is_called_a_regression(unlabelled: Diff) -> None:
    states = counted(regressed(unlabelled).collect())
    assert set(states) <= set(UNLABELLED)
    assert states
    assert known(states) == 0


def test_the_worst_come_first_and_every_way_before_any_twice(rows: pl.DataFrame) -> None:
    keys = ["worse", "tool", "to", "determining"]
    ways = rows.select(keys).unique().height
    assert 1 < ways < rows.height
    chosen = worst(rows, ways)
    assert chosen.select(keys).unique().height == ways
    order = [ORDER.index(each) for each in worst(rows, 2 * ways)["worse"]]
    assert order == sorted(order)
    assert worst(rows, 10**6).height == rows.height


def test_the_choice_does_not_hang_on_order_or_on_other_decisions(rows: pl.DataFrame) -> None:
    chosen = worst(rows, 12)["decision_id"].to_list()
    assert worst(rows.sample(fraction=1, shuffle=True, seed=3), 12)["decision_id"].to_list() == chosen
    others = rows.filter(~pl.col("decision_id").is_in(chosen)).head(20)
    few = pl.concat([others, rows.filter(pl.col("decision_id").is_in(chosen))])
    assert set(worst(few, 12)["decision_id"]) == set(chosen)


# What they say.


@pytest.fixture(scope="module")
def made(rows: pl.DataFrame) -> Any:
    return traces_of(desk(), rows, most=8, scores={"": score(desk())})


def test_the_same_comparison_gives_the_same_traces(made: Any, rows: pl.DataFrame) -> None:
    assert traces_of(desk(), rows, most=8, scores={"": score(desk())}) == made
    assert traces_of(desk(), rows, most=0) == ()
    assert traces_of(desk(), rows.clear(), most=5) == ()


def test_a_trace_is_the_record_step_by_step(made: Any) -> None:
    table = {row["decision_id"]: row for row in desk().rows(pl.col("changed")).collect().to_dicts()}
    for trace in made:
        row = table[trace.key]
        names = [step["name"] for step in trace.spans]
        assert names == [
            row["tool"],
            "request",
            "context",
            "policy, as recorded",
            "policy, candidate",
            "outcome",
        ]
        whole, request, context, base, cand, outcome = trace.spans
        assert request["inputs"]["args"] == json.loads(row["args"])
        assert {fact["status"] for fact in context["outputs"].values()} <= {"found", "none"}
        assert (base["outputs"]["verdict"], cand["outputs"]["verdict"]) == (row["from"], row["to"])
        assert cand["outputs"]["determining"] == row["determining"]
        assert row["effect"] in whole["outputs"]["change"]
        deciding = [f"{policy} (" for policy in row["determining"]]
        assert all(any(name.startswith(each) for name in cand["outputs"]["clauses"]) for each in deciding)
        assert outcome["outputs"]["then"] == row["then"]
        assert all(
            whole["start_ns"] <= step["start_ns"] <= step["end_ns"] <= whole["end_ns"] for step in trace.spans
        )
        assert base["end_ns"] == nanoseconds(row["decided_at"])


def test_what_is_said_of_a_trace(made: Any, rows: pl.DataFrame) -> None:
    worse = dict(rows.select("decision_id", "worse").iter_rows())
    for trace in made:
        said = {each.name: each for each in trace.assessments}
        assert said["regression"].value is True
        assert said["regression"].rationale == f"{worse[trace.key]}: {WORSE[worse[trace.key]]}"
        assert (said["expected"].kind, said["expected"].value) == ("expectation", "runs")
        assert (said["expected"].rationale, said["expected"].source) == ("origin = user", "review")
        assert "To be allowed: " in said["effect"].rationale
        assert said["verdict_correctness"].value < 1
        assert trace.tags["redecide.regression"] == "true"
        assert trace.tags["redecide.label.origin"] == "user"


def test_a_replay_that_keeps_nothing_is_told_from_its_rows(rows: pl.DataFrame) -> None:
    """Of simulated state, say: no clause is known, the verdicts are."""
    diff = desk()
    bare: Any = replace(diff, cand=replace(diff.cand, asked=None))  # type: ignore[type-var]  # a replay is a dataclass
    bare.__dict__["_rows"] = diff.frame.collect()
    (trace,) = traces_of(bare, rows, most=1)
    names = [step["name"] for step in trace.spans]
    assert names == [trace.name, "request", "policy, as recorded", "policy, candidate", "outcome"]
    assert trace.spans[3]["outputs"]["verdict"] == trace.tags["redecide.to"]
    assert trace.assessments[0].rationale is None


def test_marked_fields_are_in_no_trace(rows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every depth: an argument, a fact's member, a column."""
    door = partial(leaving, marked={"order_id", "owner", "reason", "principal"})
    for module in (spans_module, traces_module):
        monkeypatch.setattr(module, "leaving", door)
    found = traces_of(desk(), rows.filter(pl.col("tool") == "issue_refund"), most=3)
    assert len(found) == 3
    for trace in found:
        (request,) = (step for step in trace.spans if step["name"] == "request")
        assert (request["inputs"]["args"]["order_id"], request["inputs"]["principal"]) == (MASKED, MASKED)
        (context,) = (step for step in trace.spans if step["name"] == "context")
        owners = [fact["value"].get("owner") for fact in context["outputs"].values() if fact.get("value")]
        assert MASKED in owners
        assert set(owners) <= {MASKED, None}


# Values that are shown.

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=60) | st.dictionaries(st.text(max_size=12), inner, max_size=60),
    max_leaves=200,
)


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*map(str, value), *(text for each in value.values() for text in _texts(each))]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


@given(_JSON)
def test_what_is_shown_is_short_and_hides_nothing(value: Any) -> None:
    found = clean(value)
    assert len(json.dumps(found, ensure_ascii=False)) <= 2 * MAX_VALUE
    hidden = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    for text in _texts(found):
        assert not [char for char in text.replace("\n", "") if unicodedata.category(char) in hidden]


def test_deep_and_long_values_are_cut() -> None:
    deep: Any = "x"
    for _ in range(200):
        deep = {"a": [deep]}
    assert "…" in json.dumps(clean(deep), ensure_ascii=False)
    assert len(str(clean("y" * 10**6))) == 1000
    assert str(clean(["z" * 900] * 40)).endswith("…")
    assert clean({"n": 1.5, "t": True, "at": None}) == {"n": 1.5, "t": True, "at": None}


def test_times_are_exact() -> None:
    from datetime import UTC, datetime

    moments = [datetime(2026, 11, 1, 0, 0, 0, micro, UTC) for micro in (0, 1, 999_999)]
    found = [nanoseconds(each) for each in moments]
    assert [b - a for a, b in pairwise(found)] == [1_000, 999_998_000]
    assert found[0] == 1_793_491_200_000_000_000
