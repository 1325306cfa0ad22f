"""Masks: a bit for each policy, a row for each row, whatever the outputs are and however they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.columnar.frames import Kernel
from workbench.columnar.lowering import lower
from workbench.columnar.masks import lazy_masks, masks
from workbench.columnar.nodes import TRUE, Node, column
from workbench.columnar.operations import packed
from workbench.columnar.values import Unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping


def kernel(nodes: Mapping[str, Node], refused: Mapping[int, Unsupported] | None = None) -> Kernel:
    """A kernel over no entity tables."""

    def nothing(table: str, node: Node) -> pl.Series:
        raise AssertionError(table, node)

    return Kernel(lower(nodes, nothing), refused or {})


def flag(name: str) -> Node:
    return column(name, "bool", nullable=False)


@given(st.sets(st.integers(0, 63)), st.lists(st.booleans(), min_size=64, max_size=64))
def test_flags_become_bits(bits: set[int], row: list[bool]) -> None:
    frame = pl.DataFrame({f"b{bit}": [row[bit], not row[bit]] for bit in range(64)})
    found = frame.with_columns(word=packed({bit: pl.col(f"b{bit}") for bit in bits}))["word"].to_list()
    assert found == [
        sum(1 << bit for bit in bits if row[bit]),
        sum(1 << bit for bit in bits if not row[bit]),
    ]


def test_a_word_for_each_64_policies() -> None:
    frame = pl.DataFrame({"a": [True, False, True], "b": [True, True, False]})
    found = masks(kernel({"s3": flag("a"), "s70": flag("b"), "e130": flag("a"), "s129": TRUE}), frame, 131)
    assert found.columns == [f"{title}_{w}" for title in ("satisfied", "errored") for w in range(3)] + [
        "refused"
    ]
    assert found.rows() == [
        (8, 64, 2, 0, 0, 4, 0),
        (0, 64, 2, 0, 0, 0, 0),
        (8, 0, 2, 0, 0, 4, 0),
    ]
    assert set(found.dtypes) == {pl.UInt64}


@pytest.mark.parametrize("height", [0, 1, 3])
def test_constants_have_a_row_for_each_row(height: int) -> None:
    frame = pl.DataFrame({"a": [True] * height})
    assert masks(kernel({"s0": TRUE}), frame, 1).rows() == [(1, 0, 0)] * height
    assert masks(kernel({}), frame, 1).rows() == [(0, 0, 0)] * height
    assert masks(kernel({}), frame, 0).rows() == [(0,)] * height


def test_the_first_policy_not_taken_is_named_where_it_is_in_scope() -> None:
    refused = {2: Unsupported("…", "ip"), 5: Unsupported("…", "ip")}
    frame = pl.DataFrame({"a": [True, False, False], "b": [True, True, False]})
    found = masks(kernel({"u2": flag("a"), "u5": flag("b")}, refused), frame, 6)
    assert found["refused"].to_list() == [3, 6, 0]


def test_a_long_frame_comes_out_in_order() -> None:
    n = 250_007
    frame = pl.select(row=pl.int_range(n), a=pl.int_range(n) % 3 == 0, b=pl.int_range(n) % 7 == 0)
    plan = kernel({"s0": flag("a"), "s9": flag("b"), "e0": flag("b")})
    wanted = frame.select(
        "row",
        satisfied_0=pl.col("a").cast(pl.UInt64) + pl.col("b").cast(pl.UInt64) * 512,
        errored_0=pl.col("b").cast(pl.UInt64),
        refused=pl.lit(0, pl.UInt64),
    )
    assert masks(plan, frame, 10).equals(wanted.drop("row"))
    lazy = lazy_masks(plan, frame.lazy(), 10, keep=["row"])
    assert lazy.collect(engine="streaming").equals(wanted)
    assert lazy.collect(engine="in-memory").equals(wanted)


def test_a_frame_on_disk_is_decided_in_pieces(tmp_path: object) -> None:
    path = f"{tmp_path}/frame.parquet"
    frame = pl.select(a=pl.int_range(100_000) % 3 == 0)
    frame.write_parquet(path, row_group_size=10_000)
    lazy_masks(kernel({"s1": flag("a")}), pl.scan_parquet(path), 2).sink_parquet(f"{tmp_path}/masks.parquet")
    found = pl.read_parquet(f"{tmp_path}/masks.parquet")["satisfied_0"]
    assert found.to_list() == [2 * (n % 3 == 0) for n in range(100_000)]
