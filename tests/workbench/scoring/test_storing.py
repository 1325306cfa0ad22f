"""Scores that are kept: judged once, whoever asks again, also after a kill, and with others writing meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import workbench as wb
from runtime.errors import LedgerError
from runtime.lake import LakeStore
from workbench.score import score
from workbench.scoring import storing
from workbench.scoring.metrics import DecisionMetric, OverBlocking, VerdictCorrectness

if TYPE_CHECKING:
    from deepeval.test_case import LLMTestCase

    from workbench.replay import Replay

ROOT = Path(__file__).resolve().parents[3]


class Model:
    """Counts what it is asked, and knows no answer where it is told so."""

    version = "m1"

    def __init__(self, *unknown: str) -> None:
        self.asked: list[str] = []
        self.unknown = unknown

    def generate(self, prompt: str) -> str:
        self.asked.append(prompt)
        if any(text in prompt for text in self.unknown):
            raise OSError("no answer")
        return "yes"


class Asks(DecisionMetric):
    __module__ = "asks"  # the same in a child, which imports this file by another name
    title = "Asks"
    version = "1"

    def __init__(self, model: Model, threshold: float = 0.5) -> None:
        super().__init__(threshold)
        self.model = model

    def measure(self, test_case: LLMTestCase, *_args: object, **_kwargs: object) -> float:
        self.model.generate(test_case.input)
        self.score, self.reason = 0.75, "said so"
        return self.score


def replay(folder: Path) -> Replay:
    return wb.open(folder).replay()


def rows(folder: Path) -> pl.DataFrame:
    return wb.open(folder).scores.collect()


def test_nothing_is_judged_twice(own_desk: Path) -> None:
    model = Model()
    first = score(replay(own_desk), [Asks(model)], keep=True, actor="alice")
    asked = len(model.asked)
    again = score(replay(own_desk), [Asks(model)], keep=True, actor="bob")
    assert len(model.asked) == asked == first.judged > 0
    assert (again.judged, again.reused) == (0, again.table.height)
    assert again.table.equals(first.table)
    assert again.summary() == first.summary()
    kept = rows(own_desk)
    assert kept.height == asked
    assert kept["actor"].unique().to_list() == ["alice"]
    assert kept["replay_id"].unique().to_list() == [first.replay_id]
    assert set(kept["case_hash"]) == set(first.table["case_hash"])


def test_without_keep_nothing_is_written(own_desk: Path) -> None:
    score(replay(own_desk), [Asks(Model())])
    assert rows(own_desk).is_empty()
    assert not (own_desk / "scores").exists()


def test_another_judge_judges_again_and_another_threshold_does_not(own_desk: Path) -> None:
    first = score(replay(own_desk), [Asks(Model())], keep=True)
    other, stricter = Model(), Model()
    other.version = "m2"
    assert score(replay(own_desk), [Asks(other)], keep=True).reused == first.reused
    assert len(other.asked) == first.judged
    found = score(replay(own_desk), [Asks(stricter, threshold=0.9)], keep=True)
    assert not stricter.asked
    assert set(found.table["success"]) == {False}
    assert set(first.table["success"]) == {True}


def test_what_failed_is_asked_again_and_nothing_else(own_desk: Path) -> None:
    first = score(replay(own_desk), [Asks(Model("issue_refund"))], keep=True, retries=0)
    failed = first.table.filter(status="errored")
    assert 0 < failed.height < first.table.height
    model = Model()
    found = score(replay(own_desk), [Asks(model)], keep=True)
    assert len(model.asked) == failed["case_hash"].n_unique()
    assert all("issue_refund" in prompt for prompt in model.asked)
    assert found.table["status"].unique().to_list() == ["scored"]
    assert rows(own_desk).filter(pl.col("error").is_not_null())["error"].unique().to_list() == [
        "OSError: no answer"
    ]


def test_what_does_not_apply_is_known_as_such(own_desk: Path) -> None:
    chosen = [VerdictCorrectness, OverBlocking]
    first = score(replay(own_desk), chosen, keep=True)
    again = score(replay(own_desk), chosen, keep=True)
    assert again.table.equals(first.table)
    assert again.judged == 0
    assert "not_applicable" in set(again.table["status"])


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_storing import Asks, Model, replay
from workbench.score import score
import os, signal

class Dies(Model):
    def generate(self, prompt):
        if len(self.asked) == 100:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(prompt)

score(replay(Path({folder!r})), [Asks(Dies())], keep=True, concurrency=1)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(own_desk: Path) -> None:
    code = textwrap.dedent(CHILD.format(here=str(Path(__file__).parent), folder=str(own_desk)))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = rows(own_desk)
    assert kept.height == storing.ROWS  # a whole commit of the hundred that were judged
    model = Model()
    found = score(replay(own_desk), [Asks(model)], keep=True)
    every = found.table["case_hash"].n_unique()
    assert len(model.asked) == every - kept.height
    assert rows(own_desk)["case_hash"].is_unique().all()
    assert rows(own_desk).height == every


@pytest.mark.slow
def test_two_who_score_at_once_lose_nothing(own_desk: Path) -> None:
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        sys.path.insert(0, {here!r})
        from test_storing import Asks, Model, replay
        from workbench.score import score
        from workbench.scoring import storing
        storing.ROWS = 48
        model = Model()
        model.version = {version!r}
        sys.stdin.readline()
        print(score(replay(Path({folder!r})), [Asks(model)], keep=True).judged)
    """)
    here = str(Path(__file__).parent)
    texts = [code.format(here=here, version=each, folder=str(own_desk)) for each in ("a", "b")]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", text], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for text in texts
    ]
    for each in children:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    judged = [int(each.communicate()[0]) for each in children]
    kept = rows(own_desk).group_by("metric_version").len()
    assert sorted(kept["len"]) == sorted(judged)
    assert rows(own_desk)["row_id"].is_unique().all()


def test_a_lost_answer_is_resolved_by_reading_back(own_desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = LakeStore.append

    def lost(self: LakeStore, *args: Any, **kwargs: Any) -> int:
        real(self, *args, **kwargs)
        raise LedgerError("the answer was lost")

    monkeypatch.setattr(LakeStore, "append", lost)
    found = score(replay(own_desk), [VerdictCorrectness], keep=True)
    assert rows(own_desk).height == found.table["case_hash"].n_unique()


def test_rows_that_were_judged_are_written_when_the_run_is_interrupted(own_desk: Path) -> None:
    class Interrupted(Model):
        def generate(self, prompt: str) -> str:
            if len(self.asked) == 10:
                raise KeyboardInterrupt
            return super().generate(prompt)

    with pytest.raises(KeyboardInterrupt):
        score(replay(own_desk), [Asks(Interrupted())], keep=True, concurrency=1)
    assert rows(own_desk).height == 10
