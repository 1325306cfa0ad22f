"""Metrics of ours: what each says, and that judging a reading once says the very same as judging every case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.bundle import load_bundle
from workbench.errors import ScoringInvalid
from workbench.score import score
from workbench.scoring import measure
from workbench.scoring.cases import cases_of
from workbench.scoring.gathering import gathered, said
from workbench.scoring.metrics import (
    DEFAULTS,
    OURS,
    ApprovalBurden,
    ArgumentCorrectness,
    EvidenceCompleteness,
    PolicyCompliance,
    TaskToolPermission,
)
from workbench.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from workbench.compare import Diff
    from workbench.lake import Lake

VERDICTS = ("allow", "modify", "approve", "block")
TOOLS = ("read", "send", "<b>", 'say "hi", then', "")
ROW = st.fixed_dictionaries(
    {
        "session": st.sampled_from(["s-1", "s-2", "s-3"]),
        "tool": st.sampled_from(TOOLS),
        "recorded": st.sampled_from(VERDICTS),
        "then": st.sampled_from(["ran", "taken_back", "did_not_run", "not_granted", "waiting", "in_doubt"]),
        "to": st.sampled_from([*VERDICTS, *VERDICTS, "undecided", "quarantined"]),
        "effect": st.sampled_from(
            ["same", "altered", "held", "prevented", "released", "escalated", "unknown"]
        ),
        "by": st.lists(st.sampled_from(["a", "b,c", "", "d"]), max_size=3),
        "origin": st.sampled_from(["user", "attack", "attack", None, "o'ther", 'q"\n']),
        "tenant": st.sampled_from(["t", ""]),
        "args": st.sampled_from(["{}", '{"n":1}', '{"n":true}', '{"n":1.0}', '{"n":', "[1]"]),
    }
)
QUICK = tuple(
    kind for name, kind in OURS.items() if name not in ("policy_compliance", "evidence_completeness")
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(ROW, min_size=1, max_size=14),
    kinds=st.lists(st.sampled_from(["call", "duplicate"]), min_size=14),
)
def test_judging_a_reading_once_says_what_judging_every_case_says(
    compared: Callable[[Iterable[Mapping[str, Any]]], Diff], rows: list[dict[str, Any]], kinds: list[str]
) -> None:
    diff = compared(rows)
    frame = diff.cand.frame.with_columns(kind=pl.Series(kinds[: len(rows)]))
    expected = pl.Series([row["args"] if at % 2 else None for at, row in enumerate(rows)], dtype=pl.String)
    told = gathered(_Shown(diff, frame), said(diff.labels), None).with_columns(expected_args=expected)
    for kind in QUICK:
        metric = kind()
        cases = cases_of(told, measure.level_of(metric))
        every = list(range(len(cases)))
        quick = [
            row for _, found in measure.outcomes(metric, cases, every, _PATIENCE) for row in found.iter_rows()
        ]
        slow = [measure.outcome_of(metric, case, {}) for case in cases.made(every)]
        assert quick == slow


class _Shown:
    """The candidate of a comparison, with other rows."""

    def __init__(self, diff: Diff, frame: pl.LazyFrame) -> None:
        self.id, self.frame, self.lake = "r", frame, diff.cand.lake


_PATIENCE: Any = None  # nothing here waits


def test_a_metric_that_measures_in_its_own_way_is_measured_case_by_case(diff: Diff) -> None:
    class Own(TaskToolPermission):
        def measure(self, test_case: Any, *_args: object, **_kwargs: object) -> float:
            self.score, self.reason = 0.25, "my own"
            return 0.25

    found = score(diff, [Own()]).table.filter(pl.col("status") == "scored")
    assert set(found["reason"]) == {"my own"}


def test_what_a_metric_does_not_read_it_is_not_shown(diff: Diff) -> None:
    class Nosy(ApprovalBurden):
        reads = ("kind",)  # type: ignore[assignment]  # fewer than its own

    found = score(diff, [Nosy()]).table.filter(pl.col("status") != "scored")
    assert "metadata has no `verdict`" in set(found["reason"])


def judged(metric: Any, **metadata: Any) -> float | str:
    """Return the score of one case, or why it does not apply."""
    outcome = measure._judged(metric, {"blank": None, **dict.fromkeys(metric.reads), **metadata})
    return outcome[1] if outcome[1] is not None else str(outcome[3])


@pytest.mark.parametrize(
    ("verdict", "kind", "expected"),
    [
        ("allow", "call", 1.0),
        ("block", "call", 1.0),
        ("modify", "call", 1.0),
        ("approve", "call", 0.0),
        ("approve", "resumed", 0.0),
        ("approve", "duplicate", "a duplicate: whoever was asked, was asked before"),
    ],
)
def test_an_approval_is_a_burden_whoever_asks(verdict: str, kind: str, expected: float | str) -> None:
    assert judged(ApprovalBurden(), verdict=verdict, kind=kind) == expected


@pytest.mark.parametrize(
    ("verdict", "args", "enforced", "wanted", "expected"),
    [
        ("allow", '{"n":1}', '{"n":1}', None, 1.0),
        ("allow", '{"n":1}', '{"n":true}', None, 0.0),
        ("modify", '{"n":9}', '{"n":5}', None, 1.0),
        ("modify", '{"n":9}', '{"n":9}', None, 0.0),
        ("modify", '{"n":9}', '{"n":5}', '{"n":5}', 1.0),
        ("modify", '{"n":9,"to":"x"}', '{"n":5,"to":"x"}', '{"n":4,"to":"x"}', 0.5),
        ("allow", '{"n":1}', '{"n":1}', '{"n":1,"m":2}', 0.5),
        ("allow", "{}", "{}", "{}", 1.0),
        ("block", "{}", None, "{}", "nothing runs, so no argument is right or wrong"),
        ("allow", "{}", "{}", "[]", "`expected_args` is no JSON object: Expected `object`, got `array`"),
    ],
)
def test_arguments_are_right_as_a_label_says_or_as_the_verdict_promises(
    verdict: str, args: str, enforced: str | None, wanted: str | None, expected: float | str
) -> None:
    found = judged(
        ArgumentCorrectness(),
        verdict=verdict,
        kind="call",
        args=args,
        enforced_args=enforced,
        expected_args=wanted,
    )
    assert found == expected


# Metrics that look further than the row.


def test_what_runs_complies_with_the_version_that_let_it_run(desk: Lake) -> None:
    base = desk.replay()
    own = score(base, [PolicyCompliance(shipped("support-desk/baseline"))]).table
    runs = base.rows.filter(
        pl.col("verdict").is_in(["allow", "modify"]), pl.col("kind") != "duplicate"
    ).height
    assert own["status"].value_counts().sort("status").rows() == [
        ("scored", runs),
        ("not_applicable", base.rows.height - runs),
    ]
    assert own["score"].drop_nulls().unique().to_list() == [1.0]


def test_what_a_stricter_version_stops_does_not_comply_with_it(desk: Lake) -> None:
    stricter = load_bundle(shipped("support-desk/candidate"))
    base, cand = desk.replay(), desk.replay(stricter)
    found = score(base, [PolicyCompliance(stricter, name="Next")]).table
    assert set(found["metric"]) == {"next"}
    verdicts = dict(cand.rows.select("decision_id", "verdict").iter_rows())
    scored = found.filter(pl.col("status") == "scored")
    assert {verdicts[each] for each in scored.filter(score=0.0)["decision_id"]} == {"approve", "block"}
    assert {verdicts[each] for each in scored.filter(score=1.0)["decision_id"]} <= {"allow", "modify"}
    reason = scored.filter(score=0.0)["reason"][0]
    assert reason.split(" ")[:3] == [verdicts[scored.filter(score=0.0)["decision_id"][0]], "by", "candidate"]


def test_what_looks_into_the_lake_says_that_it_needs_one(diff: Diff) -> None:
    for metric in (PolicyCompliance(shipped("support-desk/baseline")), EvidenceCompleteness()):
        with pytest.raises(ScoringInvalid, match="needs a replay of a lake"):
            score(diff, [metric])


def test_outside_of_score_what_looks_further_does_not_apply(desk: Lake) -> None:
    case = next(cases_of(gathered(desk.replay(), said(desk.labels), None), "decision").made([0]))
    said_of = measure.outcome_of(EvidenceCompleteness(), case, {})
    assert said_of[0] == "not_applicable"
    assert said_of[3] == "evidence was not looked up"


def test_evidence_that_is_whole_is_complete(desk: Lake) -> None:
    found = score(desk.replay(), [EvidenceCompleteness()]).table
    assert found["score"].unique().to_list() == [1.0]
    assert found["reason"][0] == "row, link, context, entities, policies hold"


def test_evidence_that_was_changed_or_is_gone_is_named(desk: Lake, damaged: Callable[..., Lake]) -> None:
    first = desk.decisions.select("decision_id", "context_hash", "slice_hash").collect().row(0, named=True)
    entity = desk.slices.filter(slice_hash=first["slice_hash"]).collect()["entity_hashes"][0][0]
    ours = pl.col("decision_id") == first["decision_id"]
    for what, change in {
        "row: broken": ("decisions", "reason", f"decision_id = '{first['decision_id']}'"),
        "context: broken": ("contexts", "context", f"context_hash = '{first['context_hash']}'"),
        "entities: broken": ("entities", "entity", f"entity_hash = '{entity}'"),
        "policies: missing": ("policies", "text", "file = 'policies.cedar' or file like '%.cedar'"),
    }.items():
        found = (
            score(damaged(*change).replay(), [EvidenceCompleteness()]).table.filter(ours).row(0, named=True)
        )
        assert what in found["reason"]
        assert found["score"] == pytest.approx(0.8)
        assert found["success"] is False


def test_a_link_that_was_changed_is_named(desk: Lake, damaged: Callable[..., Lake]) -> None:
    first = desk.decisions.select("decision_id").collect().item(5, 0)
    lake = damaged("decisions", "prev_hash", f"decision_id = '{first}'")
    found = score(lake.replay(), [EvidenceCompleteness()]).table.filter(pl.col("score") < 1)
    assert found.select("decision_id", "reason").rows() == [(first, "row: broken; link: broken")]


def test_the_default_metrics_are_ours() -> None:
    assert set(DEFAULTS) <= set(OURS.values())
    assert all(
        measure.named([kind()]).keys() == {name} for name, kind in OURS.items() if name != "policy_compliance"
    )
