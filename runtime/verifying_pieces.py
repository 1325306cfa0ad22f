"""Pieces of a ledger looked at by several processes at once: this one, and one more for each further core.

One rule: a helping process can only make it faster. What it has not answered, or answers wrongly, is looked at here;
that it has started late, died or cannot be started at all changes no finding.

The helpers read the ledger over connections of their own, so each sees what is committed when it begins; rows up to
the end that this process saw are the same in every later look, since nothing is ever changed or removed.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from runtime import verifying_windows
from runtime.inspection import read_only
from runtime.verifying_windows import Whole, chain, contents, parsed

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

HELPED: Final = 6
"""Fewest pieces for which a helping process is started: it takes as long as three of them to begin."""
MOST_HELPERS: Final = 7
_AHEAD: Final = 2
"""Pieces a helper has at once, so that it need not wait for the next one."""


class Piece(NamedTuple):
    """Rows after `after` up to `upto`: positions of the chain, or sequences of contents."""

    kind: Literal["chain", "contents"]
    after: int
    upto: int
    wanted: int
    """A position whose hash is asked for; 0: none."""


def look_at(db: sqlite3.Connection, path: Path, pieces: Sequence[Piece]) -> list[Whole | None]:
    """Hold each piece to its hashes; None where something in it is not as it must be.

    Args:
        db: the ledger at `path`, in the transaction that the pieces were made in.
        path: where the helpers find it.
        pieces: in any order.
    """
    found: list[Whole | None] = [None] * len(pieces)
    todo = deque(range(len(pieces)))
    with _helpers(path, len(pieces)) as helpers:
        while todo or any(helper.asked for helper in helpers):
            for helper in helpers:
                helper.feed(pieces, todo)
            mine = todo.popleft() if todo else None
            if mine is not None:
                found[mine] = _look(db, pieces[mine])
            for helper in _ready(helpers, wait=mine is None):
                helper.collect(found, todo)
    return found


def _look(db: sqlite3.Connection, piece: Piece) -> Whole | None:
    if piece.kind == "chain":
        return chain(db, piece.after, piece.upto, piece.wanted)
    return contents(db, piece.after, piece.upto)


class _Helper:
    """A helping process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None  # noqa: S101 - it was started with pipes
        assert process.stdout is not None  # noqa: S101
        self.process, self._to, self.answers = process, process.stdin.fileno(), process.stdout.fileno()
        self.asked: deque[int] = deque()
        """Pieces it has and has not answered, in the order of its answers."""
        self._text = b""
        self._gone = False

    def feed(self, pieces: Sequence[Piece], todo: deque[int]) -> None:
        """Give it what it can take on."""
        while todo and not self._gone and len(self.asked) < _AHEAD:
            kind, after, upto, wanted = pieces[todo[0]]
            try:
                os.write(self._to, b"%b %d %d %d\n" % (kind.encode(), after, upto, wanted))
            except OSError:  # it has died
                self._gone = True
            else:
                self.asked.append(todo.popleft())

    def collect(self, found: list[Whole | None], todo: deque[int]) -> None:
        """Take its answers; what a dead one leaves is to be done by others."""
        text = os.read(self.answers, 1 << 16)
        if not text:
            self._gone = True
            todo.extendleft(reversed(self.asked))
            self.asked.clear()
            return
        *lines, self._text = (self._text + text).split(b"\n")
        for line in lines:
            found[self.asked.popleft()] = parsed(line.decode())


def _ready(helpers: Sequence[_Helper], *, wait: bool) -> list[_Helper]:
    waiting = [helper for helper in helpers if helper.asked]
    if not waiting:
        return []
    poll = select.poll()
    for helper in waiting:
        poll.register(helper.answers, select.POLLIN)
    told = {answers for answers, _ in poll.poll(None if wait else 0)}
    return [helper for helper in waiting if helper.answers in told]


@contextlib.contextmanager
def _helpers(path: Path, pieces: int) -> Iterator[list[_Helper]]:
    """Start a process for each further core, where it is worth it; end them, come what may."""
    count = min(_cores() - 1, MOST_HELPERS, pieces - 1) if pieces >= HELPED and sys.executable else 0
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with contextlib.suppress(OSError):
            processes.extend(_started(path) for _ in range(count))
        yield [*map(_Helper, processes)]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _started(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-I", "-S", str(Path(verifying_windows.__file__)), read_only(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


__all__ = ["Piece", "look_at"]
