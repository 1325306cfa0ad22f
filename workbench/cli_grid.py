"""`redecide grid`: old or new policy × old or new context × old or new limits, and what each change is due to."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from workbench.cli_output import AsJson, AsMarkdown, HtmlPath, emit
from workbench.cli_replay import At, ContextPath, LakePath, LimitsPath, PolicyPath, Versions, axes_of, note
from workbench.cli_sources import SourcePaths  # noqa: TC001 - as above
from workbench.errors import WorkbenchError


def grid(
    lake: LakePath,
    policy: PolicyPath = None,
    context: ContextPath = "recorded",
    limits: LimitsPath = None,
    source: SourcePaths = None,
    source_version: Versions = None,
    at: At = None,
    out: Annotated[
        Path | None, typer.Option(help="Write every decision, with what it is due to, to this Parquet file.")
    ] = None,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
    html: HtmlPath = None,
) -> None:
    """Replay every combination of old and new policy, context and limits: what is each changed decision due to?"""
    from workbench.gridding.grid import grid as grid_of
    from workbench.lake import open_lake

    axes = axes_of(context, limits, source, source_version, at)
    if policy is None and all(
        axes[name] in (None, "recorded") for name in ("context", "limits", "versions", "at")
    ):
        raise WorkbenchError(
            "a grid needs an axis to vary: --policy BUNDLE, --context SPEC (or --source-version, --at), "
            "--limits BUNDLE, or several"
        )
    found = grid_of(open_lake(lake), policy, **axes)
    if out is not None:
        found.frame.sink_parquet(out)
    emit(found, as_json=as_json, as_markdown=as_markdown, html=html)
    note({"rows": out}, quiet=as_json or as_markdown)
