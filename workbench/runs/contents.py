"""What a run says of a comparison in words and numbers: parameters are pins, metrics its numbers, tags what to query.

One rule: everything here has passed `workbench.masking.leaving`, and fits MLflow's limits.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from runtime.canonical import Json, canonical, content_hash
from workbench.masking import leaving
from workbench.run import release, user_name
from workbench.texts import count, share, visible
from workbench.tracking import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from workbench.faces import Page

MAX_KEY, MAX_PARAM = 250, 6000
"""MLflow's limits: characters of a name, and of a parameter."""

OUTCOMES = {"ship": 1.0, "inconclusive": 0.0, "don't ship": -1.0}
"""A verdict as a number, so that it can be drawn."""
REGRESSION = {"ship": "false", "don't ship": "true"}
"""Tag `redecide.regression` by verdict; any other, or none: `unknown`."""


class LakeLike(Protocol):
    """What logging reads of a lake."""

    @property
    def uri(self) -> str:
        """Path or address of the lake."""

    @property
    def decisions(self) -> pl.LazyFrame:
        """One row a decision, at the pin."""


class Replayed(Protocol):
    """What logging reads of a replay."""

    @property
    def id(self) -> str:
        """Names the replay."""

    @property
    def lake(self) -> Any:
        """The lake it was made from, a `LakeLike`."""

    @property
    def pins(self) -> Mapping[str, object]:
        """What was pinned."""

    @property
    def policy(self) -> tuple[str, str]:
        """Name and version of the bundle."""

    @property
    def context(self) -> str:
        """Which contexts."""


class Judged(Protocol):
    """What logging reads of an outcome: that of a comparison's gates, or of a job's over all its nights."""

    @property
    def verdict(self) -> str:
        """`ship`, `don't ship` or `inconclusive`."""

    def as_dict(self) -> Mapping[str, Any]:
        """The verdict and each gate, as JSON."""

    def page(self) -> Page:
        """What it says."""


class Compared(Protocol):
    """What logging reads of a `workbench.compare.Diff`."""

    @property
    def base(self) -> Replayed:
        """What was compared with."""

    @property
    def cand(self) -> Replayed:
        """The candidate."""

    @property
    def changed(self) -> pl.LazyFrame:
        """Decisions that change."""

    @property
    def headline(self) -> str:
        """The result in words."""

    @property
    def outcome(self) -> Judged | None:
        """What its gates say; None: none are declared."""

    def summary(self) -> Mapping[str, int | float]:
        """Every number."""

    def metrics(self) -> Mapping[str, float]:
        """What it is worth, and how sure that is."""

    def to_html(self, path: str | Path) -> Path:
        """Write the report."""


class Scored(Protocol):
    """What logging reads of `workbench.score.Scores`, or of what a declared scoring came to (its `scores`)."""

    def summary(self) -> Mapping[str, int | float]:
        """Every number."""


def rows_of(scored: Scored) -> pl.LazyFrame:
    """Return the rows of scores; of what a declared scoring came to, those of its `scores`."""
    given: Any = scored
    found: pl.LazyFrame = getattr(given, "scores", given).frame
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a run says, masked, before any store has seen it."""

    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


def contents_of(
    diff: Compared,
    scores: Mapping[str, Scored],
    *,
    outcome: Judged | None = None,
    numbers: Mapping[str, float] | None = None,
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, str] | None = None,
    notes: str | None = None,
) -> Contents:
    """Gather what a run says. Numbers that are not finite are left out, and named in a tag.

    Args:
        diff: the comparison.
        scores: by the prefix of their names, `""` for none.
        outcome: what is said of it; None: nobody judged it.
        numbers: more metrics, by name.
        params: more parameters, by name; they go before ours.
        tags: more tags, by name; they go before ours.
        notes: what stands above the headline in the run's description, as it is.
    """
    found = {**diff.summary(), **diff.metrics(), **(numbers or {})}
    for name, scored in scores.items():
        prefix = f"score.{name}." if name else "score."
        found |= {f"{prefix}{metric}": value for metric, value in scored.summary().items()}
    if outcome is not None:
        found["outcome"] = OUTCOMES.get(outcome.verdict, math.nan)
    finite = {name: float(value) for name, value in found.items() if math.isfinite(value)}
    left_out = sorted(found.keys() - finite.keys())
    said = _tags(diff, outcome, notes)
    said |= {"redecide.metrics_left_out": ", ".join(left_out)} if left_out else {}
    own = {name: _text(value) for name, value in (params or {}).items()}
    return Contents(
        params=keyed(leaving(_params(diff) | own)),
        metrics=keyed(finite),
        tags={name: cut(str(value)) for name, value in leaving(said | dict(tags or {})).items()},
    )


def _params(diff: Compared) -> dict[str, str]:
    """Pins that both replays share as `pins.…`; policy, context and the others under their side's name."""
    found: dict[str, object] = {"redecide": release(), "recorded.bundle_versions": _recorded(diff.cand.lake)}
    base, cand = (_other_pins(replay) for replay in (diff.base, diff.cand))
    shared = {name for name in base.keys() & cand.keys() if base[name] == cand[name]}
    found |= {f"pins.{name}": base[name] for name in sorted(shared)}
    for side, replay, pins in (("baseline", diff.base, base), ("candidate", diff.cand, cand)):
        found |= {f"{side}.policy": replay.policy[0], f"{side}.bundle_version": replay.policy[1]}
        found |= {f"{side}.context": replay.context, f"{side}.replay": replay.id}
        found |= {f"{side}.pins.{name}": value for name, value in pins.items() if name not in shared}
    return {name: _text(value) for name, value in found.items()}


def _other_pins(replay: Replayed) -> dict[str, object]:
    """What is pinned beside policy and context, flat."""
    return {name: value for name, value in _flat(replay.pins) if name not in ("policy", "context")}


def _recorded(lake: LakeLike) -> list[str]:
    """The bundle versions that the decisions were made under: what a self-replay's policy is."""
    versions = lake.decisions.select(pl.col("bundle_version").unique().sort()).collect()
    return list(versions.to_series())


def _flat(value: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the leaves of nested mappings under dotted names; nulls are absent."""
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{name}.")
        elif item is not None:
            yield f"{prefix}{name}", item


def _text(value: object) -> str:
    return cut(value if isinstance(value, str) else canonical(_json(value)))


def _json(value: object) -> Json:
    if isinstance(value, list | tuple | set | frozenset):
        items = [_json(item) for item in value]
        return sorted(items, key=str) if isinstance(value, set | frozenset) else items
    return value if isinstance(value, bool | int | float) else str(value)


def masked(named: Mapping[str, str]) -> dict[str, str]:
    """Named texts as they may leave."""
    return {name: str(value) for name, value in leaving(named).items()}


def cut(text: str) -> str:
    """Fit a parameter or tag; a longer one keeps its content address, and is whole in `summary.json`."""
    tail = f"… sha256:{content_hash(text)}"
    return text if len(text) <= MAX_PARAM else text[: MAX_PARAM - len(tail)] + tail


def keyed(named: Mapping[str, Any]) -> dict[str, Any]:
    """Names as MLflow takes them; what had to change carries a piece of its hash, so that no two meet."""
    return {key(name): value for name, value in named.items()}


def key(name: str) -> str:
    """One name as MLflow takes it: of a metric, a parameter, a file.

    Example:
        >>> key("score.mean"), key("a?b")
        ('score.mean', 'a_b-421776b2')
    """
    plain = re.sub(r"[^A-Za-z0-9_. :-]", "_", name)
    if plain == name and len(name) <= MAX_KEY:
        return name
    return f"{plain[: MAX_KEY - 9]}-{content_hash(name)[:8]}"


def _tags(diff: Compared, outcome: Judged | None, notes: str | None) -> dict[str, str]:
    verdict = None if outcome is None else outcome.verdict
    note = note_of(_headline(diff, outcome))
    return {
        **({} if verdict is None else {"redecide.outcome": verdict}),
        "redecide.regression": REGRESSION.get(verdict or "", "unknown"),
        "redecide.coverage": _coverage(diff.summary()),
        "redecide.kind": "comparison",
        "redecide.lake": shown(str(diff.cand.lake.uri)),
        "redecide.baseline": " ".join(diff.base.policy),
        "redecide.candidate": " ".join(diff.cand.policy),
        "redecide.context": diff.cand.context,
        "mlflow.note.content": note if notes is None else f"{notes}\n\n{note}",
        **maker(),
    }


def _headline(diff: Compared, outcome: Judged | None) -> str:
    """What the run's description says; of an outcome that is not the comparison's own, that first."""
    if outcome is None or outcome is diff.outcome:
        return diff.headline
    page = outcome.page()
    return "\n".join((f"{visible(page.title)}.", *map(visible, page.lines), "", diff.headline))


def note_of(text: str) -> str:
    """Return a text as a run's description, in which MLflow finds no markup."""
    return f"<pre>{html.escape(text)}</pre>"


def maker() -> dict[str, str]:
    """Return the tags that say who made a run, and with what."""
    return {"mlflow.source.name": "redecide", "mlflow.source.type": "LOCAL", "mlflow.user": user_name()}


def _coverage(numbers: Mapping[str, int | float]) -> str:
    """How much of the log the comparison speaks of: `98.7 % of 1,204,331 decisions replayable`."""
    whole = numbers.get("decisions", 0)
    return f"{share(numbers.get('decisions_replayed', 0), whole)} of {count(whole, 'decision')} replayable"
