"""What a run over one file of cases found: counts, and the first disagreements in full.

One rule: a case that Cedar itself refuses has no decision. It agrees with nothing and disagrees with nothing, and is
counted apart, with Cedar's cause; an engine that decides it all the same is a disagreement.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runtime.canonical import Json
    from workbench.conform_frames import EngineName

FIELDS = ("decision", "reasons", "errors")
SHOWN = 5
"""Disagreements of one file that are kept and shown in full."""
MAX_CAUSE = 100
MAX_KINDS = 20
"""Causes and reasons that are printed, the most frequent first."""


class Said(NamedTuple):
    """An answer, as far as it is compared."""

    decision: str
    """`Allow`, `Deny` or `NoDecision`."""
    reasons: tuple[str, ...]
    errors: tuple[str, ...]

    def __str__(self) -> str:
        if self.decision == "NoDecision":
            return "no decision"
        return f"{self.decision.lower()}, reasons {list(self.reasons)}, errors {list(self.errors)}"


NO_DECISION = Said("NoDecision", (), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """One row on which an engine says something else than it should."""

    engine: EngineName
    row: int | None
    """Row of the file, from 1; None: a row of padding."""
    fields: tuple[str, ...]
    policies: str
    schema_text: str | None
    principal: str
    action: str
    resource: str
    context: str
    entities: str
    expected: Said
    got: Said

    def json(self) -> dict[str, Json]:
        """Return all of it."""
        return {
            "engine": self.engine,
            "row": self.row,
            "fields": list(self.fields),
            "policies": self.policies,
            "schema": self.schema_text,
            "request": {
                "principal": self.principal,
                "action": self.action,
                "resource": self.resource,
                "context": self.context,
            },
            "entities": self.entities,
            "expected": _said(self.expected),
            "got": _said(self.got),
        }

    def lines(self) -> Iterator[str]:
        """Yield it as text."""
        place = "a row of padding" if self.row is None else f"row {self.row}"
        yield f"{place}, engine {self.engine}: {', '.join(self.fields)} differ"
        yield f"  expected  {self.expected}"
        yield f"  got       {self.got}"
        yield f"  request   {self.principal}, {self.action}, {self.resource}, context {self.context}"
        for name, text in (("policies", self.policies), ("entities", self.entities)):
            yield f"  {name}"
            yield from (f"    {line}" for line in text.splitlines())
        if self.schema_text is not None:
            yield "  schema"
            yield from (f"    {line}" for line in self.schema_text.splitlines())


@dataclass(slots=True)
class Tally:
    """How often one engine agreed."""

    agreed: Counter[str] = field(default_factory=Counter)
    """Cases by field."""
    padding_agreed: int = 0
    """Rows of padding that agree in every field."""
    disagreements: int = 0
    """Rows, of the file and of padding, that disagree in any field."""


@dataclass(slots=True, kw_only=True)
class FileReport:
    """Everything found in one file."""

    path: str
    tallies: dict[EngineName, Tally]
    cases: int = 0
    frames: int = 0
    padding: int = 0
    padding_decided: int = 0
    """Rows of padding that have a decision; some are made so that Cedar refuses them."""
    padding_handed_over: int = 0
    """Those of them that the columnar engine gave to the row engine."""
    expected_by_file: Counter[str] = field(default_factory=Counter)
    """Cases of which the file says what to expect, by field; of the others Cedar alone says it."""
    causes: Counter[str] = field(default_factory=Counter)
    """Why cases have no decision."""
    hand_overs: Counter[str] = field(default_factory=Counter)
    """Why the columnar engine gave cases to the row engine."""
    examples: list[Disagreement] = field(default_factory=list)

    @property
    def decided(self) -> int:
        """Cases that have a decision."""
        return self.cases - self.causes.total()

    @property
    def agrees(self) -> bool:
        """Whether no engine disagreed on any row."""
        return not any(tally.disagreements for tally in self.tallies.values())

    @property
    def columnar_share(self) -> float | None:
        """Share of cases that the columnar engine decided itself; None: it was not asked, or there is no case."""
        if "columnar" not in self.tallies or not self.decided:
            return None
        return 1 - self.hand_overs.total() / self.decided

    def add(self, found: Disagreement) -> None:
        """Count a disagreement, and keep it if it is among the first."""
        self.tallies[found.engine].disagreements += 1
        if len(self.examples) < SHOWN:
            self.examples.append(found)

    def json(self) -> dict[str, Json]:
        """Return the numbers, and the first disagreements."""
        return {
            "file": self.path,
            "cases": self.cases,
            "frames": self.frames,
            "decided": self.decided,
            "expected_by_file": {name: self.expected_by_file[name] for name in FIELDS},
            "padding": self.padding,
            "padding_decided": self.padding_decided,
            "padding_handed_over": self.padding_handed_over,
            "engines": {name: self._engine(tally) for name, tally in self.tallies.items()},
            "columnar_share": self.columnar_share,
            "hand_overs": dict(self.hand_overs.most_common()),
            "no_decision": self.causes.total(),
            "no_decision_causes": dict(self.causes.most_common()),
            "agrees": self.agrees,
            "disagreements": [each.json() for each in self.examples],
        }

    def _engine(self, tally: Tally) -> dict[str, Json]:
        return {
            "agree": {name: tally.agreed[name] for name in FIELDS},
            "padding_agree": tally.padding_agreed,
            "disagreements": tally.disagreements,
        }

    def lines(self) -> Iterator[str]:
        """Yield the report as text."""
        frames = "1 frame" if self.frames == 1 else f"{self.frames:,} frames"
        yield f"{self.path}: {self.cases:,} cases in {frames}"
        yield from self._agreement()
        if self.columnar_share is not None:
            own = self.decided - self.hand_overs.total()
            yield f"  decided columnar: {own:,} of {self.decided:,} cases, {self.columnar_share:.1%}"
            if self.padding:
                inner = self.padding_decided - self.padding_handed_over
                yield f"  decided columnar: {inner:,} of {self.padding_decided:,} rows of padding with a decision"
            yield from _counts(self.hand_overs)
        if self.causes:
            yield f"  no decision: {self.causes.total():,} cases that Cedar refuses today, not counted above"
            yield from _counts(self.causes)
        total = sum(tally.disagreements for tally in self.tallies.values())
        if total:
            yield f"  {total:,} disagreements; the first {len(self.examples)} in full:"
            for example in self.examples:
                yield ""
                yield from (f"    {line}" for line in example.lines())

    def _agreement(self) -> Iterator[str]:
        wide = max(26, 2 * len(f"{self.decided:,}") + 6)
        heads = [f"agree on {name}" for name in FIELDS] + (["agree on padding"] if self.padding else [])
        yield f"  {'engine':<10}" + "".join(f"{head:>{wide}}" for head in heads)
        for name, tally in self.tallies.items():
            cells = [f"{tally.agreed[each]:,} of {self.decided:,}" for each in FIELDS]
            cells += [f"{tally.padding_agreed:,} of {self.padding:,}"] if self.padding else []
            yield f"  {name:<10}" + "".join(f"{cell:>{wide}}" for cell in cells)
        told = [f"{name} of {self.expected_by_file[name]:,}" for name in FIELDS]
        if any(self.expected_by_file[name] < self.decided for name in FIELDS):
            yield f"  the file expects {', '.join(told)} cases; for the rest, Cedar asked alone is the measure"


def as_json(reports: Sequence[FileReport]) -> dict[str, Json]:
    """Return what a run found as one object."""
    return {"agrees": all(each.agrees for each in reports), "files": [each.json() for each in reports]}


def printable(line: str) -> str:
    """Escape what a terminal would obey or cannot show; fuzzed strings hold it on purpose."""
    return "".join(
        letter if letter.isprintable() or letter == "\t" else ascii(letter)[1:-1] for letter in line
    )


def short(cause: str) -> str:
    """Return a cause without what differs from case to case, so that it can be counted."""
    line = " ".join(cause.split())
    return line if len(line) <= MAX_CAUSE else line[: MAX_CAUSE - 1] + "…"


def _counts(counts: Counter[str]) -> Iterator[str]:
    for text, count in counts.most_common(MAX_KINDS):
        yield f"    {count:>10,}  {text}"
    if len(counts) > MAX_KINDS:
        yield f"    {len(counts) - MAX_KINDS:,} kinds more; all are in --json"


def _said(answer: Said) -> dict[str, Json]:
    return {
        "decision": answer.decision,
        "reasons": list(answer.reasons),
        "errors": list(answer.errors),
    }
