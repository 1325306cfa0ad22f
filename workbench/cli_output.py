"""Options that say how a command prints its result: plain text, JSON, Markdown, and an HTML page beside it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.faces import Shown

AsJson = Annotated[bool, typer.Option("--json", help="Print all of it as one JSON object.")]
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Print it as Markdown.")]
HtmlPath = Annotated[Path | None, typer.Option("--html", help="Write it to this file, as a page, too.")]


def emit(result: Shown, *, as_json: bool, as_markdown: bool, html: Path | None) -> None:
    """Print a result on standard output, and write the page that is asked for.

    Raises:
        WorkbenchError: JSON and Markdown are asked for at once.
    """
    from workbench import faces

    if as_json and as_markdown:
        raise WorkbenchError("give --json or --markdown, not both")
    if as_json:
        print(json.dumps(result.as_dict(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        page = replace(result.page(), next=())  # Python's next steps are for a notebook
        print(faces.markdown(page) if as_markdown else faces.text(page))
    if html is not None:
        where = faces.write(result.page(), html)
        print(f"page: {where}", file=sys.stderr if as_json or as_markdown else sys.stdout)
