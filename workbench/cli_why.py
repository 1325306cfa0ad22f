"""`redecide why`: why one decision came out as it did, and why it would come out otherwise under a candidate."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from workbench.cli_output import AsJson, AsMarkdown, HtmlPath, emit
from workbench.cli_sources import SourcePaths, sources_of


def why(
    lake: Annotated[str, typer.Argument(metavar="LAKE", help="Folder or URL of the lake's Delta tables.")],
    decision_id: Annotated[
        str, typer.Argument(metavar="DECISION_ID", help="Its id, or the first characters that only it has.")
    ],
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Bundle folder with the candidate's policies.")
    ] = None,
    context: Annotated[
        str,
        typer.Option("--context", help="`recorded`, or a bundle or context.toml to compile its facts by."),
    ] = "recorded",
    limits: Annotated[
        Path | None, typer.Option("--limits", help="Bundle folder whose limits to decide with.")
    ] = None,
    source: SourcePaths = None,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
    html: HtmlPath = None,
) -> None:
    """Explain one decision: the clauses that decided, the values they saw, and what a candidate makes of it."""
    from workbench.explaining.why import why_of
    from workbench.lake import open_lake

    found = why_of(
        open_lake(lake), decision_id, policy, context=context, limits=limits, sources=sources_of(source)
    )
    emit(found, as_json=as_json, as_markdown=as_markdown, html=html)
