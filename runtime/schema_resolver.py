"""From a Cedar JSON schema, names as written, to types with every name resolved.

One rule: names resolve as Cedar's do. An unqualified name is looked up in its own namespace, then outside of all
namespaces, then among the built-in types; in each place a common type comes before an entity type. A qualified
name means itself; `__cedar::Long` always means the built-in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.schema_types import (
    ActionType,
    Attribute,
    CedarSchema,
    CedarType,
    EntityRef,
    EntityType,
    Extension,
    Primitive,
    Record,
    SetOf,
    qualify,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.schema_parser import Declarations

_BUILTIN: Mapping[str, CedarType] = {
    "Long": Primitive("Long"),
    "String": Primitive("String"),
    "Bool": Primitive("Bool"),
    "decimal": Extension("decimal"),
    "ipaddr": Extension("ipaddr"),
    "datetime": Extension("datetime"),
    "duration": Extension("duration"),
}


class Unresolved(ValueError):  # noqa: N818 - the state's own name
    """A name or declaration that cannot be resolved."""


def resolve(declarations: Declarations) -> CedarSchema:
    """Resolve what a schema text declares.

    Raises:
        Unresolved: a name that means nothing, two actions of one key, or a malformed `@scaled`.
    """
    return _Resolver(declarations).schema()


class _Resolver:
    def __init__(self, declarations: Declarations) -> None:
        self.declarations = declarations
        self.commons = dict(self.section("commonTypes"))
        self.entities = dict(self.section("entityTypes"))
        self.ids: dict[tuple[str, str], list[str]] = {
            k: e["enum"] for k, e in self.entities.items() if "enum" in e
        }
        self.actions = dict(self.section("actions"))
        self.resolved: dict[tuple[str, str], CedarType] = {}
        # Where actions are declared, `Action` is an entity type, with those actions for entities.
        for namespace, action in self.actions:
            self.ids.setdefault((namespace, "Action"), []).append(action)

    def section(self, name: str) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
        """Yield each declaration of one kind by (namespace, name)."""
        for namespace, body in self.declarations.json.items():
            for declared, value in body[name].items():
                yield (namespace, declared), value

    def schema(self) -> CedarSchema:
        entities = [self.entity(namespace, name) for namespace, name in self.entities]
        actions = [self.action(namespace, name) for namespace, name in self.actions]
        by_key = {action.key: action for action in actions}
        if len(by_key) != len(actions):
            double = next(a.key for a in actions if by_key[a.key] is not a)
            raise Unresolved(f"two actions would both be called `{double}`; rename one")
        return CedarSchema(
            entity_types={entity.name: entity for entity in entities},
            actions=by_key,
            written=self.declarations.json,
            lines={qualify(*key): line for key, line in self.declarations.lines.items()},
        )

    def entity(self, namespace: str, name: str) -> EntityType:
        body = self.entities[namespace, name]
        return EntityType(
            name=qualify(namespace, name),
            parents=tuple(self.entity_name(namespace, parent) for parent in body.get("memberOfTypes", [])),
            attrs=self.record(namespace, body.get("shape", {}).get("attributes", {})),
            tags=self.type(namespace, body["tags"]) if "tags" in body else None,
            enum=tuple(body["enum"]) if "enum" in body else None,
            annotations=body["annotations"],
        )

    def action(self, namespace: str, name: str) -> ActionType:
        body = self.actions[namespace, name]
        applies = body.get("appliesTo", {})
        context = self.type(namespace, applies["context"]) if "context" in applies else Record()
        if not isinstance(context, Record):
            raise Unresolved(f"context of action `{qualify(namespace, name)}` must be a record")
        return ActionType(
            name=name,
            namespace=namespace,
            parents=tuple(self.action_key(namespace, parent) for parent in body.get("memberOf", [])),
            principals=tuple(self.entity_name(namespace, t) for t in applies.get("principalTypes", [])),
            resources=tuple(self.entity_name(namespace, t) for t in applies.get("resourceTypes", [])),
            context=context,
            annotations=body["annotations"],
        )

    def action_key(self, namespace: str, ref: dict[str, str]) -> str:
        """`Action::"x"` and `"x"` are looked up like any unqualified name; `N::Action::"x"` means itself."""
        place = ref.get("type", "Action").rpartition("::")[0]
        for candidate in [place] if place else dict.fromkeys((namespace, "")):
            if (candidate, ref["id"]) in self.actions:
                return qualify(candidate, ref["id"])
        raise Unresolved(f'action `"{ref["id"]}"` is not declared')

    def candidates(self, namespace: str, name: str) -> Iterator[tuple[str, str]]:
        if "::" in name:
            head, _, tail = name.rpartition("::")
            yield head, tail
        else:
            yield from dict.fromkeys([(namespace, name), ("", name)])

    def entity_name(self, namespace: str, name: str) -> str:
        for candidate in self.candidates(namespace, name):
            if candidate in self.entities:
                return qualify(*candidate)
        raise Unresolved(f"entity type `{name}` is not declared")

    def named(self, namespace: str, name: str) -> CedarType:
        for candidate in self.candidates(namespace, name):
            if candidate in self.commons:
                return self.common(candidate)
            if candidate in self.ids:
                return EntityRef(qualify(*candidate), tuple(self.ids[candidate]))
            if candidate in self.entities:
                return EntityRef(qualify(*candidate))
        builtin = _BUILTIN.get(name.removeprefix("__cedar::"))
        if builtin is None:
            raise Unresolved(f"type `{name}` is not declared")
        return builtin

    def common(self, key: tuple[str, str]) -> CedarType:
        if key not in self.resolved:
            self.resolved[key] = self.type(key[0], self.commons[key])
        return self.resolved[key]

    def type(self, namespace: str, body: dict[str, Any]) -> CedarType:
        match body["type"]:
            case "Set":
                return SetOf(self.type(namespace, body["element"]))
            case "Record":
                return self.record(namespace, body["attributes"])
            case _:
                return self.named(namespace, body["name"])

    def record(self, namespace: str, attributes: dict[str, Any]) -> Record:
        return Record({name: self.attribute(namespace, name, body) for name, body in attributes.items()})

    def attribute(self, namespace: str, name: str, body: dict[str, Any]) -> Attribute:
        attribute = Attribute(self.type(namespace, body), body["required"], body["annotations"])
        try:
            scaled = attribute.scaled
        except ValueError as exc:
            raise Unresolved(f"attribute `{name}`: {exc}") from exc
        if scaled and (attribute.type != Primitive("Long") or scaled.member == name):
            raise Unresolved(
                f"attribute `{name}`: `@scaled` makes a `Long` from a member of another name, such as "
                f'`@scaled("amount*100") amount_cents: Long`'
            )
        return attribute
