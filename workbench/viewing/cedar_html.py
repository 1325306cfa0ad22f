"""Cedar text for the eye: tokens in hues, clauses marked by what they were, with line numbers.

One rule: colour never stands alone. A marked clause says its truth in words under its line or when it is pointed at,
and what decided is set apart by a bar as well as by its hue. Every character of the text is shown as text; what
does not show is an escape.

A text that is too long keeps its first lines and those around its marks, and says how many lines are left out.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

from runtime.literals import TOKEN
from workbench.texts import shorten, visible

if TYPE_CHECKING:
    import re
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from workbench.explaining.truths import Truth

Hue = Literal["plain", "note", "text", "number", "word", "name", "tag", "type"]
"""`note` a comment, `text` a string, `word` a key word, `name` a variable, `tag` an annotation."""

MAX_TEXT = 32 * 1024
"""Characters of one text that are shown."""
MAX_LINE = 1_000
"""Characters of one line."""
MAX_NOTES = 4
"""Remarks under one line."""
MAX_NOTE = 300
"""Characters of one remark."""

_WORDS = frozenset(
    ["permit", "forbid", "when", "unless", "if", "then", "else", "in", "is", "has", "like", "true", "false"]
)
_NAMES = frozenset({"principal", "action", "resource", "context"})
_HEAD = 12
"""First lines of a long text that are kept."""
_AROUND = 2
"""Lines kept before and after a marked one of a long text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A clause in a text, and what it was."""

    start: int
    """First character in the text."""
    end: int
    """The one after its last."""
    truth: Truth
    said: str = ""
    """The values it saw."""
    decides: bool = False
    """Whether the verdict rests on it, or it is what flipped."""


class Piece(NamedTuple):
    """Some characters of a line that look alike."""

    hue: Hue
    text: str
    truth: str
    """Empty: no clause."""
    decides: bool
    title: str


class Note(NamedTuple):
    """A remark under a line: what a clause was."""

    truth: str
    said: str
    decides: bool


class Line(NamedTuple):
    """One line as it is shown."""

    number: int
    pieces: list[Piece]
    notes: list[Note]
    decides: bool
    gap: int
    """Lines left out before it."""
    edited: bool = False
    """Whether another version has another line here."""

    @property
    def runs(self) -> list[tuple[tuple[str, bool, str], list[Piece]]]:
        """Pieces that belong to one clause together: (truth, whether it decides, title), pieces."""
        found = groupby(self.pieces, key=lambda piece: (piece.truth, piece.decides, piece.title))
        return [(key, list(run)) for key, run in found]


class Lines(NamedTuple):
    """A text as it is shown."""

    lines: list[Line]
    left_out: int
    """Lines left out after the last."""


def cedar_html(text: str, marks: Sequence[Mark] = (), *, line: int = 1) -> str:
    """Return Cedar text as an HTML fragment, without styles: those of `workbench.viewing.decision.styles` fit.

    Args:
        text: a policy or a file.
        marks: clauses in it; of several over one place the innermost shows.
        line: number of the first line in its file.
    """
    from workbench.report import rendered as render  # noqa: PLC0415 - Altair comes with it

    return render("cedar.html.j2", {"shown": lines_of(text, marks, line=line)})


def lines_of(
    text: str, marks: Sequence[Mark] = (), *, line: int = 1, edited: Collection[int] = frozenset()
) -> Lines:
    """Cut a text into what is shown of it: lines of pieces in hues, marked by the clauses they belong to.

    Args:
        text: a policy or a file.
        marks: clauses in it; of several over one place the innermost shows.
        line: number of the first line in its file.
        edited: places of lines, from 0, that another version has otherwise.

    Cost: O(text) for tokens, O(shown) for the rest; at most `MAX_TEXT` characters are shown.
    """
    starts = [0, *(at + 1 for at, char in enumerate(text) if char == "\n")]
    ends = [*(start - 1 for start in starts[1:]), len(text)]
    inner = sorted(marks, key=lambda mark: mark.start - mark.end)
    places = [
        (bisect_right(starts, m.start) - 1, bisect_right(starts, max(m.start, m.end - 1)) - 1, m)
        for m in inner
    ]
    telling = [(first, last) for first, last, _ in places] + [(at, at) for at in edited]
    kept = _kept(starts, ends, telling)
    tokens = list(TOKEN.finditer(text))
    found: list[Line] = []
    before = -1
    for at in kept:
        here = [mark for first, last, mark in places if first <= at <= last]
        start, end = starts[at], min(ends[at], starts[at] + MAX_LINE)
        pieces = list(_pieces(text, start, end, tokens, here))
        if end < ends[at]:
            more = f" … {ends[at] - end:,} more characters"
            pieces.append(Piece("note", more, "", decides=False, title=""))
        over = sorted((m for _, last, m in places if last == at), key=lambda mark: (mark.start, -mark.end))
        decides = any(mark.decides for mark in here)
        found.append(Line(line + at, pieces, _notes(over), decides, at - before - 1, at in edited))
        before = at
    return Lines(found, len(starts) - 1 - before)


def _kept(starts: Sequence[int], ends: Sequence[int], spans: Sequence[tuple[int, int]]) -> list[int]:
    """Places of the lines that are shown: all, or the first and those around marks, within bounds."""
    sizes = [min(end - start, MAX_LINE) + 1 for start, end in zip(starts, ends, strict=True)]
    if sum(sizes) <= MAX_TEXT:
        return list(range(len(starts)))
    wanted = dict.fromkeys(range(min(_HEAD, len(starts))))
    for first, last in spans:
        near = range(max(0, first - _AROUND), min(len(starts), last + _AROUND + 1))
        wanted |= dict.fromkeys([at for at in near if at in (first, last) or not first < at < last])
    wanted |= dict.fromkeys(range(len(starts)))
    left = MAX_TEXT
    found = []
    for at in wanted:
        left -= sizes[at]
        if left < 0:
            break
        found.append(at)
    return sorted(found)


def _pieces(
    text: str, start: int, end: int, tokens: Sequence[re.Match[str]], marks: Sequence[Mark]
) -> Iterator[Piece]:
    """Cut a line where a token or a mark begins or ends."""
    first = bisect_right(tokens, start, key=lambda token: token.start()) - 1
    hues: list[tuple[int, Hue]] = []
    cuts = {start, end}
    for place in range(max(first, 0), len(tokens)):
        token = tokens[place]
        if token.start() >= end:
            break
        hues.append((max(token.start(), start), _hue(text, tokens, place)))
        cuts.add(max(token.start(), start))
    cuts |= {at for mark in marks for at in (mark.start, mark.end) if start < at < end}
    for begin, stop in pairwise(sorted(cuts)):
        hue: Hue = next((name for at, name in reversed(hues) if at <= begin), "plain")
        mark = next((each for each in reversed(marks) if each.start <= begin < each.end), None)
        shown = visible(text[begin:stop].replace("\t", "    "))
        if mark is None or (not shown.strip() and begin == start):  # an indent is not marked
            yield Piece(hue, shown, "", decides=False, title="")
        else:
            yield Piece(hue, shown, mark.truth, mark.decides, _title(mark))


def _title(mark: Mark) -> str:
    truth = mark.truth.replace("_", " ")
    return visible(shorten(f"{truth}: {mark.said}" if mark.said else truth, MAX_NOTE))


_KINDS: Mapping[str | None, Hue] = {"string": "text", "int": "number"}


def _hue(text: str, tokens: Sequence[re.Match[str]], place: int) -> Hue:
    token = tokens[place]
    if token[0] == "@" or (place and tokens[place - 1][0] == "@"):
        return "tag"
    if token.lastgroup == "skip":
        return "note" if token[0].startswith("//") else "plain"
    return _word(text, token) if token.lastgroup == "word" else _KINDS.get(token.lastgroup, "plain")


def _word(text: str, token: re.Match[str]) -> Hue:
    """The hue of a word, by what it is and what stands beside it."""
    if token[0] in _WORDS:
        return "word"
    before = text[max(0, token.start() - 4) : token.start()]
    if token[0] in _NAMES and not before.endswith("."):
        return "name"
    return "type" if text.startswith("::", token.end()) or before == " is " else "plain"


def _notes(marks: Sequence[Mark]) -> list[Note]:
    """Remarks on the clauses that end on a line: what decided, and what did not simply hold."""
    telling = [mark for mark in marks if mark.decides or mark.truth in ("error", "unknown")]
    said = [
        Note(mark.truth.replace("_", " "), visible(shorten(mark.said, MAX_NOTE)), mark.decides)
        for mark in telling[:MAX_NOTES]
    ]
    if (more := len(telling) - MAX_NOTES) > 0:
        said.append(Note("", f"and {more:,} more", decides=False))
    return said
