"""Requests narrowed to what policies can read: the same answer, for a third of the engine's work.

One rule: a narrowed request is answered as the whole one is: same decision, same determining policies, and a policy
errs in both or in neither. Only the words of an error may differ (Cedar lists what a record has), so whoever needs
them, and whoever gets no decision, asks again with everything (`runtime.cedar`).

Why it holds. A policy whose action scope cannot be this action is neither satisfied nor in error. A context member
on no attribute chain of any other policy is never looked at. An entity without attributes, tags and parents behaves
as one that is not there: `in` is reflexive for both, `has` and `hasTag` are false of both, and `.` errs on both.

What is looked at and was left out is an evaluation error, after which the whole is asked: only a `has` could be
answered wrongly.

The engine still validates what it is given, against the schema narrowed alike: principal, resource and every member
that is read. Members that are left out were projected by the schema (`runtime.projection`: exact or refused).

Accepted: which members are read is over-estimated (a record that is compared is kept whole). Replay asks with
everything, so self-replay of every decision holds this module to its rule.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import cedarpy

from runtime.schema import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.canonical import Json
    from runtime.schema import ActionType, CedarSchema

Needs: TypeAlias = "dict[str, Needs] | None"
"""What is read of a record: needs by member; null: all of it."""

_Path: TypeAlias = "tuple[str, ...]"


@dataclass(frozen=True, slots=True)
class Narrow:
    """What matters in requests of one action."""

    idle: frozenset[str]
    """Ids of the policies whose scope is of other actions."""
    no_permits: frozenset[str]
    """Those, and the ids of all forbids."""
    needs: Needs
    """What the others read of the context."""

    def context(self, whole: Mapping[str, Json]) -> Mapping[str, Json]:
        """Return the members of a Cedar JSON context that can be read."""
        return whole if self.needs is None else _kept(whole, self.needs)


class Narrowing:
    """How requests under one bundle are narrowed."""

    def __init__(
        self, document: Mapping[str, Any], schema: CedarSchema, cedar_schema: cedarpy.Schema
    ) -> None:
        self._bodies = _bodies(document)
        self._schema = schema
        self.no_entities = cedarpy.Entities.from_json_str("[]", cedar_schema)
        """The engine's handle of the actions alone, with their groups."""
        self._by_action: dict[str, Narrow] = {}

    def of(self, action: str) -> Narrow:
        """Return what matters in requests of an action. Cached: there are as many as the schema declares.

        Raises:
            KeyError: the schema does not declare it.
        """
        found = self._by_action.get(action)
        if found is None:
            found = self._by_action[action] = self._narrow(self._schema.actions[action])
        return found

    @cached_property
    def schema(self) -> cedarpy.Schema:
        """The engine's handle of the schema whose contexts have what is read, and no more."""
        actions = {
            key: replace(action, context=_narrowed(action.context, self._narrow(action).needs))
            for key, action in self._schema.actions.items()
        }
        narrowed = replace(self._schema, actions=actions, written=None)
        return cedarpy.Schema.from_json_str(json.dumps(narrowed.to_json()))

    def _narrow(self, action: ActionType) -> Narrow:
        within = self._with_groups(action)
        idle = frozenset(ident for ident, body in self._bodies.items() if not _may_apply(body, within))
        needs: Needs = {}
        for ident, body in self._bodies.items():
            if ident not in idle:
                for path, whole in _paths(body["conditions"]):
                    needs = _with(needs, path, whole=whole)
        forbids = (ident for ident, body in self._bodies.items() if body["effect"] == "forbid")
        return Narrow(idle, idle.union(forbids), needs)

    def _with_groups(self, action: ActionType) -> frozenset[tuple[str, str]]:
        """Type and id of an action and of every group it is in."""
        found: set[tuple[str, str]] = set()
        queue = [action]
        while queue:
            each = queue.pop()
            uid = (f"{each.namespace}::Action" if each.namespace else "Action", each.name)
            if uid not in found:
                found.add(uid)
                queue.extend(self._schema.actions[key] for key in each.parents)
        return frozenset(found)


def _bodies(document: Mapping[str, Any]) -> dict[str, Any]:
    """Cedar JSON of what decides, by id; of a linked policy, its template's (slots are not read)."""
    links = {link["newId"]: document["templates"][link["templateId"]] for link in document["templateLinks"]}
    return {**document["staticPolicies"], **links}


def _may_apply(body: Mapping[str, Any], within: frozenset[tuple[str, str]]) -> bool:
    """Whether a policy's action scope can hold; what is not understood can."""
    match body["action"]:
        case {"op": "==" | "in", "entity": {"type": kind, "id": ident}}:
            return (kind, ident) in within
        case {"op": "in", "entities": list(entities)}:
            return any((each["type"], each["id"]) in within for each in entities)
        case _:
            return True


def _chain(node: object) -> _Path | None:
    """`context.args.amount` as a path below `context`; null: anything else."""
    match node:
        case {"Var": "context"}:
            return ()
        case {".": {"left": left, "attr": str(attr)}}:
            below = _chain(left)
            return None if below is None else (*below, attr)
        case _:
            return None


def _paths(node: object) -> Iterator[tuple[_Path, bool]]:
    """Every path below `context` that an expression may look at, and whether at its value or only if it is there."""
    path = _chain(node)
    if path is not None:
        yield path, True
        return
    match node:
        case {"has": {"left": left, "attr": str(attr)}} if (below := _chain(left)) is not None:
            yield (*below, attr), False
        case dict():
            for child in node.values():
                yield from _paths(child)
        case list():
            for child in node:
                yield from _paths(child)


def _with(needs: Needs, path: _Path, *, whole: bool) -> Needs:
    """Add a path that is looked at."""
    if needs is None or (whole and not path):
        return None
    if path:
        needs[path[0]] = _with(needs.get(path[0], {}), path[1:], whole=whole)
    return needs


def _narrowed(record: Record, needs: Needs) -> Record:
    """The record type with the members that are read; what is reached through a member's value is not its own."""
    if needs is None:
        return record
    kept = {}
    for name, attribute in record.attrs.items():
        if name in needs:
            inner = attribute.type
            kept[name] = (
                replace(attribute, type=_narrowed(inner, needs[name]))
                if isinstance(inner, Record)
                else attribute
            )
    return Record(kept)


def _kept(value: Mapping[str, Json], needs: Mapping[str, Needs]) -> dict[str, Json]:
    kept: dict[str, Json] = {}
    for name, below in needs.items():
        if name in value:
            kept[name] = value[name] if below is None else _member(value[name], below)
    return kept


def _member(value: Json, needs: dict[str, Needs]) -> Json:
    # A dictionary is a record, or one of Cedar's escapes, which has one member that no record may have.
    if type(value) is not dict or "__entity" in value or "__extn" in value:
        return value
    return _kept(value, needs)


__all__ = ["Narrow", "Narrowing", "Needs"]
