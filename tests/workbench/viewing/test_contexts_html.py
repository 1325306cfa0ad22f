"""Two contexts, key by key: what differs is shown, what is the same is counted, nothing is markup."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from workbench.viewing.contexts_html import MAX_ROWS, MAX_VALUE, Row, contexts_html, differences


def leaves(left: Any, right: Any) -> list[tuple[str, str, str | None, str | None]]:
    found = differences(left, right).rows
    return [
        (row.key, row.state, row.left, row.right)
        for row in found
        if row.left is not None or row.right is not None
    ]


def test_only_what_differs_is_there() -> None:
    left: Any = {"args": {"cents": 500, "order": "o-1"}, "now": 1, "order": {"vip": True}, "gone": [1]}
    right: Any = {
        "args": {"cents": 700, "order": "o-1"},
        "now": 1,
        "order": {"vip": True, "tier": "x"},
        "new": None,
    }
    found = differences(left, right)
    assert [(row.depth, row.key, row.state, row.same) for row in found.rows] == [
        (0, "args", "changed", 1), (1, "cents", "changed", 0), (0, "order", "changed", 1), (1, "tier", "added", 0),
        (0, "gone", "removed", 0), (0, "new", "added", 0),
    ]  # fmt: skip
    assert leaves(left, right) == [
        ("cents", "changed", "500", "700"), ("tier", "added", None, '"x"'), ("gone", "removed", "[1]", None),
        ("new", "added", None, "null"),
    ]  # fmt: skip
    assert (found.same, found.folded, found.number) == (1, '{"now":1}', 4)


def test_lists_are_matched_item_by_item() -> None:
    assert leaves({"a": ["x", "y", "z"]}, {"a": ["x", "z", "w"]}) == [
        ("[1]", "removed", '"y"', None), ("[2]", "added", None, '"w"'),
    ]  # fmt: skip


def test_true_is_not_one_and_an_entity_is_one_value() -> None:
    assert leaves({"a": True}, {"a": 1}) == [("a", "changed", "true", "1")]
    one, other = ({"__entity": {"type": "User", "id": ident}} for ident in ("a", "b"))
    assert [row[:2] for row in leaves({"who": one}, {"who": other})] == [("who", "changed")]


def test_no_difference_and_nothing_at_all() -> None:
    assert "The same on both sides." in contexts_html({"a": 1}, {"a": 1})
    assert "There is none on either side." in contexts_html(None, None)
    assert "not there" in contexts_html(None, {"a": 1})


def test_sizes_are_bounded_and_what_is_cut_is_said() -> None:
    found = differences({}, {f"k{n}": n for n in range(10_000)})
    assert len(found.rows) == MAX_ROWS
    assert found.left_out == 10_000 - MAX_ROWS
    assert found.number == 10_000
    html = contexts_html({"a": "x" * 2_000_000}, {"a": "y" * 2_000_000})
    assert len(html) < 20 * MAX_VALUE
    assert f"{2_000_002 - MAX_VALUE:,} more characters" in html
    assert len(contexts_html({"a": "x" * 2_000_000}, {"a": "x" * 2_000_000})) < 20_000


class Tags(HTMLParser):
    """The elements of a fragment."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


def test_hostile_keys_and_values_stay_text() -> None:
    bad = "<script>window.__pwned=1</script>\u202e<img src=x onerror=1>"
    html = contexts_html({bad: bad, "same": bad}, {bad: f"{bad}2", "same": bad}, names=(bad, bad))
    assert not Tags(html).tags & {"script", "img"}
    assert "\u202e" not in html


json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=2), json, max_size=4),
    st.dictionaries(st.text(max_size=2), json, max_size=4),
)
def test_there_are_differences_exactly_where_there_are(left: Any, right: Any) -> None:
    found = differences(left, right)
    assert bool(found.rows) == (repr(left) != repr(right) and not _equal(left, right))
    mirrored = differences(right, left)
    assert mirrored.same == found.same
    assert all(isinstance(row, Row) for row in mirrored.rows)


def _equal(one: Any, other: Any) -> bool:
    """JSON equality: `true` is not 1, and members have no order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)
