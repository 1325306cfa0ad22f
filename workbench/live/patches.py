"""Rows whose arguments policies change: patched once, and decided again by each version.

One rule: what patches make of a row hangs on the patches and on the row, on no other policy. So rows are patched by
one set of patches once, whichever versions apply it, and more rows are added as versions apply it to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from workbench.history.fold import REFUSED
from workbench.history.patching import patched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from runtime.bundle import Bundle
    from workbench.live.parts import LivePart, Rows

_MOST = 6
"""Batches of one set before they are made one."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of a part that one set of patches was applied to."""

    rows: Rows
    """Of the part."""
    going: Rows
    """Those of them (places in `rows`) that have new arguments."""
    frame: pl.DataFrame
    """What kernels read of those, a row each."""
    same: NDArray[np.bool_]
    """Whether their new arguments are what was enforced."""
    ended: dict[str, Rows]
    """Places in `rows` of those that are blocked, by reason code."""
    over: dict[str, Rows]
    """Places in `rows` of those that columns leave to Cedar, by reason."""
    name: tuple[object, ...]
    """Names `frame` among what is evaluated."""

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.frame.estimated_size()) + 9 * len(self.rows) + 9 * len(self.going)


@dataclass(slots=True)
class Batches:
    """All rows of a part that one set of patches was applied to."""

    key: object
    """The patches."""
    every: list[Batch] = field(default_factory=list)
    made: int = 0
    """Batches so far."""

    @property
    def size(self) -> int:
        """Bytes."""
        return 256 + sum(each.size for each in self.every)

    def cover(
        self, part: LivePart, where: NDArray[np.bool_], policies: Sequence[str], bundle: Bundle
    ) -> None:
        """Apply the patches to rows (of the part) they were not applied to yet."""
        lacking = where.copy()
        for each in self.every:
            lacking[each.rows] = False
        if not lacking.any():
            return
        if len(self.every) >= _MOST:
            self.every.clear()
            lacking = where
        self.made += 1
        self.every.append(_batch(part, np.flatnonzero(lacking), policies, bundle, (self.key, self.made)))


def _batch(
    part: LivePart, rows: Rows, policies: Sequence[str], bundle: Bundle, name: tuple[object, ...]
) -> Batch:
    group = part.group(rows, bundle)
    found = patched(group, pl.Series(np.arange(len(rows)), dtype=pl.UInt32), policies, cache(group.value))
    going = found.rows.to_numpy().astype(np.intp)
    ended = {str(code): mine for (code,), mine in _places(found.stopped, "code")}
    over = {str(why): mine for (why,), mine in _places(found.handed_over, "why")}
    frame, same = part.frame.clear(), np.zeros(0, np.bool_)
    if len(going):
        frame, bad = group.changed(found.rows, found.leaves)
        same = found.texts.eq_missing(part.recorded.gather(rows[going])).to_numpy()
        for (reason,), mine in _places(bad, "reason"):
            invalid = str(reason).startswith(REFUSED)
            into, key = (ended, "patch_invalid") if invalid else (over, str(reason))
            into[key] = np.concatenate([into.get(key, going[:0]), going[mine]])
        fine = np.ones(len(going), np.bool_)
        fine[bad["row"].to_numpy()] = False
        if not fine.all():
            frame, same, going = frame.filter(pl.Series(fine)), same[fine], going[fine]
    return Batch(rows, going, frame, same, ended, over, name)


def _places(frame: pl.DataFrame, key: str) -> list[tuple[tuple[object, ...], Rows]]:
    parts = frame.partition_by(key, as_dict=True).items()
    return [(values, mine["row"].to_numpy().astype(np.intp)) for values, mine in parts]
