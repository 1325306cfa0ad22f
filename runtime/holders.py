"""Holders: which open ledgers are alive, so that recovery touches only what nobody runs any more.

One rule: a holder is alive exactly as long as the process that took it holds the lock on its file; the kernel frees
the lock when the process ends, however it ends, and an absent file means the same: dead.

Nothing rests on clocks, process ids (they are given again) or host names (containers share a file under many): only
on `flock`, which every process that shares the file's kernel sees. Where it cannot be used, nobody is declared dead:
`LedgerError`. Nothing is synced: after a power loss every holder is dead, and a lost file says so.

Out of scope: several machines on one file system; SQLite's log cannot be shared so either.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from runtime.canonical import new_id
from runtime.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ATTEMPTS: Final = 100
"""How often a fresh file may be swept by others between its creation and its lock."""

_ID_DIGITS: Final = frozenset("0123456789abcdef")


class Holder:
    """A life that others can see, from `take` to `release` or the end of the process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.id = path.name
        """Unique, never used again; what the ledger's rows name."""
        self._path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, ledger_path: str | Path) -> Self:
        """Come alive beside the ledger at `ledger_path`; sweep what the dead have left there.

        Raises:
            LedgerError: the folder cannot be written, or its file system has no usable locks.
        """
        folder = _folder(ledger_path)
        with _refused(folder):
            folder.mkdir(exist_ok=True)
            _sweep(folder)
            with _forking:  # no fork between opening the file and knowing that it must be closed in the child
                holder = cls(*_locked_file(folder))
                _taken.add(holder)
        return holder

    def release(self) -> None:
        """Die; safe to call twice, and in a fork, whose parent lives on."""
        with _forking:
            descriptor, self._descriptor = self._descriptor, None
            _taken.discard(self)
        if descriptor is not None:
            with contextlib.suppress(OSError):  # swept later: without its lock the file says the same
                self._path.unlink()
            os.close(descriptor)

    def _forget(self) -> None:
        """Let go in the child of a fork: the lock is of both, and would outlive the parent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self.release()


def is_alive(ledger_path: str | Path, holder_id: str) -> bool:
    """Tell whether the holder that `holder_id` names is alive.

    Raises:
        LedgerError: it cannot be told; treat it as alive.
    """
    if not holder_id or not _ID_DIGITS.issuperset(holder_id):
        raise LedgerError(f"{holder_id!r:.80} names no holder of ledger {str(ledger_path)!r}: was it edited?")
    file = _folder(ledger_path) / holder_id
    with _refused(file):
        return not _is_free(file)


def _folder(ledger_path: str | Path) -> Path:
    """Where a ledger's holders are, by whichever link it is reached."""
    path = Path(ledger_path).resolve()
    return path.with_name(path.name + ".holders")


def _locked_file(folder: Path) -> tuple[Path, int]:
    """Make a file of a new name and lock it; again if a sweep came in between."""
    for _ in range(_ATTEMPTS):
        path = folder / new_id()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            if _lock(descriptor, fcntl.LOCK_EX) and os.fstat(descriptor).st_nlink:
                return path, descriptor
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise LedgerError(f"no file in {str(folder)!r} can be locked before it is swept: what else works there?")


def _sweep(folder: Path) -> None:
    """Remove the files of the dead. Safe to race: names are never used again."""
    for file in _names(folder):
        if _is_free(file):
            file.unlink(missing_ok=True)


def _names(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        yield from [folder / entry.name for entry in entries if _ID_DIGITS.issuperset(entry.name)]


def _is_free(file: Path) -> bool:
    """Whether nobody holds the lock of a file. Shared, so that two who ask at once do not see each other."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return _lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool:
    """Lock without waiting; whether it was free."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _refused(where: Path) -> Iterator[None]:
    try:
        yield
    except LedgerError:
        raise
    except OSError as exc:
        raise LedgerError(
            f"cannot tell who is alive by {str(where)!r}: {exc}; the ledger needs a local disk with file locks, "
            "and a folder that may be written"
        ) from exc


_forking: Final = threading.RLock()
_taken: Final[weakref.WeakSet[Holder]] = weakref.WeakSet()
"""What this process holds."""


def _after_fork_in_child() -> None:
    for holder in list(_taken):
        holder._forget()  # noqa: SLF001 - of this module
    _taken.clear()
    _forking.release()


os.register_at_fork(
    before=_forking.acquire, after_in_parent=_forking.release, after_in_child=_after_fork_in_child
)
