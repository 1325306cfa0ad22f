"""Conformance: every engine against recorded answers of Cedar, on decision, determining policies and errors.

One rule: nothing here decides what is right. The file says what to expect; where it does not, and for every row of
padding, `cedarpy.is_authorized` says it, asked of that row alone. Whether a case has a decision at all is always
asked of Cedar: formats retired since a file was written are refused today, and count as no decision, not as deny.

Out of scope: stages and verdicts, which have no counterpart in Cedar's test files; `workbench.replay` measures those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.conform_cases import read_windows
from workbench.conform_frames import Alone, decide, parse, said, shuffled
from workbench.conform_report import FIELDS, Disagreement, FileReport, Said, Tally, short

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from runtime.policy import Case
    from workbench.conform_cases import FileCase
    from workbench.conform_frames import Decided, EngineName, Row

ENGINES: tuple[EngineName, ...] = ("rows", "columnar")
ALONE = "its text cannot be said as values (a member or uid twice, a float, beyond 64 bits, not Unicode)"
"""Hand-over reason of cases that no engine can be given."""


def conform(
    path: Path,
    *,
    engines: Sequence[EngineName] = ENGINES,
    multiply: int = 0,
    on_cases: Callable[[int], object] = lambda _: None,
) -> FileReport:
    """Decide every case of a file by each engine and compare.

    Cases that share policy set and schema are decided in one frame.

    Args:
        path: Parquet or JSONL, with the columns of `workbench.conform_cases.COLUMNS`.
        engines: which engines.
        multiply: rows of padding in each frame; 0: none. Seeded by the frame's content.
        on_cases: called with the number of cases done since the last call.

    Raises:
        CasesUnreadable: naming file, row and column.

    Cost: memory for one window of cases (`WINDOW_ROWS`) and one padded frame.
    """
    report = FileReport(path=str(path), tallies={engine: Tally() for engine in engines})
    for window in read_windows(path):
        frames: dict[tuple[str, str | None], list[FileCase]] = {}
        for case in window:
            frames.setdefault(case.frame_key, []).append(case)
        for cases in frames.values():
            _Frame(cases, engines, multiply).compare(report)
            on_cases(len(cases))
    return report


class _Frame:
    """The cases of one policy set and schema, decided by every engine."""

    def __init__(self, cases: Sequence[FileCase], engines: Sequence[EngineName], multiply: int) -> None:
        handles = parse(*cases[0].frame_key)
        self.cases = cases
        self.alone = Alone(handles)
        self.rows, self.places = shuffled(cases, multiply)
        asked = [row.case for row in self.rows]
        try:
            self.decided = {engine: decide(engine, asked, handles) for engine in engines}
        except Exception as exc:
            exc.add_note(f"while deciding rows {', '.join(str(case.row) for case in cases)} of the file")
            raise

    def compare(self, report: FileReport) -> None:
        """Add this frame to the report."""
        report.frames += 1
        report.cases += len(self.cases)
        for case in self.cases:
            self._compare_case(case, report)
        own = set(self.places.values())
        for place, row in enumerate(self.rows):
            if place not in own:
                self._compare_padding(place, row, report)

    def _compare_case(self, case: FileCase, report: FileReport) -> None:
        alone = self.alone.ask(
            case.principal, case.action, case.resource, case.context_json, case.entities_json
        )
        refused = alone.decision == "NoDecision"
        if refused:
            report.causes[short(alone.cause)] += 1
        else:
            told = zip(FIELDS, case.expected, strict=True)
            report.expected_by_file.update(name for name, value in told if value is not None)
        expected = said(alone) if refused else _expected(case, said(alone))
        place = self.places.get(case.row)
        for engine, found in self.decided.items():
            got = said(alone) if place is None else found.answers[place]
            if not refused:
                agreed = [n for n, e, g in zip(FIELDS, expected, got, strict=True) if e == g]
                report.tallies[engine].agreed.update(agreed)
                if engine == "columnar" and (why := _handed_over(place, found)):
                    report.hand_overs[short(why)] += 1
            if got != expected:
                report.add(_disagreement(engine, case, expected, got))

    def _compare_padding(self, place: int, row: Row, report: FileReport) -> None:
        case = row.case
        alone = self.alone.ask(case.principal, case.action, case.resource, row.context, row.store)
        expected = said(alone)
        refused = alone.decision == "NoDecision"
        report.padding += 1
        report.padding_decided += not refused
        for engine, found in self.decided.items():
            report.padding_handed_over += not refused and place in found.handed_over
            got = found.answers[place]
            if got == expected:
                report.tallies[engine].padding_agreed += 1
            else:
                report.add(_disagreement(engine, self.cases[0], expected, got, padding=row))


def _expected(case: FileCase, alone: Said) -> Said:
    """Return what the file expects; what it leaves open, Cedar alone says."""
    told: tuple[object, ...] = case.expected
    return Said(*(alone[i] if value is None else value for i, value in enumerate(told)))  # type: ignore[arg-type]  # fields in step


def _handed_over(place: int | None, found: Decided) -> str | None:
    return ALONE if place is None else found.handed_over.get(place)


def _disagreement(
    engine: EngineName, of: FileCase, expected: Said, got: Said, padding: Row | None = None
) -> Disagreement:
    """Tell a disagreement in full: on a case of the file, or on a row its frame was padded with."""
    if padding is None:
        asked, context, entities = _request(of), of.context_json, of.entities_json
    else:
        asked, context, entities = _request(padding.case), padding.context, padding.store
    return Disagreement(
        engine=engine,
        row=of.row if padding is None else None,
        fields=tuple(name for name, e, g in zip(FIELDS, expected, got, strict=True) if e != g),
        policies=of.policies,
        schema_text=of.schema_text,
        **asked,
        context=context,
        entities=entities,
        expected=expected,
        got=got,
    )


def _request(of: FileCase | Case) -> Mapping[str, str]:
    return {"principal": str(of.principal), "action": str(of.action), "resource": str(of.resource)}
