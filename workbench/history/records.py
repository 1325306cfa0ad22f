"""Recorded decisions in chunks, each with how its call ended.

One rule: memory is bounded by a chunk, whatever the lake holds; and every decision at the pin is in exactly one.

A chunk is a span of positions of one ledger, so that Delta skips the files it is not in. The outcome of a call mostly
stands close behind its decision and is looked for there first; that of a call that waited for people may come much
later, and is looked up once for all of them, as is what became of a call that was in doubt. Of several outcomes of a
decision the last one holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from runtime.trace import CONTEXTS, DECISIONS, OUTCOMES
from workbench.history.matching import are_distinct, places

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from workbench.lake import Lake

SPAN = 500_000
"""Positions (decisions, outcomes and labels) in a chunk."""
_NEAR = 50_000
"""Positions after a chunk in which its outcomes are looked for first."""

NEEDED = (
    "decision_id", "kind", "session_id", "step", "decided_at", "evaluated_at", "tenant", "principal_type",
    "principal_id", "on_behalf_of_type", "on_behalf_of_id", "scopes", "required_scopes", "tool", "resource_type",
    "resource_id", "resource_template", "args", "projection", "session_state", "bundle_version",
    "idempotency_key", "context_hash", "verdict", "decided_by", "reason_code", "cedar_decision", "determining",
    "cedar_reasons", "errors", "approval", "enforced_args", "enforced_context_hash", "enforced_determining",
    "writer", "position",
)  # fmt: skip
"""Columns of `decisions` that columns are decided from."""

ADDRESSES = ("args_hash", "policy_hash", "action_hash", "slice_hash", "enforced_slice_hash")
"""Columns that are read besides where addresses are compared."""

MORE = (
    *ADDRESSES, "engine", "reason", "stage_inputs", "enforced_projection", "enforced_resource_type",
    "enforced_resource_id",
)  # fmt: skip
"""Columns that are read besides for rows that Cedar decides."""

STATUS = "execution_status"


class Span(NamedTuple):
    """Positions of one ledger."""

    writer: str
    start: int
    """The first position."""
    end: int
    """The first position behind it."""


@dataclass(frozen=True)
class Records:
    """The recorded decisions of a lake, shadow decisions left out."""

    lake: Lake

    def count(self) -> int:
        """Return how many there are."""
        return int(self._decisions().select(pl.len()).collect().item())

    def chunks(self, more: Sequence[str] = (), span: int = SPAN) -> Iterator[pl.DataFrame]:
        """Yield the decisions in (writer, position) order.

        Args:
            more: columns to read beside `NEEDED`.
            span: positions a chunk.

        Returns:
            Frames with these columns, and `execution_status` (String: of the last execution; null: none was
            recorded). None is empty.
        """
        for each in self.spans(span):
            rows = self.of(each, more)
            if rows.height:
                yield rows

    def spans(self, span: int = SPAN) -> Iterator[Span]:
        """Yield what chunks are made of, in (writer, position) order."""
        for writer, last in sorted(self.lake.pins.ledgers.items()):
            for start in range(1, last + 1, span):
                yield Span(writer, start, start + span)

    def of(self, span: Span, more: Sequence[str] = ()) -> pl.DataFrame:
        """Return the decisions of a span, as `chunks` yields them; there may be none."""
        within = (pl.col("writer") == span.writer) & pl.col("position").is_between(span.start, span.end - 1)
        rows = self._decisions().filter(within).select(*NEEDED, *more).collect()
        return self._ended(_in_order(rows), span.writer, span.start, span.end + _NEAR)

    def whole(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return rows of a chunk with the columns of `MORE`, in the same order."""
        lacking = [name for name in MORE if name not in rows.columns]
        if not lacking or rows.is_empty():
            return rows
        keys = ("writer", "position")
        within = pl.col("position").is_between(rows["position"].min(), rows["position"].max())
        found = (
            self._decisions()
            .filter(pl.col("writer").is_in(rows["writer"].unique().implode()) & within)
            .select(*keys, *lacking)
            .join(rows.lazy().select(keys), on=keys, how="semi")
            .collect()
        )
        return rows.join(found, on=keys, how="left", maintain_order="left")

    def _decisions(self) -> pl.LazyFrame:
        """In no order: most tables are written in order, and sorting wide rows is dear."""
        return self.lake.history

    def _every(self) -> pl.LazyFrame:
        """What the lake is not narrowed to, too: a call that was asked about may have been resumed in there."""
        return self.lake.table(DECISIONS).filter(self.lake.pins.holds, pl.col("kind") != "shadow")

    def _executions(self) -> pl.LazyFrame:
        rows = self.lake.table(OUTCOMES).filter(self.lake.pins.holds, pl.col("kind") == "execution")
        return rows.select("decision_id", "writer", "position", pl.col("status").alias(STATUS))

    @cached_property
    def _after_approval(self) -> pl.DataFrame:
        """How calls that had to wait ended: denied, expired, or as the call that was resumed once it was granted."""
        waits, resumes = pl.col("verdict").eq("approve"), pl.col("kind").eq("resumed")
        let_on = pl.col("verdict").is_in(("allow", "modify", "approve"))
        some = self._every().filter(waits | (resumes & let_on))
        told = some.select("decision_id", "linked_to", waits=waits, resumes=resumes).collect()
        resumed = told.filter("resumes")
        links = resumed.select("decision_id", asked="linked_to")
        runs = resumed.filter(~pl.col("waits")).select("decision_id")
        ids = told.select("decision_id").lazy()
        ended = _last(self._executions().join(ids, on="decision_id", how="semi").collect())
        let_run = runs.join(ended, on="decision_id", how="left").with_columns(
            pl.col(STATUS).fill_null("in_doubt")
        )
        found = [ended]
        while let_run.height:  # a resumed call may have asked again: what came of it goes back to the first
            asked = links.join(let_run, on="decision_id").select(pl.col("asked").alias("decision_id"), STATUS)
            told = pl.concat([asked.clear(), *found[:-1]])  # a link back to what is told would never end
            let_run = asked.join(told, on="decision_id", how="anti")
            found.insert(0, let_run)
        return pl.concat(found).unique("decision_id", keep="first", maintain_order=True)

    def _ended(self, rows: pl.DataFrame, writer: str, start: int, end: int) -> pl.DataFrame:
        near = (pl.col("writer") == writer) & pl.col("position").is_between(start, end)
        found = _told(rows, _last(self._executions().filter(near).collect()))
        found = _told(rows, self._after_approval, found)
        joined = rows.with_columns(found)
        unknown = pl.col(STATUS).is_null() | pl.col(STATUS).eq("in_doubt")
        open_ = unknown & pl.col("verdict").is_in(("allow", "modify"))
        late = joined.filter(open_ & (pl.col("kind") != "duplicate"))["decision_id"]
        if late.is_empty():
            return joined
        rest = _last(self._executions().filter(pl.col("decision_id").is_in(late.implode())).collect())
        return joined.with_columns(_told(rows, rest.drop_nulls(STATUS), found))


def _told(rows: pl.DataFrame, ended: pl.DataFrame, otherwise: pl.Series | None = None) -> pl.Series:
    """How calls ended (String, `execution_status`), a row a row: as `ended` tells it, else as it was told before."""
    if otherwise is not None and ended.is_empty():
        return otherwise
    at = places(rows["decision_id"], ended["decision_id"])
    told = ended[STATUS].gather(at)
    return told if otherwise is None else told.zip_with(at.is_not_null(), otherwise)


def _in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of one ledger by position."""
    return rows if rows["position"].is_sorted() else rows.sort("position")


def _last(executions: pl.DataFrame) -> pl.DataFrame:
    """The last execution of each decision, in no order."""
    if not are_distinct(executions["decision_id"]):
        ordered = executions.sort("writer", "position")
        executions = ordered.unique("decision_id", keep="last", maintain_order=True)
    return executions.select("decision_id", STATUS)


def with_contexts(records: pl.DataFrame, lake: Lake) -> pl.DataFrame:
    """Add the texts of the contexts that some records refer to, as the row engine reads them.

    Args:
        records: rows of `decisions`.
        lake: that they are from.

    Returns:
        The records with `context` and `enforced_context` (String; null: none, or lost).
    """
    wanted = pl.concat([records["context_hash"], records["enforced_context_hash"]]).drop_nulls().unique()
    some = pl.col("context_hash").is_in(wanted.implode())
    texts = lake.table(CONTEXTS, some).select("context_hash", "context").collect()
    enforced = texts.rename({"context_hash": "enforced_context_hash", "context": "enforced_context"})
    return records.join(texts, on="context_hash", how="left", maintain_order="left").join(
        enforced, on="enforced_context_hash", how="left", maintain_order="left"
    )
