"""What scoring came to: scores, and what the judges among the metrics are worth.

One rule: a judge's rate stands beside what people said, with how it was corrected; without labels it says that
nothing corrects it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from workbench.statistics.prediction_powered import METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from runtime.canonical import Json
    from workbench.faces import Page
    from workbench.score import Scores
    from workbench.scoring.agreement import Agreement
    from workbench.scoring.debiasing import Debiased
    from workbench.scoring.sampling import Sample

__all__ = ["Scored"]

_RATES = ("raw", "kappa", "sensitivity", "specificity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What scoring came to."""

    scores: Scores
    agreement: Mapping[str, Agreement]
    """By metric that asks a judge, or has a label."""
    debiased: Mapping[str, Debiased]
    """The same."""
    sample: Sample | None
    """None: all cases, or all that changed."""
    notes: tuple[str, ...]
    """What a reader must know beside: cases that failed, who answered, how far the labels go."""

    @property
    def frame(self) -> pl.LazyFrame:
        """The rows of `scores`: it can be given wherever scores are, as to `wb.log`."""
        return self.scores.frame

    @property
    def replay_id(self) -> str:
        """The replay whose decisions were scored."""
        return self.scores.replay_id

    def summary(self) -> dict[str, float]:
        """Return its finite numbers by name.

        Those of `Scores.summary()`; `<metric>.debiased.<number>` and `<metric>.agreement.<number>` as
        `Debiased.as_dict()` and `Agreement.as_dict()` have them; of a sample, `sample.decisions`, `.changed`,
        `.sampled`.
        """
        numbers = dict(self.scores.summary())
        for part, found in (("debiased", self.debiased), ("agreement", self.agreement)):
            for metric, each in found.items():
                numbers |= {f"{metric}.{part}.{name}": value for name, value in each.as_dict().items()}
        if self.sample is not None:
            drawn = {
                "decisions": self.sample.decisions,
                "changed": self.sample.changed,
                "sampled": len(self.sample),
            }
            numbers |= {f"sample.{name}": float(value) for name, value in drawn.items()}
        return {name: value for name, value in numbers.items() if math.isfinite(value)}

    def as_dict(self) -> dict[str, Json]:
        """Return all of it but the rows, as JSON."""
        methods = {metric: each.method for metric, each in self.debiased.items()}
        return {"numbers": dict(self.summary()), "methods": dict(methods), "notes": list(self.notes)}

    def page(self) -> Page:
        """What a report and a notebook cell show."""
        from workbench.faces import Table  # noqa: PLC0415 - kept out of jobs that only score

        page = self.scores.page()
        tables = [_rated(self.debiased), _agreed(self.agreement)] if self.debiased else []
        parts = (*page.parts[:1], *(Table(**each) for each in tables), *page.parts[1:])
        lines = [*(f"{each.text}." for each in self.debiased.values()), *page.lines, *self.notes]
        return replace(page, lines=lines, parts=parts)

    def __repr__(self) -> str:
        from workbench.faces import text  # noqa: PLC0415 - as above

        return text(self.page(), brief=True)

    def _repr_html_(self) -> str:
        from workbench.faces import cell  # noqa: PLC0415 - as above

        return cell(self.page())


def _rated(found: Mapping[str, Debiased]) -> dict[str, Any]:
    """What a table of corrected rates is made of."""
    rows = [
        (
            metric, _share(each.rate), _span(each.lower, each.upper), _share(each.judge_rate),
            _share(each.labels_rate), each.labels, each.sessions, round(each.gain, 2), METHODS[each.method],
        )
        for metric, each in found.items()
    ]  # fmt: skip
    heads = ["metric", "rate", "interval", "judge alone", "labels alone", "labels", "sessions", "gain", "how"]
    note = "The pass rate as people would find it; gain: how many labels one label is worth beside the judge."
    return {"title": "Judges, corrected", "note": note, "heads": heads, "rows": rows, "code": frozenset({0})}


def _agreed(found: Mapping[str, Agreement]) -> dict[str, Any]:
    """What a table of judges beside people is made of."""
    rows = [
        (
            metric, each.label, each.n, *(_bounded(getattr(each, name)) for name in _RATES), each.judge_passed,
            each.people_passed,
        )
        for metric, each in found.items()
    ]  # fmt: skip
    heads = ["metric", "label", "cases", *_RATES, "only the judge passed", "only people passed"]
    note = "Sensitivity: of what people passed, what the judge passed; specificity: of what they failed, it failed."
    return {
        "title": "Judges and people",
        "note": note,
        "heads": heads,
        "rows": rows,
        "code": frozenset({0, 1}),
    }


def _share(value: float) -> str | None:
    return f"{value:.1%}" if math.isfinite(value) else None


def _span(lower: float, upper: float) -> str | None:
    return f"{lower:.1%} to {upper:.1%}" if math.isfinite(lower) and math.isfinite(upper) else None


def _bounded(found: Any) -> str | None:
    return None if found is None else f"{found.value:.2f} [{found.lower:.2f}, {found.upper:.2f}]"
