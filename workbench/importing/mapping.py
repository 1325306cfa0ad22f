"""Which columns of a file hold what: the mapping. `workbench.importing.mapping_file` reads it from TOML.

One rule: a key that is not known, and a column that the file does not have, are errors that name the closest one.

```toml
version = 1

[call]
session = "{run_id}"              # templates over columns; required
tool = "{tool_name}"              # required
tenant = "{suite}"                # default: "imported"
principal = "Agent::{model}"      # default: "Agent::agent"
on_behalf_of = "User::{user}"     # default: nobody; a null column: nobody
args = "args_json"                # a column of JSON texts or of structs; or { argument = "column", … }
order = "step"                    # a column that orders a session; default: the rows as they come

[time]
at = "called_at"                  # a column; default: derived from the order

[outcome]
executed = "executed"             # a column of booleans; see `Outcome`
```
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, Literal

from runtime.entities import EntityUid
from workbench.errors import MappingInvalid

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from collections.abc import Mapping as Table

    from runtime.canonical import Json

VERSION: Final = 1
"""Of this format. A reader refuses every other one by name."""

Storage = Literal["full", "hash", "none"]
Format = Literal["text", "json"]
Unit = Literal["s", "ms", "us"]
Effect = Literal["read", "idempotent", "staged", "compensable"]
Conversion = Literal["text", "drop"]
Level = Literal["call", "session"]

SLOT: Final = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A text over columns: `Agent::{model}`. Without slots it is the same for every row."""

    text: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it reads."""
        return tuple(SLOT.findall(self.text))

    def fill(self, row: Table[str, Any]) -> str | None:
        """Return the text for a row; None: a column of it is null."""
        missing = False

        def value(match: re.Match[str]) -> str:
            nonlocal missing
            found = row.get(match[1])
            missing |= found is None
            return found if isinstance(found, str) else str(found)

        text = SLOT.sub(value, self.text)
        return None if missing else text


@dataclass(frozen=True, slots=True)
class EntityTemplate:
    """An entity over columns: `Agent::{model}`. Its type never comes from a column."""

    type: str
    id: Template

    def fill(self, row: Table[str, Any]) -> EntityUid | None:
        """Return the entity of a row; None: a column of it is null."""
        ident = self.id.fill(row)
        return None if ident is None else EntityUid(self.type, ident)


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One label: said of each call, or of the whole session."""

    name: str
    column: str
    of: Level
    values: Table[str, str] = field(default_factory=dict)
    """What a value of the column is called; empty: as it is. With it, a value that is not named gives no label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """What is known of one tool beside its calls."""

    resource: str | None = None
    """Template over its arguments: `Order::{order_id}`; None: `Tool::"its name"`."""
    effect: Effect | None = None
    writes: tuple[str, ...] | None = None
    """Templates over its arguments: what it writes; None: undeclared, so its resource."""
    arguments: Table[str, Conversion] = field(default_factory=dict)
    """Argument → `text` its JSON becomes a text, `drop` it is left out. What is recorded is what was converted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Time:
    """When calls were made. What is not there is derived from the order, one second a call, and counted."""

    at: str | None = None
    """Column of the call's time: a timestamp, an ISO 8601 text, or a number of `unit`s since 1970."""
    session_start: str | None = None
    """Column of the session's time, where calls have none."""
    ended: str | None = None
    """Column of the time at which it returned."""
    duration_ms: str | None = None
    """Column of how long it took, milliseconds; instead of `ended`."""
    zone: str = "UTC"
    """IANA zone of times that name none."""
    unit: Unit = "s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of the call. Where no column says it, and `otherwise` neither: in doubt."""

    executed: str | None = None
    """Column of booleans: whether the tool was called."""
    status: str | None = None
    """Column that names the ending; `statuses` says which it is."""
    statuses: Table[str, str] = field(default_factory=dict)
    """Value of `status` → status of an execution."""
    otherwise: Literal["ran", "in_doubt"] = "in_doubt"
    """Of calls of which no column says whether they ran, and which nobody refused."""
    error: str | None = None
    """Column of the error: a text, or a boolean; null, empty and false mean that there was none."""
    result: str | None = None
    result_format: Format = "text"
    result_storage: Storage = "full"
    cost: str | None = None
    """Column of what it cost, in the currency's unit."""
    input_tokens: str | None = None
    output_tokens: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a system that guarded these calls said. It becomes the labels `recorded_verdict`, `recorded_reason`."""

    column: str | None = None
    reason: str | None = None
    refused: tuple[str, ...] = ()
    """Values that mean that the call was refused, and so not run."""
    by: Template = Template("recorded defence")
    """Who said it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """All of it."""

    session: Template
    tool: Template
    tenant: Template = Template("imported")
    principal: EntityTemplate = EntityTemplate("Agent", Template("agent"))
    on_behalf_of: EntityTemplate | None = None
    args: str | Table[str, str] | None = None
    """Column of all arguments, or column by argument; None: no tool has any."""
    args_missing: Literal["reject", "empty"] = "reject"
    order: str | None = None
    known_tools: frozenset[str] | None = None
    time: Time = Time()
    outcome: Outcome = Outcome()
    verdict: Verdict = Verdict()
    labels: tuple[Label, ...] = ()
    tools: Table[str, Tool] = field(default_factory=dict)
    missing: Table[str, Json] = field(default_factory=dict)
    """Column → what stands for its nulls."""
    runs_session: Template | None = None
    """Over the columns of the second file: the same text as `session`."""
    runs_labels: tuple[Label, ...] = ()
    document: str = ""
    """Canonical text of what was read: two mappings with the same one import the same."""

    @property
    def columns(self) -> dict[str, str]:
        """Column of the calls' file → key of the mapping that names it."""
        return dict(self._named())

    def _named(self) -> Iterator[tuple[str, str]]:
        behalf = self.on_behalf_of.id if self.on_behalf_of else Template("")
        texts = {"session": self.session, "tool": self.tool, "tenant": self.tenant}
        for key, template in {**texts, "principal": self.principal.id, "on_behalf_of": behalf}.items():
            yield from ((name, f"call.{key}") for name in template.columns)
        yield from ((name, "verdict.by") for name in self.verdict.by.columns)
        args = {"args": self.args} if isinstance(self.args, str) else dict(self.args or {})
        yield from ((name, "call.args") for name in args.values())
        single = {
            "call.order": self.order, "verdict.column": self.verdict.column, "verdict.reason": self.verdict.reason,
            **{f"time.{key}": getattr(self.time, key) for key in TIMES},
            **{f"outcome.{key}": getattr(self.outcome, key) for key in OUTCOMES},
        }  # fmt: skip
        yield from ((name, key) for key, name in single.items() if name is not None)
        yield from ((label.column, f"labels.{label.name}") for label in self.labels)
        yield from ((name, "missing") for name in self.missing)

    def check_columns(self, calls: Collection[str], runs: Collection[str] | None) -> None:
        """Refuse columns that the files do not have.

        Raises:
            MappingInvalid: naming the key, the column and the closest one.
        """
        for name, key in self._named():
            _require_column(name, key, calls, "the file of calls")
        if runs is None:
            if self.runs_session is not None:
                raise MappingInvalid(
                    "the mapping has a table `runs`: give the second file, too (`--runs FILE`)"
                )
            return
        if self.runs_session is None:
            raise MappingInvalid('a second file is given: name its key, `[runs] session = "{run_id}"`')
        for name in self.runs_session.columns:
            _require_column(name, "runs.session", runs, "the file of runs")
        for label in self.runs_labels:
            _require_column(label.column, f"runs.labels.{label.name}", runs, "the file of runs")


TIMES: Final = ("at", "session_start", "ended", "duration_ms")
"""Keys of `[time]` that name a column."""
OUTCOMES: Final = ("executed", "status", "error", "result", "cost", "input_tokens", "output_tokens")
"""Keys of `[outcome]` that name a column."""


def _require_column(name: str, key: str, known: Collection[str], where: str) -> None:
    if name not in known:
        raise MappingInvalid(f"`{key}`: {where} has no column `{name}`{hint(name, known)}")


def hint(name: str, known: Collection[str]) -> str:
    """Return the end of a message about a name that is not known: the closest one, or all."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean `{close[0]}`?" if close else f"; there are {', '.join(known) or 'none'}"
