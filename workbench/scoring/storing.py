"""Scores that are kept: rows in the lake's `scores`, and found again by what was scored and by what.

One rule: nothing is judged twice. A score is known by its case's content, its metric and what computed it
(`workbench.scoring.versions`), so whoever asks the same again, in another run or another replay, gets it from the
lake. What failed is no score, and is asked again.

Rows are appended as they come, a commit for `ROWS` of them or each `SECONDS`, whoever else writes meanwhile: what a
killed process had been told is lost for that time at most. A row is of the replay that was scored when it was judged;
one that is reused is not written again.

Durability: of a row, when the commit with it returns; on a local disk when the system has written it back.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

import polars as pl

from runtime.canonical import new_id
from runtime.trace import SCORES
from runtime.values import micros
from workbench.errors import ScoringInvalid
from workbench.keeping.appending import append
from workbench.run import user_name
from workbench.scoring.results import SCHEMA

if TYPE_CHECKING:
    from types import TracebackType

    from runtime.canonical import Json
    from runtime.lake import LakeStore

ROWS = 64
"""Rows of a metric that waits, a commit."""
SECONDS = 2.0
"""Longest time that a row waits for its commit, while others come."""
MANY = 20_000
"""Rows a commit, where they come at once."""


class Keeping(Protocol):
    """What is asked of a lake that scores are kept in."""

    @property
    def scores(self) -> pl.LazyFrame:
        """One row a (replay, decision or session, metric)."""

    @property
    def store(self) -> LakeStore:
        """Its tables."""


def lake_that_keeps(lake: object) -> Keeping:
    """Return the lake, if scores can be kept in it.

    Raises:
        ScoringInvalid: it has no tables to write to.
    """
    if hasattr(lake, "scores") and hasattr(lake, "store"):
        return cast("Keeping", lake)  # what the protocol asks is there
    raise ScoringInvalid("keep=True needs a replay of a lake that was opened with wb.open; or leave keep out")


def known(lake: Keeping, metric: str, version: str) -> pl.DataFrame:
    """Return what is known of a metric's cases.

    Returns:
        `case_hash`, `score` (null: not applicable), `reason`; one row a case, the last that was kept.
    """
    mine = (pl.col("metric") == metric) & (pl.col("metric_version") == version) & pl.col("error").is_null()
    rows = lake.scores.filter(mine).sort("at", "row_id").select("case_hash", "score", "reason")
    return rows.unique("case_hash", keep="last", maintain_order=True).collect()


class Keeper:
    """Appends rows to a lake's `scores`; one for a run. A context manager: what waits is written when it ends."""

    def __init__(self, lake: Keeping, replay_id: str, *, actor: str | None = None) -> None:
        """Open the lake's store for writing; nothing is written yet."""
        self._lake, self._store = lake, lake.store.writing()
        self._replay_id, self._actor = replay_id, actor or user_name()
        self._waiting: list[dict[str, Json]] = []
        self._since = time.monotonic()

    def add(self, rows: pl.DataFrame) -> None:
        """Take rows, in the columns of `SCHEMA`; written at once if many wait, or have waited long enough.

        Raises:
            LakeError: the lake cannot be written; rows written before stay.
        """
        self._waiting += [self._row(row) for row in rows.select(*SCHEMA).iter_rows(named=True)]
        if len(self._waiting) >= ROWS or time.monotonic() - self._since >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits.

        Raises:
            LakeError: as `add`.
        """
        while self._waiting:
            part = self._waiting[:MANY]
            ids = [str(row["row_id"]) for row in part]
            append(self._store, SCORES, part, lambda ids=ids: self._there(ids))  # type: ignore[misc]  # bound here
            del self._waiting[:MANY]
        self._since = time.monotonic()

    def _there(self, ids: list[str]) -> bool:
        found = self._lake.scores.filter(pl.col("row_id").is_in(ids)).select(pl.len())
        return int(found.collect().item()) == len(ids)

    def _row(self, row: dict[str, Any]) -> dict[str, Json]:
        names = (
            "tenant",
            "session_id",
            "decision_id",
            "metric",
            "metric_version",
            "score",
            "success",
            "reason",
        )
        return {
            **{name: row[name] for name in (*names, "error", "case_hash")},
            "row_id": new_id(),
            "replay_id": self._replay_id,
            "actor": self._actor,
            "at": micros(datetime.now(UTC)),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what waits, also where the run was interrupted: it was paid for."""
        self.flush()
