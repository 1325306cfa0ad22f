"""What a `modify` verdict does to the arguments: RFC 7396 merge patches with references.

One rule: patches of several policies are one change. They are computed against the same context, and two that
write different values to one path are a conflict, never an order.

A leaf `{"$ref": "context.order.refundable_cents"}` is replaced by the value found there, in plain JSON: a Cedar
decimal becomes a JSON number, a datetime its string, an entity its id. Source: RFC 7396; DESIGN section 3.
"""

from __future__ import annotations

import copy
from decimal import Decimal
from typing import TYPE_CHECKING

import json_merge_patch

from runtime.canonical import Json, NotCanonical, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

REF_ROOTS = ("context", "resource", "principal")
"""Where a `$ref` may start."""

_Path = tuple[str, ...]


class PatchError(ValueError):
    """The patches cannot be applied. `code` is a reason of `runtime.ruling.REASONS`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def merge(
    args: Mapping[str, Json], patches: Iterable[tuple[str, Json]], roots: Mapping[str, Json]
) -> dict[str, Json]:
    """Apply all patches to a copy of `args`.

    Args:
        args: arguments as given.
        patches: (policy id, patch) of each satisfied `modify` policy.
        roots: values of `context`, `resource` and `principal` in Cedar JSON.

    Raises:
        PatchError: `patch_unresolved`, `patch_conflict`, or `patch_invalid` when nothing changes.
    """
    resolved = [(policy, resolve(patch, roots, policy)) for policy, patch in patches]
    _refuse_conflicts(resolved)
    result: Json = copy.deepcopy(dict(args))
    for _, patch in resolved:
        result = json_merge_patch.merge(result, copy.deepcopy(patch))
    if not isinstance(result, dict) or _text(result, resolved) == canonical(dict(args)):
        raise PatchError("patch_invalid", f"patch of {_names(resolved)} changes nothing")
    return result


def _text(result: Json, patches: list[tuple[str, Json]]) -> str:
    """Canonical text of a result; a fraction beside an integer that no double holds has none."""
    try:
        return canonical(result)
    except NotCanonical as exc:
        raise PatchError(
            "patch_invalid", f"patch of {_names(patches)} has no canonical result: {exc}"
        ) from exc


def resolve(patch: Json, roots: Mapping[str, Json], policy: str) -> Json:
    """Replace every reference in `patch` by the value it names."""
    match patch:
        case {"$ref": str(path), **rest} if not rest:
            return _lookup(path, roots, policy)
        case dict():
            return {key: resolve(value, roots, policy) for key, value in patch.items()}
        case list():
            return [resolve(value, roots, policy) for value in patch]
        case _:
            return patch


def _lookup(path: str, roots: Mapping[str, Json], policy: str) -> Json:
    value: Json = dict(roots)
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            raise PatchError(
                "patch_unresolved", f"patch of `{policy}` refers to `{path}`, which is absent here"
            )
        value = value[part]
    return plain(value)


def plain(value: Json) -> Json:
    """Return a Cedar JSON value as the JSON a tool takes."""
    match value:
        case {"__extn": {"fn": "decimal", "arg": str(text)}}:
            return _number(text)
        case {"__extn": {"arg": str(text)}}:
            return text
        case {"__entity": {"id": str(ident)}}:
            return ident
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case list():
            return [plain(item) for item in value]
        case _:
            return value


def _number(text: str) -> int | float:
    """Return a Cedar decimal as a JSON number, exactly."""
    number = float(text)
    if Decimal(repr(number)) != Decimal(text):
        raise PatchError(
            "patch_invalid", f"a patch refers to the decimal {text}, which no JSON number holds exactly"
        )
    return int(number) if number.is_integer() else number


def _refuse_conflicts(patches: list[tuple[str, Json]]) -> None:
    written: dict[_Path, tuple[str, str]] = {}
    for policy, patch in patches:
        for path, value in _writes(patch, ()):
            for other, (owner, text) in written.items():
                if owner != policy and _clash(path, value, other, text):
                    raise PatchError(
                        "patch_conflict",
                        f"patches of `{owner}` and `{policy}` write different values to `{'.'.join(path)}`",
                    )
            written.setdefault(path, (policy, value))


def _clash(path: _Path, value: str, other: _Path, text: str) -> bool:
    if path == other:
        return value != text
    shorter = min(len(path), len(other))
    return path[:shorter] == other[:shorter]


def _writes(patch: Json, path: _Path) -> Iterator[tuple[_Path, str]]:
    """Every leaf a patch writes, with its canonical text; an empty object counts as a leaf."""
    if isinstance(patch, dict) and patch:
        for key, value in patch.items():
            yield from _writes(value, (*path, key))
    else:
        yield path, canonical(patch)


def _names(patches: list[tuple[str, Json]]) -> str:
    return ", ".join(f"`{policy}`" for policy, _ in patches)
