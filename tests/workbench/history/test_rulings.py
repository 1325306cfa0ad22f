"""Rulings over masks are those of the runtime's fold, for every combination of satisfied and erring policies."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.bundle import Bundle, bundle_from_files
from runtime.entities import EntityUid
from runtime.policy import Decision, Derive, Prepared, decide
from runtime.request import Request, ResourceTemplate
from runtime.ruling import Answer, PolicyFault
from workbench.history.rulings import RULED, combinations, ruled

SCHEMA = """
entity Agent, Thing;
action "act" appliesTo { principal: [Agent], resource: [Thing], context: { args: { n?: Long } } };
"""
HEADS = {
    "permit": "permit",
    "plain": "forbid",
    "approve": '@verdict("approve") @approvers("Agent::\\"boss\\"") forbid',
    "modify": '@verdict("modify") @patch("{\\"n\\": 1}") forbid',
}


def bundle_of(*kinds: str) -> Bundle:
    """One policy a kind; ids are such that their order is not that of the bits."""
    text = "".join(
        f'@id("{(i * 37) % 101}-{kind}") {HEADS[kind]} (principal, action, resource);\n'
        for i, kind in enumerate(kinds)
    )
    return bundle_from_files({"p.cedar": text, "schema.cedarschema": SCHEMA}, "t")


def masks_of(rows: list[tuple[set[int], set[int]]], count: int) -> pl.DataFrame:
    """Masks of rows of (satisfied, erring) numbers, in as many words as `count` policies take."""

    def word(numbers: set[int], index: int) -> int:
        return sum(1 << (n % 64) for n in numbers if n // 64 == index)

    words = range((count + 63) // 64)
    columns = {
        f"{kind}_{index}": [word(row[k], index) for row in rows]
        for k, kind in enumerate(("satisfied", "errored"))
        for index in words
    }
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.UInt64))


REQUEST = Request(
    decision_id="d",
    session_id="s",
    step=0,
    tenant="t",
    principal=EntityUid("Agent", "a"),
    on_behalf_of=None,
    scopes=(),
    tool="act",
    resource=ResourceTemplate.parse("Thing::x"),
    required_scopes=(),
    args={},
    idempotency_key=None,
    at=datetime(2026, 11, 22, tzinfo=UTC),
    session_state={"calls": 0},
)


def decided(satisfied: set[str], erring: set[str], bundle: Bundle) -> Decision | None:
    """Drive the runtime's own fold with the answer that Cedar would give; null: it goes on to patch."""
    permits = sorted(i for i in satisfied if bundle.policies[i].effect == "permit")
    forbids = sorted(i for i in satisfied if bundle.policies[i].effect == "forbid")
    allowed = bool(permits) and not forbids
    faults = tuple(PolicyFault(i, "") for i in sorted(erring))
    reasons = tuple(permits if allowed else forbids)
    answer = Answer("Allow" if allowed else "Deny", reasons, faults, permitted=bool(permits))
    fold = decide(REQUEST, bundle)
    assert isinstance(next(fold), Derive)
    fold.send(Prepared(args={}))
    try:
        fold.send(answer)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # what `decide` returns
    except AssertionError:
        return None  # it looks for the case to patch, and there is none here
    raise AssertionError("the fold asks for a second evaluation that nothing led to")


def row_of(decision: Decision) -> dict[str, Any]:
    assert decision.answer is not None
    return {
        "verdict": decision.verdict,
        "decided_by": decision.decided_by,
        "reason_code": decision.reason_code,
        "reason": decision.reason,
        "cedar_decision": decision.answer.decision,
        "cedar_reasons": list(decision.answer.reasons),
        "determining": list(decision.determining),
        "errors": [fault.policy for fault in decision.errors],
    }


MIXED = bundle_of("permit", "plain", "approve", "modify", "permit", "approve", "modify", "plain")
WIDE = bundle_of(*(["approve"] * 30 + ["permit"] * 40 + ["plain"] * 30))


def check(bundle: Bundle, rows: list[tuple[set[int], set[int]]]) -> None:
    ids = list(bundle.policies)
    found = ruled(masks_of(rows, len(ids)), ids, bundle.policies)
    assert found.schema == dict(RULED)
    assert found.height == len(rows)
    for (satisfied, erring), row in zip(rows, found.iter_rows(named=True), strict=True):
        decision = decided({ids[n] for n in satisfied}, {ids[n] for n in erring}, bundle)
        if decision is None:
            modifies = sorted(ids[n] for n in satisfied if bundle.policies[ids[n]].verdict == "modify")
            assert (row["verdict"], row["reason_code"], row["determining"]) == (
                "modify",
                "modified",
                modifies,
            )
        else:
            assert row == row_of(decision)


def rows_over(count: int) -> st.SearchStrategy[list[tuple[set[int], set[int]]]]:
    numbers = st.sets(st.integers(0, count - 1))
    # A policy is satisfied, in error, or neither.
    row = st.tuples(numbers, numbers).map(lambda both: (both[0] - both[1], both[1]))
    return st.lists(row, max_size=20)


@given(rows_over(len(MIXED.policies)))
def test_every_combination_is_ruled_as_the_runtime_rules_it(rows: list[tuple[set[int], set[int]]]) -> None:
    check(MIXED, rows)


@given(rows_over(len(WIDE.policies)))
def test_policies_beyond_one_word_count(rows: list[tuple[set[int], set[int]]]) -> None:
    check(WIDE, rows)


def test_every_pair_of_masks_of_four_policies() -> None:
    bundle = bundle_of("permit", "plain", "approve", "modify")
    subsets = [{n for n in range(4) if bits >> n & 1} for bits in range(16)]
    check(bundle, [(one, two) for one in subsets for two in subsets if not one & two])


def test_the_sixty_fourth_bit_is_a_policy_like_others() -> None:
    check(WIDE, [({63}, set()), ({64}, set()), (set(), {63}), ({63, 64}, {99})])


def test_a_forbid_that_errs_is_named_without_a_message() -> None:
    bundle = bundle_of("permit", "plain")
    forbid = list(bundle.policies)[1]
    found = ruled(masks_of([({0}, {1})], 2), list(bundle.policies), bundle.policies)
    assert found["reason"].to_list() == [f"forbid `{forbid}` could not be evaluated"]
    assert found["cedar_decision"].to_list() == ["Allow"]
    assert found["verdict"].to_list() == ["block"]


def test_no_rows_give_no_rows() -> None:
    found = ruled(masks_of([], 8), list(MIXED.policies), MIXED.policies)
    assert (found.height, found.schema) == (0, dict(RULED))


@pytest.mark.parametrize("rows", [[({0}, set())] * 3, [({0}, set()), ({1}, set()), ({0}, set())]])
def test_equal_rows_share_an_answer(rows: list[tuple[set[int], set[int]]]) -> None:
    found = combinations(masks_of(rows, 2), ["p", "q"], frozenset({"p"}))
    assert len(found.answers) == len({str(row) for row in rows})
    assert [found.answers[code].reasons for code in found.codes] == [
        tuple("pq"[n] for n in satisfied) for satisfied, _ in rows
    ]
