"""The rate that people would find, from what a judge said of many cases and people of some.

One rule: it says how it was made. Without labels it is the judge's own rate, which nothing corrects; with labels in
under 20 sessions, what people said alone; else it is prediction-powered (`workbench.statistics.prediction_powered`).

Labels are taken as drawn at random from what was judged, stratum by stratum of a sample. People who label only what
the judge failed break that: where they labelled much more of one than of the other, a note says it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from workbench.scoring.agreement import NO, SESSION, YES, paired
from workbench.statistics.clusters import FEW
from workbench.statistics.prediction_powered import METHODS, Method, powered
from workbench.texts import count, share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.scoring.agreement import Paired, Scored
    from workbench.statistics.prediction_powered import Powered

__all__ = ["Debiased", "debiased"]

UNEVEN = 2.0
"""Times as often labelled: from there on, a note says that labels are not spread evenly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Debiased:
    """A metric's pass rate as people would find it. Made by `debiased`; numbers are NaN where there is none."""

    metric: str
    label: str
    rate: float
    """Share of cases that pass; of a metric without a threshold, the mean score."""
    lower: float
    upper: float
    """Two-sided, at `level`, for future traffic of the same kind."""
    level: float
    method: Method
    judge_rate: float
    """The judge's own, not corrected."""
    judge_lower: float
    judge_upper: float
    labels_rate: float
    """Of the labels alone; NaN: there are none."""
    labels_lower: float
    labels_upper: float
    gain: float
    """How many labels one label is worth beside the judge; 1: the judge adds nothing."""
    judged: int
    """Cases that the judge scored."""
    labels: int
    """Of them, those that people labelled."""
    sessions: int
    """Sessions with labels."""
    spoken_for: float
    """Share of what was judged that the rate is of."""
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The result in a sentence."""
        if math.isnan(self.rate):
            return f"{self.metric}: nothing was scored"
        span = f"{self.rate:.1%} [{self.lower:.1%}, {self.upper:.1%}]"
        return f"{self.metric}: {span}, {METHODS[self.method]}"

    def as_dict(self) -> dict[str, float]:
        """Return its finite numbers by name."""
        names = (
            "rate", "lower", "upper", "judge_rate", "judge_lower", "judge_upper", "labels_rate", "labels_lower",
            "labels_upper", "gain", "judged", "labels", "sessions", "spoken_for",
        )  # fmt: skip
        return {name: value for name in names if math.isfinite(value := getattr(self, name))}


def debiased(
    scores: Scored,
    metric: str,
    labels: pl.LazyFrame,
    *,
    label: str | None = None,
    yes: Sequence[str] = YES,
    no: Sequence[str] = NO,
    level: float = 0.95,
) -> Debiased:
    """Estimate a metric's pass rate as people would find it.

    Args:
        scores: of `wb.score`; of a sample, each case counts for as many decisions as it stands for.
        metric: one of its metrics.
        labels: those in force (`lake.labels`).
        label: the label in which people say whether a case passes; None: the metric's name.
        yes: values that mean *pass*.
        no: values that mean *fail*.
        level: of intervals.

    Raises:
        ScoringInvalid: nothing was measured by that metric; names the closest.

    Cost: O(cases).
    """
    pairs = paired(scores, metric, labels, label=label, yes=yes, no=no)
    rows = pairs.rows
    sessions = rows.select(pl.struct(SESSION).rank("dense"))
    found = powered(
        sessions.to_series().to_numpy(),
        rows["judge"].to_numpy(),
        rows["person"].fill_null(math.nan).to_numpy(),
        weight=rows["weight"].to_numpy(),
        label_weight=rows["label_weight"].to_numpy(),
        level=level,
    )
    return _told(found, pairs, metric, label or metric, level)


def _told(found: Powered, pairs: Paired, metric: str, label: str, level: float) -> Debiased:
    rows = pairs.rows
    judge = found.judged or found
    people = found if found.method == "labels alone" else found.labelled
    has = rows.filter(pl.col("person").is_not_null())
    said = (math.nan,) * 3 if people is None else (people.value, people.interval.lower, people.interval.upper)
    return Debiased(
        metric=metric, label=label, level=level, method=found.method, gain=found.gain,
        rate=found.value, lower=found.interval.lower, upper=found.interval.upper,
        judge_rate=judge.value, judge_lower=judge.interval.lower, judge_upper=judge.interval.upper,
        labels_rate=said[0], labels_lower=said[1], labels_upper=said[2],
        judged=rows.height, labels=has.height, sessions=has.select(SESSION).n_unique() if has.height else 0,
        spoken_for=pairs.spoken_for, notes=(*pairs.notes, *_few(found), *_uneven(rows)),
    )  # fmt: skip


def _few(found: Powered) -> tuple[str, ...]:
    """Say what is missing for the judge's word to help."""
    if found.method == "judge alone":
        return ("nobody labelled any of it: the rate is the judge's own, and nothing says how far it is off",)
    if found.method == "labels alone" and found.clusters < FEW:
        return (f"labels in {count(found.clusters, 'session')}: from {FEW} on, the judge's word can help",)
    return ()


def _uneven(rows: pl.DataFrame) -> tuple[str, ...]:
    """Say where people labelled much more of what the judge passed than of what it failed, or less."""
    passed = rows.filter(pl.col("judge") >= 0.5)  # noqa: PLR2004 - pass, or rather pass than fail
    failed = rows.filter(pl.col("judge") < 0.5)  # noqa: PLR2004
    said = [part.height - part["person"].null_count() for part in (passed, failed)]
    shares = [n / part.height if part.height else 0.0 for n, part in zip(said, (passed, failed), strict=True)]
    if not sum(said) or not all(part.height for part in (passed, failed)):
        return ()
    if max(shares) <= UNEVEN * min(shares):
        return ()
    of = [share(n, part.height) for n, part in zip(said, (passed, failed), strict=True)]
    told = f"people labelled {of[0]} of what the judge passed and {of[1]} of what it failed"
    return (f"{told}: the rate takes labels as drawn at random",)
