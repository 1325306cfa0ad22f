"""Step 1, request: who, what, on what, with which arguments, under which key.

One rule: a request is a value. Everything a later step needs to decide it again is in it, and nothing in it
is taken from the environment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from runtime.canonical import Json, canonical
from runtime.entities import EntityUid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

MAX_SKEW_US = 5_000_000
"""How far ahead of a decision a fact that may not be stale may be dated: clocks of two machines differ."""

_SLOT = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@lru_cache(maxsize=4096)
def _pieces(ident: str) -> tuple[str, ...]:
    """Text, name of a slot, text, name, …, text: there are as many as tools declare templates."""
    return tuple(_SLOT.split(ident))


class RequestInvalid(ValueError):  # noqa: N818 - becomes a block decided by `request`, not an error the caller sees
    """The request itself is refused. `code` is one of `runtime.ruling.REASONS`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class ResourceTemplate:
    """How a tool's resource follows from its arguments: `Order::{order_id}`.

    The type is fixed by the declaration; an argument can never change it, whatever it contains. Nor can arguments of
    several slots be put together in two ways: the text between two slots (there must be some) may not occur where the
    first ends, or `check` refuses them, so `{owner}/{name}` takes no `/` in an owner. Records are resolved without
    that check, as they were when there was none.
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

    @property
    def has_touching_slots(self) -> bool:
        """Whether nothing stands between two slots: nobody could tell where the first one's argument ends."""
        return "}{" in self.id

    def check(self, args: Mapping[str, Json]) -> None:
        """Refuse arguments that share their resource with others, by what stands between two slots.

        With one slot there are none. A slot that cannot be filled is for `resolve` to refuse.

        Raises:
            RequestInvalid: `args_invalid`, naming the argument and the text.

        Example:
            >>> ResourceTemplate.parse("File::{a}/{b}").check({"a": "x/y", "b": "z"})
            Traceback (most recent call last):
            runtime.request.RequestInvalid: argument `a` must not hold '/', which ends it in resource 'File::{a}/{b}'
        """
        if self.id.count("{") <= 1:
            return
        _, *pieces = _pieces(self.id)  # name, text after it, name, text after it, …
        for name, after in zip(pieces[:-2:2], pieces[1:-2:2], strict=True):
            value = args.get(name)
            text = value if isinstance(value, str) else canonical(value)
            # Found where it ends, and not before: `aa` after `xa` would be found inside the argument.
            if (text + after).find(after) != len(text):
                raise RequestInvalid(
                    "args_invalid",
                    f"argument `{name}` must not hold {after!r}, which ends it in resource {self.text!r}",
                )

    def resolve(self, args: Mapping[str, Json]) -> EntityUid:
        """Fill the slots from `args`.

        Raises:
            RequestInvalid: `resource_unresolved`, if a slot's argument is missing, null, or no scalar.
        """
        pieces = _pieces(self.id)
        ident = pieces[0]
        for name, after in zip(pieces[1::2], pieces[2::2], strict=True):
            value = args.get(name)
            ident += (value if isinstance(value, str) else self._filled(name, value, args)) + after
        return EntityUid(self.type, ident)

    def _filled(self, name: str, value: Json, args: Mapping[str, Json]) -> str:
        if isinstance(value, bool | int):
            return canonical(value)
        raise RequestInvalid(
            "resource_unresolved",
            f"resource {self.text!r} needs argument `{name}` as a string, integer or boolean, "
            f"got {type(value).__name__ if name in args else 'nothing'}",
        )


@lru_cache(maxsize=4096)
def action_of(tool: str) -> EntityUid:
    """Return the Cedar action of a tool; one object for each, as there are few."""
    return EntityUid("Action", tool)


@dataclass(frozen=True, kw_only=True)  # without slots, so that `judged_by` can take over all fields at once
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
    limits: Mapping[str, Json] = field(default_factory=dict)
    """What the limits stage judges by beside `session_state`, as `runtime.metering` read it before this call."""
    max_skew_us: int | None = MAX_SKEW_US
    """How far ahead of `at` facts with `max_age` may be dated, microseconds; None: any, as in schema version 1."""
    bound: tuple[Mapping[str, Json], str] | None = field(default=None, compare=False, repr=False)
    """Arguments that were just bound to the tool's signature, and their canonical text; says nothing of others."""

    def judged_by(
        self, session_state: Mapping[str, Json], limits: Mapping[str, Json], attempts: str | None
    ) -> Request:
        """Return the request with what its limits stage judges by."""
        return self.again(session_state=session_state, limits=limits, attempts=attempts)

    def again(self, **own: Any) -> Request:
        """Return a request like this one but for its `own` fields; `dataclasses.replace` takes ten times as long."""
        made = object.__new__(Request)
        made.__dict__.update(self.__dict__, **own)
        return made

    @property
    def is_bound(self) -> bool:
        """Whether `args` are known to fit the tool."""
        return self.bound is not None and self.bound[0] is self.args

    @property
    def args_text(self) -> str:
        """Canonical text of `args`.

        Raises:
            NotCanonical: they have none.
        """
        if self.bound is not None and self.bound[0] is self.args:
            return self.bound[1]
        return canonical(dict(self.args))

    attempts: str | None = field(default=None, compare=False, repr=False)
    """What is to be kept of the session's attempts with this one, as `runtime.metering` read it; None: it did not."""

    @property
    def limit_inputs(self) -> dict[str, Json]:
        """All that the limits stage judges by; recorded as `stage_inputs.limits`."""
        return {**self.limits, **self.session_state}

    @property
    def action(self) -> EntityUid:
        """The Cedar action."""
        return action_of(self.tool)

    @property
    def missing_scopes(self) -> tuple[str, ...]:
        """Declared by the tool, not held by the session."""
        return tuple(sorted(set(self.required_scopes) - set(self.scopes)))
