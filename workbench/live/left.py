"""Rows that columns do not decide, decided by Cedar: few at once, more when they are asked for.

One rule: what is said of such a row is the row engine's word, or that it is left; it is never guessed. The answer is
kept for every candidate whose policies for the tool are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from runtime.canonical import canonical
from runtime.policy import Decision
from runtime.trace import DECISIONS
from workbench.history.records import MORE, NEEDED, STATUS, with_contexts
from workbench.live.keeping import Kept
from workbench.live.said import UNDECIDED, Said
from workbench.redeciding import CHUNK, decide_again
from workbench.redeciding import row_of as prepared

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from runtime.bundle import Bundle
    from workbench.live.axes import Axes
    from workbench.live.parts import Rows
    from workbench.live.said import Book
    from workbench.redeciding import RowUnderWay

_BYTES = 64 << 20
"""Of answers that are kept."""
_RECORDS = 20_000
"""Records that are kept as they were read; some 4 KiB each."""


class _Known(NamedTuple):
    """What Cedar said of rows."""

    rows: Rows
    codes: NDArray[np.int32]


_NOTHING = _Known(np.zeros(0, np.intp), np.zeros(0, np.int32))


@dataclass(slots=True)
class ByCedar:
    """Asks Cedar about single rows of a history."""

    axes: Axes
    places: pl.DataFrame
    """`writer`, `position`, a row a row of the history."""
    book: Book
    _known: Kept[_Known] = field(default_factory=lambda: Kept(_BYTES))
    """What is said of rows, by the policies it rests on."""
    _records: pl.DataFrame | None = None
    """Records that were read, with `row`."""

    def unknown(self, key: object, rows: Rows) -> Rows:
        """Those of some rows that Cedar was not asked about under these policies."""
        return np.setdiff1d(rows, self._of(key).rows)

    def known(self, key: object, rows: Rows) -> tuple[Rows, NDArray[np.int32]]:
        """Those that it was asked about, and what it said."""
        found = self._of(key)
        mine = np.isin(found.rows, rows)
        return found.rows[mine], found.codes[mine]

    def _of(self, key: object) -> _Known:
        return self._known.get(key) or _NOTHING

    def decide(self, key: object, rows: Rows, bundle: Bundle, cancelled: Callable[[], bool]) -> bool:
        """Decide rows; False: cancelled, and nothing is kept.

        Args:
            key: names the policies.
            rows: of the history, none of them known.
            bundle: the candidate.
            cancelled: asked every thousand rows.
        """
        plan, found = self.axes.plan(bundle), [self._of(key)]
        for chunk in self._read(rows).iter_slices(CHUNK):
            if cancelled():
                return False
            made = [prepared(record, plan) for record in chunk.drop("row").iter_rows(named=True)]
            decide_again(made, plan)
            codes = np.array([self.book.number(_said(each)) for each in made], np.int32)
            found.append(_Known(chunk["row"].to_numpy().astype(np.intp), codes))
        whole = _Known(
            np.concatenate([each.rows for each in found]), np.concatenate([each.codes for each in found])
        )
        self._known.put(key, whole, whole.rows.nbytes + whole.codes.nbytes)
        return True

    def _read(self, rows: Rows) -> pl.DataFrame:
        wanted = pl.DataFrame({"row": pl.Series(rows, dtype=pl.UInt32)})
        known = self._records
        if known is not None:
            new = wanted.join(known.select("row"), on="row", how="anti")
            if new.is_empty():
                return known.join(wanted, on="row", how="semi", maintain_order="left")
        read = self._from_lake(wanted)
        if known is None or known.height + read.height <= _RECORDS:
            every = read if known is None else pl.concat([known, read]).unique("row", keep="first")
            self._records = every.sort("row")
        return read

    def _from_lake(self, wanted: pl.DataFrame) -> pl.DataFrame:
        lake = self.axes.lake
        places = self.places[wanted["row"]].with_columns(pl.col("writer").cast(pl.String), wanted["row"])
        near = pl.col("position").is_between(places["position"].min(), places["position"].max())
        table = lake.table(DECISIONS).filter(lake.pins.holds, near)
        found = (
            table.filter(pl.col("writer").is_in(places["writer"].unique().implode()))
            .select(*dict.fromkeys((*NEEDED, *MORE)))
            .join(places.lazy(), on=["writer", "position"], how="inner")
            .collect()
        )
        status = pl.lit(None, pl.String).alias(STATUS)  # how it ended is in its key already
        return with_contexts(found.sort("row"), lake).with_columns(status)


def _said(row: RowUnderWay) -> Said:
    """What the row engine says of a row."""
    result = row.result
    if row.cause is not None:
        return Said("quarantined")
    if not isinstance(result, Decision):
        return UNDECIDED
    args, enforced = result.enforced_args, row.recorded.row["enforced_args"]
    same = (
        result.verdict in ("allow", "modify")
        and args is not None
        and enforced is not None
        and canonical(dict(args)) == str(enforced)
    )
    return Said(
        "decided", result.verdict, result.decided_by, result.reason_code, tuple(result.determining), same
    )
