"""Metrics by name: every one of DeepEval's is known or left out with a reason, and what is wrong is said."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

import deepeval.metrics as library
import pytest
from deepeval.metrics import BaseArenaMetric, BaseConversationalMetric, BaseMetric
from deepeval.test_case import ConversationalTestCase, LLMTestCase, ToolCall, Turn

from tests.workbench.scoring.scripted_judge import scripted_judge
from workbench.errors import ScoringInvalid
from workbench.scoring import builtin
from workbench.scoring.builtin import BUILT_IN, LEFT_OUT, OURS, metric_named, needs_judge, parameters_of
from workbench.scoring.judges import NoJudge, judge
from workbench.shipped import shipped

if TYPE_CHECKING:
    from pathlib import Path

PARAMS: dict[str, dict[str, Any]] = {
    "pattern_match": {"pattern": ".*"},
    "g_eval": {"name": "tone", "criteria": "polite"},
    "non_advice": {"advice_types": ["legal"]},
    "misuse": {"domain": "refunds"},
    "role_violation": {"role": "a support agent"},
    "tool_permission": {"allowed_tools": ["refund"]},
    "prompt_alignment": {"prompt_instructions": ["be brief"]},
    "json_correctness": {"expected_schema": {"id": "string", "cents": "integer"}},
    "conversational_g_eval": {"name": "talk", "criteria": "polite"},
    "topic_adherence": {"relevant_topics": ["refunds"]},
    "tool_use": {"available_tools": ["refund", {"name": "ping", "description": "nothing"}]},
}
"""What a metric cannot be made without."""
HTTP = {"url": "http://127.0.0.1:9/v1", "model": "m"}


def test_every_metric_of_the_library_is_known_or_left_out() -> None:
    bases = (BaseMetric, BaseConversationalMetric, BaseArenaMetric)
    there = {
        name
        for name in library.__all__
        if inspect.isclass(each := getattr(library, name)) and issubclass(each, bases) and each not in bases
    }
    known = {each.__name__ for each in BUILT_IN.values()}
    assert known | set(LEFT_OUT) == there
    assert not known & set(LEFT_OUT)


def test_ours_are_known() -> None:
    assert {"verdict_correctness", "harm_prevented", "over_blocking", "task_tool_permission"} <= set(OURS)
    for name in ("verdict_correctness", "harm_prevented", "over_blocking", "task_tool_permission"):
        assert not needs_judge(name, {})
        assert metric_named(name, {"threshold": 0.25}).threshold == 0.25


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_one_can_be_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the environment would have another model judge."""
    monkeypatch.setenv("DEEPEVAL_EVAL_MODE", "system_one")
    plain, asks = f"deepeval.{name}", needs_judge(f"deepeval.{name}", PARAMS.get(name, {}))
    with judging() as llm:
        metric = metric_named(plain, PARAMS.get(name), llm)
        assert getattr(metric, "model", None) in (llm, None)
        assert metric.level == ("session" if isinstance(metric, BaseConversationalMetric) else metric.level)
        assert metric.waits == asks
        again, other = (
            metric_named(plain, {**PARAMS.get(name, {}), "threshold": at}, llm) for at in (0.5, 0.75)
        )
        assert len({metric.version, again.version, other.version}) == 3
    if asks:
        with pytest.raises(ScoringInvalid, match="asks a judge, and none is given"):
            metric_named(plain, PARAMS.get(name))
    else:
        assert metric_named(plain, PARAMS.get(name)).version == metric.version


class judging:  # noqa: N801 - reads as a word
    """A judge that nobody asks."""

    def __enter__(self) -> Any:
        self.llm = judge(**HTTP)  # type: ignore[arg-type]
        return self.llm

    def __exit__(self, *_: object) -> None:
        self.llm.close()


CALL = ToolCall(name="refund", input_parameters={"cents": 5})
WITHOUT_A_JUDGE = {
    "exact_match": (1.0, LLMTestCase(input="a", actual_output="b", expected_output="b")),
    "pattern_match": (1.0, LLMTestCase(input="a", actual_output="b")),
    "tool_permission": (0.0, LLMTestCase(input="a", tools_called=[ToolCall(name="drop")])),
    "tool_correctness": (1.0, LLMTestCase(input="a", tools_called=[CALL], expected_tools=[CALL])),
    "json_correctness": (0.0, LLMTestCase(input="a", actual_output='{"id": 3}')),
}


@pytest.mark.parametrize("name", WITHOUT_A_JUDGE)
def test_without_a_judge(name: str) -> None:
    """None of them asks the model it demands."""
    score, case = WITHOUT_A_JUDGE[name]
    metric = metric_named(name, PARAMS.get(name))
    metric.measure(case, _show_indicator=False)
    assert metric.score == score


def test_policies_to_comply_with(tmp_path: Path) -> None:
    """A bundle is named by its folder; what is none is said before anything is judged."""
    metric = metric_named(
        "policy_compliance", {"bundle": str(shipped("support-desk/candidate")), "name": "next"}
    )
    assert metric.__name__ == "next"
    for bundle, said in ((str(tmp_path), "policy_compliance: "), (3, "give a bundle's folder")):
        with pytest.raises(ScoringInvalid, match=said):
            metric_named("policy_compliance", {"bundle": bundle})


def test_with_a_judge() -> None:
    """Names become the library's values, in what the judge is asked."""
    rubric = [
        {"score_range": [0, 4], "expected_outcome": "rude"},
        {"score_range": [5, 10], "expected_outcome": "kind"},
    ]
    params = {
        "name": "fits", "evaluation_steps": ["look"], "rubric": rubric, "threshold": 0.7,
        "evaluation_params": ["input", "tools_called"],
    }  # fmt: skip
    with scripted_judge({"look": {"score": 9, "reason": "kind"}}) as server, asking(server.url) as llm:
        metric = metric_named("g_eval", params, llm)
        metric.measure(LLMTestCase(input="please", tools_called=[CALL]), _show_indicator=False)
    assert (metric.__name__, metric.score, metric.success, metric.level) == ("fits", 0.9, True, "decision")
    assert "rude" in server.prompts[0]
    assert "refund" in server.prompts[0]


def test_a_conversation_with_a_judge() -> None:
    turns = [Turn(role="user", content="refund please"), Turn(role="assistant", content="done")]
    said = json.dumps({"score": 5, "reason": "so so"})
    with scripted_judge({"": said}) as server, asking(server.url) as llm:
        metric = metric_named("conversational_g_eval", {"name": "talk", "evaluation_steps": ["look"]}, llm)
        metric.measure(ConversationalTestCase(turns=turns), _show_indicator=False)
    assert (metric.score, metric.level) == (0.5, "session")


class asking(judging):  # noqa: N801 - reads as a word
    """A judge at an address."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __enter__(self) -> Any:
        self.llm = judge(url=self.url, model="m", retries=0)
        return self.llm


@pytest.mark.parametrize(
    ("name", "params", "said"),
    [
        ("gevl", {}, "no metric is called `gevl`; did you mean `g_eval`"),
        ("verdict_corectness", {}, "did you mean `verdict_correctness`"),
        ("plan_quality", {}, "reads a trace"),
        ("deepeval.verdict_correctness", {}, "no metric is called"),
        ("g_eval", {"nam": "x"}, "no parameter `nam`; did you mean `name`"),
        ("g_eval", {"name": "x"}, "`criteria` is missing"),
        ("g_eval", {"criteria": "x"}, "`name` is missing"),
        ("g_eval", {"name": " ", "criteria": "x"}, "`name`: is ' '"),
        ("g_eval", {"name": "x", "criteria": 3}, "`criteria` is 3"),
        ("g_eval", {"name": "x", "criteria": "c", "evaluation_params": ["inptu"]}, "did you mean `input`"),
        ("g_eval", {"name": "x", "criteria": "c", "evaluation_params": "input"}, "give a list"),
        ("g_eval", {"name": "x", "criteria": "c", "rubric": [{"score_range": [0, 30]}]}, "`rubric`"),
        ("g_eval", {"name": "x", "criteria": "c", "level": "turn"}, '"decision" or "session"'),
        ("g_eval", {"name": "x", "criteria": "c", "model": "gpt"}, "no parameter `model`"),
        ("bias", {"threshold": 2}, "between 0 and 1"),
        ("bias", {"threshold": True}, "between 0 and 1"),
        ("exact_match", {"threshold": "0.5"}, "between 0 and 1"),
        ("pattern_match", {}, "`pattern` is missing"),
        ("pattern_match", {"pattern": "("}, "pattern"),
        ("tool_correctness", {"should_exact_match": "yes"}, "`should_exact_match` is 'yes'"),
        ("tool_use", {"available_tools": [3]}, "give a name"),
        ("json_correctness", {"expected_schema": {"id": "text"}}, "`id` is 'text'"),
        ("turn_relevancy", {"level": "decision"}, "is of a conversation"),
        ("turn_relevancy", {"window_size": "3"}, "`window_size`"),
        ("misuse", {}, "`domain` is missing"),
    ],
)
def test_what_is_wrong_is_said(name: str, params: dict[str, Any], said: str) -> None:
    with pytest.raises(ScoringInvalid, match=said.replace("(", "\\(")):
        metric_named(name, params, NoJudge())


def test_parameters_are_told() -> None:
    assert "criteria" in parameters_of("g_eval")
    assert not {"model", "eval_mode", "async_mode", "verbose_mode"} & set(parameters_of("g_eval"))
    assert builtin.PREFIX == "deepeval."
