"""The rate that people would find: from scores and labels as they are in a lake."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.workbench.scoring.test_agreement import labels, scores
from workbench.errors import ScoringInvalid
from workbench.scoring.debiasing import debiased
from workbench.statistics.prediction_powered import powered


def reviewed(n: int, wrong: float, labelled: float, seed: int = 0) -> tuple[Any, pl.LazyFrame, np.ndarray]:
    """Return scores, labels of some sessions, and what people would say of all."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.8
    judge = np.where(rng.random(n) < np.where(truth, 0.02, wrong), ~truth, truth)
    session = np.arange(n) // 4
    chosen = (rng.random(session.max() + 1) < labelled)[session]
    cases = [{"id": f"d-{at}", "session": f"s-{session[at]}", "passed": judge[at]} for at in range(n)]
    said = [(f"d-{at}", f"s-{session[at]}", "ok" if truth[at] else "wrong") for at in range(n) if chosen[at]]
    return scores(cases), labels(said, "review"), truth


def test_a_lenient_judge_is_put_right() -> None:
    """It passes half of what people fail; 400 labels on 8,000 cases show how much that is."""
    found_scores, said, truth = reviewed(8000, 0.5, 0.1)
    found = debiased(found_scores, "tone", said, label="review")
    assert found.method == "ppi++"
    assert found.judge_lower > truth.mean() + 0.04
    assert found.lower < truth.mean() < found.upper
    assert found.upper - found.lower < found.labels_upper - found.labels_lower
    assert found.gain > 1.3
    assert (found.judged, found.spoken_for, found.notes) == (8000, 1.0, ())
    assert (
        found.text
        == f"tone: {found.rate:.1%} [{found.lower:.1%}, {found.upper:.1%}], prediction-powered (PPI++), variance over clusters, t"
    )


def test_it_is_the_statistic_of_these_cases() -> None:
    """Session by session, with NaN where nobody spoke: the same numbers as the statistic by itself."""
    found_scores, said, _ = reviewed(400, 0.3, 0.4)
    rows = found_scores.frame.collect()
    value = dict(said.select("decision_id", "value").collect().iter_rows())
    person = [{"ok": 1.0, "wrong": 0.0}.get(value.get(name, ""), math.nan) for name in rows["decision_id"]]
    alone = powered(rows["session_id"].to_list(), rows["score"].to_list(), person)
    found = debiased(found_scores, "tone", said, label="review")
    assert (found.rate, found.lower, found.upper) == pytest.approx((alone.value, *alone.interval))
    assert found.gain == pytest.approx(alone.gain)


def test_without_labels_it_is_the_judges_own() -> None:
    found_scores, _, _ = reviewed(100, 0.5, 0.0)
    found = debiased(found_scores, "tone", labels([]))
    assert (found.method, found.rate, found.labels, found.gain) == ("judge alone", found.judge_rate, 0, 1.0)
    assert found.notes == (
        "nobody labelled any of it: the rate is the judge's own, and nothing says how far it is off",
    )
    assert "labels_rate" not in found.as_dict()
    assert all(map(math.isfinite, found.as_dict().values()))


def test_few_sessions_are_said() -> None:
    found_scores, _, _ = reviewed(100, 0.5, 0.0)
    said = labels([(f"d-{at}", f"s-{at // 4}", "ok") for at in range(40)])
    found = debiased(found_scores, "tone", said)
    assert (found.method, found.sessions, found.labels) == ("labels alone", 10, 40)
    assert found.notes == ("labels in 10 sessions: from 20 on, the judge's word can help",)


def test_labels_on_failures_alone_are_said() -> None:
    """What people looked at was not drawn at random: nothing corrects that, and it is not hidden."""
    found_scores, _, truth = reviewed(2000, 0.5, 0.0)
    failed = found_scores.frame.filter(pl.col("success").not_()).collect()["decision_id"].to_list()
    said = [(name, f"s-{int(name[2:]) // 4}", "ok" if truth[int(name[2:])] else "wrong") for name in failed]
    found = debiased(found_scores, "tone", labels([*said, ("d-0", "s-0", "ok")]))
    assert any("of what it failed: the rate takes labels as drawn at random" in note for note in found.notes)


def test_equal_tenants_apart() -> None:
    """Sessions of one name in two tenants are two sessions."""
    cases = [{"id": f"d-{at}", "session": "s", "passed": True, "tenant": f"t-{at}"} for at in range(30)]
    said = labels([(f"d-{at}", "s", "yes") for at in range(25)]).with_columns(
        tenant=pl.col("decision_id").str.replace("d", "t")
    )
    found = debiased(scores(cases), "tone", said)
    assert (found.sessions, found.labels) == (25, 25)


def test_errors_and_blanks_are_no_cases() -> None:
    cases: list[dict[str, Any]] = [{"id": f"d-{at}", "session": f"s-{at}", "passed": True} for at in range(5)]
    cases[0] |= {"status": "errored", "score": None, "success": None}
    cases[1] |= {"status": "not_applicable", "score": None, "success": None}
    assert debiased(scores(cases), "tone", labels([])).judged == 3
    nothing = debiased(scores(cases[:2]), "tone", labels([]))
    assert (nothing.method, nothing.judged, nothing.text) == ("none", 0, "tone: nothing was scored")
    assert nothing.as_dict().keys() == {"gain", "judged", "labels", "sessions", "spoken_for"}


def test_a_score_without_a_threshold_is_a_mean() -> None:
    cases = [
        {"id": f"d-{at}", "session": f"s-{at}", "passed": True, "score": 0.25, "success": None}
        for at in range(40)
    ]
    assert debiased(scores(cases), "tone", labels([])).rate == 0.25


def test_an_unknown_metric() -> None:
    with pytest.raises(ScoringInvalid, match="nothing was measured by `ton`; did you mean `tone`"):
        debiased(scores([{"id": "d", "session": "s", "passed": True}]), "ton", labels([]))
