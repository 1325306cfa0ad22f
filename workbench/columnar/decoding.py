"""Cedar JSON to Cedar values, each exactly as Cedar reads it, or not at all.

One rule: what Cedar would refuse, and what it might read otherwise than we would, is `Unfit`; its row is handed over.
Nothing is coerced: `5.0` is no Long, `"5"` is none, null is nothing.

With a type from the schema, the implicit forms are read too (`"10.0.0.1"` for an address, `{"type", "id"}` for an
entity) and every value must fit; without one, only the escapes `__entity` and `__extn` are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, assert_never

from runtime.schema import EntityRef, Extension, Primitive, Record, SetOf
from workbench.columnar.extension_text import CONSTRUCTORS, READERS, ExtensionKind, NotAValue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.canonical import Json
    from runtime.schema import CedarType

_INT64 = range(-(2**63), 2**63)


class Unfit(ValueError):  # noqa: N818 - says what the value is
    """A value that Cedar refuses or that is not read here."""


class Ref(NamedTuple):
    """An entity by name."""

    type: str
    id: str


class Bound(NamedTuple):
    """An entity as a row of its type's table."""

    type: str
    row: int
    code: int


class Extended(NamedTuple):
    """An extension value."""

    kind: ExtensionKind
    payload: int | str


@dataclass(frozen=True, slots=True)
class Elements:
    """A set, as listed."""

    members: tuple[Decoded, ...]


Decoded: TypeAlias = "bool | int | str | Ref | Bound | Extended | Elements | dict[str, Decoded]"


def decode(value: Json, type_: CedarType | None) -> Decoded:
    """Read a value.

    Args:
        value: Cedar JSON.
        type_: what the schema declares; null: no schema.

    Raises:
        Unfit: see the module.
    """
    return _untyped(value) if type_ is None else _typed(value, type_)


def _untyped(value: Json) -> Decoded:
    match value:
        case bool():
            return value
        case int() if value in _INT64:
            return value
        case str():
            return _text(value)
        case list() | tuple():
            return Elements(tuple(_untyped(each) for each in value))
        case {"__entity": entity, **rest} if not rest:
            return _reference(entity)
        case {"__extn": call, **rest} if not rest:
            return _call(call)
        case dict() if not any(key.startswith("__e") for key in value):
            return {_text(key): _untyped(each) for key, each in value.items()}
        case _:
            raise Unfit(f"no Cedar value: {str(value)[:80]!r}")


def _typed(value: Json, type_: CedarType) -> Decoded:
    match type_, value:
        case Primitive("Bool"), bool():
            return value
        case Primitive("Long"), int() if not isinstance(value, bool) and value in _INT64:
            return value
        case Primitive("String"), str():
            return _text(value)
        case Extension(name), str():
            return _extended(name, value)
        case Extension(name), dict():
            found = _call(value["__extn"] if set(value) == {"__extn"} else value)
            if found.kind == name:
                return found
        case EntityRef() as ref, dict():
            return _fitting(ref, value)
        case SetOf(element), list():
            return Elements(tuple(_typed(each, element) for each in value))
        case Record() as record, dict():
            return fields(value, record)
    raise Unfit(f"does not fit its type: {str(value)[:80]!r}")


def _fitting(ref: EntityRef, value: Mapping[str, Json]) -> Ref:
    escaped: Json = value["__entity"] if set(value) == {"__entity"} else dict(value)
    found = _reference(escaped)
    if found.type != ref.type or (ref.enum is not None and found.id not in ref.enum):
        raise Unfit(f"`{found.type}` where the schema declares `{ref.type}`")
    return found


def fields(value: Mapping[str, Json], record: Record) -> dict[str, Decoded]:
    """Read a record of declared members, all required ones and no others."""
    undeclared = set(value) - set(record.attrs)
    missing = [name for name, each in record.attrs.items() if each.required and name not in value]
    if undeclared or missing or any(name.startswith("__e") for name in value):
        raise Unfit(f"members not declared: {sorted(undeclared)}; required ones missing: {missing}")
    return {name: _typed(each, record.attrs[name].type) for name, each in value.items()}


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise Unfit("text with a lone surrogate") from exc
    return value


def _reference(value: Json) -> Ref:
    match value:
        case {"type": str(kind), "id": str(ident), **rest} if not rest:
            return Ref(_text(kind), _text(ident))
        case _:
            raise Unfit(f"no entity: {str(value)[:80]!r}")


def _call(value: Json) -> Extended:
    match value:
        case {"fn": str(name), "arg": str(text), **rest} if not rest and name in CONSTRUCTORS:
            return _extended(CONSTRUCTORS[name], text)
        case {"fn": str(name), "args": [str(text)], **rest} if not rest and name in CONSTRUCTORS:
            return _extended(CONSTRUCTORS[name], text)
        case {"fn": "offset", "args": [{"__extn": since}, {"__extn": by}], **rest} if not rest:
            return _offset(_call(since), _call(by))
        case _:
            raise Unfit(f"an extension call that is not read here: {str(value)[:80]!r}")


def _offset(since: Extended, by: Extended) -> Extended:
    """A datetime that is written as a sum."""
    if (since.kind, by.kind) != ("datetime", "duration"):
        raise Unfit("`offset` of other types than datetime and duration")
    total = int(since.payload) + int(by.payload)
    if total not in _INT64:
        raise Unfit("a datetime beyond 64 bits")
    return Extended("datetime", total)


def _extended(kind: ExtensionKind, text: str) -> Extended:
    try:
        return Extended(kind, READERS[kind](text))
    except NotAValue as exc:
        raise Unfit(f"`{kind}` value {text[:80]!r} {exc}") from exc


def references(value: Decoded) -> list[Ref]:
    """Every entity named in a value."""
    match value:
        case Ref():
            return [value]
        case Elements(members):
            return [ref for member in members for ref in references(member)]
        case dict():
            return [ref for member in value.values() for ref in references(member)]
        case bool() | int() | str() | Bound() | Extended():
            return []
        case _:
            assert_never(value)
