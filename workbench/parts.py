"""The parts of a page: what a result says beside its sentences.

One rule: a part is data, the same for every face; how it looks in a terminal, in Markdown and in HTML is for
`workbench.faces` and the templates. Import from `workbench.faces`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.canonical import Json
    from workbench.plots import Plot
    from workbench.viewing.cedar_html import Mark

Cell = str | int | float | bool | None
"""None shows as `–`: not known, or not applicable."""

Hue = Literal["good", "bad", "tight", "wait", "note", "lost", "plain"]
"""`good` let run, `bad` stopped or wrong, `tight` changed, `wait` waiting, `note` in doubt, `lost` damaged."""

HUES: Mapping[str, Hue] = {
    "allow": "good", "modify": "tight", "approve": "wait", "block": "bad", "undecided": "note", "quarantined": "lost",
    "succeeded": "good", "failed": "bad", "aborted": "bad", "denied": "bad", "expired": "bad", "in doubt": "note",
    "none yet": "plain", "decided": "good", "compensated": "tight", "cancelled": "plain",
}  # fmt: skip
"""The hue of a verdict, a status, or how a call ended."""

_MAX_NUMBER = 24
"""Characters of the longest number with its unit; what is longer is words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of a page."""

    title: str = ""
    note: str = ""
    """What the rows are, and what was left out."""
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    code: frozenset[int] = frozenset()
    """Places of columns that hold names or code."""
    folded: bool = False
    """Whether HTML shows it only when it is asked for."""

    @property
    def words(self) -> frozenset[int]:
        """Places of columns that hold words, which are read from the left; numbers line up on the right."""
        columns = enumerate(zip(*self.rows, strict=True)) if self.rows else ()
        return self.code | {place for place, cells in columns if any(map(_is_word, cells))}


def _is_word(cell: Cell) -> bool:
    if not isinstance(cell, str):
        return False
    return len(cell) > _MAX_NUMBER or (not cell[:1].isdigit() and cell[:1] not in "–<>-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A text to be shown as it is: Cedar, JSON, a command."""

    title: str = ""
    text: str
    language: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A chart; only HTML shows it."""

    alt: str
    """Says what it shows, and where the numbers are."""
    plot: Plot


class Item(NamedTuple):
    """One line of a listing."""

    name: str
    value: Cell
    is_code: bool = False
    hue: Hue | None = None
    """Shown as a badge of this hue; None: as text."""
    is_link: bool = False
    """Whether HTML makes a link of it: of our own addresses only, and only where it begins with `http`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Names with their values."""

    title: str = ""
    note: str = ""
    items: Sequence[Item]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cedar:
    """A Cedar text with its clauses marked by what they were."""

    title: str = ""
    note: str = ""
    text: str
    line: int = 1
    """Number of its first line in its file."""
    marks: Sequence[Mark] = ()
    edited: frozenset[int] = frozenset()
    """Places of its lines, from 0, that another version has otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A JSON text, cut where it is long."""

    title: str = ""
    note: str = ""
    text: str
    left_out: int = 0
    """Characters that were cut."""
    folded: bool = False
    """Whether HTML shows it only when it is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Two JSON objects, key by key."""

    title: str = ""
    note: str = ""
    left: Mapping[str, Json] | None
    right: Mapping[str, Json] | None
    names: tuple[str, str]


class Bar(NamedTuple):
    """One whole and what it is made of."""

    label: str
    parts: Sequence[tuple[str, int]]
    """Names (each with the hue of `HUES`) and counts."""

    @property
    def whole(self) -> int:
        """What its parts sum to."""
        return sum(number for _, number in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Wholes side by side, each as what it is made of."""

    title: str = ""
    note: str = ""
    bars: Sequence[Bar]

    @property
    def names(self) -> list[str]:
        """The names of all parts, in the order of their first bar."""
        return list(dict.fromkeys(name for bar in self.bars for name, number in bar.parts if number))


Part = Table | Code | Picture | Listing | Cedar | Document | Compared | Bars
