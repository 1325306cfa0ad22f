"""What holds for every view: read in both themes, worked by keyboard, steady, safe, and alive after a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from playwright.sync_api import expect

from tests.browser import checks, lakes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from playwright.sync_api import Locator

    from tests.browser.lab import Book, Lab

VIEWS: Final = {
    "explorer": "wb.explore(lake)",
    "comparison": "wb.compare_view(diff)",
    "tuner": "wb.tune(lake, policy=policy)",
}
_CELLS: Final = "jupyterapp.shell.currentWidget.content.widgets.length"
MOST_STOPS: Final = 60
"""Presses of Tab through a view: lists and tables are one stop each."""
MOST_ELEMENTS: Final = 2_000
_HUGE: Final = (
    "lake.decisions.collect().row(by_predicate=pl.col('resource_id') == 'huge', named=True)['decision_id']"
)
MOST_BYTES: Final = 3_000_000
"""Sent to the page for a notebook with three views: a large argument is read, not sent."""


def _cells(lake: Path, policy: Path) -> list[str]:
    opened = f"""import polars as pl
import workbench as wb
lake, policy = wb.open({str(lake)!r}), {str(policy)!r}
diff = wb.compare(lake.replay(), lake.replay(policy=policy))"""
    return [opened, *(f"{name} = {made}\n{name}" for name, made in VIEWS.items())]


def _shown(book: Book) -> dict[str, Locator]:
    """Return the views, each with its table of decisions filled or said to be empty."""
    found = {name: book.cell(place) for place, name in enumerate(VIEWS, start=1)}
    for view in found.values():
        expect(view.get_by_role("grid").first).to_be_visible()
    return found


def test_views_are_readable_reachable_and_steady(lab: Lab, desk_lake: Path, desk_candidate: Path) -> None:
    book = lab.notebook(_cells(desk_lake, desk_candidate), name="views").run()
    views = _shown(book)
    wrong: dict[str, list[str]] = {}
    for theme in ("light", "dark"):
        book.theme(theme)
        for name, view in views.items():
            found = [*checks.faint(view), *checks.too_wide(view), *checks.nameless(view)]
            wrong |= {f"{name}, {theme}": found} if found else {}
            book.shot(f"view-{name}", view)
    book.theme("light")
    for name, view in views.items():
        stops = checks.stops(view)
        ringless = [stop for stop in stops if stop.endswith(checks.NO_RING)]
        wrong |= {f"{name}, focus": ringless} if ringless else {}
        assert len(stops) < MOST_STOPS, f"{name}: {len(stops)} stops"
    assert wrong == {}
    _keeps_its_keys(book, views)
    _is_steady(book, views["explorer"])


def _keeps_its_keys(book: Book, views: Mapping[str, Locator]) -> None:
    """JupyterLab's shortcuts (`a` adds a cell, `d d` deletes one) are not for who works in a view."""
    for name, view in views.items():
        for kind in (
            "button:enabled",
            "input[type=checkbox]",
            "input[type=range]",
            "[role=grid]",
            "[role=tab]",
        ):
            found = view.locator(kind).first
            if found.count():
                found.focus()
                for key in ("a", "d", "d"):
                    book.page.keyboard.press(key)
                assert book.page.evaluate(_CELLS) == len(VIEWS) + 1, f"{name}: {kind}"


def _is_steady(book: Book, explorer: Locator) -> None:
    """What is below a view stays where it is while one filters, chooses and reads."""
    page, height = book.page, explorer.evaluate("el => el.offsetHeight")
    explorer.get_by_role("checkbox", name="block").first.check()
    book.becomes("explorer.selection.collect().height < lake.decisions.collect().height", wanted=True)
    grid = explorer.get_by_role("grid")
    grid.focus()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(grid.locator("[aria-selected='true']")).to_have_count(1)
    book.becomes("explorer.decision.id == explorer.selected", wanted=True)
    expect(explorer).to_contain_text("Evidence")
    assert explorer.evaluate("el => el.offsetHeight") == height
    book.shot("view-explorer-chosen", explorer)


@pytest.fixture
def looser(tmp_path: Path) -> Path:
    """Return the hostile lake's bundle with another limit, so that decisions change."""
    return lakes.hostile_bundle(tmp_path / "looser", limit=700)


def test_markup_is_text_and_a_huge_argument_stays_in_python(
    lab: Lab, hostile_lake: Path, looser: Path
) -> None:
    """Names, arguments, policies: characters in every view, also with the decision of two million characters open."""
    lab.received = 0
    book = lab.notebook(_cells(hostile_lake, looser), name="markup").run()
    views = _shown(book)
    explorer, comparison, tuner = views.values()
    book.value(f"setattr(explorer, 'selected', {_HUGE})")
    expect(explorer).to_contain_text("more characters are not shown")
    comparison.get_by_role("grid").locator("[role=row][aria-rowindex='2']").click()
    expect(comparison).to_contain_text("onerror")
    limit = tuner.get_by_role("textbox", name="a Long of at least 0")
    limit.fill("0")
    limit.press("Enter")
    expect(tuner.get_by_role("grid").first).to_have_attribute("aria-rowcount", "4")
    tuner.get_by_role("grid").first.locator("[role=row][aria-rowindex='2']").click()
    for name, view in views.items():
        expect(view).to_contain_text("<script>window.__pwned=1</script>")
        assert checks.got_through(view) == [], name
        book.shot(f"markup-{name}", view)
    assert not checks.pwned(book.page)
    assert lab.received < MOST_BYTES


def test_ten_thousand_names_are_searched_not_listed(lab: Lab, crowded_lake: Path) -> None:
    cells = [
        "import workbench as wb",
        f"explorer = wb.explore(wb.open({str(crowded_lake)!r}))\nexplorer",
    ]
    book = lab.notebook(cells, name="crowd").run()
    view = book.cell(1)
    expect(view).to_contain_text("10,000 of 10,000 decisions")
    assert checks.elements(view) < MOST_ELEMENTS
    policies = view.get_by_role("group", name="Policy")
    expect(policies).to_contain_text("more")
    policies.get_by_role("searchbox").fill("policy-09999")
    policies.get_by_role("checkbox", name="policy-09999").check()
    book.becomes("explorer.selection.collect()['principal_id'].to_list()", ["agent-09999"])
    expect(view).to_contain_text("1 of 10,000 decisions")


def test_two_explorers_of_a_lake_are_apart_and_both_outlive_a_restart(lab: Lab, desk_lake: Path) -> None:
    cells = [
        f"import workbench as wb\nlake = wb.open({str(desk_lake)!r})",
        "one = wb.explore(lake)\none",
        "two = wb.explore(lake)\ntwo",
    ]
    book = lab.notebook(cells, name="twice").run()
    for _ in range(2):
        one, two = book.cell(1), book.cell(2)
        one.get_by_role("checkbox", name="block").first.check()
        book.becomes("[list(map(str, each.filter.verdict)) for each in (one, two)]", [["block"], []])
        expect(two).to_contain_text("5,200 of 5,200 decisions")
        expect(one).not_to_contain_text("5,200 of 5,200 decisions")
        book.restart_and_run()
