"""Filters and counts: what a number says is what its filter lists, and what is pasted means the same."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.comparing import cube
from workbench.comparing.conditions import (
    Blames,
    Condition,
    Differ,
    Flag,
    In,
    Is,
    IsNot,
    Nobody,
    code_of,
    expr_of,
)
from workbench.comparing.filters import FACETS, LISTS, Cell, Filter, Key, Listed, side_of
from workbench.errors import FilterUnknown
from workbench.metrics import STATES

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.compare import Diff

NAMES = st.text(max_size=12) | st.sampled_from(["", '"', "'", "\\", "\n", "') | pl.lit(True) | ('", "{0}"])
CONDITIONS: st.SearchStrategy[Condition] = st.one_of(
    st.builds(Is, NAMES, NAMES | st.none()),
    st.builds(IsNot, NAMES, NAMES),
    st.builds(In, NAMES, st.lists(NAMES, max_size=3).map(tuple)),
    st.builds(Flag, NAMES),
    st.builds(Differ, NAMES, st.lists(NAMES, min_size=1, max_size=3, unique=True).map(tuple)),
    st.builds(Blames, NAMES),
    st.builds(Nobody, st.booleans()),
)


@given(st.lists(CONDITIONS, max_size=4).map(tuple))
def test_what_is_pasted_is_what_is_filtered(conditions: tuple[Condition, ...]) -> None:
    pasted = eval(code_of(conditions), {"pl": pl})
    assert pasted.meta.eq(expr_of(conditions))


def rows_of(diff: Diff, conditions: tuple[Condition, ...]) -> int:
    return diff.rows(expr_of(conditions)).collect().height


def check_counts(diff: Diff) -> None:
    """Every number that a view could show of a comparison, against the rows it would list."""
    counted = cube.counted(diff.frame)
    assert counted["n"].sum() == diff.frame.collect().height
    grid = cube.matrix(counted, ())
    assert grid == {(row["from"], row["to"]): row["n"] for row in diff.transitions.collect().to_dicts()}
    cells: list[Cell | Listed] = [Cell(before=before, after=after) for before in STATES for after in STATES]
    every = [*LISTS, *cells]
    assert cube.totals(counted, every, ()) == [rows_of(diff, each.conditions) for each in every]
    shown: list[Cell | Listed] = [LISTS[0], LISTS[-1], *(Cell(before=a, after=b) for a, b in grid)]
    for what in shown:
        for side in FACETS:
            found = cube.by(counted, side, what.conditions)
            for key, n in found.items():
                assert n == rows_of(diff, (*what.conditions, key.condition)), (what, key)
                assert n == cube.total(counted, (*what.conditions, key.condition))
            if side != "policy":
                assert sum(found.values()) == rows_of(diff, what.conditions)


def test_every_number_is_the_length_of_its_list(diff: Diff, unlabelled: Diff) -> None:
    check_counts(diff)
    check_counts(unlabelled)


VERDICTS = st.sampled_from(STATES[:4])
POLICIES = st.lists(st.sampled_from(["a", "b", "<i>"]), max_size=3)


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows of every shape, with effects that need not follow from them: counts must not care."""
    rows = []
    for place in range(draw(st.integers(1, 8))):
        to = draw(st.sampled_from(STATES))
        effect = (
            to
            if to in STATES[4:]
            else draw(st.sampled_from(["same", "held", "prevented", "released", "altered"]))
        )
        rows.append(
            {
                "session": f"s-{place % 2}", "tool": draw(st.sampled_from(["x", "y"])), "recorded": draw(VERDICTS),
                "then": draw(st.sampled_from(["ran", "did_not_run", "in_doubt"])), "to": to, "effect": effect,
                "by": draw(POLICIES), "origin": draw(st.sampled_from(["attack", "user", None])),
                "tenant": draw(st.sampled_from(["t", '"u'])),
            }
        )  # fmt: skip
    return rows


@pytest.mark.slow
@given(histories())
def test_every_number_is_the_length_of_its_list_whatever_the_history(
    compared: Callable[..., Diff], rows: list[dict[str, Any]]
) -> None:
    check_counts(compared(rows))


def test_each_decided_row_has_a_policy_or_says_that_it_has_none(diff: Diff) -> None:
    counted = cube.counted(diff.frame)
    keys = cube.by(counted, "policy", ())
    every = pl.any_horizontal(key.condition.expr for key in keys)
    assert diff.frame.filter(every).collect().height == diff.summary()["decisions_replayed"]
    assert Key("policy", None, looser=False) in keys  # an invitation that nothing permits


def test_what_is_looser_is_put_down_to_what_had_held_it_up(compared: Callable[..., Diff]) -> None:
    """The base's policies are `may`, in the hand-made replays: what they had decided by counts, not what permits now."""
    row = {
        "session": "s", "tool": "x", "recorded": "block", "then": "did_not_run", "to": "allow", "effect": "released",
        "by": ["new"],
    }  # fmt: skip
    found = cube.by(cube.counted(compared([row]).frame), "policy", ())
    assert found == {Key("policy", "may"): 1}
    stricter = row | {"recorded": "allow", "to": "block", "effect": "prevented"}
    assert cube.by(cube.counted(compared([stricter]).frame), "policy", ()) == {Key("policy", "new"): 1}


def test_a_filter_holds_one_key_of_a_side() -> None:
    given = Filter().toggled(Key("tool", "x")).toggled(Key("tenant", "t")).toggled(Key("tool", "y"))
    assert {(key.side, key.value) for key in given.keys} == {("tool", "y"), ("tenant", "t")}
    assert given.title == "Changed, tenant t, tool y"
    assert given.toggled(Key("tool", "y")).keys == (Key("tenant", "t"),)
    without = given.conditions(without="tool")
    assert without == (*LISTS[0].conditions, Is("tenant", "t"))
    assert given.conditions(what=False) == (Is("tenant", "t"), Is("tool", "y"))


def test_sides_are_known_by_name() -> None:
    assert [side_of(name) for name in FACETS] == list(FACETS)
    with pytest.raises(FilterUnknown, match="tool, policy, tenant, not by 'args'"):
        side_of("args")


def test_lists_have_names_of_their_own() -> None:
    names = [each.name for each in LISTS]
    assert len(set(names)) == len(names)
    assert not [each for each in chain(names) if not each.isidentifier()]
