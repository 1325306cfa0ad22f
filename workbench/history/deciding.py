"""Deciding a typed chunk by a bundle: the stages before policy that hang on the bundle's files, then the fold.

One rule: every row of the chunk comes out, decided, undecided, or handed over with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from runtime.record import request_of
from runtime.request import ResourceTemplate
from workbench.columnar.layouts import ScalarShape
from workbench.history.contexts import age_column, fact_column
from workbench.history.decided import OUTCOMES, RESULT, Decided, together, told
from workbench.history.fold import folded
from workbench.history.groups import PolicyGroup, compile_part
from workbench.history.limiting import limited
from workbench.history.slim import record_of_row
from workbench.recorded import counters_read, missing_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.bundle import Bundle
    from workbench.columnar.layouts import Layout
    from workbench.history.chunk import Chunk, Part
    from workbench.history.contexts import Contexts
    from workbench.history.groups import Compiled


def decided_chunk(
    chunk: Chunk, contexts: Contexts, bundle: Bundle, *, own: bool, lacking: tuple[str, ...] = ()
) -> Decided:
    """Decide the rows of a chunk.

    Args:
        chunk: typed by the bundle's schema.
        contexts: of the lake.
        bundle: policies, the recorded spec, limits.
        own: the rows were decided by these policies; then nothing they may read is missing.
        lacking: names that are not known of any of these rows, whatever the record has there.

    Returns:
        Every row of the chunk, ordered.
    """
    held = _said(chunk.held.with_columns(status=pl.lit("handed_over")))
    parts = [
        piece
        for part in chunk.parts
        for piece in DecidedPart(part, chunk, contexts, bundle, own=own, lacking=lacking).run()
    ]
    return together([held, *parts])


def _said(frame: pl.DataFrame) -> Decided:
    """What is said of `row`s, nothing of which may run."""
    return told(frame["row"], frame.select(name for name in frame.columns if name in OUTCOMES))


class Grouped(NamedTuple):
    """A part, ready for policies; each row is in one of the three."""

    held: pl.DataFrame
    """`row`, `why`, `status`: handed over."""
    refused: pl.DataFrame
    """Rows that the limits refuse; columns of `RESULT`."""
    groups: list[PolicyGroup]


def grouped(part: Part, chunk: Chunk, contexts: Contexts, bundle: Bundle, *, own: bool) -> Grouped:
    """Group the rows of one part of a chunk that policies decide; see `decided_chunk`."""
    return DecidedPart(part, chunk, contexts, bundle, own=own).grouped()


@dataclass(slots=True)
class DecidedPart:
    """One part, being decided."""

    part: Part
    chunk: Chunk
    contexts: Contexts
    bundle: Bundle
    own: bool = field(kw_only=True)
    lacking: tuple[str, ...] = field(default=(), kw_only=True)

    def run(self) -> Iterator[Decided]:
        """Decide the rows: what is held back, what limits refuse, and what policies say."""
        held, refused, groups = self.grouped()
        yield _said(held)
        yield _said(refused)
        yield from map(self._folded, groups)

    def grouped(self) -> Grouped:
        """Return what is held back, what limits refuse, and groups of rows for the policies."""
        part, rows = self.part, self.part.rows["row"]
        compiled = self._compiled()
        if isinstance(compiled, str):
            why = pl.Series("why", [compiled]).new_from_index(0, rows.len())
            return Grouped(_handed_over(rows, why), pl.DataFrame(schema=dict(RESULT)), [])
        whys = pl.DataFrame({"a": part.holding.why, "b": self._stale(), "c": compiled.holding.why})
        held = whys.select(why=pl.coalesce("a", "b", "c"))["why"]
        found = limited(part, self.bundle.limits)
        held = pl.DataFrame({"a": held, "b": found.why}).select(why=pl.coalesce("a", "b"))["why"]
        spent = self._spent(found.refused, held.is_null())
        free = pl.DataFrame({"free": held.is_null() & spent["verdict"].is_null()})["free"].arg_true()
        at = held.is_not_null().arg_true()
        refused = spent.filter(pl.col("verdict").is_not_null())
        sure = [_sure(group) for group in self._groups(compiled, free, found.room)]
        over = [_handed_over(rows.gather(at), held.gather(at))]
        over += [_handed_over(rows.gather(left), why) for _, left, why in sure]
        return Grouped(pl.concat(over), refused, [group for group, _, _ in sure if group.height])

    def _compiled(self) -> Compiled | str:
        try:
            return compile_part(self.part, self.chunk, self.bundle)
        except (pl.exceptions.PolarsError, RecursionError, ValueError) as exc:
            return f"{type(exc).__name__}: {str(exc)[:200]}"

    def _stale(self) -> pl.Series:
        """Why the context stage may refuse, by row: the row engine says how."""
        rows = self.part.rows
        why = pl.Series("why", [None], dtype=pl.String).new_from_index(0, rows.height)
        for fact in self.bundle.spec.facts:
            records = self.contexts.facts.get(fact.name)
            if records is None:
                continue
            status = records.frame["status"].gather(rows[fact_column(fact.name)])
            refused = status == "failed"
            if fact.max_age_us is not None and fact.on_stale == "block":
                age = rows["evaluated_at"].dt.timestamp("us") - rows[age_column(fact.name)]
                asked = (status == "found") | ((status == "none") & age.is_not_null())
                refused = refused | (asked & (age.is_null() | (age > fact.max_age_us) | (age < 0)))
            said = pl.when("refused").then(pl.lit(f"fact `{fact.name}` failed, or is stale"))
            frame = pl.DataFrame({"why": why, "refused": refused.fill_null(value=False)})
            why = frame.select(why=pl.coalesce("why", said))["why"]
        return why

    def _spent(self, refused: pl.DataFrame, free: pl.Series) -> pl.DataFrame:
        """Rows as the limits refuse them; null where they do not, and where rows are not free."""
        told = [pl.when(free).then(name).alias(name) for name in ("reason_code", "reason")]
        return refused.select(self.part.rows["row"], *told).with_columns(
            verdict=pl.when(pl.col("reason_code").is_not_null()).then(pl.lit("block")),
            decided_by=pl.lit("limits"),
            status=pl.lit("decided"),
            determining=pl.lit([], dtype=pl.List(pl.String)),
            enforced_determining=pl.lit([], dtype=pl.List(pl.String)),
            cedar_reasons=pl.lit([], dtype=pl.List(pl.String)),
            errors=pl.lit([], dtype=pl.List(pl.String)),
        )

    def _groups(
        self, compiled: Compiled, free: pl.Series, room: Mapping[str, pl.Series]
    ) -> Iterator[PolicyGroup]:
        """The free rows, by what each lacks."""
        bound = bound_names(self.part, self.bundle)
        if self.own:
            if free.len():
                yield PolicyGroup(compiled, self.chunk, free, self.lacking, bound, room)
            return
        shape = self.part.rows["shape"].gather(free)
        shapes = pl.DataFrame({"at": free, "shape": shape, "counts": self._counts(free)})
        lacking: dict[tuple[str, ...], list[pl.Series]] = {}
        for (shape, _), mine in shapes.partition_by("shape", "counts", as_dict=True).items():
            missing = self._missing(int(str(shape)), int(mine["at"][0]))
            lacking.setdefault(tuple(dict.fromkeys((*missing, *self.lacking))), []).append(mine["at"])
        for missing, found in lacking.items():
            yield PolicyGroup(compiled, self.chunk, pl.concat(found).sort(), missing, bound, room)

    def _counts(self, free: pl.Series) -> pl.Series:
        """Which counters of the session are recorded, of those that policies read: the same number, the same ones."""
        session = self.part.session
        names = [name for name in sorted(counters_read(self.bundle)) if name in session.layouts]
        present = [session.columns.select(present_facts(session.layouts[name])).to_series() for name in names]
        frame = pl.DataFrame([each.alias(str(place)) for place, each in enumerate(present)])
        bits = [pl.col(str(place)).cast(pl.UInt32) * 2**place for place in range(len(names))]
        if not bits:
            return pl.repeat(0, free.len(), dtype=pl.UInt32, eager=True)
        return frame.select(counts=pl.sum_horizontal(bits).cast(pl.UInt32))["counts"].gather(free)

    def _missing(self, shape: int, row: int) -> tuple[str, ...]:
        """What the schema declares and contexts of a shape do not answer for; the same for all rows of the part."""
        request = request_of({**record_of_row(self.part, row), "stage_inputs": "{}"})  # limits play no part
        resource = request.resource.resolve(request.args)
        return missing_names(self.contexts.example(shape), request, resource, self.bundle)

    def _folded(self, group: PolicyGroup) -> Decided:
        found = folded(group)
        missing = pl.lit(list(group.missing), dtype=pl.List(pl.String))
        undecided = pl.when(pl.col("status") == "undecided").then(missing)
        outcomes = found.outcomes.with_columns(missing=undecided).select(list(OUTCOMES))
        rows = self.part.rows["row"].gather(group.rows)
        return Decided(rows, found.numbers, outcomes, found.enforced_args)


def _sure(group: PolicyGroup) -> tuple[PolicyGroup, pl.Series, pl.Series]:
    """A group without the rows whose atoms are not evaluated in columns; those rows, and why."""
    nothing = group.rows.clear()
    why = group.unsure() if group.missing else nothing.cast(pl.String)
    if why.null_count() == why.len():
        return group, nothing, nothing.cast(pl.String)
    kept = replace(group, rows=group.rows.filter(why.is_null()))
    return kept, group.rows.filter(why.is_not_null()), why.drop_nulls()


def present_facts(layout: Layout) -> pl.Expr:
    """Whether a counter of the session is there."""
    columns = [
        pl.col(shape.column).is_not_null() for _, shape in layout.shapes if isinstance(shape, ScalarShape)
    ]
    return pl.any_horizontal(columns) if columns else pl.lit(value=False)


def bound_names(part: Part, bundle: Bundle) -> frozenset[str]:
    """Arguments that the resource or the key of a fact is made of."""
    slots = ResourceTemplate.parse(part.key.resource_template).slots
    paths = (path for fact in bundle.spec.facts for _, path in fact.paths if fact.applies(part.key.tool))
    return slots | {path[1] for path in paths if path[0] == "args" and len(path) > 1}


def _handed_over(rows: pl.Series, why: pl.Series) -> pl.DataFrame:
    frame = pl.DataFrame({"row": rows, "why": why})
    return frame.with_columns(status=pl.lit("handed_over"))
