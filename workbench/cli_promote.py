"""`redecide promote` and `redecide aliases`: which version the name stands for that runtimes follow."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli_output import AsJson, AsMarkdown, HtmlPath, emit
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.promoting.promote import AliasLog

LakePath = Annotated[str, typer.Argument(metavar="LAKE", help="Folder or URL of the lake's Delta tables.")]
TrackingUri = Annotated[
    str | None, typer.Option(help="Address of the MLflow store. Default: beside the lake.")
]


def promote(
    lake: LakePath,
    version: Annotated[
        str | None,
        typer.Argument(metavar="VERSION", help="A bundle folder, or a version that the lake holds."),
    ] = None,
    alias: Annotated[str, typer.Option(help="The name to give it.")] = "champion",
    from_run: Annotated[
        str | None,
        typer.Option(metavar="RUN_ID", help="The MLflow run whose outcome is `ship` for this version."),
    ] = None,
    tracking_uri: TrackingUri = None,
    force: Annotated[bool, typer.Option("--force", help="Though no run says so; needs --reason.")] = False,
    back: Annotated[
        bool, typer.Option("--back", help="Roll back to the version before; needs --reason.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why; it is recorded.")] = None,
    by: Annotated[str | None, typer.Option(help="Who says so. Default: the user logged in.")] = None,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
    html: HtmlPath = None,
) -> None:
    """Make a version the champion, if its run says `ship`; runtimes that follow the alias take it up."""
    from workbench.lake import open_lake
    from workbench.promoting import promote as promoting

    opened = open_lake(lake)
    if back:
        if version or from_run or force:
            raise WorkbenchError(
                "--back takes --alias, --reason and --by alone: the log says which version was before"
            )
        if not reason:
            raise WorkbenchError("say why: --reason 'double refunds since 14:00'")
        found = promoting.roll_back(opened, alias=alias, reason=reason, tracking_uri=tracking_uri, actor=by)
    elif version is None:
        raise WorkbenchError("say which VERSION, a bundle folder or a version of the lake; or --back")
    else:
        found = promoting.promote(
            opened,
            version,
            alias=alias,
            run_id=from_run,
            tracking_uri=tracking_uri,
            force=force,
            reason=reason,
            actor=by,
        )
    emit(found, as_json=as_json, as_markdown=as_markdown, html=html)


def aliases(
    lake: LakePath,
    tracking_uri: Annotated[
        str | None, typer.Option(help="Compare with the mirror in this MLflow store; exit 1 if it differs.")
    ] = None,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
    html: HtmlPath = None,
) -> None:
    """Show what the lake's aliases stand for, and who moved them, when and why."""
    from workbench.lake import open_lake
    from workbench.promoting.promote import alias_log

    found = alias_log(open_lake(lake))
    emit(found, as_json=as_json, as_markdown=as_markdown, html=html)
    if tracking_uri is not None and _differs(found, tracking_uri):
        raise typer.Exit(1)


def _differs(found: AliasLog, tracking_uri: str) -> bool:
    from workbench.promoting.registry import differences

    told = list(differences(found.lake, found.current, tracking_uri))
    for each in told:
        print(f"redecide: {each}", file=sys.stderr)
    return bool(told)
