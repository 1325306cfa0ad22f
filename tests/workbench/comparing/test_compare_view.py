"""The view without a browser: what is clicked, what is shown, what comes back, and what is left when it closes."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tests.workbench.test_replay import BASE, FACTS, record, write_bundle, write_orders
from workbench.compare import Diff, compare
from workbench.comparing.heads import head, worked_out
from workbench.comparing.measures import BASES, measures
from workbench.comparing.view import CompareView, compare_view
from workbench.errors import FilterUnknown, NotEstimable
from workbench.estimating.gates_file import read
from workbench.lake import open_lake
from workbench.viewing.testing import Browser

if TYPE_CHECKING:
    from collections.abc import Iterator

GATES = {"gates": [{"quantity": "harm_through_share", "at_most": 0.5, "on": "log"}]}


@pytest.fixture
def browser() -> Iterator[Browser]:
    with Browser() as entered:
        yield entered


def gated(diff: Diff) -> Diff:
    return Diff(diff.base, diff.cand, gates=read(GATES))


@pytest.fixture
def view(browser: Browser, diff: Diff) -> Iterator[CompareView]:
    made = compare_view(diff)
    assert made.wait(30)
    yield made
    made.close()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Diff:
    """A comparison of a lake that the runtime wrote, so that decisions can be told in full."""
    root = tmp_path_factory.mktemp("compare")
    write_orders(root, 100)
    record(root, write_bundle(root / "base", BASE, context=FACTS))
    lake = open_lake(str(root / "lake"))
    return compare(
        lake.replay(), lake.replay(write_bundle(root / "next", BASE.replace("9000", "400"), context=FACTS))
    )


def shown(browser: Browser, view: CompareView) -> dict[str, Any]:
    return dict(browser.state(view._board_view)["_counts"]["shown"])


def listed(browser: Browser, view: CompareView) -> list[str]:
    """Ask for the first rows, as a browser does, and give the ids that came."""
    table = view._table
    browser.says(table, type="window", id="t:1", version=browser.state(table)["_version"], start=0, n=100)
    return browser.tables(table)[-1]["decision_id"].to_list()


def test_a_click_lists_what_it_says(browser: Browser, view: CompareView, diff: Diff) -> None:
    assert listed(browser, view) == diff.changed.collect()["decision_id"].to_list()
    browser.says(view._board_view, type="showcell", candidate=0, before="allow", after="block")
    assert view.wait(30)
    wanted = diff.rows((pl.col("from") == "allow") & (pl.col("to") == "block")).collect()
    assert shown(browser, view)["n"] == wanted.height == 4
    assert listed(browser, view) == wanted["decision_id"].to_list()
    assert_frame_equal(view.selection.collect(), wanted)
    assert browser.state(view._table)["label"] == "allow → block"
    browser.says(view._board_view, type="clear")
    assert shown(browser, view)["title"] == "Changed"


def test_names_of_the_log_arrive_as_text_and_are_chosen_by_place(
    browser: Browser, view: CompareView, diff: Diff, hostile_policy: str
) -> None:
    facets = {each["side"]: each["rows"] for each in browser.state(view._board_view)["_counts"]["facets"]}
    (row,) = [each for each in facets["policy"] if each["title"] == hostile_policy]
    browser.says(view._board_view, type="narrow", candidate=0, side="policy", place=row["place"])
    found = view.selection.collect()
    assert found.height == row["counts"][0] == 1
    assert hostile_policy in found["determining"][0].to_list()
    assert view.diff.frame.filter(eval(view.code, {"pl": pl})).collect().height == 1


def test_python_filters_as_clicks_do(browser: Browser, view: CompareView) -> None:
    view.show(("allow", "block"), tool="send_money")
    assert view.wait(30)
    assert shown(browser, view)["keys"][0]["title"] == "send_money"
    assert view.selection.collect().height == shown(browser, view)["n"] == 2
    before = view.code
    with pytest.raises(FilterUnknown, match="did you mean `send_money`"):
        view.show("all", tool="send_mone")
    with pytest.raises(FilterUnknown, match="there is no list"):
        view.show("everything")
    assert view.code == before
    assert (
        repr(view)
        == "<CompareView recorded → candidate: 2 decisions listed (allow → block, tool send_money)>"
    )


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"type": "showcell", "candidate": 0, "before": "allow", "after": "<img>"}, "no replay says '<img>'"),
        ({"type": "showcell", "candidate": 7, "before": "allow", "after": "block"}, "no candidate number 7"),
        ({"type": "showlist", "candidate": 0, "name": "__class__"}, "no list '__class__'"),
        ({"type": "narrow", "candidate": 0, "side": "tool", "place": 10**6}, "no tool number 1000000"),
        ({"type": "narrow", "candidate": -1, "side": "tool", "place": 0}, "does not read"),
        ({"type": "eval", "code": "1"}, "does not read"),
        ({"type": "clear", "more": 1}, "does not read"),
        ("clear", "does not read"),
    ],
)
def test_what_does_not_fit_is_said_and_changes_nothing(
    browser: Browser, view: CompareView, message: Any, said: str
) -> None:
    before = view.code
    if isinstance(message, dict):
        browser.says(view._board_view, **message)
    else:
        view._board_view.comm.handle_msg(
            {"content": {"data": {"method": "custom", "content": message}}, "buffers": []}
        )
    assert said in browser.state(view._board_view)["problem"]
    assert view.code == before
    browser.sets(view._board_view, _counts={}, _head={})
    assert view._board_view._counts["shown"]["title"] == "Changed"
    browser.says(view._board_view, type="showlist", candidate=0, name="all")
    assert browser.state(view._board_view)["problem"] == ""


def test_the_chosen_decision_is_told_under_both_versions(browser: Browser, real: Diff) -> None:
    view = compare_view(real)
    assert view.wait(60)
    (wanted, *_) = real.changed.collect()["decision_id"].to_list()
    table = view._table
    browser.says(table, type="select", version=browser.state(table)["_version"], row=0)
    assert view.wait(60)
    assert view.selected == wanted
    state = browser.state(view._detail)
    assert (state["_decision"], state["_is_busy"], state["problem"]) == (wanted, False, "")
    assert (
        "context.args.amount_cents &gt; 400"
        in state["_html"].replace("<wbr>", "").replace("</i>", "").replace("<i>", "")
        or "400" in state["_html"]
    )
    view.selected = None
    assert browser.state(view._detail)["_html"] == ""
    view.selected = "no such decision"
    assert view.wait(60)
    assert "no such decision" in browser.state(view._detail)["problem"]
    assert browser.state(view._detail)["_is_busy"] is False
    view.close()


def test_several_versions_stand_in_columns(browser: Browser, real: Diff) -> None:
    same = compare(real.base, real.base)
    view = compare_view(real, same)
    (wanted, *_) = real.changed.collect()["decision_id"].to_list()
    view.selected = wanted
    assert view.wait(60)
    html = browser.state(view._detail)["_html"]
    assert "Under every version" in html
    browser.says(view._detail, type="about", candidate=1)
    assert view.wait(60)
    assert browser.state(view._detail)["_about"] == 1
    assert browser.state(view._detail)["_html"] != html
    browser.says(view._detail, type="about", candidate=2)
    assert browser.state(view._detail)["_about"] == 1
    browser.says(view._board_view, type="about", candidate=1)
    assert view.wait(60)
    assert (view.diff, view.selection.collect().height) == (same, 0)
    assert set(view.frame.collect_schema()) >= {"to_1", "to_2"}
    view.close()


def test_effects_are_those_of_worth_and_estimates(diff: Diff) -> None:
    found = measures(diff, estimated=True)
    assert [each.share for each in found] == sorted((each.share for each in found), reverse=True)
    numbers = diff.worth.numbers
    for each in found:
        bound, (lower, upper) = numbers[each.name], diff.estimates[each.name].interval(diff.level)
        whole = (bound.of or 0) if each.share else 1
        if whole:
            assert (each.low, each.high) == (bound.low / whole, bound.high / whole), each.name
        assert each.lower == pytest.approx(lower)
        assert each.upper is None or each.upper == pytest.approx(upper)
        assert each.as_dict()["known"] == BASES[bound.basis]
        json.dumps(each.as_dict(), allow_nan=False)
    assert {each.name: each.seen for each in found}["harm_through_share"] == numbers[
        "harm_through_share"
    ].shares
    assert not [each for each in measures(diff, estimated=False) if each.future or each.method]


def test_gates_come_when_they_are_judged(browser: Browser, diff: Diff) -> None:
    judged = gated(diff)
    view = compare_view(judged)
    assert view.wait(60)
    first = next(
        sent.data["state"]["_head"] for sent in browser.sent if "_head" in sent.data.get("state", {})
    )
    assert first["candidates"][0]["outcome"] is None
    assert first["candidates"][0]["gated"] is True
    assert first["candidates"][0]["lines"][0].startswith("Stops 4 of 6 attack calls")
    last = browser.state(view._board_view)["_head"]["candidates"][0]
    assert judged.outcome is not None
    assert (last["outcome"]["verdict"], last["estimated"]) == (judged.outcome.verdict, True)
    assert last["outcome"]["lines"] == list(judged.outcome.page().lines)
    view.close()


def test_a_step_that_fails_is_said_and_the_others_go_on(diff: Diff, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.comparing import heads
    from workbench.comparing.candidates import candidates_of

    def refuse(*_: Any, **__: Any) -> Any:
        raise NotEstimable("a session has no cluster <b>")

    monkeypatch.setattr(heads, "_estimated", refuse)
    found = list(worked_out(candidates_of([diff]), lambda: False))
    assert found[1] == (0, {"problem": "a session has no cluster <b>"})
    assert found[0][1]["measures"]
    assert list(worked_out(candidates_of([diff]), lambda: True)) == []


def test_what_travels_is_bounded(browser: Browser, view: CompareView) -> None:
    state = browser.state(view._board_view)
    assert len(json.dumps(state["_counts"])) < 20_000
    assert len(json.dumps(state["_head"])) < 40_000
    assert head(view.board.candidates)["states"][:4] == ["allow", "modify", "approve", "block"]


def test_closing_leaves_nothing_behind(browser: Browser, diff: Diff) -> None:
    before = set(threading.enumerate())
    view = compare_view(diff)
    view.close()
    assert view.wait(30)
    closed = {sent.model for sent in browser.sent if sent.kind == "comm_close"}
    opened = {sent.model for sent in browser.sent if sent.kind == "comm_open"}
    assert opened - closed == set()
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()


def test_two_views_of_one_comparison_do_not_meddle(browser: Browser, diff: Diff) -> None:
    one, other = compare_view(diff), compare_view(diff)
    browser.says(one._board_view, type="showlist", candidate=0, name="all")
    assert (shown(browser, one)["n"], shown(browser, other)["n"]) == (19, 10)
    assert other.code == "pl.col('changed')"
    one.close()
    browser.says(other._board_view, type="showlist", candidate=0, name="unresolved")
    assert other.selection.collect().height == 2
    other.close()
