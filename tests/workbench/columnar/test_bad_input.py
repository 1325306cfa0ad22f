"""What Cedar refuses is never decided here: odd names, odd values of every type, nesting, absent things.

Handing over more than Cedar refuses is allowed, and named; deciding what it refuses is not.
"""

from __future__ import annotations

import json
from typing import Any

import cedarpy
import pytest

from runtime.entities import Entity, EntityUid, Slice
from runtime.policy import Case
from runtime.schema import parse_schema
from workbench.columnar import decide_cases, policy_tree
from workbench.errors import UnsupportedPolicy

ANN, VIEW, DOC = EntityUid("U", "ann"), EntityUid("Action", "view"), EntityUid("D", "doc")
EVERYTHING = cedarpy.PolicySet.from_str("permit(principal, action, resource);")


def ours(case: Case, schema: str | None = None, policies: cedarpy.PolicySet = EVERYTHING) -> str:
    found = decide_cases([case], policies, schema=None if schema is None else parse_schema(schema))
    return "NoDecision" if found.handed_over else found.answer(0).decision


def cedar(case: Case, schema: str | None = None, policies: cedarpy.PolicySet = EVERYTHING) -> str:
    uids = {"principal": case.principal, "action": case.action, "resource": case.resource}
    request = {**{n: uid.json() for n, uid in uids.items()}, "context": json.dumps(case.context)}
    entities = json.dumps([each.json() for each in case.slice.entities])
    try:
        handle = None if schema is None else cedarpy.Schema.from_str(schema)
        return cedarpy.is_authorized(request, policies, entities, handle).decision.value
    except ValueError:  # not Unicode
        return "NoDecision"


def nested(levels: int, *, record: bool) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value} if record else [value]
    return value


GOOD_TYPES = ("U", "A::B", "_", "_a1", "Action", "principal", "permit", "Set", "Long", "ip", "when")
BAD_TYPES = (
    *("", "1x", "if", "in", "is", "has", "like", "then", "else", "true", "false", "__cedar", "__cedar::Long"),
    *("A::__cedar", "A::if", "A::", "::A", "A B", "A ::B", "A\n", " A", "é", "A-b", "\ud800", "A:B"),
)


@pytest.mark.parametrize("name", [*GOOD_TYPES, *BAD_TYPES], ids=ascii)
def test_names_of_entity_types(name: str) -> None:
    uid = EntityUid(name, "x")
    named: Any = {"__entity": uid.json()}
    cases = [
        Case(uid, VIEW, DOC, {}, Slice()),
        Case(ANN, uid, DOC, {}, Slice()),
        Case(ANN, VIEW, DOC, {"v": [named]}, Slice()),
        Case(ANN, VIEW, DOC, {}, Slice((Entity(uid),))),
        Case(ANN, VIEW, DOC, {}, Slice((Entity(ANN, {}, (uid,)),))),
        Case(ANN, VIEW, DOC, {}, Slice((Entity(ANN, {}, (), {"v": named}),))),
    ]
    want = "Allow" if name in GOOD_TYPES else "NoDecision"
    assert [ours(case) for case in cases] == [cedar(case) for case in cases] == [want] * len(cases)


@pytest.mark.parametrize("record", [False, True], ids=["sets", "records"])
@pytest.mark.parametrize("levels", [1, 20, 95, 125, 126, 127, 130, 300, 700])
def test_nesting(levels: int, record: bool) -> None:
    value = nested(levels, record=record)
    of_context = Case(ANN, VIEW, DOC, {"v": value}, Slice())
    of_entity = Case(ANN, VIEW, DOC, {}, Slice((Entity(ANN, {"v": value}),)))
    for case in (of_context, of_entity):
        assert ours(case) in {"NoDecision", cedar(case)}
        assert levels > 100 or ours(case) == "Allow"


def extn(function: str, *args: Any) -> dict[str, Any]:
    return {
        "__extn": {"fn": function, "arg": args[0]} if len(args) == 1 else {"fn": function, "args": list(args)}
    }


SCHEMA = """
entity Color enum ["red", "é"]; entity G in [G] {}; entity U in [G] {{ v?: {type} }} tags {type}; entity D;
action view appliesTo {{ principal: [U], resource: [D], context: {{ v?: {type} }} }};
"""
TYPES = (
    *(
        "Long",
        "Bool",
        "String",
        "decimal",
        "ipaddr",
        "datetime",
        "duration",
        "U",
        "Color",
        "Set<Long>",
        "Set<U>",
    ),
    *("{ x: Long, y?: String }", "{}", "Set<{ x: Long }>", "Set<decimal>"),
)
VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 10**30, True, False, None, 1.0, 1.5, -0.0, 1e300),
    *("", "1", "1.5", "10.0.0.1", "2024-01-01", "1h", "true", "red", "\u0000", "\ud800", "\U0001f600"),
    *([], [1], [1, 1], ["a"], [True], [None], [[]], [1.5], [{"x": 1}], [{"x": 1, "z": 1}], (1, 2)),
    *(
        {},
        {"x": 1},
        {"x": 1, "y": "a"},
        {"x": None},
        {"x": 1, "y": None},
        {"x": 1, "z": 1},
        {"y": "a"},
        {"": 1},
    ),
    *({"type": "U", "id": "a"}, {"type": "G", "id": "a"}, {"type": "U", "id": 1}, {"type": "U"}, {"id": "a"}),
    *({"type": "U", "id": "a", "x": 1}, {"__entity": {"type": "U", "id": "a"}}, {"__entity": ["U", "a"]}),
    *(
        {"__entity": {"type": "Color", "id": "red"}},
        {"type": "Color", "id": "blue"},
        {"type": "Color", "id": "é"},
    ),
    *(
        {"__entity": {"type": "U", "id": "a"}, "x": 1},
        {"__entity": "U::a"},
        {"__entity": None},
        [{"type": "U", "id": "a"}],
    ),
    *(
        extn("decimal", "1.5"),
        extn("decimal", "1"),
        extn("ip", "::1"),
        extn("ipaddr", "::1"),
        extn("nope", "1"),
    ),
    *(
        extn("datetime", "2024-01-01"),
        extn("duration", "1h"),
        {"fn": "decimal", "arg": "1.5"},
        {"__extn": None},
    ),
    *(extn("decimal", "1.5", "2.5"), {"__extn": {"fn": "decimal", "args": ["1.5"]}}, extn("decimal", 1.5)),
    {"__extn": {"fn": "decimal", "arg": "1.5", "x": 1}},
    extn("offset", extn("datetime", "2024-01-01"), extn("duration", "1h")),
    extn("offset", extn("datetime", "2024-01-01"), extn("duration", "9223372036854775807ms")),
    *(
        {"__expr": "1"},
        {"__e": 1},
        {"x": {"__extn": {"fn": "decimal", "arg": "1.5"}}},
        [extn("decimal", "1.5"), "1.50"],
    ),
)


def of_value(value: Any) -> list[Case]:
    return [
        Case(ANN, VIEW, DOC, {"v": value}, Slice()),
        Case(ANN, VIEW, DOC, {}, Slice((Entity(ANN, {"v": value}),))),
        Case(ANN, VIEW, DOC, {}, Slice((Entity(ANN, {}, (), {"t": value}),))),
    ]


@pytest.mark.parametrize("kind", [None, *TYPES])
def test_values_of_every_type(kind: str | None) -> None:
    """Refused by Cedar, or of another value than Cedar reads: in a context, an attribute and a tag."""
    schema = None if kind is None else SCHEMA.replace("{type}", kind).replace("{{", "{").replace("}}", "}")
    text = """
    permit(principal, action, resource) when { context has v && context.v == context.v };
    permit(principal, action, resource) when { principal has v && [principal.v].contains(principal.v) };
    permit(principal, action, resource) when { principal.hasTag("t") && principal.getTag("t") == principal.getTag("t") };
    """
    policies = cedarpy.PolicySet.from_str(text)
    more = []
    for value in VALUES:
        for case in of_value(value):
            own, told = ours(case, schema, policies), cedar(case, schema, policies)
            assert own in {"NoDecision", told}, value
            more += [value] if own != told else []
    # Handed over though Cedar reads it: what it reads in ways of its own.
    decided = len(VALUES) * 3 - len(more)
    assert decided >= len(VALUES) * 3 - 21, more


def test_an_entity_that_is_in_no_slice_is_decided_as_absent() -> None:
    text = """
    permit(principal, action, resource) when { principal has level };
    permit(principal, action, resource) when { principal.level > 1 };
    permit(principal, action, resource) when { context.who in G::"g" || context.who == principal };
    permit(principal in U::"ann", action in Action::"view", resource == D::"doc");
    """
    cases = [
        Case(ANN, VIEW, DOC, {"who": {"__entity": {"type": "X", "id": "nobody"}}}, Slice()),
        Case(ANN, VIEW, DOC, {"who": {"__entity": dict(ANN.json())}}, Slice((Entity(ANN, {"level": 2}),))),
        Case(EntityUid("Other", "o"), VIEW, DOC, {}, Slice()),
    ]
    found = decide_cases(cases, policy_tree(text), schema=None, strict=True)
    assert [found.answer(row).reasons for row in range(3)] == [
        ("policy3",),
        ("policy0", "policy1", "policy2", "policy3"),
        (),
    ]
    assert [found.answer(row).errors for row in range(3)] == [("policy1",), (), ("policy1", "policy2")]


def test_a_row_that_is_refused_leaves_the_others_alone() -> None:
    good = Case(ANN, VIEW, DOC, {"n": 1}, Slice())
    rows = [
        good,
        Case(ANN, VIEW, DOC, {"n": 1.5}, Slice()),
        good,
        Case(ANN, VIEW, DOC, {"n": None}, Slice()),
        good,
    ]
    found = decide_cases(
        rows,
        cedarpy.PolicySet.from_str("permit(principal, action, resource) when { context.n == 1 };"),
        schema=None,
    )
    assert dict(found.handed_over) == {1: "no Cedar value: '1.5'", 3: "no Cedar value: 'None'"}
    assert found.verdicts.frame["decided_columnar"].to_list() == [True, False, True, False, True]
    assert found.verdicts.frame["satisfied_0"].to_list() == [1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("permit(principal, action, resource) when { context.n >> 1 };", "unexpected token `>`"),
        ("permit(", "unexpected end of input"),
        ("permit(principal, action, resource) when { foo(1) };", "`foo` is not a valid function"),
    ],
)
def test_a_policy_that_does_not_parse(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policy_tree(text)


def test_a_policy_set_that_is_too_deep_is_named() -> None:
    deep = (
        "permit(principal, action, resource) when { "
        + " || ".join(f"context.n == {n}" for n in range(150))
        + " };"
    )
    with pytest.raises(UnsupportedPolicy, match="nesting"):
        decide_cases([], cedarpy.PolicySet.from_str(deep), schema=None)
