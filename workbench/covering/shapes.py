"""The shapes of requests: which facts were found, which optional arguments were given, whose call it was on what.

One rule: a shape is what a schema and a context spec leave open, so a shape nobody had is a case nobody tried. Shapes
are counted jointly; each of their parts can be summed from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from runtime.schema import Record
from workbench.columnar.layouts import RecordShape
from workbench.covering.counts import KEYS, counted
from workbench.history.contexts import fact_column

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.spec import ContextSpec
    from workbench.columnar.layouts import Layout
    from workbench.history.chunk import Part
    from workbench.history.contexts import Contexts

_TYPES = {"principal": "principal_type", "resource": "resource_type", "on_behalf_of": "on_behalf_of_type"}
NOBODY = "nobody"
NOTHING = "nothing"
NOT_COMPILED = "not compiled"
"""A stage before context refused the call."""
NO_FACTS = "no facts asked"
NO_OPTIONS = "no optional arguments"


def contexts_of_rows(rows: pl.DataFrame, contexts: Contexts, spec: ContextSpec) -> pl.DataFrame:
    """Count which types and facts decisions had.

    Args:
        rows: columns of `decisions`, joined with `Contexts.frame`.
        contexts: of the lake, or compiled again.
        spec: says which facts a tool asks for.

    Returns:
        Rows of the table `contexts`; `facts` is such as `customer found, order none`.
    """
    names = [fact.name for fact in spec.facts if fact_column(fact.name) in rows.columns]
    status = {name: contexts.facts[name].frame["status"].gather(rows[fact_column(name)]) for name in names}
    types = [pl.col(column).alias(name) for name, column in _TYPES.items()]
    keys = rows.select("tool", *types, _compiled=pl.col("shape").is_not_null()).with_columns(
        found.alias(fact_column(name)) for name, found in status.items()
    )
    told = counted(keys, keys.columns, rows["decision_id"])
    said = [_said(names, row) for row in told.iter_rows(named=True)]
    return told.with_columns(
        pl.col("principal").fill_null(NOBODY),
        pl.col("resource").fill_null(NOTHING),
        pl.col("on_behalf_of").fill_null(NOBODY),
        facts=pl.Series(said, dtype=pl.String),
    ).select(*KEYS["contexts"], "n", "examples")


def _said(names: Sequence[str], row: dict[str, object]) -> str:
    if not row["_compiled"]:
        return NOT_COMPILED
    asked = [(name, row[fact_column(name)]) for name in names]
    return ", ".join(f"{name} {told}" for name, told in asked if told not in (None, "not_asked")) or NO_FACTS


def arguments_of(part: Part, rows: pl.Series) -> pl.DataFrame:
    """Count which optional arguments calls gave.

    Args:
        part: whose arguments were read.
        rows: of the part, those whose arguments fit.

    Returns:
        Rows of the table `arguments`; `given` is such as `+note -reason`.
    """
    optional = list(_optional(part.record, part.args.layouts))
    there = [_present(layout).alias(f"at {place}") for place, (_, layout) in enumerate(optional)]
    given = part.args.columns.select(there)[rows] if there else pl.DataFrame({"at": rows.is_null()})
    told = counted(given, given.columns, part.rows["decision_id"].gather(rows))
    said = [
        " ".join(f"{'+' if row[f'at {place}'] else '-'}{name}" for place, (name, _) in enumerate(optional))
        for row in told.iter_rows(named=True)
    ]
    given_ = pl.Series([each or NO_OPTIONS for each in said], dtype=pl.String)
    return told.select("n", "examples", tool=pl.lit(part.key.tool), given=given_)


def _optional(record: Record, layouts: Mapping[str, Layout], path: str = "") -> Iterator[tuple[str, Layout]]:
    """Optional members of the arguments, and of their records."""
    for name, attribute in record.attrs.items():
        layout = layouts[name]
        if not attribute.required:
            yield f"{path}{name}", layout
        if isinstance(attribute.type, Record):
            shape = layout.shapes[0][1]
            if isinstance(shape, RecordShape):
                yield from _optional(attribute.type, shape.members, f"{path}{name}.")


def _present(layout: Layout) -> pl.Expr:
    """Whether there is a value: its own column says so, or the mask of a record does."""
    found = []
    for mask, shape in layout.shapes:
        column = mask or getattr(shape, "column", None)
        if column:
            found.append(pl.col(column) if mask else pl.col(column).is_not_null())
    return pl.any_horizontal(found).fill_null(value=False) if found else pl.lit(value=False)
