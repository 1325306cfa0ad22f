"""A comparison in words: the headline, and plain text for a terminal.

One rule: no number is computed here; all are `Diff.summary()` and its tables. Strings from the log pass `visible`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.metrics import HELP, SIDES, STATES, has_labels
from workbench.replay import left_out
from workbench.texts import count, share, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from workbench.compare import Diff

MAX_TENANTS = 30
"""Tenants in one table; the line of all counts the rest, too."""

Numbers = dict[str, int | float]


def headline(diff: Diff) -> list[str]:
    """Return the result in sentences: outcomes first, then extent, then what could not be replayed and why."""
    numbers = diff.summary()
    from workbench.certainty import outcome_lines  # noqa: PLC0415 - it imports the faces, which write with us

    lines = [
        *outcome_lines(diff),
        _outcome(numbers),
        *_asides(numbers),
        _extent(numbers),
        _coverage(diff, numbers),
    ]
    beyond = left_out(getattr(diff.cand.lake, "held_back", {}))
    return [*lines, f"{beyond[0].upper()}{beyond[1:]}."] if beyond else lines


def _outcome(n: Numbers) -> str:
    if not has_labels(n):
        stopped = _of(n["unlabelled_calls_stopped"], n["unlabelled_calls_ran"], "call")
        doubt = _doubt(n["unlabelled_calls_unresolved"])
        return f"Stops {stopped}{doubt}. The log is unlabelled: which of them were attacks is not known."
    stopped = _of(n["attack_calls_stopped"], n["attack_calls_ran"], "attack call")
    disturbed = _of(n["honest_calls_disturbed"], n["honest_calls_ran"], "honest call")
    return (
        f"Stops {stopped}{_doubt(n['attack_calls_unresolved'])}. "
        f"Disturbs {disturbed}{_doubt(n['honest_calls_unresolved'])}."
    )


def _of(part: float, whole: float, noun: str) -> str:
    return f"{part:,} of {count(whole, noun)} that ran" + (f" ({share(part, whole)})" if whole else "")


def _doubt(number: float) -> str:
    return f"; for {number:,} of them it is not known" if number else ""


def _asides(n: Numbers) -> Iterator[str]:
    """What the first sentence leaves out, where there is any."""
    if has_labels(n) and n["unlabelled_calls_ran"]:
        yield f"Stops {_of(n['unlabelled_calls_stopped'], n['unlabelled_calls_ran'], 'unlabelled call')}."
    freed = {side: n[f"{side}_calls_released"] for side in SIDES}
    if any(freed.values()):
        calls = ", ".join(count(number, f"{side} call") for side, number in freed.items() if number)
        yield f"Lets run, or asks about, what did not run: {calls}."
    if n["effect_unknown"]:
        yield f"Would stop {count(n['effect_unknown'], 'call')} that may have run: the record is in doubt."


def _extent(n: Numbers) -> str:
    changed = f"{n['decisions_changed']:,} of {count(n['decisions'], 'decision')}"
    sessions = f"{n['sessions_affected']:,} of {count(n['sessions'], 'session')}"
    return f"{changed} {'changes' if n['decisions_changed'] == 1 else 'change'}, in {sessions}."


def _coverage(diff: Diff, n: Numbers) -> str:
    """How many decisions were replayed; for each status that is not, how many and why."""
    part, whole = n["decisions_replayed"], n["decisions"]
    done = f"{share(part, whole)} of {count(whole, 'decision')} replayable."
    if part == whole:
        return done
    causes = diff.causes.collect().to_dicts()
    parts = [
        f"{n[f'decisions_{status}']:,} {status} ({_why([row for row in causes if row['status'] == status])})"
        for status in ("undecided", "quarantined")
        if n[f"decisions_{status}"]
    ]
    return f"{done} {n['decisions_not_replayed']:,} could not be: {', '.join(parts)}."


def _why(causes: Sequence[Mapping[str, Any]], most: int = 3) -> str:
    told = [f"{cause_words(row)}: {row['n']:,}" for row in causes[:most]]
    rest = sum(row["n"] for row in causes[most:])
    return ", ".join([*told, f"other causes: {rest:,}"] if rest else told)


def cause_words(row: Mapping[str, Any]) -> str:
    """Return a row's cause in words; what is missing is named."""
    words = str(row["cause"] or "no cause given").replace("_", " ")
    return visible(shorten(f"{words} {', '.join(row['missing'] or ())}".strip(), 80))


class Column(NamedTuple):
    """One column of the tenants' table."""

    group: str
    metric: str
    text: str
    first: bool
    """Whether its group starts here."""

    @property
    def help(self) -> str:
        """What it counts."""
        return HELP[self.metric]


class TenantTable(NamedTuple):
    """The numbers by tenant, as every face shows them; the last row is all."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[int | float, ...]], ...]
    left_out: int
    """Tenants that are in the last row only."""

    @property
    def groups(self) -> dict[str, int]:
        """Number of columns by group, in order."""
        names = [column.group for column in self.columns]
        return {name: names.count(name) for name in dict.fromkeys(names)}


_GROUPS: Mapping[str, Mapping[str, str]] = {
    "attack calls": {
        "attack_calls_ran": "ran",
        "attack_calls_stopped": "stopped",
        "attack_calls_still_run": "still run",
        "attack_calls_unresolved": "not known",
    },
    "honest calls": {
        "honest_calls_ran": "ran",
        "honest_calls_disturbed": "disturbed",
        "honest_calls_unresolved": "not known",
    },
    "unlabelled calls": {
        "unlabelled_calls_ran": "ran",
        "unlabelled_calls_stopped": "stopped",
        "unlabelled_calls_unresolved": "not known",
    },
    "sessions": {"sessions": "all", "sessions_affected": "affected"},
    "honest sessions": {"sessions_honest": "all", "sessions_honest_disturbed": "disturbed"},
    "hijacked sessions": {
        "sessions_hijacked": "all",
        "sessions_hijacked_stopped": "stopped",
        "sessions_hijacked_no_attack_ran": "no attack ran",
    },
    "decisions": {"decisions": "all", "decisions_not_replayed": "not replayed"},
}
"""Columns by group; a group whose first number is zero in the whole lake is left out."""

_RARE = frozenset({"sessions_hijacked_no_attack_ran"})
"""Columns that are left out where they are zero in the whole lake."""


def tenant_table(diff: Diff) -> TenantTable:
    """Return the tenants' table: the `MAX_TENANTS` with most decisions, by name, and all."""
    numbers, found = diff.summary(), diff.tenants.collect()
    columns = tuple(
        Column(group, metric, text, place == 0)
        for group, metrics in _GROUPS.items()
        if numbers[next(iter(metrics))]
        for place, (metric, text) in enumerate(metrics.items())
        if numbers[metric] or metric not in _RARE
    )
    kept = found.top_k(MAX_TENANTS, by="decisions").sort("tenant")
    lines = [(str(row["tenant"]), row) for row in kept.iter_rows(named=True)]
    rows = tuple(
        (name, tuple(row[column.metric] for column in columns)) for name, row in [*lines, ("all", numbers)]
    )
    return TenantTable(columns, rows, found.height - kept.height)


class Matrix(NamedTuple):
    """The transition matrix: rows that occur, every column, totals."""

    rows: tuple[tuple[str, tuple[int, ...], int], ...]
    """State before, decisions by state after, and their sum."""
    all: tuple[int, ...]
    total: int
    most: int
    """The largest cell."""


def matrix(diff: Diff) -> Matrix:
    """Return the transitions as a matrix with columns `STATES`; sums to all."""
    cells = {(row["from"], row["to"]): int(row["n"]) for row in diff.transitions.collect().to_dicts()}
    rows = {start: tuple(cells.get((start, end), 0) for end in STATES) for start in STATES}
    shown = tuple((start, row, sum(row)) for start, row in rows.items() if any(row))
    totals = tuple(sum(column) for column in zip(*rows.values(), strict=True))
    return Matrix(shown, totals, sum(totals), max(cells.values(), default=0))


def text(diff: Diff) -> str:
    """Return the comparison as plain text: the headline, the matrix, the tenants."""
    names = [visible(name) for name in (diff.base.policy[0], diff.cand.policy[0], diff.cand.context)]
    title = "Diff: {} → {}, contexts {}".format(*names)
    found = matrix(diff)
    rows: list[list[str | int]] = [[start, *cells, total] for start, cells, total in found.rows]
    grid: list[list[str | int]] = [["", *STATES, "all"], *rows, ["all", *found.all, found.total]]
    sections = [aligned(grid), aligned(_tenant_lines(diff)), _certain(diff)]
    said = [line for section in sections if section for line in ("", *section)]
    return "\n".join([title, *headline(diff), *said])


def _certain(diff: Diff) -> list[str]:
    """What the change is worth and how sure that is."""
    from workbench import certainty, faces  # noqa: PLC0415 - they write with what is here

    if not certainty.at_a_glance(diff):
        return [
            "`diff.worth`, `diff.estimates` and `diff.divergence` say what it is worth, and how sure that is."
        ]
    table = certainty.table(diff)
    return [*certainty.lines(diff), *(faces.grid(table) if table is not None else [])]


def _tenant_lines(diff: Diff) -> list[list[str | int | float]]:
    """The tenants' table with its groups as words in the heads; how many there are in all stands last."""
    table = tenant_table(diff)
    kept = [place for place, column in enumerate(table.columns) if column.text != "all"]
    heads = [
        f"{table.columns[place].group.removesuffix(' calls')} {table.columns[place].text}" for place in kept
    ]
    lines = [[shorten(visible(name), 24), *(values[place] for place in kept)] for name, values in table.rows]
    return [["", *heads], *lines]


def aligned(rows: Sequence[Sequence[str | int | float]]) -> list[str]:
    """Return rows as lines: cells aligned: the first column left, the others right; heads break at spaces."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    heads = [head.rpartition(" ") for head in cells[0]]
    if any(first for first, _, _ in heads):
        cells[:1] = [[first for first, _, _ in heads], [last for _, _, last in heads]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in cells
    ]
