"""`redecide drift`: what changed between two windows of the log, and which decisions hang on it.

One rule: a window is times (`2026-11-01..2026-11-08`), another lake, or what a saved replay covers; each looks unlike
the others, so that none is guessed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli_output import AsJson, AsMarkdown, HtmlPath, emit
from workbench.cli_replay import LakePath, note
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.drifting.windows import Given
    from workbench.lake import Lake

BETWEEN = ".."
"""Between the start and the end of a window; either may be left out."""


def drift(
    lake: LakePath,
    before: Annotated[
        str,
        typer.Option(
            metavar="WINDOW", help="START..END (ISO, UTC; either may be left out), a saved replay, or a lake."
        ),
    ],
    after: Annotated[
        str | None, typer.Option(metavar="WINDOW", help="The same. Default: what came after --before.")
    ] = None,
    level: Annotated[
        float, typer.Option(help="One minus the chance that any is said to have drifted where none did.")
    ] = 0.95,
    least: Annotated[float, typer.Option(help="Distance (Jensen-Shannon, 0 to 1) that matters.")] = 0.1,
    out: Annotated[Path | None, typer.Option(help="Write all variables to this Parquet file.")] = None,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
    html: HtmlPath = None,
) -> None:
    """Say what changed most between two windows: facts, arguments, tools, verdicts; and which policies read them."""
    from workbench.drifting.drift import drift as drift_of
    from workbench.lake import open_lake

    opened = open_lake(lake)
    windows = window_of(opened, before), None if after is None else window_of(opened, after)
    found = drift_of(opened, *windows, level=level, least=least)
    if out is not None:
        found.frame.sink_parquet(out)
    emit(found, as_json=as_json, as_markdown=as_markdown, html=html)
    note({"rows": out}, quiet=as_json or as_markdown)


def window_of(lake: Lake, text: str) -> Given:
    """Read a window as it is given on the command line.

    Args:
        lake: in which replays are saved.
        text: `START..END`, where either end may be left out; a lake's folder or address; or the name or id of a saved
            replay: all rows up to what it pins.

    Raises:
        WorkbenchError: it is none of these; times that are no times are refused by `wb.drift`.
    """
    from workbench.errors import ReplayNotFound
    from workbench.keeping.saved import saved
    from workbench.lake import open_lake

    start, between, end = text.partition(BETWEEN)
    if between and not any(each in text for each in "/\\"):  # `../lake` is a folder
        return start.strip() or None, end.strip() or None
    if "://" in text or Path(text).is_dir():
        return open_lake(text)
    try:
        return saved(lake, text).pins
    except ReplayNotFound as exc:
        raise WorkbenchError(
            f"{text!r} is no window: give times as 2026-11-01{BETWEEN}2026-11-08, the folder of a lake, or a saved "
            f"replay ({exc})"
        ) from exc
