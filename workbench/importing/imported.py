"""What an import did, or would do: counts and causes, and their faces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workbench.faces import Code, Faces, Page, Table
from workbench.importing.causes import CAUSES
from workbench.texts import count, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from runtime.canonical import Json
    from workbench.importing.causes import Cause

EXAMPLES = 3
"""Rows kept aside that are told of each cause."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Imported(Faces):
    """The result of an import. `mapped` and the rejected sum to `rows`."""

    lake: Path | None
    """The lake that was written; None: nothing was, it was tried only."""
    rejected_file: Path | None
    """Where the rows kept aside are; None: there are none, or nothing was written."""
    rows: int
    """Of the file."""
    mapped: int
    """Rows that are decisions."""
    rejected: Mapping[Cause, int]
    """By cause, in the order in which a row is looked at; causes without rows are left out."""
    examples: Sequence[tuple[Cause, int, str]]
    """Cause, number of the row (from 1), and what was wrong; a few of each."""
    sessions: int
    tenants: int
    tools: int
    outcomes: Mapping[str, int]
    """By status of the execution; `in doubt` have none."""
    labels: Mapping[str, int]
    """By label, rows."""
    derived_times: int
    """Decisions whose time follows from their order."""
    notes: Sequence[str] = field(default=())
    bundle_version: str
    """Of the baseline."""
    schema: str
    """Its schema, as inferred."""

    @property
    def kept_aside(self) -> int:
        """Rows that were not mapped."""
        return sum(self.rejected.values())

    def page(self) -> Page:
        """What it says."""
        return Page(
            kind="import",
            title=f"{'Imported' if self.lake else 'Would import'} {count(self.mapped, 'call')}",
            lines=list(self._lines()),
            parts=[*self._tables(), Code(title="Schema of the baseline", text=self.schema, language="cedar")]
            if self.lake is None
            else list(self._tables()),
            next=() if self.lake is None else (f"wb.open({str(self.lake)!r}).replay(policy=…)",),
            pins={"baseline": self.bundle_version},
        )

    def _lines(self) -> Iterator[str]:
        whole = f"{self.mapped:,} of {count(self.rows, 'row')} ({share(self.mapped, self.rows)})"
        yield (
            f"{whole}, in {count(self.sessions, 'session')} of {count(self.tenants, 'tenant')}, "
            f"with {count(self.tools, 'tool')}; {self.kept_aside:,} kept aside."
        )
        if self.lake is not None:
            yield f"Lake: {self.lake}"
        if self.rejected_file is not None:
            yield f"Rows kept aside: {self.rejected_file}"
        if self.derived_times:
            yield f"Times of {count(self.derived_times, 'call')} are derived from the order: one second a call."
        yield from self.notes

    def _tables(self) -> Iterator[Table]:
        if self.rejected:
            rows = [(cause, number, CAUSES[cause]) for cause, number in self.rejected.items()]
            yield Table(
                title="Rows kept aside", heads=["cause", "rows", "meaning"], rows=rows, code=frozenset({0})
            )
            yield Table(title="Such as", heads=["cause", "row", "what was wrong"], rows=list(self.examples))
        ends = list(self.outcomes.items())
        yield Table(
            title="What became of the calls", heads=["status", "calls"], rows=ends, code=frozenset({0})
        )
        if self.labels:
            rows_ = list(self.labels.items())
            yield Table(title="Labels", heads=["label", "rows"], rows=rows_, code=frozenset({0}))

    def as_dict(self) -> dict[str, Json]:
        """All of it, as JSON."""
        return {
            "lake": None if self.lake is None else str(self.lake),
            "rejected_file": None if self.rejected_file is None else str(self.rejected_file),
            "rows": self.rows,
            "mapped": self.mapped,
            "rejected": {str(cause): number for cause, number in self.rejected.items()},
            "examples": [
                {"cause": cause, "row": row, "detail": detail} for cause, row, detail in self.examples
            ],
            "sessions": self.sessions,
            "tenants": self.tenants,
            "tools": self.tools,
            "outcomes": dict(self.outcomes),
            "labels": dict(self.labels),
            "derived_times": self.derived_times,
            "notes": list(self.notes),
            "bundle_version": self.bundle_version,
            "schema": self.schema,
        }
