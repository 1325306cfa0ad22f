"""What would have to be otherwise for a call to be allowed, and the policies that matter, as annotated Cedar text.

One rule: what is asked for is the least: of a forbid one condition that must not hold, of a permit the first that
must.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.explaining.clause_words import (
    core_of,
    is_presence,
    needed,
    place_of,
    stop_of,
    under,
    values_in,
)
from workbench.explaining.pairing import pairs_of
from workbench.explaining.words import applicable, deciding, holding
from workbench.faces import Code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.explaining.clauses import Clause, PolicyClauses
    from workbench.explaining.one import Evaluation, Side


def changes(side: Side) -> Iterator[str]:
    """Yield what would have to be otherwise for the call to be allowed; each of them is needed."""
    row = side.row
    if side.status != "decided" or side.verdict == "allow":
        return
    if row["decided_by"] != "policy" or side.first is None:
        yield f"the stage `{row['decided_by']}` must let it pass: {row['reason']}"
    elif row["reason_code"] == "not_permitted":
        yield from _to_be_permitted(side)
    else:
        names, evaluation = deciding(side)
        for ident in names:
            if evaluation is not None and side.clauses is not None:
                yield _to_pass(side.clauses.policies[ident], evaluation)


def _to_be_permitted(side: Side) -> Iterator[str]:
    assert side.first is not None  # noqa: S101 - asked by the caller
    ways = []
    for policy in applicable(side):
        if stop := stop_of(policy, side.first):
            told = [needed(each, side.first) for each in stop.clauses]
            must = (
                "must not all hold"
                if len(told) > 1
                else "must not hold"
                if stop.why == "unless"
                else "must hold"
            )
            ways.append(f"for `{policy.id}` {' and '.join(told)} {must}")
    if ways:
        yield "a permit must be satisfied: " + "; or ".join(ways) + "; and what is evaluated after it"
    else:
        yield "a permit for such a call is needed; there is none"


def _to_pass(policy: PolicyClauses, evaluation: Evaluation) -> str:
    """What takes a call past a forbid: one of its conditions otherwise."""
    truths = evaluation.told.truths
    ways = []
    for body in policy.bodies:
        clauses = [c for c in body.clauses if not is_presence(c)] or list(body.clauses)
        if body.kind == "when":
            held = [c for c in clauses if truths[policy.id, c.key] == "true"]
            ways += [
                f"{needed(core, evaluation)} must not hold"
                + (", nor the operands after it" if c.op == "or" else "")
                for c in held
                for core in core_of(c, policy, evaluation)
            ]
        else:
            told = [needed(c, evaluation) for c in body.clauses if truths[policy.id, c.key] != "true"]
            ways.append(f"its `unless` must hold, which needs {' and '.join(told)}")
    if not ways:
        return f"`{policy.id}`{place_of(policy)} stops every such call; it has no condition to meet"
    return f"past `{policy.id}`{place_of(policy)}: " + "; or ".join(ways)


def concerned(base: Side, cand: Side) -> list[str]:
    """Return the policies that matter, by id: those that decided, flipped or are open, and permits that failed."""
    found: dict[str, None] = {}
    for side in (cand, base):
        found |= dict.fromkeys(deciding(side)[0])
        if side.row.get("reason_code") == "not_permitted":
            found |= dict.fromkeys(each.id for each in applicable(side))
        if side.first is not None:
            told = side.first.told.satisfied
            found |= dict.fromkeys(ident for ident, truth in told.items() if truth in ("unknown", "error"))
    if base.first is not None and cand.first is not None:
        one, two = base.first.told.satisfied, cand.first.told.satisfied
        found |= dict.fromkeys(i for i in (*two, *one) if (one.get(i) == "true") != (two.get(i) == "true"))
    return list(found)


def marked(side: Side, ident: str, other: Side | None, *, again: bool) -> Iterator[Code]:
    """Yield a policy's text, what each of its clauses was as comments, and `>` before lines whose clauses flipped.

    Args:
        side: whose text.
        ident: the policy.
        other: to compare with; None: `>` marks what kept the policy off, or what it rests on.
        again: the other side was shown; then nothing is yielded that it says already.
    """
    second = any(decided_second(each, ident) for each in (side, other) if each is not None)
    shown = shown_change(side, ident, second=second)
    if shown is None:
        return
    policy, evaluation = shown
    there = None if other is None else shown_change(other, ident, second=second)
    if again and there is not None and alike_in(shown, there):
        return
    notes: dict[int, list[str]] = {}
    for clause in policy.walk():
        truth = evaluation.told.truths[ident, clause.key]
        if clause.end_line is not None and not clause.children and truth != "not_reached":
            values = values_in(clause, evaluation)
            notes.setdefault(clause.end_line, []).append(f"{truth}: {values}" if values else truth)
    marks = {
        clause.end_line for clause in (resting_on(shown) if there is None else flipped_clauses(shown, there))
    }
    lines = [
        f"{'>' if number in marks else ' '}{number:>4}  {line}"
        + (f"    // {' | '.join(notes[number])}" if number in notes else "")
        for number, line in enumerate(policy.info.text.split("\n"), policy.info.line)
    ]
    of = ", of the changed request" if evaluation is side.patched else ""
    title = f"{ident} {under(side)} ({policy.info.file}:{policy.info.line}){of}"
    yield Code(title=title, text="\n".join(lines), language="cedar")


_Shown = tuple["PolicyClauses", "Evaluation"]


def decided_second(side: Side, ident: str) -> bool:
    """Whether a policy decided over the changed request."""
    names, evaluation = deciding(side)
    return ident in names and evaluation is not None and evaluation is side.patched


def shown_change(side: Side, ident: str, *, second: bool) -> _Shown | None:
    """A policy, and the evaluation in which it matters."""
    evaluation = (second and side.patched) or side.first
    if side.clauses is None or ident not in side.clauses.policies or evaluation is None:
        return None
    return side.clauses.policies[ident], evaluation


def alike_in(one: _Shown, other: _Shown) -> bool:
    """Whether two versions have the same text, and the same truths."""
    (policy, here), (known, there) = one, other
    if policy.info.text != known.info.text:
        return False
    keys = [(policy.id, clause.key) for clause in policy.walk()]
    return all(here.told.truths[key] == there.told.truths[key] for key in keys)


def flipped_clauses(one: _Shown, other: _Shown) -> Iterator[Clause]:
    """Yield the clauses of a policy whose truth differs between two versions."""
    (policy, here), (known, there) = one, other
    for pair in pairs_of(known, policy):
        if pair.cand is not None and (
            pair.base is None
            or here.told.truths[policy.id, pair.cand.key] != there.told.truths[policy.id, pair.base.key]
        ):
            yield pair.cand


def resting_on(shown: _Shown) -> Iterator[Clause]:
    """The clauses that kept a policy off, or those it rests on."""
    policy, evaluation = shown
    stop = stop_of(policy, evaluation)
    for clause in holding(policy, evaluation) if stop is None else stop.clauses:
        yield from core_of(clause, policy, evaluation)
