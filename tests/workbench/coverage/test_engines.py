"""Columns and Cedar itself count alike, whatever the policies: one example always, many with `-m fuzz`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, reject, settings
from hypothesis import strategies as st

from runtime.bundle import bundle_from_files
from runtime.errors import PolicySchemaError
from workbench.covering import coverage

if TYPE_CHECKING:
    from workbench.lake import Lake

ATOMS = (
    "context.args.amount_cents > 500", "500 >= context.args.amount_cents", "context has order",
    "(context has order && context.order.refundable_cents == 200)", "context.args has note",
    '(context.args has note && context.args.note == "ok")', '(context.args has note && context.args.note like "b*")',
    "principal has level", "(principal has level && principal.level < 3)", "context.session.calls > 4",
    "context.args.amount_cents * 9223372036854775807 == 0", 'resource == Order::"o-1"',
    "(context has score && context.score.value > 1)", "context has score", "true",
    'context.now > datetime("2020-01-01")',
)  # fmt: skip


def _joined(parts: tuple[str, str, str]) -> str:
    left, operator, right = parts
    return f"({left} {operator} {right})"


EXPRESSIONS = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(_joined)
        | inner.map(lambda text: f"!({text})")
    ),
    max_leaves=5,
)
BODIES = st.lists(st.tuples(st.sampled_from(["when", "unless"]), EXPRESSIONS), max_size=2)
SCOPES = st.sampled_from(
    [
        "principal, action, resource",
        'principal is Agent, action == Action::"refund", resource',
        'principal, action in [Action::"refund"], resource == Order::"o-1"',
    ]
)
POLICIES = st.lists(st.tuples(st.sampled_from(["permit", "forbid"]), SCOPES, BODIES), min_size=1, max_size=3)
Drawn = list[tuple[str, str, list[tuple[str, str]]]]
FIXED: Drawn = [
    ("permit", "principal, action, resource", []),
    (
        "forbid",
        'principal is Agent, action == Action::"refund", resource',
        [
            ("when", f"{ATOMS[3]} || {ATOMS[12]}"),
            ("unless", f"{ATOMS[10]} || {ATOMS[5]}"),
        ],
    ),
    (  # with `score` taken as absent it would be an error
        "forbid",
        'principal is Agent, action == Action::"refund", resource',
        [("when", f"!({ATOMS[13]})"), ("when", ATOMS[10])],
    ),
]


def text_of(drawn: Drawn) -> str:
    policies = []
    for number, (effect, scope, bodies) in enumerate(drawn):
        conditions = " ".join(f"{kind} {{ {text} }}" for kind, text in bodies)
        policies.append(f'@id("p{number}") {effect} ({scope}) {conditions};')
    return "\n".join(policies)


def alike(lake: Lake, schema: str, drawn: Drawn) -> None:
    files = {"p.cedar": text_of(drawn), "schema.cedarschema": schema}
    try:
        bundle = bundle_from_files(files, "drawn")
    except PolicySchemaError:  # such as arguments of one tool, read for all
        reject()
    columns, cedar = coverage(lake, bundle, engine="auto"), coverage(lake, bundle, engine="rows")
    for name, table in cedar.counts.tables.items():
        keys = [column for column in table.columns if column != "examples"]
        one, other = (each.counts[name].select(keys).sort(keys) for each in (columns, cedar))
        assert one.equals(other), (name, one, other)
    for each in columns.views.clauses:
        assert sum(each.truths.values()) == each.decisions
    for boundary in columns.views.boundaries:
        assert boundary.absent >= 0
        assert boundary.unread >= 0


def test_engines_count_alike(lake: Lake, desk: Any) -> None:
    alike(lake, desk.schema(more=True), FIXED)


@pytest.mark.fuzz
def test_engines_count_alike_for_many_policies(lake: Lake, desk: Any) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(POLICIES, st.booleans())
    @example(FIXED, True)
    def check(drawn: Drawn, more: bool) -> None:
        alike(lake, desk.schema(more=more), drawn)

    check()
