"""The commands `redecide replay` and `redecide compare`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from runtime.errors import GovernanceError
from workbench.cli_output import AsJson, AsMarkdown, HtmlPath, emit
from workbench.cli_sources import SourcePaths, sources_of
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.canonical import Json
    from workbench.compare import Diff
    from workbench.faces import Page
    from workbench.replay import Replay

COULD_NOT_RUN = 3
"""Exit code of `compare --gates`, and of `regress`, that could not judge: 0 to 2 are their verdicts."""

LakePath = Annotated[str, typer.Argument(metavar="LAKE", help="Folder or URL of the lake's Delta tables.")]
PolicyPath = Annotated[
    str | None, typer.Option("--policy", help="The candidate's bundle: a folder, or a version of the lake.")
]
ContextPath = Annotated[
    str,
    typer.Option("--context", help="`recorded`, or a bundle or context.toml to compile the facts again by."),
]
LimitsPath = Annotated[
    str | None, typer.Option("--limits", help="A bundle whose limits hold; default: as recorded.")
]
Versions = Annotated[
    list[str] | None,
    typer.Option(
        "--source-version", metavar="NAME=N", help="Compile facts at this version of a source; repeat."
    ),
]
At = Annotated[
    str | None, typer.Option("--at", metavar="TIME", help="Compile facts as they were then (ISO; UTC).")
]
State = Annotated[
    Literal["recorded", "simulated"],
    typer.Option(help="Budgets, counters and breakers: as recorded, or counted again under these verdicts."),
]
Approvals = Annotated[
    Literal["recorded", "granted", "denied"],
    typer.Option(help="Of simulated state: what becomes of calls that ask."),
]

OutPath = Annotated[Path | None, typer.Option(help="Write the rows to this Parquet file.")]
StakesPath = Annotated[
    Path | None, typer.Option(help="TOML: which labels are harm and good work, what is money.")
]
GatesPath = Annotated[
    Path | None,
    typer.Option(help="TOML: what a candidate must keep. Exit code 0 ship, 1 don't, 2 inconclusive."),
]
ReportPath = Annotated[Path | None, typer.Option(help="Write the report to this file.")]


@dataclass(frozen=True, slots=True)
class _Replayed:
    """A replay, as commands print it."""

    replay: Replay

    def page(self) -> Page:
        """What it says."""
        from workbench.pages import replay_page

        return replay_page(self.replay)

    def as_dict(self) -> Mapping[str, Json]:
        """Its counts, all plain numbers."""
        return dict(self.replay.counts())


@dataclass(frozen=True, slots=True)
class _Compared:
    """A comparison, as commands print it."""

    diff: Diff

    def page(self) -> Page:
        """What it says."""
        from workbench.pages import diff_page

        return diff_page(self.diff)

    def as_dict(self) -> Mapping[str, Json]:
        """Every number: those of `diff.summary()` by name, then what they are worth, and how sure that is."""
        from workbench import certainty

        found = certainty.as_dict(self.diff)
        return {**found.pop("summary"), **found}


def replay(
    lake: LakePath,
    policy: PolicyPath = None,
    context: ContextPath = "recorded",
    limits: LimitsPath = None,
    source: SourcePaths = None,
    source_version: Versions = None,
    at: At = None,
    state: State = "recorded",
    approvals: Approvals = "recorded",
    out: OutPath = None,
    save: Annotated[str | None, typer.Option(help="Keep the replay in the lake, under this name.")] = None,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
    html: HtmlPath = None,
) -> None:
    """Decide every recorded decision again. Without --policy and --context: as recorded, the self-replay."""
    from workbench.lake import open_lake

    found = open_lake(lake).replay(
        policy, **axes_of(context, limits, source, source_version, at), state=state, approvals=approvals
    )
    notes: dict[str, object] = {}
    if out is not None:
        found.frame.sink_parquet(out)
        notes["rows"] = out
    if save is not None:
        from workbench.keeping.saved import save as save_replay

        notes["saved"] = save_replay(found, name=save).replay_id
    emit(_Replayed(found), as_json=as_json, as_markdown=as_markdown, html=html)
    note(notes, quiet=as_json or as_markdown)


def compare(
    lake: LakePath,
    policy: PolicyPath = None,
    context: ContextPath = "recorded",
    limits: LimitsPath = None,
    source: SourcePaths = None,
    source_version: Versions = None,
    at: At = None,
    state: State = "recorded",
    approvals: Approvals = "recorded",
    stakes: StakesPath = None,
    gates: GatesPath = None,
    cluster: Annotated[
        str, typer.Option(help="What is independent of each other: columns, or labels of sessions.")
    ] = "tenant,session_id",
    html: ReportPath = None,
    experiment: Annotated[str | None, typer.Option(help="Log to MLflow, under this experiment.")] = None,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
) -> None:
    """Compare what a candidate would have decided with the record."""
    judging: dict[str, Any] = {"stakes": stakes, "gates": gates, "cluster": cluster.split(",")}
    try:
        axes = axes_of(context, limits, source, source_version, at) | {"state": state, "approvals": approvals}
        _require_candidate(policy, axes)
        diff = _diff(lake, policy, axes, judging)
        _tell(diff, as_json=as_json, as_markdown=as_markdown)
        notes = {
            "report": None if html is None else diff.to_html(html),
            "MLflow": None if experiment is None else _logged(diff, experiment),
        }
    except (WorkbenchError, GovernanceError, OSError) as exc:
        if gates is None:
            raise
        print(f"redecide: error: {' '.join(str(exc).split())}", file=sys.stderr)
        raise typer.Exit(COULD_NOT_RUN) from exc
    note(notes, quiet=as_json or as_markdown)
    if diff.outcome is not None:
        raise typer.Exit(diff.outcome.exit_code)


def _require_candidate(policy: str | None, axes: Mapping[str, Any]) -> None:
    if policy is None and all(given in (None, "recorded", {}) for given in axes.values()):
        raise WorkbenchError("give a candidate: --policy BUNDLE, --context SPEC, --limits BUNDLE, or several")


def _diff(lake: str, policy: str | None, axes: dict[str, Any], judging: dict[str, Any]) -> Diff:
    from workbench.lake import open_lake

    return open_lake(lake).compare(policy, **axes, **judging)


def _tell(diff: Diff, *, as_json: bool, as_markdown: bool) -> None:
    if as_json or as_markdown:
        emit(_Compared(diff), as_json=as_json, as_markdown=as_markdown, html=None)
    else:
        print(repr(diff))


def _logged(diff: Diff, experiment: str) -> object:
    from workbench.log import log

    return log(diff, experiment=experiment)


def note(notes: Mapping[str, object], *, quiet: bool) -> None:
    """Say where things were written; on standard error where standard output is for machines."""
    for what, where in notes.items():
        if where is not None:
            print(f"{what}: {where}", file=sys.stderr if quiet else sys.stdout)


def axes_of(
    context: str, limits: str | None, source: list[str] | None, versions: list[str] | None, at: str | None
) -> dict[str, Any]:
    """Parse what a replay takes from a candidate beside its policies, as `lake.replay` and `wb.grid` name it."""
    return {
        "context": context,
        "limits": limits,
        "sources": sources_of(source) or None,
        "versions": versions_of(versions),
        "at": moment_of(at),
    }


def versions_of(given: list[str] | None) -> dict[str, int | str] | None:
    """Parse versions of sources given as `NAME=N`.

    Example:
        >>> versions_of(["orders=12", "customers=2026-11"]), versions_of(None)
        ({'orders': 12, 'customers': '2026-11'}, None)

    Raises:
        WorkbenchError: a name or a version is missing.
    """
    found: dict[str, int | str] = {}
    for text in given or ():
        name, _, version = text.partition("=")
        if not (name and version):
            raise WorkbenchError(f"--source-version takes NAME=VERSION, such as orders=12; got {text!r}")
        found[name] = int(version) if version.isdecimal() else version
    return found or None


def moment_of(text: str | None) -> Any:
    """Parse a time, UTC where it names no zone.

    Raises:
        WorkbenchError: it is none.
    """
    from datetime import UTC, datetime

    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise WorkbenchError(
            f"--at takes a time such as 2026-11-01 or 2026-11-01T12:00:00+01:00; got {text!r}"
        ) from exc
    return found if found.tzinfo else found.replace(tzinfo=UTC)
