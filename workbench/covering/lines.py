"""Policy files, line by line: what a coverage tool shows of a source text.

One rule: a line is as well exercised as the least of the clauses on it. Green is every way, yellow one of two, red
not once, and violet where the record does not say; a line without a clause has no colour. Policies of a template
share its lines, and are summed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from workbench.covering.views import lacking_of, state_of
from workbench.texts import share

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from workbench.covering.views import ClauseCount, PolicyCount, State, Views, Way
    from workbench.explaining.truths import Truth

_EFFECT = re.compile(r"^\s*(?:permit|forbid)\b", re.MULTILINE)
_WORST: Mapping[str, int] = {"never": 0, "unknown": 1, "one": 2, "both": 3}
MARKS: Mapping[str | None, str] = {"both": " ", "one": "~", "unknown": "?", "never": "!", None: " "}
"""In front of a line of a listing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextClause:
    """A clause as it stands in a file, with what it was in all policies made of it."""

    policies: tuple[str, ...]
    """Ids of what decides."""
    clause: ClauseCount
    """Of the first of these policies."""
    truths: Mapping[Truth, int]
    sides: tuple[Way, ...]
    """Ways it can go."""

    @property
    def reached(self) -> int:
        """How often it is known to be evaluated."""
        return self.truths["true"] + self.truths["false"] + self.truths["error"]

    @property
    def taken(self) -> tuple[Way, ...]:
        """Ways it went."""
        return tuple(side for side in self.sides if self.truths[side])

    @property
    def state(self) -> State:
        """How well it was exercised."""
        return state_of(self.truths, self.sides)

    @property
    def lacking(self) -> str:
        """What it never was; empty: nothing."""
        return lacking_of(self.truths, self.sides)

    @property
    def told(self) -> str:
        """Its counts, on one line."""
        counts = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in self.truths.items() if n)
        said = f"{self.clause.clause.text}: {counts or 'no decision'}"
        return f"{said} ({self.lacking})" if self.lacking else said


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPolicy:
    """A policy or template as it stands in a file."""

    id: str
    line: int
    """Of `permit` or `forbid`."""
    policies: tuple[PolicyCount, ...]

    @property
    def satisfied(self) -> int:
        """Decisions in which it was, links summed."""
        return sum(each.satisfied for each in self.policies)

    @property
    def decisive(self) -> int:
        """Decisions it determined."""
        return sum(each.decisive for each in self.policies)

    @property
    def evaluated(self) -> int:
        """Decisions in which it was asked."""
        return sum(each.evaluated for each in self.policies)

    @property
    def unknown(self) -> int:
        """Decisions in which that hangs on what the record did not ask for."""
        return sum(each.unknown for each in self.policies)

    @property
    def state(self) -> State:
        """Satisfied and decisive, satisfied only, never satisfied, or not known."""
        if not self.satisfied:
            return "unknown" if self.unknown else "never"
        return "both" if self.decisive else "one"

    @property
    def told(self) -> str:
        """Its counts, on one line."""
        said = f"{self.id}: satisfied {self.satisfied:,}, decisive {self.decisive:,} of {self.evaluated:,}"
        return f"{said}, not known {self.unknown:,}" if self.unknown else said


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a policy file."""

    number: int
    text: str
    state: State | None
    """None: nothing to exercise."""
    clauses: tuple[TextClause, ...] = ()
    policy: TextPolicy | None = None
    """That begins here."""

    @property
    def least(self) -> TextClause | None:
        """The clause that was exercised least."""
        return min(self.clauses, key=lambda each: (_WORST[each.state], each.reached), default=None)

    @property
    def hits(self) -> int | None:
        """How often it was evaluated; None: nothing to evaluate."""
        if self.clauses:
            return max(each.reached for each in self.clauses)
        return None if self.policy is None else self.policy.evaluated


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One policy file."""

    bundle: str
    """Policy hash."""
    name: str
    shown: str
    """Its name, with its bundle's where several decided."""
    lines: Sequence[Line]
    clauses: Sequence[TextClause]
    """Leaves and what is made of them, also those whose lines are not known."""
    policies: Sequence[TextPolicy]

    @property
    def branches(self) -> int:
        """Ways that clauses can go."""
        return sum(len(each.sides) for each in self.clauses)

    @property
    def taken(self) -> int:
        """Ways that clauses went."""
        return sum(len(each.taken) for each in self.clauses)

    @property
    def share(self) -> str:
        """Of the ways that clauses can go, those they went."""
        return share(self.taken, self.branches)

    @property
    def missing(self) -> str:
        """Lines by what their clauses never were, as `never true 12, never reached 14-15`."""
        found: dict[str, set[int]] = {}
        for each in self.clauses:
            clause = each.clause.clause
            if each.lacking and not clause.children and clause.line is not None:
                found.setdefault(each.lacking, set()).add(clause.line)
        return "; ".join(f"{what} {', '.join(_spans(found[what]))}" for what in sorted(found))


def files_of(views: Views) -> tuple[File, ...]:
    """Return the policy files of all bundles, by name."""
    several = len(views.bundles) > 1
    found = []
    for key, bundle in views.bundles.items():
        clauses = list(_text_clauses(each for each in views.clauses if each.bundle == key))
        policies = list(_text_policies(views, key))
        for name, text in sorted(bundle.files.items()):
            if name.endswith(".cedar"):
                mine = [each for each in clauses if each.clause.clause.file == name]
                heads = [policy for file, policy in policies if file == name]
                shown = f"{bundle.name} {key[:8]}/{name}" if several else name
                lines = tuple(_lines(text, mine, heads))
                found.append(
                    File(bundle=key, name=name, shown=shown, lines=lines, clauses=mine, policies=heads)
                )
    return tuple(found)


def _text_clauses(counts: Iterable[ClauseCount]) -> Iterator[TextClause]:
    by_text: dict[str, list[ClauseCount]] = {}
    for each in counts:
        by_text.setdefault(each.clause.id, []).append(each)
    for same in by_text.values():
        truths = {name: sum(each.truths[name] for each in same) for name in same[0].truths}
        sides: list[Way] = ["true"] if any(each.sides.true for each in same) else []
        sides += ["false"] if any(each.sides.false for each in same) else []
        policies = tuple(each.policy for each in same)
        yield TextClause(policies=policies, clause=same[0], truths=truths, sides=tuple(sides))


def _text_policies(views: Views, bundle: str) -> Iterator[tuple[str, TextPolicy]]:
    policies = views.bundles[bundle].policies
    by_text: dict[tuple[str, int], list[PolicyCount]] = {}
    for each in views.policies:
        if each.bundle == bundle:
            by_text.setdefault((each.file, each.line), []).append(each)
    for (file, line), same in by_text.items():
        info = policies[same[0].policy]
        effect = _EFFECT.search(info.text)
        head = line if effect is None else line + info.text.count("\n", 0, effect.end())
        ident = info.annotations.get("id", same[0].policy)
        yield file, TextPolicy(id=ident, line=head, policies=tuple(same))


def _lines(text: str, clauses: Sequence[TextClause], policies: Sequence[TextPolicy]) -> Iterator[Line]:
    at: dict[int, list[TextClause]] = {}
    for each in clauses:
        clause = each.clause.clause
        if clause.line is not None and not clause.children:
            for number in range(clause.line, (clause.end_line or clause.line) + 1):
                at.setdefault(number, []).append(each)
    heads = {policy.line: policy for policy in policies}
    for number, line in enumerate(text.splitlines(), 1):
        here, head = at.get(number, []), heads.get(number)
        states = [each.state for each in here] + ([] if head is None else [head.state])
        worst = min(states, key=_WORST.__getitem__, default=None)
        yield Line(number=number, text=line, state=worst, clauses=tuple(here), policy=head)


def _spans(numbers: Iterable[int]) -> Iterator[str]:
    """Numbers as spans: `3`, `5-7`."""
    for _, run in groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0]):
        places = [number for _, number in run]
        yield f"{places[0]}" if len(places) == 1 else f"{places[0]}-{places[-1]}"


def listing(file: File) -> str:
    """Return a file with marks and counts in front of its lines.

    `!` never, `~` one way only, `?` not known; then how often the line's least exercised clause was true and
    false. At `permit` and `forbid` stands how often the policy was satisfied and decisive.
    """
    return "\n".join(_listed(line) for line in file.lines)


def _listed(line: Line) -> str:
    counts, least = "", line.least
    if line.policy is not None:
        counts = f"{line.policy.satisfied:>9,} {line.policy.decisive:>9,}"
    elif least is not None:
        false = f"{least.truths['false']:,}" if "false" in least.sides else "-"
        counts = f"{least.truths['true']:>9,} {false:>9}"
    return f"{MARKS[line.state]} {counts:<19} {line.number:>4}  {line.text}".rstrip()
