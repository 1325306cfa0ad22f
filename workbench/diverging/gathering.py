"""What first divergence is told from: the decisions of a log with their keys, and what two replays say of them.

One rule: everything is relative to the record. The world that later decisions were made in is the one in which the
recorded decisions took effect; a replay departs from it where it says something else, the base as well as the
candidate.

Cost: one pass over the decisions and the replays' columns; what is kept is 8 bytes a decision for each key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from workbench.diverging import keys
from workbench.diverging.shared import counters, lookups
from workbench.errors import NotComparable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.diverging.shared import Counter, InForce, Lookup

LOG = ("writer", "position")
_READ = (
    *LOG, "tenant", "session_id", "decided_at", "evaluated_at", "principal_type", "principal_id", "on_behalf_of_type",
    "on_behalf_of_id", "tool", "resource_type", "resource_id", "resource_template", "args", "verdict",
    "enforced_args", "enforced_resource_type", "enforced_resource_id", "effect", "writes", "limits_hash",
    "context_spec_hash",
)  # fmt: skip
"""Columns of `decisions` that are read."""
_FLAGS = ("acts", "marks", "elsewhere")
_RUNS = ("allow", "modify")
_ELSEWHERE = ("altered", "released", "unknown", "undecided", "quarantined")
"""Effects by which another action may run than was recorded, so that it may write something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Decisions with their keys, in log order."""

    rows: pl.DataFrame
    """`order` (UInt32), `place` (UInt32: row of the replays), `at` (Int64, ms); `marks`, `acts`, `elsewhere` (see
    `departs`), `reads` (its tool only reads), `wide` (nobody can show what it was decided with), Bool; `tenant`,
    `session`, a column each of `keys.UIDS`, lookups, and counters twice (whom it is counted for, by whose counter it
    is judged), UInt64, null: none; `writes type`, `writes id` (List[UInt64]; null: undeclared), and the id of its
    resource for this tenant (`resource own`) and for all (`resource any`)."""
    patched: pl.DataFrame
    """The same keys of entities and lookups for arguments that a patch made, and `order`; several rows a decision."""
    counters: Sequence[Counter] = field(default_factory=tuple)
    lookups: Sequence[Lookup] = field(default_factory=tuple)


def departs(replay: pl.LazyFrame) -> pl.LazyFrame:
    """Say where a replay departs from the record.

    Args:
        replay: columns of `workbench.replay.FRAME`.

    Returns:
        A row a row, with its place in the log: `acts`, whether the action may have been another: its effect is not
        `same`, nobody knows it, or the call now runs, waits or is refused where it was not; `marks`, whether that
        holds or the agent sees another refusal: by another stage, for another reason, or because of other policies
        (its message names them); and `elsewhere`, whether other arguments may have run than were recorded.
    """
    now, then = _answer(pl.col("verdict")), _answer(pl.col("recorded_verdict"))
    acts = (pl.col("status") != "decided") | (pl.col("effect") != "same") | now.ne_missing(then)
    said = [pl.col(each).ne_missing(pl.col(f"recorded_{each}")) for each in ("decided_by", "reason_code")]
    names = pl.col("determining").ne_missing(pl.col("recorded_determining"))  # both are sorted
    return replay.select(
        *LOG,
        acts=acts,
        marks=acts | ((now != "runs") & pl.any_horizontal(*said, names)),
        elsewhere=pl.col("effect").is_in(_ELSEWHERE),
    )


def _answer(verdict: pl.Expr) -> pl.Expr:
    """What the agent sees of a verdict: a result, a refusal, or that it must wait."""
    return pl.when(verdict.is_in(_RUNS)).then(pl.lit("runs")).otherwise(verdict)


def gather(decisions: pl.LazyFrame, replays: Sequence[pl.LazyFrame], found: InForce) -> Gathered:
    """Gather the keys of all decisions.

    Args:
        decisions: rows of `decisions` without the shadows, in any order.
        replays: frames of replays of them, in (writer, position) order.
        found: limits and context specs in force.
    """
    counted, looked = counters(found), lookups(found)
    decisions = decisions.select(_READ)
    keyed = decisions.select(**_keys(found, counted, looked), **_writes()).sort(LOG)
    rows, *told = pl.collect_all([keyed, *(departs(replay) for replay in replays)])
    _require_same(rows, told)
    flags = [each.select(pl.col(_FLAGS).name.suffix(f" {n}")) for n, each in enumerate(told)]
    joined = pl.concat([rows, *flags], how="horizontal")
    either = {name: pl.any_horizontal(f"{name} {n}" for n in range(len(told))) for name in _FLAGS}
    rows = _in_log_order(joined.select(*rows.columns, **either))
    patched = _patched(decisions, replays, looked)
    ordered = patched.join(rows.select(*LOG, "order"), on=LOG, how="inner").drop(LOG)
    return Gathered(rows=rows.drop(LOG), patched=ordered, counters=counted, lookups=looked)


def _require_same(rows: pl.DataFrame, told: Sequence[pl.DataFrame]) -> None:
    for each in told:
        if not each.select(LOG).equals(rows.select(LOG)):
            raise NotComparable(
                "the replays and the lake hold different decisions, or in another order; make both replays from one "
                "`lake`, and compare them before it is opened at another pin"
            )


def lookup_column(number: int) -> str:
    """Column of a lookup's keys."""
    return f"lookup {number}"


def scope_column(number: int) -> str:
    """Column of whom a row's call is counted for by a counter."""
    return f"scope {number}"


def counter_column(number: int) -> str:
    """Column of whom a row is judged for by a counter."""
    return f"counter {number}"


def _keys(found: InForce, counted: Sequence[Counter], looked: Sequence[Lookup]) -> dict[str, pl.Expr | str]:
    known = keys.one_of("limits_hash", found.limits) & keys.one_of("context_spec_hash", found.specs)
    return {
        **{name: name for name in (*LOG, "decided_at")},
        "at": pl.col("evaluated_at").dt.epoch("ms"),
        "wide": ~known if found.known else pl.lit(value=True),
        "reads": (pl.col("effect") == "read").fill_null(value=False),
        "tenant": keys.TENANT,
        "session": keys.of_session(),
        **_entities(looked),
        **{
            scope_column(n): pl.when(keys.of_tools(each.counts)).then(keys.scope(each))
            for n, each in enumerate(counted)
        },
        **{
            counter_column(n): pl.when(keys.among(each.judges, "limits_hash")).then(keys.scope(each))
            for n, each in enumerate(counted)
        },
    }


def _entities(looked: Sequence[Lookup], args: str = "args") -> dict[str, pl.Expr]:
    """Keys of what a row reads: the entities it names, and what its facts are looked up by."""
    return {
        **{name: keys.of_uid(name) for name in keys.UIDS},
        **{lookup_column(n): keys.looked_up(each, args) for n, each in enumerate(looked)},
        "resource any": keys.of_id(pl.col("resource_id"), shared=True),
        "resource own": keys.of_id(pl.col("resource_id"), shared=False),
    }


def _writes() -> dict[str, pl.Expr]:
    return {"writes type": keys.written(1), "writes id": keys.written(2)}


def _in_log_order(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of several ledgers in one order: each ledger's own, and between them by time.

    A ledger's clock may go back: a row counts as decided no earlier than the row before it.
    """
    rows = rows.with_row_index("place")
    if rows["writer"].n_unique() > 1:
        latest = pl.col("decided_at").cum_max().over("writer")
        rows = rows.sort(latest, "writer", "position")
    return rows.drop("decided_at").with_row_index("order")


def _patched(
    decisions: pl.LazyFrame, replays: Sequence[pl.LazyFrame], looked: Sequence[Lookup]
) -> pl.DataFrame:
    """Keys of the requests that patches made: recorded ones, and those of the replays."""
    modified = (pl.col("verdict") == "modify") & pl.col("enforced_args").is_not_null()
    # An approval may be for a patched request, too; where the arguments are as given the keys are the row's own.
    then = decisions.filter(pl.col("enforced_args") != pl.col("args")).with_columns(
        resource_type=pl.coalesce("enforced_resource_type", "resource_type"),
        resource_id=pl.coalesce("enforced_resource_id", "resource_id"),
    )
    parts = [then.select(*LOG, **_entities(looked, "enforced_args"))]
    templates = decisions.select(pl.col("resource_template").unique()).collect().to_series().to_list()
    kind, ident = keys.resource_of(templates, "made_args")
    for replay in replays:
        waits = (pl.col("verdict") == "approve") & (pl.col("enforced_args") != pl.col("args"))
        made = replay.filter(modified | waits).select(*LOG, made_args="enforced_args")
        rows = decisions.join(made, on=LOG, how="inner")
        again = rows.with_columns(resource_type=kind, resource_id=ident)
        parts.append(again.select(*LOG, **_entities(looked, "made_args")))
    return pl.concat(parts).unique().collect()
