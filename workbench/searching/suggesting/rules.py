"""The simplest conjunctions that tell the decisions to catch from the others.

One rule: a longer rule must pay for itself: each further part has to separate better by `PER_PART` of all, or the
shorter rule wins.

Source: beam search over conjunctions, as in CN2 (Clark & Niblett 1989, Machine Learning 3, 261-283); rules are told
apart by what they catch and by what they hit (Youden's index, 1950).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from workbench.searching.suggesting.conditions import Condition

PARTS = 3
"""Conditions that a rule has at most."""
BEAM = 40
"""Rules that are made longer in each round."""
PER_PART = 0.01
"""What a part must bring: share of the decisions to catch, or of good ones spared."""


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A conjunction of conditions."""

    parts: tuple[Condition, ...]
    holds: NDArray[np.bool_]
    caught: int
    """Decisions to catch that it holds for."""
    hit: int
    """Others that it holds for."""
    score: float

    @property
    def text(self) -> str:
        """Cedar: guards first, each once, then the conditions."""
        guards = dict.fromkeys(guard for part in self.parts for guard in part.guards)
        return " &&\n  ".join([*guards, *(part.text for part in self.parts)])


def best_rules(
    conditions: Sequence[Condition], harm: NDArray[np.bool_], *, cost: float, most: int
) -> tuple[list[Rule], int]:
    """Find rules, the best first, no two of them catching the same.

    Args:
        conditions: to make them of.
        harm: for each row, whether it is to be caught.
        cost: how much worse it is to hit all others than to miss all of those.
        most: rules wanted.

    Returns:
        The rules, and how many were tried.
    """
    total, others = int(harm.sum()), int((~harm).sum())

    def rule(parts: tuple[Condition, ...], holds: NDArray[np.bool_]) -> Rule:
        caught, hit = int((holds & harm).sum()), int((holds & ~harm).sum())
        size = sum(part.size for part in parts)
        score = caught / total - cost * (hit / others if others else 0.0) - PER_PART * size
        return Rule(parts, holds, caught, hit, score)

    level = [rule((each,), each.holds) for each in conditions]
    found, tried = list(level), len(level)
    for _ in range(PARTS - 1):
        level = sorted(level, key=lambda each: -each.score)[:BEAM]
        longer = [
            rule((*each.parts, part), each.holds & part.holds)
            for each in level
            for part in conditions
            if part not in each.parts
        ]
        tried += len(longer)
        level = _distinct([each for each in longer if each.caught], BEAM)
        found += level
    return _distinct(found, most), tried


def _distinct(rules: Sequence[Rule], most: int) -> list[Rule]:
    kept: dict[bytes, Rule] = {}
    for each in sorted(rules, key=lambda rule: (-rule.score, len(rule.text))):
        kept.setdefault(np.packbits(each.holds).tobytes(), each)
        if len(kept) == most:
            break
    return list(kept.values())
