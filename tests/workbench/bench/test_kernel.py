"""The benchmark's kernel, held to Cedar row by row; and that holding it notices a wrong bit."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import polars as pl
import pytest

from runtime.bundle import load_bundle
from workbench.bench.desk import TOOLS, desk_columns
from workbench.bench.kernel import decide, divide
from workbench.bench.kernel_cedar import Asked, ask, hold
from workbench.bench.kernel_world import desk_input
from workbench.errors import OracleMismatch
from workbench.shipped import shipped

if TYPE_CHECKING:
    from runtime.bundle import Bundle
    from workbench.bench.desk import DeskFrame
    from workbench.bench.kernel_world import Keys

ROWS = 6_000


@cache
def desk() -> tuple[DeskFrame, Bundle, Asked]:
    """Calls, policies, and what Cedar says."""
    frame, bundle = desk_columns(ROWS, seed=3), load_bundle(shipped("support-desk/baseline"))
    return frame, bundle, ask(frame, frame.rows, bundle, bundle.policy_set)


def found(keys: Keys) -> pl.DataFrame:
    """Masks of all calls, in order."""
    frame, bundle, _ = desk()
    given = desk_input(frame, bundle.policy_set, bundle.schema, keys)
    parts = decide(given)
    again = decide(given, divide(given))
    assert all(again[tool].equals(part) for tool, part in parts.items())
    assert list(parts) == list(TOOLS)
    assert all(part["row"].is_sorted() for part in parts.values())
    return pl.concat(parts.values()).sort("row")


def effects() -> dict[str, str]:
    """Effects by policy, in the order of the bits."""
    _, bundle, _ = desk()
    return {name: bundle.policies[name].effect for name in bundle.policy_set.to_pst().static_policies}


@pytest.mark.parametrize("keys", ["dictionary", "strings"])
def test_every_row_is_what_cedar_says(keys: Keys) -> None:
    masks = found(keys)
    assert masks["row"].to_list() == list(range(ROWS))
    assert masks["refused"].sum() == 0
    hold(masks, desk()[2], effects())
    seen = masks.select(pl.col("satisfied_0").unique().implode(), pl.col("errored_0").unique().implode())
    satisfied, errored = (column.item().to_list() for column in seen)
    every = range(len(effects()))
    assert all(any(mask >> bit & 1 for mask in satisfied) for bit in every), (
        "a policy that is never satisfied"
    )
    assert any(errored), "no row in which a policy is in error"


@pytest.mark.parametrize("title", ["satisfied_0", "errored_0"])
def test_a_wrong_bit_is_noticed(title: str) -> None:
    wrong = pl.when(pl.col("row") == ROWS - 1).then(pl.col(title) ^ 1).otherwise(title)
    masks = found("dictionary").with_columns(wrong.alias(title))
    with pytest.raises(OracleMismatch, match=rf"row {ROWS - 1}:"):
        hold(masks, desk()[2], effects())
