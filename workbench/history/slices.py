"""The slices that recorded decisions were made with, built again from their facts.

One rule: an entity is made by the runtime's own `entity_of`, once for each version of it; what a row's slice hashes
to then follows in columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import polars as pl

from runtime.assembly import entity_of
from runtime.canonical import parse
from runtime.entities import Entity, EntityUid
from runtime.facts import Fact
from runtime.projection import ProjectionError
from workbench.history.chunk import ROLES
from workbench.history.hashes import sha256

if TYPE_CHECKING:
    from runtime.schema import CedarSchema
    from workbench.history.chunk import Chunk, Part
    from workbench.history.contexts import Contexts

_HASHES = pl.List(pl.String)
_EMPTY = pl.lit([], dtype=_HASHES)


class Made(NamedTuple):
    """Addresses of an entity with its facts, and of its parents, which are bare."""

    own: str
    parents: tuple[str, ...]


@dataclass(slots=True)
class Addresses:
    """Content addresses of entities, kept over the chunks of a replay."""

    contexts: Contexts
    schema: CedarSchema
    _known: dict[tuple[object, ...], Made | None] = field(default_factory=dict)
    _bare: dict[EntityUid, str] = field(default_factory=dict)
    _above: set[str] = field(default_factory=set)
    """Types of parents so far."""

    def slices(self, part: Part, chunk: Chunk) -> pl.Series:
        """Return the address (String) of each row's slice; null where it cannot be built here."""
        lists = []
        for role, kind in _roles(part):
            rows = part.frame[role]
            used = rows.unique()
            made = [self.of(kind, key) for key in chunk.origins[kind][used].iter_rows(named=True)]
            own = pl.Series([None if each is None else [each.own] for each in made], dtype=_HASHES)
            parents = pl.Series([[] if each is None else each.parents for each in made], dtype=_HASHES)
            table = pl.DataFrame({"row": used, role: own, f"above {role}": parents})
            lists += _looked_up(rows, table).get_columns()
        return _addresses(self._merged(part, pl.DataFrame([*lists, *self._behalf(part)])))

    def _merged(self, part: Part, lists: pl.DataFrame) -> pl.DataFrame:
        """Leave out parents who have a part in the request themselves: they are in the slice with their facts."""
        above = [pl.col(f"above {role}") for role, _ in _roles(part)]
        parents = lists.select(above=pl.concat_list(above))["above"]
        if not (parents.list.len() > 0).any():
            return lists.drop(f"above {role}" for role, _ in _roles(part))
        themselves = [
            self._bare_ones(kind, part.rows[f"{role}_id"]).alias(role)
            for role, kind in (*_roles(part), ("on_behalf_of", part.key.on_behalf_of_type))
            if kind in self._above and (role in lists.columns)
        ]
        if themselves:
            frame = pl.DataFrame([parents, *themselves])
            some = pl.concat_list(pl.col(each.name).fill_null(_EMPTY) for each in themselves)
            parents = frame.select(above=pl.col("above").list.set_difference(some))["above"]
        return lists.select(pl.exclude("^above .*$"), parents)

    def _behalf(self, part: Part) -> list[pl.Series]:
        """Whom it is on behalf of, who is bare unless they are a role themselves."""
        kind = part.key.on_behalf_of_type
        if kind is None or "on_behalf_of" not in part.action.context.attrs:
            return []
        ids = part.rows["on_behalf_of_id"]
        frame = part.rows.select(made=self._bare_ones(kind, ids))
        for role, own in _roles(part):
            if own == kind:
                is_role = part.rows[f"{role}_id"].eq_missing(ids)
                frame = frame.select(made=pl.when(~is_role).then("made").otherwise(_EMPTY))
        return [frame["made"].alias("on_behalf_of")]

    def _bare_ones(self, kind: str | None, ids: pl.Series) -> pl.Series:
        """Addresses of entities without facts, each as a list of one; null for null."""
        used = ids.drop_nulls().unique()
        found = [[self.bare(EntityUid(str(kind), ident))] for ident in used]
        table = pl.DataFrame({"row": used, "made": pl.Series(found, dtype=_HASHES)})
        return _looked_up(ids, table)["made"]

    def bare(self, uid: EntityUid) -> str:
        """Return the address of an entity without facts."""
        if uid not in self._bare:
            self._bare[uid] = Entity(uid).hash
        return self._bare[uid]

    def of(self, kind: str, origin: dict[str, object]) -> Made | None:
        """Return the addresses of an entity and its parents; null: it cannot be assembled."""
        key = (kind, *origin.items())
        if key not in self._known:
            self._known[key] = self._made(kind, origin)
        return self._known[key]

    def _made(self, kind: str, origin: dict[str, object]) -> Made | None:
        role = str(origin["role"])
        facts = [
            self._fact(name.removeprefix("fact "), code, role)
            for name, code in origin.items()
            if isinstance(code, int)
        ]
        try:
            made = entity_of(EntityUid(kind, str(origin["id"])), role, facts, self.schema)
        except ProjectionError:
            return None
        self._above.update(parent.type for parent in made.parents)
        return Made(made.hash, tuple(self.bare(parent) for parent in made.parents))

    def _fact(self, name: str, code: int, role: str) -> Fact:
        record = self.contexts.facts[name].frame.row(code, named=True)
        value, parents = record["value"], record["parents"]
        return Fact(
            name=name,
            status=record["status"],
            value=None if value is None else parse(value),
            into=role,  # type: ignore[arg-type]  # a role
            parents=[] if parents is None else msgspec.json.decode(parents),
            source="",
            kind="callable",
            key={},
        )


def _roles(part: Part) -> list[tuple[str, str]]:
    return list(zip(ROLES, (part.key.principal_type, str(part.key.resource_type)), strict=True))


def _looked_up(keys: pl.Series, table: pl.DataFrame) -> pl.DataFrame:
    return pl.DataFrame({"row": keys}).join(table, on="row", how="left", maintain_order="left").drop("row")


def _addresses(lists: pl.DataFrame) -> pl.Series:
    """Address of the sorted addresses of each row, as `runtime.entities.Slice` takes it."""
    distinct = lists.unique().with_row_index("number")
    every = pl.concat_list(lists.columns).list.unique().list.sort()
    texts = distinct.select(pl.concat_str(pl.lit('["'), every.list.join('","'), pl.lit('"]')))
    found = distinct.with_columns(address=sha256(texts.to_series()))
    joined = lists.join(found, on=lists.columns, how="left", nulls_equal=True, maintain_order="left")
    return joined["address"]
