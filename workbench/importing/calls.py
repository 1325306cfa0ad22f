"""From a record to a call: who, what, on what, when, and how it ended.

One rule: a row is a call, or it is not, with a cause; nothing of it is bent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from runtime.canonical import canonical
from runtime.evidence import check_partition
from runtime.request import RequestInvalid, ResourceTemplate
from workbench.errors import MappingInvalid
from workbench.importing.arguments import arguments_of
from workbench.importing.causes import Cause, Unmappable
from workbench.importing.endings import amount, ending_of
from workbench.importing.mapping import Tool
from workbench.importing.moments import moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.canonical import Json
    from runtime.entities import EntityUid
    from workbench.importing.endings import Ending
    from workbench.importing.mapping import Mapping, Template
    from workbench.importing.records import Record

SessionKey = tuple[str, str]
"""Tenant and session."""
Place = float | None
"""What orders a row in its session: a time or a number; None: the record does not say."""


class Rejected(NamedTuple):
    """A row that is kept aside."""

    number: int
    """Of the row, from 0."""
    cause: Cause
    detail: str


@dataclass(slots=True, kw_only=True)
class Call:
    """One row that can be imported, as far as its own record tells; what its session tells is filled in later."""

    number: int
    key: SessionKey
    principal: EntityUid
    on_behalf_of: EntityUid | None
    tool: str
    args: dict[str, Json]
    text: str
    """Canonical text of `args`."""
    ending: Ending
    at: int | None
    """Microseconds UTC; None: the record does not say."""
    start: int | None
    """When its session began, where the record says that."""
    took: int | None
    """How long it ran, microseconds."""
    derived: bool = False
    """Whether `at` follows from the order."""
    step: int = 0
    template: ResourceTemplate | None = None
    writes: list[str] | None = None


def call_of(
    number: int, row: Record, mapping: Mapping, placed: Callable[[SessionKey, Place], object]
) -> Call:
    """Return the call of a row.

    Args:
        number: of the row.
        row: itself.
        mapping: what its columns hold.
        placed: told the row's session, and what orders it there, as soon as both are known: a row that is kept aside
            after that has its place, too.

    Raises:
        Unmappable: it is none.
    """
    key = (_text(row, mapping.tenant, "tenant"), _text(row, mapping.session, "session"))
    _partition(key[0])
    at = _moment(row, mapping, "at")
    placed(key, at if mapping.order is None else _place(row, mapping.order))
    tool = _text(row, mapping.tool, "tool")
    if mapping.known_tools is not None and tool not in mapping.known_tools:
        raise Unmappable("no_such_tool", f"{tool!r:.80} is not among `call.known_tools`")
    args = arguments_of(row, tool, mapping)
    return Call(
        number=number,
        key=key,
        principal=_principal(row, mapping),
        on_behalf_of=_behalf(row, mapping),
        tool=tool,
        args=args,
        text=canonical(args),
        ending=ending_of(row, mapping),
        at=at,
        start=_moment(row, mapping, "session_start"),
        took=_took(row, mapping, at),
    )


def settle_resource(call: Call, mapping: Mapping) -> None:
    """Fill in what a call acts on, and what it writes.

    Raises:
        Unmappable: its arguments do not say.
    """
    known = mapping.tools.get(call.tool, _UNKNOWN)
    call.template = template_of(call.tool, known)
    try:
        call.template.check(call.args)
        call.template.resolve(call.args)
        if known.writes is not None:
            uids = [ResourceTemplate.parse(text).resolve(call.args) for text in known.writes]
            call.writes = sorted({str(uid) for uid in uids})
    except RequestInvalid as exc:
        raise Unmappable("resource_unresolved", str(exc)) from exc


_UNKNOWN: Final = Tool()
_STRANGE: Final = str.maketrans(dict.fromkeys('{}"\\:', "_"))


def template_of(tool: str, known: Tool) -> ResourceTemplate:
    """Return what a tool acts on: as the mapping says, else `Tool::` its name, without what a template reads."""
    if known.resource is not None:
        return parsed_template(tool, known.resource)
    return ResourceTemplate("Tool::" + tool.translate(_STRANGE), "Tool", tool.translate(_STRANGE))


def parsed_template(tool: str, text: str) -> ResourceTemplate:
    """Read a template of the mapping.

    Raises:
        MappingInvalid: it is none.
    """
    try:
        found = ResourceTemplate.parse(text)
    except ValueError as exc:
        raise MappingInvalid(f"`tools.{tool}`: {exc}") from exc
    if found.has_loose_braces or found.has_touching_slots:
        raise MappingInvalid(
            f"`tools.{tool}`: {text!r} has a brace that is no `{{argument}}`, or two that touch"
        )
    return found


def _text(row: Record, template: Template, what: str) -> str:
    found = template.fill(row)
    if not found:
        raise Unmappable(
            "value_missing", f"no {what}: {', '.join(template.columns) or 'it'} is null or empty"
        )
    return _unicode(found, what)


def _unicode(text: str, what: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            raise Unmappable("text_unusable", f"the {what} holds a lone surrogate: {text!r:.60}") from exc
    return text


def _partition(tenant: str) -> None:
    try:
        check_partition("the tenant", tenant)
    except ValueError as exc:
        raise Unmappable("text_unusable", str(exc)) from exc


def _principal(row: Record, mapping: Mapping) -> EntityUid:
    found = mapping.principal.fill(row)
    if found is None:
        raise Unmappable("value_missing", f"no principal: {', '.join(mapping.principal.id.columns)} is null")
    _unicode(found.id, "principal")
    return found


def _behalf(row: Record, mapping: Mapping) -> EntityUid | None:
    found = None if mapping.on_behalf_of is None else mapping.on_behalf_of.fill(row)
    if found is not None:
        _unicode(found.id, "on_behalf_of")
    return found


def _moment(row: Record, mapping: Mapping, key: str) -> int | None:
    column = getattr(mapping.time, key)
    return None if column is None else moment(row.get(column), mapping.time, column)


def _place(row: Record, column: str) -> float:
    value = row.get(column)
    try:
        found = float("nan") if isinstance(value, bool) else value if isinstance(value, int) else float(value)  # type: ignore[arg-type]  # may raise
    except (TypeError, ValueError):
        found = float("nan")
    if found != found:  # noqa: PLR0124 - what is no number is not equal to itself
        raise Unmappable("order_unusable", f"`{column}` must be a number, got {value!r:.60}")
    return found


def _took(row: Record, mapping: Mapping, at: int | None) -> int | None:
    """How long it ran, microseconds; an end before its beginning says nothing."""
    column = mapping.time.duration_ms
    if column is not None and row.get(column) is not None:
        return amount(row[column], column, 1_000)
    ended = _moment(row, mapping, "ended")
    return None if ended is None or at is None or ended < at else ended - at
