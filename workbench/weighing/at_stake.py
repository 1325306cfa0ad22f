"""The decisions of a comparison with what was at stake in each, then and now: rows that quantities are sums of.

One rule: null is *not known*, and nothing else is. What follows from the record is there; what would come of an
action that never ran is not, unless it was simulated, or a label of intent says that it is no harm.

By effect: `same` is now what it was then. `prevented` does not run. `held` and `escalated` run if somebody grants it.
`altered` and `released` run, and what comes of it is not known. In doubt, it may have run. `undecided` and
`quarantined` may run or not, as anything.

Accepted: an undecided or quarantined call is taken to move what was asked for, or nothing; money that a patch nobody
could compute would put in its place is not in the bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import polars as pl

from workbench.errors import SimulatorsInvalid, StakesInvalid
from workbench.texts import visible
from workbench.weighing.labels import labelled
from workbench.weighing.money import amount
from workbench.weighing.stakes import closest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from workbench.compare import Diff
    from workbench.weighing.stakes import Stakes

ADDED: Mapping[str, str] = {
    "stake": "what labels say: harm, good, contradictory (both), unlabelled; Enum, never null",
    "counted": "it is labelled, or unlabelled ones are in the bounds; Bool, never null",
    "harm": "the recorded action was harmful, if it ran; Bool",
    "good": "the recorded action was good work, if it ran; Bool",
    "money": "what the recorded action moved, if it ran (asked to move, where it did not); Int64; 0 for other tools",
    "ran_then": "it ran; Bool, null in doubt",
    "asked_then": "an approval was asked; Bool, never null",
    "runs_now": "it would run; Bool, null if it waits or nobody can tell",
    "asks_now": "an approval would be asked; Bool, null if nobody can tell",
    "same_action": "what would run is what ran; Bool",
    "harm_now": "what would run is harmful; Bool",
    "good_now": "what would run is good work; Bool",
    "money_now": "what would run moves so much; Int64",
    "simulated": "a simulator said what would come of it; Bool, never null",
}
"""Columns beside those of `Diff.frame`."""

SIMULATED: Mapping[str, type[pl.DataType]] = {
    "decision_id": pl.String, "outcome": pl.String, "sim_harm": pl.Boolean, "sim_good": pl.Boolean,
    "sim_money": pl.Int64,
}  # fmt: skip
"""What is read of simulated rows; `outcome` is null where the simulator failed."""

_COUNTED_ELSEWHERE = pl.col("then") == "granted"
"""A call that asked and was granted: the decision that resumed it ran."""
_ONCE = pl.col("kind") == "duplicate"
_OPEN = pl.col("effect").is_in(("undecided", "quarantined"))
_SAME = pl.col("effect") == "same"
_OTHER = ~_SAME & ~_OPEN & (pl.col("to") != "block")
"""Something may run that did not run so, and what it is is known."""


class Simulations(Protocol):
    """What is read of simulated outcomes."""

    @property
    def replay(self) -> str:
        """Id of the candidate replay."""

    @property
    def rows(self) -> pl.DataFrame:
        """One row a decision that was asked; has the columns of `SIMULATED`."""


def columns(diff: Diff, stakes: Stakes, simulated: Simulations | None = None) -> pl.LazyFrame:
    """Return the decisions of a comparison with what was at stake.

    Args:
        diff: the comparison.
        stakes: what is harm, good work, money.
        simulated: outcomes by simulators, of the same candidate.

    Returns:
        One row a decision, in the log's order: the columns of `diff.frame`, then those of `ADDED`. Lazy.

    Raises:
        StakesInvalid: a label is not in the lake, a tool of `money` not in the log, or a decision is labelled both
            harm and good work and that is to be an error.
        SimulatorsInvalid: what was simulated belongs to another candidate.

    Cost: reads the labels; O(decisions) when collected. Money is read from JSON by columns.
    """
    if simulated is not None and simulated.replay != diff.cand.id:
        raise SimulatorsInvalid("the simulated outcomes are of another candidate; simulate this comparison")
    _require_tools(diff, stakes.moneys)
    rows = _acting(diff, stakes).with_columns(**_running())
    rows = labelled(rows, diff.labels, stakes).with_columns(**_now())
    return _with_simulated(rows, simulated).select(*diff.frame.collect_schema().names(), *ADDED)


def _require_tools(diff: Diff, tools: Iterable[str]) -> None:
    known = diff.frame.select(pl.col("tool").unique()).collect().to_series().to_list() if tools else []
    for tool in tools:
        if tool not in known:
            raise StakesInvalid(
                f"`money` names the tool `{visible(tool)}`, which the log does not have; {closest(tool, known)}"
            )


def open_actions(diff: Diff) -> pl.LazyFrame:
    """Return the decisions whose action would run, or wait, and never ran: what comes of it is not in the log.

    Returns:
        One row each, in the log's order, lazy: `decision_id`, `effect`, `tool`, `principal`, `tenant`, `session`,
        `then`, `args` (to be enforced, once granted), `recorded_args` (as asked for); Strings.
    """
    args = diff.cand.frame.select(_args="args", _enforced="enforced_args")
    rows = _with_acted(pl.concat([diff.frame, args], how="horizontal"), diff)
    other = _OTHER & ~_COUNTED_ELSEWHERE & ~_ONCE & pl.col("_enforced").is_not_null()
    new = ~pl.col("effect").is_in(("held", "unknown")) | (pl.col("_enforced") != pl.col("_acted")).fill_null(
        value=True
    )
    return rows.filter(other, new).select(
        "decision_id", "effect", "tool", "principal", "tenant", "then",
        session="session_id", args="_enforced", recorded_args="_args",
    )  # fmt: skip


def _acting(diff: Diff, stakes: Stakes) -> pl.LazyFrame:
    """The rows with `same_action`, `money` and `_money_other`, for which arguments are read and left behind."""
    args = diff.cand.frame.select(_args="args", _enforced="enforced_args")
    rows = _with_acted(pl.concat([diff.frame, args], how="horizontal"), diff)
    same = (
        pl.when(_OPEN).then(None)
        .when(pl.col("effect").is_in(("held", "unknown")) & (pl.col("to") != "block"))
        .then(pl.col("_enforced") == pl.col("_acted"))
        .otherwise(_SAME)
    )  # fmt: skip
    asked = pl.coalesce("_acted", pl.when(pl.col("then") != "ran").then("_args"))
    money, other = amount(asked, stakes.moneys), amount(pl.when(_OTHER).then("_enforced"), stakes.moneys)
    rows = rows.with_columns(same_action=same, money=money, _money_other=other)
    return rows.drop("_args", "_enforced", "_acted")


def _with_acted(rows: pl.LazyFrame, diff: Diff) -> pl.LazyFrame:
    """Add `_acted`, the arguments that were enforced then; null where the record does not say."""
    patched = pl.col("recorded_verdict") == "modify"
    if not rows.select(patched.any()).collect().item():
        return rows.with_columns(_acted="_args")
    decisions = getattr(diff.cand.lake, "decisions", None)
    found = pl.LazyFrame(schema={"decision_id": pl.String, "enforced_args": pl.String})
    if decisions is not None:
        found = decisions.filter(pl.col("verdict") == "modify").select("decision_id", "enforced_args")
    named = found.rename({"enforced_args": "_patched"}).with_columns(pl.col("decision_id").cast(pl.String))
    joined = rows.join(named, on="decision_id", how="left", maintain_order="left")
    return joined.with_columns(_acted=pl.when(patched).then("_patched").otherwise("_args")).drop("_patched")


def _running() -> dict[str, pl.Expr]:
    then, to, asked = pl.col("then"), pl.col("to"), pl.col("recorded_verdict") == "approve"
    ran = pl.when(then == "in_doubt").then(None).otherwise(then == "ran")
    never = _COUNTED_ELSEWHERE | _ONCE
    runs = (
        pl.when(never).then(statement=False).when(_SAME).then(ran).when(_OPEN | (to == "approve")).then(None)
        .otherwise(to != "block")
    )  # fmt: skip
    asks = pl.when(_ONCE).then(statement=False).when(_OPEN).then(None).otherwise(to == "approve")
    return {"ran_then": ran, "runs_now": runs, "asked_then": asked & ~_ONCE, "asks_now": asks}


def _now() -> dict[str, pl.Expr]:
    """What is known of what would run: all, if it is what ran; nothing else, but for what an intent says."""
    kept = pl.col("same_action").fill_null(value=False)
    money = pl.when(_SAME | _OPEN).then("money").otherwise("_money_other")
    return {
        "harm_now": pl.when(kept).then("harm").when(pl.col("meant_well")).then(statement=False),
        "good_now": pl.when(kept).then("good").when(pl.col("meant_ill")).then(statement=False),
        "money_now": money,
    }


def _with_simulated(rows: pl.LazyFrame, simulated: Simulations | None) -> pl.LazyFrame:
    """Put what was simulated in the place of what is not known."""
    if simulated is None:
        return rows.with_columns(simulated=pl.lit(value=False))
    given = simulated.rows.lazy().select(*SIMULATED)
    rows = rows.join(given, on="decision_id", how="left", maintain_order="left")
    said, nothing = pl.col("outcome").is_not_null(), pl.col("outcome") == "no_effect"
    return rows.with_columns(
        simulated=said,
        harm_now=pl.when(nothing).then(statement=False).otherwise(pl.coalesce("sim_harm", "harm_now")),
        good_now=pl.when(nothing).then(statement=False).otherwise(pl.coalesce("sim_good", "good_now")),
        money_now=(
            pl.when(nothing).then(0).when(pl.col("outcome") == "failed").then("sim_money")
            .otherwise(pl.coalesce("sim_money", "money_now"))
        ),
    )  # fmt: skip
