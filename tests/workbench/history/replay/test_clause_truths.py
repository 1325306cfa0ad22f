"""What clauses were for recorded decisions: columns against Cedar, and both against policies cut short."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cedarpy
import polars as pl
import pytest
from cedarpy import pst
from hypothesis import HealthCheck, given, settings

from runtime.bundle import Bundle
from runtime.cedar import ask_batch
from tests.workbench.history.replay.test_replay_candidates import CANDIDATES, LINKS, PERMIT, TEMPLATES
from tests.workbench.history.replay.test_replay_generated import policies
from workbench.explaining.clauses import clauses_of
from workbench.explaining.truths import Told, part_of, truths, truths_of_cases
from workbench.history.caching import contexts_of
from workbench.history.chunk import type_chunk
from workbench.history.deciding import grouped
from workbench.history.records import Records, with_contexts
from workbench.history.run import joined
from workbench.recompile import Recompiler
from workbench.recorded import Recorded, prepare_recorded, recorded_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.policy import Case, Prepared
    from workbench.history.groups import PolicyGroup
    from workbench.lake import Lake

QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]


def groups_of(lake: Lake, bundle: Bundle) -> Iterator[PolicyGroup]:
    """All rows that columns decide by a candidate."""
    contexts = contexts_of(lake)
    for records in Records(lake).chunks():
        rows = joined(records, contexts)
        for (version,), mine in rows.partition_by("bundle_version", as_dict=True).items():
            own = lake.find_bundle(str(version))
            assert own is not None
            alike = own.schema.to_json() == bundle.schema.to_json()
            chunk = type_chunk(mine, contexts, bundle.schema, own=alike)
            for part in chunk.parts:
                found = grouped(part, chunk, contexts, bundle, own=own.policy_hash == bundle.policy_hash)
                yield from found.groups


def records_of(lake: Lake, ids: pl.Series) -> list[Recorded]:
    rows = pl.concat(Records(lake).chunks()).filter(pl.col("decision_id").is_in(ids.implode()))
    rows = pl.DataFrame({"decision_id": ids}).join(rows, on="decision_id", maintain_order="left")
    whole = with_contexts(Records(lake).whole(rows), lake)
    return [Recorded(row, row["context"], row["enforced_context"]) for row in whole.iter_rows(named=True)]


def prepared(recorded: Recorded, bundle: Bundle) -> Prepared:
    return prepare_recorded(recorded, recorded.request.args, bundle, recorded_facts(bundle))


def by_cedar(lake: Lake, ids: pl.Series, bundle: Bundle) -> tuple[list[Case], list[Told]]:
    ready = [prepared(each, bundle) for each in records_of(lake, ids)]
    cases = [(each.case, each.missing) for each in ready if each.case is not None]
    assert len(cases) == len(ids)
    return [case for case, _ in cases], truths_of_cases(cases, bundle, clauses_of(bundle))


def agree(lake: Lake, bundle: Bundle) -> set[str]:
    """Hold columns against Cedar row by row, and Cedar's clauses against policies cut short.

    Returns which truths occurred.
    """
    clauses = clauses_of(bundle)
    seen: set[str] = set()
    engine, steps = cut(bundle)
    held = 0
    for group in groups_of(lake, bundle):
        ids = group.compiled.part.rows["decision_id"].gather(group.rows)
        found = truths(group, clauses)
        cases, told = by_cedar(lake, ids, bundle)
        wanted = [[each.truths[ident, clause.key] for ident, clause in clauses.places] for each in told]
        assert [list(row) for row in found.rows()] == wanted
        seen |= {str(each) for column in found.iter_columns() for each in column.unique()}
        for case, each in zip(cases, told, strict=True):
            held += as_cut_short(each, cut_short(case, bundle, engine, steps))
    assert held
    return seen


def as_cut_short(told: Told, wanted: dict[tuple[str, str], str]) -> int:
    """Policies that nothing missing touches must be as they are cut short. Returns how many clauses that was."""
    open_ = {ident for (ident, _), truth in told.truths.items() if truth == "unknown"}
    kept = {place: truth for place, truth in wanted.items() if place[0] not in open_}
    assert {place: told.truths[place] for place in kept} == kept
    return len(kept)


def cut(bundle: Bundle) -> tuple[cedarpy.PolicySet, list[tuple[str, str, str, str]]]:
    """Policies that end before each clause, and with it: nothing is shared with the fold."""
    made: dict[str, pst.Template] = {}
    steps: list[tuple[str, str, str, str]] = []

    def keep(policy: pst.Template) -> str:
        name = f"p{len(made)}"
        made[name] = replace(policy, id=name, effect="permit", annotations={})
        return name

    for ident, policy in clauses_of(bundle).policies.items():
        anything = pst.Template("", "permit", pst.ScopeAny(), pst.ScopeAny(), pst.ScopeAny(), (), {})
        so_far = anything
        for clause in policy.scope:
            alone = getattr(part_of(policy, clause.place), clause.place)
            steps.append((ident, clause.key, keep(so_far), keep(replace(so_far, **{clause.place: alone}))))
            so_far = replace(so_far, **{clause.place: alone})
        for number, body in enumerate(policy.bodies):
            within = so_far
            for clause in body.clauses:
                assert clause.expr is not None
                with_it = replace(within, clauses=(*within.clauses, pst.When(clause.expr)))
                steps.append((ident, clause.key, keep(within), keep(with_it)))
                within = with_it
            so_far = replace(so_far, clauses=(*so_far.clauses, policy.template.clauses[number]))
    engine = cedarpy.PolicySet.from_pst(pst.PolicySet(templates={}, static_policies=made, template_links=()))
    return engine, steps


def cut_short(
    case: Case, bundle: Bundle, engine: cedarpy.PolicySet, steps: list[tuple[str, str, str, str]]
) -> dict[tuple[str, str], str]:
    store = cedarpy.Entities.from_json_str(case.slice.text, bundle.cedar_schema)
    (answer,) = ask_batch([case], store, engine, bundle.cedar_schema)
    held, wrong = set(answer.reasons), {fault.policy for fault in answer.errors}
    return {
        (ident, key): "not_reached"
        if before not in held
        else "true"
        if after in held
        else "error"
        if after in wrong
        else "false"
        for ident, key, before, after in steps
    }


OCCUR = {
    "overflows": {"true", "false", "error", "not_reached"},
    "one role in the other": {"true", "false", "unknown"},
}


@pytest.mark.parametrize("name", OCCUR)
def test_columns_say_what_cedar_says_of_each_clause(corner: Any, kit: Any, name: str) -> None:
    bundle = kit.bundle(CANDIDATES[name])
    assert OCCUR[name] <= agree(corner, bundle)


def test_clauses_of_links_are_those_of_their_templates(corner: Any, kit: Any) -> None:
    bundle = kit.bundle(TEMPLATES, links=LINKS)
    agree(corner, bundle)
    clauses = clauses_of(bundle)
    assert clauses.policies["team-blue"].scope[0] is clauses.policies["team-none"].scope[0]
    assert [clause.id for clause in clauses.texts if clause.policy == "team"] == [
        "team:principal",
        "team:1.1",
    ]


MANY = PERMIT + (
    '@id("a") forbid(principal is Agent, action, resource)\n'
    'when { context.session.calls >= 0 && (principal has level || principal has boss && principal.boss == Agent::"boss") }\n'
    "unless { principal has level && principal.level * 4000000000000000000 < 1 }\n"
    'unless { principal has flag && (!principal.flag || context.tenant == "acme") }\n'
    'when { context has now && (if principal has cap then principal.cap.lessThan(decimal("3.0")) else true) };\n'
)


def test_several_bodies_with_errors_in_some(corner: Any, kit: Any) -> None:
    bundle = kit.bundle(MANY)
    assert agree(corner, bundle) >= {"true", "false", "error", "not_reached"}


@settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=QUIET)
@given(text=policies())
def test_generated_policies(corner: Any, kit: Any, text: str) -> None:
    bundle = kit.bundle(text)
    agree(corner, bundle)


@pytest.mark.fuzz
@settings(max_examples=150, deadline=None, suppress_health_check=QUIET)
@given(text=policies())
def test_generated_policies_at_length(corner: Any, kit: Any, text: str) -> None:
    bundle = kit.bundle(text)
    agree(corner, bundle)


LOOK = 'forbid(principal, action == Action::"look", resource)'
MISSING = PERMIT + (
    f'@id("order") {LOOK}\n'
    "when { principal has level && context has order && context.order.refundable > 60 } unless { principal has flag };\n"
    f'@id("either") {LOOK} when {{ (principal has boss || context has order) && principal has level }};\n'
    '@id("move") forbid(principal, action == Action::"move", resource)\n'
    "unless { resource has open && principal has level && resource.open } when { resource has label };\n"
)


def test_what_hangs_on_a_missing_fact_is_unknown_and_the_rest_is_known(corner: Any, kit: Any) -> None:
    """A known truth must be what the whole facts give."""
    bare = kit.bundle(MISSING)
    told, unknown = 0, 0
    assert "unknown" in agree(corner, bare)
    recompiler = Recompiler(bare.spec, kit.looked_up(kit.DATA), None, dict)
    for group in groups_of(corner, bare):
        ids = group.compiled.part.rows["decision_id"].gather(group.rows)
        _, said = by_cedar(corner, ids, bare)
        for recorded, each in zip(records_of(corner, ids), said, strict=True):
            job = recompiler.job(recorded, bare)
            whole = job.prepare(recorded.request.args)
            assert whole.case is not None
            (full,) = truths_of_cases([(whole.case, ())], bare, clauses_of(bare))
            for place, truth in each.truths.items():
                unknown += truth == "unknown"
                told += truth != "unknown"
                assert truth in ("unknown", full.truths[place]), place
    assert told > 0
    assert unknown > 0
