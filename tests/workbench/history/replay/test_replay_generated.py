"""Generated policies over generated facts: columns against Cedar."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LEVEL = ["principal has level", "principal.level"]
REFUND = [
    "context.args.amount > 50", "context.args.amount + 1 > 100", "context.args has rate", 'context.args has rate && context.args.rate.lessThan(decimal("2.0"))',
    "context has order", "context has order && context.args.amount > context.order.refundable", "context has order && context.order has vip && context.order.vip",
    "context has order && context.order has owner && context.order.owner == principal", "context has rows", 'context has rows && context.rows.contains({k: "b", v: 2})',
    "context has limits && context.limits.contains(5)", 'context.args has teams && context.args.teams.contains(Team::"red")', "context.args has who && context.args.who == principal",
    'context.args has who && context.args.who in Team::"red"', "context.args has who && principal has friends && principal.friends.contains(context.args.who)",
    'context.args has note && context.args.note like "*\\"*"', "context.args has box && context.args.box has deep && context.args.box.deep has n", "context.args has price_cents && context.args.price_cents * 2 > 200",
    'context has on_behalf_of && context.on_behalf_of == User::"u1"', 'context.args has color && context.args.color == Color::"red"', "context.args has ok && !context.args.ok",
    'context.args has when && context.args.when >= datetime("2026-11-22T08:00:00Z")', "context.args has addr && context.args.addr.isIpv4()", "context.args has nums && context.args.nums.containsAny([1, -7])",
]  # fmt: skip
ANY = [
    "principal has level && principal.level > 2", "principal has level && principal.level * 3 > 5", "principal has flag && principal.flag", 'principal has boss && principal.boss == Agent::"boss"',
    'principal in Team::"red"', 'principal in Agent::"boss"', "principal has profile && principal.profile has city", 'principal has tags && principal.tags.contains("x")', "context.session.calls > 0",
    "principal has boss && principal.boss has level", 'context.tenant == "acme"', "principal has net && principal.net.isLoopback()", 'principal has cap && principal.cap > decimal("3.0") == false',
]  # fmt: skip
ORDER = [
    "resource has owner && resource.owner == principal", "resource has open && resource.open", "resource has count && resource.count + 1 > 0", 'resource in Team::"red"', "resource in principal", "principal in resource",
    "resource has owner && resource.owner has level && resource.owner.level > 2", 'resource has owner && resource.owner in Agent::"boss"', 'resource has label && resource.label == "L"', 'resource has color && resource.color == Color::"green"',
    'resource has lines && resource.lines.contains({sku: "a", qty: 1})', 'resource == Order::"o-1"',
]  # fmt: skip
ANY = [each for each in ANY if "== false" not in each]
SCOPES = {
    'principal, action == Action::"refund", resource': [*REFUND, *ANY, *ORDER],
    'principal in Team::"red", action == Action::"refund", resource': [*REFUND, *ORDER],
    'principal == Agent::"bot", action, resource is Order': [*ANY, *ORDER],
    'principal, action in Action::"reads", resource is Order': [*ANY, *ORDER],
    'principal, action in [Action::"money", Action::"reads"], resource': ANY,
    "principal is Agent, action, resource": ANY,
}
PATCHES = [
    '{"amount": 7}', '{"amount": 1, "note": "n2"}', '{"note": null}', '{"amount": {"$ref": "context.order.refundable"}}', '{"who": {"$ref": "principal.boss"}}',
    '{"box": {"deep": {"n": 4}}}', '{"box": null}', '{"tags": ["x", "z"]}', '{"color": "blue"}', '{"teams": ["nowhere"]}', '{"order_id": "o-2"}', '{"amount": "x"}',
    '{"when": {"$ref": "context.order.placed"}}', '{"nums": []}', '{"lines": [{"sku": "a", "qty": 1}]}',
]  # fmt: skip


@st.composite
def policy(draw: st.DrawFn, number: int) -> str:
    """One policy over the desk's schema."""
    scope = draw(st.sampled_from(sorted(SCOPES)))
    parts = draw(st.lists(st.sampled_from(SCOPES[scope]), min_size=1, max_size=3))
    joined = f" {draw(st.sampled_from(['&&', '||']))} ".join(
        f"({draw(st.sampled_from(['', '!']))}({part}))" for part in parts
    )
    kind = draw(st.sampled_from(["permit", "forbid", "forbid", "modify", "approve"]))
    head, when = f'@id("p{number}") ', draw(st.sampled_from(["when", "unless"]))
    if kind == "modify":
        patch = draw(st.sampled_from(PATCHES)).replace('"', '\\"')
        scope = 'principal, action == Action::"refund", resource' if scope.count("refund") == 0 else scope
        head += f'@verdict("modify") @patch("{patch}") '
    if kind == "approve":
        head += '@verdict("approve") '
    return f"{head}{'permit' if kind == 'permit' else 'forbid'}({scope}) {when} {{ {joined} }};\n"


@st.composite
def policies(draw: st.DrawFn) -> str:
    made = [draw(policy(number)) for number in range(draw(st.integers(1, 5)))]
    return "".join(made) + draw(st.sampled_from(['@id("all") permit(principal, action, resource);\n', ""]))


def _agree(corner: Any, both: Any, kit: Any, text: str) -> None:
    bundle = kit.bundle(text)
    both(corner, policy=bundle)
    both(corner, policy=bundle, context=bundle, sources=kit.looked_up(kit.DATA), recompile=False)


QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]


@pytest.mark.slow
@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=QUIET)
@given(text=policies())
def test_generated_policies(corner: Any, both: Any, kit: Any, text: str) -> None:
    _agree(corner, both, kit, text)


@pytest.mark.fuzz
@settings(max_examples=150, deadline=None, suppress_health_check=QUIET)
@given(text=policies())
def test_generated_policies_at_length(corner: Any, both: Any, kit: Any, text: str) -> None:
    _agree(corner, both, kit, text)


def _facts(pick: random.Random) -> dict[str, dict[str, Any]]:
    """Facts about few entities that refer to each other, some of which do not fit."""
    names = ["bot", "ana", "boss", "none"]

    def maybe(value: Any, odd: Any = None) -> Any:
        return pick.choice(
            [value, value, value, None, *([] if odd is None or pick.random() < 0.7 else [odd])]
        )

    def agent() -> dict[str, Any]:
        return {
            "level": maybe(pick.randint(-3, 9), "x"), "cap": maybe(pick.choice([1, 2.5, "3.1"]), "1.00001"), "boss": maybe(pick.choice(names)),
            "tags": maybe(pick.sample(["x", "y", "z"], 2)), "friends": maybe(pick.sample(names, 2)), "flag": maybe(pick.random() < 0.5),
            "profile": maybe({"grade": maybe(1), "city": maybe("Ulm"), "deep": maybe({"n": maybe(1)})}), "net": maybe("10.0.0.1"),
        }  # fmt: skip

    def order() -> dict[str, Any]:
        return {
            "owner": maybe(pick.choice(names)), "open": maybe(pick.random() < 0.5), "amount": maybe("1.5"), "color": maybe("red", "blue"), "label": maybe("L"),
            "count": maybe(pick.choice([1, 2**63 - 1])), "lines": maybe([{"sku": "a", "qty": pick.randint(1, 2)}]), "holder": maybe(pick.choice([*names, ["ana", "bot"]])),
            "team": maybe(pick.choice(["red", "blue"])),
        }  # fmt: skip

    orders = ["o-1", "o-2", "zed"]
    return {
        "agent": {name: agent() for name in names if pick.random() < 0.8},
        "owned": {name: order() for name in orders if pick.random() < 0.8},
        # Nobody is above themselves: Cedar takes no circles.
        "chain": {"bot": {"team": maybe(["red", "blue"]), "chief": maybe("boss")}, "ana": {"team": "red", "chief": maybe("bot")}},
        "order": {name: {"refundable": maybe(pick.randint(0, 200)) or 5, "owner": maybe("ana"), "vip": maybe(True), "placed": maybe("2026-01-01")} for name in orders},
        "limits": {"bot": [{"n": pick.randint(1, 5)} for _ in range(2)]},
        "rows": {"n1": [{"k": "b", "v": 2}]},
    }  # fmt: skip


def _calls(kit: Any, pick: random.Random) -> list[Any]:
    names, orders = ["bot", "ana", "boss", "none"], ["o-1", "o-2", "zed"]
    return [
        kit.Call(
            "refund",
            {
                "order_id": pick.choice(orders),
                "amount": pick.choice([5, 60, 120]),
                "note": "n1",
                "who": pick.choice(names),
            },
            pick.choice(names),
        )
        for _ in range(16)
    ] + [
        kit.Call("look", {"order_id": pick.choice(orders)}, pick.choice(names), ("Agent", pick.choice(names)))
        for _ in range(6)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.fuzz) for seed in range(2, 40))])
def test_generated_facts(record: Any, both: Any, kit: Any, seed: int) -> None:
    pick = random.Random(seed)
    sources = kit.looked_up(_facts(pick))
    lake = record(kit.bundle(kit.POLICIES), _calls(kit, pick), sources)
    both(lake, sources=sources)
    scope = 'principal, action in [Action::"refund", Action::"look"], resource is Order'
    for every in (ORDER, ANY):
        parts = [
            f'@id("f{n}") forbid({scope}) when {{ {part} }};' for n, part in enumerate(pick.sample(every, 3))
        ]
        bundle = kit.bundle(kit.PERMIT + "\n".join(parts))
        both(lake, policy=bundle)
        both(lake, policy=bundle, context=bundle, sources=sources)
