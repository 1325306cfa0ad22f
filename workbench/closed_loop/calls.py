"""Decisions as the lists a pass goes through: what is the same in every pass, and what deciding again changes.

One rule: columns are made here, once; the pass reads integers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, get_args

import polars as pl

from runtime.limits import AFTER as MEASURED
from runtime.limits import Per
from workbench.closed_loop.amounts import amounts
from workbench.closed_loop.entries import NO, NO_EFFECT, UNSURE, YES, Calls
from workbench.closed_loop.log import AFTER, COUNTERS
from workbench.closed_loop.rules import ruleset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.limits import Meter
    from runtime.schema import CedarSchema
    from workbench.closed_loop.again import LoopPlan
    from workbench.closed_loop.log import Log
    from workbench.closed_loop.rules import Ruleset
    from workbench.closed_loop.state import Approvals

NARROW = (
    "status", "verdict", "decided_by", "reason_code", "enforced_args", "recorded_reason_code",
    pl.col("reason").str.starts_with("after the patch of ").alias("patched"),
)  # fmt: skip
"""What a pass reads of the rows of a replay."""

_BEFORE = ("request", "tenant", "context")
"""Stages before the limits."""
_CONFLICTS = ("idempotency_conflict", "duplicate_differs")
"""Refusals because of another call under the same key."""


@dataclass(slots=True)
class Plans:
    """Rules by row, and the schemas that their arguments are read by."""

    rulesets: list[Ruleset] = field(default_factory=list)
    by_row: pl.Series = field(default_factory=lambda: pl.Series([], dtype=pl.Int64))
    """Place in `rulesets`; -1: none."""
    schemas: dict[tuple[str, str], CedarSchema] = field(default_factory=dict)
    """By bundle version and tool, where money in arguments is counted."""


def plans_of(plan: LoopPlan, log: Log) -> Plans:
    """Find the limits that each row is held to."""
    keys = ["bundle_version", "tool", "for somebody"]
    rows = log.rows.select(*keys[:2], pl.col("per on_behalf_of").is_not_null().alias(keys[2]))
    distinct = rows.unique(maintain_order=True)
    found, places = Plans(), []
    for version, tool, behalf in distinct.iter_rows():
        own = plan.lake.find_bundle(version)
        bundle = None if own is None else plan.bundle_for(own)
        rules = None if bundle is None else ruleset(bundle.limits, tool, on_behalf=behalf)
        if rules is None or bundle is None:
            places.append(-1)
            continue
        found.rulesets.append(rules)
        places.append(len(found.rulesets) - 1)
        if rules.paths:
            found.schemas[version, tool] = bundle.schema
    table = distinct.with_columns(place=pl.Series(places, dtype=pl.Int64))
    found.by_row = rows.join(table, on=keys, how="left", maintain_order="left")["place"]
    return found


def counters_of_limits(plan: LoopPlan) -> list[str]:
    """Return the counters of sessions that budgets look at, of those that decide rows of any recorded bundle."""
    versions = plan.lake.history.select(pl.col("bundle_version").unique()).collect()["bundle_version"]
    owns = [plan.lake.find_bundle(version) for version in versions.drop_nulls()]
    budgets = [each for own in owns if own is not None for each in plan.bundle_for(own).limits.budgets]
    return sorted({name for each in budgets if each.meter.of_session for name in _names(each.meter)})


def _names(meter: Meter) -> tuple[str, ...]:
    return MEASURED.get(meter.measure, (meter.measure,))


@dataclass(slots=True)
class Book:
    """All a pass needs of a history, and how to bring it up to date."""

    log: Log
    plans: Plans
    args: pl.LazyFrame
    """`args` of each row."""
    approvals: Approvals
    ledgers: list[str] = field(init=False)
    """By number."""
    order: list[int] = field(init=False)
    """Rows, and outcomes as -1 - place in `ends`, as the ledgers committed them."""
    ends: Sequence[tuple[Any, ...]] = field(init=False)
    """Each as an `End`, which would cost more to make than most cost to take."""
    _fixed: Calls = field(init=False)
    _asked: dict[str, pl.Series] = field(init=False)
    """By measure: what calls ask for, a row a row."""

    def __post_init__(self) -> None:
        rows = self.log.rows
        self._asked = self._amounts(
            self.args.select("args").collect()["args"] if self.plans.schemas else None
        )
        self.ledgers = rows["writer"].unique(maintain_order=True).to_list()
        self._fixed = self._calls()
        needed = self._needed()
        self.ends = self._tuples(needed)
        self.order = _order(rows, needed)

    @property
    def hangs_together(self) -> bool:
        """Whether some row hangs on what became of rows before it, beside the session's counters."""
        rows = self.log.rows
        return (
            bool(self.plans.rulesets) or not rows["key"].is_null().all() or (rows["kind"] == "resumed").any()
        )

    def calls(self, narrow: pl.DataFrame) -> tuple[Calls, pl.DataFrame]:
        """Return the rows as they are decided now.

        Args:
            narrow: `NARROW`, a row a row of the log.

        Returns:
            The lists; and `known` and `heir`, a row a row, as `workbench.closed_loop.session.moved` takes them.
        """
        rows = self.log.rows
        same = (narrow["enforced_args"] == rows["enforced_args"]).fill_null(value=False)
        decided = narrow["status"] == "decided"
        told = narrow.with_columns(decided=decided, known=same & rows["ran"], heir=self._heirs(narrow))
        runs = pl.col("verdict").is_in(("allow", "modify"))
        waits = pl.col("verdict") == "approve"
        if self.approvals == "granted":
            runs = runs | waits
        early = (
            pl.col("decided_by").is_in(_BEFORE)
            & (pl.col("reason_code") != "cedar_no_decision")
            & ~pl.col("patched")
        ) | (pl.col("reason_code") == "stopped")
        early = early.fill_null(value=False)
        lists = told.select(
            free=_three(runs),
            asks=_three(waits),
            early=early & pl.col("decided"),
            plain=pl.col("decided") & ~pl.col("decided_by").is_in((*_BEFORE, "limits")).fill_null(value=True),
        )
        made = replace(
            self._fixed,
            free=lists["free"].to_list(),
            asks=lists["asks"].to_list(),
            early=lists["early"].to_list(),
            plain=lists["plain"].to_list(),
            known=told["known"].to_list(),
            heir=told["heir"].to_list(),
            taken=self._taken(narrow["enforced_args"]),
            action=_numbers(narrow["enforced_args"], rows["key"].is_not_null()),
        )
        return made, told.select("known", "heir")

    def _calls(self) -> Calls:
        rows = self.log.rows
        numbers = {writer: number for number, writer in enumerate(self.ledgers)}
        ledger = rows["writer"].replace_strict(numbers, return_dtype=pl.Int64)
        linked = rows["linked"].cast(pl.Int64)
        keyed = rows["key"].is_not_null()
        resumed = rows.select(pl.when(pl.col("kind") == "resumed").then(linked).fill_null(-1)).to_series()
        return Calls(
            free=[], asks=[], early=[], plain=[], known=[], heir=[], taken={},
            ran=rows["ran"].to_list(),
            at=rows["at"].to_list(),
            rules=self.plans.by_row.to_list(),
            per={per: rows[f"per {per}"].to_list() for per in self._scopes()},
            ledger=ledger.to_list(),
            asked={name: told.to_list() for name, told in self._asked.items()},
            then={name: rows[f"then {name}"].to_list() for name in self._counters()},
            resumes=resumed.to_list(),
            key=rows["key"].cast(pl.Int64).fill_null(-1).to_list(),
            repeat=(rows["kind"] == "duplicate").to_list(),
            args=_numbers(self.args.select("args").collect()["args"] if keyed.any() else keyed, keyed),
            action=[],
            conflict=self.args.select(pl.col("recorded_reason_code").is_in(_CONFLICTS)).collect().to_series().to_list(),
        )  # fmt: skip

    def _scopes(self) -> set[Per]:
        """Scopes that something is counted over."""
        rules = self.plans.rulesets
        used = {meter.per for rule in rules for meter in rule.meters}
        used |= {breaker.per for rule in rules for breaker in rule.breakers}
        pers: tuple[Per, ...] = get_args(Per)
        return {"session", *(per for per in pers if per in used)}

    def _counters(self) -> set[str]:
        budgets = [b.meter for rule in self.plans.rulesets for b in rule.budgets if b.meter.of_session]
        return {name for meter in budgets for name in _names(meter)}

    def _amounts(self, texts: pl.Series | None) -> dict[str, pl.Series]:
        """By measure: what calls ask for, 0 where it is not counted, or there is no text."""
        if texts is None or not self.plans.schemas:
            return {}
        tools = [tool for _, tool in self.plans.schemas]
        counted = texts.is_not_null() & self.log.rows["tool"].is_in(tools)
        rows = self.log.rows.select("row", "bundle_version", "tool", text=texts).filter(counted)
        nothing = pl.zeros(texts.len(), dtype=pl.Int64, eager=True)
        found: dict[str, pl.Series] = {}
        for measure in sorted({path for rule in self.plans.rulesets for path in rule.paths}):
            told = nothing.clone()
            for (version, tool), mine in rows.partition_by("bundle_version", "tool", as_dict=True).items():
                schema = self.plans.schemas.get((str(version), str(tool)))
                if schema is not None:
                    told = told.scatter(mine["row"], amounts(mine["text"], str(tool), schema, measure))
            found[measure] = told
        return found

    def _taken(self, enforced: pl.Series) -> dict[str, list[int]]:
        """By measure: what calls take, once a patch has cut it down; read anew only where one has."""
        if not self.plans.schemas:
            return {}
        args = self.args.select("args").collect()["args"]
        same = (enforced == args).fill_null(value=False)
        patched = pl.DataFrame({"text": enforced, "same": same}).select(pl.when(~pl.col("same")).then("text"))
        other = self._amounts(patched.to_series())
        return {name: self._asked[name].zip_with(same, told).to_list() for name, told in other.items()}

    def _heirs(self, narrow: pl.DataFrame) -> pl.Series:
        """The call that resumed each row and ran then with what the row would run now; -1: none."""
        rows = self.log.rows.with_columns(now=narrow["enforced_args"])
        resumed = rows.filter((pl.col("kind") == "resumed") & pl.col("ran") & pl.col("linked").is_not_null())
        askers = rows.select("row", "now")
        found = resumed.select(heir="row", row="linked", was="enforced_args").join(askers, on="row")
        heirs = found.filter(pl.col("was") == pl.col("now")).unique("row", keep="first", maintain_order=True)
        told = rows.select("row").join(
            heirs.select("row", "heir"), on="row", how="left", maintain_order="left"
        )
        return told["heir"].cast(pl.Int64).fill_null(-1)

    def _needed(self) -> pl.DataFrame:
        """Outcomes that move something in a pass."""
        rules = self.plans.rulesets
        if not rules:
            return self.log.ends.clear()
        if self._counts_later or any(rule.breakers for rule in rules):
            return self.log.ends
        return self.log.ends.filter(pl.col("status").is_in(list(NO_EFFECT)))

    @property
    def _counts_later(self) -> bool:
        """Whether something is counted that shows when a call has ended."""
        return any(budget.meter.is_after for rule in self.plans.rulesets for budget in rule.budgets)

    def _tuples(self, ends: pl.DataFrame) -> Sequence[tuple[Any, ...]]:
        # Where nothing counts what calls used, it is not carried along: a million small dicts.
        used = pl.struct(AFTER).alias("used") if self._counts_later else pl.lit(None).alias("used")
        return ends.select("row", "status", "started", "at", used, "broken").rows()


def _three(yes: pl.Expr) -> pl.Expr:
    return pl.when("decided").then(pl.when(yes).then(YES).otherwise(NO)).otherwise(UNSURE).cast(pl.UInt8)


def _numbers(texts: pl.Series, where: pl.Series) -> list[int]:
    """A number for each distinct text; -1 for none, and where it is not asked."""
    if not where.any():
        return []
    asked = pl.DataFrame({"text": texts, "where": where}).select(pl.when("where").then("text")).to_series()
    return asked.rank("dense").cast(pl.Int64).fill_null(-1).to_list()


def _order(rows: pl.DataFrame, ends: pl.DataFrame) -> list[int]:
    keys = ("writer", "position")
    calls = rows.select(*keys, what=pl.col("row").cast(pl.Int64))
    outcomes = ends.with_row_index("place").select(*keys, what=-1 - pl.col("place").cast(pl.Int64))
    return pl.concat([calls, outcomes]).sort(*keys)["what"].to_list()


__all__ = ["COUNTERS", "NARROW", "Book", "Plans", "plans_of"]
