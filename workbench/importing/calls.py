"""From records to calls: who, what, on what, when, in which order, and how it ended.

One rule: every row of the file is a call, or a row kept aside with its cause; their numbers sum to the file's rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runtime.canonical import canonical
from runtime.evidence import check_partition
from runtime.request import RequestInvalid, ResourceTemplate
from workbench.errors import MappingInvalid
from workbench.importing.arguments import arguments_of
from workbench.importing.causes import Cause, Unmappable
from workbench.importing.endings import amount, ending_of
from workbench.importing.inference import Shape, misfit
from workbench.importing.mapping import Tool
from workbench.importing.moments import EPOCH_US, SECOND, derived, moment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping as Table

    from runtime.canonical import Json
    from runtime.entities import EntityUid
    from runtime.schema import Record as RecordType
    from workbench.importing.endings import Ending
    from workbench.importing.mapping import Mapping, Template
    from workbench.importing.records import Record, Records
    from workbench.progress import Advance

BLOCK: Final = 5_000
"""Rows that are taken out of a file at once."""

SessionKey = tuple[str, str]
"""Tenant and session."""


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


@dataclass(slots=True)
class Reading:
    """What a file holds."""

    mapping: Mapping
    calls: list[Call] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    """By tool, of its arguments."""
    types: dict[str, RecordType] = field(default_factory=dict)
    places: dict[SessionKey, list[tuple[float | None, int]]] = field(default_factory=dict)
    """By session, what orders its rows, and their numbers: all rows whose session is known, those kept aside too."""

    def read(self, records: Records, advance: Advance) -> None:
        """Read every row, infer types, and keep aside what does not fit them."""
        for begin in range(0, len(records), BLOCK):
            numbers = range(begin, min(begin + BLOCK, len(records)))
            for number, row in zip(numbers, records.take(numbers), strict=True):
                self._add(number, row)
            advance(len(numbers))
        self.types = {tool: shape.record for tool, shape in self.shapes.items()}
        self._settle(self._resource)
        self._settle(self._fits)
        self._order()

    def _add(self, number: int, row: Record | Unmappable) -> None:
        try:
            if isinstance(row, Unmappable):
                raise row
            call = self._call(number, row)
        except Unmappable as exc:
            self.rejected.append(Rejected(number, exc.cause, exc.detail))
            return
        self.shapes.setdefault(call.tool, Shape()).add(call.args)
        self.calls.append(call)

    def _call(self, number: int, row: Record) -> Call:
        mapping = self.mapping
        key = (_text(row, mapping.tenant, "tenant"), _text(row, mapping.session, "session"))
        _partition(key[0])
        at = _moment(row, mapping, "at")
        place = at if mapping.order is None else _place(row, mapping.order)
        self.places.setdefault(key, []).append((place, number))
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

    def _settle(self, check: Any) -> None:
        """Keep the calls that pass a check; others go aside."""
        kept = []
        for call in self.calls:
            try:
                check(call)
            except Unmappable as exc:
                self.rejected.append(Rejected(call.number, exc.cause, exc.detail))
            else:
                kept.append(call)
        self.calls = kept

    def keep_aside(self, refused: Table[int, str | None]) -> None:
        """Keep aside calls that Cedar refuses."""
        self.calls = [call for call in self.calls if call.number not in refused]
        aside = (Rejected(number, "not_decidable", why or "undecided") for number, why in refused.items())
        self.rejected = sorted([*self.rejected, *aside])

    def _fits(self, call: Call) -> None:
        if (why := misfit(call.args, self.types[call.tool])) is not None:
            raise Unmappable(*why)

    def _resource(self, call: Call) -> None:
        known = self.mapping.tools.get(call.tool, _UNKNOWN)
        call.template = template_of(call.tool, known)
        try:
            call.template.check(call.args)
            call.template.resolve(call.args)
            if known.writes is not None:
                uids = [ResourceTemplate.parse(text).resolve(call.args) for text in known.writes]
                call.writes = sorted({str(uid) for uid in uids})
        except RequestInvalid as exc:
            raise Unmappable("resource_unresolved", str(exc)) from exc

    def _order(self) -> None:
        """Give steps and times, and put the calls into the order of a ledger: by time, a session's in their steps."""
        by_number = {call.number: call for call in self.calls}
        ordered: list[tuple[int, int, int, Call]] = []
        before = 0
        for index, places in enumerate(self.places.values()):
            numbers = _ordered(places)
            mine = [by_number[number] for number in numbers if number in by_number]
            ranks = {number: step for step, number in enumerate(numbers)}
            latest = _timed(mine, ranks, EPOCH_US + before * SECOND)
            ordered += [(time, index, call.step, call) for time, call in zip(latest, mine, strict=True)]
            before += len(numbers)
        self.calls = [call for *_, call in sorted(ordered, key=lambda each: each[:3])]
        self.rejected.sort()


def _timed(calls: list[Call], ranks: Table[int, int], otherwise: int) -> Iterator[int]:
    """Give a session's calls their steps and times; yield for each the latest time so far."""
    times = derived([call.at for call in calls], calls[0].start if calls else None, otherwise)
    latest = 0
    for call, time in zip(calls, times, strict=True):
        call.derived, call.at, call.step = call.at is None, time, ranks[call.number]
        latest = max(latest, time)
        yield latest


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


def _ordered(places: list[tuple[float | None, int]]) -> list[int]:
    """Return a session's rows in order; as they come, where one of them does not say its time."""
    known = [(place, number) for place, number in places if place is not None]
    return [number for _, number in (sorted(known) if len(known) == len(places) else places)]


def _took(row: Record, mapping: Mapping, at: int | None) -> int | None:
    """How long it ran, microseconds; an end before its beginning says nothing."""
    column = mapping.time.duration_ms
    if column is not None and row.get(column) is not None:
        return amount(row[column], column, 1_000)
    ended = _moment(row, mapping, "ended")
    return None if ended is None or at is None or ended < at else ended - at
