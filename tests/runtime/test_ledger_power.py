"""Power loss: what a disk holds that dropped what was not synced is still a ledger with every commit that returned.

SIGKILL proves nothing about syncs, since the page cache survives a process. So a real child's writes and syncs are
recorded (`disk_recorder.c`, preloaded), and for every moment of its run disks are made up that kept what was synced
and, of the rest, nothing, everything, or any part: whole writes, or single sectors of them. Names are as durable as
the folder that holds them. Each disk is opened with our own ledger.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from runtime.errors import LedgerError
from runtime.evidence import broken_links
from runtime.ledger import Ledger
from runtime.trace import CONTEXTS, DECISIONS, OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERYTHING = (0, 2**62, 10_000)
SECTOR = 512
CHILD = """
    import json, os, sys
    from pathlib import Path
    from runtime.ledger import Claim, Ledger, SessionStep
    from runtime.testing import context, decision, execution
    from runtime.trace import DECISIONS, OUTCOMES
    folder, mode, commits = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    def opened():
        ledger = Ledger.open(folder / "data" / "ledger.sqlite")
        if mode != "ours":
            ledger._writer.connection.execute(f"PRAGMA synchronous={mode}")
        ledger._writer.connection.execute("PRAGMA wal_autocheckpoint=12")  # so that the log starts over several times
        return ledger
    ledger = opened()
    for number in range(commits):
        made = decision(session_id="s", tenant="t", step=number, args=os.urandom(number * 97).hex())
        ledger.commit(
            contents=[context(str(number))],
            evidence=[(DECISIONS, made)],
            claim=Claim(made["decision_id"], "args", made["decision_id"]),
            session=SessionStep(tenant="t", session_id="s", expected_step=number, ran=True, owner="me"),
        )
        os.write(said, b"decided " + made["decision_id"].encode() + b"\\n")
        if number % 3 == 0:
            ledger.commit(evidence=[(OUTCOMES, execution(made))])
            os.write(said, b"ended " + made["decision_id"].encode() + b"\\n")
        if number == commits // 2:
            ledger.close()
            ledger = opened()
    os._exit(0)
"""


class Op(NamedTuple):
    """One thing a process did to its disk."""

    kind: str
    path: str
    offset: int
    data: bytes


@dataclass
class File:
    """A file on a disk that may lose power."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Op] = field(default_factory=list)
    """Since its last sync."""
    named: bool = False
    """Whether its name is in its folder for certain."""
    unlinked: bool = False

    def sync(self) -> None:
        for op in self.pending:
            apply(self.durable, op)
        self.pending.clear()


def apply(content: bytearray, op: Op) -> None:
    if op.kind == "T":
        del content[op.offset :]
        content.extend(bytes(op.offset - len(content)))
        return
    content.extend(bytes(max(0, op.offset - len(content))))
    content[op.offset : op.offset + len(op.data)] = op.data


def sectors(op: Op) -> Iterator[Op]:
    """Divide a write where a disk may tear it."""
    at, data = op.offset, op.data
    while data:
        size = SECTOR - at % SECTOR
        yield Op("W", op.path, at, data[:size])
        at, data = at + size, data[size:]


class Disk:
    """What is on the disk for certain, what may be."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.said: list[str] = []

    def do(self, op: Op) -> None:
        if op.path.endswith("/said"):
            self.said += op.data.decode().splitlines()
        elif ".holders" in op.path or op.kind == "M":
            pass  # locks, not data; folders are taken to be there, as the ledger syncs what it makes
        elif op.kind == "C":
            self.files[op.path] = File()
        elif op.kind == "U":
            self.files[op.path].unlinked = True
        elif op.kind == "S" and op.path in self.files:
            self.files[op.path].sync()
        elif op.kind == "S":
            self._sync_folder(op.path)
        else:
            self.files[op.path].pending.append(op)

    def _sync_folder(self, folder: str) -> None:
        for path in [path for path in self.files if path.rpartition("/")[0] == folder]:
            self.files[path].named = True
            if self.files[path].unlinked:
                del self.files[path]

    def after_power_loss(self, how: str, dice: random.Random) -> dict[str, bytes]:
        """Return the files as they may be found. `how`: nothing, everything, writes or sectors of what is unsynced."""
        found = {}
        for path, file in self.files.items():
            kept = {"nothing": 0.0, "everything": 1.0}.get(how, 0.5)
            if (file.unlinked and dice.random() < kept) or (not file.named and dice.random() >= kept):
                continue
            content = bytearray(file.durable)
            for op in file.pending:
                parts = sectors(op) if how == "sectors" and op.kind == "W" else [op]
                for part in parts:
                    if dice.random() < kept:
                        apply(content, part)
            found[path] = bytes(content)
        return found


def recorded(log: bytes) -> Iterator[Op]:
    at = 0
    while at < len(log):
        kind, length, offset, size = struct.unpack_from("<cHqI", log, at)
        at += 15
        path, data = log[at : at + length].decode(), log[at + length : at + length + size]
        at += length + size
        yield Op(kind.decode(), path, offset, data)


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler to record a process's writes")
    library = tmp_path_factory.mktemp("recorder") / "recorder.so"
    source = Path(__file__).with_name("disk_recorder.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-w", "-o", library, source, "-ldl"], check=True)
    return library


def run(recorder: Path, folder: Path, mode: str, commits: int) -> list[Op]:
    disk, log = folder / "disk", folder / "log"
    disk.mkdir()
    environment = os.environ | {
        "LD_PRELOAD": str(recorder),
        "REDECIDE_DISK": str(disk),
        "REDECIDE_LOG": str(log),
    }
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(disk), mode, str(commits)]
    subprocess.run(command, env=environment, check=True, timeout=120)
    return list(recorded(log.read_bytes()))


def complaint(folder: Path, said: list[str]) -> str | None:
    """Return what is wrong with a ledger found after power loss, if anything."""
    path = folder / "ledger.sqlite"
    try:
        ledger = Ledger.open(path, create=not said)
    except LedgerError as error:
        return f"does not open: {error}"
    with ledger:
        rows = {
            t: [row for _, row in ledger.rows_after(t, *EVERYTHING)] for t in (DECISIONS, OUTCOMES, CONTEXTS)
        }
        decided = [row["decision_id"] for row in rows[DECISIONS]]
        ended = {row["decision_id"] for row in rows[OUTCOMES]}
        found = {f"decided {ident}" for ident in decided} | {f"ended {ident}" for ident in ended}
        if lost := [line for line in said if line not in found]:
            return f"lost {lost}"
        if len(found) > len(said) + 1:
            return f"holds {len(found) - len(said)} more than were acknowledged or under way"
        if broken := broken_links((t.name, row) for t in (DECISIONS, OUTCOMES) for row in rows[t]):
            return f"broken {broken}"
        together = (
            len(rows[CONTEXTS]),
            ledger.session("t", "s").next_step,
            sum(ledger.claim(str(ident)) is not None for ident in decided),
        )
        if together != (len(decided),) * 3:
            return f"half a commit: {len(decided)} decisions, but contexts, steps, claims {together}"
        open_actions = [row["decision_id"] for row in ledger.unfinished()]
        if open_actions != [ident for ident in decided if ident not in ended]:
            return "actions are out of step"
    return None


def complaints(ops: list[Op], folder: Path, how: str) -> Iterator[str]:
    """Lose power after every op; yield what is wrong then."""
    disk, dice, seen = Disk(), random.Random(how), set[int]()
    for number, op in enumerate(ops):
        disk.do(op)
        files = disk.after_power_loss(how, dice)
        state = hash((*files.items(), *disk.said))
        if state in seen:
            continue
        seen.add(state)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path, content in files.items():
            (folder / Path(path).name).write_bytes(content)
        if wrong := complaint(folder, disk.said):
            yield f"power lost after op {number} ({op.kind} {Path(op.path).name}), {how} kept: {wrong}"


@pytest.fixture(scope="module")
def ours(recorder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Op]:
    return run(recorder, tmp_path_factory.mktemp("ours"), "ours", 6)


def test_the_recording_sees_the_commits_and_their_syncs(ours: list[Op]) -> None:
    """Else everything below would pass on nothing."""
    kinds = [(op.kind, Path(op.path).name) for op in ours]
    acknowledged = [op for op in ours if op.path.endswith("/said") and op.kind == "W"]
    assert len(acknowledged) == 6 + 2
    assert kinds.count(("S", "ledger.sqlite-wal")) >= len(acknowledged)
    assert kinds.count(("S", "ledger.sqlite")) >= 3  # checkpoints
    assert ("S", "data") in kinds  # the name


@pytest.mark.crash
@pytest.mark.parametrize("how", ["nothing", "everything", "writes", "sectors"])
def test_power_lost_at_any_moment_loses_no_commit_that_returned(
    ours: list[Op], tmp_path: Path, how: str
) -> None:
    assert list(complaints(ours, tmp_path / "found", how)) == []


@pytest.mark.crash
@pytest.mark.parametrize("mode", ["NORMAL", "OFF"])
def test_weaker_synchronisation_is_found_out(recorder: Path, tmp_path: Path, mode: str) -> None:
    """The simulation itself: a ledger that does not sync each commit fails it."""
    ops = run(recorder, tmp_path, mode, 3)
    assert any("lost" in wrong for wrong in complaints(ops, tmp_path / "found", "nothing"))
