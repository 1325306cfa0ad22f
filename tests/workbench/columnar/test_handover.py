"""Policies the compiler does not take: asked of Cedar, that policy alone, and said so in the answer."""

from __future__ import annotations

import json
from typing import Any

import cedarpy
import polars as pl
import pytest

from runtime.entities import Entity, EntityUid, Slice
from runtime.policy import Case
from runtime.schema import CedarSchema, parse_schema
from workbench.columnar import ColumnarAnswers, decide_cases, policy_tree
from workbench.columnar.frames import compile_group
from workbench.errors import UnsupportedPolicy

ANN, BOB, VIEW, DOC = (
    EntityUid("U", "ann"),
    EntityUid("U", "bob"),
    EntityUid("Action", "view"),
    EntityUid("D", "d"),
)


def many(first: int = 0, depth: int = 7) -> str:
    """A record of one of 128 shapes: more alternatives than the compiler keeps apart."""
    if depth == 0:
        return f"{{k{first}: {first}, n: {first}}}"
    low, high = many(2 * first, depth - 1), many(2 * first + 1, depth - 1)
    return f"(if context.n < {first * 2**depth + 2 ** (depth - 1)} then {low} else {high})"


TOO_MANY = f"{many()}.n == context.n"
"""True of 0…127."""
SLICES = [Slice((Entity(ANN, {"level": level}), Entity(VIEW))) for level in (1, 2)]
CASES = [
    Case(who, VIEW, DOC, {"n": n}, SLICES[n % 2]) for n in (0, 5, 127, 128, -3) for who in (ANN, BOB)
] + [Case(ANN, VIEW, DOC, {}, SLICES[0])]
TEXT = f"""
permit(principal == U::"ann", action, resource) when {{ {TOO_MANY} }};
permit(principal, action, resource) when {{ principal.level == 2 }};
forbid(principal == U::"ann", action, resource) when {{ context.n > 100 && {TOO_MANY} }};
forbid(principal, action, resource) when {{ context.n == 5 }};
"""


def asked(case: Case, text: str) -> tuple[str, list[str], list[str]]:
    uids = {"principal": case.principal, "action": case.action, "resource": case.resource}
    request = {name: str(uid) for name, uid in uids.items()} | {"context": json.dumps(case.context)}
    entities = json.dumps([each.json() for each in case.slice.entities])
    result = cedarpy.is_authorized(request, text, entities)
    errors = {each.split("`")[1] for each in result.diagnostics.errors}
    return result.decision.value, sorted(result.diagnostics.reasons), sorted(errors)


def told(found: ColumnarAnswers, row: int) -> tuple[str, list[str], list[str]]:
    answer = found.answer(row)
    return answer.decision, list(answer.reasons), list(answer.errors)


def test_cedar_is_asked_of_the_policies_that_are_not_compiled_and_of_no_others() -> None:
    found = decide_cases(CASES, cedarpy.PolicySet.from_str(TEXT), schema=None)
    assert [told(found, row) for row in range(len(CASES))] == [asked(case, TEXT) for case in CASES]
    assert not found.handed_over
    assert set(found.policies_handed_over) == {"policy0", "policy2"}
    assert all(why.startswith("alternatives: ") for why in found.policies_handed_over.values())
    of_ann = [row for row, case in enumerate(CASES) if case.principal == ANN]
    assert found.asked == dict.fromkeys(of_ann, ("policy0", "policy2"))
    frame = found.verdicts.frame
    assert frame["policies_asked"].to_list() == [2 if row in of_ann else 0 for row in range(len(CASES))]
    assert frame["decided_columnar"].to_list() == [row not in of_ann for row in range(len(CASES))]


def test_a_strict_run_names_policy_and_node() -> None:
    with pytest.raises(UnsupportedPolicy, match="64 possible types") as refused:
        decide_cases(CASES, cedarpy.PolicySet.from_str(TEXT), schema=None, strict=True)
    assert (refused.value.policy_id, refused.value.node) == ("policy0", "alternatives")


def test_a_strict_run_takes_what_applies_to_no_row() -> None:
    others = [case for case in CASES if case.principal == BOB]
    permits = f"permit(principal is G, action, resource) when {{ {TOO_MANY} }}; permit(principal, action, resource);"
    found = decide_cases(others, cedarpy.PolicySet.from_str(permits), schema=None, strict=True)
    assert found.answer(0).reasons == ("policy1",)


SCHEMA = "entity U { level: Long }; entity D; action view appliesTo { principal: U, resource: D, context: { n?: Long } };"


@pytest.mark.parametrize("schema", [None, parse_schema(SCHEMA)], ids=["inferred", "declared"])
def test_rows_that_cedar_refuses_stay_handed_over_by_row(schema: CedarSchema | None) -> None:
    bad = Case(ANN, VIEW, DOC, {"n": 1.5}, SLICES[0])
    entities = Slice((Entity(ANN, {"level": 1.5}),))
    cases = [*CASES, bad, Case(ANN, VIEW, DOC, {"n": 1}, entities)]
    found = decide_cases(cases, policy_tree(TEXT), schema=schema)
    assert list(found.handed_over) == [len(CASES), len(CASES) + 1]
    assert told(found, 0) == asked(CASES[0], TEXT)


def test_links_and_far_policies_keep_their_bits() -> None:
    text = f"permit(principal == ?principal, action, resource) when {{ {TOO_MANY} }};" + "".join(
        f"permit(principal, action, resource) when {{ context.n == {n} }};" for n in range(69)
    )
    links = [
        {"template_id": "policy0", "new_id": f"link `{who}`", "values": {"?principal": f'U::"{who}"'}}
        for who in ("ann", "bob")
    ]
    policies = cedarpy.PolicySet.from_str(text).with_linked_batch(links)
    found = decide_cases(CASES, policies, schema=None)
    assert found.answer(0).reasons == ("link `ann`", "policy1")
    assert found.answer(3).reasons == ("link `bob`", "policy6")
    assert found.answer(8).reasons == ()
    assert found.answer(10).errors == ("link `ann`", *sorted(f"policy{n}" for n in range(1, 70)))


def test_a_policy_that_cannot_run_is_asked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polars gives up on a plan: the policies that do it are found, the others stay in columns."""

    def fragile(key: Any, context: Any, policies: Any, world: Any) -> Any:
        if any("level" in str(policy.template.clauses) for policy in policies):
            raise pl.exceptions.ComputeError("too much")
        return compile_group(key, context, policies, world)

    monkeypatch.setattr("workbench.columnar.engine.compile_group", fragile)
    text = TEXT.replace(TOO_MANY, "context.n == 0")
    found = decide_cases(CASES, cedarpy.PolicySet.from_str(text), schema=None)
    assert found.policies_handed_over == {"policy1": "ComputeError: too much"}
    assert [told(found, row) for row in range(len(CASES))] == [asked(case, text) for case in CASES]
