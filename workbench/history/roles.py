"""Tables of principals and resources: a row for each entity with the facts that some decision had about it.

One rule: what the runtime would refuse to assemble (a required attribute that no fact gives, two facts that both give
one, a parent that cannot stand bare) is marked, and the decisions that rest on it are handed over.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

import polars as pl

from workbench.columnar.layouts import Columns, Layout
from workbench.columnar.world import Table
from workbench.history.contexts import fact_column

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runtime.schema import CedarSchema, EntityType
    from workbench.history.facts import FactColumns
    from workbench.history.ids import Ids

_ID = "id"
_BAD = "bad"
NOBODY = 2**32 - 1
"""Stands for *no fact* where rows are told apart."""
_WIDEST = 2**63
"""Combinations that fit into one number."""


@dataclass(frozen=True, slots=True)
class Use:
    """The rows of one part of a chunk in which an entity type plays a role."""

    role: str
    """`principal` or `resource`."""
    ids: pl.Series
    """Ids of the entities, a row a decision."""
    facts: Mapping[str, pl.Series]
    """Codes of the recorded facts by name."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the entities of a `Use` stand."""

    index: pl.Series
    """Row of the table (UInt32)."""
    bad: pl.Series
    """Boolean: it cannot be assembled."""
    uid: pl.Series
    """Codes of their ids (UInt32)."""


def role_table(
    declared: EntityType,
    uses: Sequence[Use],
    facts: Mapping[tuple[str, str], FactColumns],
    ids: Ids,
    schema: CedarSchema,
) -> tuple[Table, list[Placed], pl.DataFrame]:
    """Build the table of an entity type.

    Args:
        declared: the type.
        uses: who stands in it.
        facts: typed, by role and name, for this type.
        ids: numbered.
        schema: says which parents may stand bare.

    Returns:
        The table; for each use where its rows are; and what each row of the table was made of: `role`, `id` (String)
        and for each fact `fact <name>` (UInt32: code of its record; null: none).
    """
    blocks: list[pl.DataFrame] = []
    origins: list[pl.DataFrame] = []
    placed: dict[int, Placed] = {}
    offset = 0
    for role in dict.fromkeys(use.role for use in uses):
        mine = [number for number, use in enumerate(uses) if use.role == role]
        own = {name: found for (of, name), found in facts.items() if of == role}
        frames = [_keyed(uses[number], own, declared.name, ids) for number in mine]
        keys, indices = distinct(frames)
        block = _block(keys, own, declared, ids, schema)
        blocks.append(block)
        origins.append(_origin(role, keys, own, ids.texts(declared.name)))
        for number, index, frame in zip(mine, indices, frames, strict=True):
            placed[number] = Placed(index + offset, block[_BAD].gather(index), frame[_ID])
        offset += block.height
    table = _table(pl.concat(blocks, how="diagonal"), declared, facts)
    origin = pl.concat(origins, how="diagonal")
    return table, [placed[number] for number in range(len(uses))], origin


def _origin(
    role: str, keys: pl.DataFrame, facts: Mapping[str, FactColumns], texts: pl.Series
) -> pl.DataFrame:
    codes = {
        fact_column(name): found.used.gather(keys[fact_column(name)].replace(NOBODY, None))
        for name, found in facts.items()
    }
    return pl.DataFrame({_ID: texts.gather(keys[_ID]), **codes}).select(pl.lit(role).alias("role"), pl.all())


def distinct(frames: Sequence[pl.DataFrame]) -> tuple[pl.DataFrame, list[pl.Series]]:
    """Every row of frames of numbers once, and for each frame its rows among these (UInt32).

    Args:
        frames: the same UInt32 columns. A row with a null is nowhere (null).
    """
    whole = pl.concat(frames)
    key = _packed(whole)
    if key is None:
        keys = whole.unique(maintain_order=False)
        known = keys.with_row_index("index")
        index = whole.join(known, on=whole.columns, how="left", maintain_order="left")["index"]
    else:
        first = key.arg_unique()
        known = pl.DataFrame({"key": key.gather(first)}).with_row_index("index")
        keys, index = (
            whole[first],
            key.to_frame().join(known, on="key", how="left", maintain_order="left")["index"],
        )
    bounds = pl.Series([0, *(frame.height for frame in frames)]).cum_sum().to_list()
    parts = [index.slice(start, end - start) for start, end in pairwise(bounds)]
    return keys, parts


def _packed(numbers: pl.DataFrame) -> pl.Series | None:
    """The columns of each row side by side in one number; None: they do not fit into one, or hold nulls."""
    if any(column.null_count() for column in numbers):
        return None
    sizes = [int(str(column.replace(NOBODY, None).max() or 0)) + 2 for column in numbers]
    if prod(sizes) > _WIDEST:
        return None
    packed = pl.lit(0, pl.UInt64)
    for column, size in zip(numbers.columns, sizes, strict=True):  # nobody is the highest number of a column
        packed = packed * size + pl.min_horizontal(pl.col(column), pl.lit(size - 1, pl.UInt32)).cast(
            pl.UInt64
        )
    return numbers.select(key=packed)["key"]


def _keyed(use: Use, facts: Mapping[str, FactColumns], kind: str, ids: Ids) -> pl.DataFrame:
    columns = {_ID: ids.codes(kind, use.ids)}
    for name, found in facts.items():
        codes = use.facts.get(name)
        rows = pl.Series([None], dtype=pl.UInt32).new_from_index(0, use.ids.len())
        columns[fact_column(name)] = (rows if codes is None else found.rows(codes)).fill_null(NOBODY)
    return pl.DataFrame(columns)


def _block(
    keys: pl.DataFrame,
    facts: Mapping[str, FactColumns],
    declared: EntityType,
    ids: Ids,
    schema: CedarSchema,
) -> pl.DataFrame:
    """Attributes and ancestors of distinct entities; `uid`, `bad`, `above <type>` and the columns of the layouts."""
    at = {n: keys[fact_column(n)].replace(NOBODY, None) for n in facts}
    gathered = [_rows_of(found.coded(ids), at[name]) for name, found in facts.items()]
    layouts = _layouts(facts.values())
    attributes = _merged(gathered, layouts)
    bad = [found.bad.gather(at[name]).fill_null(value=False) for name, found in facts.items()]
    bad += [_doubled(gathered, layouts, keys.height), _lacking(attributes, layouts, declared, keys.height)]
    parents, homeless = _above(facts, at, ids, schema, keys.height)
    columns = [
        keys[_ID].alias("uid"),
        *attributes.get_columns(),
        *parents,
        pl.DataFrame([each.alias(str(i)) for i, each in enumerate((*bad, homeless))])
        .select(pl.any_horizontal(pl.all()))
        .to_series()
        .alias(_BAD),
    ]
    return pl.DataFrame(columns)


def _rows_of(frame: pl.DataFrame, at: pl.Series) -> pl.DataFrame:
    return frame.select(pl.all().gather(pl.lit(at))) if frame.width else pl.DataFrame()


def _layouts(facts: Iterable[FactColumns]) -> Mapping[str, Layout]:
    """The layouts of a type; all its facts have the same, because they are read as one type."""
    return next((found.layouts for found in facts), {})


def _masks(layouts: Mapping[str, Layout]) -> set[str]:
    return {mask for layout in layouts.values() for mask, _ in layout.shapes if mask is not None}


def _merged(frames: Sequence[pl.DataFrame], layouts: Mapping[str, Layout]) -> pl.DataFrame:
    """The columns of several facts as one: each row has at most one fact's value."""
    if len(frames) < 2:  # noqa: PLR2004 - nothing to merge
        return frames[0] if frames else pl.DataFrame()
    masks = _masks(layouts)
    columns = []
    for name in frames[0].columns:
        parts = pl.DataFrame([frame[name].alias(str(i)) for i, frame in enumerate(frames)])
        joined = pl.any_horizontal(pl.all()) if name in masks else pl.coalesce(pl.all())
        columns.append(parts.select(joined.alias(name))[name])
    return pl.DataFrame(columns)


def here(layout: Layout) -> pl.Expr:
    """Where a path has a value; never null."""
    mask, shape = layout.shapes[0]
    if mask is not None:
        return pl.col(mask).fill_null(value=False)
    assert shape is not None  # noqa: S101 - a layout of a type has one shape
    return pl.col(_column_of(shape)).is_not_null()


def _column_of(shape: object) -> str:
    column = getattr(shape, "column", None)
    assert isinstance(column, str), shape  # noqa: S101 - records and sets have masks where they may be missing
    return column


def _doubled(frames: Sequence[pl.DataFrame], layouts: Mapping[str, Layout], height: int) -> pl.Series:
    """Where two facts give one attribute."""
    never = pl.Series([False]).new_from_index(0, height)
    if len(frames) < 2:  # noqa: PLR2004 - one fact gives each once
        return never
    for layout in layouts.values():
        given = pl.DataFrame(
            [frame.select(here(layout).alias(str(i))).to_series() for i, frame in enumerate(frames)]
        )
        never = never | (given.select(pl.sum_horizontal(pl.all())).to_series() > 1)
    return never


def _lacking(
    attributes: pl.DataFrame, layouts: Mapping[str, Layout], declared: EntityType, height: int
) -> pl.Series:
    """Where a required attribute is not given."""
    required = [name for name, attribute in declared.attrs.attrs.items() if attribute.required]
    if not required or not layouts:
        return pl.Series([bool(required)]).new_from_index(0, height)
    given = pl.all_horizontal(*(here(layouts[name]) for name in required))
    return attributes.select((~given).alias(_BAD))[_BAD]


def _above(
    facts: Mapping[str, FactColumns], at: Mapping[str, pl.Series], ids: Ids, schema: CedarSchema, height: int
) -> tuple[list[pl.Series], pl.Series]:
    """`above <type>` columns, and where a parent cannot stand bare."""
    lists: dict[str, list[pl.Series]] = {}
    for name, found in facts.items():
        for kind, parents in found.parents.items():
            lists.setdefault(kind, []).append(ids.code_lists(kind, parents).gather(at[name]))
    homeless = pl.Series([False]).new_from_index(0, height)
    columns = []
    for kind, parts in lists.items():
        whole = pl.DataFrame([part.alias(str(i)) for i, part in enumerate(parts)])
        empty = pl.lit(pl.Series([[]], dtype=pl.List(pl.UInt32)))
        joined = pl.concat_list(pl.all().fill_null(empty)).list.unique().list.sort()
        # The parents of one fact are sorted and distinct; where there are none, the list is null until the end.
        column = (parts[0] if len(parts) == 1 else whole.select(joined).to_series()).alias(f"above {kind}")
        columns.append(column)
        if not may_stand_bare(kind, schema):
            homeless = homeless | (column.list.len() > 0).fill_null(value=False)
    return columns, homeless


def may_stand_bare(kind: str, schema: CedarSchema) -> bool:
    """Whether an entity of a type may be in a request without attributes."""
    declared = schema.entity_types.get(kind)
    return (
        declared is not None
        and declared.enum is None
        and not any(a.required for a in declared.attrs.attrs.values())
    )


def _table(rows: pl.DataFrame, declared: EntityType, facts: Mapping[tuple[str, str], FactColumns]) -> Table:
    layouts = _layouts(facts.values())
    attrs = declared.attrs.attrs
    above = {name.removeprefix("above ") for name in rows.columns if name.startswith("above ")}
    empty = pl.lit(pl.Series([[]], dtype=pl.List(pl.UInt32)))
    filled = rows.with_columns(pl.col(f"above {kind}").fill_null(empty) for kind in above)
    # A required attribute is there: rows that lack it are not decided here.
    known = {name: replace(each, missing=not attrs[name].required) for name, each in layouts.items()}
    return Table(
        columns=Columns({name: filled[name] for name in filled.columns if name != _BAD}),
        attrs=known,
        above=above,
        versions=True,
    )
