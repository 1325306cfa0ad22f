"""A sample that says the same on every machine, and whose weights say something of all."""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.compare import Diff
from workbench.errors import ColumnUnknown, ScoringInvalid
from workbench.scoring.sampling import COLUMNS, sample


class Frame(NamedTuple):
    """A comparison's rows, by hand."""

    frame: pl.LazyFrame


ROW = st.tuples(
    st.sampled_from(["acme", "globex"]),
    st.sampled_from(["refund", "mail", "ping", None]),
    st.sampled_from(["allow", "block"]),
    st.booleans(),
    st.sampled_from(["decided", "decided", "decided", "undecided", "quarantined"]),
)
NAMES = ("tenant", "tool", "to", "changed", "status")


def compared(rows: list[tuple[Any, ...]]) -> Frame:
    """Return rows as a comparison has them: what was not decided did not change."""
    schema = {
        "tenant": pl.String,
        "tool": pl.String,
        "to": pl.String,
        "changed": pl.Boolean,
        "status": pl.String,
    }
    made = [dict(zip(NAMES, row, strict=True)) for row in rows]
    made = [row | {"changed": row["changed"] and row["status"] == "decided"} for row in made]
    frame = pl.DataFrame(made, schema=schema).with_columns(
        decision_id=pl.format("d-{}", pl.int_range(pl.len()))
    )
    return Frame(frame.lazy())


LIMITS = st.integers(0, 40)


@settings(deadline=None, max_examples=60)
@given(st.lists(ROW, max_size=120), st.one_of(st.just("all"), LIMITS), LIMITS, st.integers(0, 3))
def test_weights_stand_for_all(rows: list[tuple[Any, ...]], flips: Any, control: int, seed: int) -> None:
    """Of each side as many as asked for; their weights are how many there are; nothing that was not decided."""
    diff = compared(rows)
    drawn = sample(diff, flips=flips, control=control, seed=seed)
    there = diff.frame.filter(pl.col("status") == "decided").collect()
    assert (drawn.decisions, drawn.changed) == (there.height, there["changed"].sum())
    assert drawn.undecided == len(rows) - there.height
    joined = drawn.ids.join(there, on=["tenant", "decision_id"], how="inner")
    assert joined.height == len(drawn)
    assert drawn.ids.schema == pl.Schema(COLUMNS)
    for changes, limit in ((True, flips), (False, control)):
        side, whole = (
            joined.filter(pl.col("changed") == changes),
            there.filter(pl.col("changed") == changes).height,
        )
        assert side.height == (whole if limit == "all" else min(limit, whole))
        assert side["weight"].sum() == pytest.approx(whole if side.height else 0)
        assert side["stratum"].str.starts_with("changed" if changes else "same").all()
    assert (drawn.ids["weight"] >= 1).all()
    assert drawn.strata["sampled"].sum() == len(drawn)


@settings(deadline=None, max_examples=30)
@given(st.lists(ROW, min_size=20, max_size=80), st.randoms(use_true_random=False))
def test_order_and_neighbours_do_not_matter(rows: list[tuple[Any, ...]], random: Any) -> None:
    diff = compared(rows)
    shuffled = diff.frame.collect().sample(fraction=1, shuffle=True, seed=random.randrange(1000))
    one, other = sample(diff, flips=10, control=10), sample(Frame(shuffled.lazy()), flips=10, control=10)
    assert one.ids.sort("decision_id").equals(other.ids.sort("decision_id"))
    assert one.strata.equals(other.strata)


def many(n: int = 4_000) -> Frame:
    tools = ["refund", "mail", "ping"]
    rows = [
        ("acme", tools[(at % 10) // 4], "block" if at % 7 == 0 else "allow", at % 5 == 0, "decided")
        for at in range(n)
    ]
    return compared([*rows, ("acme", "rare", "allow", False, "decided")])


def test_seeds_differ_and_hold() -> None:
    diff = many()
    one, same, other = (
        sample(diff, flips=50, control=50, seed=seed).ids["decision_id"] for seed in (0, 0, 1)
    )
    assert one.equals(same)
    assert 0 < one.is_in(other.implode()).sum() < 20


def test_strata_get_their_share() -> None:
    """Two each, or all that there are; the rest by size."""
    strata = sample(many(), control=100).strata.filter(pl.col("stratum").str.starts_with("same"))
    assert strata.filter(pl.col("stratum").str.contains("rare")).row(0)[1:] == (1, 1.0, 1)
    spare = 100 - 2 * strata.filter(pl.col("decisions") > 1).height - 1
    left = (strata["decisions"] - 2).clip(0)
    by_size = 2 + spare * left / left.sum()
    assert ((strata["sampled"] - by_size).filter(left > 0).abs() < 1).all()


def test_more_strata_than_the_sample_can_hold() -> None:
    """The smallest are one stratum; nothing is left without a chance."""
    diff = many()
    by_id = sample(diff, flips=0, control=20, strata=("decision_id",)).strata
    assert by_id["sampled"].sum() == 20
    assert by_id["decisions"].sum() == diff.frame.filter(~pl.col("changed")).collect().height
    assert "same the rest" in by_id["stratum"].to_list()


def test_means_are_right_on_average() -> None:
    """Over many seeds the weighted share of a thing is the share of it: nothing is drawn rather than another."""
    diff = many(1_500)
    odd = diff.frame.with_columns(odd=pl.col("decision_id").str.slice(2).cast(pl.Int64) % 3 == 0).collect()
    truth = odd.filter(~pl.col("changed"))["odd"].mean()
    found = []
    for seed in range(60):
        ids = sample(diff, flips=0, control=60, seed=seed).ids.join(odd, on="decision_id")
        found.append(ids.select((pl.col("odd") * pl.col("weight")).sum() / pl.col("weight").sum()).item())
    assert sum(found) / len(found) == pytest.approx(truth, abs=0.025)  # 3 standard errors of 60 x 60 draws


def test_a_real_comparison(diff: Diff) -> None:
    """What changed is all there; the two that nobody could decide are counted apart."""
    drawn = sample(diff, control=3)
    changed = diff.changed.collect()["decision_id"].to_list()
    mine = drawn.ids.filter(pl.col("stratum") == "changed")
    assert mine["decision_id"].to_list() == changed
    assert (len(drawn), drawn.undecided) == (len(changed) + 3, 2)


def test_what_cannot_be_drawn(diff: Diff) -> None:
    with pytest.raises(ScoringInvalid, match="`control` is -1"):
        sample(diff, control=-1)
    with pytest.raises(ScoringInvalid, match="`flips` is 'most'"):
        sample(diff, flips="most")  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ColumnUnknown, match="`tool`"):
        sample(diff, strata=("tol",))
