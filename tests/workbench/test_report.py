"""The faces of a comparison: words, cell, page, pictures. Nothing from the log is markup, no number differs."""

from __future__ import annotations

import base64
import re
import stat
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from workbench import plots, report
from workbench.compare import Diff, compare
from workbench.errors import MissingExtra, need
from workbench.metrics import METRICS
from workbench.texts import share, shorten, visible
from workbench.words import MAX_TENANTS, tenant_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

VOID = frozenset({"meta", "img", "br", "source", "link", "input", "hr"})


class Page(HTMLParser):
    """What a browser would make of a page: its elements, their attributes, its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"elements that are not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]


@pytest.fixture(scope="module")
def page(diff: Diff) -> str:
    return report.page(diff)


@pytest.fixture(scope="module")
def cell(diff: Diff) -> str:
    return diff._repr_html_()


# -- words -----------------------------------------------------------------------------------------------------


HEADLINE = """\
Stops 4 of 6 attack calls that ran (66.7 %). Disturbs 1 of 7 honest calls that ran (14.3 %); for 2 of them it is not known.
Stops 2 of 2 unlabelled calls that ran (100 %).
Lets run, or asks about, what did not run: 1 attack call, 1 honest call.
Would stop 1 call that may have run: the record is in doubt.
10 of 19 decisions change, in 7 of 9 sessions.
89.5 % of 19 decisions replayable. 2 could not be: 1 undecided (missing payee: 1), 1 quarantined (context hash: 1).
"""


def test_headline(diff: Diff) -> None:
    assert diff.headline + "\n" == HEADLINE


def test_headline_without_labels(unlabelled: Diff) -> None:
    first = unlabelled.headline.splitlines()[0]
    assert first == (
        "Stops 7 of 15 calls that ran (46.7 %); for 2 of them it is not known. "
        "The log is unlabelled: which of them were attacks is not known."
    )


def test_headline_folds_many_causes(made: Callable[..., Any], history: Sequence[Any]) -> None:
    rows = [replace(history[4], cause=f"cause_{n % 5}", missing=()) for n in range(15)]
    diff = compare(made(rows, recorded=True), made(rows))
    last = diff.headline.splitlines()[-1]
    assert last.endswith("15 undecided (cause 0: 3, cause 1: 3, cause 2: 3, other causes: 6).")


def test_headline_when_nothing_is_left_over(made: Callable[..., Any], history: Sequence[Any]) -> None:
    diff = compare(made(history[:2], recorded=True), made(history[:2]))
    assert diff.headline.splitlines()[-2:] == [
        "1 of 2 decisions changes, in 1 of 1 session.",
        "100 % of 2 decisions replayable.",
    ]


def test_plain_text_is_aligned_and_complete(diff: Diff) -> None:
    lines = repr(diff).splitlines()
    assert lines[0] == "Diff: recorded → candidate, contexts recorded"
    grid = lines[lines.index("") + 1 :]
    assert grid[0].split() == ["allow", "modify", "approve", "block", "undecided", "quarantined", "all"]
    assert grid[6].split() == ["all", "7", "3", "3", "4", "1", "1", "19"]
    tenants = grid[grid.index("") + 1 :]
    assert tenants[tenants.index("") - 1].split() == [
        "all",
        *["6", "4", "2", "0", "7", "1", "2", "2", "2", "0", "7", "1", "2", "1", "2"],
    ]


def test_a_terminal_gets_no_control_codes(made: Callable[..., Any], history: Sequence[Any]) -> None:
    rows = [replace(history[4], tenant="\x1b[31mred\u202e", missing=("\x07",))]
    diff = compare(made(rows, recorded=True), made(rows, policy=("\x9b2J", "v")))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", repr(diff))
    assert "\\u001b[31mred\\u202e" in repr(diff)


# -- the page --------------------------------------------------------------------------------------------------


def test_nothing_from_the_log_is_markup(
    page: str, cell: str, hostile_tenant: str, hostile_policy: str
) -> None:
    for html in (page, cell):
        found = Page(html)
        assert {tag for tag, _ in found.tags}.isdisjoint({"script", "b-", "iframe", "object", "link", "svg"})
        assert not [name for _, attrs in found.tags for name in attrs if name.startswith("on")]
        assert not [
            attrs
            for tag, attrs in found.tags
            if tag == "img" and not (attrs["src"] or "").startswith("data:")
        ]
        assert hostile_tenant in found.text
        assert hostile_policy in found.text
    assert '{"to":"<script>alert("args")</script>"}' in Page(page).text
    assert 'would run as {"cut":"<i>"}' in Page(page).text
    assert 'because <script>alert("args")</script>' in Page(page).text


def test_names_and_contexts_are_no_markup_either(made: Callable[..., Any], history: Sequence[Any]) -> None:
    evil = '<img src=x onerror="alert(1)">'
    mean: dict[str, Any] = {
        "policy": (evil, evil),
        "context": evil,
        "id": evil,
        "pins": {"ledgers": {evil: 40}},
    }
    diff = compare(made(history, recorded=True, **mean), made(history, **mean))
    for html in (report.page(diff), diff._repr_html_()):
        assert "<img src=x" not in html
        assert evil in Page(html).text


def test_a_page_loads_nothing(page: str) -> None:
    found = Page(page)
    policy = [
        attrs["content"] for tag, attrs in found.tags if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    addresses = found.attributes("src") + found.attributes("srcset") + found.attributes("href")
    assert len(addresses) == 4
    assert all(address.startswith("data:image/svg+xml;base64,") for address in addresses)
    assert "@import" not in page
    assert "url(" not in page


def test_a_page_has_both_themes(page: str, cell: str) -> None:
    assert "prefers-color-scheme:dark" in page
    assert 'media="(prefers-color-scheme:dark)"' in page
    assert 'body[data-jp-theme-light="false"] .redecide' in cell


def test_secrets_in_an_address_are_not_shown(page: str) -> None:
    assert "s3://key:***@bucket/lake" in Page(page).text
    assert "secret" not in page


def test_every_number_is_on_the_page_by_name(diff: Diff, page: str) -> None:
    text = Page(page).text
    for metric in METRICS:
        value = diff.summary()[metric.name]
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
        assert f"{metric.name} {shown} {metric.text} exact on this log" in text


def test_tiles_matrix_and_tables_show_the_same_numbers(diff: Diff, page: str, cell: str) -> None:
    for html in (page, cell):
        text = Page(html).text
        assert "4 of 6 · 66.7 % attack calls stopped" in text
        assert "1 of 7 · 14.3 % honest calls disturbed" in text
        assert "17 of 19 · 89.5 % decisions replayed" in text
        assert all(line in text for line in diff.headline.splitlines())
        assert "all 7 3 3 4 1 1 19" in text
        assert "banking 4 3 1 0 5 1 1 0 0 0 4 3 2 1 2 1 0 11 1" in text
    assert "prevented ran; would not run 3 2 1" in Page(page).text


def test_every_changed_and_every_unresolved_row_is_listed_once(diff: Diff, page: str) -> None:
    heads = dict(re.findall(r"<h2>([A-Z][^<]*?) <span class=\"rd-sub\">([\d,]+)</span>", page))
    assert heads == {
        "Honest calls disturbed": "1",
        "Attack calls that would still run": "2",
        "Attack calls stopped": "4",
        "Unlabelled calls stopped": "2",
        "Released": "2",
        "Other changes": "1",
        "Could not be replayed": "2",
    }
    shown = re.findall(r'title="(d-\d\d)"', page)
    assert len(shown) == len(set(shown)) == 14
    assert set(diff.changed.collect()["decision_id"]) | set(diff.unresolved.collect()["decision_id"]) < set(
        shown
    )


def test_long_lists_say_how_many_there_are(made: Callable[..., Any], history: Sequence[Any]) -> None:
    rows = [history[1]] * 80
    html = report.page(compare(made(rows, recorded=True), made(rows)), figures=False)
    assert len(re.findall(r'title="d-\d\d"', html)) == report.MAX_ROWS
    assert "The first 50; diff.rows(…) has all." in Page(html).text


def test_many_tenants_are_folded_and_still_in_the_total(
    made: Callable[..., Any], history: Sequence[Any]
) -> None:
    rows = [replace(history[1], tenant=f"t{n:03}") for n in range(MAX_TENANTS + 5)]
    diff = compare(made(rows, recorded=True), made(rows))
    table = tenant_table(diff)
    assert (len(table.rows), table.left_out) == (MAX_TENANTS + 1, 5)
    assert table.rows[-1][0] == "all"
    assert "no attack ran" not in [column.text for column in table.columns]
    assert table.rows[-1][1][0] == MAX_TENANTS + 5
    assert "5 smaller tenants are in the last line only" in Page(report.page(diff, figures=False)).text
    assert "20 others" in plots.effects(diff).svg()


def test_long_arguments_fold_and_huge_ones_are_cut(made: Callable[..., Any], history: Sequence[Any]) -> None:
    rows = [
        replace(history[1], args='{"note":"' + "é" * 2_000_000 + '"}'),
        replace(history[1], args='{"a":1}'),
    ]
    html = report.page(compare(made(rows, recorded=True), made(rows)), figures=False)
    assert len(html) < 100_000
    assert "the first 4,000 of 2,000,011 characters" in Page(html).text
    assert html.count("<details>") == 1 + 0
    assert "<code>{&#34;a&#34;:1}</code>" in html


def test_what_does_not_show_is_shown(made: Callable[..., Any], history: Sequence[Any]) -> None:
    rows = [replace(history[1], args='{"to":"alice\u202ecom.evil\u200b"}', session="s\u2066")]
    html = report.page(compare(made(rows, recorded=True), made(rows)), figures=False)
    assert "alice\\u202ecom.evil\\u200b" in Page(html).text
    assert not re.search("[\u202e\u200b\u2066]", html)


def test_a_page_without_labels_does_not_speak_of_attacks(unlabelled: Diff) -> None:
    found = Page(report.page(unlabelled))
    assert "7 of 15 · 46.7 % unlabelled calls stopped" in found.text
    assert "attack calls stopped" not in found.text.partition("All numbers by name")[0]


def test_a_page_of_nothing(made: Callable[..., Any]) -> None:
    diff = compare(made([], recorded=True), made([]))
    for html in (report.page(diff), diff._repr_html_()):
        assert "0 of 0 decisions change" in Page(html).text
    assert "No call that ran would be stopped." in Page(report.page(diff)).text


def test_the_same_comparison_gives_the_same_bytes(
    made: Callable[..., Any], history: Sequence[Any], page: str
) -> None:
    again = compare(made(history, recorded=True), made(history))
    assert report.page(again) == page


# -- files -----------------------------------------------------------------------------------------------------


def test_to_html_makes_its_folder_and_replaces_whole_files(diff: Diff, page: str, tmp_path: Path) -> None:
    place = tmp_path / "new" / "report.html"
    assert diff.to_html(str(place)) == place
    assert place.read_text(encoding="utf-8") == page
    assert stat.S_IMODE(place.stat().st_mode) == 0o644
    assert list(place.parent.iterdir()) == [place]


def test_a_write_that_fails_leaves_what_was_there(
    diff: Diff, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "report.html"
    place.write_text("old")

    def full(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        diff.to_html(place)
    assert place.read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]


# -- pictures --------------------------------------------------------------------------------------------------

PLOTS: tuple[Callable[[Diff], plots.Plot], ...] = (plots.effects, plots.policies, plots.transitions)


@pytest.mark.parametrize("draw", PLOTS)
def test_plots_are_images_in_which_text_is_text(
    diff: Diff, draw: Callable[[Diff], plots.Plot], hostile_tenant: str, hostile_policy: str
) -> None:
    svg = draw(diff)._repr_mimebundle_()["image/svg+xml"]
    assert svg.startswith("<svg")
    assert "<script" not in svg
    assert "<img" not in svg
    assert "http" not in svg.replace("http://www.w3.org/", "")
    told = (hostile_tenant, hostile_policy[:20], "candidate")[PLOTS.index(draw)]
    assert told in "".join(Page(svg).texts)


@pytest.mark.parametrize("draw", PLOTS)
def test_plots_are_saved_by_their_ending(
    diff: Diff, draw: Callable[[Diff], plots.Plot], tmp_path: Path
) -> None:
    plot = draw(diff)
    assert plot.save(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert plot.save(str(tmp_path / "a.svg")).read_text(encoding="utf-8").startswith("<svg")
    with pytest.raises(ValueError, match=r"`\.svg` or `\.png`, got '\.pdf'"):
        plot.save(tmp_path / "a.pdf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg"]


def test_a_page_embeds_each_plot_in_both_themes(diff: Diff, page: str) -> None:
    sources = Page(page).attributes("src")
    decoded = [base64.b64decode(source.partition(",")[2]).decode() for source in sources]
    assert decoded == [plots.effects(diff).svg("light"), plots.policies(diff).svg("light")]


def test_plots_of_a_lake_without_labels(unlabelled: Diff) -> None:
    assert "unlabelled calls" in plots.effects(unlabelled).svg()
    assert "attack" not in plots.policies(unlabelled).svg()


# -- what the above rests on -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "–"),
        (0, 3, "0 %"),
        (3, 3, "100 %"),
        (1, 3, "33.3 %"),
        (1, 10**6, "< 0.1 %"),
        (10**6 - 1, 10**6, "> 99.9 %"),
    ],
)
def test_shares_never_round_to_nothing_or_to_all(part: int, whole: int, text: str) -> None:
    assert share(part, whole) == text


def test_texts() -> None:
    assert visible("plain – é 日本 🎉") == "plain – é 日本 🎉"
    assert visible("a\tb\U000e0041") == "a\\u0009b\\U000e0041"
    assert (shorten("abcd", 4), shorten("abcde", 4)) == ("abcd", "abc…")


def test_a_missing_library_names_the_command() -> None:
    with pytest.raises(
        MissingExtra, match=r"`no_such_library` is not installed; run pip install 'redecide\[workbench\]'"
    ):
        need("no_such_library")
    assert need("polars") is pl
