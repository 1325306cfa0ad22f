"""The option `--source`: where facts are, for commands that compile contexts again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

SourcePaths = Annotated[
    list[str] | None,
    typer.Option("--source", metavar="NAME=PATH", help="Where facts are, for --context; or a folder of all."),
]


def sources_of(given: Sequence[str] | None) -> dict[str, str]:
    """Parse sources given as `NAME=PATH`, or as a folder whose children are sources by name."""
    found: dict[str, str] = {}
    for text in given or ():
        name, equals, path = text.partition("=")
        if name and path:
            found[name] = path
        elif not equals and Path(text).is_dir():
            found |= {child.name: str(child) for child in sorted(Path(text).iterdir())}
        else:
            why = "it is no folder" if not equals else "a name or a path is missing"
            raise WorkbenchError(
                f"--source takes NAME=PATH, or a folder of tables by name; of {text!r} {why}"
            )
    return found
