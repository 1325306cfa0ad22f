"""Limits: the stage between context and policy, from `limits.toml`.

One rule: a limit's verdict follows from recorded inputs alone, so that replay can take it again.

```toml
version = 1
[[budget]]
name = "calls-per-session"
per = "session"
measure = "calls"      # calls that were let run before this one
max = 50
actions = ["*"]
```

Out of scope here: rates, breakers, money and emergency stops; they extend `Budget` and keep the rule.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.canonical import Json, sha256
from runtime.errors import LimitsError
from runtime.toml import TomlLines, TomlTable, did_you_mean, line_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.schema import CedarSchema

_KEYS = frozenset({"name", "per", "measure", "max", "actions"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """At most `max` calls let run in one session."""

    name: str
    max: int
    """Calls; the call that would exceed it is blocked by `limits`."""
    actions: tuple[str, ...]
    """Tools whose calls are refused when the budget is spent; `*` is all."""

    def applies(self, tool: str) -> bool:
        """Whether a call of `tool` is refused when the budget is spent."""
        return "*" in self.actions or tool in self.actions


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """A parsed `limits.toml`; an empty file is no limits."""

    text: str
    budgets: tuple[Budget, ...] = ()

    @property
    def hash(self) -> str:
        """Hash of the canonical text."""
        return sha256(self.text)

    def spent(self, tool: str, session_state: Mapping[str, Json]) -> Budget | None:
        """Return the first budget that this call would exceed, in file order."""
        calls = session_state.get("calls", 0)
        if not isinstance(calls, int):
            raise TypeError(f"session state has no integer `calls`: {session_state!r}")
        return next((b for b in self.budgets if b.applies(tool) and calls >= b.max), None)


def parse_limits(text: str, file: str = "limits.toml") -> Limits:
    """Parse `limits.toml`.

    Raises:
        LimitsError: not TOML, an unknown key, or a value that is not allowed; with the line.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise LimitsError(f"not valid TOML: {exc}", file=file, line=line_of(exc, text)) from exc
    root = TomlTable(document, "limits", LimitsError, file, TomlLines(text))
    root.allow(frozenset({"version", "budget"}))
    if document.get("version", 1) != 1:
        raise root.error(f"`version` must be 1, got {document['version']!r}", "version")
    return Limits(text=text, budgets=tuple(map(_budget, root.array_of_tables("budget", "budget"))))


def _budget(table: TomlTable) -> Budget:
    table.allow(_KEYS)
    name = table.required("name")
    table = table.named(f"budget `{name}`")
    for key, allowed in (("per", "session"), ("measure", "calls")):
        if table.table.get(key, allowed) != allowed:
            raise table.error(f"`{key}` must be {allowed!r}, got {table.table[key]!r}", key)
    maximum = table.table.get("max")
    if not isinstance(maximum, int) or isinstance(maximum, bool) or maximum < 0:
        given = f"got {maximum!r}" if table.has("max") else "it is missing"
        raise table.error(f"`max` must be an integer of 0 or more, {given}", "max")
    actions = table.names("actions") if table.has("actions") else ("*",)
    if not actions:
        raise table.error("`actions` must name tools, or be left out for all of them, got []", "actions")
    return Budget(name=name, max=maximum, actions=actions)


def check_limits(limits: Limits, schema: CedarSchema, file: str = "limits.toml") -> None:
    """Refuse a budget for an action that no call can have: it would never be spent.

    Raises:
        LimitsError: naming the action and what is declared.
    """
    known = {name for name, action in schema.actions.items() if action.principals}
    for index, budget in enumerate(limits.budgets):
        for action in sorted(set(budget.actions) - known - {"*"}):
            hint = did_you_mean(action, known) or f"; declared are {', '.join(sorted(known)) or 'none'}"
            raise LimitsError(
                f"budget `{budget.name}`: action {action!r} is not declared in the schema{hint}",
                file=file,
                line=TomlLines(limits.text).at("budget", index, "actions"),
            )
