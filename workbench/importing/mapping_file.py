"""Reading a mapping from TOML.

One rule: a key that is not known is an error that names the closest one; nothing is ignored.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from runtime.canonical import canonical
from runtime.request import ResourceTemplate
from runtime.trace import ExecutionStatus
from workbench.errors import MappingInvalid
from workbench.importing.mapping import (
    OUTCOMES,
    SLOT,
    TIMES,
    VERSION,
    Conversion,
    Effect,
    EntityTemplate,
    Format,
    Label,
    Level,
    Mapping,
    Outcome,
    Storage,
    Template,
    Time,
    Tool,
    Unit,
    Verdict,
    hint,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping as Table


def read_mapping(path: str | Path) -> Mapping:
    """Read a mapping from a TOML file.

    Raises:
        MappingInvalid: it is not there, not TOML, or says something that is not known; names the key and the fix.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except FileNotFoundError as exc:
        raise MappingInvalid(
            f"no mapping at {str(path)!r}; `redecide import calls FILE --suggest` prints one"
        ) from exc
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise MappingInvalid(f"mapping {str(path)!r} cannot be read: {exc}") from exc
    try:
        return mapping_of(document)
    except MappingInvalid as exc:
        raise MappingInvalid(f"mapping {str(path)!r}: {exc}") from exc


def mapping_of(document: Table[str, Any]) -> Mapping:
    """Build a mapping from a TOML document, as `tomllib` reads it.

    Raises:
        MappingInvalid: as `read_mapping`.
    """
    top = _Section(document, "")
    top.allow("version", "call", "time", "outcome", "verdict", "labels", "tools", "missing", "runs")
    if document.get("version") != VERSION:
        raise MappingInvalid(
            f"`version` must be {VERSION}, got {document.get('version')!r}: the format has a version"
        )
    runs = top.section("runs")
    runs.allow("session", "labels")
    return Mapping(
        **_call(top.section("call")),
        time=_time(top.section("time")),
        outcome=_outcome(top.section("outcome")),
        verdict=_verdict(top.section("verdict")),
        labels=tuple(map(_label, top.sections("labels"))),
        tools={name: _tool(table) for name, table in top.section("tools").each()},
        missing=top.section("missing").table,
        runs_session=runs.template("session") if runs.table else None,
        runs_labels=tuple(_label(table, of="session") for table in runs.sections("labels")),
        document=_canonical(document),
    )


def _canonical(document: Table[str, Any]) -> str:
    try:
        return canonical(dict(document))
    except ValueError as exc:
        raise MappingInvalid(f"a value is no JSON: {exc}; write dates as texts") from exc


def _call(call: _Section) -> dict[str, Any]:
    call.allow(
        "session", "tool", "tenant", "principal", "on_behalf_of", "args", "args_missing", "order", "known_tools"
    )  # fmt: skip
    given: dict[str, Any] = {"tenant": call.template("tenant")} if "tenant" in call.table else {}
    given |= {key: call.entity(key) for key in ("principal", "on_behalf_of") if key in call.table}
    args = call.table.get("args")
    return given | {
        "session": call.template("session"),
        "tool": call.template("tool"),
        "args": call.texts("args") if isinstance(args, dict) else call.text("args"),
        "args_missing": call.choice("args_missing", ("reject", "empty"), "reject"),
        "order": call.text("order"),
        "known_tools": frozenset(call.names("known_tools")) if "known_tools" in call.table else None,
    }


def _time(time: _Section) -> Time:
    time.allow(*TIMES, "zone", "unit")
    columns = {key: time.text(key) for key in TIMES}
    return Time(**columns, zone=time.text("zone") or "UTC", unit=time.choice("unit", get_args(Unit), "s"))


def _outcome(outcome: _Section) -> Outcome:
    outcome.allow(*OUTCOMES, "statuses", "otherwise", "result_format", "result_storage")
    statuses = outcome.texts("statuses")
    for value, status in statuses.items():
        if status not in get_args(ExecutionStatus):
            allowed = ", ".join(get_args(ExecutionStatus))
            raise MappingInvalid(f"`outcome.statuses.{value}` must be one of {allowed}, got {status!r}")
    if ("status" in outcome.table) != bool(statuses):
        raise MappingInvalid(
            "`outcome.status` and `outcome.statuses` go together: a column, and what its values mean"
        )
    return Outcome(
        **{key: outcome.text(key) for key in OUTCOMES},
        statuses=statuses,
        otherwise=outcome.choice("otherwise", ("ran", "in_doubt"), "in_doubt"),
        result_format=outcome.choice("result_format", get_args(Format), "text"),
        result_storage=outcome.choice("result_storage", get_args(Storage), "full"),
    )


def _verdict(verdict: _Section) -> Verdict:
    verdict.allow("column", "reason", "refused", "by")
    by = {"by": verdict.template("by")} if "by" in verdict.table else {}
    refused = verdict.names("refused")
    if refused and verdict.text("column") is None:
        raise MappingInvalid("`verdict.refused` names values of `verdict.column`: give it, too")
    return Verdict(column=verdict.text("column"), reason=verdict.text("reason"), refused=refused, **by)


def _label(label: _Section, of: Level | None = None) -> Label:
    label.allow("name", "column", "values", *(() if of else ("of",)))
    return Label(
        name=label.required("name"),
        column=label.required("column"),
        of=of or label.choice("of", get_args(Level), "call"),
        values=label.texts("values"),
    )


def _tool(tool: _Section) -> Tool:
    tool.allow("resource", "effect", "writes", "arguments")
    arguments = tool.texts("arguments")
    for name, what in arguments.items():
        if what not in get_args(Conversion):
            raise MappingInvalid(f"`{tool.path}.arguments.{name}` must be text or drop, got {what!r}")
    return Tool(
        resource=tool.text("resource"),
        effect=tool.choice("effect", get_args(Effect), None),
        writes=tool.names("writes") if "writes" in tool.table else None,
        arguments=arguments,  # type: ignore[arg-type]  # checked above
    )


@dataclass(frozen=True, slots=True)
class _Section:
    """One table of the document, and where it stands, for messages."""

    table: Table[str, Any]
    path: str

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def allow(self, *known: str) -> None:
        for key in self.table:
            if key not in known:
                raise MappingInvalid(f"unknown key `{self._at(key)}`{hint(key, known)}")

    def section(self, key: str) -> _Section:
        value = self.table.get(key, {})
        if not isinstance(value, dict):
            raise MappingInvalid(f"`{self._at(key)}` must be a table, got {value!r}")
        return _Section(value, self._at(key))

    def sections(self, key: str) -> list[_Section]:
        value = self.table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise MappingInvalid(f"write each as `[[{self._at(key)}]]`, got {value!r:.80}")
        return [_Section(item, f"{self._at(key)}[{number}]") for number, item in enumerate(value)]

    def each(self) -> Iterator[tuple[str, _Section]]:
        for name in self.table:
            yield name, self.section(name)

    def text(self, key: str) -> str | None:
        value = self.table.get(key)
        if value is None or (isinstance(value, str) and value):
            return value
        raise MappingInvalid(f"`{self._at(key)}` must be a text, got {value!r}")

    def required(self, key: str) -> str:
        value = self.text(key)
        if value is None:
            raise MappingInvalid(f"`{self._at(key)}` is missing; it must be a text")
        return value

    def template(self, key: str) -> Template:
        found = Template(self.required(key))
        if {"{", "}"} & set(SLOT.sub("", found.text)):
            raise MappingInvalid(f"`{self._at(key)}` has a brace that is no `{{column}}`: {found.text!r}")
        return found

    def entity(self, key: str) -> EntityTemplate:
        found = self.template(key)
        try:
            split = ResourceTemplate.parse(found.text)
        except ValueError as exc:
            raise MappingInvalid(
                f"`{self._at(key)}` must be `Type::{{column}}` or `Type::id`, got {found.text!r}"
            ) from exc
        return EntityTemplate(split.type, Template(split.id))

    def choice(self, key: str, allowed: tuple[Any, ...], default: Any) -> Any:
        value = self.table.get(key, default)
        if value is not default and value not in allowed:
            raise MappingInvalid(f"`{self._at(key)}` must be {' or '.join(allowed)}, got {value!r}")
        return value

    def names(self, key: str) -> tuple[str, ...]:
        value = self.table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise MappingInvalid(f"`{self._at(key)}` must be a list of texts, got {value!r:.80}")
        return tuple(value)

    def texts(self, key: str) -> dict[str, str]:
        value = self.table.get(key, {})
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise MappingInvalid(f"`{self._at(key)}` must be a table of texts, got {value!r:.80}")
        return dict(value)
