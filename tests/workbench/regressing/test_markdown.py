"""A night as a comment on a pull request: it fits, it says what matters first, and nothing in it becomes markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import cmarkgfm
import pytest
from cmarkgfm.cmark import Options
from hypothesis import assume, given, settings

from tests.workbench.regressing.nights import HOSTILE, candidate, gate, night, nights, texts
from workbench.regressing.reporting.markdown import LIMIT, code, markdown, marker, sentence
from workbench.regressing.result import EXIT, Drifted, Reopened
from workbench.texts import visible

if TYPE_CHECKING:
    from workbench.regressing.result import Night

OURS = {
    "h2", "h3", "ul", "li", "p", "strong", "code", "table", "thead", "tbody", "tr", "th", "td", "details", "summary"
}  # fmt: skip
"""Elements that a summary is made of."""


class Read(HTMLParser):
    """What a forge makes of Markdown."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.plain: list[str] = []
        self.codes: list[str] = []
        self.inside = 0
        html = cmarkgfm.github_flavored_markdown_to_html(text, options=Options.CMARK_OPT_UNSAFE)
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        self.inside += tag == "code"
        if tag == "code":
            self.codes.append("")

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(f"/{tag}")
        self.inside -= tag == "code"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.codes[-1] += data
        else:
            self.plain.append(data)

    @property
    def structure(self) -> list[str]:
        """Its elements, but for those that a word as code makes."""
        return [tag for tag in self.tags if tag.strip("/") != "code"]


def dangerous(read: Read) -> list[str]:
    """Return what a forge would make something of: other elements, mentions, issues, links, formulas."""
    text = "\x00".join(read.plain)
    found = sorted({tag for tag in read.tags if tag.strip("/") not in OURS})
    return found + re.findall(r"@\w+|#\d+|GH-\d+|\w*://\S*|www\.\S*|\$\S+", text)


def filled(said: str) -> Night:
    """Return a night with one string in every place that a string can be."""
    one = candidate(
        "failed", name=said, bundle=said, version=said, baseline=said, headline=(said,), notes=(said,), files=said,
        run_id=said, run_url=said, numbers={said: 1.0}, scores={said: 0.5},
        gates=(gate("failed", text=said, quantity=said, why=said),),
        examples=(dict.fromkeys(("tool", "from", "to", "worse", "clause", "decision_id", "determining"), said),),
        reopened=(
            Reopened(night=1, sessions=1, labels=1, outcomes=0, decisions=0, measures={said: 1.0}, watermark=3),
        ),
    )  # fmt: skip
    assert one.window is not None
    moved = Drifted(
        verdict="ship", night=3, before=one.window, after=one.window, gates=(gate("met", text=said, why=said),),
        rows=({"name": said, "policies": [said], "before": said},), uncovered=({"what": said, "name": said},),
        numbers={said: 2.0}, headline=(said,), notes=(said,),
    )  # fmt: skip
    return night(one, job=said, lake=said, problems=(said,), drift=moved)


@pytest.mark.parametrize("said", HOSTILE)
def test_what_is_hostile_stays_text(said: str) -> None:
    read = Read(markdown(filled(said)))
    assert dangerous(read) == []
    assert read.structure == Read(markdown(filled("word"))).structure
    assert visible(said).strip()[:100] in "".join(read.codes)


@settings(max_examples=150, deadline=None)
@given(texts)
def test_no_string_becomes_markup(said: str) -> None:
    assume(said.strip() and visible(said).strip())
    read = Read(markdown(filled(said)))
    assert dangerous(read) == []
    assert read.structure == Read(markdown(filled("word"))).structure


@settings(max_examples=100, deadline=None)
@given(nights)
def test_any_night_fits_and_says_its_verdict_first(found: Night) -> None:
    for limit in (LIMIT, 2_000):
        text = markdown(found, limit=limit)
        assert len(text.encode()) <= limit
        first, title, *_ = text.split("\n")
        assert first == marker(found.job)
        assert title.lower().startswith(f"## {found.verdict}: ")
        assert f"Exit code {EXIT[found.verdict]} " in text
        assert dangerous(Read(text)) == []


def test_it_says_gates_clauses_examples_windows_and_problems() -> None:
    late = Reopened(night=1, sessions=3, labels=4, outcomes=1, decisions=0, measures={}, watermark=10)
    text = markdown(
        night(
            candidate("met"),
            candidate("failed", name="policies/bold", reopened=(late,)),
            problems=("MLflow is away",),
        )
    )
    read = Read(text)
    plain = " ".join(read.plain)
    assert text.index("policies/bold (don't ship)") < text.index("policies/next (ship)"), (
        "the worst comes first"
    )
    assert "`harm_through_share <= 0.05`" in text
    assert "context.args.amount_cents > 5000" in "".join(read.codes)
    assert "d-17" in read.codes
    assert "Problem: MLflow is away" in plain
    assert "More became known of 3 sessions in 1 earlier window" in plain
    assert "18 % to 25 % (95 %)" in plain
    assert "Exit code 1 (0 ship, 1 don't ship, 2 inconclusive, 3 could not run)." in plain


def test_a_night_of_many_candidates_is_cut_from_the_back() -> None:
    """The verdict counts all; the worst has its details, and what is left out is counted."""
    many = [candidate("met", name=f"next-{at}", headline=("word " * 300,)) for at in range(500)]
    found = night(*many, candidate("failed", name="worst"))
    text = markdown(found)
    assert len(text.encode()) <= LIMIT
    assert "## Don't ship" in text
    assert "### worst (don't ship)" in text
    assert re.search(r"### [\d,]+ more candidates", text)
    assert re.search(r"And [\d,]+ more sentences in `night.json`", text)


def test_the_marker_is_the_jobs_whatever_its_name() -> None:
    assert marker("a") != marker("b")
    assert re.fullmatch(r"<!-- redecide regress [0-9a-f]{12} -->", marker("--> <b>"))


def test_a_sentence_that_is_cut_within_a_name_stays_readable() -> None:
    assert sentence("see `" + "a" * 50 + "`", 20) == "see `aaaaaaaaaaaaaa…`"
    assert sentence("one ` alone") == "<code>one &#96; alone</code>"
    assert code("   ") == ""
