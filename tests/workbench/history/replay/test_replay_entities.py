"""Entities that meet: parents, owners and users who are the principal or the resource themselves."""

from __future__ import annotations

from typing import Any

import pytest

from workbench.errors import UnsupportedPolicy

SCHEMA = """
entity Team; entity Color enum ["red", "green"];
entity Agent in [Agent, Team] = { level?: Long, boss?: Agent };
entity Doc in [Agent, Doc, Team] = { owner?: Agent, level?: Long, color?: Color };
action edit appliesTo { principal: [Agent], resource: [Doc], context: {
  args: { doc: String, n?: Long, who?: Agent, teams?: Set<Team>, color?: Color }, on_behalf_of?: Agent } };
action call appliesTo { principal: [Agent], resource: [Agent], context: { args: { to: String }, on_behalf_of?: Agent } };
"""
RESOURCES = {"edit": "Doc::{doc}", "call": "Agent::{to}"}
PERMIT = '@id("permit") permit(principal, action, resource);\n'


def spec(kit: Any) -> str:
    said = [
        kit.fact("agents", "principal.id", fields='["level", "boss"]', parents='{ team = "Team", chief = "Agent" }', into='"principal"'),
        kit.fact("docs", "resource.id", '["edit"]', fields='["owner", "color"]', parents='{ holder = "Agent", team = "Team", folder = "Doc" }', into='"resource"'),
        kit.fact("levels", "resource.id", '["edit"]', fields='["level"]', into='"resource"'),
        kit.fact("others", "resource.id", '["call"]', fields='["level", "boss"]', parents='{ team = "Team", chief = "Agent" }', into='"resource"'),
    ]  # fmt: skip
    return "".join(said)


AGENTS = {
    "ana": {"level": 3, "boss": "bo", "team": "red", "chief": "bo"},
    "bo": {"level": 9, "boss": "bo"},
    "cy": {"level": 1, "chief": "ana"},
}
DOCS = {
    "mine": {"owner": "ana", "color": "red", "holder": "ana", "team": "red"},
    "other": {"owner": "bo", "holder": "bo", "folder": "mine"},
    "loose": {},
    "ana": {"owner": "ana", "color": "green"},
}
DATA = {
    "agents": AGENTS,
    "docs": DOCS,
    "levels": {"mine": {"level": 7}, "ana": {"level": 5}},
    "others": AGENTS,
}


@pytest.fixture
def office(record: Any, kit: Any) -> Any:
    """Records calls of the office under policies, returns the lake."""

    def made(policies: str, calls: list[Any], data: Any = DATA) -> Any:
        bundle = kit.bundle(policies, SCHEMA, spec(kit))
        return record(bundle, calls, kit.looked_up(data), resources=RESOURCES)

    return made


def calls(kit: Any) -> list[Any]:
    docs = [
        kit.Call("edit", {"doc": doc}, who)
        for doc in ("mine", "other", "loose", "ana", "new")
        for who in ("ana", "bo", "cy")
    ]
    behalf = [kit.Call("edit", {"doc": "mine"}, "ana", ("Agent", who)) for who in ("ana", "bo", "new")]
    agents = [kit.Call("call", {"to": to}, who) for to in ("ana", "bo", "new") for who in ("ana", "cy")]
    return docs + behalf + agents + [kit.Call("call", {"to": "bo"}, "ana", ("Agent", "bo"))]


def test_a_parent_that_is_a_role_and_a_user_who_is_one_reproduce_in_columns(
    office: Any, both: Any, kit: Any
) -> None:
    """The slice holds the role with its facts once, and nobody bare beside it."""
    lake = office(PERMIT, calls(kit))
    replay = both(lake, columnar=True, allowed=["refused before the stages"], sources=kit.looked_up(DATA))
    assert replay.counts()["decisions_decided"] == 25


WALKING = (
    PERMIT
    + """
@id("owner") forbid(principal, action == Action::"edit", resource) when { resource has owner && resource.owner has level && resource.owner.level > 2 };
@id("climb") forbid(principal, action == Action::"edit", resource) when { resource in Team::"red" && resource in principal };
@id("boss") forbid(principal, action == Action::"call", resource) when { principal has boss && principal.boss has level && principal.boss == resource };
@id("literal") forbid(principal, action, resource) when { Agent::"bo" has level && Agent::"bo".level == 9 && context has on_behalf_of };
@id("user") forbid(principal, action, resource) when { context has on_behalf_of && context.on_behalf_of in Team::"red" };
@id("color") forbid(principal, action == Action::"edit", resource) when { resource has color && resource.color == Color::"green" };
"""
)


def test_policies_that_go_through_references(office: Any, both: Any, kit: Any) -> None:
    lake = office(WALKING, calls(kit))
    both(lake, sources=kit.looked_up(DATA))
    both(
        lake,
        policy=kit.bundle(
            PERMIT + '@id("n") forbid(principal, action, resource) when { resource in principal };',
            SCHEMA,
            spec(kit),
        ),
    )


CIRCLES = {
    "agents": {"ana": {"chief": "bo"}, "bo": {"chief": "ana"}, "cy": {"chief": "cy"}},
    "docs": {},
    "levels": {},
    "others": {"ana": {"chief": "bo"}, "bo": {"chief": "ana"}},
}


@pytest.mark.parametrize("call", [("call", {"to": "bo"}, "ana"), ("edit", {"doc": "x"}, "cy")])
def test_entities_in_a_circle_are_not_decided_in_columns(office: Any, kit: Any, call: Any) -> None:
    """Cedar takes no hierarchy with a circle, whether or not a policy asks for it; nor do columns."""
    lake = office(PERMIT, [kit.Call(*call)], {name: {} for name in DATA})
    bundle = kit.bundle(PERMIT, SCHEMA, spec(kit))
    with pytest.raises(UnsupportedPolicy, match="above each other"):
        lake.replay(
            bundle, context=bundle, sources=kit.looked_up(CIRCLES, "1"), recompile=False, engine="columnar"
        )


PATCHED = (
    PERMIT
    + """
@id("p") @verdict("modify") @patch("{\\"teams\\": [\\"fresh\\", \\"red\\"]}") forbid(principal, action == Action::"edit", resource) when { context.args has n && context.args.n == 1 };
@id("q") @verdict("modify") @patch("{\\"who\\": \\"fresh\\"}") forbid(principal, action == Action::"edit", resource) when { context.args has n && context.args.n == 2 };
@id("s") @verdict("modify") @patch("{\\"color\\": \\"blue\\"}") forbid(principal, action == Action::"edit", resource) when { context.args has n && context.args.n == 3 };
@id("fresh") forbid(principal, action == Action::"edit", resource) when { context.args has teams && context.args.teams.contains(Team::"fresh") };
@id("who") forbid(principal, action == Action::"edit", resource) when { context.args has who && context.args.who == Agent::"fresh" };
"""
)


def test_patches_that_name_entities_nobody_named(office: Any, both: Any, kit: Any) -> None:
    lake = office(PATCHED, [kit.Call("edit", {"doc": "mine", "n": n}, "ana") for n in (0, 1, 2, 3)])
    replay = both(lake, sources=kit.looked_up(DATA))
    assert replay.rows["reason_code"].to_list() == [
        "permitted",
        "patch_insufficient",
        "patch_insufficient",
        "patch_invalid",
    ]


def test_patches_that_make_an_argument_the_principal(office: Any, both: Any, kit: Any) -> None:
    """Before the patch a policy goes to somebody bare, after it to the principal with all their facts."""
    policies = (
        PERMIT
        + """
    @id("p") @verdict("modify") @patch("{\\"who\\": \\"ana\\", \\"n\\": 2}") forbid(principal, action == Action::"edit", resource) when { context.args has n && context.args.n == 1 };
    @id("level") forbid(principal, action == Action::"edit", resource) when { context.args has who && context.args.who has level && context.args.who.level > 2 };
    """
    )
    lake = office(
        policies, [kit.Call("edit", {"doc": "mine", "n": 1, "who": "bo"}, who) for who in ("ana", "cy")]
    )
    replay = both(lake, sources=kit.looked_up(DATA))
    assert replay.rows["reason_code"].to_list() == ["patch_insufficient", "modified"]
    both(
        office(PERMIT, [kit.Call("edit", {"doc": "mine", "n": 1, "who": "bo"}, "ana")]),
        policy=kit.bundle(policies, SCHEMA, spec(kit)),
    )


def test_ids_of_all_kinds(office: Any, both: Any, kit: Any) -> None:
    ids = ["", " ", 'q"q', "a::b", 'Doc::"x"', "o\x00x", "\n", "ü\\", "\U0001f600", "{doc}", "null"]
    data = DATA | {
        "docs": {each: {"owner": each, "holder": each} for each in ids},
        "agents": {each: {"level": 1} for each in ids},
    }
    made = [
        kit.Call("edit", {"doc": doc, "who": who}, who)
        for doc, who in zip(ids, ids[1:] + ids[:1], strict=True)
    ]
    policies = (
        PERMIT
        + '@id("o") forbid(principal, action == Action::"edit", resource) when { resource has owner && context.args has who && resource.owner == context.args.who };'
    )
    lake = office(policies, made, data)
    replay = both(lake, sources=kit.looked_up(data), columnar=True)
    assert replay.counts()["decisions_decided"] == len(ids)


def test_conditions_behind_a_fact_that_nobody_asked_for(office: Any, both: Any, kit: Any) -> None:
    """Without the fact the policy folds away before it goes to the owner; its conditions are asked one by one all the same."""
    calls = [kit.Call("edit", {"doc": doc}, who) for doc in ("mine", "other") for who in ("ana", "cy")]
    data = DATA | {
        "docs": {doc: each | {"color": "red"} for doc, each in DOCS.items()},
        "levels": {"mine": {"level": 7}, "other": {"level": 1}},
    }
    lake = office(PERMIT, calls, data)
    schema = SCHEMA.replace(
        "color?: Color }, on_behalf_of", "color?: Color }, risk?: { n: Long }, on_behalf_of"
    )
    deep = "context has risk && resource has owner && resource.owner has level && resource.owner.level > 2"
    policies = (
        PERMIT + f'@id("deep") forbid(principal, action == Action::"edit", resource) when {{ {deep} }};'
    )
    replay = both(lake, policy=kit.bundle(policies, schema, ""))
    assert replay.rows["status"].to_list() == ["undecided", "decided", "decided", "decided"]
