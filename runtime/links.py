r"""Template links: `links.json`, which fills the slots of a bundle's templates.

One rule: a link fills exactly the slots its template has, under an id of its own.

```json
[{"template": "limit-by-role", "id": "limit-interns", "values": {"?principal": "Role::\"intern\""}}]
```
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cedarpy

from runtime.canonical import without_doubles
from runtime.errors import PolicyError
from runtime.policy_files import parse_uid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runtime.entities import EntityUid
    from runtime.policy_files import Statement

LINKS_FILE = "links.json"
_KEYS = ("template", "id", "values")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One template with its slots filled."""

    id: str
    template: str
    """`@id` of the template."""
    values: Mapping[str, EntityUid]
    """By slot: `?principal`, `?resource`."""
    line: int
    """Line of `links.json`, from 1."""

    def json(self) -> dict[str, Any]:
        """Return Cedar's JSON form of the link."""
        values = {slot: {"__entity": uid.json()} for slot, uid in self.values.items()}
        return {"templateId": self.template, "newId": self.id, "values": values}

    def linked_text(self, template: Statement) -> str:
        """Return the policy that the link makes, as Cedar text."""
        body = copy.deepcopy(template.json)
        for place in _places(body):
            if "slot" in place:
                place["entity"] = self.values[place.pop("slot")].json()
        document = {"staticPolicies": {"policy0": body}, "templates": {}, "templateLinks": []}
        return cedarpy.policies_from_json_str(json.dumps(document))


def slots(template: Statement) -> set[str]:
    """Return the slots of a template."""
    return {place["slot"] for place in _places(template.json) if "slot" in place}


def _places(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Where a policy's scope may hold an entity or a slot: `== x`, `in x`, `is T in x`."""
    scopes = [body["principal"], body["resource"]]
    return [*scopes, *(scope["in"] for scope in scopes if "in" in scope)]


def parse_links(text: str, templates: Mapping[str, Statement]) -> tuple[Link, ...]:
    """Parse `links.json`.

    Args:
        text: the file.
        templates: the bundle's templates, by `@id`.

    Raises:
        PolicyError: not JSON, not a list of links, an unknown template, an id given twice, or slots that do not
            match; with the line.
    """
    found: dict[str, Link] = {}
    for entry, line in _entries(text):
        link = _link(entry, templates, line)
        if link.id in found:
            raise _error(
                f"link id is given twice, first on line {found[link.id].line}; rename one", line, link.id
            )
        found[link.id] = link
    return tuple(found.values())


def _error(message: str, line: int, policy: str | None = None) -> PolicyError:
    return PolicyError(message, file=LINKS_FILE, line=line, policy=policy)


def _entries(text: str) -> list[tuple[Any, int]]:
    """The members of the list, each with its line."""
    try:
        entries = json.loads(text, object_pairs_hook=without_doubles)
    except json.JSONDecodeError as exc:
        raise _error(f"not valid JSON: {exc.msg}", exc.lineno) from exc
    except ValueError as exc:
        raise _error(f"not valid JSON: {exc}", 1) from exc
    if not isinstance(entries, list):
        raise _error('must be a list of links: `[{"template": …, "id": …, "values": {"?principal": …}}]`', 1)
    lines, position, decoder = [], text.index("["), json.JSONDecoder()
    for _ in entries:
        match = re.compile(r"[\s,]*").match(text, position + 1)
        start = match.end() if match else position
        lines.append(text.count("\n", 0, start) + 1)
        position = decoder.raw_decode(text, start)[1] - 1
    return list(zip(entries, lines, strict=True))


def _link(entry: Any, templates: Mapping[str, Statement], line: int) -> Link:
    if not isinstance(entry, dict) or set(entry) != set(_KEYS) or not isinstance(entry["values"], dict):
        wanted = "`template`, `id` and `values` (an object by slot), and nothing else"
        raise _error(f"a link must have {wanted}, got {entry!r:.80}", line)
    ident, template = entry["id"], entry["template"]
    if not (isinstance(ident, str) and ident and isinstance(template, str)):
        raise _error(f"`id` and `template` must be strings, got {entry!r:.80}", line)
    if template not in templates:
        raise _error(f"no template has the `@id` {template!r}; there are: {_names(templates)}", line, ident)
    wanted_slots = slots(templates[template])
    if set(entry["values"]) != wanted_slots:
        given = _names(entry["values"])
        raise _error(
            f"template `{template}` has the slots {_names(wanted_slots)}, the link fills {given}", line, ident
        )
    return Link(id=ident, template=template, values=_values(entry["values"], line, ident), line=line)


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "none"


def _values(values: Mapping[str, Any], line: int, ident: str) -> dict[str, EntityUid]:
    try:
        return {
            slot: parse_uid(value if isinstance(value, str) else repr(value))
            for slot, value in values.items()
        }
    except ValueError as exc:
        wanted = 'slots are filled with entity uids as text, such as "Role::\\"intern\\""'
        raise _error(f"{wanted}: {exc}", line, ident) from exc
