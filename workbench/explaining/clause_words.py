"""Clauses in words: as written, with file and line, what each was, and the values it saw.

One rule: a clause is quoted as its author wrote it; of an `||` that holds, the operand that does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from workbench.asked import AS_RECORDED
from workbench.explaining.values_read import values_of

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from workbench.explaining.clauses import Body, Clause, PolicyClauses
    from workbench.explaining.one import Evaluation, Side


@dataclass(frozen=True, slots=True)
class Stop:
    """What kept a policy from being satisfied: one clause, or an `unless` that held as a whole."""

    clauses: tuple[Clause, ...]
    why: Literal["false", "error", "unknown", "unless"]


def under(side: Side) -> str:
    """Say under which version: `as recorded`, or `under` its name."""
    return side.name if side.name == AS_RECORDED[0] else f"under {side.name}"


def stop_of(policy: PolicyClauses, evaluation: Evaluation) -> Stop | None:
    """Return what kept a policy from being satisfied, the first in Cedar's order; None: nothing did."""
    truths = evaluation.told.truths
    for clause in policy.scope:
        if truths[policy.id, clause.key] != "true":
            return Stop((clause,), "unknown" if truths[policy.id, clause.key] == "unknown" else "false")
    for body in policy.bodies:
        if (found := _stopped_by(body, policy, evaluation)) is not None:
            return found
    return None


def _stopped_by(body: Body, policy: PolicyClauses, evaluation: Evaluation) -> Stop | None:
    told = {clause: evaluation.told.truths[policy.id, clause.key] for clause in body.clauses}
    for clause, truth in told.items():
        if truth == "error" or truth == "unknown":  # noqa: PLR1714 - narrows the type for `mypy`
            return Stop((clause,), truth)
        if truth == "false":
            return Stop((clause,), "false") if body.kind == "when" else None
    return Stop(body.clauses, "unless") if body.kind == "unless" else None


def stopped(
    policy: PolicyClauses,
    stop: Stop,
    evaluation: Evaluation,
    *,
    past: bool = False,
    known: AbstractSet[str] = frozenset(),
) -> str:
    """What kept a policy off, in words."""
    told = "; ".join(seen(each, policy, evaluation, past=past, known=known) for each in stop.clauses)
    return f"its `unless` {'held' if past else 'holds'}: {told}" if stop.why == "unless" else told


_IS = {"error": "could not be evaluated", "unknown": "is not known", "not_reached": "is not evaluated"}


def seen(
    clause: Clause,
    policy: PolicyClauses,
    evaluation: Evaluation,
    *,
    past: bool = False,
    known: AbstractSet[str] = frozenset(),
) -> str:
    """Return a clause with what it was and what it read; of an `||` that holds, the operand that does.

    Args:
        clause: of the policy.
        policy: whose it is.
        evaluation: in which.
        past: it was, instead of is.
        known: values that are left out, because they have been said.
    """
    verb = "was" if past else "is"
    return "; ".join(
        _said(each, policy, evaluation, verb, known) for each in core_of(clause, policy, evaluation)
    )


def _said(
    clause: Clause,
    policy: PolicyClauses,
    evaluation: Evaluation,
    verb: str,
    known: AbstractSet[str],
) -> str:
    truth = evaluation.told.truths[policy.id, clause.key]
    said = _IS.get(truth, f"{verb} {truth}")
    values = values_in(clause, evaluation, known)
    return f"{quoted(clause)} {said}" + (f": {values}" if values else "")


def values_in(clause: Clause, evaluation: Evaluation, known: AbstractSet[str] = frozenset()) -> str:
    """Return the values that a clause reads, but for those that are known."""
    return ", ".join(each for each in map(str, values_of(clause, evaluation.prepared)) if each not in known)


def core_of(clause: Clause, policy: PolicyClauses, evaluation: Evaluation) -> tuple[Clause, ...]:
    """Return the parts of a clause that make it what it is: of an `||` that holds, the operand that does."""
    truths = evaluation.told.truths
    truth = truths[policy.id, clause.key]
    telling = {("or", "true"): "true", ("and", "false"): "false"}.get((clause.op, truth))
    if clause.op == "and" and truth == "true":
        told = [each for each in clause.children if not is_presence(each)] or list(clause.children)
    else:
        told = [each for each in clause.children if truths[policy.id, each.key] == telling][:1]
    return tuple(core for each in told for core in core_of(each, policy, evaluation)) or (clause,)


def is_presence(clause: Clause) -> bool:
    """Whether a clause is one `has` and nothing more."""
    body = clause.body
    return len(body) == 1 and "has" in body


def quoted(clause: Clause) -> str:
    """Return a clause as written, with its place."""
    return f"`{clause.text}`" + (f" ({clause.file}:{clause.line})" if clause.line is not None else "")


def needed(clause: Clause, evaluation: Evaluation) -> str:
    """Return a clause as written, with the values it reads."""
    values = values_in(clause, evaluation)
    return f"`{clause.text}`" + (f" ({values})" if values else "")


def place_of(policy: PolicyClauses) -> str:
    """Return where a policy's text begins, in brackets."""
    linked = f", linked from `{policy.source}`" if policy.info.template else ""
    return f" ({policy.info.file}:{policy.info.line}{linked})"
