"""Reading configuration in TOML so that every refusal names file, line and the way out.

One rule: a key that is not known is an error, never ignored.

`tomllib` gives values without places, so lines are found by a second, shallow look at the text: headers and the
keys that start a line. A layout it does not see through (inline tables over several keys) gives the line of the
nearest header instead; a message is then less precise, never wrong about what is wrong.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from runtime.errors import BundleError

_HEADER = re.compile(r"\s*(\[{1,2})\s*([^\[\]]+?)\s*\]{1,2}\s*(?:#.*)?")
_KEY = re.compile(r"\s*(?:([A-Za-z0-9_-]+)|\"([^\"]*)\"|'([^']*)')\s*[.=]")

L = TypeVar("L", bound=str)


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return `, did you mean …?` if a known name is close, else an empty string.

    Example:
        >>> did_you_mean("feilds", ["fields", "key"])
        ', did you mean `fields`?'
    """
    close = difflib.get_close_matches(name, known, n=1)
    return f", did you mean `{close[0]}`?" if close else ""


def line_of(exc: ValueError, text: str) -> int:
    """Return the line a `TOMLDecodeError` is about; where it names none, the text's last."""
    place = re.search(r"at line (\d+)", str(exc))
    return int(place[1]) if place else text.rstrip("\n").count("\n") + 1


class TomlLines:
    """Where the headers and keys of a text stand; lines count from 1."""

    def __init__(self, text: str) -> None:
        self._places: dict[tuple[str, int, str | None], int] = {}
        header, index, counts, quoted = "", 0, dict[str, int](), False
        for number, line in enumerate(text.split("\n"), 1):
            if not quoted and (found := _HEADER.fullmatch(line)):
                header = ".".join(part.strip(" \"'") for part in found[2].split("."))
                index = counts.get(header, 0)
                counts[header] = index + 1
                self._places.setdefault((header, index, None), number)
            elif not quoted and (found := _KEY.match(line)):
                key = next(group for group in found.groups() if group is not None)
                self._places.setdefault((header, index, key), number)
            quoted ^= (line.count('"""') + line.count("'''")) % 2 == 1

    def at(self, header: str, index: int = 0, key: str | None = None) -> int | None:
        """Return the line of `key` under the `index`-th `header`, else of the header, else of what holds it."""
        parent, _, name = header.rpartition(".")
        of_root = (key or "", 0, None)
        nearest = ((header, index, key), (header, index, None), (parent, 0, name), ("", 0, header), of_root)
        return next((self._places[place] for place in nearest if place in self._places), None)


@dataclass(frozen=True)
class TomlTable:
    """One table of a document, with what its errors need."""

    table: Mapping[str, Any]
    what: str
    """What it declares, for messages: "fact `payee`"."""
    raises: type[BundleError]
    file: str
    lines: TomlLines
    header: str = ""
    index: int = 0
    """Position among tables of the same header."""

    def named(self, what: str) -> TomlTable:
        """Return the same table under a better name."""
        return replace(self, what=what)

    def error(self, message: str, key: str | None = None) -> BundleError:
        """Return the error to raise about this table, or about one of its keys."""
        return self.raises(
            f"{self.what}: {message}", file=self.file, line=self.lines.at(self.header, self.index, key)
        )

    def allow(self, known: frozenset[str]) -> None:
        """Refuse keys that are not known, naming the closest."""
        for key in sorted(set(self.table) - known):
            hint = did_you_mean(key, known) or f"; known are {', '.join(sorted(known))}"
            raise self.error(f"unknown key `{key}`{hint}", key)

    def has(self, key: str) -> bool:
        """Whether the key is given."""
        return key in self.table

    def text(self, key: str) -> str | None:
        """Return a string; None if absent."""
        value = self.table.get(key)
        if value is None or (isinstance(value, str) and value):
            return value
        raise self.error(f"`{key}` must be a string, got {value!r}", key)

    def required(self, key: str) -> str:
        """Return a string that has to be there."""
        value = self.text(key)
        if value is None:
            raise self.error(f'needs `{key} = "…"`')
        return value

    def flag(self, key: str) -> bool:
        """Return a boolean; False if absent."""
        value = self.table.get(key, False)
        if not isinstance(value, bool):
            raise self.error(f"`{key}` must be true or false, got {value!r}", key)
        return value

    def choice(self, key: str, allowed: tuple[L, ...], default: L | None = None) -> L:
        """Return one of the `allowed` words."""
        value = self.table.get(key, default)
        for word in allowed:
            if value == word:
                return word
        words = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
        given = f"got {value!r}" if key in self.table else "it is missing"
        raise self.error(f"`{key}` must be {words}, {given}", key)

    def names(self, key: str) -> tuple[str, ...]:
        """Return a list of distinct strings; empty if absent."""
        value = self.table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.error(f"`{key}` must be a list of strings, got {value!r}", key)
        if doubled := sorted({item for item in value if value.count(item) > 1}):
            raise self.error(f"`{key}` names {', '.join(map(repr, doubled))} twice", key)
        return tuple(value)

    def texts(self, key: str) -> dict[str, str]:
        """Return a table of strings; empty if absent."""
        value = self.table.get(key, {})
        if not isinstance(value, dict) or not all(isinstance(item, str) and item for item in value.values()):
            raise self.error(
                f'`{key}` must be a table of strings, such as {{ column = "path" }}, got {value!r}', key
            )
        return dict(value)

    def named_tables(self, key: str, what: str) -> dict[str, TomlTable]:
        """Return the tables `[key.<name>]`, by name."""
        value = self.table.get(key, {})
        if not isinstance(value, dict) or not all(isinstance(item, dict) for item in value.values()):
            raise self.error(f"write each {what} as `[{key}.<name>]`", key)
        return {
            name: replace(self, table=table, what=f"{what} `{name}`", header=f"{key}.{name}", index=0)
            for name, table in value.items()
        }

    def array_of_tables(self, key: str, what: str) -> list[TomlTable]:
        """Return the tables `[[key]]`, in order."""
        value = self.table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.error(f"write each {what} as `[[{key}]]`", key)
        return [
            replace(self, table=table, what=f"{what} {number}", header=key, index=number - 1)
            for number, table in enumerate(value, 1)
        ]
