"""Cedar JSON to Cedar values, each exactly as Cedar reads it, or not at all.

One rule: what Cedar would refuse, and what it might read otherwise than we would, is `Unfit`; its row is handed over.
Nothing is coerced: `5.0` is no Long, `"5"` is none, null is nothing.

With a type from the schema, the implicit forms are read too (`"10.0.0.1"` for an address, `{"type", "id"}` for an
entity) and every value must fit; without one, only the escapes `__entity` and `__extn` are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, assert_never

from runtime.schema import EntityRef, Extension, Primitive, Record, SetOf
from workbench.columnar.extension_text import CONSTRUCTORS, READERS, ExtensionKind, NotAValue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runtime.canonical import Json
    from runtime.schema import CedarType

_INT64 = range(-(2**63), 2**63)
DEEPEST = 100
"""Levels of JSON that are read here. Cedar refuses a text of more than 127, all that is around the value included."""


_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = frozenset({"if", "then", "else", "in", "is", "like", "has", "true", "false", "__cedar"})


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


Reader: TypeAlias = "Callable[[Json], Decoded]"
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


def _untyped(value: Json, depth: int = 0) -> Decoded:
    if depth > DEEPEST:
        raise Unfit(f"nested deeper than {DEEPEST} levels")
    match value:
        case bool():
            return value
        case int() if value in _INT64:
            return value
        case str():
            return _text(value)
        case list() | tuple():
            return Elements(tuple([_untyped(each, depth + 1) for each in value]))
        case {"__entity": entity, **rest} if not rest:
            return _reference(entity)
        case {"__extn": call, **rest} if not rest:
            return _call(call, depth)
        case dict() if not any(key.startswith("__e") for key in value):
            return {_text(key): _untyped(each, depth + 1) for key, each in value.items()}
        case _:
            raise Unfit(f"no Cedar value: {_shown(value)}")


def _typed(value: Json, type_: CedarType) -> Decoded:
    return _reader(type_)(value)


_readers: dict[int, tuple[CedarType, Reader]] = {}
"""By the type's identity: a reader is made once a type, not once a value."""
_MOST_READERS = 4096


def _reader(type_: CedarType) -> Reader:
    known = _readers.get(id(type_))
    if known is None:
        if len(_readers) >= _MOST_READERS:
            _readers.clear()
        known = _readers[id(type_)] = (type_, _made(type_))
    return known[1]


def _made(type_: CedarType) -> Reader:
    match type_:
        case Primitive(name):
            return _PRIMITIVES[name]
        case Extension(name):
            return partial(_of_extension, name)
        case EntityRef():
            return partial(_fitting, type_)
        case SetOf(element):
            return partial(_set, _made(element))
        case Record(attrs):
            # A member that begins with `__e` is an escape to Cedar, declared or not.
            members = {n: _made(each.type) for n, each in attrs.items() if not n.startswith("__e")}
            return partial(_record, members, tuple(n for n, each in attrs.items() if each.required))
        case _:
            assert_never(type_)


def _misfit(value: Json) -> Unfit:
    return Unfit(f"does not fit its type: {_shown(value)}")


def _shown(value: Json) -> str:
    try:
        return f"{str(value)[:80]!r}"
    except RecursionError:
        return "a value that is nested very deeply"


def _bool(value: Json) -> Decoded:
    if isinstance(value, bool):
        return value
    raise _misfit(value)


def _long(value: Json) -> Decoded:
    if isinstance(value, int) and not isinstance(value, bool) and value in _INT64:
        return value
    raise _misfit(value)


def _string(value: Json) -> Decoded:
    if isinstance(value, str):
        return _text(value)
    raise _misfit(value)


_PRIMITIVES: Mapping[str, Reader] = {"Bool": _bool, "Long": _long, "String": _string}


def _of_extension(kind: ExtensionKind, value: Json) -> Decoded:
    if isinstance(value, str):
        return _extended(kind, value)
    if isinstance(value, dict):
        found = _call(value["__extn"] if len(value) == 1 and "__extn" in value else value)
        if found.kind == kind:
            return found
    raise _misfit(value)


def _fitting(ref: EntityRef, value: Json) -> Ref:
    if not isinstance(value, dict):
        raise _misfit(value)
    escaped: Json = value["__entity"] if len(value) == 1 and "__entity" in value else value
    found = _reference(escaped)
    if found.type != ref.type or (ref.enum is not None and found.id not in ref.enum):
        raise Unfit(f"`{found.type}` where the schema declares `{ref.type}`")
    return found


def _set(element: Reader, value: Json) -> Decoded:
    if not isinstance(value, list):
        raise _misfit(value)
    return Elements(tuple([element(each) for each in value]))


def _record(members: Mapping[str, Reader], required: Sequence[str], value: Json) -> dict[str, Decoded]:
    if not isinstance(value, dict):
        raise _misfit(value)
    undeclared = value.keys() - members.keys()
    missing = [name for name in required if name not in value]
    if undeclared or missing:
        raise Unfit(f"members not declared: {sorted(undeclared)}; required ones missing: {missing}")
    return {name: members[name](each) for name, each in value.items()}


def fields(value: Mapping[str, Json], record: Record) -> dict[str, Decoded]:
    """Read a record of declared members, all required ones and no others."""
    found = _reader(record)(dict(value))
    assert isinstance(found, dict)  # noqa: S101 - of a record
    return found


def _text(value: str) -> str:
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise Unfit("text with a lone surrogate") from exc
    return value


def reference(kind: str, ident: str) -> Ref:
    """An entity's name.

    Raises:
        Unfit: Cedar knows no such type name, or the id is not Unicode.
    """
    if not _is_type_name(kind):
        raise Unfit(f"`{kind[:80]!a}` is no entity type's name")
    return Ref(kind, _text(ident))


@lru_cache(maxsize=4096)
def _is_type_name(text: str) -> bool:
    parts = text.split("::")
    return all(_IDENTIFIER.fullmatch(part) and part not in _RESERVED for part in parts)


def _reference(value: Json) -> Ref:
    if isinstance(value, dict) and len(value) == 2:  # noqa: PLR2004 - type and id
        kind, ident = value.get("type"), value.get("id")
        if isinstance(kind, str) and isinstance(ident, str):
            return reference(kind, ident)
    raise Unfit(f"no entity: {_shown(value)}")


def _call(value: Json, depth: int = 0) -> Extended:
    if depth > DEEPEST:
        raise Unfit(f"nested deeper than {DEEPEST} levels")
    if isinstance(value, dict) and len(value) == 2:  # noqa: PLR2004 - the usual form: function and argument
        function, argument = value.get("fn"), value.get("arg")
        if isinstance(argument, str) and isinstance(function, str) and function in CONSTRUCTORS:
            return _extended(CONSTRUCTORS[function], argument)
    match value:
        case {"fn": str(name), "args": [str(text)], **rest} if not rest and name in CONSTRUCTORS:
            return _extended(CONSTRUCTORS[name], text)
        case {"fn": "offset", "args": [{"__extn": since}, {"__extn": by}], **rest} if not rest:
            return _offset(_call(since, depth + 3), _call(by, depth + 3))
        case _:
            raise Unfit(f"an extension call that is not read here: {_shown(value)}")


def _offset(since: Extended, by: Extended) -> Extended:
    """A datetime that is written as a sum."""
    if (since.kind, by.kind) != ("datetime", "duration"):
        raise Unfit("`offset` of other types than datetime and duration")
    total = int(since.payload) + int(by.payload)
    if total not in _INT64:
        raise Unfit("a datetime beyond 64 bits")
    return Extended("datetime", total)


def _extended(kind: ExtensionKind, text: str) -> Extended:
    found = _extension(kind, text)
    if isinstance(found, str):
        raise Unfit(found)
    return found


@lru_cache(maxsize=65_536)
def _extension(kind: ExtensionKind, text: str) -> Extended | str:
    """The value, or why there is none."""
    try:
        return Extended(kind, READERS[kind](text))
    except NotAValue as exc:
        return f"`{kind}` value {text[:80]!r} {exc}"


def names_entities(type_: CedarType) -> bool:
    """Whether a value of this type may name an entity."""
    match type_:
        case EntityRef():
            return True
        case SetOf(element):
            return names_entities(element)
        case Record(attrs):
            return any(names_entities(each.type) for each in attrs.values())
        case Primitive() | Extension():
            return False
        case _:
            assert_never(type_)


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
