"""The command `redecide verify`: whether a ledger is what its runtime wrote.

One rule: it only looks. Exit code 0: every row has its hash and follows the one before it; 1: something is wrong,
each fault on a line of its own; 2: the ledger could not be read.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtime.verifying import Head, verify_ledger
from workbench.cli_ledger import ledger_file
from workbench.errors import WorkbenchError
from workbench.texts import count, visible

if TYPE_CHECKING:
    from runtime.verifying import Verified

BROKEN = 1
"""Exit code: something is wrong."""


def verify(
    ledger: Annotated[
        str, typer.Argument(metavar="LEDGER|LAKE", help="A ledger's file, or the lake it is in.")
    ],
    expect_head: Annotated[
        str | None,
        typer.Option(
            metavar="POSITION:HASH", help="A head that an earlier `verify` printed, kept elsewhere."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Hash a ledger's chain and contents: was a row changed, removed, reordered, or an old copy put back?"""
    found = verify_ledger(
        ledger_file(ledger), expect_head=None if expect_head is None else _head(expect_head)
    )
    if as_json:
        print(json.dumps(_told(found), indent=2))
    else:
        _print(found)
    if not found.whole:
        raise typer.Exit(BROKEN)


def _head(text: str) -> Head:
    try:
        return Head.parse(text)
    except ValueError as exc:
        raise WorkbenchError(str(exc)) from exc


def _print(found: Verified) -> None:
    for link in found.broken:
        print(f"BAD   position {link.position:,}: {visible(link.what)}")
    for content in found.changed:
        print(f"BAD   `{visible(content.table)}` {visible(content.key)}: changed")
    if found.faults > len(found.broken) + len(found.changed):
        print(f"BAD   in all: {count(found.faults, 'fault')}")
    rows = f"{count(found.rows, 'row')} of the chain, {found.contents:,} of contents"
    if found.unhashed:
        rows += f"; {found.unhashed:,} of contents have no hash, since an earlier release wrote them"
    print(f"{'ok  ' if found.whole else 'BAD '}  ledger {found.ledger_id}: {rows}")
    print(f"head  {found.head}")


def _told(found: Verified) -> dict[str, Any]:
    return {
        "whole": found.whole,
        "ledger": found.ledger_id,
        "rows": found.rows,
        "contents": found.contents,
        "unhashed": found.unhashed,
        "head": str(found.head),
        "faults": found.faults,
        "broken": [
            {"position": link.position, "table": link.table, "what": link.what} for link in found.broken
        ],
        "changed": [content._asdict() for content in found.changed],
    }
