"""Holders: alive while the process lives, dead whatever ended it, and never dead by mistake."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

from runtime import holders
from runtime.errors import LedgerError
from runtime.holders import Holder, is_alive

if TYPE_CHECKING:
    from pathlib import Path


def files(path: Path) -> list[str]:
    return sorted(file.name for file in path.with_name(path.name + ".holders").iterdir())


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)


TAKE = """
    import sys
    from runtime.holders import Holder
    holder = Holder.take(sys.argv[1])
    print(holder.id, flush=True)
    sys.stdin.read()
"""


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str], how: int = signal.SIGKILL) -> None:
    process.send_signal(how)
    process.communicate()
    assert process.returncode == -how


def test_a_holder_is_alive_until_it_is_released(path: Path) -> None:
    holder, other = Holder.take(path), Holder.take(path)
    assert holder.id != other.id
    assert is_alive(path, holder.id)
    holder.release()
    assert not is_alive(path, holder.id)
    holder.release()
    assert is_alive(path, other.id)
    assert files(path) == [other.id]
    other.release()


def test_one_that_is_dropped_dies(path: Path) -> None:
    holder = Holder.take(path)
    name = holder.id
    del holder
    assert not is_alive(path, name)


def test_a_name_nobody_took_is_dead_and_one_that_is_no_name_is_refused(path: Path) -> None:
    assert not is_alive(path, "0" * 32)
    for name in ("", "../x", "a/b", "A", "x\x00"):
        with pytest.raises(LedgerError, match="edited"):
            is_alive(path, name)


def test_one_ledger_by_two_names_has_the_same_holders(path: Path, tmp_path: Path) -> None:
    path.touch()
    (tmp_path / "link.sqlite").symlink_to(path)
    (tmp_path / "folder").symlink_to(tmp_path)
    holder = Holder.take(tmp_path / "link.sqlite")
    assert is_alive(path, holder.id)
    assert is_alive(tmp_path / "folder" / path.name, holder.id)
    holder.release()


@pytest.mark.crash
def test_the_kernel_says_who_is_dead(path: Path) -> None:
    first, second = child(TAKE, path), child(TAKE, path)
    names = read_line(first), read_line(second)
    assert all(is_alive(path, name) for name in names)
    end(first)
    assert [is_alive(path, name) for name in names] == [False, True]
    assert files(path) == sorted(names)
    mine = Holder.take(path)  # sweeps
    assert files(path) == sorted([names[1], mine.id])
    end(second)
    mine.release()


@pytest.mark.crash
def test_a_fork_does_not_keep_its_parent_alive(path: Path) -> None:
    """Nor does it end it: the child releases, and exits, while the parent lives."""
    code = """
        import os, sys, time
        from runtime.holders import Holder
        holder = Holder.take(sys.argv[1])
        if os.fork() == 0:
            holder.release()
            mine = Holder.take(sys.argv[1])
            print(holder.id, mine.id, os.getpid(), flush=True)
            time.sleep(60)
        sys.stdin.read()
    """
    parent = child(code, path)
    theirs, mine, pid = read_line(parent).split()
    try:
        assert is_alive(path, theirs)
        assert is_alive(path, mine)
        parent.kill()
        parent.wait()
        assert not is_alive(path, theirs)
        assert is_alive(path, mine)
    finally:
        os.kill(int(pid), signal.SIGKILL)
        parent.communicate()


def test_a_program_started_by_a_holder_does_not_inherit_its_lock(path: Path) -> None:
    holder = Holder.take(path)
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False
    ) as program:
        holder.release()
        assert not is_alive(path, holder.id)
        program.communicate(b"\n")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO])
def test_without_usable_locks_nobody_is_declared_dead(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    holder = Holder.take(path)

    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", refuse)
        with pytest.raises(LedgerError, match="local disk"):
            Holder.take(path)
        with pytest.raises(LedgerError, match="local disk"):
            is_alive(path, holder.id)
    assert files(path) == [holder.id]  # and nothing is left of the attempt
    holder.release()


def test_a_file_that_may_not_be_read_is_no_proof_of_death(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise PermissionError(errno.EACCES, "no")

    holder = Holder.take(path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(LedgerError, match="who is alive"):
            is_alive(path, holder.id)
    holder.release()


def test_a_sweep_between_creation_and_lock_is_noticed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race by injection: another process sweeps whenever ours has created its file and not locked it yet."""
    real = fcntl.flock
    swept: list[str] = []

    def interleaved(descriptor: int, kind: int) -> None:
        if kind & fcntl.LOCK_EX and len(swept) < 3:
            swept.extend(files(path))
            with monkeypatch.context() as patched:
                patched.setattr(fcntl, "flock", real)
                holders._sweep(holders._folder(path))
        real(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", interleaved)
    holder = Holder.take(path)
    assert len(set(swept)) == 3
    assert holder.id not in swept
    assert files(path) == [holder.id]
    assert is_alive(path, holder.id)
    holder.release()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # from 3.12 on: that is what is tested
def test_a_fork_by_another_thread_does_not_carry_the_lock_away(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By injection: another thread forks when the file is open and nobody knows yet that a child must close it."""
    (reading, writing), (asked, said) = os.pipe(), os.pipe()
    children: list[int] = []

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            os.write(said, b"!")
            os.read(reading, 1)  # until the parent is done
            os._exit(0)
        children.append(pid)

    thread, real = threading.Thread(target=fork), fcntl.flock

    def interleaved(descriptor: int, kind: int) -> None:
        real(descriptor, kind)
        if kind & fcntl.LOCK_EX:
            thread.start()
            thread.join(0.2)  # either it has forked by now, or it is made to wait

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", interleaved)
        holder = Holder.take(path)
    thread.join()
    os.close(reading)
    assert os.read(asked, 1)  # the child is there
    folder, second_name = path.with_name(path.name + ".holders"), "0" * 32
    (folder / second_name).hardlink_to(folder / holder.id)  # the same lock, and stays
    assert is_alive(path, second_name)
    holder.release()
    try:
        assert children
        assert not is_alive(path, second_name)
    finally:
        for descriptor in (writing, asked, said):
            os.close(descriptor)
        for pid in children:
            os.waitpid(pid, 0)
