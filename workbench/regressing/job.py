"""What a regression job is asked: a checked job file, as values.

One rule: a `Job` that exists can be run as far as its file tells. What only the lake knows (whether it opens, what an
alias stands for, whether a label is there) is found out by the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from runtime.aliases import find_alias
from runtime.bundle import load_bundle
from runtime.errors import GovernanceError
from workbench.errors import BundleNotFound
from workbench.runs import ARTIFACTS
from workbench.splitting import SESSION
from workbench.texts import visible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import polars as pl

    from runtime.bundle import Bundle
    from runtime.canonical import Json
    from workbench.estimating.gates_file import Gate
    from workbench.lake import Lake
    from workbench.weighing.stakes import Stakes

Kind = Literal["recorded", "candidate", "folder", "spec", "version", "alias"]
"""What a bundle is named by: `recorded` each decision's own; `candidate` (of a context, of limits) the candidate's
own; `folder`; `spec` (of a context) a `context.toml`; `version` of the lake, or its first digits; `alias` of it."""

First: TypeAlias = Literal["all", "new"] | datetime
"""What the first night of a series looks at: `all` there is; `new` nothing yet, only what comes later; or what was
decided at or after a time, and so every later night."""

FORMATS = ("markdown", "junit", "json", "html")


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """A bundle, as a job names it."""

    text: str
    """As declared."""
    kind: Kind
    path: Path | None = None
    """Of a folder or a spec, absolute; else None."""

    def bundle(self, lake: Lake) -> Bundle | None:
        """Return the bundle that it is now; None: `recorded`, `candidate` or `spec`, which are none of their own.

        Raises:
            BundleError: a folder holds none that can be used.
            BundleNotFound: the lake has no such version or alias.
            LakeError: the lake cannot be read.
        """
        match self.kind:
            case "folder":
                return load_bundle(self.path or self.text)
            case "version":
                return lake.bundle(self.text)
            case "alias":
                return lake.bundle(_stands_for(lake, self.text))
            case _:
                return None


def _stands_for(lake: Lake, alias: str) -> str:
    try:
        return find_alias(lake.store, alias).bundle_version
    except GovernanceError as exc:
        raise BundleNotFound(f"`{visible(alias)}` is no folder beside the job, and {exc}") from exc


RECORDED = Which(text="recorded", kind="recorded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which decisions a night is about."""

    mode: Literal["new", "time"] = "new"
    """`new`: what was drained since the night before, by ledger position; `time`: what was decided in a stretch of
    time, whether an earlier night saw it or not."""
    first: First = "all"
    """Of `new`."""
    since: datetime | None = None
    """Of `time`: first moment, UTC, included; None: from the beginning, or `last`."""
    until: datetime | None = None
    """Of `time`: last moment, not included; None: to the end."""
    last: timedelta | None = None
    """Of `time`: so long up to `until`, or up to now."""

    def stretch(self, now: datetime) -> tuple[datetime | None, datetime | None]:
        """Return the first moment and the one after the last that decisions of a night begun `now` may be of.

        Example:
            >>> from datetime import UTC
            >>> week = Window(mode="time", last=timedelta(days=7))
            >>> [f"{each:%d %b}" for each in week.stretch(datetime(2026, 11, 23, tzinfo=UTC))]
            ['16 Nov', '23 Nov']
        """
        if self.mode == "new":
            return (self.first if isinstance(self.first, datetime) else None), None
        if self.last is None:
            return self.since, self.until
        until = self.until or now
        return until - self.last, until


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What the gates over all nights need to know before the first."""

    largest_session: int = 200
    """The most decisions that a session (or declared cluster) counts for."""
    planned_sessions: int = 10_000
    """By when bounds shall be tightest; they hold at any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToMlflow:
    """Where comparisons are logged."""

    tracking_uri: str | None = field(default=None, repr=False)
    """None: as `wb.log` finds it. May hold a password; show it by `workbench.tracking.shown`."""
    experiment: str
    slices: tuple[str, ...] = ("tool",)
    """Columns with a nested run a value."""
    traces: int = 20
    """Most regressed decisions that become traces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What is written beside, and where."""

    folder: Path
    """Absolute; a folder a night below it."""
    formats: tuple[str, ...] = FORMATS
    notebook: bool = True
    """Whether the executed notebook is written, as HTML."""
    artifacts: tuple[str, ...] = ARTIFACTS
    """Of each candidate: what is written for people beside the numbers and the changed decisions."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A regression job. Made by `workbench.regressing.job_file.read_job`."""

    path: Path
    """Its file, absolute."""
    name: str
    lake: str = field(repr=False)
    """Absolute path, or URL. May hold a password; show it by `workbench.tracking.shown`."""
    baseline: Which = RECORDED
    candidates: tuple[Which, ...] = ()
    """None: the job looks for drift."""
    context: Which = RECORDED
    """Whose contexts candidates are decided over."""
    limits: Which = RECORDED
    """Whose limits candidates are decided under."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Places of sources of facts, absolute, by name."""
    stakes: Stakes
    cluster: tuple[str, ...] = SESSION
    """What is independent of each other: columns, or names of labels on sessions."""
    window: Window = field(default_factory=Window)
    filter: pl.Expr | None = None
    """Over the columns of `decisions`; None: all."""
    filters: Mapping[str, Json] = field(default_factory=dict)
    """The filter as declared."""
    gates: tuple[Gate, ...] = ()
    looks: Looks = field(default_factory=Looks)
    scoring: Any = None
    """`workbench.scoring.declared.Scoring`; None: nothing is scored."""
    drift: Any = None
    """`workbench.regressing.drift_gate.DriftGate`; None: not asked, which a job without candidates always is."""
    mlflow: ToMlflow | None = None
    """None: nothing is logged."""
    notify: Any = None
    """`workbench.regressing.reporting.notify.Notify`; None: nobody is told."""
    output: Output
    state: Path
    """Folder of what is kept between nights, absolute."""

    def asks(self) -> dict[str, Json]:
        """Return what makes nights comparable beside the bundles' versions, as JSON.

        Two jobs that differ in it are two series. Thresholds, notifications and outputs are no part of it.
        """
        first = self.window.first
        return {
            "stakes": {
                "harm": {name: [*values] for name, values in sorted(self.stakes.harm.items())},
                "good": {name: [*values] for name, values in sorted(self.stakes.good.items())},
                "money": {
                    tool: [each.pointer, each.unit, each.decimals]
                    for tool, each in sorted(self.stakes.moneys.items())
                },
                "intent": [*sorted(self.stakes.intent)],
                "unlabelled": self.stakes.unlabelled,
                "conflicts": self.stakes.conflicts,
            },
            "cluster": [*self.cluster],
            "filter": dict(self.filters),
            "mode": self.window.mode,
            "stretch": [
                each.isoformat() if each else None for each in (self.window.since, self.window.until)
            ],
            "from": first.isoformat() if isinstance(first, datetime) else None,
            "quantities": [*sorted({gate.quantity for gate in self.gates})],
            "largest_session": self.looks.largest_session,
            "planned_sessions": self.looks.planned_sessions,
        }
