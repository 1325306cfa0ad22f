"""A narrowed request is answered as the whole one is: by generated policies and requests, held to Cedar itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import cedar, narrowing
from runtime.bundle import Bundle, bundle_from_files
from runtime.cedar import evaluate, evaluate_batch
from runtime.entities import Entity, EntityUid, Slice
from runtime.policy import Case

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.ruling import Answer

SCHEMA = """
entity Team;
entity User in [Team] = { tier?: Long, boss?: User };
entity Order = { owner?: User, note?: String } tags Long;
action reads;
action refund, look in [reads] appliesTo {
  principal: [User], resource: [Order],
  context: {
    args: { amount: Long, note?: String, deep?: { left: Long, right?: { x: Long } } },
    order?: { total: Long, owner?: User }, on_behalf_of?: User, session: { calls: Long }
  }
};
action close appliesTo { principal: [User], resource: [Order], context: { args: {} } };
"""
PARTS = (
    "context.args.amount > 10",
    "context.args.amount * 4611686018427387904 > 0",
    'context.args has note && context.args.note like "*a*"',
    "[context.args].contains(context.args)",
    "{whole: context}.whole.session.calls > 2",
    "{whole: context.args}.whole has deep",
    "context.args has deep && context.args.deep.left > 3",
    "context.args has deep.right && context.args.deep.right.x + 9223372036854775807 > 3",
    "context.args has deep && context.args.deep has right",
    "context has order && context.order.total * 4611686018427387904 == context.args.amount",
    "context has order && context.order has owner && context.order.owner == principal",
    "context has on_behalf_of",
    'context has on_behalf_of && context.on_behalf_of in Team::"t"',
    "context has on_behalf_of && context.on_behalf_of has tier && context.on_behalf_of.tier > 1",
    '[context.tenant, "x"].contains("acme")',
    'context.scopes.contains("refunds")',
    'context.now > datetime("2026-01-01")',
    "(if context has order then context.order.total else context.session.calls) > 4",
    'principal in Team::"t"',
    "principal has tier && principal.tier * 9223372036854775807 > 0",
    "principal has boss && principal.boss == principal",
    "principal has boss && principal.boss has tier && principal.boss.tier > 1",
    'resource has note && resource.note == "a"',
    'resource.hasTag("t") && resource.getTag("t") > 1',
    "principal == principal && resource in resource",
)
SCOPES = (
    "principal, action, resource",
    'principal, action == Action::"refund", resource',
    'principal, action == Action::"close", resource',
    'principal, action in Action::"reads", resource',
    'principal, action in [Action::"close", Action::"refund"], resource',
    'principal in Team::"t", action == Action::"look", resource',
)
CLOSE = "principal == principal && resource in resource"
"""What `close`, whose context has less, is asked."""


@st.composite
def bundles(draw: st.DrawFn) -> Bundle:
    texts = []
    for number in range(draw(st.integers(1, 5))):
        scope = draw(st.sampled_from(SCOPES))
        parts = draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=3) | st.just([]))
        if "reads" not in scope and "look" not in scope and '== Action::"refund"' not in scope:
            parts = [CLOSE] if parts else []
        clause = draw(st.sampled_from(("when", "unless")))
        joined = f" {draw(st.sampled_from(('&&', '||')))} ".join(f"({part})" for part in parts)
        effect = draw(st.sampled_from(("permit", "forbid")))
        body = f" {clause} {{ {joined} }}" if parts else ""
        texts.append(f'@id("p{number}")\n{effect} ({scope}){body};')
    return bundle_from_files({"p.cedar": "\n".join(texts), "schema.cedarschema": SCHEMA}, "generated")


numbers = st.sampled_from((-(2**63), -1, 0, 2, 5, 11, 2**62, 2**63 - 1))
uids = st.sampled_from((EntityUid("User", "ana"), EntityUid("User", "bo")))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    def maybe(name: str, strategy: st.SearchStrategy[Any]) -> dict[str, Any]:
        return {name: draw(strategy)} if draw(st.booleans()) else {}

    reference = uids.map(lambda uid: {"__entity": dict(uid.json())})
    action = draw(st.sampled_from(("refund", "look", "close")))
    deep = st.fixed_dictionaries({"left": numbers}, optional={"right": st.fixed_dictionaries({"x": numbers})})
    args = {} if action == "close" else {
        "amount": draw(numbers),
        **maybe("note", st.sampled_from(("", "a", "b"))),
        **maybe("deep", deep),
    }  # fmt: skip
    context: dict[str, Any] = {
        "args": args,
        "now": {"__extn": {"fn": "datetime", "arg": "2026-11-22T10:00:00.000Z"}},
        "scopes": draw(st.sampled_from(([], ["refunds"]))),
        "session": {"calls": draw(st.integers(0, 9)), **SESSION},
        "tenant": "acme",
    }
    if action != "close":
        order = st.fixed_dictionaries({"total": numbers}, optional={"owner": reference})
        context |= {**maybe("order", order), **maybe("on_behalf_of", reference)}
    principal, resource = draw(uids), EntityUid("Order", draw(st.sampled_from(("o-1", 'o"2'))))
    return Case(principal, EntityUid("Action", action), resource, context, draw(slices(principal, resource)))


SESSION: dict[str, Any] = {}


@st.composite
def slices(draw: st.DrawFn, principal: EntityUid, resource: EntityUid) -> Slice:
    boss = uids.map(lambda uid: {"__entity": dict(uid.json())})
    user: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
        {}, optional={"tier": numbers, "boss": boss}
    )
    order: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
        {}, optional={"owner": boss, "note": st.sampled_from(("a", "b"))}
    )
    team = EntityUid("Team", "t")
    parents = draw(st.sampled_from(((), (team,))))
    tags = draw(st.sampled_from(({}, {"t": 2})))
    return Slice.of(
        [
            Entity(principal, draw(user), parents),
            Entity(resource, draw(order), (), tags),
            *([Entity(team)] if parents else []),
        ]
    )


def whole(case: Case, bundle: Bundle, lifted: frozenset[str] = frozenset()) -> Answer:
    entities = cedarpy.Entities.from_json_str(case.slice.text, bundle.cedar_schema)
    return evaluate_batch([case], entities, bundle, lifted)[0]


@given(bundles(), st.lists(cases(), min_size=4, max_size=8), st.data())
@settings(max_examples=60)
def test_a_narrowed_request_is_answered_as_the_whole_one(
    bundle: Bundle, asked: list[Case], data: st.DataObject
) -> None:
    lifted = data.draw(st.sets(st.sampled_from(sorted(bundle.policies)))) if data.draw(st.booleans()) else ()
    for case in asked:
        assert evaluate(case, bundle, frozenset(lifted)) == whole(case, bundle, frozenset(lifted))


def test_generated_answers_are_of_every_kind() -> None:
    """Else the property above would hold of nothing."""
    seen = set[tuple[str, bool, bool, bool]]()

    @given(bundles(), st.lists(cases(), min_size=4, max_size=8))
    @settings(max_examples=80, database=None, derandomize=True)
    def look(bundle: Bundle, asked: list[Case]) -> None:
        for case in asked:
            found = whole(case, bundle)
            seen.add(
                (
                    found.decision,
                    bool(found.errors),
                    found.permitted,
                    bool(bundle.narrowing.of("refund").idle),
                )
            )

    look()
    assert {each[0] for each in seen} == {"Allow", "Deny"}
    for place in (1, 2, 3):
        assert {each[place] for each in seen} == {True, False}


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        ("_may_apply", lambda *_: False),
        ("_paths", lambda _: iter([(("args",), False)])),
        ("_member", lambda value, _: {} if isinstance(value, dict) else value),
    ],
)
def test_a_narrowing_that_leaves_too_much_out_is_noticed(
    break_it: str, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the property above, where something is asked for; what is looked at and not there errs, and is asked again."""
    monkeypatch.setattr(narrowing, break_it, said)
    bundle = bundle_of(
        'permit (principal, action == Action::"refund", resource) when { context.args has deep && '
        "context.args.deep.left > 3 };"
    )
    context = context_of(args={"amount": 5, "deep": {"left": 4}})
    case = Case(
        EntityUid("User", "ana"), EntityUid("Action", "refund"), EntityUid("Order", "o"), context, Slice()
    )
    assert whole(case, bundle).decision == "Allow"
    assert evaluate(case, bundle).decision == "Deny"


def bundle_of(text: str) -> Bundle:
    return bundle_from_files({"p.cedar": f'@id("one") {text}', "schema.cedarschema": SCHEMA}, "one")


def context_of(**more: Any) -> dict[str, Any]:
    return {
        "args": {"amount": 5},
        "now": {"__extn": {"fn": "datetime", "arg": "2026-11-22T10:00:00.000Z"}},
        "scopes": [],
        "session": {"calls": 0},
        "tenant": "acme",
        **more,
    }


def needs(condition: str) -> Any:
    scope = 'principal, action == Action::"refund", resource'
    return bundle_of(f"permit ({scope}) when {{ {condition} }};").narrowing.of("refund").needs


@pytest.mark.parametrize(
    ("condition", "read"),
    [
        ("true", {}),
        ("context.args.amount > 1", {"args": {"amount": None}}),
        ("context has order", {"order": {}}),
        ("context has order && context.order.total > 1", {"order": {"total": None}}),
        ("context.args has deep.right", {"args": {"deep": {"right": {}}}}),
        ("[context.args].contains(context.args)", {"args": None}),
        ("context.args.amount > 1 && [context.args].isEmpty()", {"args": None}),
        ("{k: context}.k has order", None),
        ("context has on_behalf_of && context.on_behalf_of has tier", {"on_behalf_of": {"tier": {}}}),
    ],
)
def test_what_is_read_is_named(condition: str, read: Any) -> None:
    assert needs(condition) == read


def test_policies_of_other_actions_are_idle() -> None:
    text = "".join(
        f'@id("{ident}") permit ({scope});\n' for ident, scope in zip("abcdef", SCOPES, strict=True)
    )
    bundle = bundle_from_files({"p.cedar": text, "schema.cedarschema": SCHEMA}, "scopes")
    assert bundle.narrowing.of("refund").idle == {"c", "f"}
    assert bundle.narrowing.of("look").idle == {"b", "c", "e"}
    assert bundle.narrowing.of("close").idle == {"b", "d", "f"}


def test_links_are_read_as_their_templates() -> None:
    template = '@id("t") permit (principal == ?principal, action, resource) when { context.args has note };'
    schema = SCHEMA.replace("args: {}", "args: { note?: String }")
    files = {"p.cedar": template, "schema.cedarschema": schema}
    links = [{"id": "linked", "template": "t", "values": {"?principal": 'User::"ana"'}}]
    bundle = bundle_from_files({**files, "links.json": json.dumps(links)}, "links")
    assert bundle.narrowing.of("refund").needs == {"args": {"note": {}}}


def test_a_principal_that_the_action_does_not_take_is_no_decision_in_the_same_words() -> None:
    bundle = bundle_of("permit (principal, action, resource);")
    team = EntityUid("Team", "t")
    case = Case(
        team, EntityUid("Action", "refund"), EntityUid("Order", "o"), context_of(), Slice.of([Entity(team)])
    )
    found = evaluate(case, bundle)
    assert found.decision == "NoDecision"
    assert found == whole(case, bundle)


def test_words_of_an_error_are_those_of_the_whole_request() -> None:
    bundle = bundle_of(
        'permit (principal, action == Action::"refund", resource) when { context.args.amount * 4611686018427387904 > 0 };'
    )
    case = Case(
        EntityUid("User", "ana"),
        EntityUid("Action", "refund"),
        EntityUid("Order", "o"),
        context_of(),
        Slice(),
    )
    found = evaluate(case, bundle)
    assert [fault.policy for fault in found.errors] == ["one"]
    assert found == whole(case, bundle)


def engine_calls() -> Iterator[
    tuple[list[dict[str, Any]], cedarpy.PolicySet, cedarpy.Entities, cedarpy.Schema]
]:
    for text in ("permit (principal, action, resource);", "forbid (principal, action, resource);"):
        bundle = bundle_of(text)
        case = Case(
            EntityUid("User", "ana"),
            EntityUid("Action", "refund"),
            EntityUid("Order", "o"),
            context_of(),
            Slice(),
        )
        yield [cedar._request(case)], bundle.policy_set, bundle.narrowing.no_entities, bundle.cedar_schema


def test_the_engine_itself_answers_as_its_wrapper() -> None:
    """What `cedar._asked` rests on, at the release that is installed."""
    for requests, policies, entities, schema in engine_calls():
        (text,) = cedar._engine(requests, policies, entities._inner, schema, False)
        (public,) = cedarpy.is_authorized_batch(requests, policies, entities, schema)
        found = cedar._read(text)
        assert found.decision == public.decision.value
        assert sorted(found.diagnostics.reason) == sorted(public.diagnostics.reasons)
        assert found.diagnostics.errors == public.diagnostics.errors
