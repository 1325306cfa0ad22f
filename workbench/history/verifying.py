"""Self-replay in columns: whether a recorded decision comes out as it was recorded.

One rule: compared is what `workbench.redeciding` compares of a row: the verdict with its stage and reason, what plain
Cedar said and who determined it, what was projected, and what would have been run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from runtime.schema import EntityRef, Extension, Primitive, Record, SetOf
from workbench.columnar.json_columns import read_typed
from workbench.history.hashes import action_hashes

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.schema import CedarType
    from workbench.history.chunk import Chunk, Part
    from workbench.history.slices import Addresses

_SCALARS = ("verdict", "decided_by", "reason_code", "cedar_decision", "enforced_args")
_LISTS = ("determining", "enforced_determining", "cedar_reasons")


def reproduced(
    rows: pl.DataFrame, found: pl.DataFrame, chunk: Chunk, addresses: Addresses | None
) -> pl.Series:
    """Return whether each row came out as recorded (Boolean, never null).

    Args:
        rows: columns of `decisions`, and `row`.
        found: what was decided of them, in the same order.
        chunk: they were typed in.
        addresses: builds entities again, and then the addresses of slices and actions are compared, too; null: no.
    """
    same = [found[name].eq_missing(rows[name]) for name in _SCALARS]
    same += [_same_lists(found[name], rows[name]) for name in _LISTS]
    same.append(_same_errors(rows["errors"], found["errors"]))
    same.append(_by_part(rows, chunk, _alike))
    if addresses is not None:
        same.append(_by_part(rows, chunk, lambda part: _same_slice(part, chunk, addresses)))
        same.append(rows["enforced_slice_hash"].eq_missing(_second_slice(rows, found)))
        policies = rows["policy_hash"].mode().sort()[0] if rows.height else ""
        same.append(rows["policy_hash"] == policies)  # Cedar has the last word on rows that say another
        same.append(action_hashes(rows, found["enforced_args"], policies).eq_missing(rows["action_hash"]))
    frame = pl.DataFrame([each.alias(str(number)) for number, each in enumerate(same)])
    return frame.select(same=pl.all_horizontal(pl.all().fill_null(value=False)))["same"]


def _same_errors(recorded: pl.Series, found: pl.Series) -> pl.Series:
    """Whether the same policies erred; messages are Cedar's."""
    same = pl.Series([True]).new_from_index(0, recorded.len())
    some = ((recorded.list.len().fill_null(0) > 0) | (found.list.len().fill_null(0) > 0)).arg_true()
    if some.is_empty():
        return same
    names = recorded.gather(some).list.eval(pl.element().struct.field("policy")).list.unique().list.sort()
    return same.scatter(some, _lists(found.gather(some)).eq_missing(_lists(names)))


def _same_lists(one: pl.Series, other: pl.Series) -> pl.Series:
    """Whether lists hold the same texts in the same order, absent and empty alike."""
    sizes = one.list.len().fill_null(0).equals(other.list.len().fill_null(0))
    if sizes and _members(one).equals(_members(other)):  # almost always: nothing is written for each row then
        return pl.repeat(True, one.len(), dtype=pl.Boolean, eager=True)
    return _lists(one).eq_missing(_lists(other))


def _members(values: pl.Series) -> pl.Series:
    return values.explode(keep_nulls=False, empty_as_null=False)


def _lists(values: pl.Series) -> pl.Series:
    """A list as one text, absent and empty alike; ids hold no line feeds that could make two lists one."""
    return values.fill_null([]).list.join("\n")


def _by_part(rows: pl.DataFrame, chunk: Chunk, told: Callable[[Part], pl.Series]) -> pl.Series:
    """What is told of each part, in the order of the rows; false for a row that is in none."""
    numbers = [rows["row"], *(part.rows["row"] for part in chunk.parts)]
    told_of = np.zeros(
        max((int(str(each.max())) for each in numbers if each.len()), default=0) + 1, dtype=bool
    )
    for part in chunk.parts:
        told_of[part.rows["row"].to_numpy()] = told(part).fill_null(value=False).to_numpy()
    return pl.Series("told", told_of[rows["row"].to_numpy()])


def _same_slice(part: Part, chunk: Chunk, addresses: Addresses) -> pl.Series:
    """Whether the entities are the recorded ones."""
    return (part.rows["slice_hash"] == addresses.slices(part, chunk)).fill_null(value=False)


def _second_slice(rows: pl.DataFrame, found: pl.DataFrame) -> pl.Series:
    """Address of the slice of each patched request: the first one's, as no patch here moves a resource; else null."""
    frame = rows.select("slice_hash", "args").hstack(found.select("reason_code", "enforced_args"))
    moved = pl.col("enforced_args") != pl.col("args")  # approval of a patched request
    again = moved.fill_null(value=False) | (pl.col("reason_code") == "patch_insufficient")
    return frame.select(slice=pl.when(again).then("slice_hash"))["slice"]


def _alike(part: Part) -> pl.Series:
    projection, args = part.rows["projection"], part.rows["args"]
    equal = projection.eq_missing(args)
    if is_plain(part.record) and equal.all():
        return equal  # nothing is changed by projecting such a record
    recorded = read_typed(projection, part.record, form="cedar")
    pairs = [
        recorded.columns[name].eq_missing(part.args.columns[name])
        for name in part.args.columns.columns
        if part.args.columns[name].dtype != pl.List
    ]
    pairs += [
        recorded.columns[name]
        .cast(pl.List(pl.String))
        .list.join("\n", ignore_nulls=False)
        .eq_missing(part.args.columns[name].cast(pl.List(pl.String)).list.join("\n", ignore_nulls=False))
        for name in part.args.columns.columns
        if part.args.columns[name].dtype == pl.List
    ]
    bad = pl.Series([False]).new_from_index(0, part.rows.height)
    bad = bad.scatter(recorded.bad["row"], True) if recorded.bad.height else bad
    frame = pl.DataFrame([each.alias(str(number)) for number, each in enumerate([~bad, *pairs])])
    return frame.select(alike=pl.all_horizontal(pl.all()))["alike"]


def is_plain(type_: CedarType) -> bool:
    """Whether a value of a type projects to the same JSON: no extension values, entities, scaled members or sets."""
    match type_:
        case Primitive():
            return True
        case Record(attrs):
            return all(each.scaled is None and is_plain(each.type) for each in attrs.values())
        case Extension() | EntityRef() | SetOf():
            return False
