"""What a change is worth, as quantities: each has a name, a unit, and per row the least and the most it can be.

One rule: a row's `low` is what it is at least, and `high` what it is at most, whatever the log cannot know turns out
to be. Both are summed over rows; where the sums are equal, the number is *exact on this log*.

Rows are those of `Stakes.columns`: `Diff.frame` with what was at stake then, and would be now. In it
a null is *not known*; `&`, `|` and `~` are Kleene's, as Polars computes them, so that what follows from the known is
known. Where two unknowns are one and the same (the same action, then and now), it is said here.

A granted call is two decisions: the one that asked and the one that ran. What happened is counted at the one that
ran, the question at the one that asked.

Accepted: a call whose money is not known adds nothing to the sums that need it; `money_not_known` counts those.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Need = Literal["labels", "money"]
"""What a quantity may rest on beside the log: labels that say what is harm and what is good work; declared money."""
Better = Literal["more", "less", ""]
"""Which way is better; empty: neither."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One number of what a change is worth."""

    name: str
    text: str
    """What it counts, in words."""
    unit: str
    """`calls`, `approvals`, `decisions`, or `money`, for which `Stakes.quantities` has the declared unit."""
    low: pl.Expr
    """Of a row, at least (Int64, never null); summed."""
    high: pl.Expr
    """Of a row, at most (Int64, never null); summed."""
    of: pl.Expr | None = None
    """Of a share: whether the row is one of those it is a share of (Int64, 0 or 1, never null); where it is 0, so are
    `low` and `high`. None: a plain total."""
    needs: frozenset[Need] = frozenset()
    better: Better = ""

    def in_unit(self, unit: str) -> Quantity:
        """Return the quantity with its money in this unit; any other as it is."""
        return replace(self, unit=unit) if self.unit == "money" else self

    def share(self, name: str, whole: pl.Expr, text: str) -> Quantity:
        """Return the share of `whole` (Bool, never null) for which this holds."""
        of = whole.cast(pl.Int64)
        return replace(
            self, name=name, text=f"{self.text}, {text}", low=self.low * of, high=self.high * of, of=of
        )


def known(condition: pl.Expr) -> pl.Expr:
    """Whether a condition is known to hold."""
    return condition.fill_null(value=False)


def possible(condition: pl.Expr) -> pl.Expr:
    """Whether a condition is not known not to hold."""
    return condition.fill_null(value=True)


_ran, _runs, _asks = pl.col("ran_then"), pl.col("runs_now"), pl.col("asks_now")
_same = pl.col("same_action")
_changed = pl.col("effect") != "same"
UNASKED = pl.when(known(_asks)).then(statement=False).otherwise(_runs)
"""It would run, and nobody be asked."""
STOPPED = _changed & ~(_runs | _asks)
"""It would neither run nor wait."""
WAITS = _changed & _asks
OTHERWISE = _changed & UNASKED & ~_same
"""Something else would run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Harm, or good work: whether it came about then, and whether it would now; Kleene truth values."""

    then: pl.Expr
    now: pl.Expr

    @property
    def gone(self) -> pl.Expr:
        """It came about then, and would not now."""
        return _changed & self.then & ~self.now

    @property
    def new(self) -> pl.Expr:
        """It would come about now, and did not then; the action that ran then cannot be new."""
        return _changed & self.now & ~self.then & ~(_same & known(_ran))

    @property
    def certain(self) -> pl.Expr:
        """It is known to have come about then."""
        return known(self.then)


def side(name: Literal["harm", "good"]) -> Side:
    """Return a side. Rows that nobody labelled count only if asked (`counted`), or where something says what now."""
    now, counted = pl.col(f"{name}_now"), pl.col("counted")
    return Side(then=counted & _ran & pl.col(name), now=(counted | now.is_not_null()) & _runs & now)


HARM, GOOD = side("harm"), side("good")
LABELS: frozenset[Need] = frozenset({"labels"})
MONEY: frozenset[Need] = frozenset({"money"})


def _total(
    name: str,
    text: str,
    holds: pl.Expr,
    unit: str = "calls",
    *,
    needs: frozenset[Need] = frozenset(),
    better: Better = "",
) -> Quantity:
    low, high = known(holds).cast(pl.Int64), possible(holds).cast(pl.Int64)
    return Quantity(name=name, text=text, unit=unit, low=low, high=high, needs=needs, better=better)


def _of_calls() -> Iterator[Quantity]:
    """What would become of the calls, whoever made them."""
    yield _total("decisions", "recorded decisions", _changed | ~_changed, "decisions")
    yield _total("calls_ran", "calls that ran", _ran)
    yield _total("calls_run_now", "calls that would run unasked", UNASKED)
    for name, text, how in (
        ("prevented", "calls that ran and would not run", STOPPED),
        ("held", "calls that ran and would wait for an approval", WAITS),
        ("altered", "calls that ran and would run otherwise", OTHERWISE),
    ):
        total = _total(f"calls_{name}", text, _ran & how)
        yield total
        yield total.share(f"calls_{name}_share", known(_ran), "of the calls that ran")
    yield _total("calls_released", "calls that did not run and would run", ~_ran & _changed & UNASKED)
    yield _total(
        "calls_escalated", "calls that did not run and would wait", ~_ran & WAITS & ~pl.col("asked_then")
    )


def _of_harm() -> Iterator[Quantity]:
    whole = "of the harmful actions known to have run"
    avoided = _total(
        "harm_avoided",
        "harmful actions that ran and would not come about",
        HARM.gone,
        needs=LABELS,
        better="more",
    )
    through = _total(
        "harm_through", "harmful actions that would come about", HARM.now, needs=LABELS, better="less"
    )
    yield _total("harm_ran", "harmful actions that ran", HARM.then, needs=LABELS)
    yield avoided
    yield through
    yield _total(
        "harm_new",
        "harmful actions that would come about and did not then",
        HARM.new,
        needs=LABELS,
        better="less",
    )
    yield avoided.share("harm_avoided_share", HARM.certain, whole)
    yield through.share("harm_through_share", HARM.certain, whole)


def _of_good() -> Iterator[Quantity]:
    whole = "of the good work known to have been done"
    yield _total("good_ran", "good calls that ran", GOOD.then, needs=LABELS)
    for name, text, holds in (
        ("lost", "good calls that ran, and their good would not come about", GOOD.gone),
        ("blocked", "good calls that ran and would be blocked", GOOD.then & STOPPED),
        ("held", "good calls that ran and would wait for an approval", GOOD.then & WAITS),
        ("altered", "good calls that ran and would run otherwise", GOOD.then & OTHERWISE),
    ):
        total = _total(f"good_{name}", text, holds, needs=LABELS, better="less")
        yield total
        yield total.share(f"good_{name}_share", GOOD.certain, whole)
    yield _total("good_done", "good calls that would come about", GOOD.now, needs=LABELS, better="more")
    yield _total(
        "good_new", "good calls that would come about and did not then", GOOD.new, needs=LABELS, better="more"
    )


def _of_approvals() -> Iterator[Quantity]:
    then = pl.col("asked_then")
    now = _total("approvals_now", "calls that would wait for an approval", _asks, "approvals", better="less")
    yield _total("approvals_then", "calls that waited for an approval", then, "approvals")
    yield now
    yield _total(
        "approvals_added",
        "approvals that would be asked and were not",
        _asks & ~then,
        "approvals",
        better="less",
    )
    yield _total(
        "approvals_saved",
        "approvals that were asked and would not be",
        then & ~_asks,
        "approvals",
        better="more",
    )
    yield now.share("approvals_now_share", _changed | ~_changed, "of all decisions")


Case = tuple[pl.Expr, pl.Expr]
"""A condition, and the money of a row if it holds."""


def _range(cases: Sequence[Case]) -> tuple[pl.Expr, pl.Expr]:
    """Least and most over the cases that may hold; 0 where the money of one of them is not known."""
    missing = pl.any_horizontal(possible(holds) & value.is_null() for holds, value in cases)
    values = [pl.when(possible(holds) & ~missing).then(value) for holds, value in cases]
    low, high = pl.min_horizontal(values), pl.max_horizontal(values)
    return low.fill_null(0).cast(pl.Int64), high.fill_null(0).cast(pl.Int64)


def _sum(
    name: str, text: str, cases: Sequence[Case], needs: frozenset[Need], better: Better = ""
) -> Quantity:
    low, high = _range(cases)
    return Quantity(name=name, text=text, unit="money", low=low, high=high, needs=needs, better=better)


_then_money, _now_money, _nothing = pl.col("money"), pl.col("money_now"), pl.lit(0, pl.Int64)


def _of_side_money(what: str, each: Side, gone: Quantity, stays: Quantity) -> Iterator[Quantity]:
    """Money of harm, or of good work; named as its calls are."""

    def money(calls: Quantity, text: str, *cases: Case) -> Quantity:
        name = calls.name.replace("_", "_money_", 1)
        return _sum(name, f"money of {what} {text}", cases, LABELS | MONEY, calls.better)

    less = _then_money - _now_money
    both = _changed & each.then & each.now
    never = ~each.then | ~_changed
    yield money(
        gone, "that would be moved no more", (each.gone, _then_money), (both, less), (never, _nothing)
    )
    yield money(stays, "that would come about", (each.now, _now_money), (~each.now, _nothing))


def _of_money() -> Iterator[Quantity]:
    calls = {each.name: each for each in (*_of_harm(), *_of_good())}
    for name, each, what, gone, stays in (
        ("harm", HARM, "harmful actions", "avoided", "through"),
        ("good", GOOD, "good calls", "lost", "done"),
    ):
        ran = ((each.then, _then_money), (~each.then, _nothing))
        yield _sum(f"{name}_money_ran", f"money of {what} that ran", ran, LABELS | MONEY)
        yield from _of_side_money(what, each, calls[f"{name}_{gone}"], calls[f"{name}_{stays}"])
    yield _sum("money_then", "money that calls moved", ((_ran, _then_money), (~_ran, _nothing)), MONEY)
    yield _sum("money_now", "money that calls would move", ((_runs, _now_money), (~_runs, _nothing)), MONEY)
    unread = (possible(_ran) & _then_money.is_null()) | (possible(_runs) & _now_money.is_null())
    yield _total(
        "money_not_known",
        "calls that may move money, how much is not known",
        unread,
        needs=MONEY,
        better="less",
    )


QUANTITIES: tuple[Quantity, ...] = (*_of_calls(), *_of_harm(), *_of_good(), *_of_approvals(), *_of_money())
"""Every quantity, in the order they are shown. `Stakes.quantities` gives those that its labels and money allow."""

BY_NAME = {each.name: each for each in QUANTITIES}
