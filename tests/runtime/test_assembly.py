"""What Cedar is asked with: accepted by Cedar itself under the same schema, and complete."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.context import CompiledContext, assemble, compile_context
from runtime.entities import EntityUid, Slice
from runtime.projection import ProjectionError
from runtime.request import Request, ResourceTemplate
from runtime.schema import parse_schema, with_standard_context
from runtime.sources import CallableSource
from runtime.spec import check_spec, parse_spec

if TYPE_CHECKING:
    from runtime.canonical import Json

SCHEMA = with_standard_context(
    parse_schema("""
entity Role, Team;
entity User in [Role];
entity Agent in [Team] { name?: String, level?: Long };
entity Order in [Team, Agent] {
  total?: decimal, placed?: datetime, owner?: User, codes?: Set<String>,
  @scaled("eur*100") cents?: Long, size?: Size
};
entity Size enum ["small", "large"];
entity Strict { name: String };
action write;
action refund in [write] appliesTo {
  principal: [Agent, User, Strict], resource: [Order, Agent, Strict],
  context: {
    args: { id?: String },
    payee?: { name: String, trusted?: Bool, limit?: decimal, since?: datetime },
    codes?: Set<String>, people?: Set<{ name: String, n?: Long }>,
    on_behalf_of?: User
  }
};
action plain appliesTo { principal: [Agent], resource: [Order] };
action delegated appliesTo { principal: [Agent], resource: [Order], context: { on_behalf_of: User } };
""")
)
ENGINE = cedarpy.Schema.from_json_str(json.dumps(SCHEMA.to_json()))

SPEC = parse_spec("""
[sources.crm]
kind = "callable"
[[facts]]
name = "payee"
actions = ["refund"]
source = "crm"
key = { what = "args.id" }
fields = ["name", "trusted", "limit", "since"]
shared = true
[[facts]]
name = "codes"
actions = ["refund"]
source = "crm"
fields = ["code"]
shape = "set"
shared = true
[[facts]]
name = "people"
actions = ["refund"]
source = "crm"
fields = ["name", "n"]
shape = "set"
shared = true
[[facts]]
name = "order"
actions = ["plain"]
source = "crm"
fields = ["total", "placed", "owner", "codes", "eur", "size"]
into = "resource"
parents = { teams = "Team" }
shared = true
[[facts]]
name = "agent"
actions = ["plain"]
source = "crm"
fields = ["name", "level"]
into = "principal"
parents = { team = "Team" }
shared = true
""")

BOT, ORDER, ANN = EntityUid("Agent", "bot"), EntityUid("Order", "1"), EntityUid("User", "ann")


def a_request(tool: str = "refund", **changes: Any) -> Request:
    request = Request(
        decision_id="d",
        session_id="s",
        step=0,
        tenant="acme",
        principal=BOT,
        on_behalf_of=None,
        scopes=("a", "b"),
        tool=tool,
        resource=ResourceTemplate.parse("Order::1"),
        required_scopes=(),
        args={"id": "x"} if tool == "refund" else {},
        idempotency_key=None,
        at=datetime(2026, 11, 22, 12, 30, 15, 250_000, tzinfo=UTC),
        session_state={"calls": 3},
    )
    return replace(request, **changes)


def facts(request: Request, records: Any, resource: EntityUid = ORDER) -> CompiledContext:
    """Compile every fact from one answer: a record, a list of them, or a function of what is asked."""
    answer = records if callable(records) else lambda where: records
    return compile_context(SPEC, {"crm": CallableSource(answer)}, request, resource)


def asked(
    request: Request, records: Any = None, resource: EntityUid = ORDER, approval: Json = None
) -> tuple[dict[str, Json], Slice]:
    args: Json = dict(request.args)
    return assemble(request, resource, args, facts(request, records, resource), SCHEMA, approval)


def decision(
    request: Request, built: tuple[dict[str, Json], Slice], policy: str = "permit(principal, action, resource);",
    resource: EntityUid = ORDER,
) -> str:  # fmt: skip
    """Ask Cedar, schema and all; an error of a policy is an error of the test."""
    context, found = built
    entities = cedarpy.Entities.from_json_str(found.text, ENGINE)
    asked_for = {
        "principal": request.principal.json(),
        "action": request.action.json(),
        "resource": resource.json(),
        "context": context,
    }
    result = cedarpy.is_authorized(asked_for, cedarpy.PolicySet.from_str(policy), entities, ENGINE)
    assert result.diagnostics.errors == []
    return str(result.decision.value)


def test_the_spec_fits_the_schema() -> None:
    check_spec(SPEC, SCHEMA)


def test_the_context_is_the_request_and_the_facts() -> None:
    request = a_request(on_behalf_of=ANN)
    record = {"name": "Ada", "trusted": None, "limit": "12.50", "since": "2026-01-01", "code": "c", "n": 4}
    context, found = asked(request, record)
    assert context == {
        "args": {"id": "x"},
        "now": {"__extn": {"fn": "datetime", "arg": "2026-11-22T12:30:15.250Z"}},
        "scopes": ["a", "b"],
        "session": {"calls": 3},
        "tenant": "acme",
        "on_behalf_of": {"__entity": {"type": "User", "id": "ann"}},
        "payee": {
            "name": "Ada",
            "limit": {"__extn": {"fn": "decimal", "arg": "12.5"}},
            "since": {"__extn": {"fn": "datetime", "arg": "2026-01-01"}},
        },
        "codes": ["c"],
        "people": [{"name": "Ada", "n": 4}],
    }
    assert {entity.uid for entity in found.entities} == {BOT, ORDER, ANN}
    policy = """permit(principal, action, resource) when {
      context.payee.limit.lessThan(decimal("12.51")) && context.now > context.payee.since &&
      !(context.payee has trusted) && context.codes.contains("c") && context.people.contains({name: "Ada", n: 4}) &&
      context.on_behalf_of == User::"ann" && context.session.calls == 3 && context.scopes.contains("a") };"""
    assert decision(request, (context, found), policy) == "Allow"


def test_facts_that_are_not_there_are_absent() -> None:
    context, _ = asked(a_request())
    assert sorted(context) == ["args", "codes", "now", "people", "scopes", "session", "tenant"]
    assert (context["codes"], context["people"]) == ([], [])
    policy = (
        'permit(principal, action, resource) unless { context has payee || context.codes.contains("c") };'
    )
    assert decision(a_request(), asked(a_request()), policy) == "Allow"


def test_approval_is_there_on_resume() -> None:
    approval: Json = {"approvers": ["ann"], "granted_at": "2026-11-22T10:00:00Z"}
    built = asked(a_request(), approval=approval)
    policy = """permit(principal, action, resource)
      when { context has approval && context.approval.granted_at < context.now };"""
    assert decision(a_request(), built, policy) == "Allow"


def test_facts_become_attributes_and_parents() -> None:
    def records(where: dict[str, Any]) -> Any:
        return {
            "total": "99.90", "placed": "2026-01-01T10:00:00.000Z", "owner": "ann", "codes": ["x", "y"], "eur": "1.5",
            "size": "large", "teams": ["b", "a", "b"], "name": "Bot", "level": None, "team": "a",
        }  # fmt: skip

    context, found = asked(a_request("plain"), records)
    by_uid = {entity.uid: entity for entity in found.entities}
    assert by_uid[ORDER].attrs == {
        "total": {"__extn": {"fn": "decimal", "arg": "99.9"}},
        "placed": {"__extn": {"fn": "datetime", "arg": "2026-01-01T10:00:00.000Z"}},
        "owner": {"__entity": {"type": "User", "id": "ann"}},
        "codes": ["x", "y"],
        "cents": 150,
        "size": {"__entity": {"type": "Size", "id": "large"}},
    }
    assert by_uid[ORDER].parents == (EntityUid("Team", "a"), EntityUid("Team", "b"))
    assert by_uid[BOT].attrs == {"name": "Bot"}
    assert set(by_uid) == {BOT, ORDER, EntityUid("Team", "a"), EntityUid("Team", "b")}
    policy = """permit(principal in Team::"a", action, resource in Team::"b") when {
      resource.cents == 150 && resource.owner == User::"ann" && resource.size == Size::"large" &&
      principal.name == "Bot" && !(principal has level) };"""
    assert decision(a_request("plain"), (context, found), policy) == "Allow"


json_text = st.text(max_size=4) | st.none()
answers = st.fixed_dictionaries(
    {},
    optional={
        "name": json_text,
        "trusted": st.booleans() | st.none(),
        "limit": st.decimals(-1000, 1000, places=2) | st.integers(-1000, 1000) | st.none(),
        "since": st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)) | st.none(),  # noqa: DTZ001
        "code": json_text,
        "n": st.integers(-(2**63), 2**63 - 1) | st.none(),
        "total": st.floats(-100, 100) | st.none(),
        "owner": json_text,
        "codes": st.lists(st.text(max_size=3), max_size=3) | st.none(),
        "eur": st.integers(0, 10**6) | st.floats(0, 1) | st.none(),
        "size": st.sampled_from(["small", "large", "huge", None]),
        "teams": st.lists(json_text, max_size=3) | json_text,
        "team": json_text,
        "level": st.integers() | st.text(max_size=2),
    },
)
uids = st.sampled_from([BOT, ORDER, EntityUid("Agent", "other"), EntityUid("Order", 'a"b\n🙂')])


@given(
    tool=st.sampled_from(["refund", "plain"]),
    record=answers,
    resource=uids,
    behalf=st.sampled_from([None, ANN]),
    approval=st.sampled_from([None, {"approvers": ["x"], "granted_at": "2026-01-01"}]),
)
def test_whatever_is_assembled_cedar_accepts(
    tool: str, record: dict[str, Any], resource: EntityUid, behalf: EntityUid | None, approval: Json
) -> None:
    """Projection refuses, or Cedar decides; there is nothing in between."""
    if tool == "plain" and resource.type != "Order":
        resource = ORDER
    request = a_request(tool, on_behalf_of=behalf)
    try:
        built = asked(request, record, resource, approval)
    except ProjectionError:
        return
    assert decision(request, built, resource=resource) == "Allow"


COMMON = 'actions = ["refund"]\nsource = "crm"\nshared = true\n'


def test_the_same_entity_in_two_roles_is_one() -> None:
    """The agent acts on itself: facts of both roles meet in one entity."""
    spec = parse_spec(
        f'[sources.crm]\nkind = "callable"\n[[facts]]\nname = "a"\nfields = ["name"]\ninto = "principal"\n{COMMON}'
        f'[[facts]]\nname = "b"\nfields = ["level"]\ninto = "resource"\nparents = {{ team = "Team" }}\n{COMMON}'
    )
    request = a_request()
    source = CallableSource(lambda where: {"name": "Bot", "level": 3, "team": "t"})
    compiled = compile_context(spec, {"crm": source}, request, BOT)
    context, found = assemble(request, BOT, {}, compiled, SCHEMA)
    (bot,) = [entity for entity in found.entities if entity.uid == BOT]
    assert (bot.attrs, bot.parents) == ({"name": "Bot", "level": 3}, (EntityUid("Team", "t"),))
    assert decision(request, (context, found), resource=BOT) == "Allow"


def test_two_facts_that_differ_about_one_attribute_are_refused() -> None:
    spec = parse_spec(
        f'[sources.crm]\nkind = "callable"\n[[facts]]\nname = "a"\nfields = ["name"]\ninto = "principal"\n{COMMON}'
        f'[[facts]]\nname = "b"\nfields = ["name"]\ninto = "resource"\n{COMMON}'
    )
    count = iter(range(9))
    source = CallableSource(lambda where: {"name": f"n{next(count)}"})
    compiled = compile_context(spec, {"crm": source}, a_request(), BOT)
    with pytest.raises(ProjectionError, match="name` is given twice, by two facts that differ"):
        assemble(a_request(), BOT, {}, compiled, SCHEMA)


def test_a_parent_that_has_attributes_of_its_own_keeps_them() -> None:
    spec = parse_spec(
        f'[sources.crm]\nkind = "callable"\n[[facts]]\nname = "o"\nfields = ["total"]\ninto = "resource"\n'
        f'parents = {{ agent = "Agent" }}\n{COMMON}'
        f'[[facts]]\nname = "a"\nfields = ["name"]\ninto = "principal"\n{COMMON}'
    )
    source = CallableSource(lambda where: {"total": 5, "agent": "bot", "name": "Bot"})
    compiled = compile_context(spec, {"crm": source}, a_request(), ORDER)
    context, found = assemble(a_request(), ORDER, {}, compiled, SCHEMA)
    assert {entity.uid for entity in found.entities} == {BOT, ORDER}
    policy = 'permit(principal, action, resource) when { resource in principal && principal.name == "Bot" };'
    assert decision(a_request(), (context, found), policy) == "Allow"


def test_on_behalf_of_is_there_only_where_the_action_declares_it() -> None:
    context, found = asked(a_request("plain", on_behalf_of=ANN))
    assert "on_behalf_of" not in context
    assert {entity.uid for entity in found.entities} == {BOT, ORDER}
    stranger = EntityUid("Martian", "m")
    assert decision(a_request("plain"), asked(a_request("plain", on_behalf_of=stranger))) == "Allow"
    with pytest.raises(ProjectionError, match=r"`context\.on_behalf_of` must be an entity of type `User`"):
        asked(a_request(on_behalf_of=stranger))
    with pytest.raises(
        ProjectionError, match=r"`context\.on_behalf_of` is required; declare `on_behalf_of\?:`"
    ):
        asked(a_request("delegated"))


def test_a_candidate_schema_that_does_not_declare_a_fact_does_without() -> None:
    """Replay gives a candidate the facts that were recorded; its policies cannot refer to undeclared ones."""
    smaller = with_standard_context(
        parse_schema(
            "entity Agent, Order, User; action refund, plain appliesTo { principal: [Agent], resource: [Order] };"
        )
    )
    record = {"name": "Ada", "code": "c", "total": 5, "teams": ["a"], "team": "t", "level": 3}
    for tool in ("refund", "plain"):
        request = a_request(tool)
        context, found = assemble(request, ORDER, {}, facts(request, record), smaller)
        assert sorted(context) == ["args", "now", "scopes", "session", "tenant"]
        assert [entity.json() for entity in found.entities if entity.attrs or entity.parents] == []
        cedarpy.Entities.from_json_str(
            found.text, cedarpy.Schema.from_json_str(json.dumps(smaller.to_json()))
        )


@pytest.mark.parametrize(
    ("request_", "resource", "records", "message"),
    [
        (a_request("nothing"), ORDER, None, "`action` must be declared in the schema, got 'nothing'"),
        (a_request(), EntityUid("Martian", "m"), None, "`resource` must be of a type the schema declares"),
        (a_request(principal=EntityUid("Nobody", "n")), ORDER, None, "`principal` must be of a type the schema"),
        (a_request(), EntityUid("Size", "huge"), None, "`resource` must be one of 'small', 'large'"),
        (a_request(), EntityUid("Strict", "s"), None, "`resource.name` is required"),
        (a_request(principal=EntityUid("Strict", "s")), ORDER, None, "`principal.name` is required"),
        (a_request(), ORDER, {"name": 5}, "`context.payee.name` must be a `String`"),
        (a_request(), ORDER, {"trusted": True, "code": "c"}, "`context.payee.name` is required"),
        (a_request(), ORDER, {"name": "x", "limit": 0.12345}, "`context.payee.limit`"),
        (a_request("plain"), ORDER, {"total": "many"}, "`resource.total`"),
        (a_request("plain"), ORDER, {"size": "huge"}, "`resource.size` must be one of"),
        (a_request("plain"), ORDER, {"eur": 0.001}, "`resource.eur`"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(
    request_: Request, resource: EntityUid, records: Any, message: str
) -> None:
    with pytest.raises(ProjectionError) as caught:
        asked(request_, records, resource)
    assert message in str(caught.value)


@pytest.mark.parametrize("teams", [5, [1], {"a": 1}, True])
def test_parents_must_be_ids(teams: Any) -> None:
    compiled = facts(a_request("plain"), {"teams": teams, "team": "x"})
    assert compiled.facts["order"].code == "source_failed"
    assert "column `teams` must hold ids" in str(compiled.facts["order"].message)


def test_recorded_facts_assemble_to_the_same_bytes() -> None:
    """Live and replayed must not differ because a number went through JSON text."""
    request = a_request()
    record = {"name": "Ada", "limit": 5.0, "n": 7.0, "code": "c"}
    live = facts(request, record)
    replayed = CompiledContext.from_content(live.content)
    assert assemble(request, ORDER, {}, live, SCHEMA) == assemble(request, ORDER, {}, replayed, SCHEMA)


def test_what_was_measured_of_cedarpy() -> None:
    """Entities parsed without the schema lack the action hierarchy, silently. Fails when cedarpy changes."""
    request = a_request()
    context, found = asked(request)
    policies = cedarpy.PolicySet.from_str('permit(principal, action in Action::"write", resource);')
    asked_for = {
        "principal": BOT.json(),
        "action": request.action.json(),
        "resource": ORDER.json(),
        "context": context,
    }

    def answer(entities: Any) -> str:
        result = cedarpy.is_authorized(asked_for, policies, entities, ENGINE)
        assert result.diagnostics.errors == []
        return str(result.decision.value)

    assert answer(cedarpy.Entities.from_json_str(found.text, ENGINE)) == "Allow"
    assert answer(cedarpy.Entities.from_json_str("[]", ENGINE).with_added_json_str(found.text)) == "Allow"
    assert answer(found.text) == "Allow"
    assert answer(cedarpy.Entities.from_json_str(found.text)) == "Deny"
