"""What our metrics share: on DeepEval's `BaseMetric`, deterministic, no model, no network.

One rule: a metric says what it `reads`, and is shown nothing else. So equal readings have equal scores, and
`wb.score` judges each reading once, however many decisions have it: that is all there is to its speed.

They read what `workbench.scoring.cases` writes into `LLMTestCase.metadata`, hold no state between cases except the
last result (as all of DeepEval's do), and work in `wb.score` and in `deepeval.evaluate` alike. A case that a metric
cannot judge raises DeepEval's `MissingTestCaseParamsError`: `wb.score` counts it as not applicable, and `evaluate`
skips it under `ErrorConfig(skip_on_missing_params=True)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from workbench.scoring.offline import deepeval

deepeval()  # before the imports below: they would load it with its telemetry on

from deepeval.errors import MissingTestCaseParamsError  # noqa: E402
from deepeval.metrics import BaseMetric  # noqa: E402
from deepeval.test_case import SingleTurnParams  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deepeval.test_case import LLMTestCase

WHY = ("decided_by", "reason_code", "determining")
"""What says who decided."""


class DecisionMetric(BaseMetric):  # type: ignore[misc]  # deepeval ships no annotations
    """What our metrics share: a threshold, a version, and a table look-up instead of a model."""

    version: ClassVar[str] = "1"
    """Changes whenever the same case may get another score."""
    level: ClassVar[str] = "decision"
    """`decision`: measured once a decision; `session`: once a session."""
    title: ClassVar[str]
    reads: ClassVar[tuple[str, ...] | None] = None
    """Members of the metadata that `judge` is shown; None: all of them, one case after the other."""
    sees_doubt: ClassVar[bool] = False
    """Whether it judges decisions that could not be decided again, too."""
    _required_params: ClassVar = [SingleTurnParams.INPUT, SingleTurnParams.METADATA]

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = threshold
        self.async_mode = False  # nothing to wait for; and `evaluate` then never touches a running event loop
        self.include_reason = True

    def judge(self, metadata: Mapping[str, Any]) -> tuple[float, str]:
        """Return score and reason for one case.

        Raises:
            MissingTestCaseParamsError: the metric does not apply to the case; says why.
        """
        raise NotImplementedError

    def reading(self, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what `judge` is shown of a case's metadata."""
        return metadata if self.reads is None else {name: metadata.get(name) for name in self.reads}

    def measure(self, test_case: LLMTestCase, *_args: object, **_kwargs: object) -> float:
        """Score one case; the result is also on the metric (`score`, `success`, `reason`)."""
        self.score = self.success = self.reason = self.error = None
        self.score, self.reason = self.judge(self.reading(test_case.metadata or {}))
        self.success = self.is_successful()
        return self.score

    async def a_measure(self, test_case: LLMTestCase, *_args: object, **_kwargs: object) -> float:
        """Score one case; there is nothing to wait for."""
        return self.measure(test_case)

    @property
    def __name__(self) -> str:
        return self.title


def given(metadata: Mapping[str, Any], name: str) -> str:
    """Return what a case says.

    Raises:
        MissingTestCaseParamsError: it does not say it.
    """
    if (value := metadata.get(name)) is None:
        raise MissingTestCaseParamsError(f"metadata has no `{name}`")
    return str(value)


def why(metadata: Mapping[str, Any]) -> str:
    """Return who decided: the stage, and its policies or its reason."""
    determining = metadata.get("determining") or ()
    return f"{metadata.get('decided_by')} ({', '.join(determining) or metadata.get('reason_code')})"
