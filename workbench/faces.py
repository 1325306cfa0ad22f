"""Results that show themselves: one description, four faces (terminal, Markdown, notebook cell, HTML page).

One rule: a result says once what it has to say, as a `Page` of sentences, tables and Cedar texts; the faces only
write it down. So they agree, and every string from the log is escaped in one place for each face.

Out of scope: widgets, and pages with a layout of their own, such as a comparison's report.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from workbench.masking import leaving
from workbench.texts import number, shorten, visible
from workbench.words import aligned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from runtime.canonical import Json
    from workbench.plots import Plot

Cell = str | int | float | bool | None
"""None shows as `–`: not known, or not applicable."""

MAX_CELL = 120
"""Characters of a cell in a terminal and in Markdown."""


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

    @property
    def words(self) -> frozenset[int]:
        """Places of columns that hold words, which are read from the left; numbers line up on the right."""
        columns = enumerate(zip(*self.rows, strict=True)) if self.rows else ()
        return frozenset(place for place, cells in columns if any(map(_is_word, cells)))


def _is_word(cell: Cell) -> bool:
    return isinstance(cell, str) and not cell[:1].isdigit() and cell[:1] not in "–<>-"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a result says."""

    kind: str
    """One or two words: `coverage`, `why`."""
    title: str
    lines: Sequence[str]
    """Sentences, the most important first."""
    parts: Sequence[Table | Code | Picture] = ()
    next: Sequence[str] = ()
    """Python expressions that lead further; shown in a notebook and a terminal."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """What it rests on, by name; shown at the end of an HTML page."""


class Shown(Protocol):
    """A result that shows itself."""

    def page(self) -> Page:
        """What it says."""

    def as_dict(self) -> Mapping[str, Json]:
        """All of it, as JSON: what `--json` prints."""


def text(page: Page) -> str:
    """Return a page as plain text."""
    found = [visible(page.title), *map(visible, page.lines)]
    for part in page.parts:
        match part:
            case Table():
                found += ["", *grid(part)]
            case Code():
                found += ["", *_said(part.title), *(f"  {visible(line)}" for line in part.text.splitlines())]
            case Picture():
                pass
    if page.next:
        found += ["", f"Next: {', '.join(page.next)}"]
    return "\n".join(found)


def _said(*texts: str) -> Iterator[str]:
    yield from (visible(each) for each in texts if each)


def grid(table: Table) -> list[str]:
    """Return a table as lines of plain text, under its title and note."""
    cells = [[_written(cell) for cell in row] for row in table.rows]
    return [*_said(table.title, table.note), *aligned([[visible(head) for head in table.heads], *cells])]


def _written(cell: Cell) -> str:
    return number(cell) if not isinstance(cell, str) else visible(shorten(cell, MAX_CELL))


def markdown(page: Page) -> str:
    """Return a page as GitHub-flavoured Markdown."""
    found = [f"## {_escaped(page.title)}", "", *(f"{_escaped(line)}  " for line in page.lines)]
    for part in page.parts:
        match part:
            case Table():
                found += ["", *_titled(part.title), *(_escaped(each) for each in _said(part.note)), ""]
                found += _rows(part)
            case Code():
                fence = "`" * max(3, 1 + _longest_fence(part.text))
                lines = (visible(line) for line in part.text.splitlines())
                found += ["", *_titled(part.title), f"{fence}{part.language}", *lines, fence]
            case Picture():
                pass
    return "\n".join(found) + "\n"


def _titled(title: str) -> Iterator[str]:
    if title:
        yield f"### {_escaped(title)}"


def _rows(table: Table) -> Iterator[str]:
    yield "| " + " | ".join(map(_escaped, table.heads)) + " |"
    yield "|" + "|".join("---" if place == 0 else "---:" for place in range(len(table.heads))) + "|"
    for row in table.rows:
        yield "| " + " | ".join(_escaped(_written(cell)) for cell in row) + " |"


def _longest_fence(code: str) -> int:
    runs = [len(run) for run in "".join(c if c == "`" else " " for c in code).split()]
    return max(runs, default=0)


def _escaped(said: str) -> str:
    """Text that Markdown and the HTML in it take literally."""
    plain = visible(said).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{char}" if char in "\\`*_[]|#" else char for char in plain)


def cell(page: Page) -> str:
    """Return a page as an HTML fragment for a notebook cell, in the notebook's theme."""
    return _rendered("shown.html.j2", page)


def html(page: Page) -> str:
    """Return a page as a self-contained HTML document: no scripts, no network, light and dark."""
    return _rendered("shown_page.html.j2", page)


def _rendered(template: str, page: Page) -> str:
    from workbench.report import _picture as picture  # noqa: PLC0415 - it draws with Altair, which takes a second
    from workbench.report import _render as render  # noqa: PLC0415 - as above

    values = {"view": page, "picture": lambda part: picture(part.plot), "written": number}
    return render(template, values | {"kind_of": lambda part: type(part).__name__})


def write(page: Page, path: str | Path) -> Path:
    """Write the HTML page to `path`, making its folder; whole or not at all. Returns the path."""
    return written(html(page), path)


def written(content: str, path: str | Path) -> Path:
    """Write a text to `path`, masked as all that leaves, making its folder; whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    unfinished = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(leaving(content))
        unfinished.chmod(0o644)  # mkstemp's 0600 is for secrets; a report is for others to read
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return path


class Faces:
    """Gives a result with `page()` its faces in a terminal, a notebook, Markdown and HTML."""

    __slots__ = ()

    page: Callable[[], Page]

    def markdown(self) -> str:
        """Return the result as Markdown."""
        return markdown(self.page())

    def to_html(self, path: str | Path) -> Path:
        """Write the result as one self-contained page, no scripts, no network. Returns the path."""
        return write(self.page(), path)

    def __repr__(self) -> str:
        return text(self.page())

    def _repr_html_(self) -> str:
        return cell(self.page())
