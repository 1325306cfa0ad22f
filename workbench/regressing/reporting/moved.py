"""What moved in a night's window, by tool and clause: read from the decisions that would change, kept as Parquet."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from workbench import faces
from workbench.errors import JobStateError
from workbench.texts import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.canonical import Json
    from workbench.regressing.result import Candidate

CHANGED = "changed.parquet"
MOST = 25
"""Rows of the table."""
_BY = ("tool", "from", "to", "effect", "side")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Moved(faces.Faces):
    """What moved; made by `moved`."""

    name: str
    """The candidate's."""
    rows: pl.DataFrame = field(default_factory=pl.DataFrame)
    """`tool`, `from`, `to`, `effect`, `side`, `because`, `decisions`, `sessions`, `example`; most decisions first."""
    note: str = ""
    """Why there are none."""

    def page(self) -> faces.Page:
        """Say it."""
        return faces.Page(
            kind="what moved",
            title=f"{self.name}: what moved",
            lines=tuple(self._lines()),
            parts=self._tables(),
        )

    def _lines(self) -> Iterator[str]:
        if self.rows.is_empty():
            yield self.note or "No decision of this window would change."
            return
        decisions = int(self.rows["decisions"].sum())
        yield f"{count(decisions, 'decision')} would change, in {count(self.rows.height, 'way')}."

    def _tables(self) -> tuple[faces.Table, ...]:
        if self.rows.is_empty():
            return ()
        left = self.rows.height - MOST
        table = faces.Table(
            note=f"{left:,} more are in `{CHANGED}`" if left > 0 else "",
            heads=(*_BY, "because of", "decisions", "sessions", "example"),
            rows=self.rows.head(MOST).rows(),
            code=frozenset({0, 5, 8}),
        )
        return (table,)

    def as_dict(self) -> dict[str, Json]:
        """Return it as JSON."""
        return {"name": self.name, "note": self.note, "rows": [*self.rows.to_dicts()]}


def moved(candidate: Candidate) -> Moved:
    """Return what moved in the window of a candidate's night.

    Raises:
        JobStateError: its `changed.parquet` cannot be read.

    Cost: O(changed decisions).
    """
    path = Path(candidate.files or "") / CHANGED
    if candidate.files is None or not path.exists():
        return Moved(name=candidate.name, note="There is no list of changed decisions beside this night.")
    because = pl.col("determining").list.join(", ").alias("because")
    words = [pl.col(name).cast(pl.String) for name in _BY]
    try:
        rows = (
            pl.scan_parquet(path)
            .group_by(*words, because)
            .agg(
                decisions=pl.len(),
                sessions=pl.struct("tenant", "session_id").n_unique(),
                example=pl.col("decision_id").min(),
            )
            .sort("decisions", *_BY, "because", descending=[True, *[False] * 6], nulls_last=True)
            .collect()
        )
    except (pl.exceptions.PolarsError, OSError) as exc:
        raise JobStateError(f"{path}: {exc}") from exc
    return Moved(name=candidate.name, rows=rows)
