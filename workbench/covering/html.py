"""The page of a coverage: tables, and the policies' texts with their lines coloured.

One rule: no scripts, nothing loaded; colour never stands alone, each line has its mark and its counts.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.covering import faces
from workbench.report import rendered as render
from workbench.texts import number, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from workbench.covering.lines import File, Line
    from workbench.covering.result import Coverage
    from workbench.covering.views import State

_TOKENS = re.compile(
    r'(?P<note>//.*)|(?P<text>"(?:\\.|[^"\\])*"?)|(?P<tag>@\w+)'
    r"|(?P<word>\b(?:permit|forbid|when|unless|if|then|else|in|is|has|like|true|false)\b)"
    r"|(?P<name>\b(?:principal|action|resource|context)\b)|(?P<number>\b\d+\b)"
)
"""Cedar's tokens by hue, on one line: no token of a policy goes over a line end."""
_MARKS: Mapping[State, str] = {"both": "✓", "one": "~", "unknown": "?", "never": "!"}


class Shown(NamedTuple):
    """A line as the page has it."""

    number: int
    state: str
    mark: str
    counts: str
    title: str
    """Every clause with its counts: told when the line is pointed at."""
    tokens: list[tuple[str, str]]
    """Hue and text."""


def html_of(coverage: Coverage) -> str:
    """Return the page, a self-contained HTML document, light and dark."""
    tables = (
        faces.files_table, faces.policies_table, faces.boundaries_table, faces.facts_table, faces.shapes_table,
        faces.ranges_table,
    )  # fmt: skip
    values = {
        "title": faces.title(coverage),
        "lines": list(faces.lines(coverage)),
        "first": tables[0](coverage),
        "tables": [table for make in tables[1:] if (table := make(coverage)).rows],
        "files": [_file(file) for file in coverage.files],
        "pins": faces.pins(coverage),
        "written": number,
    }
    return render("coverage.html.j2", values)


def _file(file: File) -> dict[str, Any]:
    states = Counter(line.state for line in file.lines)
    return {
        "name": file.shown,
        "share": file.share,
        "states": {state: states[state] for state in _MARKS},
        "lines": [_line(line) for line in file.lines],
    }


def _line(line: Line) -> Shown:
    mark = "" if line.state is None else _MARKS[line.state]
    counts, least = "", line.least
    if line.policy is not None:
        counts = f"satisfied {line.policy.satisfied:,} · decisive {line.policy.decisive:,}"
        counts += f" · not known {line.policy.unknown:,}" if line.policy.unknown else ""
    elif least is not None:
        false = f" · false {least.truths['false']:,}" if "false" in least.sides else ""
        counts = f"true {least.truths['true']:,}{false}"
        counts += f" · error {least.truths['error']:,}" if least.truths["error"] else ""
        counts += f" · not known {least.truths['unknown']:,}" if least.truths["unknown"] else ""
    said = [] if line.policy is None else [line.policy.told]
    said += [each.told for each in line.clauses]
    return Shown(
        line.number,
        line.state or "none",
        mark,
        counts,
        "\n".join(map(visible, said)),
        list(_tokens(line.text)),
    )


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """The line in pieces, each with its hue; together they are the line, what hides written as escapes."""
    found = list(_TOKENS.finditer(text))
    ends = [0, *(match.end() for match in found)]
    for match, (end, _) in zip(found, pairwise([*ends, len(text)]), strict=False):
        yield "", visible(text[end : match.start()])
        yield str(match.lastgroup), visible(match[0])
    yield "", visible(text[ends[-1] :])
