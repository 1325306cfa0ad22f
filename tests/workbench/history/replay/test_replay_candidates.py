"""Candidates of many kinds over one lake: what they would have decided, in columns and by Cedar."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

PERMIT = '@id("permit") permit(principal is Agent, action, resource);\n'
REFUND = 'forbid(principal, action == Action::"refund", resource)'


def forbids(*conditions: str, what: str = REFUND) -> str:
    return PERMIT + "".join(f'@id("f{n}") {what} when {{ {when} }};\n' for n, when in enumerate(conditions))


ANY = "forbid(principal, action, resource)"
ORDER = "forbid(principal, action, resource is Order)"
CANDIDATES = {
    "walks through the owner": forbids("resource has owner && resource.owner has level && resource.owner.level > 2", what=ORDER),
    "climbs from the owner": forbids('resource has owner && resource.owner in Team::"red"', what=ORDER),
    "names an entity with attributes": forbids('Agent::"bot" has level && Agent::"bot".level > 2', what=ANY),
    "names an entity in a hierarchy": forbids('Agent::"ana" in Team::"red" && (principal in Team::"blue" || principal in Agent::"boss")', what=ANY),
    "sets": forbids(
        'context.args has lines && context.args.lines.contains({sku: "a", qty: 1})',
        'context.args has teams && context.args.teams.containsAny([Team::"red", Team::"none"])',
        'context has rows && context.rows.contains({k: "b", v: 2})',
        'context has limits && context.limits.containsAll([1, 5]) && principal has tags && principal.tags.containsAny(["x"])',
        "resource has lines && context.args has lines && resource.lines == context.args.lines",
        "context.args has nums && context.args.nums.isEmpty()",
        "principal has friends && principal.friends.contains(principal)",
    ),
    "extensions": forbids(
        'context.args has addr && context.args.addr.isInRange(ip("10.0.0.0/8"))',
        'context.args has when && context.args.when > datetime("2026-11-22")',
        "context.args has wait && context.now.offset(context.args.wait) < context.now",
        "context.args has price_cents && context.args.price_cents > 120",
        'context.args has color && context.args.color == Color::"red" && principal has cap && principal.cap.lessThan(decimal("5.0"))',
        "principal has net && context.args has addr && context.args.addr.isInRange(principal.net)",
        "principal has pause && context.args has wait && context.args.wait > principal.pause",
        "context has order && context.order has placed && context.order.placed < context.now",
    ),
    "records": forbids(
        "principal has profile && principal.profile has deep && principal.profile.deep has n && principal.profile.deep.n == 1",
        "context.args has box && !(context.args.box has size)",
        "context.args has box && context.args.box has deep && context.args.box.deep has n",
        'principal has profile && principal.profile has city && principal.profile.city like "*\\"*"',
    ),
    "overflows": forbids("principal has level && principal.level * 2 + 1 > 100", what=ANY)
    + f'@id("m") @verdict("modify") @patch("{{\\"amount\\": 7}}") {REFUND} when {{ context.args.amount + 1 > 400 }};\n',
    "an erring permit": PERMIT + '@id("odd") permit(principal, action == Action::"refund", resource) when { context.args.amount * 4 > 0 };\n',
    "on behalf of": forbids("context has on_behalf_of && context.on_behalf_of == principal", what='forbid(principal, action in Action::"reads", resource)')
    + '@id("v") forbid(principal, action == Action::"ping", resource) when { context has on_behalf_of && context.on_behalf_of has level };\n'
    + '@id("u") forbid(principal, action == Action::"refund", resource) when { context has on_behalf_of && context.on_behalf_of == User::"u1" };\n',
    "one role in the other": forbids("principal in resource || resource in principal", what=ANY),
    "no permit for most": '@id("permit") permit(principal in Team::"red", action, resource);\n'
    '@id("p2") permit(principal, action in [Action::"reads"], resource) when { principal has flag && principal.flag };\n',
    "if on roles": forbids('(if context.args.to == "ana" then principal else resource) has level && (if context.args.to == "ana" then principal else resource).level > 2',
                           what='forbid(principal, action == Action::"ping", resource)'),
    "session and tenant": forbids('context.session.calls > 0 || context.tenant == "acme" && context.scopes.contains("x")', what=ANY),
}  # fmt: skip


@pytest.mark.parametrize("name", CANDIDATES)
def test_candidates_over_recorded_contexts(corner: Any, both: Any, kit: Any, name: str) -> None:
    both(corner, policy=kit.bundle(CANDIDATES[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", CANDIDATES)
def test_candidates_over_contexts_compiled_again(corner: Any, both: Any, kit: Any, name: str) -> None:
    """Nothing is missing then, so that nearly every row is decided."""
    bundle = kit.bundle(CANDIDATES[name])
    replay = both(corner, policy=bundle, context=bundle, sources=kit.looked_up(kit.DATA))
    assert replay.counts()["decisions_undecided"] == 0


def test_the_desk_replays_itself(desk: Any, both: Any, kit: Any) -> None:
    replay = both(desk, sources=kit.looked_up(kit.DATA))
    assert replay.counts()["decisions_decided"] == replay.counts()["decisions"]
    assert set(replay.rows["verdict"].unique()) == {"allow", "modify", "approve", "block"}
    assert replay.rows["handed_over"].null_count() > 0.6 * replay.rows.height


TEMPLATES = (
    PERMIT
    + '@id("team") forbid(principal in ?principal, action, resource) when { context.session.calls >= 0 };\n'
    + '@id("one") forbid(principal == ?principal, action == Action::"refund", resource in ?resource);\n'
)
LINKS = """[
  {"template": "team", "id": "team-blue", "values": {"?principal": "Team::\\"blue\\""}},
  {"template": "team", "id": "team-none", "values": {"?principal": "Team::\\"never\\""}},
  {"template": "one", "id": "one-ana", "values": {"?principal": "Agent::\\"ana\\"", "?resource": "Agent::\\"boss\\""}}
]"""


def test_templates_and_links(corner: Any, both: Any, kit: Any) -> None:
    bundle = kit.bundle(TEMPLATES, links=LINKS)
    both(corner, policy=bundle)
    both(corner, policy=bundle, context=bundle, sources=kit.looked_up(kit.DATA))


def test_a_facts_free_candidate_is_decided_in_columns(desk: Any, both: Any, kit: Any) -> None:
    """What is handed over was refused before the stages, is of a patched record, or has the principal for a resource."""
    bundle = kit.bundle(forbids("context.args.amount > 90"))
    replay = both(desk, policy=bundle)
    over = replay.rows.filter(
        pl.col("handed_over").is_not_null() & pl.col("principal").ne_missing(pl.col("resource"))
    )
    assert (
        over["recorded_reason_code"]
        .is_in(["action_undeclared", "idempotency_conflict", "projection_failed", "modified", "args_invalid"])
        .all()
    )


def test_facts_nobody_asked_for_after_a_patch_that_did_not_help(record: Any, both: Any, kit: Any) -> None:
    """The patched request was asked with the same facts; nothing is missing when the recorded policy decides again."""
    policies = (
        PERMIT
        + """
    @id("cut") @verdict("modify") @patch("{\\"amount\\": 1}") forbid(principal, action == Action::"refund", resource) when { context.args.amount > 5 };
    @id("never") forbid(principal, action == Action::"refund", resource) when { context.args.amount == 1 && !(context has order) };
    """
    )
    spec = kit.fact("order", "args.order_id", '["look"]', fields='["refundable"]')
    lake = record(
        kit.bundle(policies, context=spec),
        [kit.Call("refund", {"order_id": "o-1", "amount": n}) for n in (2, 9)],
    )
    both(lake, sources=kit.looked_up(kit.DATA))
