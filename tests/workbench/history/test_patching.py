"""Patches over leaves make what the runtime's merge makes, in its order of refusals, or are handed over.

`folding` holds every row that is not handed over against the row engine, in all columns, texts of reasons included.
"""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.canonical import NotCanonical, canonical
from workbench.history.patching import Write, writes_of
from workbench.history.references import NotSimple, quoted

ORDERS = [{"order_id": f"o{n}"} for n in (1, 2, 3, 4, 9)]


def args_of(row: dict[str, Any]) -> dict[str, Any]:
    found = json.loads(row["enforced_args"])
    assert isinstance(found, dict)
    return found


# What is written


@pytest.mark.parametrize(
    "patch",
    [
        {"amount": 7, "note": 'it\'s "é"\n'},
        {"rate": 12.5},
        {"rate": "0.0001"},
        {"price": 9.99},
        {"tags": ["b", "a"]},
        {"who": "ana"},
        {"note": None, "rate": None},
        {"box": {"size": 3}},
        {"box": {"size": None}},
        {"opts": {"fast": True}},
        {"opts": {"label": None}},
        {"opts": {"deep": {"n": 1}}},
        {"opts": {"deep": {"n": None}}},
        {"opts": {"deep": None}},
        {"opts": None},
    ],
)
def test_constants_and_removals(folding: Any, modify: Any, patch: Any) -> None:
    rows: list[dict[str, Any]] = [
        {},
        {"note": "x", "rate": 1.5, "price": 3, "tags": [], "who": "bo", "box": {"size": 1}},
        {"opts": {}, "odd": {"must": {}}},
        {"opts": {"fast": False, "label": "l", "deep": {}}, "odd": {"must": {"n": 2}, "x": 1}},
        {"opts": {"deep": {"n": 5}}},
    ]
    found = folding(modify("m", {"amount": 6} | patch, "context.args.amount == 5"))(*rows)
    assert {row["reason_code"] for row in found} == {"modified"}


@pytest.mark.parametrize(
    ("target", "ref"),
    [
        ("amount", "context.order.refundable"),
        ("note", "context.order.owner"),
        ("rate", "context.order.rate"),
        ("price", "context.order.refundable"),
        ("who", "context.order.agent"),
        ("amount", "principal.level"),
        ("rate", "principal.cap"),
        ("who", "principal.boss"),
        ("note", "resource.owner"),
        ("note", "context.now"),
        ("note", "context.tenant"),
        ("amount", "context.session.calls"),
        ("price", "context.args.amount"),
        ("note", "context.order.nothing"),
    ],
)
def test_references_to_scalars(folding: Any, modify: Any, target: str, ref: str) -> None:
    when = {"amount": "context.args.amount == 5", "price": "!(context.args has price_cents)"}
    made = folding(modify("m", {target: {"$ref": ref}}, when.get(target, f"!(context.args has {target})")))
    found = [*made(*ORDERS), *made(*ORDERS, principal="new")]
    codes = {row["reason_code"] for row in found if row["status"] == "decided"}
    assert codes <= {"modified", "patch_unresolved", "patch_invalid"}
    assert ("modified" in codes) == (ref != "context.order.nothing")
    if ref == "context.order.nothing":
        assert {row["status"] for row in found} == {"handed_over"}


def test_a_reference_to_a_bool_is_a_bool(folding: Any, modify: Any) -> None:
    found = folding(
        modify("m", {"opts": {"fast": {"$ref": "context.order.flag"}}}, "!(context.args has opts)")
    )(*ORDERS)
    assert [row["reason_code"] for row in found] == [
        "modified",
        *["patch_unresolved"] * 1,
        "modified",
        *["patch_unresolved"] * 2,
    ]
    assert [args_of(row)["opts"] for row in found if row["enforced_args"]] == [
        {"fast": True},
        {"fast": False},
    ]


def test_a_decimal_becomes_a_number(folding: Any, modify: Any) -> None:
    found = folding(modify("m", {"rate": {"$ref": "context.order.rate"}}, "!(context.args has rate)"))(
        *ORDERS
    )
    assert [row["enforced_args"] and args_of(row)["rate"] for row in found] == [2.5, -0.05, 7, None, None]
    # No double holds 922337203685477.5807: whether it does is the row engine's to say.
    assert [row["status"] for row in found] == ["decided"] * 3 + ["handed_over", "decided"]


# What is refused, in the runtime's order


def test_an_absent_reference_is_unresolved_before_anything_conflicts(folding: Any, modify: Any) -> None:
    policies = modify("a", {"amount": 1, "note": "x"}) + modify("b", {"amount": {"$ref": "principal.level"}})
    (here,) = folding(policies)({})
    assert here["reason"] == "patches of `a` and `b` write different values to `amount`"
    (absent,) = folding(policies)({}, principal="new")
    assert absent["reason"] == "patch of `b` refers to `principal.level`, which is absent here"


def test_the_first_conflict_is_named(folding: Any, modify: Any) -> None:
    policies = (
        modify("a", {"amount": {"$ref": "context.order.refundable"}, "opts": {"label": "x"}})
        + modify("b", {"amount": 100, "opts": None})
        + modify("c", {"amount": {"$ref": "context.session.calls"}})
    )
    found = folding(policies)(*ORDERS)
    assert [row["reason_code"] for row in found] == ["patch_conflict"] * 4 + ["patch_unresolved"]
    assert {row["reason"].rpartition(" ")[2] for row in found[:4]} == {"`amount`", "`opts`"}


def test_a_conflict_is_with_the_first_that_writes(folding: Any, modify: Any) -> None:
    (row,) = folding(modify("a", {"amount": 1}) + modify("b", {"amount": 1}) + modify("c", {"amount": 2}))({})
    assert row["reason"] == "patches of `a` and `c` write different values to `amount`"


def test_equal_writes_do_not_conflict(folding: Any, modify: Any) -> None:
    policies = modify("a", {"amount": 100}, "context.args.amount != 100") + modify(
        "b", {"amount": {"$ref": "context.order.refundable"}}, "context.args.amount != 100"
    )
    found = folding(policies)(*ORDERS[:3])
    assert [row["reason_code"] for row in found] == ["modified", "patch_conflict", "patch_conflict"]


def test_patches_of_one_policy_go_side_by_side(folding: Any, modify: Any) -> None:
    policies = modify("a", {"opts": {"fast": True}}, "!(context.args has note)") + modify(
        "b", {"opts": {"label": "x"}, "note": "n"}, "!(context.args has note)"
    )
    (row,) = folding(policies)({})
    assert args_of(row) == {
        "amount": 5,
        "box": {},
        "note": "n",
        "opts": {"fast": True, "label": "x"},
        "order_id": "o1",
    }


def test_a_patch_that_changes_nothing_is_invalid(folding: Any, modify: Any) -> None:
    policies = modify("a", {"note": None}) + modify("b", {"amount": 5})
    found = folding(policies)({}, {"note": "x"}, {"amount": 6})
    assert found[0]["reason"] == "patch of `a`, `b` changes nothing"
    assert [row["reason_code"] for row in found] == [
        "patch_invalid",
        "patch_insufficient",
        "patch_insufficient",
    ]


# What is handed over


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ({"order_id": "o2"}, "the key of a fact"),
        ({"nothing": 1}, "no declared leaf"),
        ({"price_cents": 1}, "no declared leaf"),
        ({"note": {"deep": 1}}, "no declared leaf"),
        ({"opts": 1}, "no declared leaf"),
        ({"box": None}, "no declared leaf"),
        ({"opts": {}}, "empty object"),
        ({"odd": {"x": 1}}, "holds a required one"),
        ({"tags": [{"$ref": "context.order.owner"}]}, "inside an array"),
        ({"note": {"$ref": "context.order.when"}}, "not known"),
        ({"note": {"$ref": "context.order"}}, "no scalar"),
    ],
)
def test_what_is_not_simple_is_handed_over_with_the_reason(
    folding: Any, modify: Any, patch: Any, why: str
) -> None:
    found = folding(modify("m", patch, "context.args.amount > 5"))({"amount": 6}, {"amount": 5})
    assert [row["status"] for row in found] == ["handed_over", "decided"]
    assert why in found[0]["why"]


def test_arguments_that_leaves_do_not_say_are_handed_over(folding: Any, modify: Any) -> None:
    found = folding(modify("m", {"amount": 1}))({"opts": None}, {"note": None}, {"note": "x"})
    assert [row["status"] for row in found] == ["handed_over", "decided", "decided"]


@pytest.mark.parametrize(
    ("patch", "here", "over"),
    [
        ({"amount": 2**62}, {"rate": 0.5}, True),
        ({"amount": 2**62}, {"rate": 5, "note": "0.5"}, False),
        ({"rate": 0.5}, {"amount": 2**62}, True),
        ({"rate": {"$ref": "context.order.rate"}}, {"amount": 2**62}, True),
        ({"rate": 0.5}, {"amount": 6, "note": "4611686018427387904"}, False),
        ({"amount": {"$ref": "context.order.refundable"}}, {"order_id": "o2", "price": 0.25}, True),
        ({"note": "0.5"}, {"amount": 2**62}, False),
    ],
)
def test_a_float_beside_a_long_integer_is_handed_over(
    folding: Any, modify: Any, patch: Any, here: dict[str, Any], *, over: bool
) -> None:
    """Such arguments have no canonical form."""
    (row,) = folding(modify("m", patch, "!(context.args has tags)"))(here)
    assert row["status"] == ("handed_over" if over else "decided")
    assert row["why"] == ("a float beside an integer beyond 2**53" if over else None)


def test_a_name_that_is_not_ascii_beside_a_long_integer_is_handed_over(folding: Any, modify: Any) -> None:
    made = folding(modify("m", {"amount": 2**62}, "context.args.amount < 9"), more='"größe"?: Long,')
    found = made({"größe": 1}, {"amount": 9, "größe": 1})
    assert [row["why"] for row in found] == ["a float beside an integer beyond 2**53", None]
    (row,) = folding(modify("m", {"amount": 8}, "context.args.amount < 7"), more='"größe"?: Long,')(
        {"größe": 1}
    )
    assert args_of(row)["größe"] == 1


def test_the_arguments_of_the_group_stay_as_they_are(folding: Any, modify: Any) -> None:
    made = folding(modify("m", {"amount": 1}, "context.args.amount > 1"))
    made({"amount": 7}, {"amount": 1})
    before = [canonical(dict(request.args)) for request in made.group.requests]
    assert made.group.args.to_list() == before


def test_a_value_is_looked_up_once(folding: Any, modify: Any) -> None:
    ref = {"$ref": "context.order.refundable"}
    made = folding(modify("a", {"amount": ref}, "context.args.amount > 6") + modify("b", {"price": ref}))
    made({"amount": 6}, {"amount": 7}, {"amount": 8})
    assert made.group.asked == [("context", ("order", "refundable"))]


# Parts


def test_writes_are_the_leaves_of_a_patch_in_order() -> None:
    patch: Any = {"b": {"c": None, "a": [1, {"x": None}]}, "a": {"$ref": "context.x.y"}}
    assert list(writes_of("p", patch)) == [
        Write("p", ("b", "c"), "null", None),
        Write("p", ("b", "a"), '[1,{"x":null}]', None),
        Write("p", ("a",), None, "context.x.y"),
    ]


@pytest.mark.parametrize(
    "patch", [None, 1, {}, {"a": {}}, {"$ref": "context.x"}, {"a": [{"$ref": "context.x"}]}]
)
def test_what_is_no_list_of_writes_is_refused(patch: Any) -> None:
    with pytest.raises(NotSimple):
        list(writes_of("p", patch))


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]))))
def test_texts_are_quoted_as_canonical_json_does(texts: list[str | None]) -> None:
    found = quoted(pl.Series(texts, dtype=pl.String)).to_list()
    assert found == [None if text is None else canonical(text) for text in texts]


# Any combination


def _has_a_form(row: dict[str, Any]) -> bool:
    try:
        return bool(canonical(row))
    except NotCanonical:
        return False


_ANY = st.sampled_from([None, 0, "x", True, 2.5, ["a"]])


def _refs(*paths: str) -> st.SearchStrategy[Any]:
    return st.sampled_from([{"$ref": path} for path in paths])


_LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "amount": st.sampled_from([0, 5, 2**53 + 1]) | _refs("context.order.refundable", "principal.level"),
    "note": st.sampled_from([None, "x", ""]) | _refs("context.order.owner", "resource.owner"),
    "rate": st.sampled_from([None, 2.5, 7, "0.50"]) | _refs("context.order.rate", "context.order.refundable"),
    "price": st.sampled_from([None, 0.25, 1]) | _refs("principal.level", "context.order.rate"),
    "tags": st.sampled_from([None, [], ["a"]]),
    "box": st.fixed_dictionaries({"size": st.sampled_from([None, 5]) | _refs("principal.level")}),
    "opts": st.none()
    | st.dictionaries(st.sampled_from(["fast", "label"]), st.none(), min_size=1)
    | st.fixed_dictionaries({"label": st.sampled_from(["x", "y"])}, optional={"fast": st.just(value=True)}),
}
_PATCH = st.lists(st.sampled_from(sorted(_LEAVES)), min_size=1, max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries(
        {name: st.one_of(*[_LEAVES[name]] * 8, _ANY) if name != "box" else _LEAVES[name] for name in names}
    ).filter(_has_a_form)
)
_WHEN = st.sampled_from(
    [
        "true",
        "context.args.amount > 5",
        "context.args.amount > 5",
        "context.args has note",
        "context.args has note && context.args.note == context.tenant",
        "!(context.args has opts)",
        'context.args has opts && context.args.opts has label && context.args.opts.label == "y"',
        'context.args has opts && context.args.opts has label && context.args.opts.label == "x"',
        "context has order && context.order.refundable < context.args.amount",
        "context.args.amount + 9223372036854775700 > 0",
        "!(context.args has rate)",
        "context.args has tags && context.args.tags.isEmpty()",
    ]
)
_ROW = st.fixed_dictionaries(
    {"order_id": st.sampled_from(["o1", "o2", "o3", "o4", "none"])},
    optional={
        "amount": st.sampled_from([-1, 0, 5, 6, 7, 100, 2**53 + 1]),
        "note": st.sampled_from(["", "acme", 'q"\\']),
        "rate": st.sampled_from([0, 2.5, "2.50", 7]),
        "price": st.sampled_from([0, 1, 0.25]),
        "tags": st.sampled_from([[], ["a"], ["b", "a"]]),
        "box": st.sampled_from([{}, {"size": 5}]),
        "opts": st.sampled_from([{}, {"fast": True}, {"label": "x"}, {"label": "y"}, {"deep": {}}]),
    },
)


_UNDONE = {
    "amount": "context.args.amount > 5",
    "note": 'context.args has note && context.args.note == "acme"',
    "rate": "!(context.args has rate)",
    "price": "context.args has price_cents && context.args.price_cents == 0",
    "tags": 'context.args has tags && context.args.tags.contains("b")',
    "box": "!(context.args.box has size)",
    "opts": "context.args has opts && !(context.args.opts has label)",
}
"""What a write to the member is likely to make false."""


@st.composite
def _modifies(draw: st.DrawFn) -> tuple[Any, str]:
    patch = draw(_PATCH)
    return patch, draw(_WHEN) if draw(st.integers(0, 4)) == 0 else _UNDONE[
        draw(st.sampled_from(sorted(patch)))
    ]


@st.composite
def _policies(draw: st.DrawFn, modify: Any) -> str:
    made = [
        modify(f"m{n}", patch, when)
        for n, (patch, when) in enumerate(draw(st.lists(_modifies(), min_size=1, max_size=3)))
    ]
    for n, head in enumerate(
        draw(st.lists(st.sampled_from(["forbid", '@verdict("approve") forbid', "permit"]), max_size=2))
    ):
        made.append(f'@id("x{n}") {head} (principal, action, resource) when {{ {draw(_WHEN)} }};\n')
    return '@id("permit") permit (principal, action, resource);\n' + "".join(made)


@given(st.data())
def test_any_patches_of_any_rows(folding: Any, modify: Any, data: st.DataObject) -> None:
    policies = data.draw(_policies(modify))
    rows = data.draw(st.lists(_ROW.filter(_has_a_form), min_size=1, max_size=12))
    folding(policies)(*rows, principal=data.draw(st.sampled_from(["bot", "new"])))
