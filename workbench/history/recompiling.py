"""Contexts compiled again for a chunk: once for every distinct question, not once a decision.

One rule: two rows share an answer only if everything a fact is looked up by is the same: who, for whom, on what, for
which tenant, what the keys read of the arguments and the session, and which versions of the sources were current.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.history.contexts import take_apart
from workbench.history.records import with_contexts
from workbench.recorded import Recorded

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.spec import ContextSpec
    from workbench.history.contexts import Contexts
    from workbench.lake import Lake
    from workbench.recompile import Recompiler, Trouble

_ASKED = (
    "tool", "tenant", "principal_type", "principal_id", "on_behalf_of_type", "on_behalf_of_id", "resource_type",
    "resource_id", "resource_template", "context_hash",
)  # fmt: skip
_NEW = "new_context_hash"
TROUBLE = {"cause": pl.String(), "about": pl.List(pl.String)}
"""Columns that say why a context cannot be compiled again; null: it can."""


@dataclass(frozen=True, slots=True)
class Again:
    """Compiles contexts again."""

    recompiler: Recompiler
    lake: Lake
    """That the rows are from."""

    def problems(self, rows: pl.DataFrame, own: ContextSpec) -> pl.DataFrame:
        """Check that the recorded spec over the recorded versions gives the recorded contexts.

        Returns:
            One row each, in order: `cause` (String; null: it does), `about` (List[String], sources).
        """

        def told(recorded: Recorded) -> tuple[Trouble | None]:
            return (self.recompiler.problem(recorded, own),)

        return self._once_each(rows, own, told).select(*TROUBLE)

    def compiled(self, rows: pl.DataFrame, own: ContextSpec) -> tuple[pl.DataFrame, Contexts]:
        """Compile the contexts of rows.

        Returns:
            The rows with `context_hash` and the columns of `Contexts.frame` of the new contexts, `cause` and `about`;
            and the contexts.
        """
        texts: dict[str, str] = {}

        def told(recorded: Recorded) -> tuple[Trouble | None, str]:
            found, trouble = self.recompiler.compiled(recorded, own)
            texts.setdefault(found.hash, found.content)
            return trouble, found.hash

        made = self._once_each(rows, own, told)
        contexts = take_apart(texts.items())
        old = [
            name
            for name in rows.columns
            if name.startswith(("fact ", "as_of ")) or name in ("fault", "shape")
        ]
        fresh = rows.drop(old).with_columns(
            made[_NEW].alias("context_hash"),
            made["cause"],
            made["about"],
            enforced_context_hash=pl.lit(None, pl.String),
        )
        return fresh.join(contexts.frame, on="context_hash", how="left", maintain_order="left"), contexts

    def _once_each(
        self, rows: pl.DataFrame, own: ContextSpec, told: Callable[[Recorded], tuple[Any, ...]]
    ) -> pl.DataFrame:
        keys = self._keyed(rows, own)
        names = [name for name in keys.columns if name != "row"]
        first = keys.unique(names, keep="first", maintain_order=True)
        some = rows.join(first.select("row"), on="row", how="semi", maintain_order="left")
        answers = [_answer(told(recorded)) for recorded in self._recorded(some)]
        schema = {**TROUBLE, _NEW: pl.String()}
        table = first.select(pl.col(names).name.prefix("key ")).hstack(
            pl.DataFrame(answers, schema=schema, orient="row")
        )
        return keys.join(
            table,
            left_on=names,
            right_on=[f"key {name}" for name in names],
            how="left",
            nulls_equal=True,
            maintain_order="left",
        ).select(*schema)

    def _keyed(self, rows: pl.DataFrame, own: ContextSpec) -> pl.DataFrame:
        """What answers hang on, and `row`."""
        spec = self.recompiler.spec or own
        roots = {path[0] for fact in spec.facts for _, path in fact.paths}
        more = [name for root, name in (("args", "args"), ("session", "session_id")) if root in roots]
        pairs = rows.unique(("tool", "context_hash"), keep="first", maintain_order=True)
        timeless = [
            self.recompiler.timeless(recorded, recorded.row["tool"], own)
            for recorded in self._recorded(pairs)
        ]
        known = pairs.select("tool", "context_hash", timeless=pl.Series(timeless, dtype=pl.Boolean))
        joined = rows.select("row", *_ASKED, *more, "decided_at").join(
            known, on=("tool", "context_hash"), how="left", nulls_equal=True, maintain_order="left"
        )
        when = pl.when(~pl.col("timeless")).then("decided_at").alias("decided_at")
        return joined.with_columns(when).drop("timeless")

    def _recorded(self, rows: pl.DataFrame) -> list[Recorded]:
        # What limits were judged by is not read for columns, and no fact is looked up by it.
        records = with_contexts(rows.with_columns(stage_inputs=pl.lit("{}")), self.lake)
        return [
            Recorded(record, record["context"], record["enforced_context"])
            for record in records.iter_rows(named=True)
        ]


def _answer(told: tuple[Any, ...]) -> tuple[str | None, list[str] | None, str | None]:
    trouble, *address = told
    cause, about = (None, None) if trouble is None else (trouble.cause, list(trouble.sources))
    return cause, about, address[0] if address else None
