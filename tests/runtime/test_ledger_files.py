"""The ledger's file: reopened, copied by a crash, damaged, newer, full, locked."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from runtime.errors import CommitConflict, CommitUncertain, LedgerCorrupt, LedgerError, LedgerTooNew
from runtime.evidence import broken_links
from runtime.inspection import inspect_ledger
from runtime.ledger import Claim, Ledger
from runtime.ledgerfile import LEDGER_VERSION
from runtime.testing import context, decision
from runtime.trace import DECISIONS, OUTCOMES

if TYPE_CHECKING:
    from pathlib import Path

EVERYTHING = (0, 2**62, 10_000)


def chain_of(ledger: Ledger) -> list[tuple[str, dict[str, Any]]]:
    return [
        (table.name, row)
        for table in (DECISIONS, OUTCOMES)
        for _, row in ledger.rows_after(table, *EVERYTHING)
    ]


def commit_many(ledger: Ledger, count: int) -> None:
    for number in range(count):
        ledger.commit(contents=[context(str(number % 7))], evidence=[(DECISIONS, decision())])


def test_reopening_finds_the_same_chain(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.commit(contents=[context("new")], evidence=[(DECISIONS, decision())])
        before = ledger.id, ledger.head(), ledger.extent()
    with Ledger.open(path, create=False) as again:
        assert (again.id, again.head(), again.extent()) == before
        again.commit(evidence=[(DECISIONS, decision())])
        assert broken_links(chain_of(again)) == []


def test_folders_above_are_made_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "a b%20" / "ü?#" / "ledger.sqlite"
    with pytest.raises(LedgerError, match="no ledger at"):
        Ledger.open(path, create=False)
    assert not path.parent.exists()
    Ledger.open(path).close()
    assert path.exists()


def test_a_closed_ledger_says_so(path: Path) -> None:
    ledger = Ledger.open(path)
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        ledger.commit(evidence=[(DECISIONS, decision())])
    with pytest.raises(LedgerError, match="closed"):
        ledger.head()


def damage_text(path: Path) -> None:
    path.write_text("this is no database, whatever its name says\n" * 10)


def damage_short(path: Path) -> None:
    path.write_bytes(b"SQL")


def damage_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:8192] = os.urandom(4096)
    path.write_bytes(content)


def damage_leaf(path: Path) -> None:
    content = bytearray(path.read_bytes())
    marker = content.index(b'"decision_id"', len(content) // 2)
    start = marker // 4096 * 4096
    content[start : start + 64] = b"\xff" * 64  # a page of rows that opening alone would not read
    path.write_bytes(content)


def damage_cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 // 4096 * 4096])


def damage_other(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE t (x)")
    other.close()


def damage_row(path: Path) -> None:
    content = path.read_bytes()
    assert content.count(b"last-tool") == 1
    path.write_bytes(content.replace(b"last-tool", b"lost-tool"))


@pytest.mark.parametrize(
    "damage", [damage_text, damage_short, damage_page, damage_leaf, damage_cut, damage_other, damage_row]
)
def test_a_damaged_file_is_refused_and_its_bytes_are_untouched(path: Path, damage: Any) -> None:
    with Ledger.open(path) as ledger:
        commit_many(ledger, 20)
        ledger.commit(evidence=[(DECISIONS, decision(tool="last-tool"))])
    damage(path)
    before = path.read_bytes()
    with pytest.raises(LedgerCorrupt):
        Ledger.open(path)
    assert path.read_bytes() == before


def test_a_row_changed_in_the_middle_is_found_when_it_is_read(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.commit(evidence=[(DECISIONS, decision(decision_id="d1", tool="last-tool"))])
        commit_many(ledger, 3)
    damage_row(path)
    with Ledger.open(path) as ledger:
        with pytest.raises(LedgerCorrupt, match="position 1"):
            ledger.decision("d1")
        with pytest.raises(LedgerCorrupt, match="position 1"):
            ledger.rows_after(DECISIONS, *EVERYTHING)


@pytest.mark.parametrize(
    ("version", "error"), [(str(LEDGER_VERSION + 1), LedgerTooNew), ("x", LedgerCorrupt)]
)
def test_a_ledger_of_another_version_is_refused_by_name(
    path: Path, version: str, error: type[Exception]
) -> None:
    Ledger.open(path).close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE meta SET value = ? WHERE name = 'schema_version'", (version,))
    database.close()
    before = path.read_bytes()
    with pytest.raises(error, match=version):
        Ledger.open(path)
    assert path.read_bytes() == before


def test_a_half_made_ledger_is_finished(path: Path) -> None:
    path.touch()
    with Ledger.open(path) as ledger:
        ledger.commit(evidence=[(DECISIONS, decision())])


def test_a_full_disk_writes_nothing_and_can_be_freed(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.commit(evidence=[(DECISIONS, decision())])
        (pages,) = ledger._writer.connection.execute("PRAGMA page_count").fetchone()
        ledger._writer.connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(LedgerError, match="full"):
            commit_many(ledger, 50)
        kept = ledger.head()[0]
        ledger._writer.connection.execute("PRAGMA max_page_count = 1000000")
        commit_many(ledger, 3)
        assert ledger.head()[0] == kept + 3
        assert broken_links(chain_of(ledger)) == []


def test_a_disk_that_refuses_the_log_fails_closed(path: Path) -> None:
    """A file size limit makes the log's next write fail, as a quota does."""
    code = """
        import os, resource, sys
        from runtime.errors import LedgerError
        from runtime.ledger import Ledger
        from runtime.testing import decision
        from runtime.trace import DECISIONS
        with Ledger.open(sys.argv[1]) as ledger:
            ledger.commit(evidence=[(DECISIONS, decision())])
            size = os.path.getsize(sys.argv[1] + "-wal")
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30_000, resource.RLIM_INFINITY))
            acknowledged = 1
            try:
                while True:
                    ledger.commit(evidence=[(DECISIONS, decision())])
                    acknowledged += 1
            except LedgerError as error:
                print(type(error).__name__, acknowledged)
    """
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert child.stderr == ""
    name, acknowledged = child.stdout.split()
    assert name in {"LedgerError", "CommitUncertain"}
    with Ledger.open(path) as ledger:
        assert int(acknowledged) <= ledger.head()[0] <= int(acknowledged) + (name == "CommitUncertain")
        assert broken_links(chain_of(ledger)) == []


def test_a_failed_sync_is_uncertain_and_stops_the_handle(ledger: Ledger) -> None:
    ledger.commit(evidence=[(DECISIONS, decision())])

    class FailingSync:
        """The real connection, but for a COMMIT whose sync fails."""

        def __init__(self, real: sqlite3.Connection) -> None:
            self.real = real

        @property
        def in_transaction(self) -> bool:
            return self.real.in_transaction

        def execute(self, sql: str, parameters: Any = ()) -> Any:
            done = self.real.execute(sql, parameters)
            if sql == "COMMIT":
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
                raise error
            return done

    writer = ledger._writer
    real, writer.connection = writer.connection, FailingSync(writer.connection)  # type: ignore[assignment]
    try:
        with pytest.raises(CommitUncertain, match="reopen"):
            ledger.commit(evidence=[(DECISIONS, decision())])
        with pytest.raises(LedgerError, match="disk failed"):
            ledger.commit(evidence=[(DECISIONS, decision())])
    finally:
        writer.connection = real
    with Ledger.open(ledger.path) as again:
        assert again.head()[0] == 2  # this time it was there


def test_a_locked_file_is_a_conflict_not_a_wait_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.ledgerfile.BUSY_SECONDS", 0.05)
    with Ledger.open(path) as ledger:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CommitConflict, match="safe to retry"):
            ledger.commit(evidence=[(DECISIONS, decision())])
        other.execute("ROLLBACK")
        other.close()
        ledger.commit(evidence=[(DECISIONS, decision())])


def test_a_copy_of_the_files_at_any_commit_is_a_ledger(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    """What a crash of the process leaves behind: the file and its log as they are."""
    for number in range(1, 6):
        ledger.commit(evidence=[(DECISIONS, decision())], claim=Claim(str(number), "a", "d"))
        copy = tmp_path / f"copy{number}.sqlite"
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
        with Ledger.open(copy, create=False) as found:
            assert found.head() == ledger.head()
            assert found.claim(str(number)) is not None


def test_a_second_handle_does_not_loosen_the_first_ones_locks(path: Path) -> None:
    """Closing any descriptor of a file drops this process's POSIX locks on it; then others delete the log under us."""
    elsewhere = "import sys; from runtime.ledger import Ledger; Ledger.open(sys.argv[1]).close()"
    with Ledger.open(path) as first:
        commit_many(first, 2)
        inspect_ledger(path)
        with Ledger.open(path) as second:
            subprocess.run([sys.executable, "-c", elsewhere, str(path)], check=True)
            commit_many(first, 3)
            assert second.head() == first.head()
        subprocess.run([sys.executable, "-c", elsewhere, str(path)], check=True)
        commit_many(first, 1)
        head = first.head()
    with Ledger.open(path) as again:
        assert again.head() == head
