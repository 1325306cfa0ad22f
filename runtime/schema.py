"""Cedar schemas as types: what an action's arguments, context and entities look like.

One rule: a schema means here what it means to Cedar. `cedarpy` judges every text first; only what it accepts is
read here, and tests hold both readings against each other on published schemas.

`cedarpy` reads a schema but does not give it back as data, so the published grammar is parsed by
`runtime.schema_parser` into Cedar's JSON schema and resolved by `runtime.schema_resolver` into the types of
`runtime.schema_types`: common types are inlined, names are qualified.

Accepted: a common type used in many places is written out at each in an augmented schema's JSON. Out of scope:
Cedar's JSON schema format as input.
"""

from __future__ import annotations

import re
from dataclasses import replace

import cedarpy

from runtime.errors import PolicySchemaError
from runtime.schema_parser import SchemaSyntaxError, parse_declarations, tokenize
from runtime.schema_resolver import Unresolved, resolve
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
    Scaled,
    SetOf,
    type_json,
    type_text,
)

__all__ = [
    "SCHEMA_FILE",
    "SESSION",
    "ActionType",
    "Attribute",
    "CedarSchema",
    "CedarType",
    "EntityRef",
    "EntityType",
    "Extension",
    "Primitive",
    "Record",
    "Scaled",
    "SetOf",
    "parse_schema",
    "session_names",
    "type_json",
    "type_text",
    "with_standard_context",
]

SCHEMA_FILE = "schema.cedarschema"
"""Name of a bundle's schema."""

_STRINGS = SetOf(Primitive("String"))
_DATETIME = Extension("datetime")

_COUNTED = Attribute(Primitive("Long"))

SESSION: dict[str, Attribute] = {
    "calls": _COUNTED,
    **{
        name: replace(_COUNTED, required=False)
        for name in (
            "cost_micros", "failures", "input_tokens", "output_tokens", "repeats", "wall_ms",
        )
    },
}  # fmt: skip
"""Counters of the session before this call: `calls` let run, what they cost, `wall_ms` that their tools ran,
`failures` of tools, and `repeats`, how often this very call (tool and arguments) was attempted in a row just before.
The runtime fills them all; records of schema version 1 have `calls` alone, hence optional."""

STANDARD: dict[str, Attribute] = {
    "args": Attribute(Record()),
    "now": Attribute(_DATETIME),
    "scopes": Attribute(_STRINGS),
    "tenant": Attribute(Primitive("String")),
    "session": Attribute(Record(SESSION)),
    "approval": Attribute(
        Record({"approvers": Attribute(_STRINGS), "granted_at": Attribute(_DATETIME)}), required=False
    ),
}
"""What every action's context has beside the facts. `on_behalf_of` is there only where the author declares it."""


def parse_schema(text: str, file: str = SCHEMA_FILE) -> CedarSchema:
    """Parse a Cedar schema text.

    Raises:
        PolicySchemaError: Cedar refuses the text, or a `@scaled` annotation is malformed; with the line where
            it can be found.
    """
    try:
        cedarpy.Schema.from_str(text)
    except ValueError as exc:
        raise _refused(text, file, str(exc)) from exc
    try:
        return resolve(parse_declarations(text))
    except SchemaSyntaxError as exc:
        # Cedar reads it and we do not: refused rather than half understood.
        raise PolicySchemaError(f"schema cannot be read: {exc}", file=file, line=exc.line) from exc
    except Unresolved as exc:
        raise PolicySchemaError(str(exc), file=file, line=_line_of_names(text, str(exc))) from exc


def _refused(text: str, file: str, why: str) -> PolicySchemaError:
    """Cedar's refusal, with the line: the engine's message has none, our parser's has."""
    if text.lstrip().startswith("{"):
        return PolicySchemaError(
            "schema is JSON; write it in Cedar's schema language (`cedar translate-schema` converts it)",
            file=file,
            line=1,
        )
    try:
        parse_declarations(text)
    except SchemaSyntaxError as exc:
        return PolicySchemaError(f"schema does not parse: {exc} ({why})", file=file, line=exc.line)
    return PolicySchemaError(f"schema is not valid: {why}", file=file, line=_line_of_names(text, why))


def _line_of_names(text: str, why: str) -> int | None:
    """Line of the name a message is about; a second declaration is wrong where it stands last."""
    quoted = re.findall(r"`([^`]+)`", why) or re.findall(r"(?:types?|action): ([^,]+)", why)
    names = {part.rpartition("::")[2].strip('"') for part in quoted} - {"principal", "resource", "context"}
    lines = [token.line for token in tokenize(text) if token.text.strip('"') in names]
    again = re.search("twice|duplicate|shadows", why)
    return None if not lines else lines[-1 if again else 0]


def with_standard_context(schema: CedarSchema, file: str = SCHEMA_FILE) -> CedarSchema:
    """Add what the runtime puts into every action's context, where the author did not declare it.

    `args: {}`, `now: datetime`, `scopes: Set<String>`, `tenant: String`, `session: {calls: Long, …}` (see
    `SESSION`), all required, and `approval?: {approvers: Set<String>, granted_at: datetime}`. A declared one must
    have that type; `args` may be any record, `session` may have further members if they are optional (one that is
    called as a member of `SESSION` keeps the author's type, and is filled where that is `Long`), `on_behalf_of` may
    be of any entity type and is not added. Action groups (no `appliesTo`) stay as they are.

    Raises:
        PolicySchemaError: a declared member has another type.
    """
    actions = {key: _augmented(schema, action, file) for key, action in schema.actions.items()}
    return replace(schema, actions=actions, written=None)


def _augmented(schema: CedarSchema, action: ActionType, file: str) -> ActionType:
    if not action.principals:
        return action
    for name, declared in action.context.attrs.items():
        if not _fits(name, declared):
            raise PolicySchemaError(
                f"action `{action.key}` declares `{_declaration(name, declared)}` in its context, which the "
                f"runtime fills itself; declare {_allowed(name)}, or leave it out",
                file=file,
                line=schema.lines.get(action.key),
            )
    attrs = {**STANDARD, **action.context.attrs}
    session = attrs["session"].type
    assert isinstance(session, Record)  # noqa: S101 - it fits
    attrs["session"] = Attribute(Record({**SESSION, **session.attrs}))
    return replace(action, context=Record(attrs))


def session_names(type_: CedarType) -> frozenset[str]:
    """Return which counters of a session a `context.session` of this type has a place for."""
    declared = type_.attrs if isinstance(type_, Record) else {}
    return frozenset(n for n, found in declared.items() if n not in SESSION or found.type == _COUNTED.type)


def _fits(name: str, declared: Attribute) -> bool:
    """Whether an author may declare this context member so; facts of theirs may be anything."""
    match name, declared.type:
        case "args", type_:
            return isinstance(type_, Record) and declared.required
        case "session", Record(attrs):
            others = [attr for member, attr in attrs.items() if member != "calls"]
            counted = attrs.get("calls") == Attribute(Primitive("Long"))
            return declared.required and counted and not any(attr.required for attr in others)
        case "on_behalf_of", type_:
            return isinstance(type_, EntityRef)
        case _, type_:
            standard = STANDARD.get(name)
            return standard is None or (standard.type, standard.required) == (type_, declared.required)


def _allowed(name: str) -> str:
    match name:
        case "args":
            return "`args: {…}`, a required record"
        case "session":
            return "`session: {calls: Long}`, further members optional (`?:`)"
        case "on_behalf_of":
            return "`on_behalf_of?:` an entity type"
        case _:
            return f"`{_declaration(name, STANDARD[name])}`"


def _declaration(name: str, attribute: Attribute) -> str:
    return f"{name}{'' if attribute.required else '?'}: {type_text(attribute.type)}"
