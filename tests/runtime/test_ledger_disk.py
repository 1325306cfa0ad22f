"""Disks that refuse, file systems that cannot keep a ledger, and damaged pages: typed errors, nothing wrong, no crash.

The disk refuses by `disk_recorder.c`, preloaded into a child: full (ENOSPC), read-only (EROFS), failing (EIO) or
without locks (ENOLCK), from any chosen write, sync, open or lock on.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runtime import ledgerfile
from runtime.errors import LedgerCorrupt, LedgerError
from runtime.evidence import broken_links
from runtime.ledger import Claim, Ledger
from runtime.testing import blob, context, decision, entity, execution
from runtime.trace import CONTEXTS, DECISIONS, ENTITIES, OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable

EVERYTHING = (0, 2**62, 10_000)
CHILD = """
    import ctypes, errno, json, sys
    import runtime.ledgerfile
    from pathlib import Path
    from runtime.errors import CommitUncertain, LedgerError
    from runtime.evidence import broken_links
    from runtime.ledger import Ledger
    from runtime.testing import blob, context, decision
    from runtime.trace import DECISIONS
    refuse_after = ctypes.CDLL(None).refuse_after
    folder, op, number, whole = Path(sys.argv[1]), sys.argv[2].encode(), getattr(errno, sys.argv[3]), sys.argv[4]
    report = []
    runtime.ledgerfile.BUSY_SECONDS = 0.2
    for after in json.loads(sys.argv[5]):
        path = folder / f"{after}.sqlite"
        if whole == "commits":
            ledger = Ledger.open(path)
            ledger._writer.connection.execute("PRAGMA wal_autocheckpoint=6")
        said, error = [], None
        refuse_after(op, after, number)
        try:
            if whole == "open":
                ledger = Ledger.open(path)
            for number_of in range(30):
                made = decision(args="x" * 3000)
                ledger.commit(evidence=[(DECISIONS, made)], contents=[context(str(number_of))])
                said.append(made["decision_id"])
        except LedgerError as caught:
            error = caught
        refuse_after(op, -1, 0)
        with Ledger.open(path) as again:  # what the disk has; it is read while the refused handle is still there
            rows = [row for _, row in again.rows_after(DECISIONS, 0, 2**62, 1000)]
            kept = [row["decision_id"] for row in rows]
            assert broken_links(("decisions", row) for row in rows) == []
            assert kept[:len(said)] == said, "lost what was acknowledged"
            assert len(kept) <= len(said) + isinstance(error, CommitUncertain), "kept what it said it did not"
            again.commit(evidence=[(DECISIONS, decision())])
        report.append([len(said), type(error).__name__, str(error)])
    print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[tuple[int, str, str]]]:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler to make a disk refuse")
    folder = tmp_path_factory.mktemp("refusing")
    library, source = folder / "recorder.so", Path(__file__).with_name("disk_recorder.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-w", "-o", library, source, "-ldl"], check=True)

    def run(op: str, error: str, whole: str, afters: range) -> list[tuple[int, str, str]]:
        disk = tmp_path_factory.mktemp("disk")
        environment = os.environ | {"LD_PRELOAD": str(library), "REDECIDE_DISK": str(disk)}
        arguments = [disk, op, error, whole, [*afters]]
        command = [sys.executable, "-c", textwrap.dedent(CHILD), *map(str, arguments)]
        child = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert child.stderr == ""
        assert child.returncode == 0
        return [tuple(each) for each in json.loads(child.stdout)]

    return run


def test_a_disk_that_is_full_from_any_write_on(refusing: Any) -> None:
    report = refusing("W", "ENOSPC", "commits", range(0, 160, 7))
    assert {kind for _, kind, _ in report} == {"LedgerError"}
    assert all("full" in text and "free some space" in text for *_, text in report)
    assert len({count for count, *_ in report}) > 2  # it was refused early and late


def test_a_disk_that_fails_from_any_sync_on(refusing: Any) -> None:
    """A commit whose sync failed may be there or not, and is told so."""
    report = refusing("S", "EIO", "commits", range(12))
    assert {kind for _, kind, _ in report} == {"CommitUncertain"}


def test_a_disk_that_is_full_or_read_only_while_a_ledger_is_made(refusing: Any) -> None:
    for op, error in (("W", "ENOSPC"), ("O", "EROFS"), ("S", "EIO")):
        report = refusing(op, error, "open", range(6))
        assert {kind for _, kind, _ in report} <= {"LedgerError", "CommitUncertain"}, (op, report)


def test_a_file_system_without_locks_is_refused(refusing: Any) -> None:
    for error in ("ENOLCK", "EOPNOTSUPP", "EIO"):
        report = refusing("L", error, "open", range(2))
        # SQLite takes ENOLCK for a lock of somebody else's, for which it waits a while.
        assert {count for count, *_ in report} == {0}
        assert {kind for _, kind, _ in report} <= {"LedgerError", "CommitConflict"}, report


def test_a_file_system_that_keeps_no_log_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite answers with another journal mode where memory cannot be shared, as over a network."""
    real = sqlite3.connect

    class NoSharedMemory(sqlite3.Connection):
        def execute(self, sql: str, *rest: Any) -> Any:
            return super().execute(sql.replace("journal_mode=WAL", "journal_mode=DELETE"), *rest)

    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: real(*a, **k, factory=NoSharedMemory))
    with pytest.raises(LedgerError, match="local disk"):
        Ledger.open(path)


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 22 {dev} / /mnt/my\\040disk rw,relatime shared:9 - {kind} server:/export rw,vers=4.2
"""


@pytest.mark.parametrize("kind", ["nfs4", "nfs", "cifs", "smb3", "fuse.sshfs", "fuse.glusterfs", "lustre"])
def test_a_network_file_system_is_refused_by_name(
    path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    device = path.parent.stat().st_dev
    mounts = path.parent / "mountinfo"
    mounts.write_text(MOUNTS.format(dev=f"{os.major(device)}:{os.minor(device)}", kind=kind))
    monkeypatch.setattr(ledgerfile, "MOUNTS", mounts)
    with pytest.raises(LedgerError, match=f"local disk.*{kind}"):
        Ledger.open(path)
    assert not path.exists()
    mounts.write_text(MOUNTS.format(dev=f"{os.major(device)}:{os.minor(device)}", kind="xfs"))
    Ledger.open(path).close()
    monkeypatch.setattr(ledgerfile, "MOUNTS", path.parent / "none")  # another operating system
    Ledger.open(path).close()


UNREADABLE = 77
"""Exit code of a child that may not read our code."""


def test_a_read_only_folder_is_refused_and_an_open_ledger_in_it_is_not_lost() -> None:
    """As an ordinary user: root may write anywhere."""
    code = """
        import os, sys
        from pathlib import Path
        from runtime.errors import LedgerError
        from runtime.ledger import Ledger
        from runtime.testing import decision
        from runtime.trace import DECISIONS
        folder = Path(sys.argv[1])
        if os.getuid() == 0:
            os.chown(folder, 65534, 65534)
            os.setuid(65534)
            if not os.access(sys.modules["runtime.ledger"].__file__, os.R_OK):
                sys.exit(77)
        path = folder / "l.sqlite"
        with Ledger.open(path) as ledger:
            ledger.commit(evidence=[(DECISIONS, decision())])
        for mode, target in ((0o444, path), (0o555, folder)):
            path.chmod(0o644)
            target.chmod(mode)
            try:
                with Ledger.open(path) as ledger:
                    ledger.commit(evidence=[(DECISIONS, decision())])
                    print("wrote")
            except LedgerError as error:
                print(type(error).__name__, "read-only" in str(error) or "permission" in str(error).lower())
        folder.chmod(0o755)
        with Ledger.open(path) as ledger:
            print(ledger.head()[0])
    """
    with tempfile.TemporaryDirectory() as made:  # pytest's own folders are closed to other users
        Path(made).chmod(0o755)
        folder = Path(made) / "disk"
        folder.mkdir()
        child = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(folder)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    if child.returncode == UNREADABLE:
        pytest.skip("another user cannot read this installation")
    assert child.stderr == ""
    assert child.stdout.splitlines() == ["LedgerError True", "LedgerError True", "1"]


# -- damaged pages ---------------------------------------------------------------------------------------------


def answers(path: Path, idents: list[str]) -> list[Any]:
    """Everything that is read of the evidence: by id, by order, the whole, and what is under way."""
    with Ledger.open(path, create=False) as ledger:
        rows = [ledger.rows_after(t, *EVERYTHING) for t in (DECISIONS, OUTCOMES, CONTEXTS, ENTITIES)]
        single = [(ledger.decision(ident), ledger.outcome_of(ident)) for ident in idents]
        return [ledger.head(), ledger.extent(), ledger.unfinished(), single, rows]


def damaged(content: bytes, page: int, size: int, dice: random.Random) -> bytes:
    """Change a byte, a sector, or the whole of one page."""
    changed = bytearray(content)
    at, length = dice.randrange(size), dice.choice([1, 1, 1, 512, size])
    start = page * size + (0 if length == size else min(at, size - length))
    changed[start : start + length] = dice.randbytes(length)
    return bytes(changed)


def replace_once(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


def test_an_index_that_lost_a_decision_does_not_say_that_there_is_none(path: Path) -> None:
    made = decision(verdict="block")
    with Ledger.open(path) as ledger:
        ledger.commit(evidence=[(DECISIONS, made)])
    ident = made["decision_id"].encode()
    content = path.read_bytes()
    # In the table its hash follows, in the row a quotation mark; what is left is the index.
    places = [at for at in range(len(content)) if content.startswith(ident, at)]
    (at,) = [at for at in places if content[at + 32 : at + 33] not in b'"0123456789abcdef']
    path.write_bytes(content[:at] + b"f" * 32 + content[at + 32 :])
    with pytest.raises(LedgerCorrupt):
        Ledger.open(path)


def test_contents_that_changed_are_refused_wherever_they_are_read(path: Path) -> None:
    table, row = blob('"innocent"')
    with Ledger.open(path) as ledger:
        ledger.commit(contents=[(table, row), context("harmless")])
    replace_once(path, b"innocent", b"criminal")
    replace_once(path, b"harmless", b"harmful!")
    with Ledger.open(path) as ledger:
        with pytest.raises(LedgerCorrupt, match="content 1 does not have its hash"):
            ledger.blob(row["blob_hash"])
        with pytest.raises(LedgerCorrupt, match="content 2 does not have its hash"):
            ledger.rows_after(CONTEXTS, *EVERYTHING)


@pytest.mark.parametrize("where", ["file", "log"])
def test_damage_anywhere_is_found_or_changes_no_answer(tmp_path: Path, where: str) -> None:
    path, copy, dice = tmp_path / "l.sqlite", tmp_path / "copy" / "l.sqlite", random.Random(where)
    ledger = Ledger.open(path)
    idents = []
    for number in range(25):
        made = decision(args="x" * dice.randrange(3000))
        idents.append(made["decision_id"])
        claim = Claim(made["decision_id"], "args", made["decision_id"])
        ledger.commit(
            contents=[context(str(number)), entity(str(number))], evidence=[(DECISIONS, made)], claim=claim
        )
        if number % 2:
            ledger.commit(evidence=[(OUTCOMES, execution(made))])
    if where == "file":
        ledger.close()
    content = {
        suffix: Path(f"{path}{suffix}").read_bytes()
        for suffix in ("", "-wal")
        if Path(f"{path}{suffix}").exists()
    }
    expected = answers(path, idents)
    ledger.close()
    hurt, size = ("", 4096) if where == "file" else ("-wal", 4096 + 24)
    found = 0
    for _ in range(60):
        shutil.rmtree(copy.parent, ignore_errors=True)
        copy.parent.mkdir()
        page = dice.randrange(len(content[hurt]) // size)
        for suffix, original in content.items():
            Path(f"{copy}{suffix}").write_bytes(
                damaged(original, page, size, dice) if suffix == hurt else original
            )
        try:
            given = answers(copy, idents)
        except LedgerCorrupt:
            found += 1
            continue
        if where == "file":
            assert given == expected
        else:  # a log ends where it is damaged: what follows is gone, as after a crash, and nothing is wrong
            chain = [("decisions", row) for _, row in given[4][0]] + [
                ("outcomes", row) for _, row in given[4][1]
            ]
            assert broken_links(chain) == []
            assert given[4][0] == expected[4][0][: len(given[4][0])]
    assert found > (10 if where == "file" else -1)
