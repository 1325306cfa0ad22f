"""The long table and the explorer, as a reader uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tests.browser import checks, lakes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.browser.lab import Lab

_RAW = (
    "<p onclick='window.__pwned=1'>kept</p><script>window.__pwned=1</script><img src=x onerror='window.__pwned=1'>"
    "<svg onload='window.__pwned=1'><a xlink:href='javascript:window.__pwned=1'><text>x</text></a></svg>"
    "<style>@import 'http://127.0.0.1:9/x.css'</style><iframe srcdoc='<script>parent.__pwned=1</script>'></iframe>"
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=window.__pwned=1&gt;'>"
)
"""What a fragment would hold if Python failed to escape."""

_TABLE = """import polars as pl, threading
from workbench.viewing.rows import Column, FrameRows
from workbench.viewing.table import TableView
n = 1_000_000
frame = pl.DataFrame({
    "id": pl.Series(range(n)).cast(pl.String), "n": range(n), "verdict": ["allow", "block", "modify", "approve"] * (n // 4),
    "text": ["<img src=x onerror=window.__pwned=1>"] * n,
})
columns = [Column(name="id", title="id", kind="code"), Column(name="n", title="number", kind="number"),
    Column(name="verdict", title="verdict", kind="state"), Column(name="text", title="text")]
table = TableView(FrameRows(frame, "id", columns=columns), label="a million rows")
table"""


def test_a_million_rows_are_reached_by_keyboard_wheel_and_python(lab: Lab) -> None:
    book = lab.notebook([_TABLE], name="table").run()
    view = book.cell(0)
    grid = view.get_by_role("grid", name="a million rows")
    row = grid.locator("[role=row][aria-rowindex='2']")
    expect(row).to_contain_text("allow")
    expect(grid).to_have_attribute("aria-rowcount", "1000001")
    assert grid.locator("[role=row]").count() < 40
    book.shot("table")

    grid.focus()
    book.page.keyboard.press("End")
    last = grid.locator("[role=row][aria-rowindex='1000001']")
    expect(last).to_contain_text("999,999")
    book.page.keyboard.press("PageUp")
    book.page.keyboard.press("ArrowUp")
    book.page.keyboard.press("Enter")
    chosen = grid.locator("[aria-selected='true']")
    expect(chosen).to_have_count(1)
    assert book.value("table.selected") == chosen.locator("[role=gridcell]").first.text_content()

    grid.hover()
    before = float(grid.locator("[role=row]").nth(1).get_attribute("aria-rowindex") or 0)
    book.page.mouse.wheel(0, -27 * 100)
    expect(grid.locator(f"[aria-rowindex='{before - 100:.0f}']")).to_be_visible()

    order = view.get_by_role("button", name="number")
    order.click()
    expect(view.get_by_role("columnheader", name="number")).to_have_attribute("aria-sort", "ascending")
    order.click()
    expect(view.get_by_role("columnheader", name="number")).to_have_attribute("aria-sort", "descending")
    grid.focus()
    book.page.keyboard.press("Home")
    expect(row).to_contain_text("999,999")

    # What a thread sets while nobody waits for it arrives, and the table goes there.
    book.value("threading.Thread(target=lambda: setattr(table, 'selected', '222222')).start()")
    expect(chosen).to_contain_text("222,222")
    expect(chosen).to_be_in_viewport()
    assert book.page.evaluate("window.__pwned") is None
    book.theme("dark")
    book.shot("table")
    book.theme("light")


def test_a_reader_filters_follows_a_session_and_reads_a_decision(lab: Lab, desk_lake: Path) -> None:
    cells = [
        f"import polars as pl, workbench as wb\nfrom workbench.exploring import explore\nlake = wb.open({str(desk_lake)!r})",
        "explorer = explore(lake)\nexplorer",
    ]
    book = lab.notebook(cells, name="explore").run()
    view = book.cell(1)
    page = book.page
    total = book.value("lake.decisions.select(pl.len()).collect().item()")
    grid = view.get_by_role("grid", name="decisions")
    expect(grid).to_have_attribute("aria-rowcount", str(total + 1))
    expect(grid.locator("[aria-rowindex='2']")).to_contain_text("{")
    book.shot("explore-all")

    # A verdict, then a text in the arguments: the counts of the other facets follow, Python gives the same rows.
    view.get_by_role("group", name="Verdict").get_by_label("block").check()
    count = "explorer.selection.select(pl.len()).collect().item()"
    blocked = book.value(
        "lake.decisions.filter(pl.col('verdict') == 'block').select(pl.len()).collect().item()"
    )
    expect(grid).to_have_attribute("aria-rowcount", str(blocked + 1))
    assert book.value(count) == blocked
    view.get_by_role("searchbox", name="search arguments, resources and ids").press_sequentially(
        "REFUND", delay=15
    )
    both = "lake.decisions.filter(pl.col('verdict') == 'block', pl.col('args').str.contains('(?i)refund')).select(pl.len()).collect().item()"
    hits = book.value(both)
    assert 0 < hits < blocked
    expect(grid).to_have_attribute("aria-rowcount", str(hits + 1))
    expect(view.get_by_text(f"{hits:,} of {total:,} decisions")).to_be_visible()
    assert book.value(count) == hits
    assert book.value("lake.decisions.filter(eval(explorer.code)).select(pl.len()).collect().item()") == hits
    assert grid.locator("[aria-rowindex='2'] .rd-state").text_content() == "block"

    # One decision: the session it is of, and all of it.
    grid.focus()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    detail = view.get_by_role("region", name="decision")
    expect(detail).to_contain_text(book.value("explorer.selected"))
    marks = view.get_by_role("listbox")
    drawn = book.value("explorer.index.session(explorer.selected).height")
    expect(marks.get_by_role("option")).to_have_count(drawn)
    first = book.value("explorer.selected")
    book.shot("explore-one")
    marks.focus()
    page.keyboard.press("End")
    last = book.value("explorer.index.session(explorer.selected)['decision_id'][-1]")
    book.becomes("explorer.selected", last)
    expect(detail).to_contain_text(last)
    assert last != first
    book.theme("dark")
    book.shot("explore-one")
    book.theme("light")

    # All again; a value that is not among the first is searched for.
    view.get_by_role("button", name="Show all").click()
    expect(grid).to_have_attribute("aria-rowcount", str(total + 1))
    principals = view.get_by_role("group", name="Principal")
    rare = book.value("explorer.index.names['principal']['value'][-1]")
    principals.get_by_role("searchbox").press_sequentially(rare[8:-1], delay=5)
    principals.get_by_label(rare, exact=False).first.check()
    book.becomes("list(explorer.filter.principal)", [rare])
    assert book.page.evaluate("window.__pwned") is None


def test_markup_stays_text_and_very_many_names_stay_small(
    lab: Lab, hostile_lake: Path, crowded_lake: Path
) -> None:
    cells = [
        "import workbench as wb\nfrom workbench.exploring import explore\nfrom workbench.viewing.fragment import FragmentView",
        f"one = explore(wb.open({str(hostile_lake)!r}))\none",
        f"many = explore(wb.open({str(crowded_lake)!r}))\nmany",
        f"fragment = FragmentView(label='raw', height=120)\nfragment.show({_RAW!r})\nfragment",
    ]
    book = lab.notebook(cells, name="hostile").run()
    page = book.page
    view = book.cell(1)
    tenants = view.get_by_role("group", name="Tenant")
    expect(tenants).to_contain_text(lakes.HOSTILE_TENANT)
    tenants.get_by_role("checkbox").check()
    view.get_by_role("searchbox", name="search arguments, resources and ids").fill(lakes.MARKUP)
    book.becomes("one.filter.text", lakes.MARKUP)
    grid = view.get_by_role("grid", name="decisions")
    grid.focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    # The decision whose argument has two megabytes.
    expect(view.get_by_role("region", name="decision")).to_contain_text("huge")
    view.get_by_text("this filter as Python").click()
    expect(view.get_by_label("filter as Python")).to_contain_text("onerror=window.__pwned=1")
    assert checks.got_through(view) == []
    book.shot("explore-hostile")

    view = book.cell(2)
    policies = view.get_by_role("group", name="Policy")
    expect(policies.get_by_text("and 9,950 more: search for them")).to_be_attached()
    policies.get_by_role("searchbox").fill("policy-07777")
    policies.get_by_role("checkbox", name="policy-07777").check()
    book.becomes("list(many.filter.policy)", ["policy-07777"])
    expect(view.get_by_role("grid", name="decisions")).to_have_attribute("aria-rowcount", "2")
    assert checks.elements(view) < 2_500
    book.becomes("list(one.filter.policy)", [])  # two explorers in one notebook do not meet

    raw = book.cell(3)
    expect(raw.get_by_role("region", name="raw")).to_contain_text("kept")
    assert checks.got_through(raw) == []
    assert raw.locator("a").get_attribute("href") is None
    assert not checks.pwned(page)


def test_the_explorer_works_by_keyboard_alone_in_both_themes_and_after_a_restart(
    lab: Lab, desk_lake: Path
) -> None:
    cells = [
        f"import workbench as wb\nfrom workbench.exploring import explore\nexplorer = explore(wb.open({str(desk_lake)!r}))\nexplorer"
    ]
    book = lab.notebook(cells, name="keyboard").run()
    page = book.page
    view = book.cell(0)
    expect(view.get_by_role("grid", name="decisions").locator("[aria-rowindex='2']")).to_contain_text("{")
    stops = checks.stops(view)
    assert len(stops) < 40, stops
    assert [stop for stop in stops if stop.endswith(checks.NO_RING)] == []
    view.get_by_role("searchbox", name="search arguments, resources and ids").focus()
    page.keyboard.type("refund")
    page.keyboard.press("Tab")
    page.keyboard.type("soon")
    page.keyboard.press("Enter")
    expect(view.get_by_role("alert").filter(has_text="no time can be read from 'soon'")).to_be_visible()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("2026-09-01 00:20")
    page.keyboard.press("Enter")
    book.becomes("str(explorer.filter.since)[:16]", "2026-09-01 00:20")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")  # Show all, then the first facet
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    book.becomes(
        "[explorer.filter.text, str(explorer.filter.since)[:16], len(explorer.filter.verdict)]",
        ["refund", "2026-09-01 00:20", 1],
    )
    focused = page.locator("*:focus")
    expect(focused).to_be_checked()
    page.keyboard.press("d")
    page.keyboard.press("d")  # in a notebook's command mode, this would delete the cell
    grid = view.get_by_role("grid", name="decisions")
    grid.focus()
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    expect(view.get_by_role("region", name="decision")).to_contain_text("Request")
    expect(page.locator(".jp-CodeCell")).to_have_count(1)
    for theme in ("light", "dark"):
        book.theme(theme)
        assert checks.nameless(view) == []
        assert checks.too_wide(view) == []
        for part in (".rd-explore", ".rd-table", ".rd-timeline"):
            assert checks.faint(view.locator(part)) == [], (theme, part)
        book.shot("explore-keyboard")
    book.theme("light")
    view = book.restart_and_run().cell(0)
    expect(view.get_by_role("grid", name="decisions").locator("[aria-rowindex='2']")).to_contain_text("{")
    assert book.value("explorer.filter.is_empty")
