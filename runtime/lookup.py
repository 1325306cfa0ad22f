"""What a lookup in a system of record is, and what every source does the same way.

One rule: a lookup gives exactly the rows whose columns equal what was asked, in value and in type, or it raises
`SourceError`. What is asked is only ever data: it is bound or compared, never put into a statement.

Import from `runtime.sources`.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from runtime.errors import SourceColumnUnknown, SourceError
from runtime.foreign import message_of
from runtime.toml import did_you_mean
from runtime.values import to_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from runtime.canonical import Json

MAX_ROWS = 1_000_000
"""Default bound on rows held of one Delta version, and on rows of one answer."""


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to one lookup."""

    rows: list[dict[str, Json]]
    """JSON values by column, null where the row has none; order means nothing."""
    version: str | None
    """Version of the source that was read; null: the source has none."""
    as_of: int | None
    """When that version came to be, microseconds since the epoch, UTC; null: unknown."""


@runtime_checkable
class Source(Protocol):
    """A system of record. Callers do not retry; sources are thread-safe."""

    kind: str
    """`delta`, `sql` or `callable`."""
    uri: str | None
    """Location as recorded with each fact; holds no password."""

    def lookup(
        self, where: Mapping[str, Json], columns: Sequence[str], *, version: str | None = None
    ) -> Found:
        """Return `columns` of the rows whose columns equal `where`.

        Args:
            where: column → JSON scalar, never null. Empty: all rows.
            columns: columns wanted.
            version: read as of this version; None: the latest.

        Raises:
            SourceError: no answer, for whatever reason. Safe to retry.
        """
        ...

    def version_at(self, at_us: int) -> str | None:
        """Return the version that was current at a time (microseconds, UTC); None: the source has no history."""
        ...


def json_row(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Json]:
    """Return `columns` of a row as JSON; a column that the row lacks is null."""
    return {name: to_json(row.get(name), f"column `{name}`") for name in columns}


def typed(value: Json) -> tuple[type, Json]:
    """Return a key that compares as JSON does: `true` is not 1, and 5.0 is 5."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return (value.__class__, value)


def check_columns(names: Sequence[str], known: Collection[str], what: str) -> None:
    """Refuse columns that are not there, naming the closest.

    Raises:
        SourceColumnUnknown: at the first one.
    """
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f"; it has {', '.join(sorted(known))}"
            raise SourceColumnUnknown(f"{what} has no column `{name}`{hint}")


def first_line(exc: BaseException) -> str:
    """Return the message's first line, cut to 300 characters: drivers and engines append pages."""
    return (message_of(exc).strip().splitlines() or [""])[0][:300]


@contextmanager
def answering(what: str, foreign: tuple[type[Exception], ...]) -> Iterator[None]:
    """Translate exceptions of a library into `SourceError`. The one place where it happens."""
    try:
        yield
    except foreign as exc:
        # A database driver's own words, without the statement and its parameters.
        cause = getattr(exc, "orig", None) or exc
        raise SourceError(f"{what} could not answer: {type(cause).__name__}: {first_line(cause)}") from exc
