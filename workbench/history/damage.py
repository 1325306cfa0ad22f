"""Rows that cannot be replayed, by what they refer to: lost, altered, or contradicting themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from workbench.history.hashes import sha256

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
) -> pl.Series:
    """Return why each row is quarantined (String, of `workbench.replay.CAUSES`); null: it is not.

    Of several faults the first is told that `workbench.recorded.Recorded.damage` finds; what cannot be read, last.

    Args:
        rows: columns of `decisions`, joined with `Contexts.frame`.
        contexts: of the lake.
        find_bundle: by version.
        addresses: compare `args_hash`, too. Without it, arguments that were altered are found by their projection.
    """
    lost = [version for version in rows["bundle_version"].unique() if find_bundle(version) is None]
    frame = rows.select("bundle_version").with_columns(
        first=_fault(rows["context_hash"], contexts),
        second=_fault(rows["enforced_context_hash"], contexts),
        altered=sha256(rows["args"]) != rows["args_hash"] if addresses else pl.lit(value=False),
    )
    unreadable = "row_unreadable"
    altered = [pl.when(pl.col(each) != unreadable).then(each) for each in ("first", "second")]
    found = frame.select(
        cause=pl.coalesce(
            pl.when(pl.col("bundle_version").is_in(lost)).then(pl.lit("policy_lost")),
            *altered,
            pl.when("altered").then(pl.lit("row_corrupt")),
            "first",
            "second",
        )
    )
    return found["cause"]


def _fault(addresses: pl.Series, contexts: Contexts) -> pl.Series:
    """What is wrong with the context at each address; null: nothing, or there is no address."""
    known = contexts.frame.select(hash="context_hash", fault="fault", there=pl.lit(value=True))
    found = pl.DataFrame({"hash": addresses}).join(known, on="hash", how="left", maintain_order="left")
    gone = pl.col("hash").is_not_null() & pl.col("there").is_null()
    return found.select(fault=pl.when(gone).then(pl.lit("context_lost")).otherwise("fault"))["fault"]
