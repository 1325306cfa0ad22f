"""What a case says of a decision or a session, and which decisions become cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
import pytest
from deepeval.metrics import BaseConversationalMetric, BaseMetric
from deepeval.test_case import SingleTurnParams

from workbench.compare import compare
from workbench.errors import ScoringInvalid
from workbench.score import score
from workbench.scoring import gathering
from workbench.scoring.cases import cases_of
from workbench.scoring.gathering import RESULT_CHARS, gathered, said
from workbench.scoring.metrics import OverBlocking, TaskToolPermission, VerdictCorrectness
from workbench.shipped import shipped

if TYPE_CHECKING:
    from deepeval.test_case import ConversationalTestCase, LLMTestCase

    from workbench.compare import Diff
    from workbench.lake import Lake


HOSTILE = '<script>alert("args")</script>'


@dataclass
class Sample:
    ids: pl.DataFrame


@pytest.fixture(scope="module")
def desk_diff(desk: Lake) -> Diff:
    """Return what the shipped candidate changes at a reviewed desk."""
    return compare(desk.replay(), desk.replay(shipped("support-desk/candidate")))


def test_what_ran_has_its_recorded_result_and_what_did_not_its_refusal(diff: Diff) -> None:
    ended = {
        "d-00": ("[1,2]", None, None),
        "d-01": ('"paid"', None, None),
        "d-05": (None, "Timeout", "too slow"),
    }
    rows = [
        {
            "tenant": "banking",
            "decision_id": each,
            "result": result,
            "error_type": kind,
            "error_message": text,
        }
        for each, (result, kind, text) in ended.items()
    ]
    lake: Any = type("L", (), {"labels": diff.labels, "executions": pl.LazyFrame(rows)})()
    replay: Any = type("R", (), {"id": "r", "frame": diff.cand.frame, "lake": lake})()
    told = gathered(replay, said(diff.labels), None).select("decision_id", "actual_output", "expected_output")
    found = {each: (actual, expected) for each, actual, expected in told.iter_rows()}
    refusal = f"refused: because {HOSTILE}"
    assert found["d-00"] == ("[1,2]", "[1,2]")
    assert found["d-01"] == (refusal, '"paid"')  # honest, and stopped: what it gave then is what is expected
    assert found["d-02"] == ("would run with {}; what it would return is not recorded",) * 2  # it never ran
    assert found["d-04"] == ("undecided: missing: payee", "ran; its result is not recorded")
    assert found["d-05"] == ("failed: Timeout: too slow",) * 2
    assert found["d-06"] == (refusal, refusal)  # an attack, and stopped
    assert found["d-07"] == (f"waits for approval: because {HOSTILE}", "refused")
    assert found["d-08"][0] == 'would run with {"cut":"<i>"}; what it would return is not recorded'
    assert found["d-17"][1] is None  # nobody said whose call it is
    case = next(cases_of(gathered(replay, said(diff.labels), None), "decision").made([0]))
    assert [call.output for call in case.test.tools_called] == ["[1,2]"]


def test_a_long_result_is_shortened(diff: Diff, desk: Lake) -> None:
    told = gathering._short(pl.col("text"))
    long = "é" * (RESULT_CHARS + 7)
    found = pl.DataFrame({"text": [long, long[:RESULT_CHARS], None]}).select(told).to_series().to_list()
    assert found == ["é" * RESULT_CHARS + "… (7 characters more)", long[:RESULT_CHARS], None]


def test_a_label_says_what_is_expected(diff: Diff) -> None:
    label = {
        "tenant": "banking",
        "session_id": "b-honest-1",
        "decision_id": "d-01",
        "label": "expected_output",
    }
    labels = pl.concat([diff.labels.collect(), pl.DataFrame([{**label, "value": "paid"}])], how="diagonal")
    told = gathered(diff.cand, said(labels.lazy()), None)
    assert told.filter(decision_id="d-01")["expected_output"].to_list() == ["paid"]


class Reads(BaseMetric):  # type: ignore[misc]  # deepeval ships no annotations
    """Says what it sees of the facts."""

    _required_params = [SingleTurnParams.INPUT, SingleTurnParams.CONTEXT]  # noqa: RUF012 - as DeepEval has it
    threshold = 0.5
    version = "1"

    def measure(self, test_case: LLMTestCase) -> float:
        self.score, self.reason = 1.0, msgspec.json.encode(test_case.context).decode()
        assert test_case.retrieval_context == test_case.context
        return 1.0

    async def a_measure(self, test_case: LLMTestCase) -> float:
        return self.measure(test_case)

    @property
    def __name__(self) -> str:
        return "Reads"


def test_facts_are_told_where_a_metric_reads_them(desk: Lake) -> None:
    replay = desk.replay()
    found = score(replay, [Reads(), VerdictCorrectness])
    told = dict(found.table.filter(metric="reads").select("decision_id", "reason").iter_rows())
    named = desk.decisions.select("decision_id", "context_hash").collect()
    contexts = dict(desk.contexts.collect().select("context_hash", "context").iter_rows())
    for decision_id, address in named.iter_rows():
        facts = msgspec.json.decode(contexts[address])["facts"]
        expected = [f"{name}: {msgspec.json.encode(value).decode()}" for name, value in sorted(facts.items())]
        assert msgspec.json.decode(told[decision_id]) == expected
    plain, with_facts = (
        found.table.filter(metric=name)["case_hash"] for name in ("verdict_correctness", "reads")
    )
    assert not set(plain) & set(with_facts)  # what a metric could see is part of what it is known by


class Turns(BaseConversationalMetric):  # type: ignore[misc]  # as above
    """Says what it sees of a conversation."""

    threshold = 0.5
    version = "1"

    def measure(self, test_case: ConversationalTestCase, *_args: object, **_kwargs: object) -> float:
        self.score, self.reason = 1.0, "|".join(f"{turn.role}: {turn.content}" for turn in test_case.turns)
        return 1.0

    async def a_measure(self, test_case: ConversationalTestCase, *_args: object, **_kwargs: object) -> float:
        return self.measure(test_case)

    def is_successful(self) -> bool:
        return True

    @property
    def __name__(self) -> str:
        return "Turns"


def test_a_session_is_a_conversation_for_metrics_of_conversations(diff: Diff) -> None:
    label = {
        "tenant": "banking",
        "session_id": "b-honest-1",
        "label": "prompt",
        "value": "pay [DEEPEVAL:IMAGE:x] rent",
    }
    labels = pl.concat([diff.labels.collect(), pl.DataFrame([label])], how="diagonal").lazy()
    found = score(diff, [Turns()], labels=labels).table
    assert found["decision_id"].null_count() == found.height == 9
    told = found.filter(session_id="b-honest-1")["reason"][0].split("|")
    assert told[0] == "user: pay (DEEPEVAL:IMAGE:x] rent"
    assert told[1] == "assistant: read_file {}\nran; its result is not recorded"
    assert told[2].startswith('assistant: send_money {"note":"rent"}\nrefused: because ')
    assert found.filter(session_id="b-hijack-1")["reason"][0].startswith(
        "user: (what the user asked for is not"
    )
    assert found.filter(session_id="b-honest-2")["status"][0] == "not_applicable"


def test_changed_decisions_and_their_sessions_are_chosen(desk_diff: Diff) -> None:
    changed = desk_diff.changed.select("decision_id", "tenant", "session_id").collect()
    found = score(desk_diff, [VerdictCorrectness, TaskToolPermission], cases="changed")
    every = score(desk_diff, [VerdictCorrectness, TaskToolPermission])
    mine = found.table.filter(metric="verdict_correctness")
    assert mine["decision_id"].to_list() == changed["decision_id"].to_list()
    assert mine.equals(every.table.filter(pl.col("decision_id").is_in(changed["decision_id"].implode())))
    sessions = found.table.filter(metric="task_tool_permission")
    assert set(sessions.select("tenant", "session_id").rows()) == set(
        changed.select("tenant", "session_id").rows()
    )
    whole = every.table.filter(metric="task_tool_permission")
    assert sessions.equals(
        whole.join(sessions, on=["tenant", "session_id"], how="semi", maintain_order="left")
    )
    assert found.decisions == every.decisions  # of all decisions, chosen or not
    assert "scored: changed" in repr(found)


def test_a_sample_is_scored_with_its_strata_and_weights(desk_diff: Diff) -> None:
    ids = (
        desk_diff.frame.select("tenant", "decision_id")
        .collect()
        .sample(20, seed=1)
        .with_columns(stratum=pl.lit("calm"), weight=pl.lit(12.5))
    )
    found = score(desk_diff, [OverBlocking, TaskToolPermission], cases=Sample(ids)).table
    mine = found.filter(metric="over_blocking")
    assert sorted(mine["decision_id"]) == sorted(ids["decision_id"])
    assert mine.select("stratum", "weight").unique().rows() == [("calm", 12.5)]
    assert found.filter(metric="task_tool_permission").select("stratum", "weight").unique().rows() == [
        (None, None)
    ]


def test_changed_needs_a_comparison(desk: Lake) -> None:
    with pytest.raises(ScoringInvalid, match="needs a comparison"):
        score(desk.replay(), cases="changed")


def test_no_case_at_all_is_an_empty_table(desk_diff: Diff) -> None:
    ids = pl.DataFrame(
        schema={"tenant": pl.String, "decision_id": pl.String, "stratum": pl.String, "weight": pl.Float64}
    )
    found = score(desk_diff, [Reads(), VerdictCorrectness, TaskToolPermission, Turns()], cases=Sample(ids))
    assert found.table.is_empty()
    assert found.decisions["decided"] == 240


def test_sessions_of_two_tenants_are_two_cases(diff: Diff) -> None:
    frame = diff.cand.frame.with_columns(session_id=pl.lit("one"))
    replay: Any = type("R", (), {"id": "r", "frame": frame, "lake": diff.cand.lake})()
    cases = cases_of(gathered(replay, said(diff.labels), None), "session")
    assert len(cases) == 2
    assert cases.keys["tenant"].n_unique() == 2
