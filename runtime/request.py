"""Step 1, request: who, what, on what, with which arguments, under which key.

One rule: a request is a value. Everything a later step needs to decide it again is in it, and nothing in it
is taken from the environment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.canonical import Json, canonical
from runtime.entities import EntityUid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_SLOT = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class RequestInvalid(ValueError):  # noqa: N818 - becomes a block decided by `request`, not an error the caller sees
    """The request itself is refused. `code` is one of `runtime.ruling.REASONS`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class ResourceTemplate:
    """How a tool's resource follows from its arguments: `Order::{order_id}`.

    The type is fixed by the declaration; an argument can never change it, whatever it contains.
    """

    text: str
    type: str
    id: str
    """Id with `{argument}` slots, filled by the arguments' JSON scalars."""

    @classmethod
    def parse(cls, text: str) -> ResourceTemplate:
        """Parse a template.

        Raises:
            ValueError: if there is no `Type::` before the id.

        Example:
            >>> ResourceTemplate.parse("Shop::Order::{order_id}").type
            'Shop::Order'
        """
        head, brace, tail = text.partition("{")
        kind, separator, prefix = head.rpartition("::")
        ident = (prefix + brace + tail).removeprefix('"').removesuffix('"')
        if not separator or not ident or not re.fullmatch(r"\w+(::\w+)*", kind):
            raise ValueError(f"resource template must be `Type::id` or `Type::{{argument}}`, got {text!r}")
        return cls(text, kind, ident)

    @property
    def has_loose_braces(self) -> bool:
        """Whether a brace is left that is no slot: a misspelt one would be taken literally."""
        return not {"{", "}"}.isdisjoint(_SLOT.sub("", self.id))

    @property
    def slots(self) -> frozenset[str]:
        """Names of the arguments the id is made of."""
        return frozenset(_SLOT.findall(self.id))

    def resolve(self, args: Mapping[str, Json]) -> EntityUid:
        """Fill the slots from `args`.

        Raises:
            RequestInvalid: `resource_unresolved`, if a slot's argument is missing, null, or no scalar.
        """

        def fill(match: re.Match[str]) -> str:
            value = args.get(match[1])
            if isinstance(value, str):
                return value
            if isinstance(value, bool | int):
                return canonical(value)
            raise RequestInvalid(
                "resource_unresolved",
                f"resource {self.text!r} needs argument `{match[1]}` as a string, integer or boolean, "
                f"got {type(value).__name__ if match[1] in args else 'nothing'}",
            )

        return EntityUid(self.type, _SLOT.sub(fill, self.id))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One tool call, before anything is decided about it."""

    decision_id: str
    session_id: str
    step: int
    """Order within the session, from 0."""
    tenant: str
    principal: EntityUid
    on_behalf_of: EntityUid | None
    scopes: tuple[str, ...]
    """Scopes the session holds, sorted."""
    tool: str
    """Tool name; the Cedar action is `Action::"<tool>"`."""
    resource: ResourceTemplate
    required_scopes: tuple[str, ...]
    """Scopes the tool declares, sorted."""
    args: Mapping[str, Json]
    """Arguments as given, by name."""
    idempotency_key: str | None
    at: datetime
    """Evaluation time, UTC, whole milliseconds: `context.now`."""
    session_state: Mapping[str, Json]
    """`context.session`: counters before this call, Cedar JSON."""

    @property
    def action(self) -> EntityUid:
        """The Cedar action."""
        return EntityUid("Action", self.tool)

    @property
    def missing_scopes(self) -> tuple[str, ...]:
        """Declared by the tool, not held by the session."""
        return tuple(sorted(set(self.required_scopes) - set(self.scopes)))
