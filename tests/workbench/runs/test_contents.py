"""What a run says in words and numbers: verdicts that can be queried, and names that MLflow takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workbench.runs.comparisons import desk
from workbench.faces import Page
from workbench.runs.contents import MAX_KEY, MAX_PARAM, contents_of, cut, key, rows_of
from workbench.score import score

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Said:
    """What a job's nights together come to."""

    verdict: str

    def as_dict(self) -> Mapping[str, Any]:
        return {"verdict": self.verdict}

    def page(self) -> Page:
        return Page(kind="gates", title=f"Night 3: {self.verdict}", lines=("over all nights \u202e",))


@pytest.mark.parametrize(
    ("verdict", "regression", "number"),
    [
        ("ship", "false", 1.0),
        ("don't ship", "true", -1.0),
        ("inconclusive", "unknown", 0.0),
        ("could not run", "unknown", None),
    ],
)
def test_a_verdict_can_be_queried_and_drawn(verdict: str, regression: str, number: float | None) -> None:
    found = contents_of(desk(), {}, outcome=Said(verdict))
    assert found.tags["redecide.outcome"] == verdict
    assert found.tags["redecide.regression"] == regression
    assert found.metrics.get("outcome") == number
    note = found.tags["mlflow.note.content"]
    assert note.startswith(f"<pre>Night 3: {verdict.replace(chr(39), '&#x27;')}.\nover all nights \\u202e\n")
    assert "decisions change" in note


def test_the_comparisons_own_outcome_is_said_once() -> None:
    note = contents_of(desk(), {}, outcome=desk().outcome).tags["mlflow.note.content"]
    assert note.count("Don&#x27;t ship") == 1


def test_without_an_outcome_nothing_is_claimed() -> None:
    tags = contents_of(desk(), {}).tags
    assert "redecide.outcome" not in tags
    assert tags["redecide.regression"] == "unknown"


def test_what_the_caller_adds_goes_before_ours() -> None:
    found = contents_of(
        desk(), {}, numbers={"gate.x.upper": 0.5, "night": 3, "odd": math.inf}, params={"job": "j", "list": [1, "b"]},
        tags={"redecide.kind": "night", "redecide.night": "3"}, notes="**Night 3**",
    )  # fmt: skip
    assert (found.metrics["gate.x.upper"], found.metrics["night"]) == (0.5, 3)
    assert (found.params["job"], found.params["list"]) == ("j", '[1,"b"]')
    assert (found.tags["redecide.kind"], found.tags["redecide.night"]) == ("night", "3")
    assert found.tags["redecide.metrics_left_out"] == "odd"
    assert found.tags["mlflow.note.content"].startswith("**Night 3**\n\n<pre>")


def test_rows_of_scores_and_of_what_holds_scores() -> None:
    scores = score(desk())

    @dataclass(frozen=True)
    class Declared:
        scores: Any

        def summary(self) -> Mapping[str, float]:
            return {}

    assert rows_of(Declared(scores)).collect().equals(rows_of(scores).collect())


@given(st.text(max_size=400), st.text(max_size=400))
def test_names_fit_and_do_not_meet(one: str, other: str) -> None:
    assert len(key(one)) <= MAX_KEY
    assert (key(one) == key(other)) == (one == other)
    assert key(key(one)) == key(one)


@given(st.text(max_size=20), st.integers(0, 9000))
def test_texts_fit(text: str, times: int) -> None:
    long = text * times
    assert len(cut(long)) <= MAX_PARAM
    assert (cut(long) == long) == (len(long) <= MAX_PARAM)
