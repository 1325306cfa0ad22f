from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.patches import PatchError, merge, plain

ROOTS: dict[str, Any] = {
    "context": {
        "order": {"cents": 1200, "rate": {"__extn": {"fn": "decimal", "arg": "2.5"}}},
        "owner": {"__entity": {"type": "User", "id": "ana"}},
    },
    "resource": {"limit": 7},
    "principal": {},
}


def test_a_reference_takes_the_value_it_names() -> None:
    patch: Any = {
        "amount_cents": {"$ref": "context.order.cents"},
        "note": {"deep": {"$ref": "resource.limit"}},
    }
    assert merge({"amount_cents": 5000, "id": "o"}, [("p", patch)], ROOTS) == {
        "amount_cents": 1200,
        "id": "o",
        "note": {"deep": 7},
    }


def test_cedar_values_become_what_a_tool_takes() -> None:
    assert plain(ROOTS["context"]) == {"order": {"cents": 1200, "rate": 2.5}, "owner": "ana"}
    assert plain({"__extn": {"fn": "decimal", "arg": "3.0"}}) == 3
    assert plain({"__extn": {"fn": "ip", "arg": "10.0.0.1"}}) == "10.0.0.1"


def test_null_removes_as_in_rfc_7396() -> None:
    assert merge({"a": 1, "b": {"c": 1, "d": 2}}, [("p", {"b": {"c": None}})], ROOTS) == {
        "a": 1,
        "b": {"d": 2},
    }


def test_the_given_arguments_stay_as_they_are() -> None:
    args: dict[str, Any] = {"b": {"c": 1}}
    before = copy.deepcopy(args)
    merge(args, [("p", {"b": {"c": 2}})], ROOTS)
    assert args == before


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": {"b": 1}}, {"a": 3}),
        ({"a": {"b": 1}}, {"a": None}),
        ({"a": [1]}, {"a": [2]}),
        ({"a": {}}, {"a": {"b": 1}}),
    ],
)
def test_two_policies_that_write_differently_conflict(one: Any, two: Any) -> None:
    for patches in ([("p", one), ("q", two)], [("q", two), ("p", one)]):
        with pytest.raises(PatchError, match="write different values") as caught:
            merge({"a": 0}, patches, ROOTS)
        assert caught.value.code == "patch_conflict"


def test_two_policies_that_write_the_same_agree() -> None:
    assert merge({"a": 0}, [("p", {"a": 1}), ("q", {"a": 1, "b": 2})], ROOTS) == {"a": 1, "b": 2}


def test_an_absent_reference_is_unresolved() -> None:
    with pytest.raises(PatchError, match=r"`p` refers to `context\.order\.none`") as caught:
        merge({}, [("p", {"a": {"$ref": "context.order.none"}})], ROOTS)
    assert caught.value.code == "patch_unresolved"


def test_a_patch_that_changes_nothing_is_invalid() -> None:
    with pytest.raises(PatchError, match="changes nothing") as caught:
        merge({"a": 1}, [("p", {"a": 1})], ROOTS)
    assert caught.value.code == "patch_invalid"


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["x", "y"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
_objects = st.dictionaries(st.sampled_from("abc"), _json, max_size=3)


@given(_objects, _objects, _objects)
def test_order_of_policies_never_matters(args: dict[str, Any], one: Any, two: Any) -> None:
    def run(patches: list[tuple[str, Any]]) -> Any:
        try:
            return merge(args, patches, ROOTS)
        except PatchError as exc:
            return exc.code

    assert run([("p", one), ("q", two)]) == run([("q", two), ("p", one)])


def _rfc7396(target: Any, patch: Any) -> Any:
    """The pseudo code of RFC 7396, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _rfc7396(result.get(name), value)
    return result


@given(_objects, _objects)
def test_one_patch_is_rfc_7396(args: dict[str, Any], patch: Any) -> None:
    expected = _rfc7396(args, patch)
    try:
        assert merge(args, [("p", patch)], ROOTS) == expected
    except PatchError:
        assert expected == args


def test_a_decimal_that_no_json_number_holds_is_refused_not_rounded() -> None:
    with pytest.raises(PatchError, match=r"922337203685477\.5807, which no JSON number holds") as caught:
        plain({"__extn": {"fn": "decimal", "arg": "922337203685477.5807"}})
    assert caught.value.code == "patch_invalid"
    assert plain({"__extn": {"fn": "decimal", "arg": "12.3400"}}) == 12.34


def test_a_fraction_beside_an_integer_that_no_double_holds_is_no_change_to_make() -> None:
    with pytest.raises(PatchError, match="has no canonical result") as found:
        merge({"amount": 2**62}, [("half", {"rate": 0.5})], {})
    assert found.value.code == "patch_invalid"
