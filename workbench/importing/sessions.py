"""Labels of whole sessions: from the calls' file, and from a second one with a row a session.

One rule: a session has one value of a label, or none. Where rows differ nobody is believed, and it is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from workbench.importing.causes import Unmappable
from workbench.importing.rows import valued

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from workbench.importing.calls import SessionKey
    from workbench.importing.mapping import Mapping
    from workbench.importing.records import Record, Records

DERIVED = "time"
"""Label of sessions of which some time was derived from the order; its value is `derived`."""


@dataclass(slots=True)
class SessionLabels:
    """Values of labels by session, while they are collected."""

    mapping: Mapping
    found: dict[tuple[SessionKey, str], set[str]] = field(default_factory=dict)
    runs: int = 0
    runs_without_calls: int = 0
    runs_unreadable: int = 0

    def add(self, key: SessionKey, record: Record) -> None:
        """Take in what a call's row says of its session."""
        for label in self.mapping.labels:
            if (
                label.of == "session"
                and (value := valued(record.get(label.column), label.values)) is not None
            ):
                self.found.setdefault((key, label.name), set()).add(value)

    def add_derived(self, key: SessionKey) -> None:
        """Take in that a time of the session was derived."""
        self.found.setdefault((key, DERIVED), set()).add("derived")

    def join(self, records: Records, sessions: Collection[SessionKey]) -> None:
        """Take in the rows of the second file, joined by the session's name."""
        template = self.mapping.runs_session
        assert template is not None  # noqa: S101 - checked against the file
        named: dict[str, list[SessionKey]] = {}
        for key in sessions:
            named.setdefault(key[1], []).append(key)
        self.runs = len(records)
        for row in chain.from_iterable(records.blocks()):
            session = None if isinstance(row, Unmappable) else template.fill(row)
            if isinstance(row, Unmappable) or session is None:
                self.runs_unreadable += 1
                continue
            keys = named.get(session, [])
            self.runs_without_calls += not keys
            for key in keys:
                self._add_run(key, row)

    def _add_run(self, key: SessionKey, row: Record) -> None:
        for label in self.mapping.runs_labels:
            value = valued(row.get(label.column), label.values)
            if value is not None:
                self.found.setdefault((key, label.name), set()).add(value)

    def agreed(self) -> Iterator[tuple[SessionKey, str, str]]:
        """Yield session, label and value, where all rows agree; ordered."""
        for (key, label), values in sorted(self.found.items()):
            if len(values) == 1:
                yield key, label, next(iter(values))

    @property
    def differing(self) -> dict[str, int]:
        """By label, sessions whose rows differ."""
        counts: dict[str, int] = {}
        for (_, label), values in self.found.items():
            if len(values) > 1:
                counts[label] = counts.get(label, 0) + 1
        return counts
