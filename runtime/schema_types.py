"""The types a Cedar schema resolves to, and how they are written as JSON and as text.

One rule: a type is closed and self-contained; no name in it needs a namespace to be understood.

Import them from `runtime.schema`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, assert_never

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.canonical import Json


@dataclass(frozen=True, slots=True)
class Primitive:
    """`Long` (64-bit signed), `String` or `Bool`."""

    name: Literal["Long", "String", "Bool"]


@dataclass(frozen=True, slots=True)
class Extension:
    """One of Cedar's extension types."""

    name: Literal["decimal", "ipaddr", "datetime", "duration"]


@dataclass(frozen=True, slots=True)
class EntityRef:
    """A reference to an entity."""

    type: str
    """Entity type, fully qualified."""
    enum: tuple[str, ...] | None = field(default=None, compare=False)
    """The only ids allowed, if the entity type is an enumeration."""


@dataclass(frozen=True, slots=True)
class SetOf:
    """A set of one element type."""

    element: CedarType


@dataclass(frozen=True, slots=True)
class Record:
    """A closed record: members that are not declared are errors."""

    attrs: Mapping[str, Attribute] = field(default_factory=dict)


CedarType: TypeAlias = "Primitive | Extension | EntityRef | SetOf | Record"
"""A type; common types are resolved away."""


@dataclass(frozen=True, slots=True)
class Scaled:
    """`@scaled("amount*100")`: the attribute is the JSON member `amount` times 100, exactly."""

    member: str
    factor: int


@dataclass(frozen=True, slots=True)
class Attribute:
    """One member of a record."""

    type: CedarType
    required: bool = True
    annotations: Mapping[str, str] = field(default_factory=dict)
    """By key; an annotation without a value has the empty string, as Cedar has it."""

    @property
    def scaled(self) -> Scaled | None:
        """The JSON member this attribute is computed from, if it is declared `@scaled`.

        Raises:
            ValueError: if the annotation's text is not `member*factor`; a parsed schema has none such.
        """
        text = self.annotations.get("scaled")
        return None if text is None else _scaled(text)


@lru_cache(maxsize=1024)
def _scaled(text: str) -> Scaled:
    match = re.fullmatch(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*\*\s*([1-9][0-9]{0,17})\s*", text)
    if match is None:
        raise ValueError(
            f'`@scaled` must read `@scaled("member*factor")`, such as "amount*100", got {text!r}'
        )
    return Scaled(match[1], int(match[2]))


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityType:
    """A declared entity type."""

    name: str
    """Fully qualified."""
    parents: tuple[str, ...] = ()
    """Types an entity of this type may be in directly, in order of declaration."""
    attrs: Record = field(default_factory=Record)
    tags: CedarType | None = None
    """Type of every tag; null: the entity has no tags."""
    enum: tuple[str, ...] | None = None
    """The only ids there are, for an enumerated type."""
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionType:
    """A declared action."""

    name: str
    """The action's id, such as `send_money`."""
    namespace: str = ""
    """Where it is declared; empty outside of namespaces."""
    parents: tuple[str, ...] = ()
    """Keys (as in `CedarSchema.actions`) of the action groups it is in."""
    principals: tuple[str, ...] = ()
    """Entity types that may be principal; empty: the action applies to nothing, it is only a group."""
    resources: tuple[str, ...] = ()
    context: Record = field(default_factory=Record)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Name in `CedarSchema.actions`: the id, or `Namespace::id`."""
        return qualify(self.namespace, self.name)


@dataclass(frozen=True, kw_only=True)
class CedarSchema:
    """A whole schema."""

    entity_types: Mapping[str, EntityType]
    actions: Mapping[str, ActionType]
    """By id outside of namespaces, else by `Namespace::id`."""
    written: Mapping[str, Json] | None = field(default=None, compare=False, repr=False)
    """Cedar JSON schema as the author wrote it, common types kept; null: derive it from the types."""
    lines: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)
    """Line (from 1) of each action's declaration, by key, where the text is known."""

    def to_json(self) -> Json:
        """Return the Cedar JSON schema; `cedarpy.Schema.from_json_str` accepts its text.

        A parsed schema gives what its author wrote (equal under `str` of the engine's handle); one that was
        built or augmented gives the same meaning with common types inlined. Cost: O(size).
        """
        if self.written is not None:
            return dict(self.written)
        namespaces: dict[str, Any] = {}
        for entity in self.entity_types.values():
            namespace, _, name = entity.name.rpartition("::")
            _namespace(namespaces, namespace)["entityTypes"][name] = _entity_json(entity)
        for action in self.actions.values():
            _namespace(namespaces, action.namespace)["actions"][action.name] = self._action_json(action)
        return namespaces

    def _action_json(self, action: ActionType) -> dict[str, Any]:
        parents = [self.actions[key] for key in action.parents]
        body: dict[str, Any] = {
            "memberOf": [{"id": p.name, "type": qualify(p.namespace, "Action")} for p in parents],
            "annotations": dict(action.annotations),
        }
        if action.principals:
            body["appliesTo"] = {
                "principalTypes": list(action.principals),
                "resourceTypes": list(action.resources),
                "context": type_json(action.context),
            }
        return body


def qualify(namespace: str, name: str) -> str:
    """Put a name into a namespace; the empty namespace adds nothing."""
    return f"{namespace}::{name}" if namespace else name


def _namespace(namespaces: dict[str, Any], name: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"entityTypes": {}, "actions": {}}
    found: dict[str, Any] = namespaces.setdefault(name, empty)
    return found


def _entity_json(entity: EntityType) -> dict[str, Any]:
    annotations = {"annotations": dict(entity.annotations)}
    if entity.enum is not None:
        return annotations | {"enum": list(entity.enum)}
    tags = {} if entity.tags is None else {"tags": type_json(entity.tags)}
    return annotations | tags | {"memberOfTypes": list(entity.parents), "shape": type_json(entity.attrs)}


def type_json(type_: CedarType) -> dict[str, Any]:
    """Return a type in Cedar's JSON schema format, every name unambiguous."""
    match type_:
        case Primitive(name):
            return {"type": name}
        case Extension(name):
            return {"type": "Extension", "name": name}
        case EntityRef(name):
            return {"type": "Entity", "name": name}
        case SetOf(element):
            return {"type": "Set", "element": type_json(element)}
        case Record(attrs):
            return {"type": "Record", "attributes": {name: _attr_json(a) for name, a in attrs.items()}}
        case _:
            assert_never(type_)


def _attr_json(attribute: Attribute) -> dict[str, Any]:
    return type_json(attribute.type) | {
        "required": attribute.required,
        "annotations": dict(attribute.annotations),
    }


def type_text(type_: CedarType) -> str:
    """Return a type as Cedar writes it, for messages.

    Example:
        >>> type_text(Record({"calls": Attribute(Primitive("Long")), "who": Attribute(EntityRef("User"), False)}))
        '{calls: Long, who?: User}'
    """
    match type_:
        case Primitive(name) | Extension(name) | EntityRef(name):
            return name
        case SetOf(element):
            return f"Set<{type_text(element)}>"
        case Record(attrs):
            return "{" + ", ".join(_attr_text(name, a) for name, a in attrs.items()) + "}"
        case _:
            assert_never(type_)


def _attr_text(name: str, attribute: Attribute) -> str:
    return f"{name}{'' if attribute.required else '?'}: {type_text(attribute.type)}"
