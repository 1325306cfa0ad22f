"""Looking at a ledger from outside: what is told is what is there, and the looking changes nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runtime import approval_state
from runtime.drain import drain
from runtime.errors import CommitConflict, LedgerCorrupt, LedgerError, LedgerTooNew
from runtime.inspection import Inspection, inspect_ledger
from runtime.lake import LakeStore
from runtime.ledger import Ledger
from runtime.ledgerfile import LEDGER_VERSION
from runtime.stops import Stops
from runtime.testing import MOMENT, context, decision, execution
from runtime.trace import DECISIONS, OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = Path(__file__).parent / "golden" / "lake_v1"
RESOURCE = {"resource_type": "Order", "resource_id": 'o "1"'}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def begin(ledger: Ledger, name: str, **given: Any) -> dict[str, Any]:
    made = decision(decision_id=name, tenant="acme", tool="pay", **RESOURCE | given)
    ledger.commit(contents=[context(name)], evidence=[(DECISIONS, made)])
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- it only looks ---------------------------------------------------------------------------------------------


def test_looking_changes_no_file_and_makes_none(path: Path) -> None:
    with Ledger.open(path) as ledger:
        begin(ledger, "d-1")
    before = files(path.parent)
    assert f"{path.name}-wal" not in before
    assert inspect_ledger(path).ends["decisions"] == 1
    assert files(path.parent) == before


def test_an_older_ledger_stays_as_old_as_it_is(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "lake")
    before = files(tmp_path)
    look = inspect_ledger(tmp_path / "lake" / "_ledger.sqlite", LakeStore(tmp_path / "lake"))
    assert look.version == 2 < LEDGER_VERSION
    assert look.undrained == {"decisions": 6, "outcomes": 6}
    assert [(each.tool, each.resource, each.state, each.lives) for each in look.actions] == [
        ("refund", 'Order::"acme-1"', "started", False)
    ] * 2
    assert [each.in_doubt for each in look.actions] == [True, True]
    assert files(tmp_path) == before


def test_a_ledger_in_use_is_seen_as_it_is_now(path: Path) -> None:
    """Its log holds what the file does not."""
    with Ledger.open(path) as ledger:
        begin(ledger, "d-1")
        assert inspect_ledger(path).log_bytes > 0
        assert [each.decision_id for each in inspect_ledger(path).actions] == ["d-1"]
        ended = execution(begin(ledger, "d-2"))
        ledger.commit(evidence=[(OUTCOMES, ended)])
        look = inspect_ledger(path)
        assert [each.decision_id for each in look.actions] == ["d-1"]
        assert (look.ends["decisions"], look.ends["outcomes"], look.ends["contexts"]) == (2, 3, 2)
        begin(ledger, "d-3")  # looking has taken no lock that is still held


def test_a_writer_that_comes_while_it_looks_is_noticed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger.open(path) as ledger:
        begin(ledger, "d-1")

    def write() -> None:
        with Ledger.open(path) as ledger:
            begin(ledger, f"w-{len(calls)}")

    calls: list[int] = []
    real = inspect_ledger.__globals__["_looked"]

    def looked(*args: Any) -> Inspection:
        found: Inspection = real(*args)
        calls.append(1)
        if len(calls) == 1 or always:
            write()
        return found

    monkeypatch.setattr("runtime.inspection._looked", looked)
    always = False
    assert inspect_ledger(path).ends["decisions"] == 2
    assert len(calls) == 2
    always = True
    with pytest.raises(CommitConflict, match="look again"):
        inspect_ledger(path)


# -- what it tells ---------------------------------------------------------------------------------------------


def test_nothing_is_under_way(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.commit(evidence=[(OUTCOMES, execution(begin(ledger, "d-1")))])
        look = inspect_ledger(path)
    assert (look.id, look.version, look.faults) == (ledger.id, LEDGER_VERSION, ())
    assert (look.actions, look.approvals, look.stops, look.undrained, look.ahead) == ((), (), (), None, {})


DYING = """
import os, sys
from runtime.ledger import Ledger
from runtime import actions
from runtime.testing import decision
from runtime.trace import DECISIONS
ledger = Ledger.open(sys.argv[1])
for name, effect, moves in {calls!r}:
    made = decision(decision_id=name, tenant="acme", tool="pay", effect=effect)
    ledger.commit(evidence=[(DECISIONS, made)])
    for old, new in moves:
        ledger.commit(moves=[actions.move(name, old, new, at={moment})])
os._exit(0)
"""
CALLS: list[tuple[str, str | None, list[tuple[str, str]]]] = [
    ("undeclared", None, []),
    ("read", "read", []),
    ("prepared", "staged", [("preparing", "staged")]),
    ("sent", "staged", [("preparing", "staged"), ("staged", "committing")]),
    ("undoing", "compensable", [("started", "undoing")]),
]
BECOMES = {
    "undeclared": "in_doubt",
    "read": "cancelled",
    "prepared": "aborted",
    "sent": "in_doubt",
    "undoing": "in_doubt",
}


def test_what_a_dead_process_left_is_told_with_what_becomes_of_it(path: Path) -> None:
    code = DYING.format(calls=CALLS, moment=MOMENT)
    subprocess.run([sys.executable, "-P", "-c", code, str(path)], check=True)
    before = {name: data for name, data in files(path.parent).items() if not name.endswith("-shm")}
    look = inspect_ledger(path)
    assert {each.decision_id: each.becomes for each in look.actions} == BECOMES
    assert {each.lives for each in look.actions} == {False}
    assert {each.decision_id for each in look.actions if each.in_doubt} == {"undeclared", "sent", "undoing"}
    assert {name: data for name, data in files(path.parent).items() if not name.endswith("-shm")} == before


def test_what_a_living_process_runs_is_not_in_doubt(path: Path) -> None:
    with Ledger.open(path) as ledger:
        begin(ledger, "d-1")
        (action,) = inspect_ledger(path).actions
        assert (action.lives, action.becomes, action.in_doubt) == (True, None, False)
        assert (action.tenant, action.tool, action.resource) == ("acme", "pay", 'Order::"o \\"1\\""')
        ledger.commit(
            evidence=[(OUTCOMES, execution(decision(decision_id="d-1", tenant="acme"), status="in_doubt"))]
        )
        (action,) = inspect_ledger(path).actions
        assert (action.state, action.becomes, action.in_doubt) == ("in_doubt", None, True)
    (action,) = inspect_ledger(path).actions
    assert action.in_doubt


def test_a_holder_that_cannot_be_asked_counts_as_neither(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        raise LedgerError("no locks here")

    monkeypatch.setattr("runtime.inspection.is_alive", refuse)
    with Ledger.open(path) as ledger:
        begin(ledger, "d-1")
        (action,) = inspect_ledger(path).actions
    assert (action.lives, action.becomes, action.in_doubt) == (None, None, False)


def test_approvals_and_stops_are_told(path: Path) -> None:
    with Ledger.open(path) as ledger:
        for name in ("a-1", "a-2", "a-3"):
            begin(ledger, name, verdict="approve")
            asked = approval_state.asks(name, "acme", {"large": ["x"], "abroad": ["x"]}, MOMENT, MOMENT + 10)
            ledger.commit(moves=[asked])
        given = "INSERT INTO grants (grant_id, approval_id, policy, approver, granted_at) VALUES ('g', 'a-2', 'large', 'x', 1)"
        done = "UPDATE approvals SET state = 'denied' WHERE approval_id = 'a-3'"
        ledger.commit(moves=[lambda db: db.execute(given), lambda db: db.execute(done)])
        made = Stops(ledger).set(tenant="acme", tool="pay", reason="fraud", by="ana")
        lifted = Stops(ledger).set(everything=True, reason="test", by="ana")
        Stops(ledger).lift(lifted, by="bo")
        look = inspect_ledger(path)
    assert {each.approval_id: each.lacking for each in look.approvals} == {
        "a-1": ("abroad", "large"),
        "a-2": ("abroad",),
    }
    assert {(each.state, each.tool, each.expires_at) for each in look.approvals} == {
        ("pending", "pay", MOMENT + 10)
    }
    (stop,) = look.stops
    assert (stop.stop_id, dict(stop.names)) == (made.stop_id, {"tenant": "acme", "tool": "pay"})
    assert (stop.reason, stop.set_by) == ("fraud", "ana")


def test_what_the_lake_lacks_is_counted(path: Path, tmp_path: Path) -> None:
    store = LakeStore(tmp_path / "lake", write=True)
    with Ledger.open(path) as ledger:
        begin(ledger, "d-1")
        assert inspect_ledger(path, store).undrained == {"contexts": 1, "decisions": 1}
        drain(ledger, store)
        assert inspect_ledger(path, store).undrained == {}
        ledger.commit(evidence=[(OUTCOMES, execution(begin(ledger, "d-2")))])
        assert inspect_ledger(path, store).undrained == {"contexts": 1, "decisions": 1, "outcomes": 1}


def test_an_old_copy_that_was_put_back_is_found(path: Path, tmp_path: Path) -> None:
    store = LakeStore(tmp_path / "lake", write=True)
    with Ledger.open(path) as ledger:
        begin(ledger, "d-1")
    shutil.copy(path, tmp_path / "copy")
    with Ledger.open(path) as ledger:
        begin(ledger, "d-2")
        drain(ledger, store)
    assert inspect_ledger(path, store).ahead == {}
    assert inspect_ledger(tmp_path / "copy", store).ahead == {"decisions": 2, "contexts": 2}


# -- bad files -------------------------------------------------------------------------------------------------


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '99' WHERE name = 'schema_version'")
    db.close()


def _other(path: Path) -> None:
    path.unlink()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE t (x)")
    db.close()


BAD: dict[str, tuple[Callable[[Path], object], type[LedgerError], str]] = {
    "none": (os.unlink, LedgerError, "no ledger at"),
    "text": (lambda path: path.write_text("hello"), LedgerCorrupt, "is not a ledger"),
    "empty": (lambda path: path.write_bytes(b""), LedgerCorrupt, "is not a ledger"),
    "another database": (_other, LedgerCorrupt, "is not a ledger"),
    "newer": (_newer, LedgerTooNew, "schema version 99"),
    "torn": (lambda path: path.write_bytes(path.read_bytes()[:5000]), LedgerCorrupt, "restore a copy"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_by_name_and_left_alone(path: Path, name: str) -> None:
    Ledger.open(path).close()
    spoil, error, words = BAD[name]
    spoil(path)
    before = files(path.parent)
    with pytest.raises(error, match=words) as caught:
        inspect_ledger(path)
    assert type(caught.value) is error
    assert files(path.parent) == before


def test_a_damaged_page_is_told(path: Path) -> None:
    with Ledger.open(path) as ledger:
        for number in range(200):
            ledger.commit(evidence=[(OUTCOMES, execution(begin(ledger, f"d-{number}")))])
    data = bytearray(path.read_bytes())
    middle = len(data) // 4096 // 2 * 4096
    data[middle : middle + 64] = b"\xff" * 64
    path.write_bytes(bytes(data))
    try:
        faults = inspect_ledger(path).faults
    except LedgerCorrupt:
        return  # so damaged that SQLite gives up
    assert faults
