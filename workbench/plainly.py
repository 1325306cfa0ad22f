"""Parts of a page as tables and texts: what a terminal and Markdown show of a listing, a marked text, a difference.

One rule: the same words and numbers as in HTML; marks become comments and a `>` before their lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.parts import Bars, Cedar, Code, Compared, Document, Listing, Picture, Table
from workbench.viewing.cedar_html import lines_of
from workbench.viewing.contexts_html import differences

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from workbench.parts import Cell, Part
    from workbench.viewing.cedar_html import Line


def plainly(part: Part) -> Table | Code | None:
    """Return a part as a table or a text; None: it is a picture."""
    match part:
        case Table() | Code():
            return part
        case Picture():
            return None
        case Bars():
            cells: list[tuple[Cell, ...]] = [
                (bar.label, *(dict(bar.parts).get(name, 0) for name in part.names), bar.whole)
                for bar in part.bars
            ]
            return Table(title=part.title, note=part.note, heads=("", *part.names, "all"), rows=cells)
        case Listing():
            rows: list[tuple[Cell, ...]] = [(item.name, item.value) for item in part.items]
            return Table(title=part.title, note=part.note, heads=("", ""), rows=rows)
        case Cedar():
            return _cedar(part)
        case Document() if part.folded:
            said = f"{len(part.text) + part.left_out:,} characters of JSON, in `as_dict()`"
            return Table(title=part.title, note=said, heads=(), rows=())
        case Document():
            more = f"\n… {part.left_out:,} more characters" if part.left_out else ""
            return Code(title=part.title, text=part.text + more, language="json")
        case Compared():
            return _compared(part)


def _cedar(part: Cedar) -> Code:
    shown = lines_of(part.text, part.marks, line=part.line, edited=part.edited)
    lines: list[str] = []
    for line in shown.lines:
        if line.gap:
            lines.append(f"      … {line.gap:,} left out")
        lines.append(_line(line))
    if shown.left_out:
        lines.append(f"      … {shown.left_out:,} left out")
    return Code(title=part.title, text="\n".join(lines), language="cedar")


def _line(line: Line) -> str:
    told = [
        f"{note.truth}: {note.said}" if note.truth and note.said else note.truth or note.said
        for note in line.notes
    ]
    text = "".join(piece.text for piece in line.pieces)
    return f"{'>' if line.decides else ' '}{line.number:>4}  {text}" + (
        f"    // {' | '.join(told)}" if told else ""
    )


def _compared(part: Compared) -> Table:
    found = differences(part.left, part.right)
    rows: list[tuple[Cell, ...]] = [
        ("  " * row.depth + row.key, row.left or "", row.right or "") for row in found.rows
    ]
    same = f"{found.same:,} the same" if found.same else ""
    note = "; ".join(filter(None, (part.note, "" if rows else "no difference", same)))
    return Table(title=part.title, note=note, heads=("", *part.names), rows=rows, code=frozenset({0, 1, 2}))


def columns(rows: Sequence[Sequence[str]], words: Collection[int]) -> list[str]:
    """Return rows of texts as aligned lines: words from the left, numbers to the right; heads break at a space.

    Args:
        rows: the heads first.
        words: places of columns that hold words; the first always does.
    """
    heads = [head.rpartition(" ") for head in rows[0]]
    broken = [[first for first, _, _ in heads], [last for _, _, last in heads]]
    cells = [*(broken if any(first for first, _, _ in heads) else [list(rows[0])]), *rows[1:]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 or place in words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
        if any(row)
    ]
