"""Drift: what changed between two windows of the log, how far and how surely, and which decisions hang on it.

One rule: what changed most comes first, by a distance that means the same for numbers and categories; a p-value says
only whether chance alone would do it. Distances, counts and shares are *exact on this log*; p-values are *estimates*,
over one decision drawn from each session, because decisions of a session are not independent, and corrected (Holm)
for the number of variables looked at.

A variable *drifted* if it is further apart than `least` and its corrected p-value is below 1 - level. What cannot be
tested (fewer than five sessions in a window) is said so, never called stable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from workbench.drifting.measures import Measured, categories, categories_p, numbers, numbers_p
from workbench.drifting.reads import Reads
from workbench.drifting.values import Name, category, lengths
from workbench.drifting.windows import windows_of
from workbench.errors import NotComparable
from workbench.faces import Faces, Page, Table
from workbench.progress import progress
from workbench.statistics.multiplicity import adjusted
from workbench.texts import count, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.canonical import Json
    from workbench.drifting.values import Values, Window
    from workbench.drifting.windows import Given
    from workbench.history.contexts import Contexts
    from workbench.lake import Lake

LEAST = 0.1
"""Jensen-Shannon distance below which a change is not worth a person's time: 9 in 10 against 8 in 10 is 0.1."""
NAMED = 8
"""Variables named in a sentence."""
SHOWN_ROWS = 15
SHOWN_CATEGORIES = 2

FRAME: Mapping[str, pl.DataType | type[pl.DataType]] = {
    "path": pl.String, "what": pl.String, "tool": pl.String, "fact": pl.String,
    "distance": pl.Float64, "effect": pl.Float64,
    "measure": pl.String, "standardised": pl.Float64, "p": pl.Float64, "p_holm": pl.Float64, "drifted": pl.Boolean,
    "n_before": pl.Int64, "n_after": pl.Int64, "sessions_before": pl.Int64, "sessions_after": pl.Int64,
    "before": pl.String, "after": pl.String, "policies": pl.List(pl.String), "decisions": pl.Int64,
}  # fmt: skip
"""Columns of `Drift.frame`. `path`, `what`, `tool`, `fact`: see `workbench.drifting.values`. `distance` Jensen-
Shannon, 0 to 1; `effect` Kolmogorov-Smirnov's D or Cramer's V, as `measure` says; `standardised` the difference of
means in standard deviations (null: categories). `p`, and `p_holm` corrected; null: too few sessions to test. `n_…`
decisions with a value, `sessions_…` the sessions they are of. `before`, `after` in words. `policies` that read it,
and `decisions` of the window after in which one of them was determining."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Drift(Faces):
    """What changed between two windows."""

    frame: pl.LazyFrame
    """One row a variable: those that drifted first, the furthest apart first; columns as in `FRAME`."""
    before: str
    """The window, in words."""
    after: str
    decisions: tuple[int, int]
    """In each window."""
    sessions: tuple[int, int]
    """In each window; one that is in both counts in both, and is tested in the first only."""
    shared_sessions: int
    """In both."""
    level: float
    least: float
    one_sided: tuple[str, ...]
    """Variables that have values in one window only, by name; how often they do is in a `status` or `shape`."""

    @property
    def drifted(self) -> pl.LazyFrame:
        """The variables that drifted; columns as in `FRAME`."""
        return self.frame.filter("drifted")

    def page(self) -> Page:
        """What it says."""
        rows = self.frame.collect()
        found = rows.filter("drifted")
        untested = int(rows["p"].null_count())
        hang = found.filter(pl.col("decisions") > 0)
        lines = [
            f"{len(found):,} of {count(rows.height, 'variable')} drifted between {self.before} and {self.after}.",
            f"Before: {self._window(0)}; after: {self._window(1)} (exact on this log).",
            *([_most(hang)] if hang.height else []),
            *([f"{count(untested, 'variable')} could not be tested: too few sessions."] if untested else []),
            *([f"In one window only: {_few(self.one_sided)}."] if self.one_sided else []),
        ]
        shown_rows = rows.head(SHOWN_ROWS)
        note = (
            "What drifted first, then the furthest apart. Numbers: median (5 % to 95 %). Distance: Jensen-Shannon, "
            "exact on this log; p: estimate, one decision a session, Holm over "
            f"{count(rows.height, 'variable')}; drifted: distance at least {self.least:g}, "
            f"p at most {1 - self.level:.2g}."
        )
        if rows.height > SHOWN_ROWS:
            note += f" {rows.height - SHOWN_ROWS:,} more in `.frame`."
        return Page(
            kind="drift",
            title="Drift",
            lines=lines,
            parts=[
                Table(
                    title="Variables",
                    note=note,
                    heads=_HEADS,
                    rows=[*map(_cells, shown_rows.to_dicts())],
                    code=frozenset({0, 7}),
                )
            ],
            next=["drift.drifted.collect()", "lake.replay(…, versions={…})"],
            pins={"before": self.before, "after": self.after, "level": f"{self.level:g}"},
        )

    def _window(self, place: int) -> str:
        return f"{count(self.decisions[place], 'decision')} in {count(self.sessions[place], 'session')}"

    def as_dict(self) -> dict[str, Json]:
        """All of it, as JSON."""
        return {
            "before": {"window": self.before, "decisions": self.decisions[0], "sessions": self.sessions[0]},
            "after": {"window": self.after, "decisions": self.decisions[1], "sessions": self.sessions[1]},
            "shared_sessions": self.shared_sessions,
            "level": self.level,
            "least": self.least,
            "one_sided": list(self.one_sided),
            "variables": [*self.frame.collect().to_dicts()],
        }


_HEADS = ("variable", "distance", "drifted", "effect", "p (Holm)", "before", "after", "read by", "decisions")


def _few(names: tuple[str, ...]) -> str:
    """The first names, and how many more there are."""
    left = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {left:,} more in `drift.one_sided`" if left > 0 else "")


def _most(hang: pl.DataFrame) -> str:
    top = hang.sort("decisions", descending=True).row(0, named=True)
    policies = ", ".join(map(visible, top["policies"][:SHOWN_CATEGORIES]))
    return (
        f"Most decisions hang on {visible(name_of(top))}: {top['decisions']:,} of the window after were determined "
        f"by policies that read it ({policies})."
    )


def name_of(row: Mapping[str, Any]) -> str:
    """A variable in words: `resource (order) age`, `context.args.amount of refund`."""
    entity = row["fact"] and not row["path"].startswith("context")
    what = "" if row["what"] in ("value", "mix") else f" {row['what']}"
    tool = f" of {row['tool']}" if row["tool"] else ""
    fact = f" ({row['fact']})" if entity else ""
    return f"{row['path']}{fact}{what}{tool}"


def _cells(row: Mapping[str, Any]) -> tuple[Any, ...]:
    name = visible(name_of(row))
    effect = f"{row['measure']} {row['effect']:.2f}"
    policies = ", ".join(map(visible, row["policies"])) or None
    return (name, round(row["distance"], 3), row["drifted"], effect, row["p_holm"], row["before"], row["after"],
            policies, row["decisions"])  # fmt: skip


@progress(None, "comparing windows")
def drift(
    lake: Lake,
    before: Given,
    after: Given | None = None,
    *,
    level: float = 0.95,
    least: float = LEAST,
) -> Drift:
    """Compare two windows of the log: facts, arguments, tools, verdicts.

    Args:
        lake: the pinned lake.
        before: a pair of times, start included, end not (ISO text; without a zone UTC; None: open); or a pin
            (`lake.pins`, or what a replay holds): all rows up to it; or a lake, for all of it.
        after: the same, of which what is in `before` is left out; None: what comes after `before` in `lake`.
        level: one minus the chance that any variable is said to have drifted when none did.
        least: Jensen-Shannon distance that matters.

    Returns:
        `Drift`; its frame holds every variable that has values in both windows.

    Raises:
        NotComparable: a window has no decision, or is none.

    Cost: one pass over a few columns a fact and a tool, and over the arguments; some 20 s of processor time a million
    decisions.
    """
    if not 0 < level < 1 or not 0 <= least <= 1:
        raise NotComparable(
            f"`level` is between 0 and 1, and `least` from 0 to 1; got {level!r} and {least!r}"
        )
    windows = first, second = windows_of(lake, before, after)
    said = [window.mixes() for window in windows]
    tools = Name("tool", "mix")
    for window, mixes in zip(windows, said, strict=True):
        if mixes[tools].is_empty():
            raise NotComparable(f"there is no decision in the window ({window.text})")
    sessions = [mixes[tools]["session"].unique() for mixes in said]
    shared = sessions[1].filter(sessions[1].is_in(sessions[0].implode()))
    rows, one_sided = [], []
    known = (first.contexts(), second.contexts())
    reads = Reads.of(second, known[1])
    for name, pair in _pairs(windows, said, known):
        if any(values.is_empty() for values in pair):
            one_sided += [name] if any(values.height for values in pair) else []
            continue
        rows.append(_row(name, pair, shared) | reads.of_variable(name))
    return Drift(
        frame=_ranked(rows, level, least).lazy(),
        before=first.text,
        after=second.text,
        decisions=(said[0][tools].height, said[1][tools].height),
        sessions=(len(sessions[0]), len(sessions[1])),
        shared_sessions=len(shared),
        level=level,
        least=least,
        one_sided=tuple(visible(name_of(name._asdict())) for name in sorted(one_sided, key=str)),
    )


def _pairs(
    windows: tuple[Window, Window], mixes: list[dict[Name, Values]], known: tuple[Contexts, Contexts]
) -> Iterator[tuple[Name, tuple[Values, Values]]]:
    """Every variable, with its values in both windows; what one window lacks has none there."""
    yield from _joined(*mixes)
    facts = sorted({name for contexts in known for name in contexts.facts})
    with progress(len(facts), "facts", unit="fact") as advance:
        for name in facts:
            yield from _joined(
                *(window.fact(name, each) for window, each in zip(windows, known, strict=True))
            )
            advance(1)
    tools = sorted(windows[0].tools() | windows[1].tools())
    with progress(len(tools), "arguments of tools", unit="tool") as advance:
        for tool in tools:
            yield from _joined(*(window.args(tool) for window in windows))
            advance(1)


def _joined(
    before: dict[Name, Values], after: dict[Name, Values]
) -> Iterator[tuple[Name, tuple[Values, Values]]]:
    nothing = pl.DataFrame(schema={"session": pl.UInt64, "value": pl.String})
    for name in {**before, **after}:
        pair = before.get(name, nothing), after.get(name, nothing)
        numeric = [values.schema["value"].is_numeric() for values in pair if values.height]
        if not all(numeric):  # a number then, a text now: both are categories
            pair = pair[0].cast({"value": pl.String}), pair[1].cast({"value": pl.String})
            if lengths(pair[0]["value"], pair[1]["value"]):
                name = name._replace(what="length")  # noqa: PLW2901 - another variable
                pair = _lengths(pair[0]), _lengths(pair[1])
        yield name, pair


def _lengths(values: Values) -> Values:
    return values.with_columns(pl.col("value").str.len_chars().cast(pl.Float64))


def _row(name: Name, pair: tuple[Values, Values], shared: pl.Series) -> dict[str, Any]:
    """Everything about one variable but what hangs on it."""
    first, second = pair
    drawn = _drawn(first), _drawn(second.filter(~pl.col("session").is_in(shared.implode())))
    numeric = first.schema["value"].is_numeric()
    measured, p, words = _numbers(pair, drawn) if numeric else _categories(pair, drawn)
    return {
        **name._asdict(),
        **measured._asdict(),
        "measure": "D" if numeric else "V",
        "p": None if math.isnan(p) else p,
        "n_before": first.height,
        "n_after": second.height,
        "sessions_before": first["session"].n_unique(),
        "sessions_after": second["session"].n_unique(),
        "before": words[0],
        "after": words[1],
    }


def _drawn(values: Values) -> pl.Series:
    """One value of each session."""
    return values.unique("session", keep="first", maintain_order=True)["value"]


class _Told(NamedTuple):
    measured: Measured
    p: float
    words: tuple[str, str]


def _numbers(pair: tuple[Values, Values], drawn: tuple[pl.Series, pl.Series]) -> _Told:
    first, second = (values["value"].to_numpy() for values in pair)
    one, two = (values.to_numpy() for values in drawn)
    return _Told(
        numbers(first, second), numbers_p(one, two), (_spread(pair[0]["value"]), _spread(pair[1]["value"]))
    )


def _spread(values: pl.Series) -> str:
    low, middle, high = (values.quantile(at, "nearest") for at in (0.05, 0.5, 0.95))
    return f"{middle:.6g} ({low:.6g} to {high:.6g})"


def _categories(pair: tuple[Values, Values], drawn: tuple[pl.Series, pl.Series]) -> _Told:
    kinds = pl.concat([values["value"].unique() for values in pair]).unique().sort()
    first, second = (_counts(values["value"], kinds) for values in pair)
    one, two = (_counts(values, kinds) for values in drawn)
    return _Told(
        categories(first, second),
        categories_p(one, two),
        (_most_of(pair[0]["value"]), _most_of(pair[1]["value"])),
    )


def _counts(values: pl.Series, kinds: pl.Series) -> list[int]:
    found = dict(values.value_counts(name="n").iter_rows())
    return [found.get(kind, 0) for kind in kinds]


def _most_of(values: pl.Series) -> str:
    found = values.value_counts(name="n").sort("n", values.name, descending=[True, False])
    some = [
        f"{shorten(category(kind), 24)} {100 * n / values.len():.1f} %"
        for kind, n in found.head(SHOWN_CATEGORIES).iter_rows()
    ]
    rest = found.height - SHOWN_CATEGORIES
    return ", ".join([*some, f"{rest:,} more"] if rest > 0 else some)


def _ranked(rows: list[dict[str, Any]], level: float, least: float) -> pl.DataFrame:
    corrected = adjusted([math.nan if row["p"] is None else row["p"] for row in rows])
    holm = pl.Series("p_holm", corrected, dtype=pl.Float64).fill_nan(None)
    frame = pl.DataFrame(rows, schema=dict(FRAME)).with_columns(holm)
    sure = (pl.col("p_holm") <= 1 - level).fill_null(value=False)
    frame = frame.with_columns(drifted=sure & (pl.col("distance") >= least))
    order = ("drifted", "distance", "path", "what", "tool", "fact")
    return frame.sort(order, descending=[True, True, False, False, False, False], nulls_last=True)
