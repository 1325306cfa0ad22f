"""Answers of a source that says its version: kept until it says another one.

One rule: an answer is given again only for the same question at the very version it was read at, and it was read at
that version only if the source said so before *and* after.

A question is the columns asked for and every key with its value and type, the tenant's column among them: a fact of
one tenant is under no other tenant's question. Nothing is kept of a source without a version.

Accepted: the version is asked at every lookup, so a hit costs what that costs. A source that changes at every read
gives no answer. An answer of no rows is not kept: what is asked may be anything a caller thinks of.

Import from `runtime.sources`.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from runtime.errors import SourceError
from runtime.lookup import Found, typed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runtime.canonical import Json

MAX_ANSWERS = 1024
"""Answers kept of one source; the one used longest ago goes first."""
MAX_BYTES = 16 << 20
"""Bytes kept of one source, as JSON."""
MAX_ANSWER_BYTES = 1 << 20
"""Answers above this are not kept."""
_ATTEMPTS = 3
"""How often a source is read again that changed meanwhile."""

_encode = msgspec.json.Encoder().encode
Rows = list[dict[str, "Json"]]


class _Kept(NamedTuple):
    rows: Rows
    size: int


class AnswerCache:
    """Answers at the latest version of one source. Thread-safe; bounded in answers and in bytes."""

    def __init__(self, what: str, max_answers: int = MAX_ANSWERS, max_bytes: int = MAX_BYTES) -> None:
        """Start empty.

        Args:
            what: the source, for messages: "callable source".
            max_answers: most answers kept; 0: none.
            max_bytes: most bytes kept, as JSON.
        """
        self._what = what
        self._lock = Lock()
        self._version: str | None = None
        self._kept: OrderedDict[tuple[object, ...], _Kept] = OrderedDict()
        self._bytes = 0
        self._max_answers, self._max_bytes = max_answers, max_bytes

    def read(
        self,
        current: Callable[[], str],
        where: Mapping[str, Json],
        columns: Sequence[str],
        ask: Callable[[], Rows],
        wanted: str | None = None,
    ) -> Found:
        """Return the rows at the current version, from memory if they were read at it.

        Args:
            current: asks the source for its version.
            where: what is asked; with `columns`, the question.
            columns: columns wanted.
            ask: asks the source for the rows.
            wanted: the version it has to be; None: whichever it is.

        Raises:
            SourceError: the source is at another version than wanted, or changed each time it was read.
        """
        question = (tuple(columns), *((name, typed(value)) for name, value in where.items()))
        for _ in range(_ATTEMPTS):
            version = current()
            if wanted is not None and version != wanted:
                raise SourceError(
                    f"{self._what} is at version {version!r:.80}; it cannot be read as of {wanted!r:.80}"
                )
            rows = self._find(version, question)
            if rows is not None:
                return Found(rows, version, None)
            rows = ask()
            if current() == version:
                self._keep(version, question, rows)
                return Found(rows, version, None)
        raise SourceError(
            f"{self._what} changed its version {_ATTEMPTS} times while it was read; safe to retry"
        )

    def _find(self, version: str, question: tuple[object, ...]) -> Rows | None:
        with self._lock:
            if version != self._version:
                self._version, self._bytes = version, 0
                self._kept.clear()
            kept = self._kept.get(question)
            if kept is None:
                return None
            self._kept.move_to_end(question)
            return kept.rows

    def _keep(self, version: str, question: tuple[object, ...], rows: Rows) -> None:
        size = len(_encode(rows)) if rows and self._max_answers else 0
        if not 0 < size <= MAX_ANSWER_BYTES:
            return
        with self._lock:
            if version != self._version:
                return  # somebody saw another version meanwhile; what was read at this one is of no more use
            if (old := self._kept.pop(question, None)) is not None:
                self._bytes -= old.size
            self._kept[question] = _Kept(rows, size)
            self._bytes += size
            while len(self._kept) > self._max_answers or self._bytes > self._max_bytes:
                self._bytes -= self._kept.popitem(last=False)[1].size
