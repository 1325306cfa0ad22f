"""Reading a table of a job file: every key once, and every mistake told.

One rule: nothing is ignored and nothing is guessed. A key that nobody asked for, or of the wrong type, is a problem;
problems are gathered, so that a file is put right in one go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from workbench.errors import WorkbenchError
from workbench.texts import visible
from workbench.weighing.stakes import closest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")

_FIRST_YEAR, _LAST_YEAR = 1970, 2500
_LENGTH = re.compile(r"(?:(\d{1,5})d)?(?:(\d{1,6})h)?(?:(\d{1,7})m)?(?:(\d{1,8})s)?")


@dataclass(slots=True)
class Keys:
    """One table of a file, and what is wrong with it."""

    table: Mapping[str, Any]
    where: str
    """Its name in messages: `[window]`; empty: the top of the file."""
    problems: list[str] = field(default_factory=list)
    """Of the whole file; shared."""
    asked: set[str] = field(default_factory=set)

    def wrong(self, key: str, why: str) -> None:
        """Note what is wrong with a key."""
        self.problems.append(f"{f'{self.where} ' if self.where else ''}`{visible(key)}` {why}")

    def has(self, key: str) -> bool:
        """Whether the key is given."""
        self.asked.add(key)
        return key in self.table

    def inner(self, key: str) -> Keys:
        """Return a table in this one; without any, an empty one."""
        given = self.get(key, {})
        if not isinstance(given, dict):
            self.wrong(key, f"is {_said(given)}; write it as a table, `[{visible(key)}]`")
            given = {}
        return Keys(given, f"[{visible(key)}]", self.problems)

    def get(self, key: str, default: Any = None) -> Any:
        """Return what is given, whatever it is."""
        return self.table[key] if self.has(key) else default

    def text(self, key: str, default: str = "", *, such_as: str) -> str:
        """Return a text that is not empty."""
        given = self.get(key, default)
        if isinstance(given, str) and (given or key not in self.table):
            return given
        self.wrong(key, f'is {_said(given)}; give a text, as `{key} = "{such_as}"`')
        return default

    def texts(self, key: str, default: Sequence[str] = (), *, such_as: str) -> tuple[str, ...]:
        """Return a list of distinct texts; one text is a list of one."""
        given = self.get(key, list(default))
        several = [given] if isinstance(given, str) else given
        if not isinstance(several, list) or not all(isinstance(each, str) and each for each in several):
            self.wrong(key, f"is {_said(given)}; give a list of texts, as `{key} = {such_as}`")
            return tuple(default)
        for each in sorted({each for each in several if several.count(each) > 1}):
            self.wrong(key, f"names `{visible(each)}` twice")
        return tuple(dict.fromkeys(several))

    def choice(self, key: str, allowed: Sequence[str], default: str) -> str:
        """Return one of some words."""
        given = self.get(key, default)
        if given in allowed:
            return str(given)
        hint = closest(given, allowed) if isinstance(given, str) else f"it is one of {', '.join(allowed)}"
        self.wrong(key, f"is {_said(given)}; {hint}")
        return default

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        given = self.get(key, default)
        if isinstance(given, bool):
            return given
        self.wrong(key, f"is {_said(given)}; it is true or false")
        return default

    def whole(self, key: str, default: int, *, least: int, most: int) -> int:
        """Return a whole number between two."""
        given = self.get(key, default)
        if type(given) is int and least <= given <= most:
            return given
        self.wrong(key, f"is {_said(given)}; give a whole number from {least:,} to {most:,}")
        return default

    def moment(self, key: str) -> datetime | None:
        """Return a time, UTC where it names no zone; None: not given."""
        given = self.get(key)
        found = moment_of(given)
        if found is None and given is not None:
            self.wrong(key, f'is {_said(given)}; give a time, as `{key} = "2026-11-01T00:00:00Z"`')
        return found

    def length(self, key: str) -> timedelta | None:
        """Return a length of time; None: not given."""
        given = self.get(key)
        found = _length_of(given) if isinstance(given, str) else None
        if found is None and given is not None:
            self.wrong(key, f'is {_said(given)}; give a length of time, as `{key} = "7d"` or "36h"')
        return found

    def read(self, read: Callable[[], T]) -> T | None:
        """Return what another reader makes of a part; what it refuses becomes a problem, and None."""
        try:
            return read()
        except WorkbenchError as exc:
            told = [line.strip() for line in str(exc).splitlines()]  # of several mistakes, a line each
            self.problems.extend(f"{f'{self.where} ' if self.where else ''}{line}" for line in told if line)
            return None

    def done(self) -> None:
        """Tell keys that nobody asked for."""
        for key in self.table:
            if key not in self.asked:
                self.wrong(key, f"is no key of a job file{self._here}; {closest(key, self.asked)}")

    @property
    def _here(self) -> str:
        return " here" if self.where else ""


def moment_of(given: object) -> datetime | None:
    """Return a time, of a TOML time or ISO text, UTC where it names no zone; None: it is none.

    Example:
        >>> moment_of("2026-11-01"), moment_of("soon")
        (datetime.datetime(2026, 11, 1, 0, 0, tzinfo=datetime.timezone.utc), None)
    """
    if isinstance(given, str):
        try:
            given = datetime.fromisoformat(given)
        except ValueError:
            return None
    if isinstance(given, date) and not isinstance(given, datetime):
        given = datetime.combine(given, time())
    if not isinstance(given, datetime):
        return None
    if (
        not _FIRST_YEAR <= given.year < _LAST_YEAR
    ):  # a zone or a length of time may not lead out of the calendar
        return None
    return given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)


def _length_of(given: str) -> timedelta | None:
    found = _LENGTH.fullmatch(given)
    if not found or not any(found.groups()):
        return None
    days, hours, minutes, seconds = (int(each or 0) for each in found.groups())
    length = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    return length or None


def _said(given: object) -> str:
    return visible(repr(given))[:80]
