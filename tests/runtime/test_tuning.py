"""`@tune`: what may be declared, which literal is meant, and what another value makes of the bundle."""

from __future__ import annotations

import json
from typing import Any

import cedarpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.bundle import Bundle, bundle_from_files
from runtime.errors import PolicyError, PolicySchemaError
from runtime.literals import conditions, quoted, sites
from runtime.tunables import Tunable
from runtime.tuning import tuned

SCHEMA = """
entity Agent in [Role] { level?: Long };
entity Role;
entity Order { limit?: Long };
action pay appliesTo { principal: [Agent], resource: [Order], context: { args: {
  cents: Long, much: decimal, wait: duration, day: datetime, from: ipaddr, note?: String, sure?: Bool } } };
"""
OK = '@id("ok") permit (principal, action, resource);\n'


def annotation(declared: Any) -> str:
    """Write a `@tune` as a person would."""
    text = declared if isinstance(declared, str) else json.dumps(declared)
    return "@tune(" + json.dumps(text, ensure_ascii=False) + ")"


def forbid(body: str, declared: Any, ident: str = "f") -> str:
    return (
        f'@id("{ident}")\n{annotation(declared)}\nforbid (principal, action, resource) when {{ {body} }};\n'
    )


def bundle(*policies: str, **files: str) -> Bundle:
    texts = {"schema.cedarschema": SCHEMA, "p.cedar": OK + "".join(policies)} | files
    return bundle_from_files(texts, "b")


def one(body: str, **declared: Any) -> Bundle:
    """A bundle with one tunable, `limit`."""
    return bundle(forbid(body, {"limit": declared}))


def loads_the_same(found: Bundle) -> None:
    """What `tuned` gives is what loading its files gives, in everything."""
    again = bundle_from_files(found.files, found.name)
    assert again == found
    assert again.document == found.document
    assert list(again.policies) == list(found.policies)
    assert list(again.tunables) == list(found.tunables)


KINDS = [
    ("context.args.cents > 5000", 5000, 70, "Long", "context.args.cents > 70"),
    ("context.args.cents > -5", -5, 7, "Long", "context.args.cents > 7"),
    ("context.args.cents - 5 > 9", 5, -7, "Long", "context.args.cents - -7 > 9"),
    ("context.args.cents > - /* */ 5".replace("/* */", "// no\n"), -5, 7, "Long", "context.args.cents > 7"),
    ("--5 > context.args.cents", -5, 7, "Long", "-(7) > context.args.cents"),
    ("context.args.cents > 5", 5, -(2**63), "Long", "context.args.cents > -9223372036854775808"),
    ("context.args.cents > 007", 7, 8, "Long", "context.args.cents > 8"),
    (
        'context.args.much.greaterThan(decimal("10.00"))', "10.00", "0.5", "decimal",
        'context.args.much.greaterThan(decimal("0.5"))',
    ),
    ('context.args.wait > duration("1h")', "1h", "2d", "duration", 'context.args.wait > duration("2d")'),
    (
        'context.args.day > datetime("2026-11-22")', "2026-11-22", "2027-01-01T00:00:00Z", "datetime",
        'context.args.day > datetime("2027-01-01T00:00:00Z")',
    ),
    (
        'context.args.from.isInRange(ip("10.0.0.0/8"))', "10.0.0.0/8", "::1", "ipaddr",
        'context.args.from.isInRange(ip("::1"))',
    ),
    (
        'context.args has note && context.args.note == "é\\"x"', 'é"x', "\n\\\0ü\u202e", "String",
        'context.args has note && context.args.note == "\\n\\\\\\0ü\\u{202e}"',
    ),
    ("context.args.cents > 3 && true", True, False, "Bool", "context.args.cents > 3 && false"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "old", "new", "kind", "after"), KINDS)
def test_a_literal_of_each_kind_is_found_and_replaced(
    body: str, old: Any, new: Any, kind: str, after: str
) -> None:
    loaded = one(body, value=old)
    (tunable,) = loaded.tunables.values()
    assert (tunable.key, tunable.kind, tunable.value) == ("f.limit", kind, old)
    assert (tunable.file, tunable.line) == ("p.cedar", 2)
    found = tuned(loaded, {"limit": new})
    assert f"when {{ {after} }};" in found.files["p.cedar"]
    assert found.tunables["f.limit"].value == new
    assert found.version != loaded.version
    loads_the_same(found)
    assert tuned(found, {"limit": old}).tunables == loaded.tunables


def test_the_text_is_changed_where_it_must_be_and_nowhere_else() -> None:
    text = r"""// 5000 is in a comment
@id("big") @doc("at 5000")
@tune ( // as one likes
  "{ \"limit\" : {\"max\": 20000, \u{22}value\":5000 , \"min\": 0},\n \"word\": {\"value\": \"no\"} }"
)
forbid (principal, action, resource == Order::"5000")
when { // 5000
  context.args.cents   >=   5000 // cents, 5000
  && !(context.args has note && context.args["note"] like "5000*") }
unless { context.args has note && context.args.note == "no" }; // 5000
"""
    loaded = bundle(text)
    found = tuned(loaded, {"limit": 3000, "big.word": "yes"})
    expected = (
        (OK + text)
        .replace(">=   5000", ">=   3000")
        .replace('== "no"', '== "yes"')
        .replace(r"value\":5000 ,", r"value\":3000 ,")
        .replace(r"{\"value\": \"no\"}", r"{\"value\": \"yes\"}")
    )
    assert found.files == {**loaded.files, "p.cedar": expected}
    assert (found.name, found.context_spec_hash, found.limits_hash) == ("b", *_other_hashes(loaded))
    loads_the_same(found)
    assert tuned(found, {"limit": 5000, "word": "no"}) == loaded


def _other_hashes(loaded: Bundle) -> tuple[str, str]:
    return loaded.context_spec_hash, loaded.limits_hash


def test_the_same_value_changes_nothing() -> None:
    loaded = one("context.args.cents > 5", value=5)
    assert tuned(loaded, {"limit": 5}) == loaded
    assert tuned(loaded, {}) == loaded


def test_a_tuned_bundle_decides_by_its_value() -> None:
    loaded = one("context.args.cents > 5", value=5)
    for limit in (5, 50):
        found = tuned(loaded, {"limit": limit})
        assert [_asked(found, cents) for cents in (5, 6, 50, 51)] == [
            cents <= limit for cents in (5, 6, 50, 51)
        ]


def _asked(found: Bundle, cents: int) -> bool:
    values = {
        "much": ("decimal", "1.0"),
        "wait": ("duration", "1h"),
        "day": ("datetime", "2026-01-01"),
        "from": ("ip", "::1"),
    }
    args = {name: {"__extn": {"fn": call, "arg": text}} for name, (call, text) in values.items()}
    request = {
        "principal": 'Agent::"a"',
        "action": 'Action::"pay"',
        "resource": 'Order::"o"',
        "context": {"args": {"cents": cents, **args}},
    }
    return cedarpy.is_authorized(request, found.policy_set, "[]").allowed


def test_values_of_numpy_and_of_subclasses_are_taken() -> None:
    loaded = one("context.args.cents > 5", value=5)
    assert tuned(loaded, {"limit": np.int64(7)}) == tuned(loaded, {"limit": 7})


NO_LITERALS = (
    'context.args has note && context.args.note like "x"',
    'context.args.note == "y" && context["args"] has "x"',
    'Agent::"x" == principal',
    '{"x": 1} == {"y": 1}',
    '"y" == "y" // "x"\n',
    'context.args.note like "x\\*"',
)


@pytest.mark.parametrize("body", NO_LITERALS)
def test_patterns_names_ids_and_comments_are_no_literals(body: str) -> None:
    assert sites(f"permit (principal, action, resource) when {{ {body} }};", "x") == ()


def test_true_is_not_one_and_a_minus_between_two_is_no_sign() -> None:
    text = "permit (principal, action, resource) when { [true, 1, 2 - 1, -1, - 1, --1].contains(1) };"
    assert len(sites(text, value=True)) == 1
    assert len(sites(text, 1)) == 3
    assert [text[site.start : site.end] for site in sites(text, -1)] == ["-1", "- 1", "-1"]
    assert (
        sites('permit (principal, action, resource) when { {"decimal": "1.0"} == {} };', "1.0")[0].kind
        == "String"
    )


MISTAKES: dict[str, tuple[str, Any, str]] = {
    "no json": ("1 > 2", "{", "`@tune` is not JSON"),
    "a member twice": ("1 > 2", '{"a": {"value": 1, "value": 2}}', "same member twice"),
    "no object": ("1 > 2", [1], "must be a JSON object by name"),
    "nothing in it": ("1 > 2", {}, "must be a JSON object by name"),
    "a name with a dot": ("1 > 2", {"a.b": {"value": 1}}, "a name is made of letters"),
    "no value": ("1 > 2", {"a": {"min": 1}}, "must be an object with `value`"),
    "a bare value": ("1 > 2", {"a": 1}, "must be an object with `value`"),
    "a misspelt member": ("1 > 2", {"a": {"value": 1, "maxx": 2}}, "did you mean `max`?"),
    "an unknown member": ("1 > 2", {"a": {"value": 1, "step": 2}}, "unknown member `step`, it may have value, min"),
    "a float": ("1 > 2", {"a": {"value": 1.5}}, 'such as "10.50" for `decimal("10.50")`'),
    "beyond 64 bits": ("1 > 2", {"a": {"value": 2**63}}, "write it as the literal stands"),
    "a lone surrogate": ("1 > 2", '{"a": {"value": "\\ud800"}}', "write it as the literal stands"),
    "nowhere": ("1 > 2", {"a": {"value": 3}}, "3, which must stand exactly once as a literal in the policy's conditions, but stands there 0 times"),
    "twice": ("1 > 2 || 1 > 3", {"a": {"value": 1}}, "stands there 2 times; tell which"),
    "a bool for a number": ("1 > 2", {"a": {"value": True}}, "stands there 0 times"),
    "another text of the same number": ('decimal("1.0") == decimal("2.0")', {"a": {"value": "1.00"}}, "0 times"),
    "at beyond": ("1 > 2", {"a": {"value": 1, "at": 2}}, "says `at` 2, but 1 stands 1 times"),
    "at no number": ("1 > 2", {"a": {"value": 1, "at": "1"}}, 'has `at` "1"'),
    "two names": ("1 > 2", {"a": {"value": 1}, "b": {"value": 1}}, "names `a` and `b` stand for one literal, 1"),
    "below": ("1 > 2", {"a": {"value": 1, "min": 2}}, "cannot be 1; it must be a Long of at least 2"),
    "above": ("1 > 2", {"a": {"value": 1, "max": 0}}, "a Long of at most 0"),
    "a decimal above": ('decimal("9.5") == decimal("10.0")', {"a": {"value": "10.0", "max": "9.6"}}, "the text of a decimal of at most"),
    "not a choice": ("1 > 2", {"a": {"value": 1, "choices": [2, 3]}}, "a Long, one of 2, 3"),
    "no choices": ("1 > 2", {"a": {"value": 1, "choices": []}}, "list of values that are allowed"),
    "a choice of another type": ("1 > 2", {"a": {"value": 1, "choices": [1, "2"]}}, 'has "2" in `choices`, which is no Long'),
    "a bound of another type": ("1 > 2", {"a": {"value": 1, "min": 0.5}}, "has 0.5 in `min`, which is no Long"),
    "a bound that is no decimal": ('decimal("1.0") == decimal("2.0")', {"a": {"value": "1.0", "max": "x"}}, 'has "x" in `max`, which is no decimal'),
    "an order where there is none": ('"a" == "b"', {"a": {"value": "a", "min": "a"}}, "a String has no order; use `choices`"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_file_line_policy_and_way_out(name: str) -> None:
    body, declared, hint = MISTAKES[name]
    with pytest.raises(PolicyError) as caught:
        bundle(forbid(body, declared))
    assert hint in str(caught.value)
    assert str(caught.value).startswith("p.cedar:2: policy `f`: ")
    assert (caught.value.file, caught.value.line, caught.value.policy) == ("p.cedar", 2, "f")
    assert not str(caught.value).endswith(".")


REFUSED: list[tuple[dict[str, Any], dict[str, object], str]] = [
    ({"value": 5, "min": 0, "max": 9}, {"limit": 10}, "cannot be 10; it must be a Long of at least 0 and at most 9"),
    ({"value": 5, "min": 0, "max": 9}, {"limit": -1}, "cannot be -1"),
    ({"value": 5}, {"limit": True}, "cannot be true; it must be a Long"),
    ({"value": 5}, {"limit": "7"}, 'cannot be "7"; it must be a Long'),
    ({"value": 5}, {"limit": 7.0}, "cannot be 7.0; it must be a Long; Cedar has no floats"),
    ({"value": 5}, {"limit": 2**63}, "cannot be 9223372036854775808"),
    ({"value": 5}, {"limit": None}, "cannot be None"),
    ({"value": 5, "choices": [5, 7]}, {"limit": 6}, "one of 5, 7"),
    ({"value": 5}, {"lmit": 6}, "has no tunable `lmit`; did you mean `limit`?"),
    ({"value": 5}, {"other.x": 6}, "has no tunable `other.x`; it has `f.limit`"),
    ({"value": 5}, {"limit": 6, "f.limit": 7}, "`f.limit` is given twice"),
]  # fmt: skip


@pytest.mark.parametrize(("declared", "values", "hint"), REFUSED)
def test_a_value_that_is_not_allowed_is_refused(
    declared: dict[str, Any], values: dict[str, object], hint: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        tuned(one("context.args.cents > 5", **declared), values)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("5", "the text of a decimal"),
        ("1.23456", "the text of a decimal"),
        (1.5, 'write "1.5" in quotes'),
        ("100.1", "at most"),
        ("\ud800", "the text of a decimal"),
    ],
)
def test_a_text_that_is_no_decimal_is_refused(value: object, hint: str) -> None:
    loaded = one('context.args.much == decimal("10.00")', value="10.00", max="100.0")
    with pytest.raises(PolicyError, match=hint):
        tuned(loaded, {"limit": value})
    assert tuned(loaded, {"limit": "100.0000"}).tunables["f.limit"].value == "100.0000"


def test_a_bundle_without_tunables_says_how_to_declare_one() -> None:
    with pytest.raises(PolicyError, match=r"it has none; declare one above its policy, such as `@tune"):
        tuned(bundle(), {"limit": 1})


def test_a_name_of_several_policies_must_say_which() -> None:
    both = bundle(
        forbid("context.args.cents > 5", {"limit": {"value": 5}}, "one"),
        forbid("context.args.cents > 5", {"limit": {"value": 5}}, "two"),
    )
    with pytest.raises(
        PolicyError, match=r"in several policies of bundle 'b'; say which: `one\.limit`, `two\.limit`"
    ):
        tuned(both, {"limit": 6})
    found = tuned(both, {"two.limit": 6, "one.limit": 4})
    assert {key: tunable.value for key, tunable in found.tunables.items()} == {"one.limit": 4, "two.limit": 6}
    loads_the_same(found)


def test_equal_literals_are_told_apart_by_at() -> None:
    text = forbid(
        "context.args.cents > 5 && context.args.cents < 9", {"low": {"value": 5}, "high": {"value": 9}}
    )
    loaded = bundle(text)
    met = tuned(loaded, {"high": 5})
    assert "context.args.cents > 5 && context.args.cents < 5" in met.files["p.cedar"]
    assert {name: tunable.at for name, tunable in met.tunables.items()} == {"f.low": 1, "f.high": 2}
    loads_the_same(met)
    swapped = tuned(loaded, {"high": 5, "low": 9})
    assert "context.args.cents > 9 && context.args.cents < 5" in swapped.files["p.cedar"]
    for found in (met, swapped, tuned(met, {"low": 7})):
        assert tuned(found, {"low": 5, "high": 9}) == loaded


def test_at_is_kept_where_it_is_needed_whatever_its_place() -> None:
    declared = '{"x": {"at": 2, "value": 5}}'
    loaded = bundle(forbid("context.args.cents > 5 && context.args.cents + 5 > 9", declared))
    found = tuned(loaded, {"x": 6})
    assert "cents > 5 && context.args.cents + 6 > 9" in found.files["p.cedar"]
    loads_the_same(found)
    assert tuned(found, {"x": 9}).tunables["f.x"].at == 1
    loads_the_same(tuned(found, {"x": 9}))


LINKS = json.dumps(
    [
        {"template": "t", "id": "t-a", "values": {"?principal": 'Role::"a"'}},
        {"template": "t", "id": "t-b", "values": {"?principal": 'Role::"b"'}},
    ]
)
TEMPLATE = (
    '@id("t") @tune("{\\"limit\\": {\\"value\\": 5}}")\n'
    "forbid (principal in ?principal, action, resource) when { context.args.cents > 5 };\n"
)


def test_a_template_is_tuned_for_all_its_links() -> None:
    loaded = bundle(TEMPLATE, **{"links.json": LINKS})
    found = tuned(loaded, {"t.limit": 7})
    assert [found.policies[link].text for link in ("t-a", "t-b")] == [TEMPLATE.strip().replace("5", "7")] * 2
    loads_the_same(found)


def test_a_template_that_is_not_linked_has_nothing_to_tune_but_is_checked() -> None:
    assert bundle(TEMPLATE).tunables == {}
    with pytest.raises(PolicyError, match="stands there 0 times"):
        bundle(TEMPLATE.replace("> 5", "> 6"))


def test_policies_on_one_line_and_texts_with_line_ends_keep_their_places() -> None:
    two = [
        forbid(
            'context.args has note && context.args.note == "a\nb"', {"word": {"value": "a\nb"}}, "two"
        ).replace("\n@tune", " @tune"),
        forbid("context.args.cents > 5", {"limit": {"value": 5}}, "three").replace("\n", " "),
        forbid("context.args.cents > 5", {"limit": {"value": 5}}, "four").replace("\n", " "),
    ]
    loaded = bundle(*two)
    found = tuned(loaded, {"word": "c", "three.limit": 6, "four.limit": 77777})
    assert found.policies["four"].line == loaded.policies["four"].line - 1
    loads_the_same(found)
    loads_the_same(tuned(loaded, {"three.limit": 6, "four.limit": 77777}))


def test_a_commented_copy_of_a_policy_stays_as_it_is() -> None:
    line = forbid("context.args.cents > 5", {"limit": {"value": 5}}).replace("\n", " ").strip()
    loaded = bundle(f"// {line}\n{line}\n// {line}\n")
    found = tuned(loaded, {"limit": 6})
    assert found.files["p.cedar"].splitlines()[1:] == [
        f"// {line}",
        line.replace("> 5", "> 6").replace(": 5", ": 6"),
        f"// {line}",
    ]
    loads_the_same(found)


def test_a_value_that_cedar_s_validator_refuses_is_refused() -> None:
    loaded = one("true || context.args.nothing", value=True)
    with pytest.raises(PolicySchemaError, match="nothing"):
        tuned(loaded, {"limit": False})


def test_tunables_are_values() -> None:
    (found,) = one("context.args.cents > 5", value=5, choices=[5, 6]).tunables.values()
    assert found == Tunable(
        name="limit", policy="f", kind="Long", value=5, choices=(5, 6), file="p.cedar", line=2
    )


NUMBERS = st.one_of(st.integers(-9, 9), st.sampled_from((2**63 - 1, -(2**63), 5000)))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
VALUES = st.one_of(NUMBERS, TEXTS, st.booleans())


def written(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else json.dumps(value)


FORMS: dict[type, tuple[str, ...]] = {
    int: ("{} == context.args.cents", "1 - {} > 2", "-{} < 3", "2 *({})> 1", "{}-1==0", "[{}].contains(4)"),
    str: ('{} == "x"', '"{{}}" == {}', '[{}].contains("")', '{{"{{}}": {}}} == {{"{{}}": ""}}'),
    bool: ("{} == (context.args.cents > 3)", "!({} == true)"),
}


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, Any, Any]:
    """Draw a condition with some literals, one of them, and another value for it."""
    values = draw(st.lists(VALUES, min_size=1, max_size=6))
    parts = [draw(st.sampled_from(FORMS[type(value)])).format(written(value)) for value in values]
    old = draw(st.sampled_from(values))
    kinds = {bool: st.booleans(), str: TEXTS, int: NUMBERS}
    return " || ".join(parts).replace("--9223372036854775808", "-1"), old, draw(kinds[type(old)])


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(made=bodies(), data=st.data())
def test_one_literal_changes_and_cedar_reads_the_rest_as_before(
    made: tuple[str, Any, Any], data: st.DataObject
) -> None:
    """Any value for any literal: the changed file loads, and tuning back gives the policy there was."""
    body, old, new = made
    places = len(sites(f"forbid (principal, action, resource) when {{ {body} }};", old))
    if not places:  # `-` before it made it another literal
        return
    at = {"at": data.draw(st.integers(1, places))} if places > 1 else {}
    loaded = bundle(forbid(body, {"x": {"value": old} | at}))
    found = tuned(loaded, {"x": new})
    loads_the_same(found)
    assert found.tunables["f.x"].value == new
    before, after, back = (
        json.dumps(conditions(each.policies["f"].text)) for each in (loaded, found, tuned(found, {"x": old}))
    )
    assert (before == after) == (old == new)
    assert before == back
