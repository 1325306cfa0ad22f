"""A night as Markdown that fits a comment on a pull request.

One rule: text is text. What comes from the log or from a file cannot become a heading, a table, a link, an image,
HTML, a formula, or call a person (`@name`) or an issue (`#12`) on a forge that reads this: a word with a character
that might is written as code, where Markdown and the forges take nothing for more than it is.

What does not fit is left out from the back: first rows of tables, then details of candidates. The verdict, what the
exit code means and how much is missing always stay.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from workbench.masking import leaving
from workbench.regressing.reporting.sections import Cut, capital, exit_words, headline, sections
from workbench.texts import count, number, shorten, visible
from workbench.tracking import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.faces import Cell, Table
    from workbench.parts import Item
    from workbench.regressing.reporting.sections import Section
    from workbench.regressing.result import Night

LIMIT = 60_000
"""Bytes; GitHub takes comments of up to 65,536 characters, and a workflow adds a line or two of its own."""

_CUTS = ((Cut(30, 20), 600), (Cut(15, 10), 300), (Cut(6, 5), 160), (Cut(3, 2), 100))
"""Rows and candidates, and characters of a sentence or a cell: the first that fits is taken."""
_MAX_CODE = 200
"""Characters of a name."""

_PLAIN = re.compile(r"[^`*_~\\\[\]|#@$^{}]*")
"""Words that Markdown takes literally, wherever they stand in a line."""
_LINKS = re.compile(r"://|www\.|^gh-\d", re.IGNORECASE)
_BEGINS = re.compile(r"[-+=:]+|\d+[.)]")
"""What makes a list, a heading or a table of a line that begins with it."""
_TRAILING = re.compile(r"[.,;:!?)]*$")
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")


def markdown(night: Night, *, limit: int = LIMIT) -> str:
    """Return a night as GitHub-flavoured Markdown of at most `limit` bytes (2,000 or more).

    Its first line is a comment that names the job (`marker`): a workflow finds its own comment by it.
    """
    for cut, width in _CUTS:
        found = "\n".join([*_head(night, cut, width), *_body(night, cut, width), *_foot(night)]) + "\n"
        if len(found.encode()) <= limit:
            return leaving(found)
    return leaving(_least(night, limit))


def marker(job: str) -> str:
    """Return the comment that begins a summary of that job, the same each night.

    Example:
        >>> marker("nightly-support")
        '<!-- redecide regress 98833c9ebae0 -->'
    """
    return f"<!-- redecide regress {hashlib.sha256(visible(job).encode()).hexdigest()[:12]} -->"


def sentence(said: str, width: int = 600) -> str:
    """Return a sentence as Markdown that shows it literally; what stands between backticks is code.

    Example:
        >>> sentence("`a_b` met, ask @ana about <b>, see https://example.com.")
        '`a_b` met, ask `@ana` about &lt;b&gt;, see `https://example.com`.'
    """
    said = " ".join(said.split())
    pieces = visible(shorten(said, width)).split("`")
    if len(said) > width and len(pieces) % 2 == 0:  # cut within a name
        pieces.append("")
    paired = len(pieces) % 2 == 1
    told = [
        code(piece) if paired and place % 2 else _words(piece, first=place == 0)
        for place, piece in enumerate(pieces)
    ]
    return "".join(told) if paired else code("`".join(pieces))


def code(name: str) -> str:
    """Return a name as code, whatever is in it; also in a table.

    Example:
        >>> code("a_b"), code("a|b"), code("`c`"), code("")
        ('`a_b`', '<code>a&#124;b</code>', '<code>&#96;c&#96;</code>', '')
    """
    name = visible(shorten(name, _MAX_CODE)).strip()
    if not name:
        return ""
    if "`" not in name and "|" not in name and not name.endswith("\\"):
        return f"`{name}`"
    return f"<code>{_PUNCTUATION.sub(lambda found: f'&#{ord(found[0])};', name)}</code>"


def _words(text: str, *, first: bool) -> str:
    words = text.split(" ")
    return " ".join(_word(word, begins=first and not any(words[:place])) for place, word in enumerate(words))


def _word(word: str, *, begins: bool) -> str:
    if _PLAIN.fullmatch(word) and not _LINKS.search(word) and not (begins and _BEGINS.fullmatch(word)):
        return word.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    body = word[: _TRAILING.search(word).start()]  # type: ignore[union-attr]  # it matches the empty end, too
    return (code(body) + word[len(body) :]) if body else code(word)


def _head(night: Night, cut: Cut, width: int) -> Iterator[str]:
    yield marker(night.job)
    yield f"## {capital(night.verdict)}: {sentence(night.job, 80)}"
    yield ""
    told = headline(night)
    yield from (f"- {sentence(each, width)}" for each in told[: cut.rows])
    if len(told) > cut.rows:
        yield f"- And {count(len(told) - cut.rows, 'more sentence')} in `night.json`."


def _body(night: Night, cut: Cut, width: int) -> Iterator[str]:
    for section in sections(night, cut):
        badge = f" ({section.badge[0]})" if section.badge else ""
        yield from ("", f"### {sentence(section.title, 120)}{badge}", "")
        lines = section.lines[: cut.rows]
        yield from (f"- {sentence(each, width)}" for each in lines)
        if len(section.lines) > len(lines):
            yield f"- And {count(len(section.lines) - len(lines), 'more sentence')} in `night.json`."
        for table in section.parts:
            yield from ("", f"**{sentence(table.title)}**", *_noted(table), "")
            yield from _table(table, width)
        yield from _folded(section, width)


def _noted(table: Table) -> Iterator[str]:
    if table.note:
        yield from ("", sentence(table.note))


def _folded(section: Section, width: int) -> Iterator[str]:
    for table in section.folded:
        yield from ("", f"<details><summary>{table.title}</summary>", *_noted(table), "")
        yield from (*_table(table, width), "", "</details>")
    if section.items:
        yield from ("", "<details><summary>What it rests on</summary>", "")
        yield from (f"- {item.name}: {_item(item)}" for item in section.items)
        yield from ("", "</details>")


def _item(item: Item) -> str:
    value = shown(item.value) if item.is_link and isinstance(item.value, str) else item.value
    return _cell(value, _MAX_CODE, as_code=item.is_code or item.is_link)


def _table(table: Table, width: int) -> Iterator[str]:
    yield f"| {' | '.join(table.heads)} |"
    yield "|" + "|".join("---" if place in table.words else "---:" for place in range(len(table.heads))) + "|"
    for row in table.rows:
        cells = (_cell(cell, width, as_code=place in table.code) for place, cell in enumerate(row))
        yield f"| {' | '.join(cells)} |"


def _cell(value: Cell, width: int, *, as_code: bool) -> str:
    if not isinstance(value, str):
        return number(value)
    return code(value) if as_code else sentence(value, width)


def _foot(night: Night) -> Iterator[str]:
    took = f", took {night.seconds:,.0f} s" if night.seconds else ""
    resumed = ", resumed where an earlier try was stopped" if night.resumed else ""
    yield ""
    yield sentence(f"{exit_words(night)} Lake `{shown(night.lake)}`, started {night.started}{took}{resumed}.")


def _least(night: Night, limit: int) -> str:
    """The verdict and the exit code, then sentences as long as there is room."""
    found = [marker(night.job), f"## {capital(night.verdict)}: {sentence(night.job, 80)}", ""]
    foot = ["", sentence(exit_words(night)), "", "The rest does not fit here; `night.json` has all of it."]
    room = limit - sum(len(line.encode()) + 1 for line in (*found, *foot))
    for line in (f"- {sentence(each, 100)}" for each in headline(night)):
        room -= len(line.encode()) + 1
        if room < 0:
            break
        found.append(line)
    return "\n".join([*found, *foot]) + "\n"
