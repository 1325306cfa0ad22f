"""Policies over columns, one by one, kept: an edit evaluates what it changed.

One rule: what a policy says of a row is what `workbench.history.groups` compiles it to, or the row is held with the
reason. Policies that were not evaluated before are compiled together where that holds no row, because it is cheaper.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from workbench.columnar.lowering import collected
from workbench.history.groups import compiled_part as compiled
from workbench.history.groups import with_literals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from runtime.bundle import Bundle
    from workbench.columnar.policies import Policies, Policy
    from workbench.history.chunk import Chunk, Part
    from workbench.history.groups import Compiled
    from workbench.live.keeping import Kept

    Truths = NDArray[np.uint8]
    """A row's number: bit 0 satisfied, bit 1 in error."""
    Held = Mapping[str, NDArray[np.bool_]]
    """Rows that columns do not decide, by reason."""

FAILS = (pl.exceptions.PolarsError, RecursionError, ValueError)


class Evaluated(NamedTuple):
    """What one policy says of the rows of a frame."""

    truths: Truths | None
    """None: it says nothing of any row."""
    held: Held

    @property
    def size(self) -> int:
        """Bytes."""
        arrays = [*self.held.values(), *([] if self.truths is None else [self.truths])]
        return 64 + sum(each.nbytes for each in arrays)


NOTHING = Evaluated(None, {})


@dataclass(slots=True)
class Evaluator:
    """Evaluates policies over the columns of one part, and over the same columns with other arguments."""

    part: Part
    chunk: Chunk
    bundle: Bundle
    """Any of the schema: no policy of it is looked at."""
    kept: Kept[Evaluated]
    number: int
    _compiled: dict[object, Compiled | str] = field(default_factory=dict)
    """Compiled for the frame that is evaluated now."""

    def run(
        self, policies: Sequence[tuple[object, Policies]], frame: pl.DataFrame, where: object
    ) -> list[list[Evaluated]]:
        """Evaluate policies.

        Args:
            policies: each under the key it is kept by, with itself; or its atoms, which are policies, too.
            frame: columns of the part, a row each.
            where: names the frame; it is part of the keys.

        Returns:
            For each what every one of its `Policies.every` says.
        """
        found: dict[object, list[Evaluated]] = {}
        for key, given in policies:
            known = [self.kept.get((self.number, where, key, n)) for n in range(len(given.every))]
            if all(each is not None for each in known):
                found[key] = [each for each in known if each is not None]
        new = [(key, given) for key, given in policies if key not in found]
        if new:
            for (key, _), each in zip(new, self._evaluated(new, frame), strict=True):
                found[key] = [
                    self.kept.put((self.number, where, key, n), one, one.size) for n, one in enumerate(each)
                ]
        return [found[key] for key, _ in policies]

    def _evaluated(
        self, new: Sequence[tuple[object, Policies]], frame: pl.DataFrame
    ) -> list[list[Evaluated]]:
        if len(new) > 1 and (together := self._together([given for _, given in new], frame)) is not None:
            return together
        return [self._one(given, frame) for _, given in new]

    def _together(self, given: Sequence[Policies], frame: pl.DataFrame) -> list[list[Evaluated]] | None:
        """All at once; None: some row is held, and which policy holds it has to be found one by one."""
        every = tuple(policy for each in given for policy in each.every)
        literals = frozenset().union(*(each.literals for each in given))
        try:
            made = self._compile(replace(given[0], every=every, literals=literals))
        except FAILS:
            return None
        if made.kernel.refused or _walks(made, frame):
            return None
        try:
            flat = iter(_truths(made, frame, every))
        except FAILS:
            return None
        return [[Evaluated(next(flat), {}) for _ in each.every] for each in given]

    def _one(self, given: Policies, frame: pl.DataFrame) -> list[Evaluated]:
        return [self._alone(replace(given, every=(policy,)), frame) for policy in given.every]

    def _alone(self, given: Policies, frame: pl.DataFrame) -> Evaluated:
        try:
            made = self._compile(given)
            held = _walks(made, frame) | _refused(made, frame)
            return Evaluated(_truths(made, frame, given.every)[0], held)
        except FAILS as exc:
            return Evaluated(
                None, {f"{type(exc).__name__}: {str(exc)[:200]}": np.ones(frame.height, np.bool_)}
            )

    def _compile(self, given: Policies) -> Compiled:
        return compiled(self.part, self.chunk, self.bundle, given)


def _truths(made: Compiled, frame: pl.DataFrame, every: Sequence[Policy]) -> list[Truths | None]:
    """Run policies; None for those that say nothing of any row."""
    names = set(made.kernel.plan.names)
    said = {n: [name for name in (f"s{n}", f"e{n}") if name in names] for n in range(len(every))}
    outputs = {n: flags for n, flags in said.items() if flags}
    if not outputs or not frame.height:
        return [None] * len(every)
    columns = [
        pl.sum_horizontal(pl.col(f).cast(pl.UInt8) * (1 if f[0] == "s" else 2) for f in flags)
        .cast(pl.UInt8)
        .alias(f"o{n}")
        for n, flags in outputs.items()
    ]
    lazy = made.kernel.plan.added(with_literals(frame, made.literals).lazy()).with_columns(columns)
    found = collected(lazy.select(column.meta.output_name() for column in columns), frame.height)
    return [_used(found[f"o{n}"]) if n in outputs else None for n in range(len(every))]


def _used(found: pl.Series) -> Truths | None:
    array: Truths = found.to_numpy()
    return array if array.any() else None


def _walks(made: Compiled, frame: pl.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """Rows in which a policy goes further than the record lets columns go."""
    whole = with_literals(frame, made.literals)
    found = {why: made.walking(why, whole).fill_null(value=False).to_numpy() for why in made.walks}
    return {why: where for why, where in found.items() if where.any()}


def _refused(made: Compiled, frame: pl.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """Rows in whose scope a policy is that is not compiled."""
    if not made.kernel.refused:
        return {}
    lazy = made.kernel.plan.added(with_literals(frame, made.literals).lazy())
    found = {}
    for number, why_not in made.kernel.refused.items():
        where = collected(lazy.select(pl.col(f"u{number}").alias("where")), frame.height)["where"]
        where = where if where.len() == frame.height else where.new_from_index(0, frame.height)
        held = where.fill_null(value=False).to_numpy()
        if held.any():
            found[f"{why_not.node}: {why_not}"] = held
    return found
