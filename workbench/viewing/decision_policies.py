"""The policies that matter to a decision, their clauses marked by what they were.

One rule: a mark is what Cedar said of that clause for this very request; nothing is guessed from the text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.explaining.changes import alike_in as alike
from workbench.explaining.changes import concerned, decided_second
from workbench.explaining.changes import flipped_clauses as flipped
from workbench.explaining.changes import resting_on as resting
from workbench.explaining.changes import shown_change as shown
from workbench.explaining.clause_words import under, values_in
from workbench.explaining.pairing import effect_of
from workbench.parts import Cedar
from workbench.viewing.cedar_html import Mark

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from workbench.explaining.clauses import Clause, PolicyClauses
    from workbench.explaining.one import Evaluation, Side

MAX_POLICIES = 8
"""Policies whose texts are shown."""


def policies_of(base: Side, cand: Side) -> tuple[list[str], int]:
    """Return the policies that matter under either version, by id, and how many more there are."""
    names = concerned(base, cand)
    return names[:MAX_POLICIES], max(0, len(names) - MAX_POLICIES)


def texts_of(side: Side, other: Side | None, names: Sequence[str]) -> Iterator[Cedar]:
    """Yield policies' texts under a version, and under another where they differ.

    Args:
        side: whose texts; its marks say what decided, or what flipped against the other.
        other: None: there is one version only.
        names: policies.
    """
    for ident in names:
        if (found := marked(side, other, ident)) is not None:
            yield found
        if (
            other is not None
            and not is_same(side, other, ident)
            and (found := marked(other, side, ident)) is not None
        ):
            yield found


def is_same(side: Side, other: Side, ident: str) -> bool:
    """Whether two versions have the same text of a policy, and the same truths of its clauses."""
    second = decided_second(side, ident) or decided_second(other, ident)
    one, two = (shown(each, ident, second=second) for each in (side, other))
    return one is not None and two is not None and alike(one, two)


def marked(side: Side, other: Side | None, ident: str) -> Cedar | None:
    """Return a policy's text under a version, marked.

    Args:
        side: whose text.
        other: what is set apart is what flipped against it; None: what the verdict rests on.
        ident: the policy.

    Returns:
        None where the version has no such policy, or policies were not asked.
    """
    second = decided_second(side, ident) or (other is not None and decided_second(other, ident))
    found = shown(side, ident, second=second)
    if found is None:
        return None
    there = None if other is None else shown(other, ident, second=second)
    telling = list(flipped(found, there)) if there is not None else []
    policy, evaluation = found
    marks = list(_marks(policy, evaluation, telling or list(resting(found))))
    of = ", of the changed request" if evaluation is side.patched else ""
    satisfied = evaluation.told.satisfied.get(ident, "unknown")
    said = {
        "true": "applies",
        "false": "does not apply",
        "error": "fails",
        "unknown": "may apply: it is not known",
    }
    return Cedar(
        title=f"{ident} ({effect_of(policy)}) {said.get(satisfied, satisfied)}",
        note=f"{policy.info.file}:{policy.info.line}, {under(side)}{of}",
        text=policy.info.text,
        line=policy.info.line,
        marks=marks,
    )


def _marks(policy: PolicyClauses, evaluation: Evaluation, telling: Sequence[Clause]) -> Iterator[Mark]:
    """A mark for each clause that stands in the text; of one with children, theirs."""
    keys = {clause.key for clause in telling}
    for top in policy.top:
        for clause in top.walk():
            truth = evaluation.told.truths[policy.id, clause.key]
            if clause.span is None or (clause.children and clause.key not in keys):
                continue
            message = evaluation.told.messages.get((policy.id, clause.key), "")
            said = "; ".join(filter(None, (message, values_in(clause, evaluation))))
            start, end = clause.span
            yield Mark(start=start, end=end, truth=truth, said=said, decides=clause.key in keys)
