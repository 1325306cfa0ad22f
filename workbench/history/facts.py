"""Recorded facts as typed columns, under a schema: a row for each distinct record, not for each decision.

One rule: a fact is projected here exactly as the runtime projects it when it assembles a request; a record that does
not fit marks every decision that rests on it, and those are handed over.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from runtime.schema import Attribute, Record
from workbench.columnar.json_columns import read_typed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.schema import CedarType, EntityType
    from workbench.columnar.layouts import Layout
    from workbench.history.contexts import FactRecords
    from workbench.history.ids import Ids

VALUE = "value"
"""Name under which a fact of the context is read."""


@dataclass(frozen=True, slots=True)
class FactColumns:
    """Some records of one fact, typed."""

    used: pl.Series
    """Codes of the records that are here (UInt32), ascending."""
    frame: pl.DataFrame
    """One row a record: the columns of `layouts`; those of `refs` hold ids."""
    layouts: Mapping[str, Layout]
    refs: Mapping[str, str]
    bad: pl.Series
    """Boolean: the record does not fit the schema."""
    parents: Mapping[str, pl.Series]
    """By entity type: ids (List[String]) of the direct parents the record gives; null: none."""

    def rows(self, codes: pl.Series) -> pl.Series:
        """Return the rows (UInt32) of codes; null for null, and for a record that is not here."""
        size = max(int(str(each.max() or 0)) for each in (codes, self.used)) + 1
        places = pl.int_range(self.used.len(), dtype=pl.UInt32, eager=True)
        table = pl.Series("row", [None], dtype=pl.UInt32).new_from_index(0, size)
        return table.scatter(self.used, places).gather(codes)

    def note(self, ids: Ids) -> None:
        """Tell which entities the records name."""
        for column, kind in self.refs.items():
            ids.note(kind, self.frame[column])
        for kind, found in self.parents.items():
            ids.note(kind, found)

    def coded(self, ids: Ids) -> pl.DataFrame:
        """Return the columns, entities as codes."""
        return with_codes(self.frame, self.refs, ids)


def with_codes(frame: pl.DataFrame, refs: Mapping[str, str], ids: Ids) -> pl.DataFrame:
    """Replace columns of ids by columns of codes."""
    found = []
    for column, kind in refs.items():
        values = frame[column]
        found.append(ids.codes(kind, values) if values.dtype == pl.String else ids.code_lists(kind, values))
    return frame.with_columns(found)


def context_fact(records: FactRecords, codes: pl.Series, type_: CedarType) -> FactColumns:
    """Read the records of a fact that becomes `context.<name>`.

    Args:
        records: the fact's.
        codes: those that decisions use; nulls are skipped.
        type_: what the schema declares.
    """
    used, frame = _used(records, codes, "context")
    return _typed(used, _wrapped(frame), Record({VALUE: Attribute(type_, required=False)}), {})


def _wrapped(frame: pl.DataFrame) -> pl.Series:
    text = pl.concat_str(pl.lit(f'{{"{VALUE}":'), "value", pl.lit("}"))
    return frame.select(text.alias("value"))["value"]


def entity_fact(
    records: FactRecords, codes: pl.Series, role: str, declared: EntityType, *, whole: bool
) -> FactColumns:
    """Read the records of a fact that fills attributes and parents of the principal or the resource.

    Args:
        records: the fact's.
        codes: those that decisions use.
        role: `principal` or `resource`.
        declared: type of the entity.
        whole: a record with a member that the type does not declare has no place, and is left out as a whole; else it
            is `bad`.
    """
    used, frame = _used(records, codes, role)
    attrs = declared.attrs.attrs
    placed = pl.col("names").list.set_difference(list(attrs)).list.len() == 0
    fits = frame.select(placed.fill_null(not whole))["names"]
    texts = frame.select(pl.when(fits).then("value"))["value"]
    optional = {name: replace(attribute, required=False) for name, attribute in attrs.items()}
    kept = frame.select(pl.when(fits).then("parents"))["parents"]
    found = _typed(used, texts, Record(optional), _parents(kept, declared.parents))
    return found if whole else replace(found, bad=found.bad | ~fits)


def _used(records: FactRecords, codes: pl.Series, into: str) -> tuple[pl.Series, pl.DataFrame]:
    used = codes.drop_nulls().unique().sort()
    frame = records.frame[used]
    keep = frame["into"] == into
    return used.filter(keep), frame.filter(keep)


def _typed(
    used: pl.Series, texts: pl.Series, record: Record, parents: Mapping[str, pl.Series]
) -> FactColumns:
    found = read_typed(texts.fill_null("{}"), record, form="arguments")
    bad = pl.Series("bad", [False], dtype=pl.Boolean).new_from_index(0, used.len())
    bad = bad.scatter(found.bad["row"], True) if found.bad.height else bad
    return FactColumns(used, found.columns, found.layouts, found.refs, bad, parents)


def _parents(texts: pl.Series, allowed: Sequence[str]) -> dict[str, pl.Series]:
    """The parents of each record by type, those of types that the schema allows."""
    distinct = texts.drop_nulls().unique()
    if distinct.is_empty() or not allowed:
        return {}
    pairs = [msgspec.json.decode(text.encode(), type=list[tuple[str, str]]) for text in distinct]
    kinds = {
        kind: [[ident for own, ident in each if own == kind] or None for each in pairs] for kind in allowed
    }
    known = pl.DataFrame(
        {"text": distinct, **{k: pl.Series(k, v, dtype=pl.List(pl.String)) for k, v in kinds.items()}}
    )
    found = pl.DataFrame({"text": texts}).join(known, on="text", how="left", maintain_order="left")
    return {kind: found[kind] for kind in allowed if found[kind].null_count() < found.height}
