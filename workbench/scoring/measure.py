"""The loop: every metric over every case, one row each, whatever happens.

One rule: a case that goes in comes out, as a score, as an error, or as *not applicable* with the reason.

A plain loop, not `deepeval.evaluate`: that one writes into the working directory, prints, and in its default mode
damages a running event loop. Metrics are measured one after the other; concurrency, retries and a cache belong to
judges that wait for a model.
"""

from __future__ import annotations

import copy
import inspect
import math
from typing import TYPE_CHECKING, Literal

from workbench.scoring.cases import LEVELS
from workbench.scoring.offline import deepeval

_LIBRARY = deepeval()  # before the import below: it would load it with its telemetry on

from deepeval.errors import MissingTestCaseParamsError  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from deepeval.metrics import BaseMetric

    from workbench.scoring.cases import Case

Status = Literal["scored", "not_applicable", "errored"]
"""What a metric had to say of a case."""

Outcome = tuple[Status, float | None, bool | None, str | None, str | None]
"""status, score, success, reason, error."""


def named(metrics: Sequence[BaseMetric]) -> dict[str, BaseMetric]:
    """Return the metrics by name, `Verdict Correctness` as `verdict_correctness`.

    Raises:
        ValueError: there is none, two have one name, or one has a level that does not exist.
    """
    if not metrics:
        raise ValueError("metrics is empty: give at least one metric, or None for the default ones")
    names = [str(metric.__name__).strip().lower().replace(" ", "_") for metric in metrics]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"two metrics are called {', '.join(doubled)}: score them apart, or give one another __name__"
        )
    for name, metric in zip(names, metrics, strict=True):
        if level_of(metric) not in LEVELS:
            raise ValueError(f"level of {name} must be one of {', '.join(LEVELS)}, got {level_of(metric)!r}")
    return dict(zip(names, metrics, strict=True))


def level_of(metric: BaseMetric) -> str:
    """Return what a metric is measured once for: `decision` (any metric that does not say) or `session`."""
    return str(getattr(metric, "level", "decision"))


def version_of(metric: BaseMetric) -> str:
    """Return what computes the score: the metric's own version, or that of the library it comes from."""
    home = type(metric).__module__.partition(".")[0]
    if (own := getattr(metric, "version", None)) is not None:
        return f"{home} {own}"
    return f"deepeval {_LIBRARY.__version__}" if home == "deepeval" else f"{home} unversioned"


def measured(name: str, metric: BaseMetric, cases: Sequence[Case]) -> Iterator[tuple[object, ...]]:
    """Yield one row for each case, in the columns of `workbench.score.SCHEMA`.

    Cost: 5 µs a case for a look-up, 100 µs for a metric of DeepEval's own.
    """
    version = version_of(metric)
    quiet = {"_show_indicator": False} if _takes_indicator(metric) else {}
    for case in cases:
        yield case.decision_id, case.session_id, name, version, *_outcome(metric, case, quiet), case.hash


def _takes_indicator(metric: BaseMetric) -> bool:
    parameters = inspect.signature(metric.measure).parameters.values()
    return any(each.name == "_show_indicator" or each.kind is each.VAR_KEYWORD for each in parameters)


def _outcome(metric: BaseMetric, case: Case, quiet: Mapping[str, bool]) -> Outcome:
    """Measure one case with a copy of the metric: DeepEval's metrics keep their last result on themselves."""
    if case.blank is not None:
        return "not_applicable", None, None, case.blank, None
    own = copy.copy(metric)
    own.async_mode = False  # measured here and now, whatever loop is running
    try:
        own.measure(case.test, **quiet)
        passed = None if own.threshold is None else bool(own.is_successful())
        return "scored", _finite(own.score), passed, own.reason and str(own.reason), None
    except MissingTestCaseParamsError as exc:
        return "not_applicable", None, None, str(exc), None
    except Exception as exc:  # noqa: BLE001 - a guard point: whatever a metric raises becomes a row, and is counted
        return "errored", None, None, None, f"{type(exc).__name__}: {exc}"


def _finite(score: object) -> float:
    if isinstance(score, int | float) and math.isfinite(score):
        return float(score)
    raise ValueError(f"score must be a finite number, got {score!r}")
