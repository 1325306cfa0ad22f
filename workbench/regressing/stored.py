"""A night as JSON text, and back.

One rule: what comes back is equal to what went in, or nothing does; a text of another shape, or of a newer redecide,
is refused. Numbers that JSON has not (infinite ones, NaN) are written as `{"$float": "inf"}`.
"""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from workbench.errors import JobStateError
from workbench.regressing.result import Candidate, Drifted, GateLook, Night, Range, Reopened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.canonical import Json

T = TypeVar("T", Night, Candidate, Drifted, Range)

VERSION: Final = 1
"""Of the shape; a newer one is refused."""

_FLOAT: Final = "$float"
_INNER: Final[Mapping[type, Mapping[str, type]]] = {
    Night: {"candidates": Candidate, "drift": Drifted},
    Candidate: {"window": Range, "reopened": Reopened, "gates": GateLook},
    Drifted: {"before": Range, "after": Range, "gates": GateLook},
}
"""Fields that hold values of ours: one, several or none."""


def to_json(value: Night | Candidate | Drifted | Range) -> str:
    """Return it as JSON, sorted, so that equal values are equal texts.

    Raises:
        TypeError: it holds what JSON has no form for.
    """
    given = {"version": VERSION, type(value).__name__: _plain(value)}
    return json.dumps(given, sort_keys=True, allow_nan=False)


def from_json(text: str, kind: type[T]) -> T:
    """Return what `to_json` wrote.

    Raises:
        JobStateError: the text is no such value, or a newer redecide wrote it.
    """
    what = kind.__name__
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise JobStateError(f"what was kept of a night is no JSON: {exc}; restore it from a copy") from exc
    version = given.get("version") if isinstance(given, dict) else None
    if type(version) is not int:
        raise JobStateError(f"what was kept of a night is no {what}; restore it from a copy")
    if version > VERSION:
        raise JobStateError(
            f"a newer redecide wrote this {what} (version {version}, this one reads {VERSION}); upgrade redecide"
        )
    found = _made(kind, given.get(what), what)
    assert isinstance(found, kind)  # noqa: S101 - `_made` makes what it is told
    return found


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: str(value)}
    return value


def _made(kind: type, given: object, where: str) -> Any:
    """A value of ours, of its members."""
    known = {each.name: each for each in fields(kind)}
    if not isinstance(given, dict) or (stray := given.keys() - known.keys()):
        extra = f"has `{min(stray)}`" if isinstance(given, dict) else f"is {given!r:.40}"
        raise JobStateError(
            f"{where} {extra}, which this redecide does not know; upgrade redecide, or restore a copy"
        )
    for name, each in known.items():
        if name not in given and each.default is MISSING and each.default_factory is MISSING:
            raise JobStateError(f"{where} has no `{name}`; restore it from a copy")
    inner = _INNER.get(kind, {})
    found = {name: _member(inner.get(name), each, f"{where}.{name}") for name, each in given.items()}
    # A list is a tuple in every field of ours; deeper ones are JSON, and stay lists.
    return kind(**{name: tuple(each) if isinstance(each, list) else each for name, each in found.items()})


def _member(kind: type | None, given: Json, where: str) -> Any:
    if kind is None or given is None:
        return _restored(given)
    if isinstance(given, list):
        return [_made(kind, each, where) for each in given]
    return _made(kind, given, where)


def _restored(given: Json) -> Any:
    match given:
        case {"$float": str() as text, **rest} if not rest:
            return float(text)
        case dict():
            return {name: _restored(each) for name, each in given.items()}
        case list():
            return [_restored(each) for each in given]
    return given
