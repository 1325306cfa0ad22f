"""Rules for harm that is still allowed: the simplest clauses that tell it from good work, with what they do.

One rule: a person accepts a rule, nobody else. What is proposed is a Cedar text, found on one part of the history,
with what it does on the other part, measured by replaying the bundle with the rule in it.

Accepted: one rule is one `forbid` with a conjunction, about one tool; several rules are proposed where one does not
catch all. Rules read what the candidate's schema declares; sets and records as a whole are not looked into.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from runtime.bundle import bundle_from_files
from runtime.literals import quoted
from workbench.asked import asked_of
from workbench.compare import compare
from workbench.errors import WorkbenchError
from workbench.faces import Code, Faces, Page, Table
from workbench.progress import progress
from workbench.searching.search import search
from workbench.searching.suggesting.conditions import conditions_of
from workbench.searching.suggesting.rules import best_rules
from workbench.searching.suggesting.values import Reading
from workbench.splitting import Split
from workbench.texts import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray

    from runtime.bundle import Bundle
    from runtime.canonical import Json
    from workbench.lake import Lake
    from workbench.searching.search import Confirmed, Search
    from workbench.searching.suggesting.rules import Rule
    from workbench.searching.suggesting.values import Values
    from workbench.sweep import Given

FILE = "suggested.cedar"
"""Where a proposed rule stands in the bundle that is replayed."""
CHANCE = 0.05
"""Probability, corrected for the rules compared, that one without worth tells as well; above it none is proposed."""
LEAST = 2
"""Harmful decisions of a tool that a rule is proposed for; one is an anecdote."""
OBJECTIVES = ("harm_let_through", "good_held_up")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """One proposed rule, and what it does."""

    policy: str
    """The Cedar text."""
    tool: str
    caught: int
    """Harmful decisions of the search part, still allowed by the candidate, that it holds for."""
    of: int
    hit: int
    """Good ones that it holds for."""
    good: int
    bundle: Bundle
    """The candidate with the rule."""
    confirmed: Mapping[str, Confirmed]
    """The objectives with the rule, on sessions that were not searched on."""


@dataclass(frozen=True, eq=False, repr=False)
class Suggestions(Faces):
    """Proposed rules, the best first for each tool. Made by `suggest`."""

    suggestions: tuple[Suggestion, ...]
    before: Mapping[str, Confirmed]
    """The objectives without any rule, on the same sessions."""
    harm: int
    """Harmful decisions of the search part that the candidate still allows."""
    without: int
    """Of them, those that no rule was looked for: too few of their tool, or not read in columns."""
    tried: int
    """How many rules were compared."""
    search: Search | None

    @property
    def frame(self) -> pl.LazyFrame:
        """One row a rule, in order.

        Columns: `tool`, `policy` (Cedar); `caught`, `of`, `hit`, `good` (on the search part); and for each objective
        `<name>_confirmed` (on the other part), `<name>_lower`, `<name>_upper` (of its share in future traffic).
        """
        return pl.LazyFrame([self._row(each) for each in self.suggestions])

    def _row(self, each: Suggestion) -> dict[str, Any]:
        found: dict[str, Any] = {
            name: getattr(each, name) for name in ("tool", "policy", "caught", "of", "hit", "good")
        }
        for name, confirmed in each.confirmed.items():
            found |= {
                f"{name}_confirmed": confirmed.count,
                f"{name}_lower": confirmed.lower,
                f"{name}_upper": confirmed.upper,
            }
        return found

    def page(self) -> Page:
        """What is proposed."""
        parts: list[Table | Code] = [self._table()] if self.suggestions else []
        parts += [
            Code(title=f"Rule {n}, about {each.tool}", text=each.policy, language="cedar")
            for n, each in enumerate(self.suggestions, 1)
        ]
        return Page(
            kind="suggestions",
            title=f"{count(len(self.suggestions), 'rule')} proposed",
            lines=list(self._lines()),
            parts=parts,
            next=[
                "suggestions.suggestions[0].bundle.files",
                "wb.compare(lake.replay(), lake.replay(….bundle))",
            ],
        )

    def _lines(self) -> Iterator[str]:
        yield (
            f"{count(self.harm, 'harmful call')} of the sessions searched on would still be allowed; "
            f"{self.tried:,} rules were compared on them."
        )
        if self.without:
            yield f"For {self.without:,} no rule was looked for: too few of their tool, or not read in columns."
        if self.suggestions:
            yield (
                "What a rule does is measured by replaying the policies with it, on sessions that were not searched "
                "on; a person decides whether it says what is meant."
            )

    def _table(self) -> Table:
        rows = [["none", None, None, *_shown(self.before)]]
        rows += [
            [
                str(n),
                f"{each.caught:,} of {each.of:,}",
                f"{each.hit:,} of {each.good:,}",
                *_shown(each.confirmed),
            ]
            for n, each in enumerate(self.suggestions, 1)
        ]
        heads = ["rule", "catches", "hits good", *OBJECTIVES]
        note = (
            "Catches and hits: on the sessions searched on. The rest: on the others, and in future traffic."
        )
        return Table(title="With each rule", note=note, heads=heads, rows=rows)

    def as_dict(self) -> dict[str, Json]:
        """All of it, as JSON."""
        return {
            "harm": self.harm,
            "without": self.without,
            "tried": self.tried,
            "before": {name: each.count for name, each in self.before.items()},
            "rules": [self._row(each) for each in self.suggestions],
        }


def _shown(confirmed: Mapping[str, Confirmed]) -> list[str | None]:
    return [
        f"{each.count:,} of {each.of:,} ({100 * each.lower:.1f} % to {100 * each.upper:.1f} %)"
        for each in (confirmed[name] for name in OBJECTIVES)
    ]


@progress(None, "looking for rules")
def suggest(
    lake: Lake,
    policy: Given | None = None,
    *,
    context: Given = "recorded",
    sources: Mapping[str, Any] | None = None,
    at: datetime | None = None,
    split: Split | None = None,
    most: int = 1,
    cost: float = 1.0,
    level: float = 0.95,
) -> Suggestions:
    """Propose rules for labelled harm that a candidate still allows.

    Args:
        lake: the pinned lake, with labels `origin` (`attack`, `user`).
        policy: the candidate: a bundle, its folder, or a version the lake holds; None: the only one recorded.
        context: as `lake.replay` takes it, like `sources` and `at`.
        sources: locations of sources by name.
        at: compile facts as they were at this time.
        split: how the history is divided; None: half of the sessions each.
        most: rules proposed for each tool.
        cost: how much worse it is to hit all good calls of a tool than to miss all of its harmful ones.
        level: of all intervals together.

    Raises:
        WorkbenchError: there is no label to learn from; or several recorded policies, and none is named.
        BundleError, BundleNotFound, ReplayFailure: as `lake.replay`.

    Cost: two replays and a sweep of the proposals; memory O(labelled calls of a tool that ran).
    """
    asked = asked_of(lake, policy or _only(lake), context=context, sources=sources, at=at)
    bundle = asked.policy
    assert bundle is not None  # noqa: S101 - given, or the only one
    parts = split or Split()
    cand = {"policy": bundle, "context": context, "sources": sources, "at": at}
    diff = compare(*lake.replay_all([{"recompile": False}, cand]))
    rows = diff.frame.filter((pl.col("then") == "ran") & (pl.col("effect") == "same")).collect()
    rows = rows.filter(parts.part(rows, lake.labels) == "search")
    harm, good = (rows.filter(side=name)["decision_id"] for name in ("attack", "honest"))
    if diff.frame.filter(side="attack").collect().is_empty():
        raise WorkbenchError(
            "no call is labelled an attack, so there is nothing to learn from; label calls with "
            "`rt.label('origin', 'attack', decision_id=…)`"
        )
    reading = Reading(lake, asked, pl.concat([harm, good]))
    with progress(None, "comparing clauses"):
        found, tried, looked = _rules(reading.read(), harm, bundle, most=most, cost=cost)
    if not found:
        return Suggestions((), {}, harm.len(), harm.len() - looked, tried, None)
    options: dict[str, Any] = {"context": context, "sources": sources, "at": at}
    made = [bundle, *(each["bundle"] for each in found)]
    measured = search(lake, made, objectives=OBJECTIVES, split=parts, confirm=None, level=level, **options)
    suggestions = tuple(
        Suggestion(**each, confirmed=measured.confirmed[number]) for number, each in enumerate(found, 1)
    )
    return Suggestions(suggestions, measured.confirmed[0], harm.len(), harm.len() - looked, tried, measured)


def _only(lake: Lake) -> Bundle:
    versions = lake.decisions.select(pl.col("bundle_version").unique().sort()).collect().to_series().to_list()
    if len(versions) != 1:
        shown = ", ".join(version[:12] for version in versions)
        raise WorkbenchError(
            f"the decisions were made under {len(versions)} bundles; name one of them: {shown}"
        )
    return lake.bundle(versions[0])


def _rules(
    every: Sequence[Values], harm: pl.Series, bundle: Bundle, *, most: int, cost: float
) -> tuple[list[dict[str, Any]], int, int]:
    """Rules of each tool; how many were compared; and how many harmful calls a rule was looked for."""
    found: list[dict[str, Any]] = []
    tried = looked = 0
    for values in every:
        caught = values.frame["decision_id"].is_in(harm.implode()).to_numpy()
        if caught.sum() < LEAST:
            continue
        looked += int(caught.sum())
        rules, more = best_rules(conditions_of(values, caught), caught, cost=cost, most=most)
        tried += more
        for rule in rules:
            if rule.score > 0 and _by_chance(rule, caught) * more < CHANCE:
                text = _policy(values, rule, len(found) + 1, bundle)
                counts = {"of": int(caught.sum()), "good": int((~caught).sum())}
                found.append(_told(values, rule, text, bundle) | counts)
    return found, tried, looked


def _by_chance(rule: Rule, harm: NDArray[np.bool_]) -> float:
    """Probability to catch as many if the rule had nothing to do with harm: Fisher's exact test, one-sided.

    A screen, no inference: calls of one session count as independent. What a rule does is measured on other sessions.
    """
    from scipy.stats import hypergeom  # noqa: PLC0415 - a quarter of a second

    chosen = rule.caught + rule.hit
    return float(hypergeom.sf(rule.caught - 1, harm.size, int(harm.sum()), chosen))


def _told(values: Values, rule: Rule, text: str, bundle: Bundle) -> dict[str, Any]:
    files = dict(bundle.files) | {FILE: text + "\n"}
    return {
        "policy": text,
        "tool": values.tool,
        "caught": rule.caught,
        "hit": rule.hit,
        "bundle": bundle_from_files(files, bundle.name),
    }


def _policy(values: Values, rule: Rule, number: int, bundle: Bundle) -> str:
    """The rule as a policy of its own, with an id that the bundle does not have."""
    ids = {info.annotations["id"] for info in bundle.policies.values()}
    ident = next(name for n in range(number, number + len(ids) + 1) if (name := f"suggested-{n}") not in ids)
    return (
        f'@id("{ident}")\n'
        f"forbid (\n  principal is {values.principal_type},\n  action == Action::{quoted(values.tool)},\n"
        f"  resource is {values.resource_type}\n)\nwhen {{\n  {rule.text}\n}};"
    )
