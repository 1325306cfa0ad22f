"""The explorer without a browser: what the reader asks becomes a filter, and comes back as rows."""

from __future__ import annotations

import gc
import weakref
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from ipywidgets.widgets.widget import _instances

from tests.browser.lakes import HOSTILE_TENANT, MARKUP
from workbench.errors import ValueUnknown
from workbench.exploring import Explorer, Filter, explore
from workbench.exploring.view import MAX_MARKS
from workbench.viewing.testing import Browser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.lake import Lake


@pytest.fixture
def browser() -> Iterator[Browser]:
    with Browser() as found:
        yield found


@pytest.fixture
def explorer(browser: Browser, desk: Lake) -> Iterator[Explorer]:
    found = explore(desk)
    yield found
    found.close()


def rows(explorer: Explorer) -> int:
    assert explorer.wait(60)
    return int(explorer.table.rows.height)


def selected(explorer: Explorer) -> int:
    return int(explorer.selection.select(pl.len()).collect().item())


def value(browser: Browser, explorer: Explorer, facet: str, text: str) -> dict[str, Any]:
    found = next(each for each in browser.state(explorer.board)["_facets"] if each["name"] == facet)
    return next(each for each in found["values"] if each["text"] == text)


def test_what_is_ticked_filters_and_unticked_does_not(browser: Browser, explorer: Explorer) -> None:
    block = value(browser, explorer, "verdict", "block")
    browser.says(explorer.board, type="pick", facet="verdict", code=block["code"], on=True)
    assert explorer.filter == Filter(verdict=("block",))
    assert rows(explorer) == selected(explorer) == block["n"]
    assert value(browser, explorer, "verdict", "block")["on"]
    modify = value(browser, explorer, "verdict", "modify")
    browser.says(explorer.board, type="pick", facet="verdict", code=modify["code"], on=True)
    assert rows(explorer) == selected(explorer) == block["n"] + modify["n"]
    browser.says(explorer.board, type="pick", facet="verdict", code=block["code"], on=False)
    assert explorer.filter == Filter(verdict=("modify",))
    browser.says(explorer.board, type="clear", facet="verdict")
    assert rows(explorer) == 800
    assert browser.state(explorer.board)["_is_empty"]


def test_text_and_time_narrow_and_show_all_ends_it(browser: Browser, explorer: Explorer) -> None:
    browser.says(explorer.board, type="find", text="REFUND")
    found = rows(explorer)
    assert 0 < found == selected(explorer) < 800
    edges = browser.state(explorer.board)["_bins"]["edges"]
    browser.says(explorer.board, type="span", first=30, last=10**9)
    assert f"{explorer.filter.since:%Y-%m-%d %H:%M:%S}" == edges[30]
    assert rows(explorer) == selected(explorer) < found
    since = explorer.filter.since
    # What the view shows is cut to the second; coming back unchanged it is still the same moment.
    told = browser.state(explorer.board)["_times"]
    browser.says(explorer.board, type="between", since=told[0], until="2026-09-01")
    assert explorer.filter.since == since
    assert explorer.filter.until == datetime(2026, 9, 1, 23, 59, 59, 999_999, tzinfo=UTC)
    browser.says(explorer.board, type="clear", facet="")
    assert explorer.filter.is_empty
    assert rows(explorer) == 800


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"type": "between", "since": "yesterday", "until": ""}, "no time can be read from 'yesterday'"),
        ({"type": "find", "text": "x" * 10_001}, "does not read"),
        ({"type": "pick", "facet": "tool", "code": -1, "on": True}, "does not read"),
        ({"type": "pick", "facet": "tool", "code": 10**6, "on": True}, ""),
        ({"type": "pick", "facet": "__class__", "code": 0, "on": True}, ""),
        ({"type": "clear", "facet": "text"}, ""),
        ({"type": "eval", "code": "1"}, "does not read"),
    ],
)
def test_what_cannot_be_asked_changes_nothing(
    browser: Browser, explorer: Explorer, content: dict[str, Any], said: str
) -> None:
    browser.says(explorer.board, **content)
    assert explorer.filter.is_empty
    assert rows(explorer) == 800
    assert said in explorer.board.problem
    assert bool(explorer.board.problem) is bool(said)


def test_the_newest_filter_is_shown_however_fast_they_come(explorer: Explorer) -> None:
    for text in ("r", "re", "ref", "refu", "refund"):
        explorer.set(text=text)
    explorer.set(verdict="block")
    assert rows(explorer) == selected(explorer)
    assert explorer.filter == Filter(text="refund", verdict=("block",))
    assert not explorer.table.is_stale


def test_filters_are_set_in_python_and_wrong_ones_name_the_closest(desk: Lake, explorer: Explorer) -> None:
    explorer.set(tenant=["acme", "birch"], since="2026-09-01", until=datetime(2026, 9, 1, 0, 30))  # noqa: DTZ001 - read as UTC
    assert rows(explorer) == selected(explorer) > 0
    code = explorer.code
    pasted = desk.decisions.filter(eval(code, {"pl": pl, "datetime": datetime, "UTC": UTC}))
    assert pasted.select(pl.len()).collect().item() == selected(explorer)
    for parts, said in (
        ({"tenant": "acm"}, "no decision here has tenant 'acm'; did you mean 'acme'"),
        ({"tennant": "acme"}, "no part `tennant`; did you mean `tenant`"),
        ({"since": "soon"}, "no time can be read from 'soon'"),
    ):
        with pytest.raises(ValueUnknown, match=said):
            explorer.set(**parts)
    assert explorer.code == code
    explorer.set(tenant=None, since=None, until=None)
    assert explorer.filter.is_empty


def test_a_chosen_row_shows_its_session_and_itself_in_full(browser: Browser, explorer: Explorer) -> None:
    browser.says(explorer.table, type="select", version=explorer.table._version, row=5)
    assert explorer.detail.worker.wait(60)
    one = explorer.selected
    assert one is not None
    assert one == explorer.index.frame["decision_id"][5]
    assert explorer.decision is not None
    assert explorer.decision.id == one
    assert one in explorer.detail._html
    marks = browser.state(explorer.timeline)["_marks"]
    session = explorer.index.session(one)
    assert len(marks) == session.height
    assert explorer.timeline._chosen == session["decision_id"].to_list().index(one)
    browser.says(explorer.timeline, type="choose", mark=session.height - 1)
    assert explorer.detail.worker.wait(60)
    last = explorer.selected
    assert last is not None
    assert last == session["decision_id"][-1]
    assert last in explorer.detail._html
    browser.says(explorer.timeline, type="choose", mark=session.height)
    assert explorer.selected == last
    explorer.selected = None
    assert explorer.detail._html == ""
    assert explorer.decision is None


def test_a_decision_that_cannot_be_read_is_said_and_the_next_one_is_shown(explorer: Explorer) -> None:
    explorer.selected = "nobody"
    assert explorer.detail.worker.wait(60)
    assert "nobody" in explorer.detail.problem
    assert not explorer.detail.is_stale
    explorer.selected = explorer.index.frame["decision_id"][7]
    assert explorer.detail.worker.wait(60)
    assert explorer.detail.problem == ""
    assert explorer.selected in explorer.detail._html


def test_a_long_session_is_drawn_around_the_chosen_one(browser: Browser, explorer: Explorer) -> None:
    one = explorer.index.frame.head(1)
    session = pl.concat([one] * 1_000).with_columns(decision_id=pl.format("d{}", pl.int_range(pl.len())))
    for place, chosen in ((0, 0), (500, MAX_MARKS // 2), (999, MAX_MARKS - 1)):
        explorer.timeline.show(session, f"d{place}")
        state = browser.state(explorer.timeline)
        assert (len(state["_marks"]), state["_chosen"]) == (MAX_MARKS, chosen)
        assert "600 of them not drawn" in state["_said"]


def test_a_condition_of_the_start_holds_in_all_that_comes_back(browser: Browser, desk: Lake) -> None:
    explorer = explore(desk, pl.col("tenant") == "acme")
    explorer.set(verdict="block")
    assert rows(explorer) == selected(explorer)
    assert explorer.selection.select(pl.col("tenant").unique()).collect().to_series().to_list() == ["acme"]
    assert explorer.selection.collect_schema().names() == desk.decisions.collect_schema().names()
    with pytest.raises(ValueUnknown):
        explorer.set(tenant="birch")
    explorer.close()


def test_what_an_attacker_wrote_is_shortened_and_stays_text(browser: Browser, hostile: Lake) -> None:
    explorer = explore(hostile)
    tenant = value(browser, explorer, "tenant", HOSTILE_TENANT)
    browser.says(explorer.board, type="pick", facet="tenant", code=tenant["code"], on=True)
    assert explorer.filter.tenant == (HOSTILE_TENANT,)
    assert rows(explorer) == selected(explorer) == 13
    explorer.set(text=MARKUP)
    assert rows(explorer) == selected(explorer) == 13
    browser.says(explorer.table, type="window", id="a:1", version=explorer.table._version, start=0, n=50)
    assert all(len(sent.buffers[0]) < 60_000 for sent in browser.customs(explorer.table))
    for i in range(13):
        explorer.selected = explorer.table.rows.key(i)
        assert explorer.detail.worker.wait(60)
        assert explorer.detail.problem == ""
        for wrong in ("<script", "<img", "<svg onload"):
            assert wrong not in explorer.detail._html
        assert len(explorer.detail._html) < 500_000
    assert sum(len(str(sent.data)) for sent in browser.sent) < 3_000_000
    explorer.close()


def test_two_explorers_of_one_lake_do_not_meet_and_closing_leaves_nothing(
    browser: Browser, desk: Lake
) -> None:
    before = list(_instances)
    one, other = explore(desk), explore(desk)
    kept = weakref.ref(one.index)
    one.set(verdict="block")
    assert rows(one) < rows(other) == 800
    one.selected = one.table.rows.key(0)
    assert one.detail.worker.wait(60)
    assert other.selected is None
    one.close()
    assert rows(other) == 800
    other.close()
    assert list(_instances) == before
    del one
    gc.collect()
    assert kept() is None


def test_a_terminal_is_told_how_many(explorer: Explorer, desk: Lake) -> None:
    explorer.set(verdict="block")
    n = rows(explorer)
    assert repr(explorer) == f"Explorer of {desk.uri}: {n} of 800 decisions"


def test_a_problem_outlives_the_answer_to_what_was_asked_before(explorer: Explorer) -> None:
    """A search that takes long ends after somebody typed what is no time: that stays said, until the next change."""
    explorer.board.show_problem("no time can be read from 'soon'")
    explorer.board.show(explorer.filter, explorer._found, explorer.index.frame.height)
    assert "soon" in explorer.board.problem
    explorer.set(text="")
    assert explorer.wait(60)
    assert explorer.board.problem == ""
