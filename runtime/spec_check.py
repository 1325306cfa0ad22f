"""Whether what a context spec declares fits the schema it is placed in.

One rule: whatever would block every call of an action at run time is found when the bundle is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.schema import EntityRef, Record, SetOf, type_text
from runtime.toml import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.schema import ActionType, Attribute, CedarSchema, CedarType, EntityType
    from runtime.spec import FactSpec


def unfillable(schema: CedarSchema) -> Iterator[tuple[str, str, str]]:
    """Yield (action, entity type, attribute) of required attributes: a fact may be none, so none can be promised."""
    for name, action in schema.actions.items():
        behalf = action.context.attrs.get("on_behalf_of")
        types = [*action.principals, *action.resources]
        types += [behalf.type.type] if behalf is not None and isinstance(behalf.type, EntityRef) else []
        for type_ in dict.fromkeys(types):
            attrs = schema.entity_types[type_].attrs.attrs
            yield from ((name, type_, attr) for attr, declared in attrs.items() if declared.required)


def misfits(fact: FactSpec, schema: CedarSchema) -> Iterator[tuple[str, str]]:
    """Yield (key of the fact, what is wrong), most basic first."""
    callable_ = {name: action for name, action in schema.actions.items() if action.principals}
    for name in fact.actions:
        if name != "*" and name not in callable_:
            group = "is a group that applies to nothing; name its actions" if name in schema.actions else ""
            hint = did_you_mean(name, callable_) or f"; declared are {', '.join(sorted(callable_)) or 'none'}"
            yield "actions", f"action {name!r} {group or f'is not declared in the schema{hint}'}"
    actions = {name: action for name, action in callable_.items() if fact.applies(name)}
    yield from _unknown_arguments(fact, actions)
    for name, action in actions.items():
        if fact.into == "context":
            yield from _misfits_context(fact, name, action)
            continue
        for type_ in action.resources if fact.into == "resource" else action.principals:
            yield from _misfits_entity(fact, schema.entity_types[type_])


def _unknown_arguments(fact: FactSpec, actions: Mapping[str, ActionType]) -> Iterator[tuple[str, str]]:
    """A key path that no call can have is a misspelling; with `*`, one action that has it is enough."""
    for column, path in fact.key.items():
        name = path.split(".")[1] if path.startswith("args.") else None
        known = {
            action: members_of(_record(each.context.attrs.get("args"))) for action, each in actions.items()
        }
        without = [action for action, members in known.items() if name is not None and name not in members]
        if without and (fact.actions != ("*",) or len(without) == len(actions)):
            members = known[without[0]]
            hint = (
                did_you_mean(str(name), members) or f"; declared are {', '.join(sorted(members)) or 'none'}"
            )
            yield (
                "key",
                f"key `{column}`: action {without[0]!r} declares no argument `{name}` in `args`{hint}",
            )


def _misfits_context(fact: FactSpec, name: str, action: ActionType) -> Iterator[tuple[str, str]]:
    declared = action.context.attrs.get(fact.name)
    where = f"`{fact.name}` in the context of action {name!r}"
    if declared is None:
        yield "name", f"the schema declares no {where}; add `{fact.name}?: …` there, or leave the action out"
        return
    if declared.required:
        yield (
            "name",
            f"{where} must be optional, as a fact may be none; write `{fact.name}?: …` in the schema",
        )
    record: CedarType | None = declared.type
    if fact.shape == "set":
        if not isinstance(declared.type, SetOf):
            yield (
                "shape",
                f"a set cannot fill {where}, declared as {type_text(declared.type)}; declare a Set<…>",
            )
            return
        record = declared.type.element if len(fact.fields) > 1 else None
    if record is None:
        return
    if not isinstance(record, Record):
        shape = "records" if fact.shape == "set" else "a record"
        yield "shape", f"{shape} cannot fill {where}, declared as {type_text(declared.type)}; declare {{…}}"
        return
    yield from _misfits_fields(fact, record, where)


def _misfits_fields(fact: FactSpec, record: Record, where: str) -> Iterator[tuple[str, str]]:
    members = members_of(record)
    for column in fact.fields:
        if column not in members:
            yield "fields", f"{where} declares no member `{column}`{did_you_mean(column, members)}"
    for member, attribute in record.attrs.items():
        given = _member(member, attribute)
        if attribute.required and given not in fact.fields:
            yield "fields", f"{where} requires `{member}`; add {given!r} to `fields`, or declare `{member}?`"


def _misfits_entity(fact: FactSpec, entity: EntityType) -> Iterator[tuple[str, str]]:
    where = f"entity type `{entity.name}`"
    for column in fact.fields:
        found = [a for name, a in entity.attrs.attrs.items() if _member(name, a) == column]
        if not found:
            yield (
                "fields",
                f"{where} declares no attribute `{column}`{did_you_mean(column, entity.attrs.attrs)}",
            )
        elif any(attribute.required for attribute in found):
            yield (
                "fields",
                f"`{column}` of {where} must be optional, as a fact may be none; write `{column}?: …`",
            )
    for column, parent in fact.parents.items():
        if parent not in entity.parents:
            yield (
                "parents",
                f"`{column}`: {where} may not be in {parent!r}; declare `entity {entity.name} in [{parent}]`",
            )


def _record(attribute: Attribute | None) -> Record:
    return attribute.type if attribute is not None and isinstance(attribute.type, Record) else Record()


def members_of(record: Record) -> frozenset[str]:
    """Return the JSON members a record takes: its attributes, or what `@scaled` ones are computed from."""
    return frozenset(_member(name, attribute) for name, attribute in record.attrs.items())


def _member(name: str, attribute: Attribute) -> str:
    return attribute.scaled.member if attribute.scaled else name
