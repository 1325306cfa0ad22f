"""What two windows are made of, beside what `workbench.drifting` compares: verdicts and shapes of context.

One rule: whether a shape is new by chance is asked of sessions, of which one is in one window only; how much hangs on
it is counted in decisions. Decisions of one session are no witnesses for each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from runtime.errors import BundleError
from workbench.drifting.measures import categories, categories_p
from workbench.errors import BundleNotFound
from workbench.history.caching import contexts_of
from workbench.history.contexts import fact_column
from workbench.statistics.multiplicity import adjusted
from workbench.texts import share, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.lake import Lake

_TYPES = ("principal_type", "resource_type", "on_behalf_of_type")
_NOT_ASKED = "not_asked"
_SESSION = pl.concat_str("tenant", "session_id", separator="\0").hash().alias("session")
_SHOWN = 2
"""Reasons named on each side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What two windows hold."""

    sessions: tuple[int, int]
    """In each; one that is in both, in the first only."""
    policy: str | None
    """Version under which verdicts were decided again; None: as recorded."""
    mixes: tuple[dict[str, Any], ...]
    """Where they were decided again: a row each for `verdict` and `reason`, as the gate's frame has it."""
    shares: dict[str, float]
    """`verdict.<verdict>.before`, `.after`: of the decisions."""
    told: str
    """The verdicts in words."""
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """Shapes of context that only the second window has: tool, types, and which facts were found."""

    decisions: int
    """Of the second window."""
    unseen: int
    """Of them, those whose tool or shape the first window had not."""
    sure: int
    """Of those, the ones whose shape is in more sessions than chance would leave to one window."""
    kinds: int
    """Different shapes in both windows."""
    sessions: tuple[int, int]
    """In each window; one that is in both counts in neither."""
    most: str
    """The new shape that most decisions have, of the sure ones; empty: none."""
    needed: str
    """In how many sessions a shape has to be."""


def contents_of(before: Lake, after: Lake, policy: str | None) -> Contents:
    """Return what two windows hold.

    Args:
        before: the first window.
        after: the second.
        policy: a version the lake holds, to decide both again; None: as recorded.

    Cost: one pass over a few columns; with a policy two replays.
    """
    notes: tuple[str, ...] = ()
    try:
        sides = [_verdicts(each, policy) for each in (before, after)]
    except (BundleNotFound, BundleError) as exc:
        notes = (
            f"The policy changed between the windows, and verdicts are as recorded: {visible(str(exc))}",
        )
        sides, policy = [_verdicts(each, None) for each in (before, after)], None
    first = sides[0]["session"].unique()
    known = first.implode()
    mine = sides[1].filter(~pl.col("session").is_in(known))
    mixes = [] if policy is None else [_mix(name, sides, mine) for name in ("verdict", "reason")]
    shares = [_shares(each["verdict"]) for each in sides]
    return Contents(
        sessions=(first.len(), mine["session"].n_unique()),
        policy=policy,
        mixes=tuple(mixes),
        shares={
            f"verdict.{name}.{side}": part
            for side, parts in zip(("before", "after"), shares, strict=True)
            for name, part in parts.items()
        },
        told=_compared(*shares),
        notes=notes,
    )


def _verdicts(lake: Lake, policy: str | None) -> pl.DataFrame:
    """`session`, `verdict`, `reason`; of each session in an order of chance, as `drifting.values` has it."""
    reason = pl.format("{} {}", pl.col("decided_by").cast(pl.String), pl.col("reason_code").cast(pl.String))
    verdict = pl.col("verdict").cast(pl.String)
    draw = pl.col("decision_id").str.tail(12)
    if policy is None:
        rows = lake.history
    else:
        rows = lake.replay(policy).frame
        decided, status = pl.col("status").eq("decided"), pl.col("status").cast(pl.String)
        verdict, reason = (pl.when(decided).then(each).otherwise(status) for each in (verdict, reason))
    rows = rows.select(_SESSION, draw.alias("draw"), verdict=verdict, reason=reason)
    return rows.sort("session", "draw").drop("draw").collect()


def _mix(name: str, sides: Sequence[pl.DataFrame], mine: pl.DataFrame) -> dict[str, Any]:
    """One variable of both windows: far apart by all decisions, surely by one of each session."""
    kinds = sorted({*sides[0][name], *sides[1][name]})
    every = [_counts(each[name], kinds) for each in sides]
    drawn = [
        _counts(each.unique("session", keep="first", maintain_order=True)[name], kinds)
        for each in (sides[0], mine)
    ]
    p = categories_p(*drawn)
    words = [_most(dict(zip(kinds, each, strict=True))) for each in every]
    return {
        "name": name, "before": words[0], "after": words[1], "distance": categories(*every).distance,
        "p": None if math.isnan(p) else p, "policies": [], "decisions": 0,
        "n_before": sum(every[0]), "n_after": sum(every[1]),
    }  # fmt: skip


def _counts(values: pl.Series, kinds: Sequence[str]) -> list[int]:
    found = dict(values.value_counts(name="n").iter_rows())
    return [found.get(kind, 0) for kind in kinds]


def _most(counts: dict[str, int]) -> str:
    found = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{visible(kind)} {share(n, sum(counts.values()))}" for kind, n in found[:_SHOWN])


def _shares(verdicts: pl.Series) -> dict[str, float]:
    found = dict(verdicts.value_counts(name="n").iter_rows())
    return {str(name): n / verdicts.len() for name, n in sorted(found.items())}


def _compared(before: dict[str, float], after: dict[str, float]) -> str:
    names = sorted({*before, *after}, key=lambda name: -max(before.get(name, 0), after.get(name, 0)))
    return ", ".join(
        f"{visible(name)} {share(before.get(name, 0), 1)} → {share(after.get(name, 0), 1)}" for name in names
    )


def unseen_shapes(before: Lake, after: Lake, alpha: float) -> Shapes:
    """Return which shapes of context only the second window has, and which of them chance would not leave to it.

    Args:
        before: the first window.
        after: the second, with a decision in it.
        alpha: error of all that are called sure, together.

    Cost: a pass over seven columns, joined with the lake's contexts.
    """
    keys, facts = _facts(after)
    rows = [_shaped(each, keys, facts) for each in (before, after)]
    sessions = [each["session"].unique() for each in rows]
    both = sessions[0].filter(sessions[0].is_in(sessions[1].implode())).implode()
    n, m = (each.len() - both.explode().len() for each in sessions)
    found = _per_shape(rows, both, keys)
    tests = [_alone(k, n, m) if seen == 0 else 1.0 for seen, k in found.select("seen", "after").iter_rows()]
    found = found.with_columns(p=pl.Series(adjusted(tests), dtype=pl.Float64))
    unseen = found.filter(pl.col("seen") == 0)
    sure = unseen.filter(pl.col("p") <= alpha).sort("decisions", descending=True)
    return Shapes(
        decisions=rows[1].height,
        unseen=int(unseen["decisions"].sum()),
        sure=int(sure["decisions"].sum()),
        kinds=found.height,
        sessions=(n, m),
        most=_said(sure.row(0, named=True), keys) if sure.height else "",
        needed=_needed(alpha / max(found.height, 1), n, m),
    )


def _facts(lake: Lake) -> tuple[list[str], pl.DataFrame]:
    """Columns that make a shape, and of each context those of its facts: how each was found; null: not asked."""
    contexts = contexts_of(lake)
    columns = {
        fact_column(name): records.frame["status"].gather(contexts.frame[fact_column(name)])
        for name, records in contexts.facts.items()
    }
    known = contexts.frame.select("context_hash", compiled=pl.col("shape").is_not_null()).with_columns(
        pl.when(each != _NOT_ASKED).then(each).alias(name) for name, each in columns.items()
    )
    return ["tool", *_TYPES, "compiled", *columns], known


def _shaped(lake: Lake, keys: list[str], facts: pl.DataFrame) -> pl.DataFrame:
    rows = lake.history.select(_SESSION, "tool", *_TYPES, "context_hash").collect()
    texts = [pl.col("tool", *_TYPES).cast(pl.String), pl.col("compiled").fill_null(value=False)]
    return rows.join(facts, on="context_hash", how="left").with_columns(texts).select("session", *keys)


def _per_shape(rows: list[pl.DataFrame], both: pl.Series, keys: list[str]) -> pl.DataFrame:
    """A row a shape: `seen` and `decisions` of it in each window, and sessions `after` of the second alone."""
    alone = pl.col("session").filter(~pl.col("session").is_in(both)).n_unique()
    seen = rows[0].group_by(keys).agg(seen=pl.len())
    mine = rows[1].group_by(keys).agg(decisions=pl.len(), after=alone)
    found = seen.join(mine, on=keys, how="full", nulls_equal=True, coalesce=True)
    return found.with_columns(pl.col("seen", "decisions", "after").fill_null(0).cast(pl.Int64)).sort(keys)


def _alone(k: int, n: int, m: int) -> float:
    """Chance that k sessions of n + m are all among the m of one window."""
    found = math.lgamma(m + 1) - math.lgamma(m - k + 1) - math.lgamma(n + m + 1) + math.lgamma(n + m - k + 1)
    return math.exp(min(found, 0.0))


def _said(row: dict[str, Any], keys: list[str]) -> str:
    """A shape in words, as coverage has it."""
    found = [
        f"{name.removeprefix(fact_column(''))} {row[name]}" for name in keys[5:] if row[name] is not None
    ]
    who = f"{row['principal_type'] or 'nobody'} on {row['resource_type'] or 'nothing'}"
    facts = (", ".join(found) or "no facts asked") if row["compiled"] else "not compiled"
    return f"{row['tool']} by {who}: {facts}"


def _needed(alpha: float, n: int, m: int) -> str:
    if not n or not m:
        return "sessions in both windows"
    least = next((k for k in range(1, m + 1) if _alone(k, n, m) <= alpha), None)
    return f"{least:,} of {m:,}" if least is not None else f"more than the {m:,} there are"
