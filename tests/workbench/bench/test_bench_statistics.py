"""The benchmark of statistics does what it says: a real comparison of made-up rows, checked against its counts."""

from __future__ import annotations

import polars as pl

from workbench.bench.statistics import made, statistics


def test_times_a_comparison_whose_counts_agree() -> None:
    found = statistics(rows=4000)
    assert found["rows"] == 4000
    assert 350 <= found["sessions"] <= 400
    assert found["quantities"] >= 30
    assert found["slices"] == 8 * found["quantities"]
    assert found["verdict"] in ("ship", "don't ship", "inconclusive")
    assert set(found["phases"]) == {"compare", "estimates", "slices", "gates"}


def test_made_up_rows_are_the_same_for_the_same_seed_and_have_every_effect() -> None:
    one, again, other = (made(3000, seed=seed).frame.collect() for seed in (1, 1, 2))
    assert one.equals(again)
    assert not one.equals(other)
    assert set(one["effect"].unique()) == {"same", "prevented", "held", "undecided"}
    assert 0 < one.filter(pl.col("side") == "attack").height < 300
