"""The long table without a browser: what travels, what the browser may ask, what comes back to Python."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from ipywidgets.widgets.widget import _instances

from workbench.viewing.rows import Column, FrameRows
from workbench.viewing.table import MAX_WINDOW, TableView
from workbench.viewing.testing import Browser

if TYPE_CHECKING:
    from collections.abc import Iterator

N = 2_000
FRAME = pl.DataFrame(
    {"decision_id": [f"d{i:04}" for i in range(N)], "n": [(i * 7) % N for i in range(N)], "args": ["{}"] * N}
)


@pytest.fixture
def browser() -> Iterator[Browser]:
    with Browser() as found:
        yield found


@pytest.fixture
def table(browser: Browser) -> Iterator[TableView]:
    found = TableView(FrameRows(FRAME), label="rows")
    yield found
    found.close()


def asks(browser: Browser, table: TableView, start: int, n: int, **more: Any) -> pl.DataFrame | None:
    """Ask for a window; None: nothing came."""
    before = len(browser.customs(table))
    version = browser.state(table)["_version"]
    browser.says(
        table, **({"type": "window", "id": "a:1", "version": version, "start": start, "n": n} | more)
    )
    found = browser.customs(table)[before:]
    return browser.tables(table)[-1] if found and found[0].buffers else None


def test_only_the_window_that_is_asked_for_travels_as_arrow(browser: Browser, table: TableView) -> None:
    found = asks(browser, table, 1_000, 3)
    assert found is not None
    assert found.to_dict(as_series=False) == {
        "decision_id": ["d1000", "d1001", "d1002"], "n": ["1,000", "1,007", "1,014"], "args": ["{}"] * 3,
    }  # fmt: skip
    sent = browser.customs(table)[-1]
    assert sent.data["content"] == {"type": "rows", "id": "a:1", "version": 1, "start": 1_000}
    assert len(sent.buffers[0]) < 2_000
    assert "d1000" not in str([each.data for each in browser.sent])


def test_a_window_is_bounded_and_may_lie_beyond_the_end(browser: Browser, table: TableView) -> None:
    most = asks(browser, table, 0, 10**9)
    assert most is not None
    assert most.height == MAX_WINDOW
    beyond = asks(browser, table, N + 5, 10)
    assert beyond is not None
    assert beyond.height == 0


def test_a_window_of_another_version_is_not_answered(browser: Browser, table: TableView) -> None:
    assert asks(browser, table, 0, 5, version=0) is None
    table.rows = FrameRows(FRAME.head(10))
    assert asks(browser, table, 0, 5, version=1) is None
    assert asks(browser, table, 0, 5) is not None


def test_an_answer_that_was_overtaken_by_a_new_version_is_not_sent(browser: Browser) -> None:
    began, may_end = threading.Event(), threading.Event()

    class Slow(FrameRows):
        def window(self, start: int, n: int) -> pl.DataFrame:
            began.set()
            assert may_end.wait(20)
            return super().window(start, n)

    table = TableView(Slow(FRAME), label="slow")
    ask = threading.Thread(
        target=browser.says,
        args=(table,),
        kwargs={"type": "window", "id": "a:1", "version": 1, "start": 0, "n": 5},
    )
    ask.start()
    assert began.wait(20)
    table.rows = FrameRows(FRAME.head(3))
    may_end.set()
    ask.join(20)
    assert browser.customs(table) == []
    table.close()


def test_two_places_in_the_notebook_each_get_their_window(browser: Browser, table: TableView) -> None:
    for view in ("a:1", "b:1"):
        assert asks(browser, table, 0, 5, id=view) is not None
    assert [each.data["content"]["id"] for each in browser.customs(table)] == ["a:1", "b:1"]


def test_rows_that_cannot_be_read_are_said_and_the_browser_may_ask_again(browser: Browser) -> None:
    class Gone(FrameRows):
        def window(self, start: int, n: int) -> pl.DataFrame:
            raise OSError("the lake is away")

    table = TableView(Gone(FRAME), label="gone")
    assert asks(browser, table, 0, 5) is None
    assert browser.customs(table)[-1].data["content"]["type"] == "failed"
    assert table.problem == "the lake is away"
    table.close()


def test_a_click_on_a_head_orders_and_keeps_the_chosen_row(browser: Browser, table: TableView) -> None:
    browser.says(table, type="select", version=1, row=2)
    assert table.selected == "d0002"
    browser.says(table, type="sort", column="n", descending=True)
    assert table.order == ("n", True)
    state = browser.state(table)
    assert state["_sort"] == {"column": "n", "descending": True}
    assert state["_row"] == N - 1 - 14
    first = asks(browser, table, 0, 1)
    assert first is not None
    assert first["n"].to_list() == ["1,999"]
    browser.says(table, type="sort", column="", descending=False)
    assert table.order is None
    assert browser.state(table)["_sort"] == {}
    assert browser.state(table)["_row"] == 2


def test_new_rows_keep_the_order_and_the_choice_where_they_apply(browser: Browser, table: TableView) -> None:
    table.sort("n", descending=True)
    table.worker.wait(20)
    table.selected = "d0007"
    table.rows = FrameRows(FRAME.head(10))
    assert table.is_stale
    table.worker.wait(20)
    assert not table.is_stale
    shown = asks(browser, table, 0, 10)
    assert shown is not None
    assert shown["n"].to_list() == ["63", "56", "49", "42", "35", "28", "21", "14", "7", "0"]
    assert browser.state(table)["_row"] == 2
    table.rows = FrameRows(FRAME.head(5))
    table.worker.wait(20)
    assert (table.selected, browser.state(table)["_row"]) == ("d0007", -1)


def test_a_choice_is_read_and_set_in_python(browser: Browser, table: TableView) -> None:
    seen: list[object] = []
    table.observe(lambda change: seen.append(change.new), "selected")
    table.selected = "d0042"
    assert browser.state(table)["_row"] == 42
    table.selected = None
    assert browser.state(table)["_row"] == -1
    browser.says(table, type="select", version=1, row=N)
    browser.says(table, type="select", version=99, row=1)
    assert seen == ["d0042", None]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"type": "sort", "column": "__class__", "descending": False},
            "cannot be ordered by '__class__'; they can by",
        ),
        ({"type": "sort", "column": "args", "descending": False}, "they can by decision_id, n"),
        ({"type": "window", "id": "a", "version": 1, "start": -1, "n": 5}, "does not read"),
        ({"type": "select", "version": 1, "row": "0"}, "does not read"),
        ({"type": "run", "code": "import os"}, "does not read"),
    ],
)
def test_what_the_browser_should_not_say_is_shown_and_changes_nothing(
    browser: Browser, content: dict[str, Any], said: str
) -> None:
    columns = [
        Column(name="decision_id", title="id"), Column(name="n", title="n"),
        Column(name="args", title="args", sortable=False),
    ]  # fmt: skip
    table = TableView(FrameRows(FRAME, columns=columns), label="rows")
    browser.says(table, **content)
    assert said in table.problem
    assert table.order is None
    assert table.selected is None
    assert not browser.customs(table)
    table.close()


def test_the_browser_sets_no_trait(browser: Browser, table: TableView) -> None:
    browser.sets(table, label="mine", _total=3, _version=9, problem="x", _esm="alert(1)")
    assert (table.label, table._total, table._version, table.problem) == ("rows", N, 1, "")
    assert str(table._esm) != "alert(1)"


def test_a_table_may_show_some_columns_and_mark_the_order_it_is_given_in(browser: Browser) -> None:
    columns = [Column(name="n", title="<b>n</b>\u202e", kind="number", width=70)]
    table = TableView(FrameRows(FRAME), label="n", columns=columns, order=("n", False))
    state = browser.state(table)
    assert state["_columns"] == [
        {"name": "n", "title": "<b>n</b>\\u202e", "kind": "number", "help": "", "width": 70, "sortable": True}
    ]
    assert state["_sort"] == {"column": "n", "descending": False}
    found = asks(browser, table, 0, 2)
    assert found is not None
    assert found.columns == ["n"]
    table.close()


def test_closing_leaves_no_comm_no_thread_and_no_rows(browser: Browser) -> None:
    before = list(_instances)
    rows = FrameRows(FRAME.clone())
    kept = weakref.ref(rows)
    table = TableView(rows, label="rows")
    asks(browser, table, 0, 5)
    table.sort("n")
    table.worker.wait(20)
    table.close()
    assert list(_instances) == before
    assert not table.worker.is_busy
    del table, rows
    gc.collect()
    assert kept() is None


def test_a_terminal_is_told_what_it_is(table: TableView) -> None:
    assert repr(table) == "rows: 2,000 rows"
