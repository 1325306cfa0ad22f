"""What a night has to say, in order: sentences and tables, the same for a page and for a pull request's comment.

One rule: the words are here, once; how they are laid out is for `page` and `markdown`. No number is computed; names
and strings of the log stand between backticks or in columns of code, and are escaped by who writes them down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from workbench.faces import Item, Table
from workbench.regressing.result import EXIT, WORST, Candidate
from workbench.texts import count, number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.canonical import Json
    from workbench.faces import Cell
    from workbench.parts import Hue
    from workbench.regressing.result import Drifted, GateLook, Night, Range, Verdict

MEANING: Mapping[Verdict, str] = {
    "ship": "nothing that was asked for got worse, and that is sure",
    "don't ship": "a regression: something that was asked for got worse",
    "inconclusive": "it cannot be told yet: more sessions or labels are needed",
    "could not run": "nothing was judged, or not all of it",
}
HUE: Mapping[Verdict, Hue] = {
    "ship": "good",
    "don't ship": "bad",
    "inconclusive": "wait",
    "could not run": "lost",
}
STATES = ("failed", "open", "met")
"""Of gates, the worst first."""


class Cut(NamedTuple):
    """How much is told."""

    rows: int
    """Of each table."""
    candidates: int
    """With their details; the verdict counts all."""


ALL = Cut(1_000, 1_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One thing that is told: a candidate, drift, problems."""

    title: str
    badge: tuple[str, Hue] | None = None
    lines: Sequence[str] = ()
    parts: Sequence[Table] = ()
    folded: Sequence[Table] = ()
    """Told where there is room."""
    items: Sequence[Item] = ()
    """What it rests on, by name."""


def headline(night: Night) -> list[str]:
    """Return what comes first: the verdict with its meaning, each candidate's in a sentence, and what went wrong."""
    told = [f"{capital(MEANING[night.verdict])}."]
    told += [f"`{each.name}`: {_of_candidate(each)}." for each in night.candidates]
    if night.drift is not None:
        told.append(f"Drift: {night.drift.verdict}, {_gates_in_words(night.drift.gates)}.")
    if not night.candidates and night.drift is None and not night.problems:
        told.append("The job names no candidate, and nothing was compared.")
    return told + [f"Problem: {each}" for each in night.problems]


def exit_words(night: Night) -> str:
    """Say what the exit code means, and which others there are."""
    others = ", ".join(f"{code} {verdict}" for verdict, code in EXIT.items())
    return f"Exit code {night.exit_code} ({others})."


def sections(night: Night, cut: Cut = ALL) -> Iterator[Section]:
    """Yield each candidate's section, the worst verdict first, then drift's."""
    ordered = sorted(night.candidates, key=lambda each: WORST.index(each.verdict))
    for each in ordered[: cut.candidates]:
        yield _candidate(each, cut)
    if (left := len(ordered) - cut.candidates) > 0:
        yield Section(title=count(left, "more candidate"), lines=("`night.json` has all of them.",))
    if night.drift is not None:
        yield _drift(night.drift, cut)


def capital(said: str) -> str:
    """Write the first letter large."""
    return said[:1].upper() + said[1:]


def span(window: Range) -> str:
    """Say which decisions a window has."""
    if not window.decisions:
        return f"no new decision up to position {window.watermark:,}"
    when = f", {_minute(window.first)} to {_minute(window.last)} (UTC)" if window.first else ""
    held = f"{count(window.decisions, 'decision')} of {count(window.sessions, 'session')}"
    return f"{held}{when}, up to position {window.watermark:,}"


def _minute(moment: str | None) -> str:
    return (moment or "?")[:16].replace("T", " ")


def _of_candidate(each: Candidate) -> str:
    told: list[str] = [each.verdict]
    if each.gates:
        told.append(_gates_in_words(each.gates))
    if each.window is not None and each.window.decisions:
        told.append(
            f"{each.changed:,} of {count(each.window.decisions, 'decision')} would change, "
            f"{each.regressed:,} of them for the worse"
        )
    elif each.window is not None:
        told.append("no new decision")
    return ", ".join(told[:2]) + "".join(f"; {more}" for more in told[2:])


def _gates_in_words(gates: Sequence[GateLook]) -> str:
    states = [each.state for each in gates]
    told = [f"{states.count(state)} {state}" for state in STATES if state in states]
    return f"{count(len(gates), 'gate')}: {', '.join(told)}" if gates else "no gate"


def _candidate(each: Candidate, cut: Cut) -> Section:
    gates = [gate for state in STATES for gate in each.gates if gate.state == state]
    parts = [*_table_of(gates, each.night, cut)]
    regressed = _examples(each, cut)
    return Section(
        title=each.name,
        badge=(each.verdict, HUE[each.verdict]),
        lines=(*_window_lines(each), *each.headline, *each.notes),
        parts=(*parts, *regressed),
        folded=(
            *_reopened(each, cut),
            *_numbers("Numbers of this window", each.numbers, cut),
            *_numbers("Scores", each.scores, cut),
        ),
        items=tuple(_pins(each)),
    )


def _window_lines(each: Candidate) -> Iterator[str]:
    if each.window is not None:
        looked = f"Night {each.night}" if each.night else "Not looked at"
        yield f"{looked}: {span(each.window)}."
    late = sum(window.sessions for window in each.reopened)
    if late:
        yield (
            f"More became known of {count(late, 'session')} in {count(len(each.reopened), 'earlier window')}; "
            "the gates count them as they are now."
        )


def _table_of(gates: Sequence[GateLook], night: int, cut: Cut) -> Iterator[Table]:
    if not gates:
        return
    nights = f"over {count(night, 'night')}" if night else "as seen"
    rows: list[tuple[Cell, ...]] = [
        (each.text, each.state, _between(each, each.low, each.high), _sure(each), each.sessions, each.why)
        for each in gates[: cut.rows]
    ]
    more = f"; {len(gates) - len(rows):,} more in `night.json`" if len(gates) > len(rows) else ""
    yield Table(
        title="Gates",
        note=f"`on the log` is exact, {nights}; `sure` bounds future traffic, however often one looks{more}",
        heads=("gate", "is", "on the log", "sure", "sessions", "why"),
        rows=rows,
        code=frozenset({0}),
    )


def sized(quantity: str, value: float | None) -> str:
    """Write a value of a quantity: shares in per cent.

    Example:
        >>> sized("harm_through_share", 0.05), sized("calls_released", 12), sized("calls_released", None)
        ('5 %', '12', '–')
    """
    if value is None or value != value:  # noqa: PLR0124 - not a number
        return "–"
    return f"{100 * value:.4g} %" if quantity.endswith("_share") else f"{value:,.4g}"


def _between(each: GateLook, low: float | None, high: float | None) -> str:
    one, other = sized(each.quantity, low), sized(each.quantity, high)
    return one if one == other else f"{one} to {other}"


def _sure(each: GateLook) -> str:
    if each.lower is None and each.upper is None:
        return "–"
    level = f" ({100 * each.level:.4g} %)"
    if each.lower is None:
        return f"at most {sized(each.quantity, each.upper)}{level}"
    if each.upper is None:
        return f"at least {sized(each.quantity, each.lower)}{level}"
    return _between(each, each.lower, each.upper) + level


_EXAMPLE = ("tool", "from", "to", "worse", "determining", "clause", "decision_id")


def _examples(each: Candidate, cut: Cut) -> Iterator[Table]:
    if not each.examples:
        return
    shown = each.examples[: cut.rows]
    yield Table(
        title="Decisions to look at first",
        note=f"{len(shown):,} of those that got worse ({each.regressed:,}), or may have",
        heads=("tool", "from", "to", "what", "because of", "what decides", "decision"),
        rows=[_example(row) for row in shown],
        code=frozenset({0, 4, 6}),
    )


def _example(row: Mapping[str, Json]) -> tuple[Cell, ...]:
    what = row.get("worse") or " ".join(str(row[name]) for name in ("side", "effect") if row.get(name))
    return tuple(_cell(value) for value in ({**row, "worse": what}.get(name) for name in _EXAMPLE))


def _cell(value: Json) -> Cell:
    match value:
        case None | str() | int() | float():
            return value
        case list():
            return ", ".join(str(each) for each in value)
    return str(value)


def _reopened(each: Candidate, cut: Cut) -> Iterator[Table]:
    if not each.reopened:
        return
    shown = each.reopened[-cut.rows :]
    yield Table(
        title="Earlier windows of which more became known",
        note="by what came in since: sessions looked at again, labels, outcomes and later decisions of theirs",
        heads=("night", "sessions", "labels", "outcomes", "decisions", "up to position"),
        rows=[
            (
                window.night,
                window.sessions,
                window.labels,
                window.outcomes,
                window.decisions,
                window.watermark,
            )
            for window in shown
        ],
    )


def _pins(each: Candidate | Drifted) -> Iterator[Item]:
    if isinstance(each, Candidate):
        yield Item("bundle", each.bundle, is_code=True)
        yield Item("version", each.version, is_code=True)
        yield Item("baseline", each.baseline, is_code=True)
        version = each.baseline_version
        yield Item("baseline version", version or "as recorded", is_code=version is not None)
    if each.run_id is not None:
        yield Item("MLflow run", each.run_id, is_code=True)
    if each.run_url is not None:
        yield Item("address", each.run_url, is_link=True)
    if each.files is not None:
        yield Item("files", each.files, is_code=True)


def _numbers(title: str, numbers: Mapping[str, float], cut: Cut) -> Iterator[Table]:
    if not numbers:
        return
    rows: list[tuple[Cell, ...]] = [
        (name, number(value)) for name, value in list(numbers.items())[: cut.rows]
    ]
    more = f"{len(numbers) - len(rows):,} more in `night.json`" if len(numbers) > len(rows) else ""
    yield Table(title=title, note=more, heads=("number", "is"), rows=rows, code=frozenset({0}), folded=True)


def _drift(drift: Drifted, cut: Cut) -> Section:
    gates = [gate for state in STATES for gate in drift.gates if gate.state == state]
    return Section(
        title="This window beside the last, under the same policy",
        badge=(drift.verdict, HUE[drift.verdict]),
        lines=(
            f"Night {drift.night}: {span(drift.after)}.",
            f"Before it: {span(drift.before)}.",
            *drift.headline,
            *drift.notes,
        ),
        parts=(*_table_of(gates, drift.night, cut), *_moved(drift, cut), *_uncovered(drift, cut)),
        folded=tuple(_numbers("Numbers", drift.numbers, cut)),
        items=tuple(_pins(drift)),
    )


_MOVED = ("name", "before", "after", "distance", "p", "drifted", "policies", "decisions")


def _moved(drift: Drifted, cut: Cut) -> Iterator[Table]:
    if drift.rows:
        rows = [tuple(_cell(row.get(name)) for name in _MOVED) for row in drift.rows[: cut.rows]]
        yield Table(title="What moved most", heads=_MOVED, rows=rows, code=frozenset({0, 6}))


def _uncovered(drift: Drifted, cut: Cut) -> Iterator[Table]:
    if drift.uncovered:
        keys = ("what", "name", "decisions")
        rows = [tuple(_cell(row.get(name)) for name in keys) for row in drift.uncovered[: cut.rows]]
        yield Table(title="New in this window", heads=keys, rows=rows, code=frozenset({1}))
