"""Counting a lake: every recorded decision decided again, typed once more, and counted chunk by chunk.

One rule: every decision is in the table `decisions` once, and once in `asked` if it is known which policies decide
it. What columns do not take, Cedar is asked; what nobody can answer for is counted as such, never left out.

Policies see a call twice where a patch is applied. What is counted is the first look: the arguments as they were
given. A resumed call is asked of all policies, those that its grants lift among them.

Cost: a replay of the lake, and the typing and the evaluation once more; memory O(chunk).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.covering.asking import Asking
from workbench.covering.counts import KEYS, Counts, added, counted, schema_of
from workbench.covering.shapes import arguments_of, contexts_of_rows
from workbench.covering.values import columns_of, count_values
from workbench.ending import ending
from workbench.executors import ahead
from workbench.history.chunk import type_chunk
from workbench.history.deciding import grouped
from workbench.history.groups import compile_part, with_literals
from workbench.history.recompiling import Again
from workbench.history.records import Records, with_contexts
from workbench.history.run import joined
from workbench.recorded import Recorded, prepare_recorded, recorded_facts
from workbench.undecided import LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runtime.bundle import Bundle
    from runtime.policy import Case, Prepared
    from workbench.covering.asking import Told
    from workbench.history.chunk import Chunk, Part
    from workbench.history.contexts import Contexts
    from workbench.history.groups import PolicyGroup
    from workbench.history.run import Axes
    from workbench.lake import Lake

BEFORE = ("request", "tenant", "context", "limits")
"""Stages before policy."""
_CASES = 1_000
"""Rows that Cedar is asked at a time."""
_DECIDED = (pl.col("_status") == "decided") & ~pl.col("_stage").is_in(BEFORE)
_PARTLY = (pl.col("_status") == "undecided") & ~pl.col("_limits")
"""Rows whose clauses are known as far as the record goes; not those that limits may refuse."""
_EVALUATED = _DECIDED | _PARTLY
_TABLES = ("policies", "clauses", "boundaries")


@dataclass(slots=True)
class Scan:
    """A count under way."""

    lake: Lake
    axes: Axes
    decide: Callable[[pl.DataFrame], pl.DataFrame]
    """Records in, rows of `workbench.replay.FRAME` out, in order."""
    contexts: Contexts
    by_rows: bool = False
    """Cedar is asked for every row."""
    strict: bool = False
    """Cedar is asked for none."""
    where: pl.Expr | None = None
    """Which decisions to count, over columns of `decisions`; null: all."""
    more: Sequence[str] = ()
    """Columns to read besides."""
    bundles: dict[str, Bundle] = field(default_factory=dict)
    """That decided something, by policy hash."""
    counts: Counts = field(default_factory=Counts.none)
    _frames: dict[str, list[pl.DataFrame]] = field(default_factory=dict)
    _asking: dict[str, Asking] = field(default_factory=dict)

    def run(self, advance: Callable[[int], object]) -> Counts:
        """Count all decisions; `advance` is told how many a chunk had."""
        chunks = ahead(Records(self.lake).chunks(self.more))
        with ending(chunks.close):
            for records in chunks:
                self.chunk(records if self.where is None else records.filter(self.where))
                advance(records.height)
        return self.counts

    def chunk(self, records: pl.DataFrame) -> None:
        """Count some recorded decisions."""
        if records.is_empty():
            return
        told = self.decide(records)
        self._add("decisions", counted(told, KEYS["decisions"], told["decision_id"]))
        limits = pl.element().str.starts_with(LIMITS)
        said = told.select(
            _status="status",
            _stage="decided_by",
            _by="determining",
            _limits=pl.col("missing").list.eval(limits).list.any().fill_null(value=False),
        )
        rows = joined(records, self.contexts).hstack(said)
        for version in rows["bundle_version"].unique(maintain_order=True):
            own = self.lake.find_bundle(version)
            if own is not None:
                self._of_bundle(_those(rows, pl.col("bundle_version") == version), own, records)
        found = Counts({name: added(name, self._frames.pop(name, [])) for name in KEYS})
        self.counts += found

    def _add(self, table: str, frame: pl.DataFrame, **more: str) -> None:
        """Keep rows of a table, columns that are the same for all filled in."""
        frame = frame.with_columns(pl.lit(value).alias(name) for name, value in more.items())
        wanted = schema_of(table).items()
        columns = [
            pl.col(name) if name in frame.columns else pl.lit(None, dtype).alias(name)
            for name, dtype in wanted
        ]
        self._frames.setdefault(table, []).append(frame.select(columns))

    def _of_bundle(self, rows: pl.DataFrame, own: Bundle, records: pl.DataFrame) -> None:
        """Count rows of one recorded bundle."""
        bundle = self.axes.bundle_for(own)
        self.bundles.setdefault(bundle.policy_hash, bundle)
        asking = self._asking.get(bundle.policy_hash)
        if asking is None:
            asking = self._asking[bundle.policy_hash] = Asking(bundle)
        sound = _those(rows, pl.col("_status") != "quarantined")
        contexts, again = self.contexts, self.axes.recompiler
        if again is not None and sound.height:
            sound, contexts = Again(again, self.lake).compiled(sound, own.spec)
            sound = _those(sound, pl.col("cause").is_null())
        self._add("contexts", contexts_of_rows(sound, contexts, bundle.spec))
        known = again is not None or bundle.policy_hash == own.policy_hash
        asked = self._in_columns(sound, contexts, asking, own=known)
        if not self.strict:
            asked += self._by_cedar(sound, records, pl.concat(asked), asking)
        self._asked(rows, pl.concat(asked), bundle)
        by = rows.select("decision_id", policy="_by").explode("policy").drop_nulls("policy")
        decisive = counted(by, ["policy"], by["decision_id"])
        self._add("policies", decisive, bundle=bundle.policy_hash, outcome="decisive")

    # Columns

    def _in_columns(
        self, rows: pl.DataFrame, contexts: Contexts, asking: Asking, *, own: bool
    ) -> list[pl.Series]:
        """Count values, shapes and, where columns may, clauses. Returns which rows were evaluated."""
        done = [pl.Series("row", [], dtype=pl.UInt32)]
        if rows.is_empty():
            return done
        # A resumed call differs from others by `context.approval` alone, which is no value that is counted.
        all_ = rows.with_columns(_resumed=pl.col("approval").is_not_null(), approval=pl.lit(None, pl.String))
        chunk = type_chunk(all_, contexts, asking.bundle.schema, own=own)
        for part in chunk.parts:
            self._values(part, chunk, asking.bundle)
            if not self.by_rows:
                for group in grouped(part, chunk, contexts, asking.bundle, own=own).groups:
                    done += self._group(group, chunk, asking)
        return done

    def _group(self, group: PolicyGroup, chunk: Chunk, asking: Asking) -> Iterator[pl.Series]:
        rows = group.compiled.part.rows
        fits = rows.select(fit=_EVALUATED & ~pl.col("_resumed"))["fit"].gather(group.rows)
        mine = group if fits.all() else replace(group, rows=group.rows.filter(fits))
        if not mine.height:
            return
        told = asking.of_group(mine, chunk, rows["decision_id"].gather(mine.rows))
        if told is not None:
            self._take(told, asking.bundle)
            yield rows["row"].gather(mine.rows)

    def _values(self, part: Part, chunk: Chunk, bundle: Bundle) -> None:
        """Count arguments and values of a part's rows, those that could be read."""
        try:
            compiled = compile_part(part, chunk, bundle)
        except (pl.exceptions.PolarsError, RecursionError, ValueError):
            return  # its rows are handed over, and their values are not read
        bad = pl.concat([part.args.bad["row"], part.session.bad["row"]])
        rows = pl.int_range(part.rows.height, dtype=pl.UInt32, eager=True)
        rows = rows.filter(~rows.is_in(bad.cast(pl.UInt32).implode())) if bad.len() else rows
        if not rows.len():
            return
        ids = part.rows["decision_id"].gather(rows)
        frame = with_literals(part.frame[rows], compiled.literals)
        self._add("arguments", arguments_of(part, rows))
        for found in count_values(part.key.tool, columns_of(compiled, frame, chunk.ids, chunk.schema), ids):
            self._add("values", found)

    # Cedar

    def _by_cedar(
        self, rows: pl.DataFrame, records: pl.DataFrame, done: pl.Series, asking: Asking
    ) -> Iterator[pl.Series]:
        """Ask Cedar for the rows that policies decided and columns did not evaluate."""
        left = rows.select("row", "_status", "_stage", "_limits").filter(_EVALUATED)["row"]
        left = left.filter(~left.is_in(done.implode()))
        for some in range(0, left.len(), _CASES):
            mine = left.slice(some, _CASES)
            whole = with_contexts(Records(self.lake).whole(records[mine]), self.lake)
            cases = [self._case(record, asking.bundle) for record in whole.iter_rows(named=True)]
            found = [
                (case, missing, record["tool"], record["decision_id"])
                for record, (case, missing) in zip(whole.iter_rows(named=True), cases, strict=True)
                if case is not None
            ]
            self._take(asking.of_cases(found), asking.bundle)
            yield mine.filter(pl.Series([case is not None for case, _ in cases], dtype=pl.Boolean))

    def _case(self, record: dict[str, Any], bundle: Bundle) -> tuple[Case | None, Sequence[str]]:
        """What Cedar was asked first of a row; null: nothing, it seems."""
        recorded = Recorded(record, record["context"], record["enforced_context"])
        args, again = recorded.request.args, self.axes.recompiler
        prepared: Prepared
        if again is None:
            prepared = prepare_recorded(recorded, args, bundle, recorded_facts(bundle))
        else:
            prepared = again.job(recorded, bundle).prepare(args)
        return prepared.case, prepared.missing

    # Both

    def _take(self, told: Told, bundle: Bundle) -> None:
        for table, rows in zip(_TABLES, told, strict=True):
            if rows:
                wanted = {name: dtype for name, dtype in schema_of(table).items() if name in rows[0]}
                self._add(table, pl.DataFrame(rows, schema=wanted), bundle=bundle.policy_hash)

    def _asked(self, rows: pl.DataFrame, evaluated: pl.Series, bundle: Bundle) -> None:
        """Count whether clauses were evaluated, once a decision."""
        here = pl.col("row").is_in(evaluated.implode())
        said = (
            pl.when(here & _DECIDED)
            .then(pl.lit("evaluated"))
            .when(here)
            .then(pl.lit("partly"))
            .when(pl.col("_status") != "decided")
            .then("_status")
            .when(pl.col("_stage").is_in(BEFORE))
            .then(pl.lit("before"))
            .otherwise(pl.lit("handed over"))
        )
        keys = rows.select("tool", asked=said)
        self._add("asked", counted(keys, ["tool", "asked"], rows["decision_id"]), bundle=bundle.policy_hash)


def _those(rows: pl.DataFrame, where: pl.Expr) -> pl.DataFrame:
    """Rows where something holds; wide rows are not copied without need."""
    held = rows.select(held=where)["held"]
    return rows if held.all() else rows.filter(held)
