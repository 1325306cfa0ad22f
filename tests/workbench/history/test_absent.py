"""Missing is not false, in columns: rows are undecided exactly where the row engine says so, before and after a patch."""

from __future__ import annotations

from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from runtime.bundle import bundle_from_files
from runtime.ruling import Answer
from workbench.atoms import atoms_of, leaves_of
from workbench.history.absent import reached
from workbench.history.fold import fold
from workbench.undecided import ANY, MAX_MISSING, possible

PERMIT = '@id("permit") permit (principal, action, resource);\n'


def forbid(ident: str, when: str) -> str:
    return f'@id("{ident}") forbid (principal, action, resource) when {{ {when} }};\n'


def statuses(found: list[dict[str, Any]]) -> list[str]:
    return [row["status"] for row in found]


def test_a_forbid_over_a_fact_nobody_asked_for_leaves_rows_undecided(folding: Any) -> None:
    made = folding(
        forbid("no", "context.args.amount > 5 && context has extra && context.extra.n > 1"), "context.extra"
    )
    assert statuses(made({"amount": 5}, {"amount": 6}, {"amount": 7})) == [
        "decided",
        "undecided",
        "undecided",
    ]


def test_what_is_blocked_for_every_value_is_decided(folding: Any) -> None:
    policies = forbid("no", "context has extra && context.extra.n > 1") + forbid(
        "sure", "context.args.amount > 5"
    )
    (row,) = folding(policies, "context.extra")({"amount": 6})
    assert (row["status"], row["verdict"]) == ("decided", "block")


def test_a_change_that_hangs_on_what_is_missing_is_undecided(folding: Any, modify: Any) -> None:
    cut = modify("cut", {"amount": {"$ref": "context.extra.n"}}, "context.args.amount > 5")
    assert statuses(folding(cut, "context.extra")({"amount": 6}, {"amount": 5})) == ["undecided", "decided"]


def test_the_patched_request_may_be_undecided_where_the_first_was_not(folding: Any, modify: Any) -> None:
    policies = modify("cut", {"amount": 3}, "context.args.amount > 5") + forbid(
        "no", "context.args.amount == 3 && context has extra"
    )
    made = folding(policies, "context.extra")
    assert statuses(made({"amount": 6}, {"amount": 4}, {"amount": 3})) == [
        "undecided",
        "decided",
        "undecided",
    ]


def test_a_patched_request_that_hangs_on_nothing_is_decided(folding: Any, modify: Any) -> None:
    policies = modify("cut", {"amount": 3}, "context.args.amount > 5") + forbid(
        "no", "context.args.amount == 4 && context has extra"
    )
    (row,) = folding(policies, "context.extra")({"amount": 6})
    assert (row["status"], row["verdict"]) == ("decided", "modify")


def test_a_refused_patch_is_decided_whatever_is_missing(folding: Any, modify: Any) -> None:
    (row,) = folding(modify("cut", {"amount": None}), "context.extra")({})
    assert (row["status"], row["reason_code"]) == ("decided", "patch_invalid")


def test_names_that_nobody_reads_change_nothing(folding: Any) -> None:
    """A schema with many attributes that no fact covers must not make every row undecided."""
    names = [f"context.x{n}" for n in range(3 * MAX_MISSING)]
    assert statuses(folding(PERMIT, *names)({}, {})) == ["decided", "decided"]
    forbid = '@id("extra") forbid (principal, action, resource) when { context has extra };\n'
    assert statuses(folding(PERMIT + forbid, *names, "context.extra")({}, {})) == ["undecided", "undecided"]


def test_too_many_names_that_policies_read_are_not_tried() -> None:
    names = [f"x{n}" for n in range(MAX_MISSING + 1)]
    members = ", ".join(f"{name}?: Long" for name in names)
    context = f"context: {{ args: {{}}, {members} }}"
    schema = f"entity A; entity O; action a appliesTo {{ principal: A, resource: O, {context} }};"
    policy = f'@id("may") permit (principal, action, resource) unless {{ {" || ".join(f"context has {n}" for n in names)} }};'
    bundle = bundle_from_files({"schema.cedarschema": schema, "p.cedar": policy}, "many")
    scope = next(leaves_of(atoms_of(bundle).trees["may"])).id
    told = Answer("Allow", (scope,), ())
    paths = [f"context.{name}" for name in names]
    assert possible(told, bundle, paths, frozenset()).rulings == ANY
    assert possible(told, bundle, paths[:2], frozenset()).rulings < ANY


def test_nothing_is_asked_where_nothing_is_missing(folding: Any, modify: Any) -> None:
    made = folding(modify("cut", {"amount": 1}))
    made({}, {"amount": 1})

    def never(*_: object) -> pl.DataFrame:
        raise AssertionError("evaluated for nothing")

    made.group.atoms = made.group.atoms_again = never
    assert fold(made.group)["status"].to_list() == ["decided"] * 2


def test_atoms_of_policies_that_apply_to_no_row_are_left_out(folding: Any) -> None:
    policies = PERMIT + "".join(
        f'@id("{ident}") forbid ({scope}) when {{ context.args.amount > 5 && context has extra }};\n'
        for ident, scope in (
            ("here", 'principal, action, resource == Order::"o1"'),
            ("elsewhere", 'principal, action, resource == Order::"o9"'),
            ("team", 'principal in Team::"t", action, resource'),
        )
    )
    made = folding(policies, "context.extra")
    made({"amount": 6}, {"amount": 6, "order_id": "o2"})
    group = made.group
    trees = atoms_of(group.bundle).trees
    scopes = {each: next(leaves_of(tree)).id for each, tree in trees.items()}
    off = [group.atom_ids.index(scopes[each]) for each in ("elsewhere", "team")]
    bits = sum(1 << number for number in range(len(group.atom_ids)) if number not in off)
    masks = pl.DataFrame(
        {"satisfied_0": [bits, 0], "errored_0": [0, 0]},
        schema_overrides=dict.fromkeys(["satisfied_0", "errored_0"], pl.UInt64),
    )
    left = {atom.id for each in ("permit", "here", "team") for atom in leaves_of(trees[each])}
    found = reached(masks, group.atom_ids, group.bundle)["satisfied_0"].to_list()
    # The scope that asks for ancestors may be true, were they known: its atoms stay.
    assert found == [sum(1 << group.atom_ids.index(ident) for ident in left - {scopes["team"]}), 0]


_ATOM = st.sampled_from(
    [
        "context has extra",
        "context has extra && context.extra.n > 2",
        "context has more && context.more.n == 1",
        "context has order && context.order.refundable > 50",
        "context.args.amount > 5",
        "context.args.amount + 9223372036854775800 > 0",
        "context.args has note",
        "principal has level && principal.level > 2",
    ]
)
_WHEN = st.recursive(
    _ATOM,
    lambda inner: (
        st.builds("({} && {})".format, inner, inner)
        | st.builds("({} || {})".format, inner, inner)
        | st.builds("!({})".format, inner)
    ),
    max_leaves=3,
)
_HEAD = st.sampled_from(
    [
        "permit",
        "forbid",
        '@verdict("approve") forbid',
        '@verdict("modify") @patch("{\\"amount\\": 3}") forbid',
        '@verdict("modify") @patch("{\\"note\\": null, \\"rate\\": {\\"$ref\\": \\"context.order.rate\\"}}") forbid',
    ]
)
_SCOPE = st.sampled_from(
    [
        "principal, action, resource",
        "principal, action, resource",
        'principal, action, resource == Order::"o1"',
        'principal, action, resource == Order::"never"',
        'principal in Team::"t", action, resource',
    ]
)
_ROW = st.fixed_dictionaries(
    {"order_id": st.sampled_from(["o1", "o3", "none"]), "amount": st.sampled_from([3, 5, 9])},
    optional={"note": st.just("x")},
)


_MISSING = st.sampled_from(["context.extra", "context.more", "principal.level", "principal.parents"])


@given(
    st.lists(st.tuples(_HEAD, _SCOPE, _WHEN), min_size=1, max_size=4),
    st.lists(_ROW, min_size=1, max_size=8),
    st.sets(_MISSING, min_size=1),
)
def test_any_policies_over_anything_missing(
    folding: Any, policies: list[tuple[str, str, str]], rows: list[dict[str, Any]], missing: set[str]
) -> None:
    text = PERMIT + "".join(
        f'@id("p{n}") {head} ({scope}) when {{ {when} }};\n' for n, (head, scope, when) in enumerate(policies)
    )
    # The principal has no level, as where nobody asked for it.
    folding(text, *sorted(missing))(*rows, principal="new")
