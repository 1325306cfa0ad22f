"""Parts of a history: sessions to search on, and sessions to confirm on that the search has not seen.

One rule: a cluster (a session, or what is declared wider) is in one part as a whole, by the hash of its name and a
seed; so the same history splits alike on every machine and day, and new sessions move no old one.

Source: sample splitting, Cox (1975), "A note on data-driven choices of hypotheses", Biometrika 62, 441-444.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import polars as pl

from workbench.errors import ColumnUnknown, WorkbenchError
from workbench.history.hashes import sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Part = Literal["search", "confirm"]
SESSION = ("tenant", "session_id")
"""What a cluster is unless it is declared wider."""
_DIGITS = 8
"""Hex digits of a hash that are read as a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How a history is divided."""

    share: float = 0.5
    """Of the clusters, to search on; between 0 and 1."""
    seed: int = 0
    cluster: tuple[str, ...] = SESSION
    """What stays together: columns of `workbench.replay.FRAME`, or names of labels on sessions."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cluster", names_of(self.cluster))
        if not 0 < self.share < 1:
            raise WorkbenchError(f"the share to search on must be between 0 and 1, got {self.share!r}")

    def part(self, rows: pl.DataFrame, labels: pl.LazyFrame) -> pl.Series:
        """Return `search` or `confirm` for each row, as a column `part` (String).

        Args:
            rows: with `tenant`, `session_id`, and the cluster's columns.
            labels: `lake.labels`.

        Raises:
            ColumnUnknown: the cluster names neither a column nor a label on sessions.
        """
        keys = clusters(rows, labels, self.cluster)
        drawn = sha256(pl.Series(f"{self.seed}:" + keys.unique(maintain_order=True)))
        number = drawn.str.head(_DIGITS).str.to_integer(base=16)
        chosen = pl.select(
            pl.when(number < self.share * 16**_DIGITS).then(pl.lit("search")).otherwise(pl.lit("confirm"))
        )
        return keys.replace_strict(
            keys.unique(maintain_order=True), chosen.to_series(), return_dtype=pl.String
        ).alias("part")


def names_of(cluster: str | Iterable[str]) -> tuple[str, ...]:
    """Return the names of what makes a cluster; one text is one name."""
    return (cluster,) if isinstance(cluster, str) else tuple(cluster)


def clusters(
    rows: pl.DataFrame, labels: pl.LazyFrame, cluster: tuple[str, ...], *, known: Sequence[str] = ()
) -> pl.Series:
    """Return the name of each row's cluster (String, never null): canonical JSON of its keys.

    A session that a name says nothing of (no such label, or null) is a cluster of its own: nobody said what it hangs
    together with.

    Args:
        rows: of sessions, or what has them.
        labels: in force.
        cluster: columns of `rows`, or names of labels on sessions.
        known: columns that there are to choose from; empty: those of `rows`.

    Raises:
        ColumnUnknown: a name is neither a column of the rows nor a label on sessions.
    """
    frame = rows.select(
        "tenant", "session_id", *(n for n in cluster if n in rows.columns and n not in SESSION)
    )
    for name in cluster:
        if name not in frame.columns:
            frame = frame.join(
                _label(labels, name, known or rows.columns), on=SESSION, how="left", maintain_order="left"
            )
    unsaid = pl.any_horizontal(pl.col(name).is_null() for name in cluster)
    wide, own = (pl.struct(names).struct.json_encode() for names in (cluster, SESSION))
    return frame.select(cluster=pl.when(unsaid).then(own).otherwise(wide))["cluster"]


def _label(labels: pl.LazyFrame, name: str, columns: Sequence[str]) -> pl.DataFrame:
    of_sessions = labels.filter(pl.col("decision_id").is_null())
    found = (
        of_sessions.filter(pl.col("label") == name).select(*SESSION, pl.col("value").alias(name)).collect()
    )
    if found.is_empty():
        known = of_sessions.select(pl.col("label").unique().sort()).collect()["label"].to_list()
        raise ColumnUnknown(name, dict.fromkeys([*columns, *known]), "a decision, with its session's labels,")
    return found.unique(SESSION, keep="last", maintain_order=True)
