"""Approvals, looked at: who denied and why, and a list that writes nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runtime.approvals import Approvals
from runtime.approvals_read import look_at_approvals
from runtime.errors import ApprovalError, ApprovalUnknown, LedgerCorrupt, LedgerError
from workbench.cli import main

if TYPE_CHECKING:
    from collections.abc import Mapping

GOLDEN = Path(__file__).parent / "golden"


def look(desk: Any, state: Any = None, tenant: str | None = None) -> Any:
    path = desk.runtime.ledger.path
    return look_at_approvals(path, lambda here: here.list(tenant, state), clock=desk.clock)


def files(folder: Path) -> Mapping[str, tuple[int, bytes]]:
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


def asked_of_every_kind(desk: Any) -> dict[str, str]:
    """Approvals in every state, and who is to be seen in it."""
    made = {desk.ask(500 + number): name for number, name in enumerate(("granted", "denied", "consumed"))}
    for ident, name in made.items():
        if name == "denied":
            desk.approvals.deny(ident, desk.token(ident, decision="denied"), reason="not today")
        else:
            desk.approvals.grant(ident, desk.token(ident))
        if name == "consumed":
            desk.session().resume(ident)
    return made | {desk.ask(900): "pending"}


# -- who denied ------------------------------------------------------------------------------------------------


def test_a_denial_says_who_when_and_why(desk: Any) -> None:
    ident = desk.ask(500)
    assert desk.approvals.get(ident).denial is None
    denied = desk.approvals.deny(ident, desk.token(ident, decision="denied"), reason="not \ud800 today")
    assert denied.denial is not None
    assert (denied.denial.approver, denied.denial.denied_at) == ('User::"fin"', desk.clock.now)
    assert denied.denial.reason == "not \\ud800 today"
    assert denied.denial.id in {row["outcome_id"] for row in desk.rows(ident) if row["kind"] == "approval"}
    assert desk.approvals.list(state="denied") == (denied,)
    assert "denied by User::" in repr(denied)


def test_a_denial_after_a_grant_is_the_denial(desk: Any) -> None:
    ident = desk.ask(500)
    desk.approvals.grant(ident, desk.token(ident))
    other = desk.token(ident, "User::cfo", decision="denied")
    found = desk.approvals.deny(ident, other).denial
    assert (found.approver, found.reason) == ('User::"cfo"', None)


def test_a_denial_of_several_policies_is_one(desk: Any) -> None:
    ident = desk.ask(5000)
    assert len(desk.approvals.get(ident).needs) > 1
    both = desk.token(ident, "User::fin", "Role::finance", "Role::board", decision="denied")
    assert desk.approvals.deny(ident, both, reason="no").denial.reason == "no"


def test_nothing_else_has_a_denial(desk: Any) -> None:
    made = asked_of_every_kind(desk)
    assert {made[each.id] for each in desk.approvals.list(state=None) if each.denial is not None} == {
        "denied"
    }


@pytest.mark.parametrize(
    "damage", ["UPDATE outcomes SET row = replace(row, 'not today', 'gladly')", "DELETE FROM outcomes"]
)
def test_a_denial_that_was_touched_is_not_told(desk: Any, damage: str) -> None:
    ident = desk.ask(500)
    desk.approvals.deny(ident, desk.token(ident, decision="denied"), reason="not today")
    with sqlite3.connect(desk.runtime.ledger.path) as database:
        database.execute(f"{damage} WHERE kind = 'approval'")
    database.close()
    with pytest.raises(LedgerCorrupt):
        desk.approvals.get(ident)
    with pytest.raises(LedgerCorrupt):
        look(desk)


# -- looking ---------------------------------------------------------------------------------------------------


def test_looking_sees_what_the_runtime_does(desk: Any) -> None:
    made = asked_of_every_kind(desk)
    assert look(desk) == desk.approvals.list(state=None)
    for ident, state in made.items():
        assert [each.id for each in look(desk, state)] == [ident]
    assert look(desk, tenant="other") == ()
    path = desk.runtime.ledger.path
    one = desk.approvals.list()[0]
    assert look_at_approvals(path, lambda here: here.facts(here.get(one.id))) == desk.approvals.facts(one)


def test_looking_writes_nothing(desk: Any) -> None:
    made = asked_of_every_kind(desk)
    desk.runtime.ledger.close()
    folder = desk.runtime.ledger.path.parent
    before = files(folder)
    assert len(look(desk)) == len(made)
    assert files(folder) == before


def test_what_expired_is_shown_so_and_left_open(desk: Any) -> None:
    made = asked_of_every_kind(desk)
    desk.clock.now += timedelta(hours=24)
    states = {made[each.id]: each.state for each in look(desk)}
    assert states == {
        "granted": "expired", "denied": "denied", "consumed": "consumed", "pending": "expired",
    }  # fmt: skip
    assert len(look(desk, "expired")) == 2
    assert look(desk, "pending") == ()
    assert [row for ident in made for row in desk.rows(ident) if row.get("status") == "expired"] == []
    assert Approvals(desk.runtime.ledger, clock=desk.clock).expire() == 2
    assert look(desk) == desk.approvals.list(state=None)


def test_what_cannot_be_looked_at(desk: Any, tmp_path: Path) -> None:
    with pytest.raises(ApprovalError, match="must be one of"):
        look(desk, "gone")
    with pytest.raises(ApprovalUnknown, match="no approval 'x'"):
        look_at_approvals(desk.runtime.ledger.path, lambda here: here.get("x"))
    with pytest.raises(LedgerError, match="no ledger"):
        look_at_approvals(tmp_path / "gone", lambda here: here.list())


def test_a_ledger_from_before_approvals_has_none_and_stays_as_old(tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "ledger_v1.sqlite", tmp_path / "l.sqlite")
    before = files(tmp_path)
    assert look_at_approvals(tmp_path / "l.sqlite", lambda here: here.list()) == ()
    with pytest.raises(ApprovalUnknown, match="earlier release"):
        look_at_approvals(tmp_path / "l.sqlite", lambda here: here.get("x"))
    assert files(tmp_path) == before


# -- the command -----------------------------------------------------------------------------------------------


def told(capsys: Any, monkeypatch: Any, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["redecide", "approvals", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert (ended.value.code or 0, err) == (0, "")
    return str(out)


def test_the_commands_that_look_need_no_leave_to_write(
    tmp_path: Path, make_desk: Any, capsys: Any, monkeypatch: Any
) -> None:
    desk = make_desk(tmp_path / "lake", clock=None)
    ident = desk.ask(500)
    desk.clock.now = desk.approvals.get(ident).asked_at
    desk.approvals.deny(ident, desk.token(ident, decision="denied"), reason="no \x1b[31m")
    desk.runtime.ledger.close()
    ledger = desk.runtime.ledger.path
    ledger.chmod(0o444)
    before = files(tmp_path)
    listed = told(capsys, monkeypatch, "list", str(ledger), "--state", "denied")
    assert 'said no  by User::"fin" at ' in listed
    assert "no \\x1b[31m" in listed
    assert "no \\x1b[31m" in told(capsys, monkeypatch, "show", str(ledger), ident)
    (found,) = json.loads(told(capsys, monkeypatch, "list", str(ledger), "--state", "all", "--json"))
    assert (found["denied"]["by"], found["denied"]["reason"]) == ('User::"fin"', "no \x1b[31m")
    assert files(tmp_path) == before
