"""Which values arguments, facts and attributes had: every path that a schema declares, over the typed columns.

One rule: a value counted here is the value policies see, after projection. What could not be read is not counted, and
who asks takes the difference to the decisions of the tool.

Left out: `context.now` and the ids of principal and resource, which are new in each call; sets count by their size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from runtime.schema import Record
from workbench.columnar.lowering import lower
from workbench.columnar.nodes import TRUE, and_
from workbench.columnar.values import EntityData, ListedData, RecordData, Scalar, TextsData
from workbench.covering.counts import EXACT, KEYS, SMALL, counted, rounded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.schema import ActionType, CedarSchema
    from workbench.columnar.nodes import Node
    from workbench.columnar.values import Data, Value
    from workbench.history.chunk import PartKey
    from workbench.history.groups import Compiled
    from workbench.history.ids import Ids

Path = tuple[str, ...]
"""A variable and attributes: `("context", "args", "amount")`."""

ORDERED = frozenset({"long", "decimal", "datetime", "duration", "size"})
"""Kinds that are whole numbers: `decimal` in ten-thousandths, `datetime` and `duration` in milliseconds, `size` of a
set in members."""

_SKIPPED = frozenset({"now", "approval"})


class Column(NamedTuple):
    """The values at a path."""

    path: Path
    kind: str
    """`long`, `bool`, `string`, `decimal`, `datetime`, `duration`, `ipaddr`, `entity T` or `size`."""
    values: pl.Series
    """Int64 for what is in `ORDERED`, else String; null: absent."""


def paths_of(action: ActionType, key: PartKey, schema: CedarSchema) -> Iterator[Path]:
    """Yield every path of a tool's requests that ends in a value."""
    roots = {"context": action.context}
    for root, kind in (("principal", key.principal_type), ("resource", str(key.resource_type))):
        roots[root] = schema.entity_types[kind].attrs
    for root, record in roots.items():
        yield from _below((root,), record)


def _below(path: Path, record: Record) -> Iterator[Path]:
    for name, attribute in record.attrs.items():
        if path == ("context",) and name in _SKIPPED:
            continue
        if isinstance(attribute.type, Record):
            yield from _below((*path, name), attribute.type)
        else:
            yield (*path, name)


def columns_of(compiled: Compiled, frame: pl.DataFrame, ids: Ids, schema: CedarSchema) -> Iterator[Column]:
    """Yield the values at every path.

    Args:
        compiled: of a part.
        frame: rows of the part's frame, with the columns of literals.
        ids: texts of the entities' codes.
        schema: declares the paths.
    """
    nodes: dict[str, Node] = {}
    found: list[tuple[Path, Data]] = []
    for path in paths_of(compiled.part.action, compiled.part.key, schema):
        told = _member(compiled, path)
        if told is not None:
            nodes |= {f"v{len(found)}": _node(told[0]), f"p{len(found)}": told[1]}
            found.append((path, told[0]))
    columns = lower(nodes, compiled.world.column).collect(frame) if nodes else frame
    for place, (path, data) in enumerate(found):
        present = pl.when(f"p{place}").then(f"v{place}")
        yield _column(path, data, columns.select(present.alias("value"))["value"], ids)


def _member(compiled: Compiled, path: Path) -> tuple[Data, Node] | None:
    """What stands at a path, and where; null: no decision here has it, or it may be of several types."""
    value: Value = compiled.variables[path[0]]  # type: ignore[index]  # a root of `paths_of`
    present = TRUE
    for depth, name in enumerate(path[1:]):
        if len(value) != 1:
            return None
        match value[0].data:
            case RecordData(members):
                member = members.get(name)
            case EntityData() as entity if depth == 0:
                member = compiled.world.attribute(entity, name)
            case _:
                return None
        if member is None:
            return None
        present, value = and_(present, member.present), member.value
    if len(value) != 1 or not isinstance(value[0].data, Scalar | EntityData | ListedData | TextsData):
        return None
    return value[0].data, present


def _node(data: Data) -> Node:
    match data:
        case EntityData(uid=uid):
            return uid
        case Scalar(node=node) | ListedData(node=node) | TextsData(node=node):
            return node
        case _:
            raise AssertionError(data)  # `_member` takes no other


def _column(path: Path, data: Data, values: pl.Series, ids: Ids) -> Column:
    match data:
        case Scalar(kind=kind):
            wanted = pl.Int64 if kind in ORDERED else pl.String
            return Column(path, kind, values.cast(wanted))
        case EntityData(type=kind):
            return Column(path, f"entity {kind}", ids.texts(kind).gather(values))
        case _:
            return Column(path, "size", values.list.len().cast(pl.Int64))


def count_values(tool: str, columns: Iterator[Column], ids: pl.Series) -> Iterator[pl.DataFrame]:
    """Count the values of each column.

    Args:
        tool: of all rows.
        columns: a row a decision.
        ids: of the decisions.

    Returns:
        Rows of the table `values`.
    """
    for column in columns:
        yield _count(column, ids).with_columns(
            tool=pl.lit(tool), path=pl.lit(".".join(column.path)), kind=pl.lit(column.kind)
        )


def _count(column: Column, ids: pl.Series) -> pl.DataFrame:
    values = column.values
    absent = pl.col("given").is_null()
    ordered = column.kind in ORDERED
    few = values.drop_nulls().n_unique() <= (EXACT if ordered else SMALL)
    form, key = pl.lit("value"), pl.col("given")
    if not few:
        form, key = (
            (pl.lit("rounded"), rounded(pl.col("given")))
            if ordered
            else (pl.lit("many"), pl.lit(None, dtype=pl.String))
        )
    frame = values.alias("given").to_frame()
    keyed = frame.select(
        form=pl.when(absent).then(pl.lit("absent")).otherwise(form),
        text=pl.lit(None, dtype=pl.String) if ordered else key,
        number=key if ordered else pl.lit(None, dtype=pl.Int64),
    )
    found = counted(keyed, keyed.columns, ids)
    if ordered:
        return found.join(_spans(keyed, values), on="number", how="left", nulls_equal=True)
    return found.with_columns(low=pl.lit(None, pl.Int64), high=pl.lit(None, pl.Int64))


def _spans(keyed: pl.DataFrame, values: pl.Series) -> pl.DataFrame:
    """The least and the greatest value behind each number."""
    frame = pl.DataFrame({"number": keyed["number"], "low": values})
    return frame.group_by("number").agg(pl.col("low").min(), high=pl.col("low").max())


__all__ = ["KEYS", "ORDERED", "Column", "columns_of", "count_values", "paths_of"]
