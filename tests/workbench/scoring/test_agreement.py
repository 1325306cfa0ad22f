"""A judge beside people: against scikit-learn, by hand, and where there is nothing to say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import cohen_kappa_score  # type: ignore[import-untyped]  # ships no annotations

from workbench.errors import ScoringInvalid
from workbench.score import SCHEMA
from workbench.scoring.agreement import agreement, paired

if TYPE_CHECKING:
    from collections.abc import Sequence

LABELS = dict.fromkeys(("tenant", "session_id", "decision_id", "label", "value"), pl.String)


class Rows(NamedTuple):
    """Scores, by hand."""

    frame: pl.LazyFrame


def scores(cases: list[dict[str, Any]]) -> Rows:
    """Return what `wb.score` gives: a case has `id`, `session`, `passed`, and what it differs in."""
    rows = [
        {
            "tenant": "acme", "decision_id": case["id"], "session_id": case["session"], "metric": "tone",
            "status": "scored", "score": float(case["passed"]), "success": bool(case["passed"]),
        } | {name: value for name, value in case.items() if name in SCHEMA}
        for case in cases
    ]  # fmt: skip
    return Rows(pl.DataFrame(rows, schema=SCHEMA).lazy())


def labels(said: Sequence[tuple[str | None, str, str]], label: str = "tone") -> pl.LazyFrame:
    rows = [("acme", session, decision, label, value) for decision, session, value in said]
    return pl.LazyFrame(rows, schema=LABELS, orient="row")


def drawn(n: int, seed: int = 0) -> tuple[list[dict[str, Any]], list[tuple[str | None, str, str]]]:
    rng = np.random.default_rng(seed)
    people = rng.random(n) < 0.7
    judge = np.where(rng.random(n) < 0.15, ~people, people)
    cases = [{"id": f"d-{at}", "session": f"s-{at // 3}", "passed": judge[at]} for at in range(n)]
    return cases, [(f"d-{at}", f"s-{at // 3}", "pass" if people[at] else "fail") for at in range(n)]


def test_as_scikit_learn_says() -> None:
    cases, said = drawn(240)
    found = agreement(scores(cases), "tone", labels(said))
    judge = [case["passed"] for case in cases]
    people = [value == "pass" for *_, value in said]
    assert found.kappa is not None
    assert found.kappa.value == pytest.approx(cohen_kappa_score(judge, people))
    assert found.kappa.lower < found.kappa.value < found.kappa.upper
    assert (found.n, found.sessions) == (240, 80)
    counted = found.both_passed, found.judge_passed, found.people_passed, found.both_failed
    pairs = list(zip(judge, people, strict=True))
    assert counted == tuple(
        pairs.count(each) for each in ((True, True), (True, False), (False, True), (False, False))
    )
    assert found.raw is not None
    assert found.raw.value == pytest.approx((counted[0] + counted[3]) / 240)
    assert found.sensitivity is not None
    assert found.sensitivity.value == pytest.approx(counted[0] / (counted[0] + counted[2]))
    assert found.specificity is not None
    assert found.specificity.value == pytest.approx(counted[3] / (counted[1] + counted[3]))
    assert agreement(scores(cases), "tone", labels(said)) == found  # the same seed


def test_a_sample_counts_as_what_it_stands_for() -> None:
    """Weighted kappa, as scikit-learn has it."""
    cases, said = drawn(200)
    for at, case in enumerate(cases):
        case |= {"stratum": "changed" if at % 4 == 0 else "same a", "weight": 1.0 if at % 4 == 0 else 30.0}
    found = agreement(scores(cases), "tone", labels(said))
    weights = [case["weight"] for case in cases]
    people = [value == "pass" for *_, value in said]
    assert found.kappa is not None
    assert found.kappa.value == pytest.approx(
        cohen_kappa_score([case["passed"] for case in cases], people, sample_weight=weights)
    )


def test_a_judge_that_passes_everything() -> None:
    """Right in nine of ten, and worth nothing."""
    cases = [{"id": f"d-{at}", "session": f"s-{at}", "passed": True} for at in range(100)]
    found = agreement(
        scores(cases),
        "tone",
        labels([(f"d-{at}", f"s-{at}", "no" if at % 10 == 0 else "yes") for at in range(100)]),
    )
    assert found.raw is not None
    assert found.kappa is not None
    assert found.specificity is not None
    assert (found.raw.value, found.kappa.value, found.specificity.value) == (0.9, 0.0, 0.0)
    assert found.specificity.upper == pytest.approx(1 - 0.025 ** (1 / 10))


def test_agreement_in_all_is_not_certainty() -> None:
    """Kappa is 1, and its lower bound that of what 30 sessions can say."""
    said = [(f"d-{at}", f"s-{at}", "yes" if at % 2 else "no") for at in range(30)]
    cases = [{"id": f"d-{at}", "session": f"s-{at}", "passed": bool(at % 2)} for at in range(30)]
    kappa = agreement(scores(cases), "tone", labels(said)).kappa
    assert kappa is not None
    assert kappa.value == 1
    assert 0.7 < kappa.lower < 0.85


def test_sessions_hang_together() -> None:
    """The same cases in fewer sessions say less."""
    cases, said = drawn(240)
    wide = agreement(scores(cases), "tone", labels(said)).raw
    for at, case in enumerate(cases):  # sessions that agree, or disagree, as a whole
        case["session"] = f"s-{at // 10}"
        case["passed"] = (said[at][2] == "pass") == (at // 10 % 5 != 0)
    whole = [
        (decision, case["session"], value) for case, (decision, _, value) in zip(cases, said, strict=True)
    ]
    together = agreement(scores(cases), "tone", labels(whole)).raw
    assert wide is not None
    assert together is not None
    assert together.upper - together.lower > 2 * (wide.upper - wide.lower)


def test_sessions_have_labels_of_their_own() -> None:
    """A metric of sessions is compared with labels of sessions, a metric of decisions with those of decisions."""
    said = labels(
        [(None, f"s-{at}", "yes") for at in range(25)] + [(f"d-{at}", f"s-{at}", "no") for at in range(25)]
    )
    of_decisions = scores([{"id": f"d-{at}", "session": f"s-{at}", "passed": False} for at in range(25)])
    of_sessions = scores([{"id": None, "session": f"s-{at}", "passed": at > 0} for at in range(25)])
    assert agreement(of_decisions, "tone", said).both_failed == 25
    found = agreement(of_sessions, "tone", said)
    assert (found.both_passed, found.people_passed) == (24, 1)


def test_who_says_what() -> None:
    """Values as declared, whatever their case; another tenant's label is not ours; the last one holds."""
    cases = [{"id": f"d-{at}", "session": "s", "passed": True} for at in range(4)]
    said = labels(
        [("d-0", "s", "Attack"), ("d-1", "s", "user"), ("d-2", "s", "maybe"), ("d-1", "s", "ATTACK")],
        "origin",
    )
    theirs = said.with_columns(tenant=pl.lit("globex"), value=pl.lit("user"))
    pairs = paired(
        scores(cases), "tone", pl.concat([said, theirs]), label="origin", yes=["user"], no=["attack"]
    )
    assert pairs.rows["person"].to_list() == [0, 0, None, None]
    assert pairs.notes == ("1 label `origin` say neither pass nor fail, as `maybe`",)


def test_sides_without_labels_are_left_out() -> None:
    """People labelled changed decisions alone: what is said is of those alone, and says so."""
    cases: list[dict[str, Any]] = [
        {"id": f"d-{at}", "session": f"s-{at}", "passed": True, "stratum": "changed", "weight": 1.0}
        for at in range(10)
    ]
    cases += [
        {"id": f"e-{at}", "session": f"s-{at}", "passed": False, "stratum": "same x", "weight": 9.0}
        for at in range(10)
    ]
    pairs = paired(scores(cases), "tone", labels([(f"d-{at}", f"s-{at}", "yes") for at in range(5)]))
    assert pairs.rows["decision_id"].str.starts_with("d").all()
    assert pairs.spoken_for == pytest.approx(0.1)
    assert pairs.notes == ("of 10.0% of what was judged alone: nobody labelled any of the rest",)
    none = paired(scores(cases), "tone", labels([]))
    assert (none.rows.height, none.spoken_for, none.notes) == (20, 1.0, ())


def test_strata_count_as_much_among_the_labelled() -> None:
    """Where people labelled one stratum more than another, weights put it right; a stratum with one label joins."""
    cases = [
        {
            "id": f"d-{at}",
            "session": f"s-{at}",
            "passed": True,
            "stratum": f"same {'abc'[at % 3]}",
            "weight": 2.0,
        }
        for at in range(30)
    ]
    some = [at for at in range(30) if at % 3 == 0 or at < 14]
    rows = paired(scores(cases), "tone", labels([(f"d-{at}", f"s-{at}", "yes") for at in some])).rows
    by = rows.with_columns(cell=pl.int_range(pl.len()) % 3).group_by("cell").agg(pl.col("label_weight").sum())
    assert by["label_weight"].to_list() == pytest.approx([20.0] * 3)
    few = [at for at in range(30) if at % 3 == 0] + [1, 2, 5]
    rows = paired(scores(cases), "tone", labels([(f"d-{at}", f"s-{at}", "yes") for at in few])).rows
    assert rows["label_weight"].sum() == pytest.approx(60)
    assert rows.filter(pl.col("label_weight") > 0)["label_weight"].n_unique() == 1


def test_where_there_is_nothing_to_say() -> None:
    cases = scores([{"id": "d-0", "session": "s", "passed": True}])
    none = agreement(cases, "tone", labels([]))
    assert (none.n, none.raw, none.kappa, none.notes) == (
        0,
        None,
        None,
        ("no case has both a score and a label",),
    )
    one = agreement(cases, "tone", labels([("d-0", "s", "yes")]))
    assert one.notes == ("no kappa: both say the same of every case",)
    assert one.as_dict()["raw"] == 1
    two = scores([{"id": f"d-{at}", "session": f"s-{at}", "passed": at == 0} for at in range(2)])
    few = agreement(two, "tone", labels([("d-0", "s-0", "yes"), ("d-1", "s-1", "no")]))
    assert few.notes == ("no kappa: 2 sessions with labels, and its interval needs 20",)
    soft = scores([{"id": "d-0", "session": "s", "passed": True, "success": None}])
    assert (
        agreement(soft, "tone", labels([("d-0", "s", "yes")]))
        .notes[0]
        .startswith("the metric has no threshold")
    )
    with pytest.raises(ScoringInvalid, match="nothing was measured by `tne`; did you mean `tone`"):
        agreement(cases, "tne", labels([]))
