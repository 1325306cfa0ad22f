"""What `verify_ledger` calls whole is whole, and what was done to a row is named: by window as row by row."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from runtime import verifying, verifying_pieces, verifying_windows
from runtime.errors import LedgerCorrupt, LedgerError
from runtime.evidence import broken_links
from runtime.ledger import Ledger
from runtime.ledger_state import HEAD
from runtime.testing import blob, context, decision, execution
from runtime.trace import DECISIONS, GENESIS, OUTCOMES
from runtime.verifying import Head, verify_ledger
from workbench.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NASTY = 'quotes ","prev_hash":"0 and \\ and \n and ,"table":"x 😀'


@pytest.fixture(params=[(1, 4_096, False), (7, 9, False), (1_024, 4_096, False), (1, 1, False), (3, 5, True)])
def window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows and pieces of few and of many rows: a fault stands at their edges, and within; also with a helper."""
    rows, piece, helped = request.param
    monkeypatch.setattr(verifying_windows, "WINDOW_ROWS", rows)
    monkeypatch.setattr(verifying, "WINDOW_ROWS", rows)
    monkeypatch.setattr(verifying_windows, "MAX_ROWS", rows)
    monkeypatch.setattr(verifying, "PIECE", piece)
    if helped:
        always_helped(monkeypatch)


def always_helped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying_pieces, "HELPED", 1)
    monkeypatch.setattr(verifying_pieces, "_cores", lambda: 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        fill(ledger, 12)
    return path


def fill(ledger: Ledger, count: int, tag: str = "") -> None:
    for number in range(count):
        made = decision(reason=f"{NASTY}{tag}{number}")
        ledger.commit(contents=[context(f"{tag}{number}{NASTY}")], evidence=[(DECISIONS, made)])
        if number % 3:
            ledger.commit(evidence=[(OUTCOMES, execution(made))])


def do(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as database:
        for sql in statements:
            database.execute(sql)
    database.close()


def told(path: Path) -> list[tuple[int, str]]:
    return [(link.position, link.what.partition(":")[0]) for link in verify_ledger(path).broken]


def as_told_row_by_row(path: Path) -> bool:
    """Whether the old, slow way finds the chain whole."""
    with Ledger.open(path) as ledger:
        rows = [
            (t.name, row) for t in (DECISIONS, OUTCOMES) for _, row in ledger.rows_after(t, 0, 2**62, 10**6)
        ]
    return broken_links(rows) == []


@pytest.mark.usefixtures("window")
def test_a_whole_ledger_is_whole(path: Path) -> None:
    found = verify_ledger(path)
    with Ledger.open(path) as ledger:
        assert found.ledger_id == ledger.id
        assert found.head == ledger.head()
    assert (found.rows, found.contents, found.unhashed, found.faults) == (20, 12, 0, 0)
    assert found.whole
    assert as_told_row_by_row(path)


def test_an_empty_ledger_is_whole(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "l.sqlite") as ledger:
        found = verify_ledger(ledger.path)
    assert (found.rows, found.head, found.whole) == (0, Head(0, GENESIS), True)


def test_no_window_of_a_whole_ledger_is_gone_through_row_by_row(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_given: object) -> Any:
        raise AssertionError("row by row")

    monkeypatch.setattr(verifying._Verification, "_one_by_one", slow)
    assert verify_ledger(path).whole


def test_row_by_row_says_the_same_of_a_whole_ledger(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = verify_ledger(path)
    for module in (verifying, verifying_windows):
        monkeypatch.setattr(module, "texts", lambda _window: None)
    assert verify_ledger(path) == fast


TEXT = "UPDATE {0} SET row = replace(row, '2 KiB', '') || ' ' WHERE position = {1}"
COPIED = "INSERT INTO outcomes SELECT position, decision_id, 'execution', hash, row FROM decisions WHERE position = 9"
FAULTS: dict[str, tuple[tuple[str, ...], list[tuple[int, str]]]] = {
    "text of a decision": ((TEXT.format("decisions", 1),), [(1, "changed")]),
    "text of an outcome": ((TEXT.format("outcomes", 13),), [(13, "changed")]),
    "last text": ((TEXT.format("outcomes", 20),), [(20, "changed")]),
    "hash": (
        ("UPDATE decisions SET hash = iif(hash LIKE 'f%', 'e', 'f') || substr(hash, 2) WHERE position = 9",),
        [(9, "changed"), (10, "reordered")],
    ),
    "no text": (("UPDATE decisions SET row = '' WHERE position = 9",), [(9, "changed")]),
    "no UTF-8": (
        ("UPDATE decisions SET row = CAST(x'ff' || row AS TEXT) WHERE position = 9",),
        [(9, "changed")],
    ),
    "hash no UTF-8": (
        ("UPDATE decisions SET hash = CAST(x'ff' || hash AS TEXT) WHERE position = 9",),
        [(9, "changed"), (10, "reordered")],
    ),
    "line break": (("UPDATE decisions SET row = row || char(10) WHERE position = 9",), [(9, "changed")]),
    "removed": (("DELETE FROM outcomes WHERE position = 13",), [(13, "missing")]),
    "first removed": (("DELETE FROM decisions WHERE position = 1",), [(1, "missing")]),
    "moved to the other table": (
        (
            COPIED,
            "DELETE FROM decisions WHERE position = 9",
        ),
        [(9, "reordered")],
    ),
    "doubled": (
        (COPIED,),
        [(9, "doubled")],
    ),
    "exchanged": (
        (
            "UPDATE decisions SET position = 1000 WHERE position = 7",
            "UPDATE decisions SET position = 7 WHERE position = 9",
            "UPDATE decisions SET position = 9 WHERE position = 1000",
        ),
        [(7, "reordered"), (8, "reordered"), (9, "reordered"), (10, "reordered")],
    ),
}


@pytest.mark.usefixtures("window")
@pytest.mark.parametrize("name", FAULTS)
def test_what_was_done_to_a_row_is_named(path: Path, name: str) -> None:
    statements, expected = FAULTS[name]
    assert told(path) == []
    do(path, *statements)
    assert told(path) == expected
    assert not verify_ledger(path).whole


@pytest.mark.usefixtures("window")
def test_an_inserted_row_that_hashes_well_is_found_by_the_next(path: Path, tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "other.sqlite") as other:
        fill(other, 12, "other")
    do(
        path,
        f"ATTACH {str(tmp_path / 'other.sqlite')!r} AS o",
        "DELETE FROM decisions WHERE position = 9",
        "INSERT INTO decisions SELECT * FROM o.decisions WHERE position = 9",
    )
    assert told(path) == [(9, "reordered"), (10, "reordered")]


@pytest.mark.usefixtures("window")
def test_a_changed_content_is_named(path: Path) -> None:
    do(
        path,
        "UPDATE contents SET row = row || ' ' WHERE sequence = 4",
        "UPDATE contents SET hash = NULL WHERE sequence = 6",
    )
    found = verify_ledger(path)
    with sqlite3.connect(path) as database:
        (key,) = database.execute("SELECT key FROM contents WHERE sequence = 4").fetchone()
    assert found.changed == (("contexts", key),)
    assert (found.contents, found.unhashed, found.faults, found.broken) == (11, 1, 1, ())


def test_rows_too_large_to_join_are_hashed_one_by_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger.open(path) as ledger:
        ledger.commit(contents=[blob("x" * 30_000), blob("y" * 30_000)])
    monkeypatch.setattr(verifying_windows, "MAX_JOINED", 10_000)
    found = verify_ledger(path)
    assert (found.rows, found.contents, found.faults) == (20, 14, 0)
    do(path, "UPDATE contents SET row = row || ' ' WHERE tbl = 'blobs' AND sequence = 14")
    assert [content.table for content in verify_ledger(path).changed] == ["blobs"]


def test_faults_are_counted_where_they_are_too_many_to_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "MAX_TOLD", 2)
    do(path, "UPDATE decisions SET row = row || ' '")
    found = verify_ledger(path)
    assert (len(found.broken), found.faults) == (2, 12)


# -- helping processes -----------------------------------------------------------------------------------------


@pytest.fixture
def helped(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Pieces of two rows that only a helper looks at, as long as it lives; the helpers that were started."""
    always_helped(monkeypatch)
    monkeypatch.setattr(verifying, "PIECE", 2)
    real, started = verifying_pieces._started, list[Any]()

    def start(at: Path) -> Any:
        started.append(real(at))
        return started[-1]

    monkeypatch.setattr(verifying_pieces, "_started", start)
    yield started
    assert started
    assert all(process.returncode is not None for process in started)  # none is left behind


def only_helpers_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave every piece to a helper: this process finds nothing whole at first sight."""
    monkeypatch.setattr(verifying_pieces, "_look", lambda _db, _piece: None)


def test_what_helpers_find_whole_is_not_looked_at_again(
    path: Path, helped: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    again, real = list[int](), verifying._Verification._windows
    monkeypatch.setattr(verifying_pieces, "_AHEAD", 1_000)  # so that this process gets none

    def windows(self: Any, sql: str, piece: Any) -> Any:
        again.append(piece.after)
        return real(self, sql, piece)

    monkeypatch.setattr(verifying._Verification, "_windows", windows)
    only_helpers_look(monkeypatch)
    kept = verify_ledger(path).head
    assert (verify_ledger(path, expect_head=kept).whole, again) == (True, [])
    assert not verify_ledger(path, expect_head=kept._replace(hash="0" * 64)).whole
    assert again == []
    do(path, TEXT.format("decisions", 9))
    assert told(path) == [(9, "changed")]
    assert again == [8]
    assert len(helped) == 4


@pytest.mark.parametrize("at", ["start", "answer"])
def test_a_helper_that_dies_is_not_missed(
    path: Path, helped: list[Any], monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    expected = verify_ledger(path)
    real, killed = verifying_pieces._Helper.collect, list[int]()

    def collect(self: Any, *given: Any) -> None:
        if at == "answer" or not killed:
            self.process.kill()
            self.process.wait()
            killed.append(self.process.pid)
        real(self, *given)

    monkeypatch.setattr(verifying_pieces._Helper, "collect", collect)
    if at == "start":
        started = verifying_pieces._started

        def dead(path: Path) -> Any:
            process = started(path)
            process.kill()
            process.wait()
            return process

        monkeypatch.setattr(verifying_pieces, "_started", dead)
    assert verify_ledger(path) == expected
    do(path, TEXT.format("outcomes", 13))
    assert told(path) == [(13, "changed")]
    assert len(helped) == 3


def test_where_no_process_can_be_started_it_goes_without(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    always_helped(monkeypatch)
    expected = verify_ledger(path)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert verify_ledger(path) == expected


# -- a head that was kept --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("window")
def test_a_head_that_was_kept_finds_an_old_copy_and_a_new_chain(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "old.sqlite")
    kept = verify_ledger(path).head
    with Ledger.open(path) as ledger:
        fill(ledger, 2, "more")
    later = verify_ledger(path, expect_head=kept)
    assert later.whole
    back = verify_ledger(tmp_path / "old.sqlite", expect_head=later.head)
    assert [(link.position, link.what.partition(":")[0]) for link in back.broken] == [(21, "missing")]
    with Ledger.open(tmp_path / "new.sqlite") as made_anew:
        fill(made_anew, 14)
    other = verify_ledger(made_anew.path, expect_head=kept)
    assert verify_ledger(made_anew.path).whole
    assert [link.position for link in other.broken] == [kept.position]


def test_a_head_is_read_as_it_is_written() -> None:
    head = Head(12, "ab" * 32)
    assert Head.parse(str(head)) == head
    for wrong in ("", "12", "12:ab", f"x:{'ab' * 32}", f"-1:{'ab' * 32}", f"1:{'AB' * 32}"):
        with pytest.raises(ValueError, match="POSITION:HASH"):
            Head.parse(wrong)


# -- it only looks ---------------------------------------------------------------------------------------------


def test_looking_changes_no_file_and_a_ledger_in_use_can_be_verified(path: Path) -> None:
    before = {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
    verify_ledger(path)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()} == before
    with Ledger.open(path) as ledger:
        fill(ledger, 1, "more")
        assert verify_ledger(path).head == ledger.head()
        fill(ledger, 1, "and more")


def test_what_is_no_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger"):
        verify_ledger(tmp_path / "nothing")
    (tmp_path / "text").write_text("text" * 1_000)
    with pytest.raises(LedgerCorrupt):
        verify_ledger(tmp_path / "text")


# -- against the slow way --------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_found(path: Path, tmp_path: Path, data: st.DataObject) -> None:
    copy = tmp_path / "copy.sqlite"
    shutil.copy(path, copy)
    table = data.draw(st.sampled_from(["decisions", "outcomes"]))
    with sqlite3.connect(copy) as database:
        rows = database.execute(f"SELECT position, row, hash FROM {table}").fetchall()
        position, *texts = data.draw(st.sampled_from(rows))
        column = data.draw(st.sampled_from([0, 1]))
        text = texts[column]
        index = data.draw(st.integers(0, len(text) - 1))
        other = data.draw(st.sampled_from('0a"\n é').filter(lambda letter: letter != text[index]))
        changed = text[:index] + other + text[index + 1 :]
        name = ("row", "hash")[column]
        database.execute(f"UPDATE {table} SET {name} = ? WHERE position = ?", (changed, position))
    database.close()
    assert (position, "changed") in told(copy)


# -- the command -----------------------------------------------------------------------------------------------


def test_the_command(path: Path) -> None:
    run = CliRunner().invoke
    done = run(app, ["verify", str(path)])
    assert done.exit_code == 0, done.output
    with sqlite3.connect(path) as database:
        head = Head(*database.execute(HEAD).fetchone())
    database.close()
    assert f"head  {head}" in done.output
    assert run(app, ["verify", str(path), "--expect-head", str(head), "--json"]).exit_code == 0
    do(path, TEXT.format("decisions", 1))
    done = run(app, ["verify", str(path)])
    assert done.exit_code == 1
    assert "BAD   position 1: changed" in done.output
    assert '"whole": false' in run(app, ["verify", str(path), "--json"]).output
