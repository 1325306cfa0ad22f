"""What an MLflow run says of a version: the evidence that it may be promoted.

One rule: a run speaks for exactly one version, over one lake, against one baseline. It allows the promotion of that
version there, as long as the alias still stands for that baseline; in every other case a person has to say so.

A run of a regression job is of one night's window, but what it says (`redecide.outcome`) is of all its nights: so the
window is no objection there, as it is for a comparison of some decisions that was logged by hand.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.errors import NotPromotable
from workbench.replay import RECORDED
from workbench.tracking import connect, library, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.bundle import Bundle

SHIP = "ship"
LOOKS = "redecide.looks"
"""Tag of a run whose outcome is of all the nights of a job."""
_WINDOW = ("pins.after.", "candidate.pins.after.", "baseline.pins.after.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a run says."""

    run_id: str
    tracking_uri: str
    outcome: str | None
    """`ship`, `don't ship` or `inconclusive`; None: it had no gates."""
    status: str
    """MLflow's own: `FINISHED` where the run is whole."""
    candidate: str
    """Bundle version."""
    baselines: frozenset[str]
    """Bundle versions that it was compared with: one, or those that the decisions were recorded under."""
    lake: str
    where: str | None
    """Which decisions it is about; None: all."""
    window: bool
    """Whether it is about a window of the log alone: a night's, without the nights before."""
    limits: str | None
    """Version of the bundle whose limits it was decided with; None: as recorded."""
    spec: str | None
    """Hash of the context spec that facts were compiled by; None: as recorded."""

    def objections(
        self, *, bundle: Bundle, recorded: Mapping[str, tuple[str, str]], lake: str, held: str | None
    ) -> Iterator[str]:
        """Say why this run does not allow a promotion.

        Args:
            bundle: to be promoted.
            recorded: hashes of limits and context spec of the lake's versions.
            lake: where.
            held: what the alias stands for; None: nothing.
        """
        version = bundle.version
        if self.status != "FINISHED":
            yield f"the run is {self.status.lower()}, not finished"
        if self.outcome != SHIP:
            yield (
                "it had no gates, so it says neither" if self.outcome is None else f"it says: {self.outcome}"
            )
        if self.candidate != version:
            yield f"it is about version {self.candidate[:12]}, not {version[:12]}"
        if self.where is not None:
            yield f"it is of some decisions only, those where {self.where}"
        if self.window:
            yield "it is of a window of the log only, and no job's nights stand behind it"
        known = {**recorded, version: (bundle.limits_hash, bundle.context_spec_hash)}
        then = [known[each] for each in self.baselines if each in known]
        limits = {each[0] for each in then} if self.limits is None else {known.get(self.limits, ("", ""))[0]}
        spec = {each[1] for each in then} if self.spec is None else {self.spec}
        for what, decided, promoted in (
            ("limits", limits, bundle.limits_hash),
            ("context spec", spec, bundle.context_spec_hash),
        ):
            if decided != {promoted}:
                yield f"it was not decided with the {what} of this version, which would come into force with it"
        if self.lake != shown(lake):
            yield f"it is about the lake at {self.lake}"
        if held is not None and held not in self.baselines:
            with_ = ", ".join(sorted(each[:12] for each in self.baselines)) or "nothing known"
            yield f"it compared with {with_}, and the alias stands for {held[:12]} now"


def read_run(run_id: str, tracking_uri: str) -> Evidence:
    """Read what a run says.

    Args:
        run_id: of a comparison that `wb.log` made.
        tracking_uri: of the store that holds it.

    Raises:
        TrackingError: the store cannot be reached.
        NotPromotable: there is no such run, or it is no comparison of ours.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - seconds, and only where it is used

    library()
    with connect(tracking_uri) as store:
        try:
            run = store.client.get_run(run_id)
        except MlflowException as exc:
            raise NotPromotable(f"there is no run {run_id!r} at {shown(tracking_uri)}") from exc
    return _evidence(run, tracking_uri)


def _evidence(run: Any, tracking_uri: str) -> Evidence:
    tags, params = run.data.tags, run.data.params
    if tags.get("redecide.kind") != "comparison" or "candidate.bundle_version" not in params:
        raise NotPromotable(
            f"run {run.info.run_id} is no comparison that `wb.log` or `redecide compare --mlflow` made"
        )
    return Evidence(
        run_id=run.info.run_id,
        tracking_uri=tracking_uri,
        outcome=tags.get("redecide.outcome"),
        status=run.info.status,
        candidate=params["candidate.bundle_version"],
        baselines=_baselines(params),
        lake=tags.get("redecide.lake", ""),
        where=_pin(params, "where"),
        window=LOOKS not in tags and any(name.startswith(_WINDOW) for name in params),
        limits=_pin(params, "limits"),
        spec=_pin(params, "spec"),
    )


def _pin(params: Mapping[str, str], name: str) -> str | None:
    """A pin of the candidate: under its side's name where the baseline has another."""
    return params.get(f"candidate.pins.{name}") or params.get(f"pins.{name}")


def _baselines(params: Mapping[str, str]) -> frozenset[str]:
    base = params.get("baseline.bundle_version", "")
    if base != RECORDED:
        return frozenset({base})
    try:
        return frozenset(json.loads(params.get("recorded.bundle_versions", "[]")))
    except json.JSONDecodeError:  # a list too long for a parameter is cut, and says nothing for sure
        return frozenset()
