"""`redecide pin`: one recorded decision as a regression test, minimal and redacted."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.errors import PinInvalid

if TYPE_CHECKING:
    from workbench.pinning.pins import Pinned


def pin(
    lake: Annotated[str, typer.Argument(metavar="LAKE", help="Folder or URL of the lake's Delta tables.")],
    decision_id: Annotated[
        str, typer.Argument(metavar="DECISION_ID", help="Its id, or the first characters that only it has.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="File, or folder, to write it to. Default: print it on standard output."),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="Keep in clear, such as args.reason; repeat for several."),
    ] = None,
    expect: Annotated[
        str | None,
        typer.Option(metavar="VERDICT", help="The verdict that is right, where the recorded one is not."),
    ] = None,
    note: Annotated[str | None, typer.Option(help="Why it is pinned; it is in the file.")] = None,
) -> None:
    """Write a decision as a regression test: what policies read of it, and the verdict and clause to expect."""
    from workbench.lake import open_lake
    from workbench.pinning.making import pin as pinned

    if out is not None and not out.is_dir():
        _refuse_other(out, decision_id)
    found = pinned(open_lake(lake), decision_id, note=note, keep=keep or (), expect=expect)
    if out is None:
        print(found.text, end="")
    else:
        print(_told(found, found.write(out)))


def _refuse_other(out: Path, decision_id: str) -> None:
    """Refuse to write over anything but a pin of the same decision."""
    from workbench.pinning.pins import read_pin

    if out.exists() and not read_pin(out).decision_id.startswith(decision_id.strip()):
        raise PinInvalid(f"{out} is the pin of another decision; name another file")


def _told(found: Pinned, place: Path) -> str:
    """What was written, and what a reviewer has to look at: all of it, however long."""
    from workbench.texts import visible

    lines = [*found.page().lines, *(f"{what}: {', '.join(names)}" for what, names in found.contents)]
    return "\n".join([f"pinned {place}", *(f"  {visible(line)}" for line in lines)])


__all__ = ["pin"]
