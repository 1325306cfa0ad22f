"""`redecide import`: bring your own traces.

One rule: it writes a lake of its own and a file of what it kept aside, and never into anything that is there.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from workbench.cli_output import AsJson, AsMarkdown, HtmlPath, emit
from workbench.errors import WorkbenchError

app = typer.Typer(
    help="Make a lake of recorded calls that were not governed by Redecide.", no_args_is_help=True
)


@app.callback()
def _group() -> None:
    """Make a lake of recorded calls that were not governed by Redecide."""


@app.command()
def calls(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Parquet or JSON lines: a row a tool call.")],
    mapping: Annotated[
        Path | None, typer.Option(help="TOML file: which columns hold what. See --suggest.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the new lake; must not be there yet.")] = None,
    runs: Annotated[
        Path | None, typer.Option(help="Parquet or JSON lines: a row a session, with its labels.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Write the baseline to this folder, too: start a policy from it.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing: say what would be imported.")
    ] = False,
    suggest: Annotated[
        bool, typer.Option("--suggest", help="Print a mapping guessed from the columns.")
    ] = False,
    as_json: AsJson = False,
    markdown: AsMarkdown = False,
    html: HtmlPath = None,
) -> None:
    """Import a table of tool calls as a lake: an ungoverned baseline, to replay policies over."""
    from workbench.importing import import_calls
    from workbench.importing.suggest import suggest as suggested

    if suggest:
        print(suggested(file), end="")
        return
    if mapping is None:
        raise WorkbenchError(
            "say which columns hold what: --mapping MAP.toml; --suggest prints one to start from"
        )
    if (out is None) != dry_run:
        raise WorkbenchError("give --out LAKE to write a lake, or --dry-run to see what would be in it")
    emit(
        import_calls(file, mapping, out, runs=runs, bundle_folder=bundle),
        as_json=as_json, as_markdown=markdown, html=html,
    )  # fmt: skip
