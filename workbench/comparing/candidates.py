"""The versions of a comparison: one base, and one candidate or more against it, decision by decision.

One rule: all candidates are compared with the same answers to the same decisions, or the comparison is refused.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from workbench.comparing.cube import counted
from workbench.diff_rows import WIDE
from workbench.errors import NotComparable
from workbench.metrics import STATES, UNRESOLVED
from workbench.texts import count, visible
from workbench.words import headline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.compare import Diff

MOST = 8
"""Candidates side by side; more columns than that nobody compares by eye."""


@dataclass(frozen=True, eq=False, repr=False)
class Candidates:
    """Candidates against one base. Made by `candidates_of`."""

    diffs: tuple[Diff, ...]
    names: tuple[str, ...]
    """Of the candidates, each once."""

    @property
    def base(self) -> str:
        """Name of the base."""
        return visible(self.diffs[0].base.policy[0])

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return len(self.diffs) > 1

    @property
    def answers(self) -> tuple[str, ...]:
        """Columns that hold what each candidate says, in `frame`."""
        return tuple(f"to_{place}" for place in range(1, len(self.diffs) + 1)) if self.several else ("to",)

    def frame(self, place: int) -> pl.LazyFrame:
        """Return all decisions as compared with one candidate: `Diff.frame`.

        Where there are several candidates, `to_1`, `to_2`, … hold what each of them says (Enum of `STATES`).
        """
        own = self.diffs[place].frame
        return pl.concat([own, self._answers.lazy()], how="horizontal") if self.several else own

    def rows(self, place: int, where: pl.Expr) -> pl.LazyFrame:
        """Return the decisions for which `where` holds, with arguments and reasons of one candidate."""
        wide = self.diffs[place].cand.frame.select(WIDE)
        return pl.concat([self.frame(place), wide], how="horizontal").filter(where)

    @cached_property
    def _answers(self) -> pl.DataFrame:
        return pl.DataFrame(
            {
                name: diff.frame.select("to").collect().to_series()
                for name, diff in zip(self.answers, self.diffs, strict=True)
            }
        )

    @cached_property
    def cubes(self) -> tuple[pl.DataFrame, ...]:
        """The decisions counted, for each candidate; see `workbench.comparing.cube`."""
        more = self.answers if self.several else ()
        return tuple(counted(self.frame(place), more) for place in range(len(self.diffs)))

    @cached_property
    def states(self) -> tuple[str, ...]:
        """What the columns of a matrix are: every verdict, and of the rest what some version says."""
        said = {state for each in self.cubes for name in ("from", "to") for state in each[name].unique()}
        return tuple(state for state in STATES if state not in UNRESOLVED or state in said)

    def facts(self, place: int) -> list[str]:
        """Return what was counted, in sentences: outcomes, extent, coverage; without gates, which need estimates."""
        diff = self.diffs[place]
        if not diff.gates:
            return headline(diff)
        plain = replace(diff, gates=())
        plain.__dict__["_rows"] = diff._rows  # noqa: SLF001 - the same rows, collected once
        return headline(plain)


def candidates_of(diffs: Sequence[Diff]) -> Candidates:
    """Put comparisons side by side.

    Args:
        diffs: of different candidates with the same base; the order of the columns.

    Raises:
        NotComparable: they have other decisions, or their bases say otherwise of one; or they are too many.

    Cost: collects the comparisons, O(decisions) each.
    """
    if len(diffs) > MOST:
        raise NotComparable(f"{count(len(diffs), 'candidate')} side by side; at most {MOST} can be looked at")
    first, *others = diffs
    said = first.frame.select("decision_id", "from").collect()
    for place, diff in enumerate(others, 2):
        again = diff.frame.select("decision_id", "from").collect()
        if not said["decision_id"].equals(again["decision_id"]):
            raise NotComparable(
                f"comparison {place} covers other decisions than the first; replay all candidates over one `lake`"
            )
        if not said["from"].equals(again["from"]):
            raise NotComparable(
                f"comparison {place} has another base than the first: {(said['from'] != again['from']).sum():,} "
                "decisions differ in it; compare every candidate with one base, as `wb.compare(base, other)`"
            )
    return Candidates(tuple(diffs), _names(diffs))


def _names(diffs: Sequence[Diff]) -> tuple[str, ...]:
    """Names that tell candidates apart: the policy's; where that does not do, with version, contexts, a number."""
    found = [visible(diff.cand.policy[0]) for diff in diffs]
    for more in (
        lambda diff: diff.cand.policy[1][:8],
        lambda diff: f"with {visible(diff.cand.context)} contexts",
    ):
        told = [more(diff) for diff in diffs]
        alike = {
            name: {each for each, other in zip(told, found, strict=True) if other == name} for name in found
        }
        found = [
            f"{name} {each}" if len(alike[name]) > 1 else name for name, each in zip(found, told, strict=True)
        ]
    seen = Counter(found)
    return tuple(f"{name} #{n}" if seen[name] > 1 else name for n, name in enumerate(found, 1))
