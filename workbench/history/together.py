"""One chunk of recorded decisions, decided by several replays: what hangs on the record alone is found once.

One rule: each replay says of the chunk what it would say alone. They share a self-replay where they ask for the same
levels of it; and a replay that asks for the first takes one of both, unless a row failed there: the second level has
more that can fail.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workbench.history.keeping import clean, first_level, refreshed
from workbench.history.run import ColumnarRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import polars as pl

    from runtime.bundle import Bundle
    from workbench.history.contexts import Contexts
    from workbench.history.run import Axes, Itself, Prepared
    from workbench.recompile import Recompiler

    Level = tuple[Recompiler | None, bool]
    """What verifies, and whether contexts are compiled again: on what else a self-replay hangs."""


@dataclass(slots=True)
class _Memo:
    """What was found of the chunk at hand, by recorded bundle."""

    itself: dict[tuple[str, int], Itself] = field(default_factory=dict)
    compiled: dict[tuple[str, int, int], tuple[pl.DataFrame, Contexts]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SharedRun(ColumnarRun):
    """A replay in columns that takes from `memo` what another found of the same chunk."""

    memo: _Memo

    def itself(self, rows: pl.DataFrame, own: Bundle) -> Itself:
        key = own.version, id(self.axes.verify)
        if key not in self.memo.itself:
            self.memo.itself[key] = ColumnarRun.itself(self, rows, own)
        return self.memo.itself[key]

    def compiled(
        self, rows: pl.DataFrame, own: Bundle, recompiler: Recompiler
    ) -> tuple[pl.DataFrame, Contexts]:
        key = own.version, id(self.axes.verify), id(recompiler)
        if key not in self.memo.compiled:
            self.memo.compiled[key] = ColumnarRun.compiled(self, rows, own, recompiler)
        return self.memo.compiled[key]


class Together:
    """A chunk on its way through several replays; for one thread."""

    def __init__(self, runs: Sequence[ColumnarRun], records: pl.DataFrame) -> None:
        """Take a chunk.

        Args:
            runs: the replays, of one lake and its contexts, all strict or none; those that verify by the same sources
                hold the same recompiler.
            records: as `ColumnarRun.chunk` takes them, with every column that any of the replays needs.
        """
        memo = _Memo()
        self._runs = [_shared(run, memo) for run in runs] if len(runs) > 1 else runs
        self._records = records
        self._known: dict[Level, Prepared] = {}

    def decided(self, going: Callable[[], object]) -> Iterator[pl.DataFrame]:
        """Yield what each replay says of the chunk, in the order of the replays; see `ColumnarRun.chunk`.

        Args:
            going: called now and then; may raise, to end the work.
        """
        for run in self._runs:
            going()
            prepared = self.prepared(run.axes)
            going()
            yield run.decided(prepared if len(self._runs) == 1 else refreshed(prepared))

    def prepared(self, axes: Axes) -> Prepared:
        """Return the chunk, replayed by itself as far as one of the replays asks for it."""
        level = _level(axes)
        if level not in self._known:
            found = self._of_both_levels() if level == (None, False) else None
            run = next(run for run in self._runs if _level(run.axes) == level)
            self._known[level] = run.prepared(self._records) if found is None else found
        return self._known[level]

    def _of_both_levels(self) -> Prepared | None:
        """The first level, as a replay that asks for both found it; None: none does, or a row failed."""
        verifying = (run.axes for run in self._runs if run.axes.verify and not run.axes.recompiler)
        both = next(verifying, None)
        if both is None:
            return None
        found = self.prepared(both)
        return first_level(found) if clean(found) else None


def _shared(run: ColumnarRun, memo: _Memo) -> _SharedRun:
    return _SharedRun(
        run.find_bundle, run.axes, run.contexts, run.by_rows, run.lake, strict=run.strict,
        _addresses=run._addresses, memo=memo,  # noqa: SLF001 - it is one of these
    )  # fmt: skip


def _level(axes: Axes) -> Level:
    return axes.verify, axes.recompiler is not None
