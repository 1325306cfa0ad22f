"""Missing is not false: a verdict is given only if every value of what is missing gives it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.bundle import Bundle, bundle_from_files
from runtime.cedar import ask_batch, evaluate
from runtime.entities import Entity, EntityUid, Slice
from runtime.policy import Case
from runtime.ruling import Ruling, flags_of, rule
from workbench.atoms import atoms_of
from workbench.undecided import possible as _possible

SCHEMA = """
entity Agent in [Agent] = { level?: Long };
entity Order;
action look, bank;
action "pay" in [bank] appliesTo {
  principal: [Agent], resource: [Order],
  context: { args: { n: Long }, order?: { known: Bool, cents?: Long }, other?: { flag: Bool }, owner?: Agent }
};
"""


def bundle_of(policies: str) -> Bundle:
    text = "".join(
        f'@id("p{i}") {part.strip()};\n' for i, part in enumerate(policies.split(";")) if part.strip()
    )
    return bundle_from_files({"p.cedar": text, "schema.cedarschema": SCHEMA}, "t")


def case_of(n: int = 1, **facts: Any) -> Case:
    context = {
        "args": {"n": n},
        "now": {"__extn": {"fn": "datetime", "arg": "2026-11-22T10:00:00Z"}},
        "scopes": [],
        "tenant": "t",
        "session": {"calls": 0},
        **facts,
    }
    agent, order = EntityUid("Agent", "a"), EntityUid("Order", "o")
    return Case(agent, EntityUid("Action", "pay"), order, context, Slice.of([Entity(agent), Entity(order)]))


def possible_rulings(case: Case, bundle: Bundle, missing: Any, lifted: frozenset[str]) -> frozenset[Ruling]:
    store = cedarpy.Entities.from_json_str(case.slice.text, bundle.cedar_schema)
    told = ask_batch([case], store, atoms_of(bundle).engine, bundle.cedar_schema)[0]
    return _possible(told, bundle, missing, lifted).rulings


PERMIT = "permit(principal, action, resource);"
FORBID = "forbid(principal, action, resource)"


def verdicts(policies: str, *missing: str, n: int = 1) -> set[str]:
    return {r.verdict for r in possible_rulings(case_of(n), bundle_of(policies), missing, frozenset())}


def test_the_silent_case_of_cedar_is_not_silent() -> None:
    policies = f"{PERMIT} {FORBID} when {{ context has order && context.order.known }}"
    bundle = bundle_of(policies)
    assert evaluate(case_of(), bundle).decision == "Allow"  # what Cedar alone says of the absent fact
    assert {r.verdict for r in possible_rulings(case_of(), bundle, ["context.order"], frozenset())} == {
        "allow",
        "block",
    }


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        (f"{PERMIT} {FORBID} when {{ context.args.n > 5 && context has order }}", {"allow"}),
        (
            f"{PERMIT} {FORBID} when {{ context.args.n < 5 }}; {FORBID} when {{ context has order }}",
            {"block"},
        ),
        ("permit(principal, action, resource) when { context has order }", {"allow", "block"}),
        (f'{PERMIT} {FORBID} when {{ action == Action::"look" && context has order }}', {"allow"}),
        (
            f'permit(principal, action in Action::"bank", resource); {FORBID} when {{ false && context has order }}',
            {"allow"},
        ),
        (f"{PERMIT} {FORBID} unless {{ context has order || true }}", {"allow"}),
    ],
)
def test_a_verdict_that_does_not_hang_on_it_is_decided(policies: str, expected: set[str]) -> None:
    assert verdicts(policies, "context.order") == expected


def test_a_missing_attribute_of_the_principal() -> None:
    policies = f"{PERMIT} {FORBID} when {{ principal has level && principal.level > 3 }}"
    assert verdicts(policies, "principal.level") == {"allow", "block"}
    assert verdicts(policies) == {"allow"}


def test_a_missing_member_of_a_recorded_fact() -> None:
    bundle = bundle_of(
        f"{PERMIT} {FORBID} when {{ context has order && context.order has cents && context.order.cents > 3 }}"
    )
    case = case_of(order={"known": True})
    assert {r.verdict for r in possible_rulings(case, bundle, ["context.order.cents"], frozenset())} == {
        "allow",
        "block",
    }


def test_missing_ancestors_matter_where_a_policy_asks_for_them() -> None:
    asks = f'{PERMIT} forbid(principal in Agent::"boss", action, resource)'
    assert verdicts(asks, "principal.parents") == {"allow", "block"}
    inside = f'{PERMIT} {FORBID} when {{ context.args.n > 5 && principal in Agent::"boss" }}'
    assert verdicts(inside, "principal.parents") == {"allow"}
    assert verdicts(inside, "principal.parents", n=6) == {"allow", "block"}
    assert verdicts(PERMIT, "principal.parents") == {"allow"}


def test_an_attribute_reached_through_a_reference_counts() -> None:
    policies = f"{PERMIT} {FORBID} when {{ context has owner && context.owner has level && context.owner.level > 3 }}"
    case = case_of(owner={"__entity": {"type": "Agent", "id": "a"}})
    found = possible_rulings(case, bundle_of(policies), ["principal.level"], frozenset())
    assert {ruling.verdict for ruling in found} == {"allow", "block"}


def test_names_that_nobody_reads_are_not_tried_however_many() -> None:
    found = possible_rulings(case_of(), bundle_of(PERMIT), [f"context.x{i}" for i in range(99)], frozenset())
    assert {ruling.verdict for ruling in found} == {"allow"}


_atoms = st.sampled_from(
    [
        "context has order",
        "context has order && context.order.known",
        "context has other && context.other.flag",
        "context has order && context.order has cents && context.order.cents > 2",
        "context.args.n > 2",
        "context.args.n + 9223372036854775805 > 0",
        "true",
    ]
)
_conditions = st.recursive(
    _atoms,
    lambda inner: (
        st.builds("({} && {})".format, inner, inner)
        | st.builds("({} || {})".format, inner, inner)
        | st.builds("!({})".format, inner)
        | st.builds("(if {} then {} else {})".format, inner, inner, inner)
    ),
    max_leaves=4,
)
_policies = st.lists(
    st.builds(
        "{} when {{ {} }}".format,
        st.sampled_from(["permit(principal, action, resource)", FORBID]),
        _conditions,
    ),
    min_size=1,
    max_size=3,
)
_ORDERS = [
    None,
    *({"known": k, "cents": c} for k in (True, False) for c in (1, 5)),
    {"known": True},
    {"known": False},
]
_OTHERS = [None, {"flag": True}, {"flag": False}]


@given(_policies, st.integers(0, 5), st.sets(st.sampled_from(["order", "other"]), min_size=1))
def test_every_value_leads_to_a_ruling_that_was_called_possible(
    policies: list[str], n: int, missing: set[str]
) -> None:
    bundle = bundle_of(";".join(policies))
    base = case_of(n)
    possible = possible_rulings(base, bundle, [f"context.{name}" for name in sorted(missing)], frozenset())
    for order in _ORDERS if "order" in missing else [None]:
        for other in _OTHERS if "other" in missing else [None]:
            facts: Any = {k: v for k, v in (("order", order), ("other", other)) if v is not None}
            answer = evaluate(replace(base, context={**base.context, **facts}), bundle)
            found = rule(flags_of(answer, bundle.policies))
            assert _fits(found, possible), (found, possible, facts)


def _fits(found: Ruling, possible: frozenset[Ruling]) -> bool:
    return found.verdict in {ruling.verdict for ruling in possible}
