"""A call's arguments, from whichever form a file has them in, as the JSON that the trace records.

One rule: `canonical(arguments_of(...))` is what the trace records, and what it reads back is equal: a whole float is
an integer, as canonical JSON writes it.

A null in a struct column (`workbench.importing.records` takes those out), or in a column of its own, is an argument
that was not given: Parquet has no other way to say so. A null in JSON stays.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from runtime.canonical import Json, NotCanonical, canonical, parse, without_doubles
from runtime.errors import SourceError
from runtime.values import to_json
from workbench.importing.causes import Unmappable

if TYPE_CHECKING:
    from collections.abc import Mapping as Table

    from workbench.importing.causes import Cause
    from workbench.importing.mapping import Mapping
    from workbench.importing.records import Record

MAX_DEPTH: Final = 32
"""Levels of objects and arrays; Cedar itself stops at about a hundred, of a request as a whole."""
_MAY_BE_FLOATS: Final = frozenset(".eE")


def arguments_of(row: Record, tool: str, mapping: Mapping) -> dict[str, Json]:
    """Return a call's arguments.

    Raises:
        Unmappable: they are not there, no JSON, or hold a number that canonical JSON cannot write.
    """
    given = _given(row, mapping)
    known = mapping.tools.get(tool)
    if known is None or not known.arguments:
        return given
    kept = {name: value for name, value in given.items() if known.arguments.get(name) != "drop"}
    return {
        name: _as_text(value) if known.arguments.get(name) == "text" else value
        for name, value in kept.items()
    }


def _as_text(value: Json) -> Json:
    return value if value is None or isinstance(value, str) else canonical(value)


def _given(row: Record, mapping: Mapping) -> dict[str, Json]:
    named = mapping.args
    if named is None:
        return {}
    if not isinstance(named, str):
        return _exact(
            {argument: row[column] for argument, column in named.items() if row.get(column) is not None}
        )
    value = row.get(named)
    if value is None or (isinstance(value, str) and not value.strip()):
        if mapping.args_missing == "empty":
            return {}
        why = f'`{named}` is null; if that means no arguments, say `args_missing = "empty"` in `[call]`'
        raise Unmappable("args_missing", why)
    found = _parsed(value) if isinstance(value, str) else value
    if not isinstance(found, dict):
        raise Unmappable("args_not_object", f"`{named}` is a JSON {_kind(found)}, not an object")
    return _exact(found, plain=isinstance(value, str) and _MAY_BE_FLOATS.isdisjoint(value))


def _kind(value: object) -> str:
    names = {"list": "array", "str": "string", "bool": "boolean", "int": "number", "float": "number"}
    return names.get(type(value).__name__, type(value).__name__)


def _parsed(text: str) -> Json:
    try:
        found: Json = _decoder.decode(text)
    except RecursionError as exc:
        raise Unmappable("args_unreadable", "nested too deep") from exc
    except json.JSONDecodeError as exc:
        raise Unmappable("args_unreadable", str(exc)) from exc
    except ValueError as exc:  # from the hook, or an integer of thousands of digits
        doubled = "twice" in str(exc)
        raise Unmappable("member_doubled" if doubled else "number_out_of_range", str(exc)) from exc
    return found


def _no_constant(name: str) -> Json:
    raise Unmappable("number_out_of_range", f"{name} is no JSON number")


_decoder: Final = json.JSONDecoder(object_pairs_hook=without_doubles, parse_constant=_no_constant)


def _exact(args: Table[str, Any], *, plain: bool = False) -> dict[str, Json]:
    """Return the arguments as the trace reads them back; `plain`: JSON already, without a float in it."""
    _require_shallow(args)
    try:
        if plain:
            canonical(args)  # type: ignore[arg-type]  # it is JSON; refused where it cannot be written
            return dict(args)
        found = parse(canonical(to_json(args, "arguments")))
    except NotCanonical as exc:
        raise Unmappable(_cause_of(str(exc)), str(exc)) from exc
    except SourceError as exc:
        is_number = "beyond" in str(exc) or "JSON cannot say" in str(exc)
        raise Unmappable("number_out_of_range" if is_number else "type_unsupported", str(exc)) from exc
    assert isinstance(found, dict)  # noqa: S101 - it was one
    return found


def _require_shallow(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inside = [item for each in level for item in _items(each)]
        level = [item for item in inside if isinstance(item, dict | list)]
        if not level:
            return
    raise Unmappable("too_deep", f"nested deeper than {MAX_DEPTH} levels")


def _items(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


def _cause_of(message: str) -> Cause:
    return "text_unusable" if "surrogate" in message or "utf-8" in message.lower() else "number_out_of_range"
