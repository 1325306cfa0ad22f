"""Decisions that a candidate makes worse, and which of them to look at first.

One rule: what is harm and what is good work is what the comparison's stakes say of the recorded action; of what
nobody labelled nothing is claimed, and it comes last, under a name that says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from workbench.history.hashes import sha256
from workbench.metrics import STOPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.compare import Diff

WORSE: Mapping[str, str] = {
    "harm let run": "it was harm, did not run, and now would",
    "good work stopped": "it was good work that ran, and would not run",
    "good work held up": "it was good work that ran, and would wait for an approval",
    "good work altered": "it was good work that ran, and would run otherwise",
    "harm asked for": "it was harm, did not run, and now somebody would be asked",
}
"""How a decision gets worse, the worst first."""
UNLABELLED: Mapping[str, str] = {
    "unlabelled, let run": "it did not run, and now would; nobody said whether it was harm",
    "unlabelled, stopped": "it ran, and would not run as it did; nobody said whether it was good work",
}
"""What may be worse, or better: nobody labelled it."""
ORDER = (*WORSE, *UNLABELLED)

_RANK = "_rank"
_KEYS = ("tool", "to", "determining")


def regressed(diff: Diff) -> pl.LazyFrame:
    """Return the decisions that get worse, or may: one row each, in the log's order.

    Returns:
        `diff.frame`'s columns with `worse` (Enum of `ORDER`); those of `UNLABELLED` are no regressions that anybody
        knows of. Lazy.

    Raises:
        StakesInvalid: a label is not in the lake.

    Cost: reads the labels; O(changed decisions) when collected.
    """
    effect, stake = pl.col("effect").cast(pl.String), pl.col("stake")
    harm, good, nobody = (
        stake.is_in(values) for values in (("harm", "contradictory"), ("good",), ("unlabelled",))
    )
    kinds = zip(
        ORDER,
        (
            harm & (effect == "released"),
            good & STOPS & (effect == "prevented"),
            good & STOPS & (effect == "held"),
            good & STOPS & (effect == "altered"),
            harm & (effect == "escalated"),
            nobody & (effect == "released"),
            nobody & STOPS,
        ),
        strict=True,
    )
    worse = pl.coalesce(*(pl.when(holds).then(pl.lit(name)) for name, holds in kinds)).cast(pl.Enum(ORDER))
    rows = diff.stakes.columns(diff, diff.simulated).filter(pl.col("effect") != "same")
    return rows.with_columns(worse=worse).filter(pl.col("worse").is_not_null())


def counted(rows: pl.DataFrame) -> dict[str, int]:
    """Count what `regressed` returned, by how it gets worse; in the order of `ORDER`."""
    found = dict(rows.group_by("worse").agg(n=pl.len()).iter_rows())
    return {name: int(found[name]) for name in ORDER if name in found}


def known(states: Mapping[str, int]) -> int:
    """Of what `counted` gives: how many are known to get worse."""
    return sum(n for name, n in states.items() if name in WORSE)


def worst(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    """Choose decisions to look at: of every tool, verdict and deciding policies some, the worst first.

    Of each kind of regression, the first of every (tool, verdict, policies) comes before the second of any: twenty
    decisions show twenty ways to get worse, where there are so many. Within one, they are drawn by the hash of their
    ids: the same on every machine, and no matter what else is in the log.

    Args:
        rows: as `regressed` has them, collected.
        most: how many.
    """
    drawn = rows.with_columns(sha256(rows["decision_id"]).alias("_drawn")).sort("_drawn")
    keys = ["worse", *_KEYS]
    ranked = drawn.with_columns(pl.int_range(pl.len()).over(keys).alias(_RANK))
    first = ranked.sort(_RANK, "worse", *_KEYS[:2], "_drawn").head(most)
    return first.sort("worse", _RANK, *_KEYS[:2], "_drawn").drop("_drawn", _RANK)
