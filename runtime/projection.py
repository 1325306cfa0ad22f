"""From a tool's JSON to the values policies see, as the schema declares them.

One rule: exact or refused. A value is never rounded, coerced or dropped to make it fit; what is accepted here is
accepted by Cedar under the same schema, and a caller's JSON is never read as one of Cedar's escapes.

| declared | taken from JSON |
|---|---|
| `Long` | an integer of 64 bits; not `true`, not `5.0` |
| `@scaled("amount*100") amount_cents: Long` | the member `amount`, a number or its text, times 100, exact |
| `String`, `Bool` | the same |
| `decimal` | a number or its text, at most four fractional digits, within Cedar's range |
| `datetime` | `2026-11-22`, or RFC 3339 with an offset, to the millisecond |
| `duration`, `ipaddr` | Cedar's own text: `1d2h`, `10.0.0.0/8` |
| an entity type | the id, or `{"type", "id"}` of that type |
| `Set<T>` | an array without null |
| a record | an object; a null member is absent, an undeclared one is refused |

Accepted: record members called `__extn`, `__entity` or `__expr` are refused even if declared, because Cedar's
JSON has no unambiguous form for them.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, assert_never

from runtime.extensions import NotExact, decimal_text, extension_text, scaled_integer
from runtime.schema import EntityRef, Extension, Primitive, Record, SetOf, type_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runtime.canonical import Json
    from runtime.schema import Attribute, CedarType, Scaled

PROJECTION_VERSION = 1
"""Version of the rules above; recorded with every decision."""

_ESCAPES = frozenset({"__extn", "__entity", "__expr"})
_INT64 = range(-(2**63), 2**63)
_FUNCTIONS = {"decimal": "decimal", "datetime": "datetime", "duration": "duration", "ipaddr": "ip"}


class ProjectionError(ValueError):
    """A value cannot be held exactly by its declared type."""

    def __init__(self, path: str, value: Json, why: str) -> None:
        super().__init__(f"`{path}` {why}, got {_shown(value)}")
        self.path = path
        """Where, such as `context.args.amount`."""
        self.value = value
        self.why = why
        """What is allowed, and the way out."""


def _shown(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - a line's worth


def project(value: Json, type_: CedarType, path: str) -> Json:
    """Return `value` as Cedar JSON of the declared type.

    Args:
        value: JSON as Python holds it.
        type_: Declared type.
        path: Where the value stands, for messages: `context.args`.

    Returns:
        Cedar JSON: `{"__extn": {"fn", "arg"}}` for extension types, `{"__entity": {"type", "id"}}` for entity
        references, everything else plain. Records hold their members in the schema's order, sets keep theirs.

    Raises:
        ProjectionError: at the first value that does not fit.

    Example:
        >>> project(12.5, Extension("decimal"), "context.args.rate")
        {'__extn': {'fn': 'decimal', 'arg': '12.5'}}
    """
    match type_:
        case Primitive():
            return _primitive(value, type_, path)
        case Extension(name):
            return _extension(value, name, path)
        case EntityRef():
            return {"__entity": dict(_entity(value, type_, path))}
        case SetOf(element):
            return _set(value, element, path)
        case Record():
            return _record(value, type_, path)
        case _:
            assert_never(type_)


_KINDS: dict[str, type] = {"String": str, "Long": int, "Bool": bool}


def projector(record: Record, path: str) -> Callable[[Json], tuple[Json, bool]]:
    """Return `project` for one record type, with what hangs on the type worked out once.

    Returns:
        A function of the value: what `project(value, record, path)` returns or raises, and whether it is the same
        members with the same values, so that both have one canonical text.
    """
    members = [
        (name, _KINDS[attribute.type.name] if type(attribute.type) is Primitive else None, attribute.required)
        for name, attribute in record.attrs.items()
    ]
    if not _ESCAPES.isdisjoint(record.attrs) or any(each.scaled for each in record.attrs.values()):
        members = [("", None, True)]  # none is taken as it is

    def projected(value: Json) -> tuple[Json, bool]:
        if type(value) is dict:
            taken: dict[str, Json] = {}
            for name, kind, required in members:
                item = value.get(name)
                found = type(item)
                if found is kind:
                    if (found is str and not item.isascii()) or (found is int and item not in _INT64):  # type: ignore[union-attr]  # mypy does not narrow by `type(…) is`
                        break
                    taken[name] = item
                elif item is not None or required:
                    break
            else:
                if len(taken) == len(value):  # nothing that is null or not declared is left
                    return taken, True
        return project(value, record, path), False  # it says what is wrong, or converts

    return projected


def _primitive(value: Json, type_: Primitive, path: str) -> Json:
    match type_.name, value:
        case "Bool", bool():
            return value
        case "String", str():
            return _unicode(value, path)
        case "Long", int() if not isinstance(value, bool):
            if value in _INT64:
                return value
            raise ProjectionError(
                path, value, "must fit a `Long` of 64 bits; declare it `String` to pass it on"
            )
        case "Long", float():
            raise ProjectionError(
                path, value, "must be an integer; declare it `decimal`, or `@scaled` to an integer unit"
            )
        case _:
            raise ProjectionError(path, value, f"must be a `{type_.name}`; {_remedy(value)}")


def _remedy(value: Json) -> str:
    """How to make the schema fit the value, or the other way round."""
    match value:
        case None:
            return "leave the member out, or declare it optional (`?:`)"
        case bool():
            return "declare it `Bool`, or pass the declared type"
        case int() | float():
            return "declare it `Long` or `decimal`, or pass the declared type"
        case str():
            return "declare it `String`, or pass the declared type"
        case dict():
            return "declare it a record, or pass the declared type"
        case _:
            return "declare it a `Set`, or pass the declared type"


def _unicode(text: str, path: str) -> str:
    """Python strings may hold lone surrogates, which no other Cedar engine could read back."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ProjectionError(path, text, "must be valid Unicode; it holds a lone surrogate") from None
    return text


def _extension(value: Json, name: str, path: str) -> Json:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ProjectionError(path, value, f"must be a `{name}`; {_remedy(value)}")
    try:
        text = decimal_text(value) if name == "decimal" else extension_text(name, value)
    except NotExact as exc:
        raise ProjectionError(path, value, str(exc)) from None
    return {"__extn": {"fn": _FUNCTIONS[name], "arg": text}}


def _entity(value: Json, ref: EntityRef, path: str) -> dict[str, str]:
    match value:
        case str():
            ident = value
        case {"type": str(given), "id": str(ident), **rest} if not rest:
            if given != ref.type:
                raise ProjectionError(path, value, f"must be an entity of type `{ref.type}`")
        case _:
            allowed = f'the id of a `{ref.type}`, or {{"type": "{ref.type}", "id": the id}}'
            raise ProjectionError(path, value, f"must be {allowed}")
    if ref.enum is not None and ident not in ref.enum:
        allowed = ", ".join(f"`{choice}`" for choice in ref.enum)
        raise ProjectionError(path, value, f"must be one of the ids of `{ref.type}`: {allowed}")
    return {"type": ref.type, "id": _unicode(ident, path)}


def _set(value: Json, element: CedarType, path: str) -> Json:
    if not isinstance(value, list | tuple):
        raise ProjectionError(path, value, f"must be an array, for `Set<{type_text(element)}>`")
    return [_element(item, element, f"{path}[{i}]") for i, item in enumerate(value)]


def _element(item: Json, element: CedarType, path: str) -> Json:
    if item is None:
        raise ProjectionError(
            path, item, "must not be null: a set has no place for it; leave the element out"
        )
    return project(item, element, path)


def _record(value: Json, record: Record, path: str) -> Json:
    if not isinstance(value, dict):
        raise ProjectionError(path, value, f"must be an object, for `{type_text(record)}`")
    given = {name: item for name, item in value.items() if item is not None}
    scaled = {
        n: found
        for n, attribute in record.attrs.items()
        if attribute.annotations and (found := attribute.scaled)
    }
    if scaled or not record.attrs.keys() >= given.keys() or not _ESCAPES.isdisjoint(given):
        _refuse_undeclared(given, record, scaled, path)
    projected: dict[str, Json] = {}
    for name, attribute in record.attrs.items():
        if name in given and not scaled and _is_exact(given[name], attribute.type):
            projected[name] = given[name]
            continue
        source = scaled[name].member if name in scaled else name
        if source in given:
            projected[name] = _member(given[source], attribute, scaled.get(name), _at(path, source))
        elif attribute.required:
            wanted = "number" if name in scaled else f"`{type_text(attribute.type)}`"
            raise ProjectionError(
                _at(path, source), None, f"is required: pass a {wanted}, or declare `{name}?:`"
            )
    return projected


def _is_exact(item: Json, type_: CedarType) -> bool:
    """Whether a value is its own projection, as most are; a no says nothing."""
    if type(type_) is not Primitive:
        return False
    kind, name = type(item), type_.name
    if kind is str:
        return name == "String" and item.isascii()  # type: ignore[union-attr]  # mypy does not narrow by `type(…) is`
    if kind is int:
        return name == "Long" and item in _INT64
    return kind is bool and name == "Bool"


def _member(item: Json, attribute: Attribute, scaled: Scaled | None, path: str) -> Json:
    if scaled is None:
        return project(item, attribute.type, path)
    try:
        return scaled_integer(item, scaled.factor)
    except NotExact as exc:
        raise ProjectionError(path, item, str(exc)) from None


def _refuse_undeclared(
    given: Mapping[str, Json], record: Record, scaled: Mapping[str, Scaled], path: str
) -> None:
    members = {found.member for found in scaled.values()}
    for name, item in given.items():
        if name in _ESCAPES:
            raise ProjectionError(
                _at(path, name), item, "is a name Cedar's JSON keeps for itself; rename the member"
            )
        if name in scaled and name not in members:
            source = scaled[name].member
            raise ProjectionError(_at(path, name), item, f"is computed from `{source}`; pass `{source}` only")
        if name not in record.attrs and name not in members:
            raise ProjectionError(_at(path, name), item, _undeclared(name, record, members))


def _undeclared(name: str, record: Record, members: set[str]) -> str:
    declared = sorted({*record.attrs, *members})
    close = difflib.get_close_matches(name, declared, n=1)
    known = f"did you mean `{close[0]}`?" if close else f"declared are {', '.join(declared) or 'none'}"
    return f"is an undeclared member ({known}): leave it out, or add it to the schema"


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if name.isidentifier() else f"{path}[{name!r}]"
