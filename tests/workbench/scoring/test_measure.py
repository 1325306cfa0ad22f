"""Metrics that wait: several at once, tried again, in turn, given up; and never twice for equal cases."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from deepeval.models import DeepEvalBaseLLM

from workbench.errors import JudgeFailed, ScoringInvalid
from workbench.score import score
from workbench.scoring import measure, versions, waiting
from workbench.scoring.metrics import DecisionMetric, VerdictCorrectness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from deepeval.test_case import LLMTestCase

    from workbench.compare import Diff
    from workbench.score import Scores


class Model(DeepEvalBaseLLM):  # type: ignore[misc]  # deepeval ships no annotations
    """A model in this process, that does what it is told."""

    version = "m1"

    def __init__(self, answer: Callable[[str], str] = lambda _: "yes") -> None:
        self.answer = answer
        self.asked: list[tuple[float, str]] = []
        super().__init__("model")

    def load_model(self) -> Model:
        return self

    def generate(self, prompt: str) -> str:
        self.asked.append((time.monotonic(), prompt))
        return self.answer(prompt)

    async def a_generate(self, prompt: str) -> str:
        return self.generate(prompt)

    def get_model_name(self) -> str:
        return "model"


class Asks(DecisionMetric):
    """Asks its model about a case's input, so many times."""

    title = "Asks"
    version = "1"

    def __init__(self, model: Model, times: int = 1) -> None:
        super().__init__()
        self.model, self.times = model, times

    def measure(self, test_case: LLMTestCase, *_args: object, **_kwargs: object) -> float:
        answers = [self.model.generate(test_case.input) for _ in range(self.times)]
        self.score, self.reason = float(answers[-1] == "yes"), answers[-1]
        return self.score


@pytest.fixture
def calls(compared: Callable[[Iterable[Mapping[str, Any]]], Diff]) -> Callable[..., Diff]:
    """Return what makes a comparison of calls with these arguments."""

    def make(*args: str) -> Diff:
        like = {
            "session": "s",
            "tool": "t",
            "recorded": "allow",
            "then": "ran",
            "to": "allow",
            "effect": "same",
        }
        return compared([{**like, "args": each} for each in args])

    return make


def distinct(number: int) -> list[str]:
    return [f'{{"n":{each}}}' for each in range(number)]


def states(scores: Scores) -> dict[str, int]:
    return dict(scores.table["status"].value_counts().iter_rows())


def test_cases_are_measured_at_once_as_many_as_asked(calls: Callable[..., Diff]) -> None:
    together = threading.Barrier(4)

    def answer(_: str) -> str:
        together.wait(timeout=20)  # breaks unless four are asked at once
        return "yes"

    model = Model(answer)
    scores = score(calls(*distinct(8)), [Asks(model)], concurrency=4, retries=0)
    assert states(scores) == {"scored": 8}
    assert scores.table["decision_id"].to_list() == [f"d-0{each}" for each in range(8)]  # in the log's order


def test_never_more_at_once_than_asked(calls: Callable[..., Diff]) -> None:
    now, most, lock = [0], [0], threading.Lock()

    def answer(_: str) -> str:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        threading.Event().wait(0.005)
        with lock:
            now[0] -= 1
        return "yes"

    score(calls(*distinct(20)), [Asks(Model(answer))], concurrency=3)
    assert most[0] <= 3


def test_equal_cases_are_judged_once(calls: Callable[..., Diff]) -> None:
    model, diff = Model(), calls(*['{"to":"x"}'] * 5, '{"to":"y"}')
    frame = diff.cand.frame.with_columns(resource=pl.lit("of all"))
    scores = score(replace(diff.cand, frame=frame), [Asks(model)])  # type: ignore[type-var]  # a dataclass of conftest's
    assert len(model.asked) == 2
    assert states(scores) == {"scored": 6}
    assert (scores.judged, scores.reused) == (2, 4)
    assert "4 rows known before" in repr(scores)


def test_what_may_pass_is_tried_again_and_what_may_not_is_not(calls: Callable[..., Diff]) -> None:
    failures: dict[str, list[Exception]] = {
        't {"n":0}': [OSError("reset"), OSError("reset")],
        't {"n":1}': [JudgeFailed("nonsense")] * 3,
    }

    def answer(prompt: str) -> str:
        if failures.get(prompt):
            raise failures[prompt].pop()
        return "yes"

    model = Model(answer)
    scores = score(calls(*distinct(3)), [Asks(model)], retries=2)
    assert scores.table["status"].to_list() == ["scored", "errored", "scored"]
    assert scores.table["error"][1] == "JudgeFailed: nonsense"
    asked = [prompt for _, prompt in model.asked]
    assert [asked.count(f't {{"n":{each}}}') for each in range(3)] == [3, 1, 1]


def test_a_case_that_always_fails_is_a_row_and_others_go_on(calls: Callable[..., Diff]) -> None:
    def answer(prompt: str) -> str:
        if "0" in prompt:
            raise OSError("down")
        return "yes"

    model = Model(answer)
    scores = score(calls(*distinct(3)), [Asks(model), VerdictCorrectness], retries=1)
    assert scores.summary()["asks.errored"] == 1
    assert scores.summary()["asks.mean"] == 1.0
    assert scores.summary()["verdict_correctness.mean"] == 1.0
    assert sum("0" in prompt for _, prompt in model.asked) == 2


def test_a_pause_is_as_long_as_the_judge_asks_for() -> None:
    exc = OSError("busy")
    state: Any = type("State", (), {"attempt_number": 3, "outcome": None})()
    state.outcome = type("Outcome", (), {"exception": lambda _: exc})()
    patience = waiting.Patience(pause=0.5)
    assert waiting._pause(state, patience) == 2.0  # 0.5, 1, 2 …
    exc.retry_after = 7  # type: ignore[attr-defined]
    assert waiting._pause(state, patience) == 7.0
    exc.retry_after = 3_600  # type: ignore[attr-defined]
    assert waiting._pause(state, patience) == waiting.MAX_PAUSE_S


def test_a_judge_that_hangs_costs_one_case_and_no_place(calls: Callable[..., Diff]) -> None:
    release = threading.Event()

    def answer(prompt: str) -> str:
        if '"n":0' in prompt:
            release.wait(60)
        return "yes"

    begun = time.monotonic()
    try:
        scores = score(calls(*distinct(6)), [Asks(Model(answer))], concurrency=1, timeout=0.5)
    finally:
        release.set()
    assert scores.table["status"].to_list() == ["errored", *["scored"] * 5]
    assert scores.table["error"][0] == "JudgeFailed: no answer within 0.5 seconds"
    assert time.monotonic() - begun < 30


def test_calls_come_in_turn_and_waiting_for_one_is_no_timeout(calls: Callable[..., Diff]) -> None:
    model = Model()
    scores = score(calls(*distinct(4)), [Asks(model, times=2)], rate=600, timeout=0.35, concurrency=8)
    assert states(scores) == {"scored": 4}  # eight turns take 0.7 s, more than an attempt may
    times = sorted(at for at, _ in model.asked)
    assert len(times) == 8
    assert times[-1] - times[0] >= 0.65  # 600 a minute: one each tenth of a second


def test_an_interrupt_in_a_thread_ends_the_run(calls: Callable[..., Diff]) -> None:
    def answer(_: str) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(calls(*distinct(3)), [Asks(Model(answer))])


async def test_inside_a_running_loop(calls: Callable[..., Diff]) -> None:
    scores = score(calls(*distinct(5)), [Asks(Model())])
    assert states(scores) == {"scored": 5}
    await asyncio.sleep(0)


def test_a_copy_is_measured_and_what_a_model_counts_stays_with_it(calls: Callable[..., Diff]) -> None:
    model = Model()
    metric = Asks(model)
    score(calls(*distinct(3)), [metric], rate=60_000)
    assert metric.model is model
    assert len(model.asked) == 3
    assert (metric.score, metric.reason) == (None, None)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"concurrency": 0}, "concurrency must be at least 1, got 0"),
        ({"retries": -1}, "retries must be 0 or more, got -1"),
        ({"rate": 0}, "rate must be above 0 calls a minute, or None, got 0"),
        (
            {"timeout": 0, "retries": -1},
            "retries must be 0 or more, got -1; timeout must be above 0 seconds, got 0",
        ),
        ({"cases": "some"}, "cases must be `all`, `changed` or a sample, got 'some'"),
        ({"keep": True}, "keep=True needs a replay of a lake"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_judged(
    calls: Callable[..., Diff], given: dict[str, Any], why: str
) -> None:
    model = Model()
    with pytest.raises(ScoringInvalid, match=why):
        score(calls("{}"), [Asks(model)], **given)
    assert not model.asked


# What a score is known by.


def test_whatever_may_change_a_score_is_in_its_version() -> None:
    model = Model()
    one = versions.version_of(Asks(model))
    assert one == versions.version_of(Asks(Model()))
    assert one.split(" ")[1] == "1"
    assert one.endswith("judge:m1")
    assert versions.version_of(Asks(model, times=2)) != one
    other = Model()
    other.version = "m2"
    assert versions.version_of(Asks(other)) != one


def test_a_threshold_is_no_part_of_a_version() -> None:
    assert (
        versions.version_of(VerdictCorrectness(1.0))
        == versions.version_of(VerdictCorrectness())
        == "workbench 1"
    )
    assert measure.again(VerdictCorrectness(1.0), 0.5) is False
    assert measure.again(VerdictCorrectness(), 0.5) is True


def test_a_version_knows_a_g_evals_criteria() -> None:
    from deepeval.metrics import GEval
    from deepeval.test_case import SingleTurnParams

    params = [SingleTurnParams.INPUT, SingleTurnParams.ACTUAL_OUTPUT]
    made = [
        GEval(name="Right", criteria=text, evaluation_params=params, model=Model(), async_mode=False)
        for text in ("is it right", "is it right", "is it wrong")
    ]
    one, same, other = (versions.version_of(metric) for metric in made)
    assert one == same != other
    assert measure.reads_facts(made[0]) is False
    facts = GEval(
        name="F", criteria="x", evaluation_params=[*params, SingleTurnParams.CONTEXT], model=Model()
    )
    assert measure.reads_facts(facts) is True


@pytest.mark.parametrize("given", [-0.1, 1.7, float("inf"), float("nan"), "1"])
def test_what_is_no_score_is_an_error(calls: Callable[..., Diff], given: Any) -> None:
    class Odd(Asks):
        def measure(self, test_case: LLMTestCase, *_args: object, **_kwargs: object) -> float:
            self.score = given
            return 0.0

    found = score(calls("{}"), [Odd(Model())]).table
    assert found["error"].to_list() == [f"ValueError: score must be a number from 0 to 1, got {given!r}"]
    assert found["score"].dtype == pl.Float64
