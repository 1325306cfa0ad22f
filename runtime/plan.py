"""What deciding hangs on its bundle only, worked out once a bundle: by tool, and by what Cedar said.

One rule: nothing of a request is kept, but as a key. What is read here follows from schema and policies, which never
change under one bundle, and from the key, so it is never out of date.

It serves the runtime and replay alike (`runtime.prepare`, `runtime.policy`): there is one path, not a fast and a slow
one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runtime.assembly import Assembler
from runtime.projection import projector
from runtime.ruling import ruled
from runtime.schema import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runtime.bundle import PolicyInfo
    from runtime.canonical import Json
    from runtime.ruling import Answer, Ruled
    from runtime.schema import CedarSchema

MAX_RULED: Final = 4096
"""Most answers whose ruling is kept: policies can be satisfied in more combinations than there is memory."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How calls of one tool are prepared under one bundle."""

    project: Callable[[Json], tuple[Json, bool]]
    """Takes arguments to what policies see; see `runtime.projection.projector`."""
    assembler: Assembler


class Plans:
    """Of one bundle. Thread-safe: two threads that ask at once work out the same."""

    def __init__(self, schema: CedarSchema, policies: Mapping[str, PolicyInfo]) -> None:
        """Start empty; a bundle's own are `Bundle.plans`."""
        self._schema, self._policies = schema, policies
        self._by_tool: dict[str, Plan] = {}
        self._ruled: dict[tuple[str, tuple[str, ...], bool], Ruled] = {}

    def of(self, tool: str) -> Plan | None:
        """How calls of a tool are prepared; None: the schema declares no such action."""
        found = self._by_tool.get(tool)
        if found is None:
            action = self._schema.actions.get(tool)
            args = None if action is None else action.context.attrs.get("args")
            if action is None or args is None:
                return None
            assert isinstance(args.type, Record)  # noqa: S101 - a schema that declares another is refused
            made = Plan(projector(args.type, "context.args"), Assembler(action, self._schema))
            found = self._by_tool[tool] = made
        return found

    def ruled(self, answer: Answer) -> Ruled:
        """What follows from Cedar's answer. Kept where nothing erred: all that it hangs on is the key then."""
        key = (answer.decision, answer.reasons, answer.permitted)
        found = self._ruled.get(key)
        if found is None or answer.errors or answer.cause:
            found = ruled(answer, self._policies)
            if not answer.errors and not answer.cause and len(self._ruled) < MAX_RULED:
                self._ruled[key] = found
        return found


__all__ = ["MAX_RULED", "Plan", "Plans"]
