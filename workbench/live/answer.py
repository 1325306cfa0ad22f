"""What a version of the policies makes of a history: every number, and every decision when it is asked for.

One rule: numbers are those of `lake.sweep` and of a comparison of replays, by the same expressions over the same
kinds of decisions; states and effects sum to all decisions.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from workbench.effects import ALL_EFFECTS
from workbench.history.sweeping import Tally
from workbench.live.change import Change
from workbench.live.said import STATUS_LEFT, effect_of, told_of
from workbench.metrics import SIDES, STATES, STOPS, side_is
from workbench.searching.objectives import OBJECTIVES
from workbench.sweep import weighed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from runtime.bundle import Bundle
    from workbench.live.history import History
    from workbench.live.parts import Rows

    Codes = NDArray[np.int32]

_DECIDED = pl.Enum(("decided", "undecided", "quarantined"))
_STATE = pl.Enum(STATES)
_EFFECT = pl.Enum(ALL_EFFECTS)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Answer:
    """A history, decided again by one version of the policies. Made by `Live.decide`."""

    bundle: Bundle | None
    """What decided; None: the recorded policies, each decision's own."""
    seconds: float
    """That deciding took."""
    verdicts: Mapping[str, int]
    """Decisions by state: the four verdicts, `undecided`, `quarantined`; they sum to `decisions`."""
    counts: Mapping[str, int]
    """The numbers of `workbench.sweep.COUNTS`."""
    objectives: Mapping[str, tuple[int, int]]
    """By name of `workbench.searching.objectives`: how many, and of how many; the fewer the better. Those of money
    only where it is declared."""
    handed_over: Mapping[str, int]
    """Decisions that columns left to Cedar, by reason."""
    left: int
    """How many of those Cedar was not asked about yet: they count as undecided. `Live.complete` asks."""
    retyped: bool = False
    """The history was read again, for another schema than before: that takes seconds."""
    said: pl.DataFrame = field(repr=False)
    """Decisions by what is said of them, a row a kind: `then`, `kind`, `recorded_verdict`, `side`, `tool`, `status`,
    `verdict`, `effect`, `decided_by`, `reason_code`, `determining`, and how many (`n`)."""
    history: History = field(repr=False)
    base: Codes = field(repr=False)
    """What is said of rows that no part has."""
    pieces: Sequence[tuple[Rows, Codes]] = field(repr=False)
    """Rows, and what is said of each, part by part."""
    by_cedar: tuple[Rows, Codes] = field(repr=False)
    """The same of rows that Cedar decided."""

    @property
    def decisions(self) -> int:
        """How many decisions there are."""
        return self.history.height

    @property
    def exact(self) -> bool:
        """Whether all that can be decided was."""
        return not self.left

    @cached_property
    def effects(self) -> dict[str, int]:
        """Decisions by effect; they sum to `decisions`."""
        return {effect: self.counts[f"effect_{effect}"] for effect in ALL_EFFECTS}

    @cached_property
    def flips_by_tool(self) -> pl.DataFrame:
        """Decisions whose verdict is another than was recorded: `tool`, `from`, `to`, `n`; most first."""
        flips = self.said.filter(pl.col("verdict") != pl.col("recorded_verdict"))
        keys = ("tool", "from", "to")
        found = flips.select(
            "tool", pl.col("recorded_verdict").alias("from"), pl.col("verdict").alias("to"), "n"
        )
        return found.group_by(keys).agg(pl.col("n").sum()).sort("n", *keys, descending=[True, *[False] * 3])

    @cached_property
    def flips_by_policy(self) -> pl.DataFrame:
        """Which policies stop calls that ran, as `workbench.compare.Diff.policies` has it."""
        nobody = pl.format("({}: {})", "decided_by", "reason_code")
        named = (
            pl.when(pl.col("determining").list.len() > 0)
            .then("determining")
            .otherwise(pl.concat_list(nobody))
        )
        whose = [
            (pl.col("n") * side_is(side)).sum().alias(f"{side}_calls_{verb}") for side, verb in SIDES.items()
        ]
        found = self.said.filter(STOPS).select(
            "side", "n", "verdict", policy=named, alone=pl.when(named.list.len() == 1).then("n").otherwise(0)
        )
        order = ("attack_calls_stopped", "honest_calls_disturbed", "policy", "verdict")
        return (
            found.explode("policy")
            .group_by("policy", "verdict")
            .agg(*whose, pl.col("alone").sum())
            .sort(order, descending=[True, True, False, False])
        )

    def rows(self) -> pl.LazyFrame:
        """Return every decision, in the log's order.

        Returns:
            `decision_id` (String), `status` (Enum; `decided`, `undecided`, `quarantined`), `verdict` (Enum; null
            unless decided), `effect` (Enum). In memory; some 40 bytes a decision while it is held.
        """
        every = self.history.book.every
        status = ["undecided" if each.status == STATUS_LEFT else each.status for each in every]
        codes = pl.Series(self.codes)
        return self.history.rows.select(
            "decision_id",
            status=pl.Series(status, dtype=_DECIDED).gather(codes),
            verdict=pl.Series([each.verdict for each in every], dtype=_STATE).gather(codes),
            effect=self._effects,
        ).lazy()

    def against(self, baseline: Answer, most: int = 1_000) -> Change:
        """Return what this changes beside another answer of the same history.

        Args:
            baseline: the point of comparison.
            most: rows that are listed of each kind of change.

        Cost: milliseconds a million decisions, and some for each row that is listed.
        """
        return Change.between(baseline, self, most)

    @cached_property
    def codes(self) -> Codes:
        """What is said of each row, by number in the book."""
        return assembled(self.base, (*self.pieces, self.by_cedar))

    @property
    def _effects(self) -> pl.Series:
        history = self.history
        number = len(history.book.every)
        pairs = history.key.astype(np.int64) * number + self.codes
        distinct = np.unique(pairs)
        told = [
            effect_of(history.keys[each // number], history.book.every[each % number]) for each in distinct
        ]
        table = pl.DataFrame({"pair": distinct, "effect": pl.Series(told, dtype=_EFFECT)})
        return pl.DataFrame({"pair": pairs}).join(table, on="pair", how="left", maintain_order="left")[
            "effect"
        ]

    def __repr__(self) -> str:
        states = ", ".join(f"{state} {n:,}" for state, n in self.verdicts.items() if n)
        left = f"; {self.left:,} left to Cedar" if self.left else ""
        name = "the recorded policies" if self.bundle is None else self.bundle.name
        return f"<Answer of {name} over {self.decisions:,} decisions in {self.seconds:.2f} s: {states}{left}>"


def answer_of(
    history: History,
    counted: Mapping[tuple[int, int], int],
    started: float,
    **given: Any,
) -> Answer:
    """Make an answer of what was counted.

    Args:
        history: the decisions.
        counted: decisions by key and what is said, by number.
        started: when deciding began, by `time.perf_counter`.
        given: the other fields of `Answer`.
    """
    keys, book = history.keys, history.book.every
    money = _money(history, given)
    tally, rows = Tally(), []
    for (key, said), n in counted.items():
        if n:
            tally.add(told_of(keys[key], book[said]), n, money.get((key, said), 0))
            rows.append((*keys[key], *book[said][:5], effect_of(keys[key], book[said]), n))
    numbers = weighed([tally])[0]
    return Answer(
        verdicts={state: numbers[state] for state in STATES},
        counts=numbers,
        objectives=_objectives(tally, history.money is not None),
        seconds=time.perf_counter() - started,
        said=pl.DataFrame(rows, schema=dict(_SAID), orient="row"),
        history=history,
        **given,
    )


def _money(history: History, given: Mapping[str, Any]) -> dict[tuple[int, int], int]:
    """What decisions are about, added up by key and what is said."""
    if history.money is None:
        return {}
    codes = assembled(given["base"], (*given["pieces"], given["by_cedar"]))
    number = len(history.book.every)
    pairs = pl.DataFrame({"pair": history.key.astype(np.int64) * number + codes, "money": history.money})
    sums = pairs.filter(pl.col("money") != 0).group_by("pair").agg(pl.col("money").sum())
    return {divmod(pair, number): money for pair, money in sums.iter_rows()}


def assembled(base: Codes, pieces: Iterable[tuple[Rows, Codes]]) -> Codes:
    """What is said of every row, from what is said of some."""
    found = base.copy()
    for rows, codes in pieces:
        found[rows] = codes
    return found


_TEXTS = (
    "then", "kind", "recorded_verdict", "side", "tool", "status", "verdict", "decided_by", "reason_code",
)  # fmt: skip
_SAID: Mapping[str, pl.DataType] = {
    **dict.fromkeys(_TEXTS, pl.String()),
    "determining": pl.List(pl.String),
    "effect": pl.String(),
    "n": pl.Int64(),
}


def _objectives(tally: Tally, money: bool) -> dict[str, tuple[int, int]]:  # noqa: FBT001 - whether it is declared
    found: dict[str, tuple[int, int]] = {}
    for unit in ("decisions", "money") if money else ("decisions",):
        mine = [each for each in OBJECTIVES.values() if each.unit == unit]
        counts = {each.name: each.holds.sum() for each in mine} | {
            f"{each.name} of": each.of.sum() for each in mine
        }
        (numbers,) = weighed([tally], of="money" if unit == "money" else "n", counts=counts)
        found |= {each.name: (numbers[each.name], numbers[f"{each.name} of"]) for each in mine}
    return found
