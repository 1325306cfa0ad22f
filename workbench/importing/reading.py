"""What a file holds: its calls, in the order of a ledger, and the rows that are kept aside.

One rule: every row of the file is a call, or a row kept aside with its cause; their numbers sum to the file's rows.

The file is read once, block by block. Calls go to a file of their own (`workbench.importing.spooling`); in memory
stay what orders them (`workbench.importing.places`), types, and each row that is kept aside with its cause.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from workbench.importing.calls import Rejected, call_of, settle_resource, template_of
from workbench.importing.causes import Unmappable
from workbench.importing.inference import Shape, misfit
from workbench.importing.mapping import Tool
from workbench.importing.places import Order, Places

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping as Table

    from runtime.bundle import Bundle
    from runtime.request import ResourceTemplate
    from runtime.schema import Record as RecordType
    from workbench.importing.calls import SessionKey
    from workbench.importing.mapping import Mapping
    from workbench.importing.records import Record, Records
    from workbench.importing.spooling import Entry, Spool
    from workbench.progress import Advance


@dataclass(slots=True)
class Reading:
    """What a file holds."""

    mapping: Mapping
    spool: Spool
    """Takes the calls; whose it is closes it."""
    rejected: list[Rejected] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    """By tool, of its arguments."""
    types: dict[str, RecordType] = field(default_factory=dict)
    places: Places = field(default_factory=Places)
    tool: array[int] = field(default_factory=lambda: array("q"))
    """By entry, which of `tools`."""
    tools: dict[str, int] = field(default_factory=dict)
    """That are called, numbered."""
    order: Order = field(default_factory=lambda: Places().ordered(()))
    """Of the calls that are imported."""

    def read(self, records: Records, advance: Advance) -> None:
        """Read every row, infer types, and keep aside what does not fit them."""
        number = 0
        for block in records.blocks():
            for row in block:
                self._add(number, row)
                number += 1
            advance(len(block))
        self.types = {tool: shape.record for tool, shape in self.shapes.items()}
        self.order = self.places.ordered(self._misfits())
        self.rejected.sort()

    def _add(self, number: int, row: Record | Unmappable) -> None:
        try:
            if isinstance(row, Unmappable):
                raise row
            call = call_of(number, row, self.mapping, self.places.add)
            self.shapes.setdefault(call.tool, Shape()).add(call.args)
            settle_resource(call, self.mapping)
        except Unmappable as exc:
            self.rejected.append(Rejected(number, exc.cause, exc.detail))
            return
        self.places.call(number, call.at, call.start)
        self.tool.append(self.tools.setdefault(call.tool, len(self.tools)))
        self.spool.add(call, row)

    def _misfits(self) -> list[int]:
        """Keep aside calls whose arguments are of other types than their tool's; return their entries."""
        types = [self.types[name] for name in self.tools]
        found = []
        for entry, args in enumerate(self.spool.args(range(len(self.spool)))):
            if (why := misfit(args, types[self.tool[entry]])) is not None:
                found.append(entry)
                self.rejected.append(Rejected(self.places.number[entry], *why))
        return found

    def keep_aside(self, refused: Table[int, str | None]) -> None:
        """Keep aside calls that Cedar refuses, by the numbers of their rows."""
        self.order = self.order.without(
            [entry for entry in self._entries() if self.places.number[entry] in refused]
        )
        aside = (Rejected(number, "not_decidable", why or "undecided") for number, why in refused.items())
        self.rejected = sorted([*self.rejected, *aside])

    def _entries(self) -> list[int]:
        found: list[int] = self.order.entry.tolist()
        return found

    def __len__(self) -> int:
        """How many calls are imported."""
        return len(self.order.entry)

    @property
    def used(self) -> list[str]:
        """Tools of the calls that are imported."""
        names = list(self.tools)
        return sorted({names[each] for each in {self.tool[entry] for entry in self._entries()}})

    @property
    def sessions(self) -> list[SessionKey]:
        """Sessions of the calls that are imported."""
        names = list(self.places.sessions)
        return [names[each] for each in sorted(set(self.order.session.tolist()))]

    def digest(self, bundle: Bundle) -> str:
        """Return a SHA-256 of what decides how the lake looks, so that ids and the chain's name follow from it."""
        found = sha256(f"{self.mapping.document}\n{bundle.version}\n".encode())
        entries = self._entries()
        parts = zip(entries, self.order.at.tolist(), self.spool.told(entries), strict=True)
        for place, (entry, at, told) in enumerate(parts):
            found.update(b"\n" if place else b"")
            found.update(f"{self.places.number[entry]}\0{at}\0".encode())
            found.update(told)
        return found.hexdigest()

    def blocks(self, size: int) -> Iterator[list[Entry]]:
        """Yield the calls that are imported, in their order, with all that their sessions tell."""
        templates = {name: template_of(name, self.mapping.tools.get(name, Tool())) for name in self.tools}
        for part in self.order.blocks(size):
            yield [*self._entries_of(part, templates)]

    def _entries_of(self, part: Order, templates: Table[str, ResourceTemplate]) -> Iterator[Entry]:
        columns = (column.tolist() for column in (part.at, part.step, part.derived))
        for found, at, step, derived in zip(self.spool.calls(part.entry.tolist()), *columns, strict=True):
            call = found.call
            call.at, call.step, call.derived, call.template = at, step, derived, templates[call.tool]
            yield found
