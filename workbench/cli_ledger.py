"""Commands about a runtime's ledger: what it holds, what a person found out, bringing it and its lake up to date.

One rule: `doctor` and `upgrade --dry-run` only look; `resolve` writes one outcome, and `upgrade` what it has told.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtime.bundle import bundle_from_files
from runtime.errors import BundleError, GovernanceError
from runtime.inspection import Inspection, inspect_ledger
from runtime.lake import LEDGER_FILE, LakeStore
from runtime.ledger import Ledger
from runtime.ledgerfile import LEDGER_VERSION
from runtime.limits import Limits
from runtime.recovery import resolve_in
from runtime.upgrade import plan
from runtime.upgrade import upgrade as do_upgrade
from workbench.doctor import Finding
from workbench.errors import LakeEmpty, WorkbenchError
from workbench.texts import count, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.inspection import Asked, InForce, UnderWay

LOG_BYTES = 64 << 20
"""A log above this is worth knowing: something keeps it from being moved into the file."""
SHOWN = 20
"""Actions, approvals and stops that are told one by one."""


def findings(target: str, ledger: Path | None = None) -> Iterator[Finding]:
    """Report a lake and the ledger beside it, or a ledger alone.

    Args:
        target: a lake, or a ledger's file.
        ledger: the ledger of the lake, where it is not beside it.

    Raises:
        LakeError: there is no lake, or it cannot be read.
        LedgerError: there is no such ledger, or it cannot be looked into.
    """
    if "://" not in target and Path(target).is_file():
        yield from ledger_findings(inspect_ledger(target))
        return
    from workbench.doctor_lake import lake_findings  # with Polars, which a base install has not

    path = ledger or beside(target)
    look = None if path is None else inspect_ledger(path, LakeStore(target))
    undrained = [look.id] if look is not None and (look.undrained or {}).get("outcomes") else []
    try:
        yield from lake_findings(target, undrained)
    except LakeEmpty as exc:
        yield Finding("lake", "note", str(exc))
    if look is not None:
        yield from ledger_findings(look)


def beside(lake: str) -> Path | None:
    """Return the ledger in a local lake, if it is there."""
    path = Path(lake).expanduser() / LEDGER_FILE
    return path if "://" not in lake and path.is_file() else None


def ledger_file(target: str | Path) -> Path:
    """Return the ledger's file that a command is about: given itself, or in the local lake that is.

    Raises:
        WorkbenchError: there is none.
    """
    if "://" in str(target):
        raise WorkbenchError(f"{target!r} is a URL; name the ledger's file, as `Runtime.open(ledger=…)` does")
    path = Path(target).expanduser()
    found = path / LEDGER_FILE if path.is_dir() else path
    if not found.is_file():
        raise WorkbenchError(
            f"no ledger at {str(found)!r}; give its file, or the folder of a lake it is kept in"
        )
    return found


def ledger_findings(look: Inspection) -> Iterator[Finding]:
    """Say what was found in a ledger. Bad: its file is damaged, or something in it is in doubt."""
    end = max(look.ends["decisions"], look.ends["outcomes"])
    size = f"{count(end, 'position')}, {look.file_bytes:,} bytes"
    yield Finding("ledger", "ok", f"{look.path}: {look.id}, version {look.version}, {size}")
    for fault in look.faults:
        yield Finding("ledger", "bad", f"the file is damaged: {fault}; keep it, and restore a copy")
    if look.version < LEDGER_VERSION:
        yield Finding(
            "ledger", "note", f"the next `Runtime.open`, or `redecide upgrade`, brings it to {LEDGER_VERSION}"
        )
    if look.log_bytes > LOG_BYTES:
        what = f"its log has {look.log_bytes:,} bytes: a process that reads for long keeps it from shrinking"
        yield Finding("ledger", "note", what)
    yield from _drained(look)
    actions = (_action(each, look.path) for each in look.actions)
    yield from _first(actions, "action", Counter(each.state for each in look.actions))
    yield from _first(
        map(_approval, look.approvals), "approval", Counter(each.state for each in look.approvals)
    )
    yield from _first(map(_stop, look.stops), "stop", Counter({"in force": len(look.stops)}))


def _first(told: Iterator[Finding], subject: str, states: Counter[str]) -> Iterator[Finding]:
    """Tell the bad ones and the first others; how many there are of each, where that is not all."""
    shown = 0
    for finding in told:
        shown += finding.status != "bad"
        if finding.status == "bad" or shown <= SHOWN:
            yield finding
    if shown > SHOWN:
        total = ", ".join(f"{n:,} {visible(state.replace('_', ' '))}" for state, n in states.most_common())
        yield Finding(subject, "note", f"in all: {total}")


def _drained(look: Inspection) -> Iterator[Finding]:
    if look.undrained is None:
        return
    for table, end in look.ahead.items():
        what = f"the lake holds `{table}` of it up to {end:,}, the ledger ends at {look.ends[table]:,}"
        yield Finding("drain", "bad", f"{what}: an old copy was put back; keep both and start a new ledger")
    if look.undrained:
        rows = ", ".join(f"{count(n, 'row')} of `{table}`" for table, n in look.undrained.items())
        yield Finding("drain", "note", f"not in the lake yet: {rows}; `Runtime.drain` brings them")
    elif not look.ahead:
        yield Finding("drain", "ok", "all of the ledger is in the lake")


def _action(action: UnderWay, path: Path) -> Finding:
    what = f"decision {action.decision_id}: {_about(action.tool, action.resource, action.tenant)}"
    since = f"since {_when(action.since)}"
    if action.in_doubt:
        gone = "" if action.state == "in_doubt" else f", {action.state}, and its process is gone"
        command = f"redecide resolve {path} {action.decision_id} --as succeeded|failed|aborted --by WHO --reason HOW"
        fix = f"find out whether it took effect, then: {command}"
        return Finding("action", "bad", f"{what}, in doubt {since}{gone}; {fix}")
    if action.state == "aborting":
        return Finding(
            "action", "note", f"{what}, aborted {since}; its tool is told when it is next registered"
        )
    if action.becomes is not None:
        fix = f"the next `Runtime.open` records it as {action.becomes}"
        return Finding("action", "note", f"{what}, {action.state} {since}, and its process is gone; {fix}")
    whose = "by a process that lives" if action.lives else "; whether its process lives cannot be told"
    return Finding("action", "ok" if action.lives else "note", f"{what}, {action.state} {since} {whose}")


def _approval(asked: Asked) -> Finding:
    what = f"{asked.approval_id}: {_about(asked.tool, asked.resource, asked.tenant)}, asked {_when(asked.asked_at)}"
    if asked.expires_at <= datetime.now(UTC).timestamp() * 1e6:
        return Finding("approval", "note", f"{what}, expired {_when(asked.expires_at)}, not closed yet")
    stands = (
        f"waits for {', '.join(map(visible, asked.lacking))}"
        if asked.lacking
        else "granted, and not used yet"
    )
    return Finding("approval", "note", f"{what}, {stands}; until {_when(asked.expires_at)}")


def _stop(stop: InForce) -> Finding:
    names = ", ".join(f"{name} {visible(value)}" for name, value in stop.names.items()) or "everything"
    by = f"by {visible(stop.set_by)}, {_when(stop.set_at)}: {visible(stop.reason)}"
    return Finding("stop", "note", f"{stop.stop_id} stops {names}; {by}")


def _about(tool: str, resource: str | None, tenant: str) -> str:
    on = "" if resource is None else f" on {visible(resource)}"
    return f"tool `{visible(tool)}`{on} of tenant {visible(tenant)!r}"


def _when(micros: int) -> str:
    try:
        return f"{datetime.fromtimestamp(micros / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError):  # a clock that was far off
        return f"at {micros:,} µs since 1970"


# -- commands --------------------------------------------------------------------------------------------------


class Ending(StrEnum):
    """What became of an action that was in doubt."""

    succeeded = "succeeded"
    failed = "failed"
    aborted = "aborted"
    compensated = "compensated"


def resolve(
    ledger: Annotated[Path, typer.Argument(metavar="LEDGER", help="The ledger's file, or its local lake.")],
    decision_id: Annotated[str, typer.Argument(metavar="DECISION_ID", help="As `redecide doctor` names it.")],
    ending: Annotated[Ending, typer.Option("--as", help="What you found: did it take effect?")],
    by: Annotated[str, typer.Option(help="Who found it out.")],
    reason: Annotated[str, typer.Option(help="How: what was looked at.")],
) -> None:
    """Record what became of an action in doubt. It is evidence, and final; to run it again, use another key."""
    path = ledger_file(ledger)
    for name, text in (("--by", by), ("--reason", reason)):
        if not text.strip():
            raise WorkbenchError(f"{name} must not be empty: it is kept as evidence")
    with Ledger.open(path, create=False) as opened:
        limits = _limits_of(opened, decision_id)
        try:
            row = resolve_in(
                opened, decision_id, ending.value, f"{by}: {reason}", limits=limits, at=datetime.now(UTC)
            )
        except (GovernanceError, ValueError) as exc:
            raise WorkbenchError(f"{exc}; `redecide doctor {path}` lists what is in doubt") from exc
    print(f"decision {decision_id}: {row['status']}, recorded as position {row['position']} of {path}")


def _limits_of(ledger: Ledger, decision_id: str) -> Limits:
    """The limits that a decision was made under, from the bundle's texts in the ledger; none, where they are lost."""
    row = ledger.decision(decision_id)
    version = None if row is None else row["bundle_version"]
    rows = (json.loads(text) for (text,) in ledger.query("SELECT row FROM contents WHERE tbl = 'policies'"))
    texts: dict[str, Any] = {each["file"]: each["text"] for each in rows if each["bundle_version"] == version}
    try:
        return bundle_from_files(texts, "recorded").limits
    except BundleError:
        return Limits(text="")


def upgrade(
    lake: Annotated[
        str, typer.Argument(metavar="LAKE", help="Folder or URL of the lake, or a ledger's file.")
    ],
    ledger: Annotated[Path | None, typer.Option(help="Its ledger, where it is not beside it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Bring a lake and its ledger to this release's versions. Earlier releases then refuse them, by name."""
    alone = "://" not in lake and Path(lake).is_file()
    if not alone and "://" not in lake and not Path(lake).is_dir():
        raise WorkbenchError(f"no lake at {lake}: nothing is there")
    path = Path(lake) if alone else ledger or beside(lake)
    store = None if alone else LakeStore(lake, write=not dry_run)
    steps = plan(store, path) if dry_run else do_upgrade(store, path)
    for step in steps:
        more = f", adds {', '.join(step.columns)}" if step.columns else ""
        print(f"{step.subject}: version {step.version} → {step.to}{more}")
    if not steps:
        print("up to date")
    elif dry_run:
        print("nothing was changed; leave --dry-run out to do it")
