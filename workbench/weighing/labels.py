"""What labels say of decisions: harm, good work, both, or nothing; vectorised over labels and decisions.

One rule: a decision's own label goes before its session's of the same name; different names do not go before each
other, so where one says harm and another good work, the decision is contradictory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import polars as pl

from workbench.errors import StakesInvalid
from workbench.texts import count, visible
from workbench.weighing.stakes import closest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from workbench.weighing.stakes import Stakes

STAKES = ("harm", "good", "contradictory", "unlabelled")
"""What labels say of a decision."""
_SAID = ("any", "harm", "good")
ORIGIN = "origin"
"""The label that a comparison has joined to its decisions already."""

Occurring: TypeAlias = "tuple[str, str | None, bool, int]"
"""A label, a value, whether it is of a session, and how often."""


def labelled(rows: pl.LazyFrame, labels: pl.LazyFrame, stakes: Stakes) -> pl.LazyFrame:
    """Add what labels say of each decision.

    Args:
        rows: `tenant`, `session_id`, `decision_id`, `origin`.
        labels: in force, as `lake.labels` has them.
        stakes: which count.

    Returns:
        The rows, in order, with `stake` (Enum of `STAKES`), `counted`, `harm`, `good`, and `meant_well` and
        `meant_ill` (Bool, never null): an intent says so.

    Raises:
        StakesInvalid: as `workbench.weighing.at_stake.columns`.
    """
    found = _texts(labels).filter(pl.col("label").is_in(list(stakes.labels)))
    of_call = pl.col("decision_id").is_not_null()
    there = occurring(labels, stakes)
    levels = {label for label, _, of_session, _ in there if not of_session}
    own = _summed(found.filter(of_call, pl.col("label") != ORIGIN), "decision_id", stakes)
    rows = _joined(rows, own if levels - {ORIGIN} else None, "decision_id")
    whole = any(of_session for _, _, of_session, _ in there)
    rows = _joined(
        rows, _summed(found.filter(~of_call), "session_id", stakes) if whole else None, "session_id"
    )
    origin = _bits(stakes, pl.lit(ORIGIN), pl.col(ORIGIN))
    said = {name: pl.col(f"decision_id_{name}") | origin[name] for name in _SAID}
    said |= {name: said[name] | (pl.col(f"session_id_{name}") & ~said["any"]) for name in _SAID[1:]}
    rows = rows.with_columns(_harm=said["harm"], _good=said["good"]).with_columns(**_stake(stakes))
    rows = rows.drop(*(f"{key}_{name}" for key in ("decision_id", "session_id") for name in _SAID))
    if stakes.conflicts == "error":
        _require_no_conflict(rows)
    return rows.with_columns(**_sides(stakes)).drop("_harm", "_good")


def _texts(labels: pl.LazyFrame) -> pl.LazyFrame:
    return labels.with_columns(
        pl.col("tenant", "session_id", "decision_id", "label", "value").cast(pl.String)
    )


def occurring(labels: pl.LazyFrame, stakes: Stakes) -> list[Occurring]:
    """Return which declared labels occur: name, value, whether of a session, how often; sorted.

    Raises:
        StakesInvalid: the lake has no such label, and that is to be an error.
    """
    names = (
        _texts(labels).group_by("label", "value", pl.col("decision_id").is_null().alias("of_session")).len()
    )
    rows: list[Occurring] = names.collect().sort("label", "value", "of_session").rows()
    known = sorted({label for label, *_ in rows})
    for name in stakes.labels if stakes.missing == "error" else ():
        if name not in known:
            raise StakesInvalid(
                f"the lake has no label `{visible(name)}`; {closest(name, known)} "
                '(or `missing = "none"`, if nobody said so yet)'
            )
    return [row for row in rows if row[0] in stakes.labels]


def _bits(stakes: Stakes, label: pl.Expr, value: pl.Expr) -> dict[str, pl.Expr]:
    """What a label says, as one bit of a number for each name: that it is there, means harm, means good work."""

    def said(fits: Mapping[str, pl.Expr]) -> pl.Expr:
        found = pl.lit(0, pl.UInt32)
        for name, holds in fits.items():
            bit = pl.lit(1 << stakes.labels.index(name), pl.UInt32)
            found = pl.when((label == name) & holds).then(bit).otherwise(found)
        return found

    sides = {
        side: {name: value.is_in(list(values)) for name, values in getattr(stakes, side).items()}
        for side in ("harm", "good")
    }
    return {"any": said(dict.fromkeys(stakes.labels, value.is_not_null()))} | {
        side: said(fits) for side, fits in sides.items()
    }


def _summed(labels: pl.LazyFrame, key: str, stakes: Stakes) -> pl.LazyFrame:
    """What all labels of one decision, or session, say: the bits of several names do not overlap."""
    bits = _bits(stakes, pl.col("label"), pl.col("value"))
    last = labels.unique(["tenant", key, "label"], keep="last", maintain_order=True)
    named = {f"{key}_{name}": expr.sum().cast(pl.UInt32) for name, expr in bits.items()}
    return last.group_by("tenant", key).agg(**named)


def _joined(rows: pl.LazyFrame, said: pl.LazyFrame | None, key: str) -> pl.LazyFrame:
    names = [f"{key}_{name}" for name in _SAID]
    if said is None:
        return rows.with_columns(pl.lit(0, pl.UInt32).alias(name) for name in names)
    joined = rows.join(said, on=["tenant", key], how="left", maintain_order="left")
    return joined.with_columns(pl.col(names).fill_null(0))


def _stake(stakes: Stakes) -> dict[str, pl.Expr]:
    harm, good = pl.col("_harm") != 0, pl.col("_good") != 0
    both = "harm" if stakes.conflicts == "harm" else "contradictory"
    said = (
        pl.when(harm & good).then(pl.lit(both)).when(harm).then(pl.lit("harm")).when(good).then(pl.lit("good"))
        .otherwise(pl.lit("unlabelled"))
    )  # fmt: skip
    return {"stake": said.cast(pl.Enum(STAKES))}


def _sides(stakes: Stakes) -> dict[str, pl.Expr]:
    stake = pl.col("stake").cast(pl.String)
    certain = stake.is_in(("harm", "good"))
    intents = pl.lit(
        sum(1 << stakes.labels.index(name) for name in {*stakes.intent} & {*stakes.labels}), pl.UInt32
    )
    return {
        "harm": pl.when(certain).then(stake == "harm"),
        "good": pl.when(certain).then(stake == "good"),
        "counted": (stake != "unlabelled") | (stakes.unlabelled == "bounds"),
        "meant_well": (stake == "good") & ((pl.col("_good") & intents) != 0),
        "meant_ill": (stake == "harm") & ((pl.col("_harm") & intents) != 0),
    }


def _require_no_conflict(rows: pl.LazyFrame) -> None:
    wrong = rows.filter(pl.col("stake") == "contradictory").select("decision_id").collect().to_series()
    if wrong.len():
        raise StakesInvalid(
            f"{count(wrong.len(), 'decision is', 'decisions are')} labelled both harm and good work, the first is "
            f'{visible(str(wrong[0]))}; take a label out of `good`, or say `conflicts = "harm"` or "open"'
        )


def undeclared(there: Iterable[Occurring], stakes: Stakes) -> Iterable[tuple[str, str, int]]:
    """Return the values of declared labels that say nothing: name, value, how often."""
    for label, value, _, n in there:
        if value is not None and value not in (*stakes.harm.get(label, ()), *stakes.good.get(label, ())):
            yield label, value, n


def never_said(there: Iterable[Occurring], stakes: Stakes) -> list[tuple[str, str]]:
    """Return the declared values that no label in force has: name, value."""
    found = {(label, value) for label, value, *_ in there}
    sides = (*stakes.harm.items(), *stakes.good.items())
    return [(label, value) for label, values in sides for value in values if (label, value) not in found]
