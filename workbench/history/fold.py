"""The fold of `runtime.policy.decide` over a group of rows: evaluate, patch, evaluate again, conclude.

One rule: a row is decided exactly as the row engine would decide it, is undecided where that would be, or is handed
over with the reason. Stages before policy have passed; whoever makes the group has seen to that.

Everything said of a row but its arguments is an `Outcome`, and there are few: rows carry numbers until the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Protocol

import polars as pl

from runtime.policy import conclude, names_of
from workbench.history.absent import unsettled
from workbench.history.patching import patched, together
from workbench.history.rulings import RULED, Outcome, Outcomes, combinations, outcome_of, permits_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from runtime.bundle import Bundle
    from runtime.ruling import Answer
    from runtime.schema import Record
    from workbench.columnar.json_leaves import Leaves, Path
    from workbench.history.patching import Patched
    from workbench.history.rulings import Combinations

FOLDED: Mapping[str, pl.DataType] = {
    **{name: dtype for name, dtype in RULED.items() if name != "errors"},
    "enforced_determining": RULED["determining"],
    "errors": RULED["errors"],
    "status": pl.String(),
    "why": pl.String(),
}
"""Columns of `fold`, but for `enforced_args`."""

UNDECIDED = Outcome(status="undecided")

REFUSED = "`context.args"
"""How every message of a projection of arguments starts."""


class Group(Protocol):
    """Rows of one tool, principal type and resource type, decided by one bundle; stages before policy have passed."""

    @property
    def bundle(self) -> Bundle:
        """Whose policies decide."""

    @property
    def record(self) -> Record:
        """Type of `context.args`."""

    @property
    def leaves(self) -> Leaves:
        """Of the original arguments, one row a row."""

    @property
    def args(self) -> pl.Series:
        """Original arguments, canonical texts."""

    @property
    def bound(self) -> frozenset[str]:
        """Argument names that the resource or the key of a fact is made of."""

    @property
    def policy_ids(self) -> Sequence[str]:
        """Ids of the bundle's policies, by bit number of `masks` and `again`."""

    @property
    def atom_ids(self) -> Sequence[str]:
        """Ids of the policies of `atoms_of(bundle).engine`, by bit number of `atoms` and `atoms_again`."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Names the record did not ask for; empty: nothing."""

    @property
    def height(self) -> int:
        """Number of rows."""

    def masks(self) -> pl.DataFrame:
        """Evaluate the policies: `satisfied_<w>`, `errored_<w>`, one row a row."""

    def again(self, rows: pl.Series, leaves: Leaves) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Evaluate the policies for some rows with other arguments.

        Args:
            rows: UInt32, rows of the group, in any order.
            leaves: of the new arguments, one row each.

        Returns:
            Masks, one row each; and `row` (UInt32, index into `rows`), `reason` (String) of those whose arguments are
            refused: the text of the `ProjectionError`, or anything else for rows that are not decided here.
        """

    def value(self, root: str, path: Path) -> tuple[pl.Series, str] | None:
        """Return the scalars at a path of `context`, `resource` or `principal`, null: absent; and their kind.

        The kind is a `ScalarKind`, or `entity T` (ids, String). None: not a scalar.
        """

    def atoms(self) -> pl.DataFrame:
        """Evaluate the atoms, everything missing absent."""

    def atoms_again(self, rows: pl.Series, leaves: Leaves) -> pl.DataFrame:
        """Evaluate the atoms for some rows with other arguments; see `again`. Called only if something is missing."""


@dataclass(frozen=True, slots=True)
class Folded:
    """A folded group, each outcome once."""

    numbers: pl.Series
    """UInt32, one a row of the group, in order: row of `outcomes`."""
    outcomes: pl.DataFrame
    """The columns of `FOLDED`; see `fold`."""
    enforced_args: pl.Series
    """String, one a row of the group: canonical JSON; null: nothing may run."""

    def frame(self) -> pl.DataFrame:
        """Return one row a row of the group; see `fold`."""
        rows = self.outcomes.select(pl.all().gather(self.numbers))
        return rows.with_columns(self.enforced_args.alias("enforced_args"))


def fold(group: Group) -> pl.DataFrame:
    """Decide every row of a group.

    Returns:
        One row a row of the group, in order: `verdict`, `decided_by`, `reason_code`, `reason`, `cedar_decision`
        (String), `cedar_reasons`, `determining`, `enforced_determining`, `errors` (List[String], policy ids, sorted),
        `enforced_args` (String, canonical JSON; null: nothing may run), `status` (`decided`, `undecided` or
        `handed_over`) and `why` (String, null unless handed over). Rows that are not decided hold null but for these.

    Cost: see `folded`; most of it is the lists, which `Folded` does not repeat.
    """
    return folded(group).frame()


def folded(group: Group) -> Folded:
    """Decide every row of a group, as numbers of outcomes.

    Cost: the evaluations, one hash join, and Python once a distinct combination of policies.
    """
    return _Fold(group).run()


@dataclass(slots=True)
class _Fold:
    """A fold under way."""

    group: Group
    outcomes: Outcomes = field(default_factory=Outcomes)

    def run(self) -> Folded:
        group = self.group
        first = self.answers(group.masks())
        made = [outcome_of(answer, group.bundle.policies) for answer in first.answers]
        numbers = _looked_up([self.outcomes.number(outcome) for outcome in made], first.codes)
        waits = self.unsettled(group.atoms, group.height)
        numbers = numbers.set(waits, self.outcomes.number(UNDECIDED))
        parts = list(self.patched(made, first.codes, waits))
        texts = group.args
        for rows, found in (self.stopped(made, first.codes, parts), self.second(made, first.codes, parts)):
            numbers = numbers.scatter(rows, found)
        if parts:
            changed = pl.concat([part.texts for part in parts])
            texts = texts.clone().scatter(pl.concat([part.rows for part in parts]), changed)
        table = self.outcomes.frame(FOLDED)
        running = table.select(pl.col("verdict").is_not_null() & (pl.col("verdict") != "block")).to_series()
        runs = running.gather(numbers)
        return Folded(numbers, table, texts.zip_with(runs, pl.Series([None], dtype=pl.String)))

    def answers(self, masks: pl.DataFrame) -> Combinations:
        return combinations(masks, self.group.policy_ids, permits_of(self.group.bundle.policies))

    def unsettled(self, masks: Callable[[], pl.DataFrame], height: int) -> pl.Series:
        group = self.group
        if not group.missing:
            return pl.repeat(False, height, dtype=pl.Boolean, eager=True)
        return unsettled(masks, group.atom_ids, group.bundle, group.missing)

    def patched(self, made: Sequence[Outcome], codes: pl.Series, waits: pl.Series) -> Iterator[Patched]:
        """Apply patches, one set of policies at a time."""
        value = cache(self.group.value)
        by_policies: dict[tuple[str, ...], list[int]] = {}
        for code, outcome in enumerate(made):
            if outcome.verdict == "modify":
                by_policies.setdefault(outcome.determining, []).append(code)
        for policies, those in by_policies.items():
            rows = (codes.is_in(those) & ~waits).arg_true()
            if len(rows):
                yield patched(self.group, rows, policies, value)

    def stopped(
        self, made: Sequence[Outcome], codes: pl.Series, parts: Sequence[Patched]
    ) -> tuple[pl.Series, pl.Series]:
        """Rows whose patches cannot be applied, or not here, and their outcomes."""
        empty = pl.DataFrame(schema={"row": pl.UInt32, "code": pl.String, "reason": pl.String})
        frame = pl.concat([empty, *(part.stopped for part in parts)])
        ended = self.numbered(
            frame.select(pl.Series("first", codes.gather(frame["row"])), "code", "reason"),
            lambda code, reason_code, reason: _blocked(made[code], reason_code, reason),
        )
        handed = pl.concat([empty.select("row", why="reason"), *(part.handed_over for part in parts)])
        over = self.numbered(handed.select("why"), _handed_over)
        return pl.concat([frame["row"], handed["row"]]), pl.concat([ended, over])

    def second(
        self, made: Sequence[Outcome], codes: pl.Series, parts: Sequence[Patched]
    ) -> tuple[pl.Series, pl.Series]:
        """Rows with new arguments, and their outcomes."""
        rows = pl.concat([pl.Series([], dtype=pl.UInt32), *(part.rows for part in parts)])
        if not len(rows):
            return rows, rows
        leaves = together([part.leaves for part in parts])
        masks, bad = self.group.again(rows, leaves)
        again = self.answers(masks)
        before = codes.gather(rows)
        numbers = self.numbered(
            pl.DataFrame({"first": before, "second": again.codes}),
            lambda one, two: self.ending(made[one], again.answers[two]),
        )
        waits = self.unsettled(lambda: self.group.atoms_again(rows, leaves), len(rows))
        numbers = numbers.set(waits, self.outcomes.number(UNDECIDED))
        refused = self.numbered(
            bad.select(pl.Series("first", before.gather(bad["row"])), "reason"),
            lambda one, reason: refused_rows(made[one], reason),
        )
        return rows, numbers.scatter(bad["row"], refused)

    def ending(self, first: Outcome, again: Answer) -> Outcome:
        ending = conclude(first.determining, again, self.group.bundle.policies)
        return Outcome(
            verdict=ending.verdict,
            reason_code=ending.code,
            reason=ending.reason,
            answer=first.answer,
            determining=ending.determining,
            enforced_determining=ending.enforced_determining,
            errors=first.errors | {fault.policy for fault in again.errors},
        )

    def numbered(self, frame: pl.DataFrame, make: Callable[..., Outcome]) -> pl.Series:
        """Number the outcome of each row, which is made once for each distinct row."""
        distinct = frame.unique()
        made = [self.outcomes.number(make(*row)) for row in distinct.iter_rows()]
        numbers = distinct.with_columns(pl.Series("number", made, dtype=pl.UInt32))
        return frame.join(numbers, on=frame.columns, how="left", maintain_order="left")["number"]


def _looked_up(numbers: Sequence[int], codes: pl.Series) -> pl.Series:
    return pl.Series("number", numbers, dtype=pl.UInt32).gather(codes)


def _blocked(first: Outcome, code: str, reason: str) -> Outcome:
    """Nothing runs: the patches of a row cannot be applied."""
    return replace(first, verdict="block", reason_code=code, reason=reason)


def refused_rows(first: Outcome, reason: str) -> Outcome:
    """What becomes of a row whose new arguments are not taken: projection says `patch_invalid`, else handed over."""
    if not reason.startswith(REFUSED):
        return _handed_over(reason)
    return _blocked(first, "patch_invalid", f"after the patch of {names_of(first.determining)}: {reason}")


def _handed_over(why: str) -> Outcome:
    return Outcome(status="handed_over", why=why)
