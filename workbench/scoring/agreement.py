"""What a judge's word is worth: how often it says what people say.

One rule: only what both judged is compared, and it is counted per session: decisions of one session hang together, so
intervals are over sessions. Where the judged are a sample, each pair counts for as many decisions as it stands for.

*Pass* is a metric's `success`. `sensitivity`: of what people passed, the share that the judge passed; `specificity`:
of what people failed, the share that the judge failed, too: how much of what is wrong it sees. Kappa is agreement
beyond what equal habits would give by chance: a judge that passes everything has kappa 0, however often it is right.

Source: Cohen 1960, Educational and Psychological Measurement 20:37 (kappa); Field & Welsh 2007, JRSS B 69:369 (the
bootstrap of clusters); intervals of shares as in `workbench.statistics.clusters`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl

from workbench.errors import ScoringInvalid
from workbench.scoring.sampling import FEW as LEAST
from workbench.statistics.clusters import FEW, fit, gather
from workbench.statistics.proportions import tail
from workbench.texts import count, shorten, visible
from workbench.weighing.stakes import closest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["NO", "YES", "Agreement", "Bounded", "agreement", "paired"]

YES = ("true", "yes", "pass", "passed", "ok", "good", "correct", "1")
NO = ("false", "no", "fail", "failed", "wrong", "bad", "incorrect", "0")
"""What a label's values mean, unless it is said."""
TIMES = 2000
"""Drawings of the bootstrap."""
ALL = "all"
SESSION = ("tenant", "session_id")


class Scored(Protocol):
    """What is read of `workbench.score.Scores`."""

    @property
    def frame(self) -> pl.LazyFrame:
        """One row a metric and case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounded:
    """A number with its interval."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far a judge and people agree. Made by `agreement`."""

    metric: str
    label: str
    """The label in which people said it."""
    n: int
    """Cases that both judged."""
    sessions: int
    both_passed: int
    judge_passed: int
    """Passed by the judge, failed by people."""
    people_passed: int
    """Passed by people, failed by the judge."""
    both_failed: int
    raw: Bounded | None
    """Share of cases on which they agree; None: there are none."""
    kappa: Bounded | None
    """None: one of them says the same of every case, or there are under 20 sessions."""
    sensitivity: Bounded | None
    specificity: Bounded | None
    """None: people passed, or failed, nothing."""
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, float]:
        """Return its numbers by name; what there is not is left out."""
        found: dict[str, float] = {"n": self.n, "sessions": self.sessions}
        for name in ("both_passed", "judge_passed", "people_passed", "both_failed"):
            found[name] = getattr(self, name)
        for name in ("raw", "kappa", "sensitivity", "specificity"):
            if (each := getattr(self, name)) is not None:
                found |= {name: each.value, f"{name}.lower": each.lower, f"{name}.upper": each.upper}
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """A metric's cases with what people said of them. Made by `paired`."""

    rows: pl.DataFrame
    """One row a scored case: `tenant`, `session_id`, `decision_id`, `judge` (0 to 1), `person` (0, 1, null: nobody
    said), `weight`, `label_weight` (0 where nobody said)."""
    spoken_for: float
    """Share of what was judged that the rows speak for; less than 1 where people labelled nothing of the changed, or
    of the unchanged, decisions of a sample."""
    binary: bool
    """Whether the judge's word is pass or fail."""
    notes: tuple[str, ...]


def paired(
    scores: Scored,
    metric: str,
    labels: pl.LazyFrame,
    *,
    label: str | None = None,
    yes: Sequence[str] = YES,
    no: Sequence[str] = NO,
) -> Paired:
    """Put a metric's cases beside what people said of them.

    Labels are weighted so that each stratum of the sample counts as much among the labelled as among the judged;
    strata of which one has under two labels are taken together with the others of their side (changed, or not). A
    side without any label is left out, and said.

    Args:
        scores: of `wb.score`.
        metric: one of its metrics.
        labels: those in force (`lake.labels`); of decisions for metrics of decisions, of sessions for those of
            sessions.
        label: its name; None: the metric's.
        yes: values that mean *pass*.
        no: values that mean *fail*; any other says nothing, and is told.

    Raises:
        ScoringInvalid: nothing was measured by that metric; names the closest.
    """
    rows = _judged(scores, metric)
    said, notes = _said(labels, label or metric, yes, no)
    of_sessions = bool(rows["decision_id"].is_null().all())
    key = ["tenant", "session_id"] if of_sessions else ["tenant", "decision_id"]
    said = said.filter(pl.col("decision_id").is_null() == of_sessions).select(*key, "person")
    joined = rows.join(said, on=key, how="left", maintain_order="left")
    weighed, spoken = _weighed(joined)
    if spoken < 1:
        notes = (*notes, f"of {spoken:.1%} of what was judged alone: nobody labelled any of the rest")
    return Paired(
        rows=weighed.drop("cell", "side"), spoken_for=spoken, binary=bool(rows["binary"].all()), notes=notes
    )


def agreement(
    scores: Scored,
    metric: str,
    labels: pl.LazyFrame,
    *,
    label: str | None = None,
    yes: Sequence[str] = YES,
    no: Sequence[str] = NO,
    level: float = 0.95,
    seed: int = 0,
) -> Agreement:
    """Compare a judge's word with people's.

    Args:
        scores: as in `paired`, with the next four.
        metric: with a threshold: only then its word is pass or fail.
        labels: those in force.
        label: its name.
        yes: values that mean *pass*.
        no: values that mean *fail*.
        level: of intervals.
        seed: of the bootstrap.

    Raises:
        ScoringInvalid: as `paired`.

    Cost: O(cases), and 2,000 drawings over distinct sessions.
    """
    pairs = paired(scores, metric, labels, label=label, yes=yes, no=no)
    both = pairs.rows.filter(pl.col("person").is_not_null()) if pairs.binary else pairs.rows.clear()
    notes = pairs.notes if pairs.binary else (*pairs.notes, "the metric has no threshold: it passes nothing")
    sums = _sums(both)
    counted = [int(((both["judge"] == j) & (both["person"] == p)).sum()) for j, p in _CELLS]
    kappa, why = _kappa(sums, level, seed)
    return Agreement(
        metric=metric, label=label or metric, n=both.height, sessions=sums.shape[0], both_passed=counted[0],
        judge_passed=counted[1], people_passed=counted[2], both_failed=counted[3],
        raw=_share(sums, (0, 3), (0, 1, 2, 3), level), kappa=kappa, sensitivity=_share(sums, (0,), (0, 2), level),
        specificity=_share(sums, (3,), (1, 3), level), notes=(*notes, *why),
    )  # fmt: skip


_CELLS = ((1, 1), (1, 0), (0, 1), (0, 0))
"""(judge, people) of the columns of `_sums`."""


def _judged(scores: Scored, metric: str) -> pl.DataFrame:
    frame = scores.frame.filter(pl.col("metric") == metric).collect()
    if frame.is_empty():
        known = scores.frame.select(pl.col("metric").unique().sort()).collect()["metric"].to_list()
        raise ScoringInvalid(f"nothing was measured by `{visible(metric)}`; {closest(metric, known)}")
    passed = pl.col("success").cast(pl.Float64)
    return frame.filter(pl.col("status") == "scored").select(
        *SESSION,
        "decision_id",
        judge=pl.coalesce(passed, pl.col("score")),
        binary=pl.col("success").is_not_null(),
        stratum=pl.col("stratum").fill_null(ALL),
        weight=pl.col("weight").fill_null(1.0),
    )


def _said(
    labels: pl.LazyFrame, label: str, yes: Sequence[str], no: Sequence[str]
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """What people said: `tenant`, `session_id`, `decision_id`, `person`; and what says nothing."""
    of = [*SESSION, "decision_id"]
    value = pl.col("value").cast(pl.String).str.to_lowercase()
    means = pl.when(value.is_in(_lower(yes))).then(1.0).when(value.is_in(_lower(no))).then(0.0)
    rows = labels.filter(pl.col("label") == label, pl.col("value").is_not_null()).select(
        *of, "value", person=means
    )
    found = rows.collect().unique(of, keep="last", maintain_order=True)
    silent = found.filter(pl.col("person").is_null())["value"]
    notes: tuple[str, ...] = ()
    if silent.len():
        first = visible(shorten(str(silent[0]), 40))
        notes = (
            f"{count(silent.len(), 'label')} `{visible(label)}` say neither pass nor fail, as `{first}`",
        )
    return found.filter(pl.col("person").is_not_null()), notes


def _lower(values: Sequence[str]) -> list[str]:
    return [str(value).lower() for value in values]


def _weighed(rows: pl.DataFrame) -> tuple[pl.DataFrame, float]:
    """Add `label_weight`; leave out sides without labels, unless none has any. Also the share that is left."""
    has = pl.col("person").is_not_null()
    side = pl.col("stratum").str.split(" ").list.first()
    enough = has.sum().over("stratum").min().over("side") >= LEAST
    cells = rows.with_columns(side=side).with_columns(cell=pl.when(enough).then("stratum").otherwise("side"))
    spoken = cells.filter(has.any().over("side"))
    whole = float(rows["weight"].sum())
    kept = spoken if spoken.height else cells
    drawn = pl.when(has).then("weight").otherwise(0.0)
    stretch = pl.col("weight").sum().over("cell") / drawn.sum().over("cell")
    weighed = kept.with_columns(label_weight=pl.when(has).then(drawn * stretch).otherwise(0.0))
    return weighed, float(kept["weight"].sum()) / whole if whole else 1.0


def _sums(both: pl.DataFrame) -> Floats:
    """Weight by session (rows) and `_CELLS` (columns)."""
    weight = pl.col("label_weight")
    cells = {
        f"c{at}": (weight * ((pl.col("judge") == j) & (pl.col("person") == p))).sum()
        for at, (j, p) in enumerate(_CELLS)
    }
    found = both.group_by(SESSION, maintain_order=True).agg(**cells).select(*cells)
    return found.to_numpy().astype(np.float64).reshape(-1, len(_CELLS))


def _share(sums: Floats, of: Sequence[int], whole: Sequence[int], level: float) -> Bounded | None:
    size = sums[:, list(whole)].sum(axis=1)
    if not size.sum() > 0:
        return None
    found = fit(gather(np.minimum(sums[:, list(of)].sum(axis=1), size), size, cap=size), "share")
    bounds = found.interval(level)
    return Bounded(value=found.value, lower=bounds.lower, upper=bounds.upper)


def _kappa(sums: Floats, level: float, seed: int) -> tuple[Bounded | None, tuple[str, ...]]:
    if not sums.size:
        return None, ("no case has both a score and a label",)
    value = float(_kappas(sums.sum(axis=0)[None, :])[0])
    if np.isnan(value):
        return None, ("no kappa: both say the same of every case",)
    if len(sums) < FEW:
        return None, (f"no kappa: {count(len(sums), 'session')} with labels, and its interval needs {FEW}",)
    raw = _share(sums, (0, 3), (0, 1, 2, 3), level)
    if raw is not None and raw.value == 1:  # nothing to draw from: as far down as the agreement may be
        chance = _chance(sums.sum(axis=0)[None, :])[0]
        return Bounded(value=value, lower=float((raw.lower - chance) / (1 - chance)), upper=1.0), ()
    patterns, many = np.unique(sums, axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(sums), many / many.sum(), size=TIMES)
    kappas = _kappas(drawn @ patterns)
    low, high = np.nanquantile(kappas, (tail(level), 1 - tail(level)))
    return Bounded(value=value, lower=float(low), upper=float(high)), ()


def _chance(sums: Floats) -> Floats:
    """Agreement that equal habits would give, of each row of weights by `_CELLS`."""
    share = sums / sums.sum(axis=1, keepdims=True)
    judge, people = share[:, 0] + share[:, 1], share[:, 0] + share[:, 2]
    found: Floats = judge * people + (1 - judge) * (1 - people)
    return found


def _kappas(sums: Floats) -> Floats:
    chance, raw = _chance(sums), (sums[:, 0] + sums[:, 3]) / sums.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Any = np.where(chance < 1 - 1e-12, (raw - chance) / (1 - chance), np.nan)
    return np.asarray(found, dtype=np.float64)
