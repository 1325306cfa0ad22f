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
from workbench.parts import (
    HUES,
    Bar,
    Bars,
    Cedar,
    Cell,
    Code,
    Compared,
    Document,
    Hue,
    Item,
    Listing,
    Part,
    Picture,
    Table,
)
from workbench.plainly import columns, plainly
from workbench.texts import count, number, shorten, visible
from workbench.viewing.cedar_html import lines_of
from workbench.viewing.contexts_html import differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from runtime.canonical import Json

MAX_CELL = 120
"""Characters of a cell in a terminal and in Markdown."""

MAX_LINE = 2_000
"""Characters of a sentence: a clause that is quoted in it may be a list of thousands."""

MAX_CODE = 32 * 1024
"""Characters of one text."""

BRIEF_PARTS = 10
"""Parts that a prompt shows."""
BRIEF_ROWS = 16
"""Rows of a table, and lines of a text, that a prompt shows."""
FEW_LINES = 16
"""Sentences that a prompt and a notebook cell show."""
CELL_PARTS = 24
"""Parts that a notebook cell shows."""
CELL_ROWS = 50
"""Rows of a table that a notebook cell shows, most of them folded."""
CELL_LINE = 600
"""Characters of a sentence in a notebook cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a result says."""

    kind: str
    """One or two words: `coverage`, `why`."""
    title: str
    lines: Sequence[str]
    """Sentences, the most important first."""
    parts: Sequence[Part] = ()
    next: Sequence[str] = ()
    """Python expressions that lead further; shown in a notebook and a terminal."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """What it rests on, by name; shown at the end of an HTML page."""
    badges: Sequence[tuple[str, Hue]] = ()
    """A word or two beside the title, each with its hue: the verdict."""
    lead: int = 3
    """Parts that a notebook cell shows open; the others are folded under their titles."""


class Shown(Protocol):
    """A result that shows itself."""

    def page(self) -> Page:
        """What it says."""

    def as_dict(self) -> Mapping[str, Json]:
        """All of it, as JSON: what `--json` prints."""


def text(page: Page, *, brief: bool = False) -> str:
    """Return a page as plain text.

    Args:
        page: of any size.
        brief: what a prompt shows: the first rows and lines of the first parts, and how many more there are.
    """
    badges = "".join(f" [{visible(word)}]" for word, _ in page.badges)
    lines = few(page.lines) if brief else page.lines
    found = [_sentence(page.title) + badges, *map(_sentence, lines)]
    shown = page.parts[:BRIEF_PARTS] if brief else page.parts
    for part in map(plainly, shown):
        match part:
            case Table():
                found += ["", *grid(part, BRIEF_ROWS if brief else None)]
            case Code():
                found += [
                    "",
                    *_said(part.title),
                    *(f"  {line}" for line in _code(part, BRIEF_ROWS if brief else None)),
                ]
            case None:
                pass
    if more := len(page.parts) - len(shown):
        found += ["", f"… {count(more, 'more part')}: `markdown()` has all of it"]
    if page.next:
        found += ["", f"Next: {', '.join(page.next)}"]
    return "\n".join(found)


def few(lines: Sequence[str]) -> list[str]:
    """Return the first sentences, and how many more there are."""
    more = len(lines) - FEW_LINES
    return [*lines[:FEW_LINES], *([f"And {count(more, 'more sentence')}."] if more > 0 else [])]


def _sentence(said: str) -> str:
    return visible(shorten(said, MAX_LINE))


def _code(part: Code, most: int | None = None) -> Iterator[str]:
    """The lines of a text, cut where it is long."""
    lines = part.text[:MAX_CODE].split("\n")
    for line in lines[:most]:
        yield visible(line.replace("\t", "    "))
    if most is not None and len(lines) > most:
        yield f"… {count(len(lines) - most, 'more line')}"
    elif (more := len(part.text) - MAX_CODE) > 0:
        yield f"… {more:,} more characters"


def _said(*texts: str) -> Iterator[str]:
    yield from (visible(each) for each in texts if each)


def grid(table: Table, most: int | None = None) -> list[str]:
    """Return a table as lines of plain text, under its title and note; at most `most` rows of it."""
    if not table.heads:
        return [*_said(table.title, table.note)]
    rows = table.rows[:most]
    cells = [[visible(head) for head in table.heads], *([_written(cell) for cell in row] for row in rows)]
    left_out = len(table.rows) - len(rows)
    rest = [f"… {count(left_out, 'more row')}"] if left_out else []
    return [*_said(table.title, table.note), *columns(cells, table.words), *rest]


def _written(cell: Cell) -> str:
    return number(cell) if not isinstance(cell, str) else visible(shorten(cell, MAX_CELL))


def markdown(page: Page) -> str:
    """Return a page as GitHub-flavoured Markdown."""
    badges = "".join(f" ({_escaped(word)})" for word, _ in page.badges)
    found = [
        f"## {_escaped(page.title)}{badges}",
        "",
        *(f"{_escaped(shorten(each, MAX_LINE))}  " for each in page.lines),
    ]
    for part in map(plainly, page.parts):
        match part:
            case Table():
                found += ["", *_titled(part.title), *(_escaped(each) for each in _said(part.note)), ""]
                found += _rows(part)
            case Code():
                fence = "`" * max(3, 1 + _longest_fence(part.text))
                found += ["", *_titled(part.title), f"{fence}{part.language}", *_code(part), fence]
            case None:
                pass
    return "\n".join(found) + "\n"


def _titled(title: str) -> Iterator[str]:
    if title:
        yield f"### {_escaped(title)}"


def _rows(table: Table) -> Iterator[str]:
    if not table.heads:  # a note is all there is
        return
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
    return _rendered("shown.html.j2", page, parts=CELL_PARTS, rows=CELL_ROWS)


def html(page: Page) -> str:
    """Return a page as a self-contained HTML document: no scripts, no network, light and dark."""
    return _rendered("shown_page.html.j2", page)


def _rendered(template: str, page: Page, *, parts: int | None = None, rows: int | None = None) -> str:
    from workbench.report import picture  # noqa: PLC0415 - it draws with Altair, which takes a second
    from workbench.report import rendered as render  # noqa: PLC0415 - as above

    shown = page.parts[:parts]
    bounds: dict[str, object] = {
        "parts_": shown,
        "left_out": len(page.parts) - len(shown),
        "most": rows,
        "hues": HUES,
    }
    bounds["lines"] = few(page.lines) if rows else page.lines
    bounds |= {"lead": page.lead if rows else None, "max_line": CELL_LINE if rows else MAX_LINE}
    values = bounds | {
        "view": page,
        "picture": lambda part: picture(part.plot),
        "written": number,
        "code": _code,
    }
    return render(template, values | dict(_ways) | {"kind_of": lambda part: type(part).__name__})


_ways: Mapping[str, Callable[..., object]] = {
    "lines_of": lambda part: lines_of(part.text, part.marks, line=part.line, edited=part.edited),
    "differences": lambda part: differences(part.left, part.right),
}
"""How templates take a part apart."""


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
        return text(self.page(), brief=True)

    def _repr_html_(self) -> str:
        return cell(self.page())


__all__ = [
    "Bar", "Bars", "Cedar", "Cell", "Code", "Compared", "Document", "Faces", "Hue", "Item", "Listing", "Page",
    "Part", "Picture", "Shown", "Table", "cell", "grid", "html", "markdown", "text", "write", "written",
]  # fmt: skip
