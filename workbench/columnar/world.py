"""Entity tables: every version of every entity a policy can reach, a row each, a table for each entity type.

One rule: a row stands for an entity *and all that can be reached from it*. Two decisions share a row only if they
would see the same attributes, tags and ancestors from there, however far a policy walks; so an index into a table
says everything, and attributes are reached by `gather`, without a join and without the row's slice.

An entity that is in no slice has a row, too: with nothing in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from workbench.columnar.decoding import Bound, Decoded, Elements, Ref
from workbench.columnar.layouts import Columns, store, view
from workbench.columnar.lowering import columns_of, lower
from workbench.columnar.nodes import FALSE, Node, apply, boolean, gather, is_constant, literal, value_of
from workbench.columnar.values import EntityData, Member

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from workbench.columnar.layouts import Layout
    from workbench.columnar.nodes import DType
    from workbench.columnar.slices import View


@dataclass(slots=True)
class _Row:
    code: int
    attrs: dict[str, Decoded] = field(default_factory=dict)
    tags: dict[str, Decoded] = field(default_factory=dict)
    above: dict[str, set[int]] = field(default_factory=dict)
    """Codes of ancestors by type."""


@dataclass(slots=True)
class Table:
    """The rows of one entity type."""

    rows: list[_Row] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)
    """Code by id."""
    columns: Columns = field(default_factory=Columns)
    attrs: dict[str, Layout] = field(default_factory=dict)
    tags: dict[str, Layout] = field(default_factory=dict)
    above: set[str] = field(default_factory=set)
    """Types of ancestors that occur."""
    versions: bool = True
    """Whether an entity's code differs from its row; where every entity has one version, it does not."""
    _computed: dict[Node, pl.Series] = field(default_factory=dict)

    def code(self, ident: str) -> int:
        """The code of an id."""
        return self.codes.setdefault(ident, len(self.codes))

    def freeze(self) -> None:
        """Make the columns."""
        self.versions = any(row.code != index for index, row in enumerate(self.rows))
        self.columns.series["uid"] = pl.Series("uid", [row.code for row in self.rows], dtype=pl.UInt32)
        for name in dict.fromkeys(name for row in self.rows for name in row.attrs):
            self.attrs[name] = store([row.attrs.get(name) for row in self.rows], name, self.columns)
        for name in dict.fromkeys(name for row in self.rows for name in row.tags):
            self.tags[name] = store([row.tags.get(name) for row in self.rows], f"tag {name}", self.columns)
        self.above = {kind for row in self.rows for kind in row.above}
        for kind in self.above:
            lists = [sorted(row.above.get(kind, ())) for row in self.rows]
            self.columns.series[f"above {kind}"] = pl.Series(lists, dtype=pl.List(pl.UInt32))

    def column(self, node: Node, other: Callable[[str, Node], pl.Series]) -> pl.Series:
        """What a node gives over the rows; computed when first asked for.

        Args:
            node: over this table's columns.
            other: the same, of another table.
        """
        if node.op == "column":
            return self.columns.series[str(node.param)]
        if node not in self._computed:
            needed = [self.columns.series[name].alias(name) for name in dict.fromkeys(columns_of(node))]
            self._computed[node] = lower({"value": node}, other).collect(pl.DataFrame(needed))["value"]
        return self._computed[node]


@dataclass(slots=True)
class _Versions:
    """The rows of one entity."""

    first: View
    index: int
    """Row as the first slice has it."""
    keys: dict[int, int] = field(default_factory=dict)
    """Rows by what is reachable (`View.reached`); empty until a second slice has the entity."""


@dataclass(slots=True)
class World:
    """All entity tables of one run."""

    names: frozenset[str]
    """Attributes that policies name; others are not kept."""
    tables: dict[str, Table] = field(default_factory=dict)
    _versions: dict[Ref, _Versions] = field(default_factory=dict)

    def table(self, kind: str) -> Table:
        """The table of an entity type."""
        return self.tables.setdefault(kind, Table())

    def code(self, ref: Ref) -> int:
        """The code of an entity, the same in every version."""
        return self.table(ref.type).code(ref.id)

    def bind(self, value: Decoded, seen: View) -> Decoded:
        """A value with its entities as rows."""
        match value:
            case Ref():
                return Bound(value.type, self.row(value, seen), self.code(value))
            case Elements(members):
                return Elements(tuple(self.bind(member, seen) for member in members))
            case dict():
                return {name: self.bind(member, seen) for name, member in value.items()}
            case _:
                return value

    def row(self, ref: Ref, seen: View) -> int:
        """The row of an entity as one slice has it."""
        queue: list[tuple[Ref, _Row]] = []
        index = self._row(ref, seen, queue)
        while queue:
            self._fill(*queue.pop(), seen, queue)
        return index

    def _row(self, ref: Ref, seen: View, queue: list[tuple[Ref, _Row]]) -> int:
        index = seen.nodes.get(ref)
        if index is not None:
            return index
        rows = self.table(ref.type).rows
        index = self._alike(ref, seen)
        if index is None:
            index = len(rows)
            rows.append(_Row(self.code(ref)))
            queue.append((ref, rows[index]))
        seen.nodes[ref] = index
        versions = self._versions.setdefault(ref, _Versions(seen, index))
        if versions.keys:
            versions.keys.setdefault(seen.reached(ref), index)
        return index

    def _alike(self, ref: Ref, seen: View) -> int | None:
        """The row of the entity in another slice that holds the same of everything reachable from it."""
        versions = self._versions.get(ref)
        if versions is None:
            return None  # the first slice that has it: nothing to compare with, and most runs have one slice
        if not versions.keys:
            versions.keys[versions.first.reached(ref)] = versions.index
        return versions.keys.get(seen.reached(ref))

    def _fill(self, ref: Ref, row: _Row, seen: View, queue: list[tuple[Ref, _Row]]) -> None:
        read = seen.entities.get(ref)
        if read is None:
            return
        bound = _Binder(self, seen, queue)
        row.attrs = {name: bound(value) for name, value in read.attrs.items() if name in self.names}
        row.tags = {name: bound(value) for name, value in read.tags.items()}
        for above in seen.ancestors(ref):
            row.above.setdefault(above.type, set()).add(self.code(above))

    def freeze(self) -> None:
        """Make all columns. Nothing is added afterwards."""
        for table in self.tables.values():
            table.freeze()

    def column(self, kind: str, node: Node) -> pl.Series:
        """What a node gives over a type's table."""
        return self.tables[kind].column(node, self.column)

    # What the compiler asks, after `freeze`.

    def entity(self, kind: str, index: Node) -> EntityData:
        """An entity by its row."""
        table = self.table(kind)
        uid = gather(kind, "uid", index, "code", nullable=False) if table.versions else index
        return EntityData(kind, index, uid)

    def attribute(self, entity: EntityData, name: str) -> Member | None:
        """An attribute of an entity; null: no entity of the type has it."""
        return self._member(entity, self.table(entity.type).attrs.get(name))

    def tags(self, entity: EntityData) -> Iterable[str]:
        """The tags that entities of the type have."""
        return self.table(entity.type).tags

    def tag(self, entity: EntityData, name: str) -> Member | None:
        """A tag of an entity."""
        return self._member(entity, self.table(entity.type).tags.get(name))

    def _member(self, entity: EntityData, layout: Layout | None) -> Member | None:
        def reader(name: str, dtype: DType, nullable: bool) -> Node:  # noqa: FBT001 - the signature of `Reader`
            return gather(entity.type, name, entity.index, dtype, nullable=nullable)

        return None if layout is None else view(layout, reader, self.entity)

    def above(self, entity: EntityData) -> Iterable[str]:
        """The types that ancestors of the entity's type have."""
        return sorted(self.table(entity.type).above)

    def codes_above(self, entity: EntityData, kind: str) -> Node:
        """The codes of an entity's ancestors of one type, as a list."""
        return gather(entity.type, f"above {kind}", entity.index, "list", nullable=False)

    def is_below(self, entity: EntityData, kind: str, code: int) -> Node:
        """Whether a given entity is among the ancestors."""
        if kind not in self.table(entity.type).above:
            return FALSE
        if is_constant(entity.index):
            row = self.table(entity.type).rows[value_of(entity.index)]
            return boolean(code in row.above.get(kind, ()))
        return apply("is_member", self.codes_above(entity, kind), literal(code, "code"))


@dataclass(frozen=True, slots=True)
class _Binder:
    """`World.bind` without recursion through entities, which may refer to each other in circles."""

    world: World
    seen: View
    queue: list[tuple[Ref, _Row]]

    def __call__(self, value: Decoded) -> Decoded:
        match value:
            case Ref():
                index = self.world._row(value, self.seen, self.queue)  # noqa: SLF001 - a part of `World`
                return Bound(value.type, index, self.world.code(value))
            case Elements(members):
                return Elements(tuple(map(self, members)))
            case dict():
                return {name: self(member) for name, member in value.items()}
            case _:
                return value
