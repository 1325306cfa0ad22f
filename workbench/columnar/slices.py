"""One decision's entities, read once: attributes decoded, ancestors closed.

One rule: a slice that Cedar would refuse as a whole (an attribute it cannot read, an entity that breaks the schema)
is refused as a whole: every case that uses it is handed over.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from workbench.columnar.closures import Signatures, ancestors
from workbench.columnar.decoding import Decoded, Ref, Unfit, decode, fields, reference, references

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runtime.entities import Entity, EntityUid, Slice
    from runtime.schema import ActionType, CedarSchema, EntityType


@dataclass(frozen=True, slots=True)
class Read:
    """One entity, decoded."""

    ref: Ref
    content: str
    """What tells two versions apart."""
    attrs: Mapping[str, Decoded]
    tags: Mapping[str, Decoded]
    parents: tuple[Ref, ...]
    links: tuple[Ref, ...]
    """The entities it names: as parents, in tags, and in the attributes that policies name."""


@dataclass(slots=True)
class View:
    """One slice, decoded."""

    entities: Mapping[Ref, Read]
    above: Mapping[Ref, frozenset[Ref]]
    """Everything above an entity; parents that are not in the slice count, and have none above them."""
    nodes: dict[Ref, int] = field(default_factory=dict)
    """Row of an entity in its type's table, as found so far."""
    signatures: Signatures = field(default_factory=Signatures)
    """Shared by the views that are compared."""
    _reached: dict[Ref, int] = field(default_factory=dict)

    def ancestors(self, ref: Ref) -> frozenset[Ref]:
        """Everything above an entity."""
        return self.above.get(ref, frozenset())

    def reached(self, ref: Ref) -> int:
        """Signature of all that policies may reach from an entity: equal in two slices if and only if that is."""
        if ref not in self._reached:
            self.signatures.add(ref, self._links, self._content, self._reached)
        return self._reached[ref]

    def _links(self, ref: Ref) -> tuple[Ref, ...]:
        read = self.entities.get(ref)
        return () if read is None else read.links

    def _content(self, ref: Ref) -> tuple[Ref, str | None]:
        read = self.entities.get(ref)
        return ref, None if read is None else read.content


def ref_of(uid: EntityUid) -> Ref:
    """An entity's name.

    Raises:
        Unfit: Cedar would refuse it.
    """
    return reference(uid.type, uid.id)


@dataclass(slots=True)
class SliceReader:
    """Reads slices; what has equal content is read once, slices and entities alike."""

    schema: CedarSchema | None
    names: frozenset[str] | None = None
    """Attributes that policies name; null: any."""
    actions: Mapping[Ref, Read] = field(init=False)
    """Those that the schema declares."""
    _actions_above: Mapping[Ref, frozenset[Ref]] = field(init=False)
    _signatures: Signatures = field(default_factory=Signatures)
    _views: dict[tuple[str, ...], View | str] = field(default_factory=dict)
    _reads: dict[str, Read | str] = field(default_factory=dict)
    """By content; a text says why the entity is refused."""
    _known: dict[int, tuple[Entity, str, Read | str]] = field(default_factory=dict)
    """By the entity's identity: the entity, its content, and what it was read as."""

    def __post_init__(self) -> None:
        self.actions = {} if self.schema is None else action_entities(self.schema)
        self._actions_above = _above(self.actions)

    def view(self, entities: Slice) -> View:
        """Read a slice.

        Raises:
            Unfit: Cedar would refuse it, or might.
        """
        members = [self._known.get(id(entity)) or self._read(entity) for entity in entities.entities]
        key = tuple([content for _, content, _ in members])
        known = self._views.get(key)
        if known is None:
            known = self._views[key] = self._view([read for _, _, read in members])
        if isinstance(known, str):
            raise Unfit(known)
        return known

    def _view(self, members: Iterable[Read | str]) -> View | str:
        found: dict[Ref, Read] = {}
        for read in members:
            if isinstance(read, str):
                return read
            if read.ref in found:
                return f"entity `{read.ref.type}` `{read.ref.id}` comes twice"
            found[read.ref] = read
        try:
            return self._closed(found)
        except Unfit as exc:
            return str(exc)

    def _read(self, entity: Entity) -> tuple[Entity, str, Read | str]:
        try:
            content = content_of(entity)
        except RecursionError:
            return entity, f"deep {entity.uid}", "nested too deeply to read"
        read = self._reads.get(content)
        if read is None:
            try:
                read = self._decode(entity, content)
            except Unfit as exc:
                read = str(exc)
            self._reads[content] = read
        known = self._known[id(entity)] = (entity, content, read)
        return known

    def _decode(self, entity: Entity, content: str) -> Read:
        ref = ref_of(entity.uid)
        parents = tuple(map(ref_of, entity.parents))
        attrs, tags = _decoded(ref, entity, parents, self.schema, action=ref in self.actions)
        kept = [value for name, value in attrs.items() if self.names is None or name in self.names]
        links = {each for value in (*kept, *tags.values()) for each in references(value)}
        return Read(ref, content, attrs, tags, parents, tuple({*parents, *links}))

    def _closed(self, found: dict[Ref, Read]) -> View:
        """The entities with those that the schema declares, if Cedar takes them together."""
        above = _above(found)
        for ref in found.keys() & self.actions.keys():
            if above.get(ref) != self._actions_above.get(ref):
                raise Unfit(f"action `{ref.id}` differs from its declaration")
        every, above = {**found, **self.actions}, {**above, **self._actions_above}
        return View(every, above, signatures=self._signatures)


def view_of(entities: Slice, schema: CedarSchema | None) -> View:
    """Read one slice; see `SliceReader.view`."""
    return SliceReader(schema).view(entities)


def _above(entities: Mapping[Ref, Read]) -> dict[Ref, frozenset[Ref]]:
    return ancestors({ref: read.parents for ref, read in entities.items() if read.parents})


def content_of(entity: Entity) -> str:
    """Text equal only for equal entities. `Entity.content` is not that: it writes 5.0, which Cedar refuses, as 5."""
    try:
        return _encode(entity.json()).decode()
    except (ValueError, OverflowError):  # beyond 64 bits, or a lone surrogate: refused later, with the reason
        return json.dumps(entity.json(), sort_keys=True)


def slice_key(entities: Slice) -> tuple[str, ...]:
    """What two slices of the same content share."""
    return tuple(map(content_of, entities.entities))


_encode = msgspec.json.Encoder(order="sorted").encode


def action_entities(schema: CedarSchema) -> dict[Ref, Read]:
    """The action entities that a schema declares."""
    return {
        ref: Read(ref, "", {}, {}, parents, parents)
        for action in schema.actions.values()
        for ref in [action_ref(action)]
        for parents in [tuple(action_ref(schema.actions[parent]) for parent in action.parents)]
    }


def action_ref(action: ActionType) -> Ref:
    """An action's entity."""
    return Ref(f"{action.namespace}::Action" if action.namespace else "Action", action.name)


def _decoded(
    ref: Ref, entity: Entity, parents: tuple[Ref, ...], schema: CedarSchema | None, *, action: bool
) -> tuple[dict[str, Decoded], dict[str, Decoded]]:
    """Attributes and tags."""
    if schema is None:
        attrs = {name: decode(value, None) for name, value in entity.attrs.items()}
        tags = {name: decode(value, None) for name, value in entity.tags.items()}
        _names((*attrs, *tags))
        return attrs, tags
    if action:
        if entity.attrs or entity.tags:
            raise Unfit(f"action `{ref.id}` with attributes")
        return {}, {}
    declared = schema.entity_types.get(ref.type)
    if declared is None:
        raise Unfit(f"entity type `{ref.type}` is not declared")
    return _typed(ref, entity, parents, declared, schema)


def _names(names: Iterable[str]) -> None:
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as exc:
            raise Unfit("a name with a lone surrogate") from exc


def _typed(
    ref: Ref, entity: Entity, parents: tuple[Ref, ...], declared: EntityType, schema: CedarSchema
) -> tuple[dict[str, Decoded], dict[str, Decoded]]:
    check_enum(ref, schema)
    for parent in parents:
        check_enum(parent, schema)
        if parent.type not in types_above(ref.type, schema):
            raise Unfit(f"a `{ref.type}` cannot be in a `{parent.type}`")
    if entity.tags and declared.tags is None:
        raise Unfit(f"a `{ref.type}` has no tags")
    if declared.enum is not None and (entity.attrs or entity.tags or parents):
        raise Unfit(f"`{ref.type}` is an enumeration")
    tags = {name: decode(value, declared.tags) for name, value in entity.tags.items()}
    _names(tags)
    return fields(entity.attrs, declared.attrs), tags


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
