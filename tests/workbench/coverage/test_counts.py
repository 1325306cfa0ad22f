"""Counting pieces and adding them up is counting the whole, also where values are too many to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.bundle import bundle_from_files
from workbench.covering import counts, values
from workbench.covering.asking import Asking
from workbench.covering.boundaries import boundaries_of
from workbench.covering.views import sides_of
from workbench.covering.words import value_text
from workbench.explaining.clauses import clauses_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NUMBERS = st.lists(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-50, 50) | st.integers(12_340, 12_410),
    max_size=40,
)
TEXTS = st.lists(st.none() | st.sampled_from("abcdefghijkl"), max_size=40)


@pytest.fixture(autouse=True, scope="module")
def _small() -> Iterator[None]:
    """Few values are already too many."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (counts, values):
            patch.setattr(module, "EXACT", 6)
            patch.setattr(module, "SMALL", 4)
        yield


def counted(found: Sequence[int | str | None], kind: str, start: int) -> pl.DataFrame:
    dtype = pl.Int64 if kind in values.ORDERED else pl.String
    column = values.Column(("context", "args", "x"), kind, pl.Series(found, dtype=dtype))
    ids = pl.Series([f"d{start + n:03}" for n in range(len(found))], dtype=pl.String)
    (rows,) = values.count_values("pay", iter([column]), ids)
    return counts.added("values", [rows])


@pytest.mark.parametrize(("kind", "given_"), [("long", NUMBERS), ("string", TEXTS)])
def test_pieces_add_up(kind: str, given_: st.SearchStrategy[list[int | str | None]]) -> None:
    @given(given_, st.integers(0, 40), st.integers(0, 40))
    def check(found: list[int | str | None], one: int, other: int) -> None:
        first, second = sorted((one, other))
        whole = counted(found, kind, 0)
        pieces = [
            counted(found[:first], kind, 0),
            counted(found[first:second], kind, first),
            counted(found[second:], kind, second),
        ]
        left = counts.added("values", [counts.added("values", pieces[:2]), pieces[2]])
        right = counts.added("values", [pieces[0], counts.added("values", pieces[1:])])
        keys = ["form", "text", "number", "n", "low", "high"]
        for each in (left, right):
            assert each.select(keys).sort(keys).equals(whole.select(keys).sort(keys))
        assert whole["n"].sum() == len(found)
        told = [value for value in found if isinstance(value, int)]
        assert whole["low"].min() == min(told, default=None)
        assert whole["high"].max() == max(told, default=None)
        assert left.sort(keys)["examples"].list.first().equals(whole.sort(keys)["examples"].list.first())

    check()


@given(st.integers(-(2**63), 2**63 - 1))
def test_rounding_keeps_three_digits(number: int) -> None:
    found = pl.select(counts.rounded(pl.lit(number, pl.Int64)))[:, 0].item()
    size = max(abs(number), 1)
    assert abs(found) <= abs(number)
    assert abs(abs(number) - abs(found)) * 100 < size or abs(number) < 1000
    assert found == number or abs(number) >= 1000
    assert (found < 0) == (number < 0)


def test_literals_on_either_side_and_of_every_type() -> None:
    schema = (
        "entity Agent; entity Thing; action go appliesTo { principal: Agent, resource: Thing, context: { args: "
        "{ n: Long, d: decimal, t: datetime, s: String, b: Bool } } };"
    )
    policy = (
        '@id("p") permit (principal, action, resource) when { 5 < context.args.n || context.args.n + 1 == 7 || '
        'context.args.d.lessThan(decimal("1.5")) || context.args.t >= datetime("2026-01-01") || '
        'context.args.s != "x" || context.args.n < context.args.n || 1 < 2 || context.args.b == true };'
    )
    bundle = bundle_from_files({"p.cedar": policy, "schema.cedarschema": schema}, "b")
    found = boundaries_of(clauses_of(bundle))
    three, two = ("below", "at", "above"), ("at", "other")
    assert [(each.value, each.operator, each.literal, each.sides) for each in found] == [
        ("context.args.n", ">", "5", three),
        ("context.args.n + 1", "==", "7", three),
        ("context.args.d", "lessThan", 'decimal("1.5")', three),
        ("context.args.t", ">=", 'datetime("2026-01-01")', three),
        ("context.args.s", "!=", '"x"', two),
        ("context.args.b", "==", "true", two),
    ]
    assert found[3].expected == ("below", "above")


def test_tools_a_policy_is_about_and_ways_its_scope_can_go() -> None:
    schema = (
        "entity Bot, User, Thing, Other; action all; action reads in [all]; action get in [reads] appliesTo "
        "{ principal: [Bot, User], resource: Thing, context: { args: {} } };"
        "action put in [all] appliesTo { principal: Bot, resource: [Thing, Other], context: { args: {} } };"
        "action run appliesTo { principal: Bot, resource: Other, context: { args: {} } };"
    )
    scopes = (
        "principal is Bot, action, resource",
        'principal is Bot, action in Action::"reads", resource is Thing',
        'principal, action in Action::"all", resource is Thing',
        'principal, action == Action::"put", resource == Thing::"t"',
    )
    text = "\n".join(f'@id("p{n}") permit ({scope});' for n, scope in enumerate(scopes))
    asking = Asking(bundle_from_files({"p.cedar": text, "schema.cedarschema": schema}, "b"))
    assert [sorted(tools) for tools in asking.tools.values()] == [
        ["get", "put", "run"], ["get"], ["get", "put"], ["put"],
    ]  # fmt: skip
    ways = {
        f"{policy}:{clause.place}": "".join(sides_of(clause, asking.tools[policy], asking.bundle).names)
        for policy, clause in asking.clauses.places
    }
    assert ways == {
        "p0:principal": "truefalse", "p1:principal": "truefalse", "p1:action": "true", "p1:resource": "true",
        "p2:action": "true", "p2:resource": "truefalse", "p3:action": "true", "p3:resource": "truefalse",
    }  # fmt: skip


def test_values_in_words() -> None:
    assert value_text("decimal", -5) == "-0.0005"
    assert value_text("datetime", 2**62) == "4,611,686,018,427,387,904 ms"
    assert value_text("bool", "true") == "true"
