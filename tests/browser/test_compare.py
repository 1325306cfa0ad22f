"""The comparison side by side, in a real JupyterLab: what is clicked and typed is what Python has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser import checks, lakes

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Locator

    from tests.browser.lab import Book, Lab

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

GATES = "{'gates': [{'quantity': 'harm_through_share', 'at_most': 0.05}]}"
CELLS = "jupyterapp.shell.currentWidget.content.model.cells.length"
BLOCKED = "diff.rows((pl.col('from') == 'allow') & (pl.col('to') == 'block')).collect()"


def opened(lake: Path, candidate: Path) -> list[str]:
    return [
        "import polars as pl\nimport workbench as wb",
        f"lake = wb.open({str(lake)!r})\nbase = lake.replay()",
        f"diff = wb.compare(base, lake.replay({str(candidate)!r}), gates={GATES})",
        "view = diff.view()\nview",
        (
            f"plain = wb.compare(base, lake.replay({str(candidate.parent / 'baseline')!r}))\n"
            "two = wb.compare_view(diff, plain)\ntwo"
        ),
    ]


def settled(book: Book, view: str = "view") -> None:
    assert book.value(f"{view}.wait(60)")


def listed(book: Book, view: Locator, name: str = "view") -> None:
    """Wait until what is filtered is listed: what is done to the list before chooses nothing, or loses its row."""
    settled(book, name)
    rows = book.value(f"{name}.selection.collect().height")
    expect(view.get_by_role("grid")).to_have_attribute("aria-rowcount", str(rows + 1))
    expect(view.locator(".rd-row[data-waits]")).to_have_count(0)


def is_drawn(view: Locator) -> None:
    """Wait until each part is there: the browser loads a module for each, after the cell has run."""
    for part in (".rd-compare", ".rd-table", ".rd-compare-detail"):
        expect(view.locator(part)).to_be_visible()


def tops(view: Locator) -> list[float]:
    """Where the parts of the view begin: they must not move."""
    found: list[float] = view.locator(
        ".rd-compare, .rd-tabs, .rd-panel:not([hidden]), .rd-shown, .rd-table, .rd-compare-detail"
    ).evaluate_all(
        "all => all.map((each) => each.getBoundingClientRect().top - all[0].getBoundingClientRect().top)"
    )
    return found


def is_sound(view: Locator) -> None:
    """What anybody can say of it by looking at it."""
    assert checks.nameless(view) == []
    assert checks.faint(view.locator(".rd-compare")) == []
    assert checks.too_wide(view) == []
    assert checks.got_through(view) == []


def test_a_comparison_is_clicked_typed_and_told(lab: Lab, desk_lake: Path, desk_candidate: Path) -> None:
    book = lab.notebook(opened(desk_lake, desk_candidate), name="compare").run()
    view = book.cell(3)
    is_drawn(view)
    before = tops(view)
    assert len(before) == 6  # the board, its tabs, one panel, what is shown, the table, one decision
    settled(book)
    assert tops(view) == before
    cell_is_clicked(book, view)
    names_are_searched(book, view)
    a_decision_is_told(book, view)
    effects_are_shown(book, view)
    assert tops(view) == before
    keys_reach_everything(book, view)
    two = book.cell(4)
    settled(book, "two")
    versions_stand_in_columns(book, two)

    book.restart_and_run()
    view = book.cell(3)
    settled(book)
    view.get_by_role("button", name="All decisions: ").click()
    expect(view.get_by_role("grid")).to_have_attribute("aria-rowcount", "5201")


def cell_is_clicked(book: Book, view: Locator) -> None:
    """What came in the background is there; a cell of the matrix lists its decisions."""
    grid = view.get_by_role("grid")
    expect(view.locator(".rd-badge").first).to_have_text("don't ship")
    expect(view.locator(".rd-exact")).to_contain_text("No earlier change reaches")
    changed, blocked = book.value(f"(diff.summary()['decisions_changed'], {BLOCKED}.height)")
    expect(grid).to_have_attribute("aria-rowcount", str(changed + 1))
    cell = view.get_by_role("button", name=f"allow to block: {blocked} decisions")
    cell.click()
    expect(cell).to_have_attribute("aria-pressed", "true")
    expect(cell).to_be_focused()
    expect(grid).to_have_attribute("aria-rowcount", str(blocked + 1))
    assert book.value(f"view.selection.collect().equals({BLOCKED})")
    assert book.value("view.frame.filter(eval(view.code)).collect().height") == blocked
    is_sound(view)
    book.shot("compare-cell", view)


def names_are_searched(book: Book, view: Locator) -> None:
    """What is typed finds a policy; policy and tenant narrow the list."""
    view.get_by_role("tab", name="By tool, policy, tenant").click()
    view.get_by_role("searchbox", name="search policy names").fill("WINDOW")
    expect(view.locator(".rd-facet").nth(1).get_by_role("button")).to_have_count(1)
    view.get_by_role("button", name="policy refund-window: ").click()
    view.get_by_role("button", name="tenant acme: ").click()
    expect(view.locator(".rd-chip")).to_have_count(3)
    narrowed = book.value("view.selection.collect().height")
    assert 0 < narrowed < book.value(f"{BLOCKED}.height")
    expect(view.get_by_role("grid")).to_have_attribute("aria-rowcount", str(narrowed + 1))
    expect(view.locator(".rd-shown")).to_contain_text(f"{narrowed} of 5,200 decisions")


def a_decision_is_told(book: Book, view: Locator) -> None:
    """A row that is clicked is told with the clause that flipped it, in both themes."""
    listed(book, view)
    view.locator(".rd-row").nth(1).click()
    detail = view.locator(".rd-compare-detail")
    chosen = book.value("view.selection.sort('decided_at', maintain_order=True).collect()['decision_id'][1]")
    expect(detail.locator(".rd-line b")).to_have_text(f"Decision {chosen}")
    expect(detail.locator(".rd-body")).to_contain_text('duration("540d")')
    expect(detail.locator(".rd-body")).to_contain_text("refund-window")
    assert book.value("view.selected") == chosen
    is_sound(view)
    book.theme("dark")
    is_sound(view)
    book.shot("compare-decision", view)


def effects_are_shown(book: Book, view: Locator) -> None:
    """An effect says what is on the log and draws its interval."""
    view.get_by_role("tab", name="Effects and intervals").click()
    effect = view.locator(".rd-effects tr", has_text="harmful actions that ran and would not come about, of")
    told = book.value("diff.worth['harm_avoided_share'].shares").replace(" %", "\u00a0%")
    expect(effect).to_contain_text(told)
    expect(effect.get_by_role("img")).to_have_count(1)
    is_sound(view)
    book.shot("compare-effects", view)
    book.theme("light")
    view.get_by_role("button", name="no longer only policy refund-window").click()
    view.get_by_role("button", name="clear", exact=True).click()
    book.becomes("view.code", "pl.col('changed')")


def keys_reach_everything(book: Book, view: Locator) -> None:
    """Tab reaches each part, with a ring; no key goes to the notebook, and Enter chooses."""
    keys = book.page.keyboard
    view.get_by_role("tab", name="What changes").click()
    found = checks.stops(view)
    assert not [each for each in found[1:] if "no focus ring" in each]  # the first was focused by the test
    assert [each for each in found if each.startswith("allow to block")]
    honest = view.get_by_role("button", name="Honest calls disturbed: ")
    honest.focus()
    cells = book.page.evaluate(CELLS)
    for key in ("b", "d", "d", "x", "Enter"):  # Jupyter's: a cell below, delete, cut, edit
        keys.press(key)
    expect(honest).to_have_attribute("aria-pressed", "true")
    expect(honest).to_be_focused()
    assert book.value("view.board.filter.what.name") == "honest_disturbed"
    assert book.page.evaluate(CELLS) == cells == 5
    view.get_by_role("tab", name="What changes").focus()
    keys.press("ArrowRight")
    expect(view.get_by_role("tab", name="By tool, policy, tenant")).to_be_focused()
    expect(view.locator(".rd-facet").first).to_be_visible()
    book.value("setattr(view, 'selected', None)")
    listed(book, view)
    view.get_by_role("grid").focus()
    for key in ("Home", "ArrowDown", "Enter"):
        keys.press(key)
    book.becomes(
        "view.selected",
        book.value("view.selection.sort('decided_at', maintain_order=True).collect()['decision_id'][1]"),
    )


def versions_stand_in_columns(book: Book, view: Locator) -> None:
    """Two candidates: where they differ, and one decision under each."""
    changed = book.value("diff.summary()['decisions_changed']")
    view.get_by_role("button", name=f"Candidates differ, candidate: {changed:,} decisions").click()
    expect(view.get_by_role("grid")).to_have_attribute("aria-rowcount", str(changed + 1))
    heads = [each.strip() for each in view.locator(".rd-table [role=columnheader]").all_inner_texts()]
    assert heads[2:5] == ["as recorded", "candidate", "baseline"]
    listed(book, view, "two")
    view.locator(".rd-row").first.click()
    detail = view.locator(".rd-compare-detail")
    expect(detail.locator(".rd-body")).to_contain_text("Under every version")
    detail.get_by_role("button", name="baseline").click()
    expect(detail.get_by_role("button", name="baseline")).to_have_attribute("aria-pressed", "true")
    expect(detail.locator(".rd-body")).to_contain_text("under baseline")
    is_sound(view)
    book.shot("compare-columns", view)
    view.get_by_role("tab", name="Effects and intervals").click()
    expect(view.locator(".rd-effects .rd-measure").first).to_be_visible()
    book.theme("dark")
    is_sound(view)
    book.shot("compare-columns-effects", view)
    book.theme("light")


def test_markup_is_text_and_two_megabytes_are_cut(lab: Lab, hostile_lake: Path) -> None:
    book = lab.notebook(
        [
            "import workbench as wb",
            f"base = wb.open({str(hostile_lake)!r}).replay()\nview = wb.compare_view(wb.compare(base, base))\nview.show('all')\nview",
        ],
        name="compare-hostile",
    ).run()
    view = book.cell(1)
    settled(book)
    view.get_by_role("tab", name="By tool, policy, tenant").click()
    expect(view.locator(".rd-facet").first).to_contain_text(lakes.HOSTILE_TOOL)
    expect(view.locator(".rd-facet").nth(1)).to_contain_text(lakes.HOSTILE_POLICY)
    expect(view.locator(".rd-facet").nth(2)).to_contain_text(lakes.HOSTILE_TENANT)
    huge = "view.frame.with_row_index().collect().filter(base.rows['args'].str.len_chars() > 1_000_000)['decision_id'][0]"
    chosen = book.value(huge)
    assert book.value(f"setattr(view, 'selected', {chosen!r})") is None
    settled(book)
    expect(view.locator(".rd-compare-detail .rd-body")).to_contain_text("<img src=x onerror")
    assert checks.got_through(view) == []
    assert not checks.pwned(book.page)
    book.shot("compare-hostile", view)
