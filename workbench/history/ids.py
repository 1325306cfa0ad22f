"""Entity ids as codes: every entity that a chunk of decisions names has one number within its type.

One rule: equal ids have equal codes, whatever column they come from; so entities compare as numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from workbench.columnar.decoding import Ref


@dataclass(slots=True)
class Ids:
    """The ids of each entity type: first all are noted, then they are numbered, then they are looked up."""

    _noted: dict[str, list[pl.Series]] = field(default_factory=dict)
    _numbered: dict[str, pl.DataFrame] = field(default_factory=dict)

    def note(self, kind: str, ids: pl.Series) -> None:
        """Take ids (String, or lists of them; nulls are skipped)."""
        if ids.dtype != pl.String:
            ids = ids.explode(keep_nulls=False, empty_as_null=False) if ids.len() else ids.cast(pl.String)
        self._noted.setdefault(kind, []).append(ids.cast(pl.String).drop_nulls().unique().rename("id"))

    def number(self) -> None:
        """Give each id its code. Nothing is noted afterwards."""
        for kind, parts in self._noted.items():
            self._numbered[kind] = pl.DataFrame({"id": pl.concat(parts).unique()}).with_row_index("code")

    def texts(self, kind: str) -> pl.Series:
        """The ids of a type, by code."""
        found = self._numbered.get(kind)
        return pl.Series("id", [], dtype=pl.String) if found is None else found["id"]

    def codes(self, kind: str, ids: pl.Series) -> pl.Series:
        """The codes (UInt32) of ids; null for null, and for an id that was not noted."""
        known = self._numbered.get(kind)
        if known is None:
            return pl.Series(ids.name, [None] * ids.len(), dtype=pl.UInt32)
        frame = pl.DataFrame({"id": ids})
        return frame.join(known, on="id", how="left", maintain_order="left")["code"].alias(ids.name)

    def code_lists(self, kind: str, lists: pl.Series) -> pl.Series:
        """The codes of lists of ids, each list sorted and without doubles; null for null."""
        frame = pl.DataFrame({"ids": lists}).with_row_index("row")
        members = frame.filter(pl.col("ids").list.len() > 0).explode("ids")
        coded = members.with_columns(code=self.codes(kind, members["ids"]))
        grouped = coded.group_by("row").agg(pl.col("code").unique().sort())
        empty = pl.lit(pl.Series([[]], dtype=pl.List(pl.UInt32)))
        found = frame.join(grouped, on="row", how="left", maintain_order="left")
        filled = pl.when(pl.col("ids").is_not_null()).then(pl.coalesce("code", empty))
        return found.select(filled.alias(lists.name))[lists.name]

    def find(self, ref: Ref) -> int | None:
        """The code of one entity; null: it was not noted."""
        known = self._numbered.get(ref.type)
        found = [] if known is None else known.filter(pl.col("id") == ref.id)["code"].to_list()
        return found[0] if found else None
