"""Windows of a ledger's chain and contents, each held to its hashes as one text; in this process and in helping ones.

One rule: `chain` and `contents` call only that whole which they hashed, every row of it. Whatever is not as it must
be is None, and is gone through row by row by `runtime.verifying`, which names what is wrong.

Run as a script, this module is a helping process: it takes pieces from its input and answers each with a line. So
it imports nothing of ours, and is at work a few hundredths of a second after it was started.
"""

from __future__ import annotations

import hashlib
import sqlite3
import sys
from typing import Final, NamedTuple

HEX: Final = 64
"""Characters of a hash."""
WINDOW_BYTES: Final = 1 << 18
"""Text of one window, about: read, parted, hashed and looked at in turn, it stays in the processor's cache."""
WINDOW_ROWS: Final = 256
"""Rows of the first window, before it is known how long they are."""
MAX_ROWS: Final = 4_096
MAX_JOINED: Final = 32 << 20
_LONGEST: Final = 10**9

LINKS: Final = (
    "(SELECT position, hash, row, 'd' AS kind FROM decisions WHERE position > ?1 AND position <= ?2 UNION ALL"
    " SELECT position, hash, row, 'o' FROM outcomes WHERE position > ?1 AND position <= ?2 ORDER BY position)"
)
"""Rows of the chain after a position up to another, in order."""
CONTENTS: Final = (
    "(SELECT sequence, tbl, key, hash, row FROM contents WHERE sequence > ?1 AND sequence <= ?2"
    " ORDER BY sequence)"
)
_JOINED: Final = (
    "SELECT count(*), {0}, group_concat(hash, ''), CAST(group_concat(row, char(10)) AS BLOB) FROM {1}"
)
OF_LINKS: Final = _JOINED.format("group_concat(kind, '')", LINKS)
OF_CONTENTS: Final = _JOINED.format("''", CONTENTS)
_TABLES: Final = {"d": b',"table":"decisions"', "o": b',"table":"outcomes"'}


class Window(NamedTuple):
    """Rows after `after` up to `upto`, as one text; `rows` is -1 where they could not be read so."""

    after: int
    upto: int
    rows: int
    kinds: str
    """By row: `d` of `decisions`, `o` of `outcomes`."""
    hashes: str
    lines: bytes


class Whole(NamedTuple):
    """What is known of a piece in which nothing is wrong."""

    rows: int
    before: str = ""
    """Hash that the first row says is before it; of contents empty."""
    last: str = ""
    """Hash of the last row."""
    held: str = ""
    """Hash at the position that was asked for, if it is in the piece."""

    def __str__(self) -> str:
        return f"{self.rows} {self.before or '-'} {self.last or '-'} {self.held or '-'}"


def parsed(line: str) -> Whole | None:
    """Read what `str` of a `Whole` wrote; None where it says something else."""
    rows, *hashes = line.split()
    if not rows.isdecimal():
        return None
    before, last, held = ("" if text == "-" else text for text in hashes)
    return Whole(int(rows), before, last, held)


def read(db: sqlite3.Connection, sql: str, after: int, upto: int) -> Window:
    """Read rows as one text, by `OF_LINKS` or `OF_CONTENTS`.

    Raises:
        sqlite3.Error: they cannot be read at all.
    """
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_JOINED)
    try:
        ((rows, kinds, hashes, lines),) = db.execute(sql, (after, upto)).fetchall()
    except (sqlite3.DataError, sqlite3.OperationalError) as exc:
        if isinstance(exc, sqlite3.OperationalError) and "decode" not in str(exc).lower():
            raise
        return Window(after, upto, -1, "", "", b"")  # too large to be joined, or no text
    finally:
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
    return Window(after, upto, rows, kinds or "", hashes or "", lines or b"")


def asks(window: Window) -> int:
    """Return how many rows the next window should have, by what this one held."""
    asked = window.upto - window.after
    if window.rows < 0:
        return max(1, asked // 8)
    return max(1, min(MAX_ROWS, WINDOW_BYTES * asked // len(window.lines))) if window.lines else asked


def texts(window: Window) -> list[bytes] | None:
    """Return the texts of a window if each of them has its hash."""
    sha256 = hashlib.sha256
    found = window.lines.split(b"\n") if window.rows else []
    if len(found) != window.rows or len(window.hashes) != HEX * window.rows:
        return None
    return found if "".join([sha256(text).hexdigest() for text in found]) == window.hashes else None


def linked(window: Window, previous: str | None) -> str | None:
    """Return the hash before a window whose rows are the links after it, one at each position, each in its table.

    Args:
        window: of the chain.
        previous: the hash before it; None: what its first row says.

    Returns:
        That hash; None: something is not as it must be.

    A quote inside of a text's strings is escaped, so a member's name with its quotes stands only where it is one.
    """
    found = texts(window) if 0 < window.rows == window.upto - window.after else None
    if found is None:
        return None
    before = _said_before(found[0]) if previous is None else previous
    return before if _stand(window, found, before) else None


def _stand(window: Window, found: list[bytes], before: str) -> bool:
    """Whether each text says its position, the hash before it, and its table.

    Where a text says so is nearly always where the one before it of its table did: looked at first, it need not be
    searched for.
    """
    hashes = (before + window.hashes).encode()
    starts, tails = dict.fromkeys(_TABLES, 0), dict.fromkeys(_TABLES, 0)
    for number, (text, kind) in enumerate(zip(found, window.kinds, strict=True)):
        hash_before = hashes[HEX * number : HEX * number + HEX]
        link = b',"position":%d,"prev_hash":"%b",' % (window.after + 1 + number, hash_before)
        if not text.startswith(link, starts[kind]):
            starts[kind] = place = text.find(link)
            if place < 0:
                return False
        table = _TABLES[kind]
        if not text.startswith(table, len(text) - tails[kind]):
            place = text.rfind(table)
            if place < 0:
                return False
            tails[kind] = len(text) - place
    return True


def _said_before(text: bytes) -> str:
    mark = b',"prev_hash":"'
    begin = text.find(mark) + len(mark)
    return text[begin : begin + HEX].decode("ascii", "replace")


def chain(db: sqlite3.Connection, after: int, upto: int, wanted: int) -> Whole | None:
    """Hold a piece of the chain to its hashes.

    Args:
        db: the ledger.
        after: the position before the piece.
        upto: its last position.
        wanted: a position whose hash is asked for; 0: none.
    """
    first, last, held, asked, at = None, None, "", WINDOW_ROWS, after
    while at < upto:
        window = read(db, OF_LINKS, at, min(at + asked, upto))
        before = linked(window, last)
        if before is None:
            return None
        first = before if first is None else first
        last = window.hashes[-HEX:]
        if window.after < wanted <= window.upto:
            held = hash_at(window, wanted)
        at, asked = window.upto, asks(window)
    return Whole(upto - after, first or "", last or "", held)


def hash_at(window: Window, position: int) -> str:
    """Return the hash at a position of a window that has a row at each."""
    begin = (position - window.after - 1) * HEX
    return window.hashes[begin : begin + HEX]


def contents(db: sqlite3.Connection, after: int, upto: int) -> Whole | None:
    """Hold a piece of the contents to their hashes; sequences in it may be missing."""
    rows, asked, at = 0, WINDOW_ROWS, after
    while at < upto:
        window = read(db, OF_CONTENTS, at, min(at + asked, upto))
        if window.rows < 0 or texts(window) is None:
            return None
        rows, at, asked = rows + window.rows, window.upto, asks(window)
    return Whole(rows)


def _help() -> None:
    """Answer pieces, a line each, until there are no more."""
    db = sqlite3.connect(sys.argv[1], uri=True, isolation_level=None)
    db.execute("PRAGMA mmap_size=1073741824")  # a page that cannot be read ends this process, and no other
    db.execute("BEGIN")
    for line in sys.stdin:
        kind, *numbers = line.split()
        after, upto, wanted = map(int, numbers)
        found = chain(db, after, upto, wanted) if kind == "chain" else contents(db, after, upto)
        sys.stdout.write(f"{found or '-'}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _help()
