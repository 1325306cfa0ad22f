"""`redecide coverage`: what the decisions of a lake exercise, and what they exercise that another lake does not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli_output import AsJson, AsMarkdown, HtmlPath, emit
from workbench.cli_sources import SourcePaths, sources_of
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.covering.result import Coverage


def coverage(
    lake: Annotated[str, typer.Argument(metavar="LAKE", help="Folder or address of the lake.")],
    policy: Annotated[
        str | None, typer.Option(help="Whose policies: a bundle's folder, or a version in the lake.")
    ] = None,
    context: Annotated[
        str, typer.Option(help="Whose context.toml to compile facts again by; `recorded`: as they were.")
    ] = "recorded",
    source: SourcePaths = None,
    against: Annotated[
        str | None, typer.Option(metavar="LAKE", help="Say what LAKE exercises and this one does not.")
    ] = None,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
    html: HtmlPath = None,
    lcov: Annotated[
        Path | None, typer.Option("--lcov", help="Write an LCOV tracefile, for genhtml and the like.")
    ] = None,
) -> None:
    """Say which policies, clauses, contexts and values the decisions of a lake exercise."""
    if against is not None and lcov is not None:
        raise WorkbenchError("--lcov is of one lake; leave --against out")
    found = _coverage(lake, policy, context, source)
    if against is not None:
        gap = found.against(_coverage(against, policy, context, source))
        emit(gap, as_json=as_json, as_markdown=as_markdown, html=html)
        return
    emit(found, as_json=as_json, as_markdown=as_markdown, html=None)
    out = sys.stderr if as_json or as_markdown else sys.stdout
    if html is not None:
        print(f"page: {found.to_html(html)}", file=out)
    if lcov is not None:
        from workbench.faces import written

        root = str(Path(policy).absolute()) if policy is not None and Path(policy).is_dir() else ""
        print(f"tracefile: {written(found.lcov(root), lcov)}", file=out)


def _coverage(lake: str, policy: str | None, context: str, source: SourcePaths) -> Coverage:
    from workbench.covering.result import coverage as count
    from workbench.lake import open_lake

    return count(open_lake(lake), policy, context=context, sources=sources_of(source))
