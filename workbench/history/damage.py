"""Rows that cannot be replayed, by what they refer to: lost, altered, or contradicting themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from workbench.erasure import CAUSES as HOLES
from workbench.erasure import QUOTED, holes_in_args
from workbench.history.hashes import sha256
from workbench.replay import UNDECIDED

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.bundle import Bundle
    from workbench.history.contexts import Contexts


def damage(
    rows: pl.DataFrame,
    contexts: Contexts,
    find_bundle: Callable[[str], Bundle | None],
    *,
    addresses: bool,
    hashes: Callable[[pl.DataFrame], pl.Series] | None = None,
) -> pl.Series:
    """Return why each row is quarantined (String, of `workbench.replay.CAUSES`); null: it is not.

    Of several faults the first is told that `workbench.recorded.Recorded.damage` finds; what cannot be read, last.
    Rows that are masked or erased are not damaged, but cannot be replayed either: their causes are told here, too.

    Args:
        rows: columns of `decisions`, joined with `Contexts.frame`.
        contexts: of the lake.
        find_bundle: by version.
        addresses: compare `args_hash`, too. Without it, arguments that were altered are found by their projection.
        hashes: reads `args_hash` of some rows, where it is no column; None: what looks erased is taken for it.
    """
    lost = [version for version in rows["bundle_version"].unique() if find_bundle(version) is None]
    third = _holes(rows, hashes)
    altered_args = (sha256(rows["args"]) != rows["args_hash"]) & third.is_null() if addresses else False
    frame = rows.select("bundle_version").with_columns(
        third.alias("third"),
        first=_fault(rows, "context_hash"),
        second=_second_fault(rows, contexts),
        altered=altered_args,
    )
    late = ("row_unreadable", *UNDECIDED)
    faults = ("first", "second", "third")
    altered = [pl.when(~pl.col(each).is_in(late)).then(each) for each in faults[:2]]
    holes = [
        pl.when(pl.any_horizontal(pl.col(faults) == cause)).then(pl.lit(cause)) for cause in HOLES.values()
    ]
    found = frame.select(
        cause=pl.coalesce(
            pl.when(pl.col("bundle_version").is_in(lost)).then(pl.lit("policy_lost")),
            *altered,
            pl.when("altered").then(pl.lit("row_corrupt")),
            *holes,
            "first",
            "second",
        )
    )
    return found["cause"]


def _holes(rows: pl.DataFrame, hashes: Callable[[pl.DataFrame], pl.Series] | None) -> pl.Series:
    """What is masked or erased of each row's arguments, as a cause; null: nothing is. Python once a row of them."""
    found = pl.Series([None], dtype=pl.String).new_from_index(0, rows.height)
    places = rows["args"].str.contains(QUOTED, literal=True).fill_null(value=False).arg_true()
    if places.is_empty():
        return found
    some = rows[places]
    told = [holes_in_args(text) for text in some["args"]]
    causes = pl.Series([None if each is None else each.cause for each in told], dtype=pl.String)
    if "args_hash" in rows.columns or hashes is not None:  # an agent may call with such arguments
        recorded = some["args_hash"] if hashes is None or "args_hash" in rows.columns else hashes(some)
        causes = pl.select(pl.when(sha256(some["args"]) != recorded).then(causes)).to_series()
    return found.scatter(places, causes)


def _fault(rows: pl.DataFrame, address: str) -> pl.Series:
    """What is wrong with the context at each address; null: nothing, or there is no address."""
    gone = pl.col(address).is_not_null() & pl.col("shape").is_null() & pl.col("fault").is_null()
    return rows.select(fault=pl.when(gone).then(pl.lit("context_lost")).otherwise("fault"))["fault"]


def _second_fault(rows: pl.DataFrame, contexts: Contexts) -> pl.Series:
    """What is wrong with the context after a patch: mostly there is none, or it is the first one."""
    address = "enforced_context_hash"
    here = pl.when(pl.col(address).is_not_null()).then(_fault(rows, "context_hash"))
    found = rows.select(fault=here)["fault"]
    other = (rows[address] != rows["context_hash"].fill_null("")).fill_null(value=False).arg_true()
    if other.is_empty():
        return found
    known = contexts.frame.select("context_hash", "fault", "shape")
    some = pl.DataFrame({"context_hash": rows[address].gather(other)})
    joined = some.join(known, on="context_hash", how="left", maintain_order="left")
    return found.scatter(other, _fault(joined, "context_hash"))
