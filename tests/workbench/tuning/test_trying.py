from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.bundle import Bundle, bundle_from_files
from runtime.tuning import tuned
from workbench.metrics import STATES
from workbench.tuning import trying
from workbench.tuning.changes import said_changes
from workbench.tuning.trying import Tried, axes_of

if TYPE_CHECKING:
    from collections.abc import Callable


class Numbers:
    """What is noted of an answer."""

    seconds, decisions = 0.25, 10

    def __init__(self, good: int = 0, harm: int = 0, of: int = 9) -> None:
        self.verdicts = dict.fromkeys(STATES, 0) | {"allow": 10}
        self.objectives = {
            "harm_let_through": (harm, of), "good_held_up": (good, of),
            "calls_held_up": (good, 9), "approvals_asked": (harm, 10),
        }  # fmt: skip


@pytest.fixture
def versions(bundle: Bundle) -> list[Bundle]:
    return [bundle, *(tuned(bundle, {"refund_limit": limit}) for limit in range(1, 14))]


def test_the_same_version_is_noted_once(versions: list[Bundle]) -> None:
    tried = Tried()
    first = tried.add(versions[0], Numbers())
    second = tried.add(versions[1], Numbers())
    assert tried.add(versions[0], Numbers(5)) is first
    assert [(each.number, each.changed) for each in tried.all] == [(0, ""), (1, "refund_limit 5000 → 1")]
    assert tried.get(1) is second
    assert tried.get(7) is None


def test_the_front_is_what_nothing_tried_beats(versions: list[Bundle]) -> None:
    tried = Tried()
    for bundle, (good, harm) in zip(versions, [(5, 5), (3, 8), (5, 4), (9, 1), (9, 2), (3, 8)], strict=False):
        tried.add(bundle, Numbers(good, harm))
    assert tried.front == {1, 2, 3, 5}
    frame = tried.frame.collect()
    assert frame.filter("on_front")["number"].to_list() == [1, 2, 3, 5]
    assert frame["good_held_up"].to_list() == [5, 3, 5, 9, 9, 3]
    assert frame.select(pl.sum_horizontal(STATES)).to_series().to_list() == [10] * 6


def test_nothing_tried_has_a_frame_and_no_front() -> None:
    assert Tried().frame.collect().height == 0
    assert Tried().front == frozenset()


def test_of_very_many_the_oldest_that_nothing_needs_go(
    versions: list[Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trying, "MAX_TRIED", 5)
    tried = Tried()
    for number, bundle in enumerate(versions[:12]):
        tried.add(bundle, Numbers(good=100 - number if number < 4 else 200 + number, harm=number))
    assert tried.dropped == 7
    assert [each.number for each in tried.all] == [0, 1, 2, 3, 11]
    assert tried.add(versions[12], Numbers(1_000, 1_000)).number == 12
    assert tried.first is not None
    assert tried.first.bundle is versions[0]


def test_axes_are_of_labels_where_there_are_any() -> None:
    names = [[axis.name for axis in axes_of(Numbers(of=of).objectives)] for of in (9, 0)]
    assert names == [["good_held_up", "harm_let_through"], ["calls_held_up", "approvals_asked"]]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda b: tuned(b, {"refund_limit": 7, "urgent": 1}), "refund_limit 5000 → 7, urgent 3 → 1"),
        (lambda b: changed(b, "540d", "10d"), "refund-window edited"),
        (lambda b: changed(tuned(b, {"urgent": 1}), "540d", "10d"), "urgent 3 → 1, refund-window edited"),
        (lambda b: changed(b, '"refund-window"', '"window"'), "window added, refund-window removed"),
        (lambda b: changed(b, "// Orders", "// Others"), "orders.cedar edited"),
        (lambda b: changed(b, '\\"max\\": 500000', '\\"max\\": 600000'), "refund-large edited"),
        (lambda b: b, ""),
    ],
)
def test_changes_are_said_in_words(bundle: Bundle, edit: Callable[[Bundle], Bundle], said: str) -> None:
    assert said_changes(bundle, edit(bundle)) == said


def changed(bundle: Bundle, piece: str, other: str) -> Bundle:
    text = bundle.files["orders.cedar"]
    assert piece in text
    return bundle_from_files({**bundle.files, "orders.cedar": text.replace(piece, other, 1)}, bundle.name)


@given(st.integers(0, 500_000), st.integers(1, 6), st.booleans())
def test_whatever_differs_is_said(bundle: Bundle, limit: int, urgent: int, cut: bool) -> None:
    other = tuned(bundle, {"refund_limit": limit, "urgent": urgent})
    other = changed(other, "540d", "9d") if cut else other
    assert bool(said_changes(bundle, other)) == (other.version != bundle.version)
