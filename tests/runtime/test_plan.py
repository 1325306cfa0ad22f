"""What is worked out once a bundle, and what is written from parts: the same as worked out anew for every call."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runtime.assembly import assemble
from runtime.bundle import Bundle, bundle_from_files
from runtime.canonical import NotCanonical, canonical, canonical_own, new_id, sha256
from runtime.context import compile_context, judge_context
from runtime.entities import Entity, EntityUid, Slice
from runtime.facts import CompiledContext, Fact
from runtime.plan import Plans
from runtime.projection import ProjectionError, project, projector
from runtime.request import Request, RequestInvalid, ResourceTemplate
from runtime.ruling import Answer, PolicyFault, ruled
from runtime.schema import Attribute, EntityRef, Extension, Primitive, Record, SetOf
from runtime.spec import parse_spec
from runtime.values import timestamp

NAMES = ("a", "b", "note", "é", "x y", "__extn", "amount")
plain_words = st.text(st.characters(codec="utf-8"), max_size=6)
integers = st.integers(-(2**63), 2**63 - 1) | st.sampled_from((2**53, 2**63, -(2**63) - 1, 10**19))
words = plain_words | st.sampled_from(("", "é", "\ud800", "12.5"))
scalars = st.none() | st.booleans() | integers | words | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)
types = st.recursive(
    st.builds(Primitive, st.sampled_from(("Long", "String", "Bool")))
    | st.builds(Extension, st.sampled_from(("decimal", "datetime")))
    | st.just(EntityRef("User")),
    lambda inner: (
        st.builds(SetOf, inner)
        | st.builds(
            Record,
            st.dictionaries(st.sampled_from(NAMES), st.builds(Attribute, inner, st.booleans()), max_size=3),
        )
    ),
    max_leaves=4,
)
scaled = st.builds(Attribute, st.just(Primitive("Long")), st.booleans(), st.just({"scaled": "amount*100"}))
records = st.builds(
    Record,
    st.dictionaries(st.sampled_from(NAMES), st.builds(Attribute, types, st.booleans()) | scaled, max_size=4),
)


def outcome(work: Any) -> Any:
    """What a function returns, or the text of what it raises."""
    try:
        return work()
    except (ProjectionError, NotCanonical, RequestInvalid) as exc:
        return type(exc), str(exc)


@given(records, values | st.dictionaries(st.sampled_from(NAMES), values, max_size=4))
@example(Record({"a": Attribute(Primitive("Long"))}), {"a": True})
@example(Record({"a": Attribute(Primitive("Bool"), required=False)}), {"a": None})
@example(Record({"a": Attribute(Primitive("Long"))}), {"a": 2**63})
@example(Record({"a": Attribute(Primitive("String"))}), {"a": "\ud800"})
def test_a_projector_gives_what_the_projection_gives(record: Record, value: Any) -> None:
    found = outcome(lambda: projector(record, "context.args")(value))
    wanted = outcome(lambda: project(value, record, "context.args"))
    if isinstance(found, tuple) and isinstance(found[1], bool):
        projected, same = found
        assert projected == wanted
        assert list(projected) == list(wanted), "members in the schema's order"
        assert not same or canonical(projected) == canonical(value), "then one text serves both"
    else:
        assert found == wanted


@pytest.mark.parametrize(
    ("value", "same"), [({"a": 1, "b": "x"}, True), ({"a": 1}, True), ({"a": 1, "b": None}, False)]
)
def test_a_projector_says_that_arguments_are_their_own_projection(value: Any, same: bool) -> None:
    record = Record({"b": Attribute(Primitive("String"), required=False), "a": Attribute(Primitive("Long"))})
    assert projector(record, "x")(value)[1] is same


SCHEMA = """
entity Team;
entity Agent in [Team] { level?: Long };
entity User;
entity Kind enum ["small"];
entity Order in [Team] { owner?: User, total?: Long };
action plain appliesTo { principal: [Agent, Kind], resource: [Order, Agent], context: { args: { n: Long } } };
action rich appliesTo { principal: [Agent], resource: [Order], context: {
  args: { n: Long }, session: { calls: Long, mine?: String, repeats?: String }, on_behalf_of?: User,
  order?: { status?: String, n?: Long }, tags?: Set<String> } };
"""
POLICY = '@id("one") permit (principal, action, resource);'
SPEC = """version = 1
[sources.a]
kind = "callable"
[[facts]]
name = "order"
source = "a"
actions = ["rich"]
shared = true
key = { n = "args.n" }
fields = ["status"]
[[facts]]
name = "of_all"
source = "a"
actions = ["other"]
shared = true
key = { n = "args.n" }
fields = ["status"]
"""


def bundle_of(policies: str = POLICY, schema: str = SCHEMA, **files: str) -> Bundle:
    return bundle_from_files({"p.cedar": policies, "schema.cedarschema": schema, **files}, "b")


BUNDLE = bundle_of()


def request_of(**changes: Any) -> Request:
    given: dict[str, Any] = {
        "decision_id": "d", "session_id": "s", "step": 0, "tenant": "acme", "principal": EntityUid("Agent", "bot"),
        "on_behalf_of": None, "scopes": ("x",), "tool": "plain", "resource": ResourceTemplate.parse("Order::{n}"),
        "required_scopes": (), "args": {"n": 1}, "idempotency_key": None, "at": datetime(2026, 11, 23, tzinfo=UTC),
        "session_state": {"calls": 1, "repeats": 0, "mine": 2},
    }  # fmt: skip
    return Request(**(given | changes))


def fact(name: str, into: Any, value: Any, *parents: str) -> Fact:
    return Fact(
        name=name, status="none" if value in (None, []) else "found", value=value, into=into, key={}, source="a",
        kind="callable", parents=[["Team", each] for each in parents],
    )  # fmt: skip


facts = st.lists(
    st.builds(
        fact, st.just("order"), st.just("context"), st.sampled_from(({"status": "paid"}, {"n": 1.5}, None))
    )
    | st.builds(fact, st.just("tags"), st.just("context"), st.sampled_from(([], ["a"])))
    | st.builds(
        fact,
        st.just("r"),
        st.just("resource"),
        st.sampled_from(({"total": 5}, {"owner": "u"}, None)),
        plain_words,
    )
    | st.builds(
        fact,
        st.just("p"),
        st.just("principal"),
        st.sampled_from(({"level": 5}, {"level": "x"})),
        st.just("t"),
    ),
    max_size=3,
    unique_by=lambda each: each.name,
)
uids = st.builds(
    EntityUid,
    st.sampled_from(("Agent", "Order", "Kind", "User", "Nope")),
    st.sampled_from(("small", "é", "o-1")),
)


def assembled_slowly(request: Request, resource: EntityUid, compiled: CompiledContext, approval: Any) -> Any:
    """Context and entities, as DESIGN describes them, from the schema alone; only what is not refused."""
    schema = BUNDLE.schema
    declared = schema.actions[request.tool].context.attrs
    session = declared["session"].type
    assert isinstance(session, Record)
    context: dict[str, Any] = {
        "args": request.args,
        "now": {"__extn": {"fn": "datetime", "arg": timestamp(request.at)}},
        "scopes": list(request.scopes),
        "tenant": request.tenant,
        "session": {
            name: value
            for name, value in request.session_state.items()
            if name in session.attrs and (name == "mine" or session.attrs[name].type == Primitive("Long"))
        },
    }
    placed: dict[str, Any] = {
        each.name: each.value for each in compiled.facts.values() if each.into == "context"
    }
    behalf = request.on_behalf_of if "on_behalf_of" in declared else None
    placed |= {"approval": approval, "on_behalf_of": None if behalf is None else behalf.json()}
    for name, value in placed.items():
        if value is not None and name in declared:
            context[name] = project(value, declared[name].type, f"context.{name}")
    uids = dict.fromkeys([request.principal, resource, *([] if behalf is None else [behalf])])
    entities = {}
    for uid in uids:
        about = [
            each
            for each in compiled.facts.values()
            if each.status == "found"
            and uid == {"resource": resource, "principal": request.principal}.get(each.into)
        ]
        type_ = schema.entity_types[uid.type]
        given_attrs = {n: v for each in about for n, v in each.value.items() if n in type_.attrs.attrs}  # type: ignore[union-attr]  # a record
        attrs: Any = project(given_attrs, type_.attrs, "x")
        above = {EntityUid(*p) for each in about for p in each.parents if p[0] in type_.parents}
        entities[uid] = Entity(uid, attrs, tuple(sorted(above)))
    for entity in list(entities.values()):
        for parent in entity.parents:
            entities.setdefault(parent, Entity(parent))
    return context, Slice.of(entities.values())


@given(
    st.sampled_from(("plain", "rich")), uids, uids, st.none() | uids, facts,
    st.none() | st.just({"approvers": ["a"], "granted_at": "2026-01-01T00:00:00Z"}),
)  # fmt: skip
def test_a_case_is_assembled_as_from_the_schema_alone(
    tool: str,
    principal: EntityUid,
    resource: EntityUid,
    behalf: EntityUid | None,
    found: list[Fact],
    approval: Any,
) -> None:
    request = request_of(tool=tool, principal=principal, on_behalf_of=behalf)
    compiled = CompiledContext.of(found, "s")
    plan = BUNDLE.plans.of(tool)
    assert plan is not None
    got = outcome(lambda: plan.assembler.assemble(request, resource, dict(request.args), compiled, approval))
    fresh = outcome(
        lambda: assemble(request, resource, dict(request.args), compiled, BUNDLE.schema, approval)
    )
    assert got == fresh
    if isinstance(got[0], type):
        return  # `test_assembly` says what is refused, and how
    context, entities = assembled_slowly(request, resource, compiled, approval)
    assert got == (context, entities)
    assert got[1].hash == entities.hash
    assert (got[1].text, got[1].telling) == (entities.text, entities.telling)


def test_plans_are_kept_by_tool_and_only_of_declared_ones() -> None:
    assert BUNDLE.plans.of("plain") is BUNDLE.plans.of("plain")
    assert BUNDLE.plans.of("plain") is not BUNDLE.plans.of("rich")
    assert BUNDLE.plans.of("nope") is None
    groups = bundle_of(schema=SCHEMA + "action everything; action grouped in [everything] appliesTo "
                       "{ principal: Agent, resource: Order, context: {} };")  # fmt: skip
    assert groups.plans.of("everything") is None
    assert groups.plans.of("grouped") is not None


FORBIDS = """
@id("p") permit (principal, action, resource);
@id("q") permit (principal, action, resource);
@id("f") forbid (principal, action, resource) when { context.args.n > 9 };
@id("m") @verdict("modify") @patch("{\\"n\\": 1}") forbid (principal, action, resource) when { context.args.n > 7 };
@id("a") @verdict("approve") forbid (principal, action, resource) when { context.args.n > 5 };
"""
RULES = bundle_of(FORBIDS)
answers = st.builds(
    Answer,
    st.sampled_from(("Allow", "Deny", "NoDecision")),
    st.lists(st.sampled_from("pqfma"), unique=True).map(sorted).map(tuple),
    st.lists(st.builds(PolicyFault, st.sampled_from("pfm"), st.sampled_from(("", "e"))), max_size=2).map(
        tuple
    ),
    st.booleans(),
    st.sampled_from(("", "why")),
)


@given(st.lists(answers, max_size=12))
def test_a_ruling_that_is_kept_is_the_ruling(given_answers: list[Answer]) -> None:
    plans = Plans(RULES.schema, RULES.policies)
    for answer in given_answers * 2:
        assert plans.ruled(answer) == ruled(answer, RULES.policies)


def test_rulings_are_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.plan.MAX_RULED", 2)
    plans = Plans(RULES.schema, RULES.policies)
    for reasons in ("p", "q", "pq"):
        answer = Answer("Allow", tuple(reasons), permitted=True)
        assert plans.ruled(answer) == ruled(answer, RULES.policies)
    assert len(plans._ruled) == 2


def test_a_call_that_asks_for_nothing_has_the_facts_of_one_that_is_asked() -> None:
    spec = parse_spec(SPEC)
    blank = compile_context(spec, {}, request_of(tool="plain"), EntityUid("Order", "1"))
    assert blank is compile_context(spec, {}, request_of(tool="scoped"), EntityUid("Order", "2"))
    assert {each.status for each in blank.facts.values()} == {"not_asked"}
    assert (blank.told, blank.placed) == ((), ())
    assert CompiledContext.from_content(blank.content) == blank
    again = CompiledContext.of(blank.facts.values(), spec.hash)
    now = request_of().at
    for skew in (5_000_000, None):
        assert judge_context(blank, spec, now, skew_us=skew) == judge_context(again, spec, now, skew_us=skew)
    some = compile_context(spec, {}, request_of(tool="rich"), EntityUid("Order", "1"))
    assert some.facts["order"].status == "failed"  # it was asked for, and nothing is bound
    assert some.facts["of_all"] == blank.facts["of_all"]


@given(
    st.dictionaries(
        st.sampled_from(("b", "a", "é", 'q"')),
        st.dictionaries(st.sampled_from(("x", "é")), scalars),
        max_size=3,
    )
)
def test_a_compiled_context_is_the_canonical_text_of_its_facts(found: dict[str, Any]) -> None:
    every = [fact(name, "context", value) for name, value in found.items()]
    wanted = outcome(lambda: canonical({"facts": {each.name: each.json() for each in every}, "spec": "é"}))
    got = outcome(lambda: CompiledContext.of(every, "é"))
    if isinstance(wanted, str):
        assert (got.content, got.hash) == (wanted, sha256(wanted))
    else:
        assert got[0] is wanted[0]


@given(
    st.lists(st.builds(EntityUid, st.sampled_from(("A", "N::B")), words), min_size=2, max_size=2, unique=True)
)
def test_entities_that_stand_alone_are_the_plain_ones(pair: list[EntityUid]) -> None:
    plain = [Entity(uid) for uid in pair]
    wanted = outcome(lambda: [each.hash for each in plain])
    assert outcome(lambda: [Entity.alone(uid).hash for uid in pair]) == wanted
    if not isinstance(wanted, list):
        return
    one, two = map(Entity.alone, pair)
    assert [one, two] == plain
    assert (one.content, one.json(), one.tags) == (plain[0].content, plain[0].json(), {})
    both, whole = Slice.of_two(one, two), Slice.of(plain)
    assert both == whole
    assert (both.hash, both.entity_hashes, both.text, both.telling) == (
        whole.hash, whole.entity_hashes, whole.text, None,
    )  # fmt: skip


@given(values)
@example({"a": 1.0})
@example({"a": 1e22, "b": [{"c": 2**63 - 1}]})
@example({"é": 1, "z": 2.5})
@example({"a": "1.5", "b": "0" * 19})
@example({"a": 10**19})
def test_a_text_of_our_own_is_canonical(value: Any) -> None:
    assert outcome(lambda: canonical_own(value)) == outcome(lambda: canonical(value))


@given(st.dictionaries(st.sampled_from((*NAMES, "\ud800")), scalars, max_size=4))
@example({"a": 10**19})
@example({"a": 2**63 - 1, "b": "0" * 19})
@example({"a": 2**53 + 1, "b": 0.5})
def test_a_flat_record_is_written_as_any_other(value: dict[str, Any]) -> None:
    whole = outcome(lambda: canonical([value]))  # a list takes the way of everything else
    flat = outcome(lambda: canonical(value))
    assert (f"[{flat}]" if isinstance(flat, str) else flat[0]) == (
        whole if isinstance(whole, str) else whole[0]
    )


def test_an_id_is_a_uuid_of_version_7(monkeypatch: pytest.MonkeyPatch) -> None:
    for byte in range(256):
        monkeypatch.setattr("os.urandom", lambda size, byte=byte: bytes([byte]) * size)
        made = new_id()
        assert re.fullmatch("[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", made)
        rand = int.from_bytes(bytes([byte]) * 10, "big")
        assert int(made, 16) >> 64 & 0xFFF == rand >> 68
        assert int(made, 16) & (2**60 - 1) == rand >> 4 & (2**60 - 1)
    monkeypatch.undo()
    assert len({new_id() for _ in range(1000)}) == 1000


@given(
    st.sampled_from(("o", "{a}", "x{a}y", "{a}/{b}", "{a}-{b}-", "\\1{a}")),
    st.dictionaries(st.sampled_from("ab"), scalars),
)
def test_a_template_is_filled_slot_by_slot(ident: str, args: dict[str, Any]) -> None:
    def fill(match: re.Match[str]) -> str:
        value = args.get(match[1])
        if isinstance(value, str):
            return value
        if isinstance(value, bool | int):
            return canonical(value)
        raise RequestInvalid("resource_unresolved", match[1])

    template = ResourceTemplate("T::" + ident, "T", ident)
    got = outcome(lambda: template.resolve(args))
    wanted = outcome(lambda: EntityUid("T", re.sub(r"\{([A-Za-z_][A-Za-z0-9_]*)\}", fill, ident)))
    if isinstance(wanted, EntityUid):
        assert got == wanted
    else:
        assert got[0] is wanted[0]
        assert wanted[0] is NotCanonical or f"`{wanted[1]}`" in got[1]


def test_a_request_is_judged_by_what_is_given_and_otherwise_the_same() -> None:
    request = request_of(args={"n": 3})
    bound = replace(request, bound=(request.args, '{"n":3}'))
    got = bound.judged_by({"calls": 7}, {"cycles": {}}, "x")
    assert got == replace(bound, session_state={"calls": 7}, limits={"cycles": {}})
    assert (got.attempts, got.is_bound, bound.attempts) == ("x", True, None)
    assert bound.session_state == request.session_state


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5, minutes=30))])
def test_a_moment_is_written_in_utc(zone: Any) -> None:
    moment = datetime(2026, 11, 23, 4, 5, 6, 7999, tzinfo=zone)
    assert timestamp(moment) == moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.007Z")
