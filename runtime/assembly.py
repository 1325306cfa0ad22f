"""From compiled facts to what Cedar is asked with: the context record and the entity slice.

One rule: pure, and complete; what a decision was made with is in its result or it was not there.

Measured of cedarpy 4.12.2, and relied on by who evaluates a slice: entities parsed *without* the schema hold no
action entities, so `action in Action::"group"` is false without any error, even when `is_authorized` is given the
schema. Parse with `Entities.from_json_str(slice.text, schema)` (46 µs; that also validates them), or add to a
handle that was parsed with it. `is_authorized(…, entities=text, schema=…)` is right, too, but 25 µs slower.
An attribute of an entity that is not in the slice is an evaluation error; its parents are silently none.

Import from `runtime.context`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from runtime.entities import Entity, EntityUid, Slice
from runtime.projection import ProjectionError, project, projector
from runtime.schema import Record, session_names
from runtime.spec_check import members_of
from runtime.values import timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runtime.canonical import Json
    from runtime.facts import CompiledContext, Fact
    from runtime.request import Request
    from runtime.schema import ActionType, CedarSchema, EntityType


def assemble(
    request: Request,
    resource: EntityUid,
    args: Json,
    compiled: CompiledContext,
    schema: CedarSchema,
    approval: Json = None,
) -> tuple[dict[str, Json], Slice]:
    """Build what Cedar is asked with: the context and the entities. Pure.

    What the schema does not declare is left out: a bundle's own spec never places such a fact (`check_spec`), and a
    candidate's policies cannot refer to it.

    Args:
        request: the request.
        resource: its resource.
        args: `context.args`, projected already.
        compiled: the facts.
        schema: with the standard context.
        approval: `{"approvers", "granted_at"}` on resume.

    Returns:
        Cedar JSON context (`args`, `now`, `scopes`, `session`, `tenant`, `on_behalf_of` and `approval` if there, the
        facts), and the slice: principal, resource, on-behalf-of where the action declares it, and direct parents,
        which are bare.

    Raises:
        ProjectionError: a fact does not fit its declared type, an entity type is not declared, or something required
            is not there.
    """
    action = schema.actions.get(request.tool)
    if action is None:
        raise ProjectionError("action", request.tool, "must be declared in the schema")
    return Assembler(action, schema).assemble(request, resource, args, compiled, approval)


_ALWAYS: Final = frozenset({"args", "now", "scopes", "session", "tenant"})
"""Members that every context has."""


class Assembler:
    """Assembles cases of one action; what hangs on the action and the schema only is worked out once."""

    def __init__(self, action: ActionType, schema: CedarSchema) -> None:
        self._schema = schema
        self._declared = declared = action.context.attrs
        self._counters = session_names(declared["session"].type)
        self._takes_behalf = "on_behalf_of" in declared
        self._projectors = {
            name: projector(each.type, f"context.{name}")
            for name, each in declared.items()
            if isinstance(each.type, Record)
        }
        self._required = [n for n, each in declared.items() if each.required and n not in _ALWAYS]
        self._free = frozenset(
            name
            for name, type_ in schema.entity_types.items()
            if type_.enum is None and not any(each.required for each in type_.attrs.attrs.values())
        )
        """Types of which any entity may stand alone."""

    def assemble(
        self,
        request: Request,
        resource: EntityUid,
        args: Json,
        compiled: CompiledContext,
        approval: Json = None,
    ) -> tuple[dict[str, Json], Slice]:
        """Build the context and the entities; see `assemble`."""
        behalf = request.on_behalf_of if self._takes_behalf else None
        counters = self._counters
        context: dict[str, Json] = {
            "args": args,
            "now": {"__extn": {"fn": "datetime", "arg": timestamp(request.at)}},
            "scopes": list(request.scopes),
            "session": {n: value for n, value in request.session_state.items() if n in counters},
            "tenant": request.tenant,
        }
        if compiled.told or behalf is not None or approval is not None:
            self._place(context, behalf, compiled, approval)
        for name in self._required:
            if name not in context:
                raise ProjectionError(
                    f"context.{name}", None, f"is required; declare `{name}?:`, as it may be absent"
                )
        principal = request.principal
        if compiled.placed or behalf is not None or principal == resource:
            return context, _slice(principal, resource, behalf, compiled, self._schema)
        one, two = self._alone(principal, "principal"), self._alone(resource, "resource")
        return context, Slice.of_two(one, two)

    def _place(
        self, context: dict[str, Json], behalf: EntityUid | None, compiled: CompiledContext, approval: Json
    ) -> None:
        given: dict[str, Json] = {fact.name: fact.value for fact in compiled.told}
        given |= {"on_behalf_of": None if behalf is None else dict(behalf.json()), "approval": approval}
        for name, value in given.items():
            if value is not None and name in self._declared:
                found = self._projectors.get(name)
                if found is not None:
                    context[name] = found(value)[0]
                else:
                    context[name] = project(value, self._declared[name].type, f"context.{name}")

    def _alone(self, uid: EntityUid, role: str) -> Entity:
        if uid.type not in self._free:
            return _bare(uid, _type(uid, role, self._schema), role)
        return _uid_alone(uid)


@dataclass(slots=True)
class _Draft:
    """One entity while facts are put into it."""

    role: str
    """What it is in the request, for messages."""
    attrs: dict[str, Json] = field(default_factory=dict)
    """Before projection."""
    parents: set[EntityUid] = field(default_factory=set)

    def add(self, fact: Fact) -> None:
        record = fact.value if isinstance(fact.value, dict) else {}
        for name, value in record.items():
            if value is not None and self.attrs.setdefault(name, value) != value:
                raise ProjectionError(
                    f"{self.role}.{name}", value, "is given twice, by two facts that differ"
                )
        self.parents.update(EntityUid(type_, ident) for type_, ident in fact.parents)

    def entity(self, uid: EntityUid, schema: CedarSchema) -> Entity:
        type_ = _type(uid, self.role, schema)
        if not self.attrs and not self.parents:
            return _bare(uid, type_, self.role)
        known = members_of(type_.attrs)
        given: dict[str, Json] = {name: value for name, value in self.attrs.items() if name in known}
        attrs = project(given, type_.attrs, self.role)
        parents = sorted(parent for parent in self.parents if parent.type in type_.parents)
        return Entity(uid, attrs if isinstance(attrs, dict) else {}, tuple(parents))


def entity_of(uid: EntityUid, role: str, facts: Iterable[Fact], schema: CedarSchema) -> Entity:
    """Build the entity that plays a role in a request.

    Args:
        uid: of the principal, the resource, or whom it is on behalf of.
        role: what it is in the request, for messages.
        facts: found for it; empty: it is bare.
        schema: of the bundle.

    Raises:
        ProjectionError: a fact does not fit the type, two facts differ, or something required is not there.
    """
    draft = _Draft(role)
    for fact in facts:
        draft.add(fact)
    return draft.entity(uid, schema)


def _slice(
    principal: EntityUid,
    resource: EntityUid,
    behalf: EntityUid | None,
    compiled: CompiledContext,
    schema: CedarSchema,
) -> Slice:
    drafts = {principal: _Draft("principal")}
    drafts.setdefault(resource, _Draft("resource"))
    if behalf is not None:
        drafts.setdefault(behalf, _Draft("on_behalf_of"))
    for fact in compiled.placed:
        drafts[resource if fact.into == "resource" else principal].add(fact)
    entities = [draft.entity(uid, schema) for uid, draft in drafts.items()]
    _refuse_circle(entities)
    parents = {parent for entity in entities for parent in entity.parents} - drafts.keys()
    entities += [_bare(uid, _type(uid, "parent", schema), "parent") for uid in parents]
    return Slice.of(entities)


def _refuse_circle(entities: Iterable[Entity]) -> None:
    """Refuse facts that put an entity into itself, at once or through another: Cedar refuses such a slice whole."""
    parents = {entity.uid: entity.parents for entity in entities if entity.parents}
    for uid, above in parents.items():
        seen, todo = set[EntityUid](), list(above)
        while todo:
            if (parent := todo.pop()) == uid:
                why = "must not be its own ancestor; the facts about principal and resource go in a circle"
                raise ProjectionError("parents", str(uid), why)
            if parent not in seen:
                seen.add(parent)
                todo += parents.get(parent, ())


def _type(uid: EntityUid, role: str, schema: CedarSchema) -> EntityType:
    type_ = schema.entity_types.get(uid.type)
    if type_ is None:
        declared = ", ".join(sorted(schema.entity_types)) or "none"
        raise ProjectionError(role, str(uid), f"must be of a type the schema declares ({declared})")
    if type_.enum is not None and uid.id not in type_.enum:
        raise ProjectionError(role, str(uid), f"must be one of {', '.join(map(repr, type_.enum))}")
    return type_


def _bare(uid: EntityUid, type_: EntityType, role: str) -> Entity:
    """Return an entity without attributes or parents; an error if its type requires an attribute."""
    if type_.attrs.attrs:
        project({}, type_.attrs, role)
    return _uid_alone(uid)


@lru_cache(maxsize=4096)
def _uid_alone(uid: EntityUid) -> Entity:
    """Shared, because an entity remembers its canonical text and hash."""
    return Entity.alone(uid)
