"""Metrics of ours that look further than the replayed row: what a bundle says of it, and what proves it.

One rule: as in `workbench.scoring.metrics`. What these read is looked up in the lake, for the chosen decisions at
once (`look_up`), and is part of the case then; outside of `wb.score`, where nobody looks it up, they do not apply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from runtime.bundle import Bundle, load_bundle
from workbench.errors import ScoringInvalid
from workbench.scoring.decision_metric import DecisionMetric
from workbench.scoring.evidence import evidence_of
from workbench.scoring.gathering import RUNS
from workbench.scoring.offline import deepeval

deepeval()  # before the import below: it would load it with its telemetry on

from deepeval.errors import MissingTestCaseParamsError  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from workbench.scoring.gathering import Replayed


class PolicyCompliance(DecisionMetric):
    """Is what runs what a given bundle allows? 1 where it would let the same action run, 0 where it would not.

    The bundle decides each request again, over the recorded facts. Where it would let another action run (a patch of
    its own, or of the version that is scored), what it says of the action that runs is not known: not applicable.
    """

    title = "Policy Compliance"
    reads = ("kind", "verdict", "enforced_args", "ruled", "ruled_by", "ruled_args")

    def __init__(
        self,
        bundle: str | Path | Bundle,
        *,
        threshold: float = 0.5,
        name: str | None = None,
    ) -> None:
        """Take the bundle that is to be complied with.

        Args:
            bundle: a folder, or a loaded bundle.
            threshold: minimum score that counts as success.
            name: what the metric is called; None: `Policy Compliance`.

        Raises:
            BundleError: it is no bundle.
        """
        super().__init__(threshold)
        self.bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        self._name = name or self.title

    @property
    def __name__(self) -> str:
        return self._name

    def look_up(self, replay: Replayed, rows: pl.DataFrame) -> pl.DataFrame:
        """Return what the bundle says of each decision; cost: a replay of them.

        Raises:
            ScoringInvalid: the replay is of no lake.
        """
        lake: Any = replay.lake
        if not hasattr(lake, "replay"):
            raise ScoringInvalid(
                "policy compliance needs a replay of a lake: it decides recorded requests again"
            )
        mine = pl.col("decision_id").is_in(rows["decision_id"].implode())
        found = lake.where(mine).replay(self.bundle).frame
        said = found.select(
            "decision_id",
            ruled=pl.coalesce("verdict", "status"),
            ruled_by=pl.when(pl.col("determining").list.len() > 0)
            .then(pl.col("determining").list.join(", "))
            .otherwise(pl.coalesce("reason_code", "cause")),
            ruled_args="enforced_args",
        )
        joined = (
            rows.lazy().select("decision_id").join(said, on="decision_id", how="left", maintain_order="left")
        )
        return joined.drop("decision_id").collect()

    def judge(self, metadata: Mapping[str, Any]) -> tuple[float, str]:
        """Compare what runs with what the bundle would let run."""
        if metadata.get("verdict") not in RUNS or metadata.get("kind") == "duplicate":
            raise MissingTestCaseParamsError("nothing runs")
        ruled = metadata.get("ruled")
        if ruled in (None, "undecided", "quarantined"):
            raise MissingTestCaseParamsError(
                f"{self.bundle.name} cannot decide it: {metadata.get('ruled_by')}"
            )
        said = f"{ruled} by {self.bundle.name} ({metadata.get('ruled_by')})"
        if ruled in RUNS and metadata.get("enforced_args") != metadata.get("ruled_args"):
            raise MissingTestCaseParamsError(f"another action runs than what it would run: {said}")
        return float(ruled in RUNS), said


class EvidenceCompleteness(DecisionMetric):
    """Is there all that a decision can be proved by? The share of its parts that are there and hash to what is said.

    Parts, where the decision refers to them: its row, its link to the row before, its context, its entities, the
    texts of its policies. Judged of every decision, those that cannot be decided again as well: they need it most.
    """

    title = "Evidence Completeness"
    reads = ("cause", "evidence")
    sees_doubt = True

    def __init__(self, threshold: float = 1.0) -> None:
        super().__init__(threshold)

    def look_up(self, replay: Replayed, rows: pl.DataFrame) -> pl.DataFrame:
        """Return each decision's evidence, checked; cost: some 30 µs a decision, and the chain's positions."""
        return pl.DataFrame({"evidence": evidence_of(replay.lake, rows)})

    def judge(self, metadata: Mapping[str, Any]) -> tuple[float, str]:
        """Count the parts that hold."""
        if metadata.get("cause") in ("field_erased", "field_masked"):
            raise MissingTestCaseParamsError("parts of it were taken out on purpose")
        if (evidence := metadata.get("evidence")) is None:
            raise MissingTestCaseParamsError("evidence was not looked up")
        broken = [each for each in evidence if not each.endswith(": holds")]
        told = (
            "; ".join(broken) if broken else f"{', '.join(each.partition(':')[0] for each in evidence)} hold"
        )
        return 1 - len(broken) / max(1, len(evidence)), told
