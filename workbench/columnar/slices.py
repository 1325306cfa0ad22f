"""One decision's entities, read once: attributes decoded, ancestors closed.

One rule: a slice that Cedar would refuse as a whole (an attribute it cannot read, an entity that breaks the schema)
is refused as a whole: every case that uses it is handed over.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workbench.columnar.decoding import Decoded, Ref, Unfit, decode, fields, references

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runtime.entities import Entity, EntityUid, Slice
    from runtime.schema import ActionType, CedarSchema, EntityType


@dataclass(frozen=True, slots=True)
class Read:
    """One entity, decoded."""

    content: str
    """What tells two versions apart."""
    attrs: Mapping[str, Decoded]
    tags: Mapping[str, Decoded]
    parents: tuple[Ref, ...]


@dataclass(slots=True)
class View:
    """One slice, decoded."""

    entities: Mapping[Ref, Read]
    nodes: dict[Ref, int] = field(default_factory=dict)
    """Row of an entity in its type's table, as found so far."""
    _ancestors: dict[Ref, frozenset[Ref]] = field(default_factory=dict)
    _reachable: dict[Ref, frozenset[Ref]] = field(default_factory=dict)

    def ancestors(self, ref: Ref) -> frozenset[Ref]:
        """Everything above an entity; parents that are not in the slice count, and have none above them."""
        found = self._ancestors.get(ref)
        if found is None:
            found = self._ancestors[ref] = self._walk(ref, lambda read: read.parents)
        return found

    def reachable(self, ref: Ref, names: frozenset[str]) -> frozenset[Ref]:
        """Everything that may be reached from an entity by attributes of these names, by tags and by parents."""
        found = self._reachable.get(ref)
        if found is None:
            found = self._reachable[ref] = self._walk(ref, lambda read: _links(read, names))
        return found

    def _walk(self, ref: Ref, links: _Links) -> frozenset[Ref]:
        seen: set[Ref] = set()
        stack = [ref]
        while stack:
            read = self.entities.get(stack.pop())
            new = set(links(read)) - seen if read else set()
            seen |= new
            stack.extend(new)
        return frozenset(seen)


if TYPE_CHECKING:
    from collections.abc import Callable

    _Links = Callable[[Read], Iterable[Ref]]


def _links(read: Read, names: frozenset[str]) -> list[Ref]:
    values = [value for name, value in read.attrs.items() if name in names]
    return [*read.parents, *(ref for value in (*values, *read.tags.values()) for ref in references(value))]


def ref_of(uid: EntityUid) -> Ref:
    """An entity's name."""
    ref = Ref(uid.type, uid.id)
    try:
        "".join(ref).encode()
    except UnicodeEncodeError as exc:
        raise Unfit("entity id with a lone surrogate") from exc
    return ref


def view_of(entities: Slice, schema: CedarSchema | None) -> View:
    """Read a slice.

    Raises:
        Unfit: Cedar would refuse it, or might.
    """
    actions = {} if schema is None else action_entities(schema)
    found: dict[Ref, Read] = {}
    for entity in entities.entities:
        ref = ref_of(entity.uid)
        if ref in found:
            raise Unfit(f"entity `{entity.uid}` comes twice")
        found[ref] = _read(ref, entity, schema, actions)
    if schema is None:
        _refuse_cycles(found)
        return View(found)
    view = View(found)
    for ref in found.keys() & actions.keys():
        if view.ancestors(ref) != View(actions).ancestors(ref):
            raise Unfit(f"action `{ref.id}` differs from its declaration")
    _refuse_cycles(found)
    return View({**found, **actions})


def action_entities(schema: CedarSchema) -> dict[Ref, Read]:
    """The action entities that a schema declares."""
    return {
        action_ref(action): Read(
            "", {}, {}, tuple(action_ref(schema.actions[parent]) for parent in action.parents)
        )
        for action in schema.actions.values()
    }


def action_ref(action: ActionType) -> Ref:
    """An action's entity."""
    return Ref(f"{action.namespace}::Action" if action.namespace else "Action", action.name)


def _read(ref: Ref, entity: Entity, schema: CedarSchema | None, actions: Mapping[Ref, Read]) -> Read:
    parents = tuple(map(ref_of, entity.parents))
    content = json.dumps(entity.json(), sort_keys=True)
    if schema is None:
        attrs = {name: decode(value, None) for name, value in entity.attrs.items()}
        tags = {name: decode(value, None) for name, value in entity.tags.items()}
        _names((*attrs, *tags))
        return Read(content, attrs, tags, parents)
    if ref in actions:
        if entity.attrs or entity.tags:
            raise Unfit(f"action `{ref.id}` with attributes")
        return Read(content, {}, {}, parents)
    declared = schema.entity_types.get(ref.type)
    if declared is None:
        raise Unfit(f"entity type `{ref.type}` is not declared")
    return _typed(ref, entity, declared, Read(content, {}, {}, parents), schema)


def _names(names: Iterable[str]) -> None:
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as exc:
            raise Unfit("a name with a lone surrogate") from exc


def _typed(ref: Ref, entity: Entity, declared: EntityType, read: Read, schema: CedarSchema) -> Read:
    check_enum(ref, schema)
    for parent in read.parents:
        check_enum(parent, schema)
        if parent.type not in types_above(ref.type, schema):
            raise Unfit(f"a `{ref.type}` cannot be in a `{parent.type}`")
    if entity.tags and declared.tags is None:
        raise Unfit(f"a `{ref.type}` has no tags")
    if declared.enum is not None and (entity.attrs or entity.tags or read.parents):
        raise Unfit(f"`{ref.type}` is an enumeration")
    tags = {name: decode(value, declared.tags) for name, value in entity.tags.items()}
    _names(tags)
    return Read(read.content, fields(entity.attrs, declared.attrs), tags, read.parents)


def types_above(kind: str, schema: CedarSchema) -> set[str]:
    """Entity types that an entity of a type may be in, directly or not: Cedar takes either as a parent."""
    found: set[str] = set()
    stack = [kind]
    while stack:
        declared = schema.entity_types.get(stack.pop())
        new = set(declared.parents) - found if declared else set()
        found |= new
        stack.extend(new)
    return found


def check_enum(ref: Ref, schema: CedarSchema) -> None:
    """Refuse an id that its enumerated type does not list.

    Raises:
        Unfit: it does not.
    """
    declared = schema.entity_types.get(ref.type)
    if declared is not None and declared.enum is not None and ref.id not in declared.enum:
        raise Unfit(f"`{ref.type}` has no `{ref.id}`")


def _refuse_cycles(entities: Mapping[Ref, Read]) -> None:
    """A hierarchy with a cycle is refused by Cedar."""
    if any(read.parents for read in entities.values()):
        view = View(entities)
        for ref in entities:
            if ref in view.ancestors(ref):
                raise Unfit(f"`{ref.type}` `{ref.id}` is above itself")
