from __future__ import annotations

import enum
import json
import re
import time
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from runtime.canonical import NotCanonical, canonical, content_hash, new_id, parse

_text = st.text(st.characters(exclude_categories=["Cs"]))
_exact = st.integers(-(2**53) + 1, 2**53 - 1)
_json = st.recursive(
    st.none() | st.booleans() | _exact | st.floats(allow_nan=False, allow_infinity=False) | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=12,
)


@given(_json)
def test_is_rfc_8785_where_that_is_exact(value: Any) -> None:
    assert canonical(value).encode() == rfc8785.dumps(value)


@given(_json)
def test_reads_back_as_the_same_value(value: Any) -> None:
    text = canonical(value)
    assert canonical(parse(text)) == text
    assert canonical(parse(json.dumps(value))) == text


@given(st.dictionaries(_text, _exact, min_size=2))
def test_order_of_members_does_not_matter(value: dict[str, Any]) -> None:
    assert canonical(dict(reversed(value.items()))) == canonical(value)


def test_64_bit_integers_are_exact() -> None:
    assert canonical([2**63 - 1, -(2**63), 2**53 + 1]) == f"[{2**63 - 1},{-(2**63)},{2**53 + 1}]"


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, 2**63]}, r"the integer 9223372036854775808 beyond 64 bits at \$\.a\[1\]"),
        ({"a": {1: 2}}, r"a member name that is no plain string, 1, at \$\.a"),
        ([object()], r"a object at \$\[0\]"),
        ({"x": {Colour.RED: 1}}, "no plain string, <Colour"),
        (float("nan"), "nan"),
        ("\ud800", "surrogates"),
        ([1.5, 2**53 + 1], "9007199254740993"),
    ],
)
def test_what_has_no_form_is_refused_and_named(value: Any, message: str) -> None:
    with pytest.raises(NotCanonical, match=message):
        canonical(value)


def test_deep_nesting_is_refused_not_fatal() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(NotCanonical):
        canonical(deep)


def test_equal_values_have_equal_addresses() -> None:
    assert content_hash({"b": 1, "a": 2}) == content_hash({"a": 2, "b": 1})
    assert re.fullmatch("[0-9a-f]{64}", content_hash(None))


def test_ids_are_uuid_version_7_and_sort_by_time() -> None:
    first = new_id()
    time.sleep(0.002)
    second = new_id()
    assert first < second
    assert first[12] == "7"
    assert first[16] in "89ab"
    assert len({new_id() for _ in range(1000)}) == 1000
