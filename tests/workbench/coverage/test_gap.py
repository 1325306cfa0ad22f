"""The third story: the evaluation passed, and production met a context nobody had tested."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from workbench.covering import Coverage, CoverageGap, coverage
from workbench.errors import NotComparable

if TYPE_CHECKING:
    from workbench.lake import Lake


@pytest.fixture(scope="module")
def production(lake: Lake) -> Coverage:
    return coverage(lake)


@pytest.fixture(scope="module")
def gap(production: Coverage, tested: Lake) -> CoverageGap:
    return production.against(coverage(tested))


def test_only_coverage_is_compared_with(production: Coverage, tested: Lake) -> None:
    with pytest.raises(NotComparable, match=r"not with a Lake; give `wb\.coverage\(lake\)`"):
        production.against(tested)  # type: ignore[arg-type]


def told(gap: CoverageGap, kind: str) -> dict[tuple[str, str], tuple[int, int]]:
    rows = gap.frame.filter(kind=kind).collect().iter_rows(named=True)
    return {(row["tool"] or row["policy"], row["what"]): (row["decisions"], row["of"]) for row in rows}


def test_tools_and_endings(gap: CoverageGap) -> None:
    assert told(gap, "tool") == {("look", "was never called"): (1, 1), ("shell", "was never called"): (1, 1)}
    endings = {what: n for (_, what), n in told(gap, "ending").items()}
    once = (1, 10)
    assert endings == {
        "policy: forbidden": (3, 10), "request: args_invalid": once, "request: projection_failed": once,
    }  # fmt: skip


def test_policies_and_clauses(gap: CoverageGap) -> None:
    assert told(gap, "policy") == {
        ("huge", "was satisfied"): (1, 10), ("huge", "decided"): (1, 10),
        ("over", "was satisfied"): (2, 10), ("over", "decided"): (2, 10),
    }  # fmt: skip
    either = 'context.args.note == "ok" || context.args.note like "boss*"'
    assert told(gap, "clause") == {
        ("huge", "context.args.amount_cents > 9000 is true"): (1, 10),
        ("over", "context has order is false"): (1, 10),
        ("over", "context.args has note is false"): (1, 10),
        ("over", f"{either} is false"): (1, 10),
        ("over", 'context.args.note == "ok" is false'): (2, 10),
        ("over", 'context.args.note like "boss*" is true'): (1, 10),
        ("over", 'context.args.note like "boss*" is false'): (1, 10),
    }


def test_boundaries_shapes_and_values(gap: CoverageGap) -> None:
    assert told(gap, "boundary") == {
        ("huge", "context.args.amount_cents is 9000"): (1, 10),
        ("huge", "context.args.amount_cents is above 9000"): (1, 10),
        ("over", 'context.args.note is not "ok"'): (2, 10),
    }
    assert told(gap, "fact") == {("refund", "order none"): (1, 10)}
    assert ("refund", "Agent on Order for nobody: order none") in told(gap, "context")
    assert told(gap, "arguments") == {}
    values = {what: n for (_, what), (n, _) in told(gap, "value").items()}
    assert values["context.args.amount_cents is above 600"] == 2
    assert values["context.order.refundable_cents is absent"] == 1
    assert values['context.args.order_id is "o-9"'] == 1
    assert values['context.args.note is "boss"'] == 1
    assert "context.args.amount_cents is below 50" not in values


def test_worst_first_with_examples_of_production(gap: CoverageGap, lake: Lake) -> None:
    rows = gap.frame.collect()
    assert rows["decisions"].is_sorted(descending=True)
    row = rows.row(by_predicate=(pl.col("kind") == "fact"), named=True)
    args = lake.decisions.filter(pl.col("decision_id").is_in(row["examples"])).select("args").collect()
    assert args["args"].to_list() == ['{"amount_cents":500,"note":null,"order_id":"o-9"}']
    assert gap.unseen_contexts == 5  # look, shell, no order, and two that did not project: one shape each


def test_nothing_is_missing_from_itself(production: Coverage) -> None:
    same = production.against(production)
    assert same.rows.is_empty()
    assert "The evaluation (12 decisions) exercised everything that production (12 decisions) did." in repr(
        same
    )


def test_other_policies_are_compared_by_their_text(production: Coverage, tested: Lake, desk: Any) -> None:
    policies = (
        '@id("read") permit (principal, action, resource);\n'
        '@id("huge") forbid (principal, action == Action::"refund", resource)\n'
        "when { context.args.amount_cents > 100 };\n"
    )
    found = production.against(coverage(tested, desk.bundle("other", policies)))
    rows = found.frame.filter(kind="clause", policy="huge").select("what", "known").collect().rows()
    assert rows == [
        ("context.args.amount_cents > 9000 is false", False), ("context.args.amount_cents > 9000 is true", False),
    ]  # fmt: skip
    assert found.frame.filter(kind="policy", policy="over").collect()["known"].any() is False
    assert "decided by different policies" in repr(found)


def test_faces(gap: CoverageGap) -> None:
    assert "Production (12 decisions) met" in repr(gap)
    assert "5 decisions had a tool or a shape of context that was never tested" in repr(gap)
    assert "Met in production, never in the evaluation" in repr(gap)
    assert "| shape of context | refund |" in gap.markdown()
    document = json.loads(json.dumps(gap.as_dict()))
    assert document["production"]["decisions"] == 12
    assert len(document["gaps"]) == gap.rows.height
