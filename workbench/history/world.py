"""What the compiler asks about entities, answered from a chunk of recorded decisions.

One rule: a policy is decided here only while it walks no further than the record lets columns go. A recorded slice
holds the principal and the resource with what facts say of them; everybody else in it is bare. So a reference (an
owner, a parent, a literal) leads to an entity without attributes and ancestors, and costs no table, unless it leads
to the principal or the resource itself. Where a policy goes through a reference, `linked` says in which rows that is
so; those rows are handed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runtime.entities import Slice
from workbench.columnar.nodes import FALSE, Node, and_, apply, equal, literal, or_
from workbench.columnar.slices import action_ref, view_of
from workbench.columnar.values import EntityData
from workbench.columnar.world import World
from workbench.history.ids import Ids

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runtime.schema import ActionType, CedarSchema
    from workbench.columnar.decoding import Ref
    from workbench.columnar.values import Member
    from workbench.columnar.world import Table


@dataclass(slots=True)
class HistoryWorld(World):
    """Entity tables of one chunk; a row of a table is a principal or resource with the facts of its decision."""

    schema: CedarSchema | None = None
    ids: Ids = field(default_factory=Ids)
    action_rows: Mapping[Ref, int] = field(default_factory=dict)
    """Actions that the schema declares, by their row."""
    roles: tuple[EntityData, ...] = ()
    """Principal and resource of the group that is compiled."""
    _unknown: dict[Ref, int] = field(default_factory=dict)
    """Entities that policies name and no decision does."""
    _walked: dict[tuple[str, Node], None] = field(default_factory=dict)
    """References that policies go through: type and code of the entity."""
    _climbed: dict[str, None] = field(default_factory=dict)
    """Types of roles whose ancestors policies ask for."""

    def action(self, declared: ActionType) -> EntityData:
        """The entity of an action."""
        ref = action_ref(declared)
        row = self.action_rows[ref]
        code = self.tables[ref.type].rows[row].code
        return EntityData(ref.type, literal(row, "code"), literal(code, "code"))

    def code(self, ref: Ref) -> int:
        """The code of an entity that a policy names; one that no decision names gets a code of its own."""
        if self._is_action(ref.type):
            return World.code(self, ref)
        known = self.ids.find(ref)
        unknown = self._unknown.setdefault(ref, len(self._unknown))
        return self.ids.texts(ref.type).len() + unknown if known is None else known

    def begin(self, principal: EntityData, resource: EntityData) -> None:
        """Forget what policies of another group went through."""
        self.roles = (principal, resource)
        self._walked.clear()
        self._climbed.clear()

    def entity(self, kind: str, index: Node) -> EntityData:
        """An entity that is referred to: its column holds its code."""
        if self._is_action(kind):  # its table is the schema's
            return World.entity(self, kind, index)
        return EntityData(kind, index, index)

    def attribute(self, entity: EntityData, name: str) -> Member | None:
        """An attribute of an entity; null: it has none."""
        return World.attribute(self, entity, name) if self._has_row(entity) else None

    def tags(self, entity: EntityData) -> Iterable[str]:
        """No fact gives tags."""
        self._has_row(entity)
        return ()

    def above(self, entity: EntityData) -> Iterable[str]:
        """The types that ancestors of the entity's type have."""
        if not self._may_have_parents(entity.type) or not self._has_row(entity):
            return ()
        self._climbed[entity.type] = None
        return World.above(self, entity)

    def _may_have_parents(self, kind: str) -> bool:
        declared = None if self.schema is None else self.schema.entity_types.get(kind)
        return declared is None or bool(declared.parents)

    def _has_row(self, entity: EntityData) -> bool:
        """Whether the entity is the principal, the resource or an action; else somebody goes through a reference."""
        if any(entity.index is role.index for role in self.roles) or self._is_action(entity.type):
            return True
        self._walked[entity.type, entity.uid] = None
        return False

    def _is_action(self, kind: str) -> bool:
        return kind in self.tables and bool(self.tables[kind].rows)

    def linked(self) -> Node:
        """Where a reference that some policy goes through leads to the principal or the resource."""
        found = [
            equal(uid, role.uid) for kind, uid in self._walked for role in self.roles if role.type == kind
        ]
        return or_(FALSE, *found, *self._above_each_other())

    def circular(self) -> Node:
        """Where a role is its own parent, or each is the other's: Cedar refuses such entities, whatever is asked."""
        one, other = self.roles
        circles = [self._parent(one, one), self._parent(other, other)]
        return or_(*circles, and_(self._parent(one, other), self._parent(other, one)))

    def _parent(self, child: EntityData, parent: EntityData) -> Node:
        if child.type not in self.tables or parent.type not in World.above(self, child):
            return FALSE
        return apply("is_member", self.codes_above(child, parent.type), parent.uid)

    def _above_each_other(self) -> Iterable[Node]:
        """Where one role is a parent of the other, whose own parents count then, too."""
        for one, other in ((self.roles[0], self.roles[1]), (self.roles[1], self.roles[0])):
            if one.type in self._climbed and other.type in World.above(self, one):
                yield apply("is_member", self.codes_above(one, other.type), other.uid)


def action_tables(schema: CedarSchema) -> tuple[dict[str, Table], dict[Ref, int]]:
    """Return the tables of a schema's actions by type, and the row of each action."""
    world = World(frozenset())
    seen = view_of(Slice(()), schema)
    rows = {ref: world.row(ref, seen) for ref in sorted(seen.entities)}
    world.freeze()
    return world.tables, rows
