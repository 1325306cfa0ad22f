"""Promote a version: give it the alias that runtimes follow, and roll back the same way.

One rule: a version becomes `champion` because a run says *ship*, or because a person said so, with a reason;
the log of the lake says which. A promotion is a compare-and-set: whoever saw another champion is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runtime.aliases import Alias, check_alias, current, move_alias, read_aliases
from runtime.errors import LedgerError
from workbench.asked import bundle_of
from workbench.errors import LakeError, NotPromotable, TrackingError
from workbench.faces import Faces, Page, Table
from workbench.keeping.appending import keep_texts
from workbench.log import store_uri
from workbench.promoting.evidence import read_run
from workbench.promoting.registry import mirror
from workbench.run import user_name as user
from workbench.texts import visible
from workbench.tracking import library, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike

    from runtime.bundle import Bundle
    from runtime.canonical import Json
    from workbench.lake import Lake
    from workbench.promoting.evidence import Evidence

    Given = str | PathLike[str] | Bundle

CHAMPION = "champion"


@dataclass(frozen=True, kw_only=True, repr=False)
class Promotion(Faces):
    """A name that was moved. Made by `promote` and `roll_back`."""

    lake: str
    alias: Alias
    bundle: str
    """Name of the bundle."""
    run_id: str | None
    mirrored: str | None
    """The version of MLflow's registered model that has the alias, too; None: MLflow was not told."""
    problem: str | None = None
    """Why MLflow could not be told; the lake holds all the same."""

    def page(self) -> Page:
        """What was done."""
        row = self.alias
        before = "nothing" if row.previous_version is None else row.previous_version[:12]
        lines = [
            f"{row.alias} is {visible(self.bundle)} {row.bundle_version[:12]} now; it was {before}.",
            f"By {visible(row.actor)}: {visible(row.reason)}",
        ]
        if self.mirrored:
            lines.append(f"MLflow's registered model {visible(self.mirrored)} has the alias, too.")
        if self.problem:
            lines.append(f"MLflow was not told: {visible(self.problem)}")
        return Page(
            kind="promotion",
            title=f"{row.alias} → {visible(self.bundle)}",
            lines=lines,
            pins={"row": row.row_id},
        )

    def as_dict(self) -> dict[str, Json]:
        """All of it, as JSON."""
        return {
            "lake": shown(self.lake), **_as_dict(self.alias), "bundle": self.bundle, "run_id": self.run_id,
            "mirrored": self.mirrored, "problem": self.problem,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True, repr=False)
class AliasLog(Faces):
    """What names stood for, oldest first. Made by `alias_log`."""

    lake: str
    rows: tuple[Alias, ...]
    names: Mapping[str, str]
    """Of bundles, by version."""

    @property
    def current(self) -> tuple[Alias, ...]:
        """The row that holds for each name, by name."""
        names = sorted({row.alias for row in self.rows})
        return tuple(found for name in names if (found := current(list(self.rows), name)) is not None)

    def page(self) -> Page:
        """What holds, and the history."""
        lines = [f"{row.alias} is {self._of(row.bundle_version)}." for row in self.current]
        cells = [
            (f"{_moment(row):%Y-%m-%d %H:%M:%S}", row.alias, self._of(row.bundle_version),
             None if row.previous_version is None else row.previous_version[:12], row.actor, row.reason)
            for row in reversed(self.rows)
        ]  # fmt: skip
        heads = ("at (UTC)", "alias", "version", "was", "by", "reason")
        return Page(
            kind="aliases",
            title=f"Aliases of {shown(self.lake)}",
            lines=lines or ["No alias was given yet."],
            parts=[Table(title="History, the last first", heads=heads, rows=cells)] if cells else [],
            next=("wb.promote(lake, 'VERSION', run_id='…')",),
        )

    def as_dict(self) -> dict[str, Json]:
        """All of it, as JSON."""
        return {
            "lake": shown(self.lake),
            "current": {row.alias: row.bundle_version for row in self.current},
            "history": [_as_dict(row) for row in self.rows],
        }

    def _of(self, version: str) -> str:
        return f"{visible(self.names.get(version, 'not in the lake'))} {version[:12]}"


def promote(
    lake: Lake,
    policy: Given,
    *,
    alias: str = CHAMPION,
    run_id: str | None = None,
    tracking_uri: str | None = None,
    force: bool = False,
    reason: str | None = None,
    actor: str | None = None,
    now: Callable[[], datetime] | None = None,
) -> Promotion:
    """Give an alias to a version, so that runtimes that follow it enforce it.

    Args:
        lake: whose alias.
        policy: a bundle, its folder, or a version the lake holds. Texts that the lake does not have are written.
        alias: the name.
        run_id: the MLflow run whose outcome is *ship* for this version; None: only with `force`.
        tracking_uri: the store that holds the run; None: as `wb.log` would choose it.
        force: promote though no run says so; needs `reason`, which is recorded.
        reason: why, for whoever reads the log.
        actor: who does it; None: this process's user.
        now: tells the time; None: the clock.

    Returns:
        What was done. Where MLflow could not be told it says why; the lake holds.

    Raises:
        NotPromotable: the run does not say *ship* for this version, over this lake, against what the alias stands
            for now; or there is none; or the alias stands for this version already. Nothing was changed.
        TrackingError: the store of the run cannot be reached. Nothing was changed.
        AliasMoved: somebody else moved it meanwhile. Nothing was changed.
        BundleError, BundleNotFound: there is no such bundle, or it does not load.
        LakeError: the lake cannot be written. Nothing was promoted.

    Durability: as any commit to the lake, when it returns; runtimes see it at their next look (5 seconds).
    """
    check_alias(alias)
    bundle = bundle_of(lake, policy)
    log = _read(lake)
    held = current(list(log), alias)
    version = None if held is None else held.bundle_version
    if version == bundle.version:
        raise NotPromotable(f"{alias} is {bundle.name} {bundle.version[:12]} already; nothing to do")
    found = None if run_id is None else read_run(run_id, store_uri(library(), tracking_uri, None, lake.uri))
    _require(found, bundle, lake, alias, version, force=force, reason=reason)
    store = lake.store.writing()
    keep_texts(lake, store, bundle)
    row = move_alias(
        store, alias, bundle.version, expected=version, actor=actor or user(),
        reason=_why(found, reason, force=force),
        now=(now or _now)(),
    )  # fmt: skip
    where, run = (None, None) if found is None else (found.tracking_uri, found.run_id)
    return _told(lake, row, bundle, where, run)


def roll_back(
    lake: Lake,
    *,
    alias: str = CHAMPION,
    reason: str,
    tracking_uri: str | None = None,
    actor: str | None = None,
    now: Callable[[], datetime] | None = None,
) -> Promotion:
    """Give an alias back to the version that it stood for before what was promoted last.

    What was rolled back before is passed over: rolling back twice goes two versions back, and never forth.

    Args:
        lake: whose alias.
        alias: the name.
        reason: why, for whoever reads the log.
        tracking_uri: of the MLflow store that mirrors the alias; None: MLflow is not told.
        actor: who does it; None: this process's user.
        now: tells the time; None: the clock.

    Raises:
        NotPromotable: it was never given, or there is no version before.
        AliasMoved, LakeError: as `promote`.
    """
    log = [row for row in _read(lake) if row.alias == check_alias(alias)]
    before = _before(log)
    if before is None:
        why = "it has stood for one version only" if log else "it was never given"
        raise NotPromotable(f"there is nothing to roll {alias} back to: {why}")
    done = promote(lake, before, alias=alias, force=True, reason=f"{_BACK}{reason}", actor=actor, now=now)
    if tracking_uri is None:
        return done
    return _told(lake, done.alias, lake.bundle(before), tracking_uri, None)


_BACK = "rolled back: "


def _before(log: Sequence[Alias]) -> str | None:
    """The version before the one that holds, as if nothing that was rolled back had been promoted; None: none."""
    stood: list[str] = []
    for row in log:
        if row.reason.startswith(f"forced: {_BACK}") and len(stood) > 1:
            stood.pop()
        else:
            stood.append(row.bundle_version)
    return stood[-2] if len(stood) > 1 else None


def alias_log(lake: Lake) -> AliasLog:
    """Return what names stood for, with who moved them and why.

    Raises:
        LakeError: the lake cannot be read.
    """
    names = dict(lake.bundles.select("bundle_version", "name").collect().iter_rows())
    return AliasLog(lake=lake.uri, rows=tuple(_read(lake)), names=names)


def _require(
    found: Evidence | None,
    bundle: Bundle,
    lake: Lake,
    alias: str,
    held: str | None,
    *,
    force: bool,
    reason: str | None,
) -> None:
    if force:
        if not (reason or "").strip():
            raise NotPromotable(
                "to promote against the evidence needs a reason, which is recorded: reason='…'"
            )
        return
    if found is None:
        raise NotPromotable(
            f"no run says that {bundle.name} {bundle.version[:12]} may be {alias}; give one (run_id='…'), or say so "
            "yourself (force=True, reason='…')"
        )
    rows = lake.bundles.select("bundle_version", "limits_hash", "context_spec_hash").collect()
    recorded = {version: (limits, spec) for version, limits, spec in rows.iter_rows()}
    objections = list(found.objections(bundle=bundle, recorded=recorded, lake=lake.uri, held=held))
    if objections:
        raise NotPromotable(
            f"run {found.run_id} does not allow {bundle.name} {bundle.version[:12]} to be {alias}: "
            f"{'; '.join(objections)}"
        )


def _why(found: Evidence | None, reason: str | None, *, force: bool) -> str:
    """What the log says: the evidence first, so that a forced promotion is seen as one."""
    run = "" if found is None else f"run {found.run_id} says {found.outcome or 'nothing'}"
    forced = "forced" if force else ""
    return ": ".join(filter(None, (", ".join(filter(None, (forced, run))), reason)))


def _told(lake: Lake, row: Alias, bundle: Bundle, tracking_uri: str | None, run_id: str | None) -> Promotion:
    mirrored = problem = None
    if tracking_uri is not None:
        try:
            mirrored = mirror(lake.uri, row, bundle, tracking_uri, run_id)
        except TrackingError as exc:  # the lake is the master, and has it
            problem = str(exc)
    return Promotion(
        lake=lake.uri, alias=row, bundle=bundle.name, run_id=run_id, mirrored=mirrored, problem=problem
    )


def _read(lake: Lake) -> list[Alias]:
    try:
        return read_aliases(lake.store)
    except LedgerError as exc:
        raise LakeError(f"the aliases of {shown(lake.uri)} cannot be read: {exc}") from exc


def _as_dict(row: Alias) -> dict[str, Json]:
    return {
        "row_id": row.row_id, "alias": row.alias, "bundle_version": row.bundle_version,
        "previous_version": row.previous_version, "actor": row.actor, "reason": row.reason,
        "at": _moment(row).isoformat(),
    }  # fmt: skip


def _moment(row: Alias) -> datetime:
    return datetime.fromtimestamp(row.at / 1_000_000, UTC)


def _now() -> datetime:
    return datetime.now(UTC)
