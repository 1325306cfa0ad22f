"""The gate of a job without a candidate: whether this window is like the one before, under the same policy.

One rule: doubt is no answer. The gate fails if more variables drifted, or more decisions had a context that nobody
met before, than it allows, and chance would not do that; it is met if a shift that matters would have been seen; in
every other case it is open, with the sessions that are needed.

Every night spends a part of the error, `spent(night)`, and all parts together are one: however many nights there are,
any false alarm at all has at most the chance `1 - level`. Half of it is for what drifted (Holm over the variables),
half for what was uncovered (Holm over the shapes of context), so it holds for the job as a whole, and whatever hangs
together: of variables, of nights that share a window, of windows that all have the first beside them.

Under the same policy: where the bundle changed between the windows, verdicts and reasons of both are decided again
under the last one in force. What people asked for, and with which facts, is compared as it was.

Source: spending by night, Tian & Ramdas 2021, Statistical Methods in Medical Research 30:976 (Alpha-Spending);
`1/(k log^2 k)` spends slowest of the usual series. A shape that only this window has: with k sessions of n + m, all
are among the m of one window with chance C(m, k) / C(n + m, k) (Fisher 1935); sessions in both windows are left out.

Accepted: a daily rhythm, as of weekends, is drift, and said so: compare windows of a week, or `ignore` the variable.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from workbench.covering.result import coverage
from workbench.covering.words import KIND_WORDS
from workbench.drifting.drift import drift, name_of
from workbench.masking import leaving
from workbench.regressing.drift_declared import DriftGate, read_drift
from workbench.regressing.drift_windows import Contents, contents_of, unseen_shapes
from workbench.regressing.result import GateLook
from workbench.statistics.multiplicity import adjusted
from workbench.statistics.power import POWER
from workbench.texts import count, share, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.canonical import Json
    from workbench.lake import Lake
    from workbench.regressing.drift_windows import Shapes
    from workbench.regressing.result import Verdict

MAX_ROWS = 20
"""Variables, and things uncovered, that a result holds."""
NAMED = 5
"""Variables named in a sentence."""
_SERIES = 2.1097428012368919
"""The sum of 1/(k log^2 k) over k from 2 (OEIS A115563)."""


class DriftJudged(NamedTuple):
    """What `judge_drift` found; the members of `workbench.regressing.result.Drifted` of these names."""

    verdict: Verdict
    gates: tuple[GateLook, ...]
    rows: tuple[Mapping[str, Json], ...]
    uncovered: tuple[Mapping[str, Json], ...]
    numbers: Mapping[str, float]
    headline: tuple[str, ...]
    notes: tuple[str, ...]


def spent(night: int) -> float:
    """Return the part of the error that a night may spend, counted from 1; over all nights the parts are one.

    Example:
        >>> [round(spent(night), 4) for night in (1, 2, 30, 365)], sum(map(spent, range(1, 10_000))) < 1
        ([0.4933, 0.1309, 0.0013, 0.0], True)
    """
    return 1 / (_SERIES * (night + 1) * math.log(night + 1) ** 2)


def judge_drift(before: Lake, after: Lake, gate: DriftGate, night: int) -> DriftJudged:
    """Compare a window with another, and judge it.

    Args:
        before: a lake narrowed to the other window.
        after: the same lake narrowed to this one; no decision is in both.
        gate: what is allowed.
        night: which look it is, counted from 1: every look spends of the error.

    Returns:
        What `Drifted` says. A window without a decision leaves all open.

    Raises:
        LakeError: the lake cannot be read.

    Cost: some 20 s of processor time a million decisions for the variables, and 1.5 replays for what is uncovered.
    """
    counts = [_size(each) for each in (before, after)]
    if not all(decisions for decisions, _ in counts):
        return _nothing(gate, counts)
    contents = contents_of(before, after, _one_policy(before, after))
    alpha = (1 - gate.level) * spent(night) / 2
    found = _variables(before, after, gate, contents, alpha)
    shapes = unseen_shapes(before, after, alpha)
    uncovered = _uncovered(before, after, contents.policy)
    gates = (_drifted_gate(found, gate, alpha, contents), _uncovered_gate(shapes, gate, alpha))
    states = {each.state for each in gates}
    verdict: Verdict = "don't ship" if "failed" in states else "inconclusive" if "open" in states else "ship"
    return DriftJudged(
        verdict,
        gates,
        _leaving(_told(found.head(MAX_ROWS))),
        _leaving(uncovered[:MAX_ROWS]),
        {**_numbers(found, counts, shapes), **contents.shares, "uncovered": len(uncovered)},
        tuple(_headline(found, counts, contents, shapes)),
        tuple(_notes(found, gate, contents, uncovered)),
    )


def _leaving(rows: list[dict[str, Any]]) -> tuple[Mapping[str, Json], ...]:
    return tuple(leaving(row) for row in rows)  # type: ignore[misc]  # what was JSON stays JSON


def _size(lake: Lake) -> tuple[int, int]:
    """Decisions and sessions of a window."""
    keys = lake.history.select(pl.len(), sessions=pl.struct("tenant", "session_id").n_unique()).collect()
    decisions, sessions = keys.row(0)
    return int(decisions), int(sessions)


def _nothing(gate: DriftGate, counts: list[tuple[int, int]]) -> DriftJudged:
    which = "window before" if not counts[0][0] else "new window"
    why = f"the {which} has no decision: there is nothing to compare"
    gates = tuple(
        GateLook(
            text=text, quantity=quantity, state="open", low=None, high=None, lower=None, upper=None,
            level=1 - (1 - gate.level) / 2, method="not judged", sessions=0, why=why,
        )
        for text, quantity in ((_drifted_text(gate), "drifted"), (_uncovered_text(gate), "uncovered_share"))
    )  # fmt: skip
    return DriftJudged("inconclusive", gates, (), (), _sizes(counts), (f"{why[0].upper()}{why[1:]}.",), ())


def _sizes(counts: list[tuple[int, int]]) -> dict[str, float]:
    names = ("decisions", "sessions")
    sides = zip(("before", "after"), counts, strict=True)
    return {f"{name}.{side}": float(n) for side, each in sides for name, n in zip(names, each, strict=True)}


def _one_policy(before: Lake, after: Lake) -> str | None:
    """Under which version both windows are decided again; None: they were decided under the same."""
    versions = [
        each.history.select("bundle_version").unique().collect()["bundle_version"] for each in (before, after)
    ]
    if set(versions[0]) == set(versions[1]):
        return None
    last = after.history.select(pl.col("bundle_version").sort_by("decided_at").last()).collect()
    return str(last.item())


# Variables


def _variables(before: Lake, after: Lake, gate: DriftGate, contents: Contents, alpha: float) -> pl.DataFrame:
    """One row a variable that is looked at, what drifted first, the furthest apart first.

    `name`, `before`, `after`, `distance`, `p` (corrected; null: not tested), `drifted`, `policies`, `decisions`.
    """
    columns = ("before", "after", "distance", "p", "policies", "decisions", "n_before", "n_after")
    rows = drift(before, before, after, least=gate.least).frame.collect()
    names = pl.Series("name", [visible(name_of(row)) for row in rows.iter_rows(named=True)], dtype=pl.String)
    found = rows.with_columns(names).select("name", *columns)
    if contents.mixes:
        again = pl.DataFrame(contents.mixes, schema=found.schema)
        found = pl.concat([again, found.filter(~pl.col("name").is_in(again["name"].implode()))])
    found = found.filter(~_ignored(found["name"], gate))
    p = adjusted(found["p"].fill_null(math.nan).to_numpy())
    corrected = pl.Series("p", p, dtype=pl.Float64).fill_nan(None)
    sure = (corrected <= alpha).fill_null(value=False) & (found["distance"] >= gate.least)
    found = found.with_columns(corrected, drifted=sure)
    return found.sort("drifted", "distance", "name", descending=[True, True, False])


def _ignored(names: pl.Series, gate: DriftGate) -> pl.Series:
    told = [any(fnmatchcase(name, pattern) for pattern in gate.ignore) for name in names]
    return pl.Series(told, dtype=pl.Boolean)


def _told(rows: pl.DataFrame) -> list[dict[str, Any]]:
    found = rows.drop("n_before", "n_after").to_dicts()
    return [{**row, "policies": [*map(visible, row["policies"])]} for row in found]


def needed(gate: DriftGate, alpha: float, variables: int) -> float:
    """Return the n m / (n + m) of windows of n and m sessions in which a share is seen to move by `least`.

    Two categories at a distance d, in windows of n and m sessions, have a chi-square of one degree of freedom with
    noncentrality 8 log 2 d^2 n m / (n + m), to the first order of d^2; it shall exceed its corrected critical value
    with the chance `POWER`.
    """
    from scipy.special import ndtri  # noqa: PLC0415 - half a second

    z = -float(ndtri(alpha / max(variables, 1) / 2)) + float(ndtri(POWER))
    return z**2 / (8 * math.log(2) * gate.least**2)


def _drifted_text(gate: DriftGate) -> str:
    return f"drifted <= {gate.max_drifted}"


def _drifted_gate(found: pl.DataFrame, gate: DriftGate, alpha: float, contents: Contents) -> GateLook:
    n, m = contents.sessions
    tested = found["p"].drop_nulls().len()
    drifted, apart = int(found["drifted"].sum()), int((found["distance"] >= gate.least).sum())
    enough = needed(gate, alpha, tested)
    seen = n * m / (n + m) if n + m else 0.0
    state = "met"
    why = f"{count(drifted, 'variable')} drifted; a shift by {gate.least:g} of all decisions would have been seen"
    if drifted > gate.max_drifted:
        names = ", ".join(found.filter("drifted")["name"].head(NAMED))
        state, why = "failed", f"{count(drifted, 'variable')} drifted, more than chance would do: {names}"
    elif seen < enough:
        each = math.ceil(2 * enough)
        more = max(each - min(n, m), 1)
        state = "open"
        why = (
            f"{drifted} drifted, but a shift by {gate.least:g} would be missed too often: that takes about "
            f"{each:,} sessions in each window, {more:,} more than the smaller has ({n:,} before, {m:,} now); "
            "or set a larger `least`"
        )
    return GateLook(
        text=_drifted_text(gate), quantity="drifted", state=state, low=float(drifted), high=float(apart),  # type: ignore[arg-type]  # one of the three
        lower=float(drifted), upper=None, level=1 - (1 - gate.level) / 2,
        method=f"Holm over {tested:,} variables, error spent over the nights ({alpha:.2g} tonight)",
        sessions=n + m, why=why,
    )  # fmt: skip


# What the other window never had


def _uncovered(before: Lake, after: Lake, policy: str | None) -> list[dict[str, Any]]:
    """What this window exercised and the other did not, most decisions first."""
    gap = coverage(after, policy).against(coverage(before, policy))
    return [
        {
            "what": KIND_WORDS[row["kind"]],
            "name": visible(": ".join(filter(None, (row["tool"] or row["policy"], row["what"])))),
            "decisions": row["decisions"],
        }
        for row in gap.rows.iter_rows(named=True)
    ]


def _uncovered_text(gate: DriftGate) -> str:
    return f"uncovered_share <= {gate.max_uncovered:g}"


def _uncovered_gate(shapes: Shapes, gate: DriftGate, alpha: float) -> GateLook:
    low, high = shapes.sure / shapes.decisions, shapes.unseen / shapes.decisions
    said = f"{share(shapes.unseen, shapes.decisions)} of decisions have a new tool or shape of context"
    if low > gate.max_uncovered:
        state = "failed"
        why = f"{said}, {share(shapes.sure, shapes.decisions)} not by chance: {visible(shapes.most)}"
    elif high > gate.max_uncovered:
        state = "open"
        why = f"{said}, each in too few sessions to tell from chance: that takes {shapes.needed}"
    else:
        state, why = "met", f"{said}; exact on this log"
    return GateLook(
        text=_uncovered_text(gate), quantity="uncovered_share", state=state, low=low, high=high,  # type: ignore[arg-type]  # one of the three
        lower=low, upper=None, level=1 - (1 - gate.level) / 2,
        method=f"exact, Holm over {shapes.kinds:,} shapes, error spent over the nights ({alpha:.2g} tonight)",
        sessions=sum(shapes.sessions), why=why,
    )  # fmt: skip


# In words


def _numbers(found: pl.DataFrame, counts: list[tuple[int, int]], shapes: Shapes) -> dict[str, float]:
    mixes = found.filter(pl.col("name").is_in(["verdict", "tool", "reason"]))
    return {
        **_sizes(counts),
        "variables": float(found.height),
        "variables_tested": float(found["p"].drop_nulls().len()),
        "drifted": float(found["drifted"].sum()),
        **{f"distance.{name}": float(far) for name, far in mixes.select("name", "distance").iter_rows()},
        "uncovered_share": shapes.unseen / shapes.decisions,
        "uncovered_share_sure": shapes.sure / shapes.decisions,
    }


def _headline(
    found: pl.DataFrame, counts: list[tuple[int, int]], contents: Contents, shapes: Shapes
) -> Iterator[str]:
    drifted = found.filter("drifted")
    sides = [
        f"{count(decisions, 'decision')} in {count(sessions, 'session')}" for decisions, sessions in counts
    ]
    yield f"{drifted.height:,} of {count(found.height, 'variable')} drifted between {sides[0]} and {sides[1]}."
    yield f"Verdicts: {contents.told}."
    new = share(shapes.unseen, shapes.decisions)
    yield f"{new} of the decisions had a tool or a shape of context that the window before had not."
    hang = drifted.filter(pl.col("decisions") > 0).sort("decisions", descending=True)
    if hang.height:
        row = hang.row(0, named=True)
        policies = ", ".join(map(visible, row["policies"][:NAMED]))
        yield f"Most decisions hang on {row['name']}: {row['decisions']:,}, determined by {policies}."


def _notes(
    found: pl.DataFrame, gate: DriftGate, contents: Contents, uncovered: list[dict[str, Any]]
) -> Iterator[str]:
    if contents.policy is not None:
        yield (
            f"The policy changed between the windows: verdicts and reasons of both are those of "
            f"{contents.policy[:12]}, the last in force; coverage, too."
        )
    yield from contents.notes
    chance = found.filter(~pl.col("drifted"), pl.col("distance") >= gate.least).height
    if chance:
        yield (
            f"{count(chance, 'variable is', 'variables are')} further apart than {gate.least:g}, "
            "in too few sessions to tell from chance."
        )
    untested = found["p"].null_count()
    if untested:
        yield f"{count(untested, 'variable')} could not be tested: too few sessions."
    if found.height > MAX_ROWS:
        yield f"{found.height - MAX_ROWS:,} more variables were looked at."
    if len(uncovered) > MAX_ROWS:
        yield f"{len(uncovered) - MAX_ROWS:,} more things are new."


__all__ = ["DriftGate", "DriftJudged", "judge_drift", "needed", "read_drift", "spent"]
