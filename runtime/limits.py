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

import difflib
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runtime.canonical import Json, sha256
from runtime.errors import LimitsError

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        LimitsError: not TOML, an unknown key, or a value that is not allowed.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise LimitsError(f"not valid TOML: {exc}", file=file) from exc
    _refuse_unknown(document, frozenset({"version", "budget"}), file)
    if document.get("version", 1) != 1:
        raise LimitsError(f"version must be 1, got {document['version']!r}", file=file)
    entries = document.get("budget", [])
    if not isinstance(entries, list):
        raise LimitsError("write each budget as `[[budget]]`", file=file)
    return Limits(text=text, budgets=tuple(_budget(entry, file) for entry in entries))


def _budget(entry: dict[str, Any], file: str) -> Budget:
    _refuse_unknown(entry, _KEYS, file)
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise LimitsError("every budget needs a `name`", file=file)
    for key, allowed in (("per", "session"), ("measure", "calls")):
        if entry.get(key, allowed) != allowed:
            raise LimitsError(f"budget {name!r}: `{key}` must be {allowed!r}, got {entry[key]!r}", file=file)
    maximum, actions = entry.get("max"), entry.get("actions", ["*"])
    if not isinstance(maximum, int) or isinstance(maximum, bool) or maximum < 0:
        raise LimitsError(
            f"budget {name!r}: `max` must be an integer of 0 or more, got {maximum!r}", file=file
        )
    if not isinstance(actions, list) or not all(isinstance(action, str) for action in actions):
        raise LimitsError(
            f"budget {name!r}: `actions` must be a list of tool names, got {actions!r}", file=file
        )
    return Budget(name=name, max=maximum, actions=tuple(actions))


def _refuse_unknown(table: Mapping[str, Any], known: frozenset[str], file: str) -> None:
    for key in sorted(set(table) - known):
        close = difflib.get_close_matches(key, known, n=1)
        hint = f", did you mean `{close[0]}`?" if close else f"; known are {', '.join(sorted(known))}"
        raise LimitsError(f"unknown key `{key}`{hint}", file=file)
