"""Every metric over every case, one outcome each, whatever happens.

One rule: a case that goes in comes out, as a score, as an error, or as *not applicable* with the reason.

Three ways, one result. A metric of ours that says what it reads is judged once a reading, over the frame. Any other
is measured case by case, in this thread. One that waits for a model is measured by several threads at once
(`workbench.scoring.waiting`), and cases of equal content once. Not `deepeval.evaluate`: that one writes into the
working directory, prints, and in its default mode damages a running event loop.
"""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from workbench.errors import ScoringInvalid
from workbench.scoring.cases import LEVELS
from workbench.scoring.decision_metric import DecisionMetric
from workbench.scoring.metrics import TaskToolPermission
from workbench.scoring.offline import deepeval
from workbench.scoring.results import SCHEMA

deepeval()  # before the imports below: they would load it with its telemetry on

from deepeval.errors import MissingTestCaseParamsError  # noqa: E402
from deepeval.metrics import BaseConversationalMetric, BaseMetric  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from workbench.scoring.cases import Case, Cases
    from workbench.scoring.gathering import Level
    from workbench.scoring.waiting import Patience

Status = Literal["scored", "not_applicable", "errored"]
"""What a metric had to say of a case."""

Outcome = tuple[Status, float | None, bool | None, str | None, str | None]
"""status, score, success, reason, error."""

OUTCOME = ("status", "score", "success", "reason", "error")
"""Columns of `Scores.frame` that an outcome is."""

_OUTCOMES = {name: SCHEMA[name] for name in OUTCOME}
_FACTS = frozenset({"context", "retrieval_context"})
_SEVERAL = 256
"""Outcomes that are told at a time, of metrics that are measured case by case."""


def named(metrics: Sequence[BaseMetric]) -> dict[str, BaseMetric]:
    """Return the metrics by name, `Verdict Correctness` as `verdict_correctness`.

    Raises:
        ScoringInvalid: there is none, two have one name, or one has a level that does not exist.
    """
    if not metrics:
        raise ScoringInvalid("metrics is empty: give at least one metric, or None for the default ones")
    names = [str(metric.__name__).strip().lower().replace(" ", "_") for metric in metrics]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ScoringInvalid(
            f"two metrics are called {', '.join(doubled)}: score them apart, or give one another __name__"
        )
    for name, metric in zip(names, metrics, strict=True):
        if level_of(metric) not in LEVELS:
            raise ScoringInvalid(
                f"level of {name} must be one of {', '.join(LEVELS)}, got {level_of(metric)!r}"
            )
    return dict(zip(names, metrics, strict=True))


def level_of(metric: BaseMetric) -> Level:
    """Return what a metric is measured once for: what it says, else by its kind; `decision` is the usual."""
    usual: Level = "conversation" if isinstance(metric, BaseConversationalMetric) else "decision"
    level: Level = getattr(metric, "level", usual)
    return level


def reads_facts(metric: BaseMetric) -> bool:
    """Whether a metric looks at the compiled facts of a decision."""
    asked = [*_listed(metric, "_required_params"), *_listed(metric, "evaluation_params")]
    return bool(_FACTS & {str(getattr(each, "value", each)) for each in asked})


def _listed(metric: BaseMetric, name: str) -> Sequence[Any]:
    found = getattr(metric, name, None)
    return found if isinstance(found, list | tuple) else ()


def waits(metric: BaseMetric) -> bool:
    """Whether a metric waits for something else to answer: it says so, or it has a model."""
    said = getattr(metric, "waits", None)
    return getattr(metric, "model", None) is not None if said is None else bool(said)


def outcomes(
    metric: BaseMetric, cases: Cases, numbers: Sequence[int], patience: Patience
) -> Iterator[tuple[list[int], pl.DataFrame]]:
    """Yield the outcomes of some cases, as they come.

    Args:
        metric: copied for each case: what is given keeps no result.
        cases: of the metric's level.
        numbers: which of them, by their place.
        patience: how to wait, for a metric that waits.

    Yields:
        Places of cases, and their outcomes in the same order: columns `OUTCOME`.
    """
    if not numbers:
        return
    if _is_read(metric):
        yield list(numbers), _by_reading(metric, cases.keys[list(numbers)])
        return
    from workbench.scoring import waiting  # noqa: PLC0415 - for metrics that wait

    several = waits(metric)
    found = (
        waiting.measured(metric, cases, numbers, patience) if several else _one_by_one(metric, cases, numbers)
    )
    places: list[int] = []
    rows: list[Outcome] = []
    for number, outcome in found:
        places.append(number)
        rows.append(outcome)
        if several or len(rows) == _SEVERAL:
            yield places, _framed(rows)
            places, rows = [], []
    if rows:
        yield places, _framed(rows)


def _framed(rows: Sequence[Outcome]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=_OUTCOMES, orient="row")


def _one_by_one(metric: BaseMetric, cases: Cases, numbers: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
    quiet = quietly(metric)
    for number, case in zip(numbers, cases.made(numbers), strict=True):
        yield number, outcome_of(metric, case, quiet)


# Metrics that say what they read.


def _is_read(metric: BaseMetric) -> bool:
    """Whether a metric is what it reads: a subclass that measures in its own way is not."""
    if getattr(metric, "reads", None) is None:
        return False
    kind = next((each for each in (DecisionMetric, TaskToolPermission) if isinstance(metric, each)), None)
    own = ("measure", "reading", "is_successful")
    return kind is not None and all(
        getattr(type(metric), name, None) is getattr(kind, name, None) for name in own
    )


def _by_reading(metric: Any, rows: pl.DataFrame) -> pl.DataFrame:
    """Judge each reading once: the outcomes of `rows`, in their order."""
    keys = ["blank", *metric.reads]
    told = rows.select(pl.col(name) if name in rows.columns else pl.lit(None).alias(name) for name in keys)
    readings = told.unique(maintain_order=True)
    judged = _framed([_judged(metric, reading) for reading in readings.iter_rows(named=True)])
    if readings.height == rows.height:
        return judged
    both = pl.concat([readings, judged], how="horizontal")
    return told.join(both, on=keys, how="left", nulls_equal=True, maintain_order="left").select(OUTCOME)


def _judged(metric: Any, reading: Mapping[str, Any]) -> Outcome:
    if reading["blank"] is not None and not _sees_doubt(metric):
        return _blank(reading["blank"])
    own = copy.copy(metric)
    try:
        own.score, own.reason = own.judge({name: reading[name] for name in own.reads})
        return _scored(own)
    except Exception as exc:  # noqa: BLE001 - a guard point: whatever a metric raises becomes a row, and is counted
        return failed(exc)


def _sees_doubt(metric: Any) -> bool:
    return bool(getattr(metric, "sees_doubt", False))


# Any metric, one case.


def quietly(metric: BaseMetric) -> dict[str, bool]:
    """Return the argument that keeps a metric of DeepEval's from drawing, if it takes one."""
    parameters = inspect.signature(metric.measure).parameters.values()
    takes = any(each.name == "_show_indicator" or each.kind is each.VAR_KEYWORD for each in parameters)
    return {"_show_indicator": False} if takes else {}


def outcome_of(metric: BaseMetric, case: Case, quiet: Mapping[str, bool]) -> Outcome:
    """Measure one case: whatever the metric raises becomes its outcome."""
    try:
        return measured(metric, case, quiet)
    except Exception as exc:  # noqa: BLE001 - a guard point: whatever a metric raises becomes a row, and is counted
        return failed(exc)


def measured(metric: BaseMetric, case: Case, quiet: Mapping[str, bool]) -> Outcome:
    """Measure one case with a copy of the metric: DeepEval's metrics keep their last result on themselves.

    Raises:
        Exception: whatever the metric raises.
    """
    if case.blank is not None and not _sees_doubt(metric):
        return _blank(case.blank)
    own = copy.copy(metric)
    own.async_mode = False  # measured here and now, whatever loop is running
    own.measure(case.test, **quiet)
    return _scored(own)


def failed(exc: Exception) -> Outcome:
    """Return the outcome of a case that raised."""
    if isinstance(exc, MissingTestCaseParamsError):
        return "not_applicable", None, None, str(exc), None
    return "errored", None, None, None, f"{type(exc).__name__}: {exc}"


def _blank(why: str) -> Outcome:
    return "not_applicable", None, None, why, None


def _scored(own: BaseMetric) -> Outcome:
    score = _score(own.score)
    passed = None if own.threshold is None else bool(own.is_successful())
    return "scored", score, passed, own.reason and str(own.reason), None


def _score(score: object) -> float:
    if isinstance(score, int | float) and 0 <= score <= 1:
        return float(score)
    raise ValueError(f"score must be a number from 0 to 1, got {score!r}")


def again(metric: BaseMetric, score: float) -> bool | None:
    """Say whether a score that was kept passes: thresholds may have moved since, scores have not."""
    own = copy.copy(metric)
    own.score, own.error = score, None
    return None if own.threshold is None else bool(BaseMetric.is_successful(own))
