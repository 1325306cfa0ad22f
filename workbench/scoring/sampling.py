"""Which decisions a judge sees: what changed, and a stratified control sample of what did not.

One rule: same decisions and same seed, same sample, on every machine and day; each sampled decision says by its
weight how many it stands for, so that what a judge says of the sample says something of all.

A judge costs money and minutes a call, and a window has a million decisions of which few change. Changed decisions
are what the comparison is about; the control sample says how often the judge objects where nothing changed.

Decisions that a replay could not decide are in no stratum: nothing can be judged there. They are counted.

Source: stratified sampling, Cochran 1977, Sampling Techniques, chapter 5; sampling by
hash, Duffield & Grossglauser 2001, IEEE/ACM Trans. Networking 9:280.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import polars as pl

from workbench.errors import ColumnUnknown, ScoringInvalid
from workbench.history.hashes import sha256

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CHANGED", "STRATA", "Sample", "sample"]

CHANGED, SAME = "changed", "same"
"""What the name of a stratum begins with."""
STRATA = ("tool", "to")
REST = "the rest"
"""What strata too small for a share of their own are called together."""
FEW = 2
"""Decisions a stratum has in the sample at least: of one alone, nobody can say how it varies."""
COLUMNS = {"tenant": pl.String, "decision_id": pl.String, "stratum": pl.String, "weight": pl.Float64}
"""Of `Sample.ids`."""


class Compared(Protocol):
    """What a sample is drawn from: a `workbench.compare.Diff`."""

    @property
    def frame(self) -> pl.LazyFrame:
        """One row a decision, with `changed` and `status`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Some decisions, and how many each stands for. Made by `sample`."""

    ids: pl.DataFrame
    """One row a sampled decision, in the log's order: `tenant`, `decision_id`, `stratum` (String), `weight` (Float64:
    decisions of the stratum for each sampled one)."""
    decisions: int
    """Of the comparison, those that both replays could decide: the weights' sum, unless a side was left out."""
    changed: int
    """Of them, those that change."""
    undecided: int
    """Those that a replay could not decide: in no stratum."""

    def __len__(self) -> int:
        return self.ids.height

    @property
    def strata(self) -> pl.DataFrame:
        """One row a stratum, sorted: `stratum`, `decisions` it has, `sampled` of them, `weight`."""
        counted = self.ids.group_by("stratum").agg(sampled=pl.len(), weight=pl.col("weight").first())
        whole = (pl.col("sampled") * pl.col("weight")).round().cast(pl.Int64)
        return counted.sort("stratum").select("stratum", "sampled", "weight", decisions=whole)


def sample(
    diff: Compared,
    *,
    flips: Literal["all"] | int = "all",
    control: int = 200,
    strata: Sequence[str] = STRATA,
    seed: int = 0,
) -> Sample:
    """Draw decisions to judge: those that change, and some that do not.

    Args:
        diff: a comparison.
        flips: how many of the changed decisions; `all`, or at most so many, drawn as the control is.
        control: how many of the unchanged ones, at most; 0: none.
        strata: columns of `diff.frame`. Each combination gets two decisions, and a share of the rest by its size;
            where there are too many for that, the smallest are taken together.
        seed: another one, another sample.

    Returns:
        The sample; empty where no decision could be decided.

    Raises:
        ScoringInvalid: a number is negative.
        ColumnUnknown: a stratum is no column; names the closest.

    Cost: O(decisions) hashes, 1 to 2 s a million; the comparison's rows are collected if they were not.
    """
    for name, number in (("flips", flips), ("control", control)):
        if number != "all" and (type(number) is not int or number < 0):
            raise ScoringInvalid(f'`{name}` is {number!r}; give a number of decisions, 0 or more, or "all"')
    known = diff.frame.collect_schema().names()
    for name in strata:
        if name not in known:
            raise ColumnUnknown(name, known, "the comparison")
    rows = diff.frame.select(
        "tenant", "decision_id", "changed", pl.col("status") == "decided", cell=_cell(strata)
    ).collect()
    decided = rows.filter("status").with_row_index("at")
    drawn = [
        _drawn(part, CHANGED if changes else SAME, limit, seed)
        for changes, limit in ((True, flips), (False, control))
        if limit and (part := decided.filter(pl.col("changed") == changes)).height
    ]
    ids = pl.concat(drawn).sort("at").select(*COLUMNS) if drawn else pl.DataFrame(schema=COLUMNS)
    return Sample(
        ids=ids,
        decisions=decided.height,
        changed=int(decided["changed"].sum()),
        undecided=rows.height - decided.height,
    )


def _cell(strata: Sequence[str]) -> pl.Expr:
    named = [
        pl.format("{}={}", pl.lit(name), pl.col(name).cast(pl.String).fill_null("none")) for name in strata
    ]
    return pl.concat_str(named, separator=", ") if named else pl.lit("")


def _drawn(part: pl.DataFrame, side: str, limit: Literal["all"] | int, seed: int) -> pl.DataFrame:
    """Draw from the changed decisions, or from the others: `COLUMNS`, and `at`."""
    if limit == "all" or limit >= part.height:
        return part.with_columns(stratum=pl.lit(side), weight=pl.lit(1.0)).select("at", *COLUMNS)
    cells = _allocated(part.group_by("cell").len(), limit)
    texts = part.select(pl.format("{}:{}:{}", pl.lit(seed), "tenant", "decision_id")).to_series()
    placed = part.with_columns(draw=sha256(texts)).join(cells, on="cell", how="left")
    chosen = placed.filter(pl.col("draw").rank("ordinal").over("stratum") <= pl.col("share"))
    named = pl.concat_str(pl.lit(side), "stratum", separator=" ").str.strip_chars_end()
    return chosen.with_columns(stratum=named, weight=pl.col("size") / pl.col("share")).select("at", *COLUMNS)


def _allocated(cells: pl.DataFrame, limit: int) -> pl.DataFrame:
    """Share `limit` decisions out: `cell`, its `stratum`, the stratum's `size` and `share` (all of them at most).

    Each stratum gets two (or all it has), and of the rest by its size, by the largest remainder. There are at most as
    many strata as that allows: beyond, the smallest are one stratum.
    """
    most = max(limit // FEW, 1)
    ordered = cells.sort("len", "cell", descending=[True, False]).with_row_index("place")
    apart = pl.col("place") < (most - 1 if cells.height > most else most)
    merged = ordered.with_columns(stratum=pl.when(apart).then("cell").otherwise(pl.lit(REST)))
    sizes = merged.group_by("stratum", maintain_order=True).agg(size=pl.col("len").sum())
    shares = sizes.with_columns(share=pl.Series(_shares(sizes["size"].to_list(), limit), dtype=pl.Int64))
    return merged.select("cell", "stratum").join(shares, on="stratum", how="left", maintain_order="left")


def _shares(sizes: Sequence[int], limit: int) -> list[int]:
    least = [min(size, FEW, limit) for size in sizes]
    spare, room = limit - sum(least), [size - low for size, low in zip(sizes, least, strict=True)]
    if not sum(room):
        return least
    exact = [spare * each / sum(room) for each in room]
    found = [low + int(more) for low, more in zip(least, exact, strict=True)]
    order = sorted(range(len(sizes)), key=lambda at: (int(exact[at]) - exact[at], at))
    for at in order[: limit - sum(found)]:
        found[at] += 1
    return found
