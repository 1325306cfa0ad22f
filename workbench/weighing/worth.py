"""What a change is worth: harm avoided and let through, good work lost and held, approvals, money.

One rule: each number is two, the least and the most that this log allows; they are one where the log knows. A number
that rests on simulated outcomes is called so, with what the log alone says beside it.

All of it is about these decisions, each as it was recorded, with the history before it as it was. What future traffic
would bring is an estimate (`workbench.estimating`); what a changed decision does to those after it is another
replay.

*Then* is what was recorded, whatever the base of the comparison is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
from polars import selectors as cs

from workbench.errors import ColumnUnknown
from workbench.faces import Faces
from workbench.progress import progress
from workbench.texts import share
from workbench.weighing.quantities import GOOD, HARM, known
from workbench.weighing.stakes import Stakes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from runtime.canonical import Json
    from workbench.compare import Diff
    from workbench.faces import Page
    from workbench.weighing.quantities import Quantity
    from workbench.weighing.simulators import Simulated

Basis = Literal["exact", "bounds", "simulated", "partial"]
"""How a number is known: `exact` on this log; `bounds` the log allows no less and no more; `simulated` it rests on
what simulators said (and is between two, where they did not say all); `partial` a sum of
money that leaves out calls whose money is not known, `money_not_known` of them."""

FATES = ("remains", "gone", "not_known", "neither")
"""What becomes of what was at stake: it would come about (again, or at last); it did then and would not now; it
cannot be told; it neither did nor would."""

FRAME = (
    "quantity", "text", "unit", "low", "high", "of", "share_low", "share_high", "basis", "log_low", "log_high",
    "better",
)  # fmt: skip
"""Columns of `Worth.frame`."""
_CELL = ("tool", "stake", "fate", "then", "effect", "simulated")


def worth(
    diff: Diff,
    stakes: Stakes | Mapping[str, Any] | str | PathLike[str] | None = None,
    simulated: Simulated | None = None,
) -> Worth:
    """Count what a change is worth on this log.

    Args:
        diff: the comparison.
        stakes: what is harm, good work and money: `Stakes`, a mapping, a TOML file; None: label `origin`.
        simulated: what `simulate(diff, …)` gave; narrows the bounds, and is said so.

    Returns:
        The numbers. Nothing is read yet; the first one collects once, O(decisions), and keeps counts only.

    Raises:
        StakesInvalid: the stakes cannot be used, or name a label or tool that is not there.
        SimulatorsInvalid: what was simulated belongs to another comparison.
    """
    return Worth(diff=diff, stakes=Stakes.of(stakes), simulated=simulated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One number: at least `low`, at most `high`."""

    low: int
    high: int
    of: int | None
    """What a share is of; None: a plain total."""
    unit: str
    basis: Basis

    def __str__(self) -> str:
        one, other = f"{self.low:,}", f"{self.high:,}"
        return one if one == other else f"{one} to {other}"

    @property
    def shares(self) -> str:
        """The share, in per cent; a dash where there is nothing it is of."""
        whole = self.of or 0
        one, other = share(self.low, whole), share(self.high, whole)
        return one if one == other else f"{one} to {other}"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Worth(Faces):
    """What a change is worth. Made by `worth`; every table is a LazyFrame."""

    diff: Diff
    stakes: Stakes
    simulated: Simulated | None = field(default=None)

    @property
    def rows(self) -> pl.LazyFrame:
        """The decisions with what was at stake: the columns of `diff.frame` and of `at_stake.ADDED`."""
        return self.stakes.columns(self.diff, self.simulated)

    @property
    def lines(self) -> list[str]:
        """What it says, in sentences."""
        return list(self.page().lines)

    @property
    def frame(self) -> pl.LazyFrame:
        """The numbers, one row each, in order.

        Columns: `quantity`, `text`, `unit` (String); `low`, `high` (Int64); `of` (Int64, of a share: how many it is
        of; else null), `share_low`, `share_high` (Float64; null where there is nothing it is of); `basis` (String,
        see `Basis`); `log_low`, `log_high` (Int64: without what was simulated); `better` (`more`, `less` or empty).
        """
        return self._numbers.lazy()

    @property
    def numbers(self) -> dict[str, Bound]:
        """The numbers by name."""
        rows = self._numbers.select("quantity", "low", "high", "of", "unit", "basis").rows(named=True)
        return {row.pop("quantity"): Bound(**row) for row in rows}

    def __getitem__(self, name: str) -> Bound:
        numbers = self.numbers
        if name not in numbers:
            raise ColumnUnknown(name, numbers, "what a change is worth")
        return numbers[name]

    @property
    def classes(self) -> pl.LazyFrame:
        """Every decision once: one row for each (`stake`, `fate`, `effect`) that occurs, `n` decisions.

        `stake` is what labels say (`labels.STAKES`), `fate` what becomes of it (`FATES`; of decisions
        without a stake: whether the action that ran would run). Sums to all decisions.
        """
        keys = ("stake", "fate", "effect")
        return self.cells.lazy().group_by(keys).agg(pl.col("n").sum()).sort(keys)

    def by(self, *columns: str) -> pl.LazyFrame:
        """Break the numbers down.

        Args:
            columns: of `rows`.

        Returns:
            One row for each combination, sorted: the columns, then `<quantity>_low`, `<quantity>_high` (Int64), and
            `<quantity>_of` of shares.

        Raises:
            ColumnUnknown: naming the closest.
        """
        if columns and {*columns} <= {*_CELL}:
            added = sums(self.quantities)
            return self.cells.lazy().group_by(columns).agg(pl.col(*added).sum()).sort(columns)
        rows = self.rows
        names = rows.collect_schema().names()
        for name in columns:
            if name not in names:
                raise ColumnUnknown(name, names, "what a change is worth")
        added = sums(self.quantities)
        return rows.group_by(columns).agg(**added).sort(columns) if columns else rows.select(**added)

    @cached_property
    def quantities(self) -> tuple[Quantity, ...]:
        """What is told: without any label, nothing of harm and good work."""
        return self.stakes.quantities(labelled=self.has_labels)

    @cached_property
    def has_labels(self) -> bool:
        """Whether labels or simulators say what any decision was, or unlabelled ones are to be bounded."""
        said = self.simulated is not None and self.simulated.says_what
        return said or self.stakes.unlabelled == "bounds" or bool((self.cells["stake"] != "unlabelled").any())

    def page(self) -> Page:
        """What it says."""
        from workbench.weighing.view import page  # noqa: PLC0415 - it imports us

        return page(self)

    def as_dict(self) -> dict[str, Json]:
        """All of it as JSON: sentences, numbers, classes, by tool."""
        from workbench.weighing.view import as_dict  # noqa: PLC0415 - it imports us

        return as_dict(self)

    @cached_property
    def cells(self) -> pl.DataFrame:
        """Sums of every quantity by what decisions have in common, collected: all counts are made of it.

        One row for each tool, stake, fate, `then`, effect, and whether it was simulated; `n` decisions (Int64).
        """
        return _cells(self.rows, self.stakes)

    @cached_property
    def _log(self) -> pl.DataFrame:
        """As `cells`, from the log alone."""
        return self.cells if self.simulated is None else _cells(self.stakes.columns(self.diff), self.stakes)

    @property
    def _partial(self) -> list[str]:
        """Sums of money, if there are calls whose money is not known."""
        missing = self.cells.select(cs.by_name("money_not_known_high", require_all=False).sum())
        there = bool(missing.width and missing.item())
        return [each.name for each in self.quantities if there and each.unit == self.stakes.unit]

    @cached_property
    def _numbers(self) -> pl.DataFrame:
        found, alone = (_totals(cells, self.quantities) for cells in (self.cells, self._log))
        log = alone.select("quantity", log_low="low", log_high="high")
        same = (pl.col("low") == pl.col("log_low")) & (pl.col("high") == pl.col("log_high"))
        exact = pl.when(pl.col("low") == pl.col("high")).then(pl.lit("exact")).otherwise(pl.lit("bounds"))
        whole = pl.when(pl.col("of") > 0).then("of")
        return found.join(log, on="quantity", maintain_order="left").with_columns(
            basis=pl.when(pl.col("quantity").is_in(self._partial)).then(pl.lit("partial"))
            .when(same).then(exact).otherwise(pl.lit("simulated")),
            share_low=pl.col("low") / whole,
            share_high=pl.col("high") / whole,
        ).select(FRAME)  # fmt: skip


def sums(quantities: tuple[Quantity, ...]) -> dict[str, pl.Expr]:
    """Return the sums of quantities over rows: `<name>_low`, `<name>_high`, and `<name>_of` of shares."""
    found: dict[str, pl.Expr] = {}
    for each in quantities:
        found |= {f"{each.name}_low": each.low.sum(), f"{each.name}_high": each.high.sum()}
        if each.of is not None:
            found[f"{each.name}_of"] = each.of.sum()
    return found


@progress(None, "weighing decisions")
def _cells(rows: pl.LazyFrame, stakes: Stakes) -> pl.DataFrame:
    added = sums(stakes.quantities())
    return (
        rows.with_columns(fate=_fate())
        .group_by(_CELL)
        .agg(n=pl.len().cast(pl.Int64), **added)
        .collect(engine="streaming")
    )


def _fate() -> pl.Expr:
    """What becomes of what was at stake; of a decision without a stake, of the action that ran."""
    ran, runs = pl.col("ran_then"), pl.col("runs_now")
    stake = pl.col("stake")
    then = pl.when(stake == "harm").then(HARM.then).when(stake == "good").then(GOOD.then).otherwise(ran)
    now = (
        pl.when(stake == "harm").then(HARM.now).when(stake == "good").then(GOOD.now)
        .otherwise(runs & pl.when("same_action").then(statement=True))
    )  # fmt: skip
    fate = (
        pl.when(known(now)).then(pl.lit("remains"))
        .when(known(then & ~now)).then(pl.lit("gone"))
        .when(known(~then & ~now)).then(pl.lit("neither"))
        .otherwise(pl.lit("not_known"))
    )  # fmt: skip
    return fate.cast(pl.Enum(FATES))


def _totals(cells: pl.DataFrame, quantities: tuple[Quantity, ...]) -> pl.DataFrame:
    total = cells.select(pl.exclude(*_CELL).sum()).row(0, named=True)
    rows: list[dict[str, Any]] = [
        {
            "quantity": each.name,
            "text": each.text,
            "unit": each.unit,
            "low": total[f"{each.name}_low"],
            "high": total[f"{each.name}_high"],
            "of": total.get(f"{each.name}_of"),
            "better": each.better,
        }
        for each in quantities
    ]
    kinds = dict.fromkeys(("quantity", "text", "unit"), pl.String) | dict.fromkeys(
        ("low", "high", "of"), pl.Int64
    )
    return pl.DataFrame(rows, schema=kinds | {"better": pl.String})
