"""Live tuning in a real JupyterLab: sliders and texts move numbers, lists and each other."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from runtime.bundle import load_bundle
from tests.browser import checks

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Locator

    from tests.browser.lab import Book, Lab

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

LIMIT = "tuner.bundle.tunables['refund-large.refund_limit'].value"
URGENT = "tuner.bundle.tunables['close-urgent.urgent'].value"
HELD_UP = "tuner.answer.objectives['good_held_up'][0]"
CELLS = "jupyterapp.shell.currentWidget.content.model.cells.length"
ANSWERED = "not tuner.tuning.now.is_stale"


def cells(lake: Path, policies: Path) -> list[str]:
    return [
        f"import workbench as wb\nfrom workbench.tuning import tune\nlake = wb.open({str(lake)!r})",
        f"tuner = tune(lake, {str(policies)!r})\ntuner",
    ]


@pytest.fixture
def policies(tmp_path: Path, desk_candidate: Path) -> Path:
    return shutil.copytree(desk_candidate, tmp_path / "policies" / "candidate")


def tile(view: Locator, name: str) -> Locator:
    return view.locator(f"[data-tile='{name}'] b")


def shows(view: Locator, name: str, n: int, difference: int) -> None:
    signed = f"+{difference:,}" if difference > 0 else f"−{-difference:,}" if difference else "±0"
    expect(tile(view, name)).to_have_text(f"{n:,}{signed}")


def tops(view: Locator) -> list[float]:
    """Where the parts begin: they must not move."""
    parts = ".rd-texts, .rd-controls, .rd-tiles, .rd-verdicts, .rd-flips, .rd-picture, .rd-save, .rd-table, .rd-fragment"
    found: list[float] = view.locator(parts).evaluate_all(
        "all => all.map((each) => each.getBoundingClientRect().top - all[0].getBoundingClientRect().top)"
    )
    return found


def test_a_slider_moves_text_numbers_picture_and_lists(lab: Lab, desk_lake: Path, policies: Path) -> None:
    book = lab.notebook(cells(desk_lake, policies), name="tune").run()
    view = book.cell(1)
    before, where = book.value(HELD_UP), tops(view)
    shows(view, "good_held_up", before, 0)
    expect(view.get_by_text("No problems: the policies load.")).to_be_visible()
    _slide(book, view, before)
    _go_back_by_the_picture(book, view, before)
    _type_a_value(book, view)
    assert tops(view) == where
    _type_an_error_and_back(book, view)
    assert tops(view) == where
    for theme in ("light", "dark"):
        book.theme(theme)
        assert checks.nameless(view) == []
        assert checks.faint(view.locator(".rd-tune")) == []
        assert checks.too_wide(view) == []
        book.shot("tune", view)


def _slide(book: Book, view: Locator, before: int) -> None:
    """By keyboard, in the notebook's command mode: arrows are the slider's, not the notebook's."""
    slider = view.get_by_role("slider", name="urgent of close-urgent")
    slider.focus()
    for _ in range(2):
        slider.press("ArrowLeft")
    book.becomes(URGENT, 1)
    now = book.value(HELD_UP)
    assert now > before
    shows(view, "good_held_up", now, now - before)
    expect(slider).to_have_attribute("aria-valuetext", "1")
    view.get_by_role("tab", name="tickets.cedar").click()
    expect(view.get_by_label("policies in tickets.cedar")).to_contain_text("resource.priority >= 1")
    listed = book.value("tuner.tuning.now.change.blocked_good.decisions")
    expect(view.get_by_role("grid").first).to_have_attribute("aria-rowcount", str(listed + 1))
    expect(view.get_by_text(f"Good work newly held up: {listed:,} decisions")).to_be_visible()
    view.get_by_role("grid").first.locator("[role=row][aria-rowindex='2']").click(position={"x": 20, "y": 8})
    detail = view.locator(".rd-fragment")
    expect(detail).to_contain_text("now approve")
    expect(detail).to_contain_text("resource.priority >= 1")
    shown = detail.text_content()
    assert book.value("tuner._tables['blocked'].selected") in (shown or "")


def _go_back_by_the_picture(book: Book, view: Locator, before: int) -> None:
    points = view.locator(".rd-picture .rd-point")
    expect(points).to_have_count(book.value("tuner.tried.collect().height"))
    first = view.locator(".rd-picture .rd-point[data-number='0']")
    assert "as the session began" in (first.get_attribute("aria-label") or "")
    first.focus()
    first.press("Enter")
    book.becomes(URGENT, 3)
    shows(view, "good_held_up", before, 0)
    expect(view.get_by_label("policies in tickets.cedar")).to_contain_text("resource.priority >= 3")


def _type_a_value(book: Book, view: Locator) -> None:
    box = view.get_by_role("textbox", name="refund_limit of refund-large")
    box.fill("-5")
    box.press("Enter")
    expect(view.get_by_role("alert").first).to_contain_text("must be a Long of at least 0")
    expect(box).to_have_value("5000")
    box.fill("12345")
    box.press("Enter")
    book.becomes(LIMIT, 12345)
    expect(view.get_by_role("alert").first).to_be_empty()
    count = book.page.evaluate(CELLS)
    view.get_by_role("button", name="Compare").focus()
    book.page.keyboard.press("d")
    book.page.keyboard.press("d")
    assert book.page.evaluate(CELLS) == count, "keys pressed in the view are not the notebook's"


def _type_an_error_and_back(book: Book, view: Locator) -> None:
    view.get_by_role("tab", name="orders.cedar").click()
    editor = view.get_by_label("policies in orders.cedar")
    editor.click()
    book.page.keyboard.press("Control+End")
    book.page.keyboard.type(
        '\n@id("new")\nforbid (principal, action, resource) when { context.args.nothing == 1 };'
    )
    problem = view.get_by_role("list", name="problems").get_by_role("button")
    expect(problem).to_contain_text("orders.cedar:71")
    expect(view.locator(".cm-lintRange-error")).to_have_count(1)
    expect(view.locator(".rd-stale")).not_to_have_count(0)
    expect(view.get_by_role("button", name="Save as new version")).to_be_disabled()
    assert book.value("[p.line for p in tuner.problems]") == [71]
    editor.click()
    for _ in range(40):  # undo takes back a word or so at a time
        if '@id("new")' not in (editor.text_content() or ""):
            break
        book.page.keyboard.press("Control+z")
    book.becomes("len(tuner.problems)", 0)
    expect(view.locator(".rd-stale")).to_have_count(0)
    assert book.value(LIMIT) == 12345, "a slider's value is no part of what is typed"


def test_it_is_saved_compared_and_starts_again(lab: Lab, desk_lake: Path, policies: Path) -> None:
    again = "other = tune(lake, tuner.bundle)\nother"
    book = lab.notebook([*cells(desk_lake, policies), again], name="tune-save").run()
    view, other = book.cell(1), "other.bundle.tunables['close-urgent.urgent'].value"
    slider = view.get_by_role("slider", name="urgent of close-urgent")
    slider.focus()
    slider.press("ArrowRight")
    book.becomes(URGENT, 4)
    assert book.value(other) == 3, "two tuners on one lake are apart"
    view.get_by_role("textbox", name="Save in policies as").fill("candidate")
    view.get_by_role("button", name="Save as new version").click()
    expect(view.get_by_role("alert").first).to_contain_text("a version is never written over")
    assert load_bundle(policies).tunables["close-urgent.urgent"].value == 3
    view.get_by_role("textbox", name="Save in policies as").fill("candidate-4")
    view.get_by_role("button", name="Save as new version").click()
    expect(view.locator(".rd-said")).to_contain_text("Saved version")
    saved = load_bundle(policies.parent / "candidate-4")
    assert saved.version == book.value("tuner.bundle.version")
    view.get_by_role("button", name="Compare").click()
    compared = view.get_by_role("region", name="comparison")
    expect(compared).to_contain_text("candidate-4")
    told = book.value("tuner._compared.diff.changed.collect().height")
    assert told > 0
    book.shot("tune-compared", view)
    book.restart_and_run()
    assert book.value(URGENT) == 3
    view = book.cell(1)
    slider = view.get_by_role("slider", name="urgent of close-urgent")
    slider.focus()
    slider.press("ArrowLeft")
    book.becomes(URGENT, 2)
    book.value("tuner.close()")
    expect(book.cell(1).locator(".rd-tune")).to_have_count(0)
    book.becomes("[t.name for t in __import__('threading').enumerate() if t.name == 'redecide-view']", [])
    assert book.value(other) == 3
