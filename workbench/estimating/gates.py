"""Declared gates over a comparison: ship, don't ship, or inconclusive.

One rule: doubt is no answer. A gate is *met* if the bound for future traffic clears its threshold, *failed* if the
other bound does, and *open* otherwise, with the number of sessions still needed, or that no number of them would do.

Errors. *Ship* needs every gate met, each at its own level: if any gate's truth is on the wrong side, all are met with
probability at most `1 - level` of that gate (intersection-union test: Berger 1982, Technometrics 24:295), so nothing
is adjusted. *Don't ship* is claimed where any gate failed: their p-values are adjusted over the gates by Holm.

A gate on this log (`on = "log"`) is no estimate: it counts what is there, over all that the log leaves possible.

A gate for each slice (`each = "tool"`) is one gate a slice, judged so: all slices have to keep it, each at the gate's
level, and that one of them fails is adjusted over all slices, too. It names its columns itself, so a file of gates is
judged alike from the command line, a comparison and `decide`; a slice with few sessions keeps the whole open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from workbench import faces
from workbench.errors import ColumnUnknown, GatesInvalid, NotEstimable
from workbench.estimating.gates_file import Gate, read
from workbench.estimating.page import finite, percent, seen, sized
from workbench.statistics.multiplicity import adjusted
from workbench.statistics.power import clusters_needed
from workbench.texts import count, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.canonical import Json
    from workbench.compare import Diff
    from workbench.estimating.estimates import Estimate, Estimates
    from workbench.estimating.gates_file import Given

__all__ = ["Gate", "Judged", "Outcome", "decide"]

Verdict = Literal["ship", "don't ship", "inconclusive"]
State = Literal["met", "failed", "open"]

EXIT: dict[Verdict, int] = {"ship": 0, "don't ship": 1, "inconclusive": 2}
"""What a job exits with (DESIGN section 8)."""

_SURE = 1e-15
"""The smallest p-value that is told apart from 0."""


MOST_NEEDED = 1_000_000
"""Clusters above which nobody waits for them."""


class Needed(NamedTuple):
    """How many more clusters would settle an open gate."""

    more: int | None
    """None: no number of clusters like these."""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One gate, judged."""

    gate: Gate
    estimate: Estimate
    state: State
    safe: float
    """The bound that has to clear the threshold: the upper one of `at_most`, the lower one of `at_least`. Infinite
    where the data bound nothing."""
    p_failed: float
    """Adjusted p-value that the threshold is kept: small means it is not. NaN of a gate on the log."""
    needed: Needed | None
    """Of an open gate."""
    why: str

    @property
    def said(self) -> str:
        """The condition, and of which slice."""
        name = self.estimate.slice
        return self.gate.text if name is None else f"{self.gate.text} ({visible(name)})"

    def as_dict(self) -> dict[str, Json]:
        """Return it as JSON."""
        each = self.estimate
        return {
            **self.gate.as_dict(), "slice": each.slice, "state": self.state, "why": self.why,
            "low": finite(each.low.value), "high": finite(each.high.value), "safe": finite(self.safe),
            "p_failed": finite(self.p_failed), "clusters": each.low.clusters.count,
            "clusters_needed": self.needed.more if self.needed else None,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Outcome(faces.Faces):
    """Ship, don't ship or inconclusive, and why. Made by `decide`."""

    verdict: Verdict
    gates: tuple[Judged, ...]
    cluster: str
    pins: Mapping[str, str]

    @property
    def exit_code(self) -> int:
        """0 ship, 1 don't ship, 2 inconclusive."""
        return EXIT[self.verdict]

    @property
    def clusters_needed(self) -> int | None:
        """How many more clusters would settle all open gates; 0 where none is open, None where none would do."""
        needed = [each.needed.more for each in self.gates if each.needed]
        known = [each for each in needed if each is not None]
        return None if len(known) < len(needed) else max(known, default=0)

    def page(self) -> faces.Page:
        """Say it: the verdict, what is still needed, and each gate."""
        rows = [
            (each.gate.text, each.estimate.slice or "all", each.state, seen(each.estimate),
             sized(each.estimate, each.safe), each.estimate.low.clusters.count, finite(each.p_failed), each.why)
            for each in self.gates
        ]  # fmt: skip
        table = faces.Table(
            title="Gates",
            note="`on this log` is exact; `safe` is the bound for future traffic that has to clear the threshold, at "
            "the gate's level; `p failed` is adjusted over the gates (Holm)",
            heads=("gate", "slice", "is", "on this log", "safe", "clusters", "p failed", "why"),
            rows=rows,
            code=frozenset({0}),
        )
        return faces.Page(
            kind="gates",
            title=self.verdict.capitalize(),
            lines=tuple(self._lines()),
            parts=(table,),
            pins=self.pins,
        )

    def _lines(self) -> Iterator[str]:
        states = [each.state for each in self.gates]
        told = ", ".join(f"{states.count(state)} {state}" for state in ("met", "failed", "open"))
        yield f"{count(len(states), 'gate')}: {told}."
        yield from (
            f"{each.said}: {each.why}"
            for state in ("failed", "open")
            for each in self.gates
            if each.state == state
        )
        if self.verdict == "inconclusive" and self.clusters_needed:
            yield f"Still needed: about {self.clusters_needed:,} more ({self.cluster}), if the rates stay as seen."

    def as_dict(self) -> dict[str, Json]:
        """Return the verdict and each gate, as JSON."""
        return {
            "verdict": self.verdict, "exit_code": self.exit_code, "clusters_needed": self.clusters_needed,
            "cluster": self.cluster, "pins": dict(self.pins), "gates": [each.as_dict() for each in self.gates],
        }  # fmt: skip


def decide(given: Diff | Estimates, gates: Given, **options: Any) -> Outcome:
    """Judge a comparison by declared gates.

    Args:
        given: the comparison, or its estimates.
        gates: as `workbench.estimating.gates_file.read` takes them: a TOML file, a mapping, or `Gate`s.
        **options: of `estimates` (`stakes`, `cluster`, `by`, …), where a comparison is given.

    Returns:
        `ship` if every gate is met, `don't ship` if any failed, else `inconclusive`.

    Raises:
        GatesInvalid: a gate cannot be read, cannot ever be met, names what was not estimated, or slices by what is no
            column.

    Cost: as `estimates`; and again, of the gates' quantities alone, for each other slicing that gates name.

    Example:
        `decide(diff, {"gates": [{"quantity": "harm_through_share", "at_most": 0.05}]})`
    """
    declared = read(gates)
    found = _estimates(given, options)
    slicings = _slicings(declared, found)
    chosen = [(gate, each) for gate in declared for each in _of(gate, slicings.get(gate.by, found))]
    p_values = adjusted([_p_failed(gate, each) for gate, each in chosen])
    judged = tuple(
        _judged(gate, each, float(p), len(chosen)) for (gate, each), p in zip(chosen, p_values, strict=True)
    )
    states = {each.state for each in judged}
    verdict: Verdict = "don't ship" if "failed" in states else "inconclusive" if "open" in states else "ship"
    return Outcome(verdict=verdict, gates=judged, cluster=found.cluster, pins=found.pins)


def _estimates(given: Diff | Estimates, options: Mapping[str, Any]) -> Estimates:
    from workbench.estimating.estimates import Estimates, estimates  # noqa: PLC0415 - Polars and stakes, only to judge

    if not isinstance(given, Estimates):
        return estimates(given, **options)
    if options:
        raise GatesInvalid(
            f"{', '.join(options)}: the estimates are made already; give the comparison instead"
        )
    return given


def _slicings(gates: Sequence[Gate], found: Estimates) -> dict[tuple[str, ...], Estimates]:
    """Estimates by the slices that gates name; those that are at hand are taken."""
    wanted: dict[tuple[str, ...], dict[str, None]] = {}
    for gate in gates:
        if gate.by:
            wanted.setdefault(gate.by, {})[gate.quantity] = None
    return {by: found if by == found.by else _sliced(found, by, tuple(names)) for by, names in wanted.items()}


def _sliced(found: Estimates, by: tuple[str, ...], names: Sequence[str]) -> Estimates:
    said = ", ".join(f"`{visible(name)}`" for name in names)
    try:
        return found.sliced(by, names)
    except ColumnUnknown as exc:
        raise GatesInvalid(f"gate {said}: `each` names a column: {exc}") from exc
    except NotEstimable as exc:
        raise GatesInvalid(f"gate {said}: {exc}") from exc


def _of(gate: Gate, found: Estimates) -> Sequence[Estimate]:
    """The estimates that a gate is about."""
    try:
        slices = found.slices(gate.quantity)
    except NotEstimable as exc:
        raise GatesInvalid(f"gate `{gate.quantity}`: {exc}") from exc
    parts = [each for name, each in slices.items() if name is not None]
    if gate.each and not parts:
        raise GatesInvalid(
            f"gate `{gate.quantity}` is for each slice, and does not say of what; name columns, as "
            "`each = \"tool\"`, or give `by`, as `decide(…, by='tool')`"
        )
    chosen = parts if gate.each else [slices[None]]
    if gate.on == "future":
        _require_possible(gate, chosen[0])
    return chosen


def _require_possible(gate: Gate, each: Estimate) -> None:
    """Refuse a threshold that no number of sessions shows to be kept."""
    impossible = gate.at_most == 0 and each.low.kind != "signed"
    impossible |= gate.at_least == 1 and each.low.kind == "share"
    if impossible:
        at = f"at_most = {gate.at:g}" if gate.upper else f"at_least = {gate.at:g}"
        raise GatesInvalid(
            f"gate `{gate.quantity}`: no log can show `{at}` of future traffic, as 0 of n is not 0; give a threshold "
            f'that is above 0 (below 1), or judge this log alone with `on = "log"`'
        )


def _p_failed(gate: Gate, each: Estimate) -> float:
    """The p-value that the threshold is kept, by inverting the bound: the smallest error at which it is crossed."""
    if gate.on == "log" or not each.low.clusters.n.size:
        return math.nan
    value = each.low.value if gate.upper else each.high.value
    if not _beyond(gate, value):
        return 1.0
    sure, unsure = math.log(_SURE), math.log(0.5)
    if not _beyond(gate, _other(gate, each, 0.5)):
        return 1.0
    for _ in range(40):
        middle = (sure + unsure) / 2
        crossed = _beyond(gate, _other(gate, each, math.exp(middle)))
        sure, unsure = (sure, middle) if crossed else (middle, unsure)
    return math.exp(unsure)


def _beyond(gate: Gate, value: float) -> bool:
    """Whether a value is on the wrong side of the threshold."""
    return value > gate.at if gate.upper else value < gate.at


def _safe(gate: Gate, each: Estimate, alpha: float) -> float:
    return each.upper(alpha) if gate.upper else each.lower(alpha)


def _other(gate: Gate, each: Estimate, alpha: float) -> float:
    return each.lower(alpha) if gate.upper else each.upper(alpha)


def _judged(gate: Gate, each: Estimate, p: float, tested: int) -> Judged:
    if gate.on == "log":
        return _on_log(gate, each)
    alpha = 1 - gate.level
    safe = _safe(gate, each, alpha)
    if not each.low.clusters.n.size:
        none = Needed(None, "the log has none of what it is a share of")
        return Judged(
            gate=gate, estimate=each, state="open", safe=safe, p_failed=p, needed=none, why=none.why
        )
    state: State = "failed" if p <= alpha else "open" if _beyond(gate, safe) else "met"
    needed = _needed(gate, each, alpha, tested) if state == "open" else None
    return Judged(
        gate=gate, estimate=each, state=state, safe=safe, p_failed=p, needed=needed,
        why=_why(gate, each, state, safe, needed),
    )  # fmt: skip


def _on_log(gate: Gate, each: Estimate) -> Judged:
    """Judge what is on the log: shares as shares, totals as totals."""
    sides = [
        side.value if each.quantity.of is not None else side.clusters.total for side in (each.low, each.high)
    ]
    worst, best = (max(sides), min(sides)) if gate.upper else (min(sides), max(sides))
    state: State
    if math.isnan(worst):
        state, why = "open", "the log has none of what it is a share of"
    elif not _beyond(gate, worst):
        state, why = "met", f"{worst:,.6g} on this log, exactly counted"
    elif _beyond(gate, best):
        state, why = "failed", f"{best:,.6g} on this log, exactly counted"
    else:
        between = f"between {min(sides):,.6g} and {max(sides):,.6g}"
        state, why = "open", f"{between}: the log does not say; label or simulate"
    needed = Needed(None, why) if state == "open" else None
    return Judged(
        gate=gate, estimate=each, state=state, safe=worst, p_failed=math.nan, needed=needed, why=why
    )


def _needed(gate: Gate, each: Estimate, alpha: float, tested: int) -> Needed:
    """How many more clusters it takes, either way, if all stays as seen."""
    worst, best = (each.high, each.low) if gate.upper else (each.low, each.high)
    if _beyond(gate, worst.value) and not _beyond(gate, best.value):
        return Needed(None, "the threshold lies between what the log leaves possible: label, or simulate")
    if _beyond(gate, best.value):  # where Holm begins
        total = clusters_needed(best, gate.at, alpha / tested, below=not gate.upper)
    else:
        total = clusters_needed(worst, gate.at, alpha, below=gate.upper)
    if total is None:
        return Needed(None, "what was seen lies on the threshold: no number of sessions like these tells")
    more = max(1, total - each.low.clusters.count)
    if more > MOST_NEEDED:
        return Needed(
            None, "what was seen lies all but on the threshold: no number of sessions to wait for tells"
        )
    return Needed(
        more, f"about {count(more, 'cluster')} more would tell, if the rate stays as seen (80 % power)"
    )


def _why(gate: Gate, each: Estimate, state: State, safe: float, needed: Needed | None) -> str:
    bound = f"{'at most' if gate.upper else 'at least'} {sized(each, safe)}, {percent(gate.level)} sure"
    if not math.isfinite(safe):
        bound = "nothing bounds it"
    seen_ = f"{seen(each)} on this log"
    match state:
        case "met":
            return f"{seen_}; {bound}"
        case "failed":
            side = "above" if gate.upper else "below"
            return f"{seen_}; future traffic is {side} {sized(each, gate.at)}, too"
        case "open":
            return f"{seen_}; {bound}; {needed.why if needed else ''}"
