"""`redecide stop`: the emergency stop, from the shell.

One rule: it works over the ledger alone; every process that shares it obeys at its next decision, whether the lake,
the bundle or the agent can be reached or not.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from runtime.ledger import Ledger
from runtime.stops import Stops
from workbench.cli_ledger import ledger_file
from workbench.errors import WorkbenchError
from workbench.texts import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runtime.stops import Stop

_OF_RECENT = (
    "SELECT 1 FROM (SELECT row FROM decisions ORDER BY position DESC LIMIT 100000)"
    " WHERE json_extract(row, ?) = ? LIMIT 1"
)


def stop(
    ledger: Annotated[Path, typer.Argument(metavar="LEDGER", help="A ledger's file, or the lake beside it.")],
    tenant: Annotated[str | None, typer.Option(help="Stop the calls of this tenant.")] = None,
    tool: Annotated[str | None, typer.Option(help="Stop the calls of this tool.")] = None,
    agent: Annotated[str | None, typer.Option(help="Stop this principal: `Agent::refund-bot`.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Stop all calls; or lift all stops.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why; everybody whose call is blocked is told.")] = None,
    by: Annotated[str | None, typer.Option(help="Who says so. Default: the user logged in.")] = None,
    lift: Annotated[
        bool, typer.Option("--lift", help="Lift stops: those that name the same, or --all.")
    ] = False,
    stop_id: Annotated[str | None, typer.Option("--id", help="With --lift: this stop.")] = None,
    history: Annotated[bool, typer.Option("--history", help="List those that were lifted, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print stops as JSON.")] = False,
) -> None:
    """Stop calls at once, in every process that shares a ledger. Without options: list the stops in force."""
    named = {"tenant": tenant, "tool": tool, "agent": agent}
    given = everything or any(name is not None for name in named.values())
    with Ledger.open(ledger_file(ledger), create=False) as opened:
        stops = Stops(opened)
        if lift:
            _print(_lifted(stops, named, stop_id, by, everything=everything), "lifted", as_json=as_json)
        elif given:
            if reason is None:
                raise WorkbenchError("say why: --reason 'double bookings since 14:00'")
            made = stops.set(**named, everything=everything, reason=reason, by=by)
            _print([made], "stopped", as_json=as_json)
            for name, value in _unheard_of(opened, tenant=tenant, tool=tool):
                print(f"note: no call in this ledger was of {name} {visible(repr(value))}", file=sys.stderr)
        elif reason is not None or stop_id is not None:
            raise WorkbenchError(
                "say what to stop: --tenant, --tool, --agent, or --all; or what to lift: --lift"
            )
        else:
            _print(stops.history(lifted=history), "in force", as_json=as_json)


def _unheard_of(ledger: Ledger, **named: str | None) -> Iterator[tuple[str, str]]:
    """What a stop names and no recent decision does: right for what is still to come, or a slip of the pen."""
    for name, value in named.items():
        if value is not None and not ledger.query(_OF_RECENT, (f"$.{name}", value)):
            yield name, value


def _lifted(
    stops: Stops, named: dict[str, str | None], stop_id: str | None, by: str | None, *, everything: bool
) -> Sequence[Stop]:
    """Lift what is named: one by its id, all, or those that name exactly the same."""
    ways = [stop_id is not None, everything, any(named.values())]
    if sum(ways) != 1:
        raise WorkbenchError(
            "say which stops to lift: --id ID, --all, or what they name (--tenant, --tool, --agent)"
        )
    if stop_id is not None:
        return stops.lift(stop_id, by=by)
    found = list(stops) if everything else stops.named(**named)
    if not found and not everything:
        raise WorkbenchError("no stop in force names exactly that; list them with `redecide stop LEDGER`")
    return stops.lift(*found, by=by) if found else []


def _print(stops: Sequence[Stop], what: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(each) for each in stops], indent=2))
        return
    for each in stops:
        print(visible(_line(each, what)))
    if not stops:
        print("no emergency stop " + ("was lifted" if what == "lifted" else "is in force"))


def _line(stop: Stop, what: str) -> str:
    said = f"{stop.stop_id}  {stop}: {stop.reason} ({stop.set_by}, {_when(stop.set_at)})"
    if stop.lifted_at is not None:
        return f"lifted    {said}; lifted by {stop.lifted_by}, {_when(stop.lifted_at)}"
    return f"{what:<8}  {said}"


def _when(moment: int) -> str:
    return datetime.fromtimestamp(moment / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
