"""Entries on their way to MLflow, in a folder: what was put there gets there, once, however long MLflow is away.

One rule: an entry is in the folder before anybody tries to send it, and leaves it after MLflow has all of it. `send`
gives MLflow an entry once, whoever is killed and when; so does this.

```
waiting/000007-<id>/   sent oldest first
refused/<id>/          MLflow will not take it at any time; `why.txt` says why; move it back to try again
making/<random>/       being written, by a process that holds a lock on it
```

Entries get their numbers as they are put. A folder is renamed into `waiting` when every byte of it is on disk, and
renamed out of it before it is taken apart: what stands there is whole. What a killed process left in `making` is
removed by the next one.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from workbench.durably import sync
from workbench.errors import JobStateError, TrackingError
from workbench.faces import written
from workbench.runs.entry_files import read_entry, write_entry
from workbench.runs.sending import Sent, send
from workbench.texts import visible
from workbench.tracking import look, standing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from workbench.runs.entry import Entry

WAITING, REFUSED, MAKING, WHY = "waiting", "refused", "making", "why.txt"

_NAME = re.compile(r"(\d{6,})-(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An entry that was not sent."""

    id: str
    state: Literal["waiting", "refused"]
    """`waiting`: tried again by the next `flush`; `refused`: set aside, with its reason."""
    why: str

    def __str__(self) -> str:
        what = "is kept and sent with the next" if self.state == "waiting" else "was set aside"
        return f"entry {visible(self.id)} {what}: {visible(self.why)}"


class Outbox:
    """Entries that wait in a folder. Several processes may use one at the same time.

    Args:
        folder: made if it is not there.

    Raises:
        JobStateError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        with self._told():
            for name in (WAITING, REFUSED, MAKING):
                (self.folder / name).mkdir(parents=True, exist_ok=True)

    def put(self, prepare: Callable[[Path], Entry]) -> str:
        """Write an entry, to be sent by the next `flush`.

        Args:
            prepare: writes the entry's files into the folder it is given, and returns the entry.

        Returns:
            Its id. An entry of that id that waits already, or was set aside, is the same entry: it stays.

        Raises:
            JobStateError: the folder cannot be written, or the disk is full. The entry is not there, not even a part.
            ValueError: the entry cannot be sent as it is; as `write_entry`.

        Durability: on disk, whole, when it returns. What `prepare` raises passes through, and nothing is left of it.
        """
        with ExitStack() as stack:
            with self._told(), self._locked():
                folder = stack.enter_context(self._claimed())
            entry = prepare(folder)
            with self._told():
                write_entry(entry, folder)
                _sync_tree(folder)
                with self._locked():
                    self._add(folder, entry.id)
        return entry.id

    def waiting(self) -> tuple[str, ...]:
        """Return the ids of entries that are to be sent, oldest first."""
        with self._told():
            return tuple(name for _, name, _ in self._entries())

    def refused(self) -> dict[str, str]:
        """Return why entries were set aside, by id."""
        with self._told():
            return {each.name: _read(each / WHY) for each in sorted((self.folder / REFUSED).iterdir())}

    def flush(self, tracking_uri: str) -> list[Sent | Problem]:
        """Send what waits, oldest first.

        Stops at the first entry for which nobody answers: the others would wait as long. An entry that MLflow refuses
        for what it is, is set aside and told. Of other failures the entry stays, and the next one is tried; two of
        them in a row end it.

        Args:
            tracking_uri: of the store.

        Returns:
            One each entry that was tried, and one for each that was not, since MLflow is away.

        Raises:
            JobStateError: the folder cannot be read or written.
            MissingExtra: MLflow is not installed.

        Durability: what is returned as sent is in the store, and out of the folder.
        """
        done: list[Sent | Problem] = []
        unclear = 0
        with self._told(), self._locked("sending"):
            entries = self._entries()
            for at, (_, name, folder) in enumerate(entries):
                try:
                    done.append(self._sent(folder, tracking_uri))
                    unclear = 0
                except TrackingError as exc:
                    state = self._failed(name, folder, exc)
                    kept: Literal["refused", "waiting"] = "refused" if state == "refused" else "waiting"
                    done.append(Problem(id=name, state=kept, why=str(exc)))
                    unclear = unclear + 1 if state == "unclear" else 0
                    if state == "away" or unclear > 1 or not _answers(tracking_uri):
                        done += [
                            Problem(id=each, state="waiting", why=_AFTER) for _, each, _ in entries[at + 1 :]
                        ]
                        break
        return done

    # Names in the folder.

    def _entries(self) -> list[tuple[int, str, Path]]:
        """Return number, id and folder of what waits, by number."""
        found = [(_NAME.fullmatch(each.name), each) for each in (self.folder / WAITING).iterdir()]
        return sorted((int(name[1]), name[2], path) for name, path in found if name)

    def _add(self, folder: Path, name: str) -> None:
        entries = self._entries()
        if any(name == each for _, each, _ in entries) or (self.folder / REFUSED / name).exists():
            return
        number = 1 + max((number for number, _, _ in entries), default=0)
        folder.rename(self.folder / WAITING / f"{number:06}-{name}")
        sync(self.folder / WAITING)

    def _sent(self, folder: Path, tracking_uri: str) -> Sent:
        sent = send(folder, tracking_uri)
        with self._locked(), self._claimed() as gone:
            folder.rename(gone / "sent")
            sync(self.folder / WAITING)
        return sent

    def _failed(self, name: str, folder: Path, exc: TrackingError) -> Literal["away", "refused", "unclear"]:
        """Say what a failure means; an entry that can never be sent is moved aside."""
        state = standing(exc) if _is_readable(folder) else "refused"
        if state == "refused":
            written(f"{exc}\n", folder / WHY)
            with self._locked():
                shutil.rmtree(target := self.folder / REFUSED / name, ignore_errors=True)
                folder.rename(target)
            sync(self.folder / REFUSED)
            sync(self.folder / WAITING)
        return state

    # Locks.

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say of the folder what the system says of it."""
        try:
            yield
        except (TrackingError, JobStateError):
            raise
        except OSError as exc:
            why = exc.strerror or exc
            raise JobStateError(
                f"{self.folder}, where what is to be logged waits, cannot be used: {why}"
            ) from exc

    @contextmanager
    def _locked(self, name: str = "names") -> Iterator[None]:
        """Hold the folder's names, or the right to send; others wait."""
        handle = os.open(self.folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    @contextmanager
    def _claimed(self) -> Iterator[Path]:
        """Give a folder that is this process's alone, and is removed at the end; hold `_locked` to begin with."""
        making = self.folder / MAKING
        for each in making.iterdir():
            _remove_if_left(each)
        folder = Path(tempfile.mkdtemp(dir=making))
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)


def _remove_if_left(folder: Path) -> None:
    """Remove what a process left that was killed: nobody holds a lock on it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def _sync_tree(folder: Path) -> None:
    """Put every file and name below a folder on disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            with (Path(root) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync(Path(root))


def _is_readable(folder: Path) -> bool:
    try:
        read_entry(folder)
    except TrackingError:
        return False
    return True


def _answers(tracking_uri: str) -> bool:
    try:
        look(tracking_uri)
    except TrackingError:
        return False
    return True


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


_AFTER = "MLflow did not take the one before it"
