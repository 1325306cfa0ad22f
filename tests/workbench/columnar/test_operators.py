"""Each operator over one small frame of four rows, with Cedar's own answer beside it; the traps, by name.

The rows: (1) everything there, (2) other values, near the ends of 64 bits, empty sets, another version of the same
user, (3) other types at the same paths, (4) nothing there at all, and an entity that no table has.
"""

from __future__ import annotations

import json
from typing import Any

import cedarpy
import pytest
from cedarpy import pst

from runtime.entities import Entity, EntityUid, Slice
from runtime.policy import Case
from runtime.schema import parse_schema
from workbench.columnar import ColumnarAnswers, decide_cases, policy_tree
from workbench.errors import UnsupportedPolicy

ANN, BOB, NOBODY = EntityUid("U", "ann"), EntityUid("U", "bob"), EntityUid("U", "nobody")
STAFF, ALL, DOC = EntityUid("G", "staff"), EntityUid("G", "all"), EntityUid("D", "doc")
VIEW, READ = EntityUid("Action", "view"), EntityUid("Action", "read")


def extn(function: str, text: str) -> dict[str, Any]:
    return {"__extn": {"fn": function, "arg": text}}


def entity(uid: EntityUid) -> dict[str, Any]:
    return {"__entity": dict(uid.json())}


FIRST = Slice(
    (
        Entity(ANN, {"level": 3, "boss": entity(BOB), "name": "ann"}, (STAFF,), {"team": "red", "n": 1}),
        Entity(BOB, {"level": 9, "groups": [entity(ALL)]}, ()),
        Entity(STAFF, {}, (ALL,)),
        Entity(DOC, {"owner": entity(ANN), "labels": ["a", "b"]}),
        Entity(VIEW, {}, (READ,)),
    )
)
SECOND = Slice(
    (
        Entity(ANN, {"level": -1, "boss": entity(NOBODY)}, (), {"team": "blue"}),
        Entity(DOC, {"owner": entity(BOB), "labels": []}),
        Entity(VIEW, {}, (READ,)),
    )
)
CASES = [
    Case(
        ANN,
        VIEW,
        DOC,
        {
            "n": 1,
            "s": "a\nb",
            "t": True,
            "set": ["a", "b", "a"],
            "mixed": [1, "a", entity(ANN)],
            "nested": [[1, 2], [2, 1], []],
            "users": [entity(BOB), entity(STAFF)],
            "r": {"x": 1, "y": {"z": "q"}},
            "rs": [{"x": 1}, {"x": 1, "y": 2}],
            "dec": extn("decimal", "1.5"),
            "ip": extn("ip", "10.1.2.3"),
            "at": extn("datetime", "1969-12-31T23:59:59.999Z"),
            "for": extn("duration", "-1500ms"),
            "flag": False,
        },
        FIRST,
    ),
    Case(
        ANN,
        VIEW,
        DOC,
        {
            "n": 2**63 - 1,
            "s": "",
            "t": False,
            "set": [],
            "mixed": [],
            "nested": [],
            "users": [],
            "r": {"x": 2},
            "rs": [],
            "dec": extn("decimal", "-922337203685477.5808"),
            "ip": extn("ip", "::1"),
            "at": extn("datetime", "9999-12-31"),
            "for": extn("duration", "9223372036854775807ms"),
        },
        SECOND,
    ),
    Case(
        BOB,
        VIEW,
        DOC,
        {"n": "1", "s": 1, "t": "true", "set": [1, 2], "users": [entity(ANN), 1], "r": [], "ip": "10.1.2.3"},
        FIRST,
    ),
    Case(NOBODY, EntityUid("Action", "other"), EntityUid("D", "none"), {}, Slice()),
]
"""The frame."""


OUTCOMES = [
    ("TFEE", "context.t && context.n == 1"),
    ("TFFF", "context has n && context.n == 1"),
    ("FFFF", "context has nope && context.nope == 1"),
    ("FFFF", "false && context.nope"),
    ("TTTT", "true || context.nope"),
    ("EEEE", "context.nope || true"),
    ("FFFF", 'true && 1 == 1 && "x" == 1'),
    ("FTEE", "!context.t"),
    ("TTEE", 'if context.t then context.n == 1 else context.s == ""'),
    ("TTTF", "if context has n then true else 1 == true"),
    ("TFFE", "context.n == 1"),
    ("TTFE", 'context.n != "1"'),
    ("FFFF", '1 == "1"'),
    ("TFFE", 'context.r == {x: 1, y: {z: "q"}}'),
    ("FTFE", "context.r == {x: 2}"),
    ("TFFE", "{x: context.n} == {x: 1}"),
    ("FFFT", "context == {}"),
    ("TFEE", "context.n < 2"),
    ("TTEE", "context.n <= 9223372036854775807"),
    ("TEEE", "context.n + 1 > 0"),
    ("TFEE", "context.n - 2 < 0"),
    ("TEEE", "context.n * 2 > 0"),
    ("TTEE", "-context.n < 0"),
    ("TTEE", "context.n - 9223372036854775807 - 2 < 0"),
    ("EEEE", "(-9223372036854775807 - 1) * -1 == 0"),
    ("TFFF", 'principal in G::"all"'),
    ("FFFT", 'principal in U::"nobody"'),
    ("FFEE", "principal in principal.boss"),
    ("TFFF", 'principal in [G::"none", G::"staff"]'),
    ("TFEE", "principal in context.users"),
    ("EEEE", "principal in [1]"),
    ("EEEE", "[principal in 1].contains(true)"),
    ("FFFF", "principal in []"),
    ("EEEE", "1 in []"),
    ("TFTE", 'resource.owner in G::"all"'),
    ("TTTF", 'action in Action::"read"'),
    ("TFEE", "principal.boss in context.users"),
    ("TEEE", 'G::"all" in principal.boss.groups'),
    ("TTTT", "principal is U"),
    ("TFTE", 'resource.owner is U in G::"all"'),
    ("EEEE", "context.s is U"),
    ("TTTF", "principal has level"),
    ("TFFF", "principal has boss.level"),
    ("TFEE", "principal.boss has groups"),
    ("TFEF", "context has r.y.z"),
    ("TTEE", "context.r has x"),
    ("EEEE", "context.n has x"),
    ("TFTE", "principal.level > 0"),
    ("TEEE", "principal.boss.level == 9"),
    ("TETE", "resource.owner.level == 3"),
    ("TFTE", 'U::"ann".level == 3'),
    ("FFFF", 'U::"missing" has level'),
    ("TEEE", 'context.r.y.z == "q"'),
    ("TFEE", 'context.s like "a*b"'),
    ("TTEE", 'context.s like "*"'),
    ("FFEE", 'context.s like "a\\*b"'),
    ("TTTT", '"a*b" like "a\\*b"'),
    ("FTEE", 'context.s like ""'),
    ("EETE", 'context.n like "1"'),
    ("TFFE", 'context.set.contains("a")'),
    ("FFTE", "context.set.contains(1)"),
    ("EEEE", "context.set.contains(context.nope)"),
    ("EEEE", "[context.nope].isEmpty()"),
    ("EEEE", "{x: context.nope} has x"),
    ("TTTE", '[context.n, "a"].contains("a")'),
    ("TFEE", "context.mixed.contains(principal)"),
    ("TFEE", "context.nested.contains([2, 1, 1])"),
    ("TFEE", "context.nested.contains([])"),
    ("TFEE", "context.rs.contains({x: 1})"),
    ("TFEE", "context.rs.containsAll([{y: 2, x: 1}])"),
    ("TFFE", 'context.set.containsAll(["a", "b"])'),
    ("TTTE", "context.set.containsAll([])"),
    ("TFFE", 'context.set.containsAny(["z", "b"])'),
    ("FFFE", "context.set.containsAny([])"),
    ("TFEE", "context.set.containsAny(context.mixed)"),
    ("TTTE", "context.set.containsAll(context.set)"),
    ("TFFE", 'context.set == ["b", "a"]'),
    ("FTFE", "context.set == []"),
    ("TFFE", 'context.users == [G::"staff", U::"bob"]'),
    ("TTFE", "resource.labels == context.set"),
    ("FFFE", 'context.set == [context.s, "b"]'),
    ("FTFE", "context.set.isEmpty()"),
    ("EEEE", "context.n.isEmpty()"),
    ("TTTT", "[[], [1]].contains([])"),
    ("TTFF", 'principal.hasTag("team")'),
    ("FFEE", "principal.hasTag(context.s)"),
    ("TFEE", 'principal.getTag("team") == "red"'),
    ("TFFF", 'principal.hasTag("n") && principal.getTag("n") == 1'),
    ("EEEE", "principal.getTag(1) == 1"),
    ("TEEE", 'principal.getTag(if context.t then "team" else "n") == "red"'),
    ("TTEE", 'context.dec.lessThan(decimal("1.5001"))'),
    ("TFEE", 'context.dec.greaterThanOrEqual(decimal("1.5"))'),
    ("TTTT", 'decimal("1.0") == decimal("1.0000")'),
    ("EEEE", 'decimal("1.00000") == decimal("1.0")'),
    ("EETE", "ip(context.ip).isIpv4()"),
    ("TEEE", 'decimal(if context.t then "1.5" else context.s).lessThan(context.dec) || true'),
    (
        "TEEE",
        '(if context.s == "" then datetime(context.s) else context.at) < datetime("2000-01-01") || true',
    ),
    ("TFEE", 'context.ip.isInRange(ip("10.0.0.0/8"))'),
    ("FTEE", "context.ip.isLoopback()"),
    ("TTEE", "context.ip.isIpv4() || context.ip.isIpv6()"),
    ("FFEE", "context.ip.isMulticast()"),
    ("TFFE", 'context.ip == ip("10.1.2.3/32")'),
    ("TEEE", 'ip(if context.t then "10.0.0.0/8" else "nope").isIpv4()'),
    ("TFEE", 'context.at < datetime("1970-01-01")'),
    ("TFEE", 'context.at.toDate() == datetime("1969-12-31")'),
    ("TFEE", 'context.at.toTime() == duration("86399999ms")'),
    ("TFEE", 'context.at.offset(duration("1ms")) == datetime("1970-01-01")'),
    ("TEEE", 'context.at.offset(context.for) < datetime("1970-01-01")'),
    ("TFEE", 'context.at.durationSince(datetime("1970-01-01")).toMilliseconds() == -1'),
    ("TFEE", "context.for.toSeconds() == -1"),
    ("TFEE", "context.for.toDays() == 0"),
    ("TFEE", 'context.for < duration("0ms")'),
    ("EEEE", "context.at < context.for"),
    ("TFEE", '(if context.t then 1 else "x") == 1'),
    ("TEEE", "(if context.t then principal else resource).level == 3"),
    ("FTEE", "(if context.t then context.set else context.nested).isEmpty()"),
    ("TEEE", "(if context.t then context.r else context).x == 1"),
    ("TFFF", 'principal == U::"ann" && principal.level == 3'),
    ("FFTT", '!(principal == U::"ann")'),
    ("TFFE", "context.t == true"),
    ("TFFF", "context has flag && context.flag == false"),
]
"""What Cedar says in each of the four rows (true, false, error), and the expression."""


def outcomes(found: ColumnarAnswers) -> str:
    """The outcome of a single permit, a letter a row."""
    answers = [found.answer(row) for row in range(found.verdicts.frame.height)]
    return "".join("E" if answer.errors else "T" if answer.permitted else "F" for answer in answers)


def asked(policies: cedarpy.PolicySet, case: Case) -> str:
    """The outcome by Cedar itself."""
    request = {
        "principal": case.principal.json(),
        "action": case.action.json(),
        "resource": case.resource.json(),
        "context": json.dumps(case.context),
    }
    entities = json.dumps([each.json() for each in case.slice.entities])
    result = cedarpy.is_authorized(request, policies, entities)
    assert result.decision.value != "NoDecision"
    return "E" if result.diagnostics.errors else "T" if result.allowed else "F"


@pytest.mark.parametrize(("want", "condition"), OUTCOMES)
def test_operator(want: str, condition: str) -> None:
    policies = cedarpy.PolicySet.from_str(f"permit(principal, action, resource) when {{ {condition} }};")
    assert "".join(asked(policies, case) for case in CASES) == want
    assert outcomes(decide_cases(CASES, policies, schema=None)) == want


def test_every_expression_node_is_compiled() -> None:
    """A new node of Cedar's syntax must come with a row of `OUTCOMES`."""
    seen: set[type] = set()
    for _, condition in OUTCOMES:
        tree = cedarpy.policies_to_pst(f"permit(principal, action, resource) when {{ {condition} }};")
        stack: list[Any] = list(tree.static_policies.values())
        while stack:
            node = stack.pop()
            seen.add(type(node))
            children = [getattr(node, name, ()) for name in getattr(type(node), "__dataclass_fields__", ())]
            for child in [*children, *(node.values() if isinstance(node, dict) else ())]:
                stack.extend(child if isinstance(child, tuple) else [child])
    assert set(pst.Expr.__args__) - seen == {pst.Slot}


def test_operators_are_all_here() -> None:
    text = " ".join(condition for _, condition in OUTCOMES)
    calls = (
        "toDate",
        "toTime",
        "toMilliseconds",
        "toSeconds",
        "toDays",
        "offset",
        "durationSince",
        "isInRange",
    )
    assert [call for call in calls if call not in text] == []


def test_links_decide_under_their_own_ids() -> None:
    text = "permit(principal == ?principal, action, resource in ?resource) when { principal.level > 0 };"
    linked = cedarpy.PolicySet.from_str(text).with_linked_batch(
        [
            {"template_id": "policy0", "new_id": ident, "values": {"?principal": who, "?resource": str(DOC)}}
            for ident, who in (("ann", str(ANN)), ("bob", str(BOB)))
        ]
    )
    found = decide_cases(CASES, linked, schema=None)
    assert [found.answer(row).reasons for row in range(4)] == [("ann",), (), ("bob",), ()]


def test_a_call_with_too_many_arguments_is_an_error_where_reached() -> None:
    text = 'permit(principal, action, resource) when { context.t && ip("::1").isIpv4(1, 2) };'
    policies = cedarpy.PolicySet.from_str(text)
    assert outcomes(decide_cases(CASES, policy_tree(text), schema=None)) == "EFEE"
    assert [asked(policies, case) for case in CASES] == list("EFEE")
    with pytest.raises(UnsupportedPolicy, match="policy_tree"):
        decide_cases(CASES, policies, schema=None)


def test_more_policies_than_one_word_has_bits() -> None:
    text = "".join(
        f"permit(principal, action, resource) when {{ context.n == {n % 3} }};" for n in range(150)
    )
    answer = decide_cases(CASES, cedarpy.PolicySet.from_str(text), schema=None).answer(0)
    assert answer.reasons == tuple(sorted(f"policy{n}" for n in range(150) if n % 3 == 1))
    assert decide_cases(CASES, cedarpy.PolicySet.from_str(text), schema=None).answer(3).errors[:1] == (
        "policy0",
    )


def test_forbids_win_and_errors_are_skipped() -> None:
    policies = cedarpy.PolicySet.from_str(
        "permit(principal, action, resource);"
        "forbid(principal, action, resource) when { context.n == 1 };"
        "forbid(principal, action, resource) when { context.t };"
    )
    found = decide_cases(CASES, policies, schema=None)
    assert [found.answer(row).decision for row in range(4)] == ["Deny", "Allow", "Allow", "Allow"]
    assert [found.answer(row).reasons for row in range(2)] == [("policy1", "policy2"), ("policy0",)]
    assert found.answer(3).errors == ("policy1", "policy2")
    assert all(found.answer(row).permitted for row in range(4))


def test_no_cases_and_no_policies() -> None:
    nothing = cedarpy.PolicySet.from_str("")
    assert decide_cases([], nothing, schema=None).verdicts.frame.height == 0
    assert decide_cases(CASES, nothing, schema=None).answer(0).decision == "Deny"


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        None,
        2**63,
        {"__extn": {"fn": "decimal", "arg": "1"}},
        {"__entity": "U::a"},
        "\ud800",
        {"__expr": "1"},
    ],
    ids=repr,
)
def test_what_cedar_refuses_is_handed_over(value: Any) -> None:
    case = Case(ANN, VIEW, DOC, {"v": value}, FIRST)
    policies = cedarpy.PolicySet.from_str("permit(principal, action, resource);")
    found = decide_cases([case, CASES[0]], policies, schema=None)
    assert list(found.handed_over) == [0]
    assert found.verdicts.frame["decided_columnar"].to_list() == [False, True]
    assert found.answer(1).decision == "Allow"


SCHEMA = parse_schema(
    """
    entity G; entity H in [G]; entity U in [H] { level?: Long, boss?: U } tags String;
    entity Color enum ["red", "blue"]; entity D { color: Color };
    action read; action view in [read] appliesTo { principal: [U], resource: [D], context: {
      d: decimal, ip?: ipaddr, at?: datetime, for?: duration, who?: U, n: Long, set?: Set<U>, r?: { x?: Long } } };
    """
)
COLORED = Entity(DOC, {"color": {"type": "Color", "id": "red"}})


def test_implicit_forms_are_read_by_the_schema() -> None:
    context: dict[str, Any] = {
        "d": "1.5",
        "ip": "10.0.0.1",
        "at": "2024-01-01",
        "for": {"fn": "duration", "arg": "1h"},
        "n": 1,
    }
    context |= {"who": {"type": "U", "id": "ann"}, "set": [{"type": "U", "id": "ann"}], "r": {}}
    case = Case(ANN, VIEW, DOC, context, Slice((Entity(ANN, {}, (EntityUid("G", "staff"),)), COLORED)))
    condition = (
        'context.d == decimal("1.50") && context.ip.isIpv4() && context.at.offset(context.for).toTime()'
        ' == duration("60m") && context.set.contains(context.who) && principal in G::"staff"'
        ' && action in Action::"read" && resource.color == Color::"red" && !(context.r has x)'
    )
    policies = cedarpy.PolicySet.from_str(f"permit(principal, action, resource) when {{ {condition} }};")
    assert decide_cases([case], policies, schema=SCHEMA).answer(0).decision == "Allow"


@pytest.mark.parametrize(
    ("context", "entities"),
    [
        ({"d": "1.5"}, (COLORED,)),
        ({"d": "1.5", "n": 1, "more": 1}, (COLORED,)),
        ({"d": "1.5", "n": True}, (COLORED,)),
        ({"d": 1, "n": 1}, (COLORED,)),
        ({"d": "1.5", "n": 1, "who": {"type": "G", "id": "x"}}, (COLORED,)),
        ({"d": "1.5", "n": 1}, (Entity(DOC, {"color": {"type": "Color", "id": "green"}}),)),
        ({"d": "1.5", "n": 1}, (Entity(DOC, {}),)),
        ({"d": "1.5", "n": 1}, (COLORED, Entity(EntityUid("X", "x")))),
        ({"d": "1.5", "n": 1}, (COLORED, Entity(ANN, {}, (DOC,)))),
        ({"d": "1.5", "n": 1}, (COLORED, Entity(DOC, {}, (), {"a": "b"}))),
        ({"d": "1.5", "n": 1}, (Entity(VIEW, {}, (EntityUid("Action", "more"),)),)),
    ],
)
def test_what_does_not_fit_the_schema_is_handed_over(
    context: dict[str, Any], entities: tuple[Entity, ...]
) -> None:
    policies = cedarpy.PolicySet.from_str("permit(principal, action, resource);")
    found = decide_cases([Case(ANN, VIEW, DOC, context, Slice(entities))], policies, schema=SCHEMA)
    assert list(found.handed_over) == [0]
