"""Cedar text as HTML: every character is there as text, marks stand where their clauses do, and sizes are bounded."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.faces import Cedar, Page, cell, text
from workbench.texts import visible
from workbench.viewing.cedar_html import MAX_LINE, MAX_NOTES, MAX_TEXT, Mark, cedar_html, lines_of

POLICY = """\
// who may pay back
@id("limit") @doc("at most <b>50</b>")
forbid (principal is Agent, action == Action::"refund", resource)
when { context.args.cents > 5000 && resource.action == "x" }
unless { principal has level };"""


class Texts(HTMLParser):
    """The code of each line, and which of it is in a mark."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.lines: list[str] = []
        self.marked: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)
        self.open.append((tag, dict(attrs).get("class") or ""))
        if tag == "code":
            self.lines.append("")
        if tag == "mark":
            self.marked.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self.open]
        if "code" in tags:
            self.lines[-1] += data
        if "mark" in tags:
            self.marked[-1] += data


def at(part: str) -> tuple[int, int]:
    start = POLICY.index(part)
    return start, start + len(part)


def hues(part: str) -> set[str]:
    """The hues of the pieces that make up a part of the policy."""
    start, _ = at(part)
    line = POLICY.count("\n", 0, start)
    place = start - POLICY.rfind("\n", 0, start) - 1
    found: set[str] = set()
    for piece in lines_of(POLICY).lines[line].pieces:
        if 0 <= place < len(piece.text) or (place < 0 and len(part) + place > 0):
            found.add(piece.hue)
        place -= len(piece.text)
    return found


def test_every_line_is_there_as_text() -> None:
    shown = Texts(cedar_html(POLICY))
    assert shown.lines == POLICY.split("\n")
    assert shown.tags <= {"div", "span", "code", "mark", "b"}


@pytest.mark.parametrize(
    ("part", "hue"),
    [
        ("// who may pay back", "note"), ("@id", "tag"), ('"limit"', "text"), ("forbid", "word"), ("unless", "word"),
        ("principal is", "name"), ("Agent", "type"), ("Action", "type"), ("5000", "number"), ("has", "word"),
    ],
)  # fmt: skip
def test_tokens_have_their_hues(part: str, hue: str) -> None:
    assert hue in hues(part)


def test_an_attribute_that_is_called_like_a_variable_is_none() -> None:
    (line,) = lines_of("resource.action").lines
    assert [(piece.text, piece.hue) for piece in line.pieces] == [
        ("resource", "name"), (".", "plain"), ("action", "plain"),
    ]  # fmt: skip


def test_marks_stand_where_their_clauses_do() -> None:
    first, second = at("context.args.cents > 5000"), at("principal has level")
    marks = [
        Mark(start=first[0], end=first[1], truth="true", said="context.args.cents = 9,000", decides=True),
        Mark(start=second[0], end=second[1], truth="unknown", said="principal.level is not asked"),
    ]
    html = cedar_html(POLICY, marks, line=40)
    shown = Texts(html)
    assert shown.marked == ["context.args.cents > 5000", "principal has level"]
    assert 'title="true: context.args.cents = 9,000"' in html
    found = lines_of(POLICY, marks, line=40).lines
    assert [line.number for line in found] == [40, 41, 42, 43, 44]
    assert [line.number for line in found if line.decides] == [43]
    assert [(note.truth, note.said) for line in found for note in line.notes] == [
        ("true", "context.args.cents = 9,000"), ("unknown", "principal.level is not asked"),
    ]  # fmt: skip


def test_the_innermost_mark_shows_and_a_mark_goes_over_lines() -> None:
    text = "when {\n  a ||\n  b\n};"
    outer = Mark(start=text.index("a"), end=text.index("b") + 1, truth="true")
    inner = Mark(start=text.index("b"), end=text.index("b") + 1, truth="false", decides=True)
    found = lines_of(text, [outer, inner]).lines
    assert "".join(piece.text for piece in found[1].pieces if piece.truth == "true") == "a ||"
    assert [(p.text, p.truth, p.decides) for p in found[2].pieces if p.truth] == [("b", "false", True)]
    assert not found[2].pieces[0].truth  # an indent


def test_what_is_edited_is_signed() -> None:
    assert [line.edited for line in lines_of("a\nb\nc", edited={1}).lines] == [False, True, False]


def test_the_number_of_remarks_under_a_line_is_bounded() -> None:
    marks = [Mark(start=n, end=n + 1, truth="error", said=f"e{n}") for n in range(MAX_NOTES + 3)]
    (line,) = lines_of("x" * 20, marks).lines
    assert len(line.notes) == MAX_NOTES + 1
    assert line.notes[-1].said == "and 3 more"


def test_a_long_text_keeps_its_marks_and_says_what_is_left_out() -> None:
    lines = [f"// line {n} {'x' * 40}" for n in range(5_000)]
    text = "\n".join(lines)
    start = text.index("line 4321 ")
    found = lines_of(text, [Mark(start=start, end=start + 9, truth="true", decides=True)])
    numbers = [line.number for line in found.lines]
    assert {1, 2, 4320, 4322, 4323} <= set(numbers)
    assert sum(line.gap for line in found.lines) + found.left_out + len(numbers) == 5_000
    assert len(cedar_html(text)) < 8 * MAX_TEXT
    assert "lines left out" in cedar_html(text)


def test_a_long_line_is_cut() -> None:
    text = (
        "permit (principal in [" + ", ".join(f'User::"{n}"' for n in range(10_000)) + "], action, resource);"
    )
    html = cedar_html(text, [Mark(start=8, end=len(text) - 10, truth="true")])
    assert len(html) < 60 * MAX_LINE
    assert f"{len(text) - MAX_LINE:,} more characters" in html


HOSTILE = '"><script>window.__pwned=1</script><img src=x onerror=alert(1)>\u202e\x1b[2J'


def test_hostile_texts_stay_text() -> None:
    policy = f'@id("{HOSTILE}")\n// {HOSTILE}\nforbid (principal, action, resource);'
    html = cedar_html(policy, [Mark(start=0, end=9, truth="error", said=HOSTILE, decides=True)])
    shown = Texts(html)
    assert shown.tags <= {"div", "span", "code", "mark", "b"}
    assert "\u202e" not in html
    assert "\x1b" not in html
    assert shown.lines == [visible(line) for line in policy.split("\n")]


@given(st.text(max_size=200), st.lists(st.tuples(st.integers(0, 200), st.integers(1, 50)), max_size=6))
def test_any_text_and_any_marks_give_the_text_back(policy: str, spans: list[tuple[int, int]]) -> None:
    marks = [
        Mark(start=start, end=start + size, truth="true") for start, size in spans if start < len(policy)
    ]
    found = lines_of(policy, marks)
    texts = ["".join(piece.text for piece in line.pieces) for line in found.lines]
    assert texts == [visible(line.replace("\t", "    ")) for line in policy.split("\n")]


def test_a_terminal_says_the_same_as_html() -> None:
    start, end = at("context.args.cents > 5000")
    mark = Mark(start=start, end=end, truth="true", said="context.args.cents = 9,000", decides=True)
    page = Page(
        kind="x", title="t", lines=[], parts=[Cedar(title="limit", text=POLICY, line=40, marks=[mark])]
    )
    assert (
        '>  43  when { context.args.cents > 5000 && resource.action == "x" }    // true: context.args.cents = 9,000'
        in text(page)
    )
    assert re.search(r'class="rd-no">43<', cell(page))
