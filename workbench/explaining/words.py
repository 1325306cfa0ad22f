"""Sentences about one decision: what happened, and which clause decided.

One rule: a sentence names policy, file and line, the clause as written, what it was, and the values it saw.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from workbench.explaining.clause_words import (
    core_of,
    is_presence,
    needed,
    place_of,
    quoted,
    seen,
    stop_of,
    stopped,
    under,
)
from workbench.explaining.pairing import pairs_of
from workbench.explaining.truths import is_touched
from workbench.explaining.values_read import cedar, values_of
from workbench.replay import CAUSES
from workbench.texts import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from workbench.explaining.clause_words import Stop
    from workbench.explaining.clauses import Clause, PolicyClauses
    from workbench.explaining.one import Evaluation, Side

MOST = 3
"""Policies of a kind that sentences are about; the rest are counted."""

_VERBS = {
    "forbidden": "blocked",
    "policy_error": "blocked",
    "approval_required": "held for approval",
    "modified": "changed",
    "patch_insufficient": "blocked, though changed,",
    "permitted": "permitted",
}


def told(base: Side, cand: Side) -> Iterator[str]:
    """Yield what happened, and why."""
    row = cand.row
    on = f" on {row['resource']}" if row["resource"] else ""
    where = f"tenant {row['tenant']}, session {row['session_id']}, step {row['step']}"
    what = f"{row['tool']} by {row['principal']}{on} ({where})"
    if base is cand:
        yield f"{what}: {base.verdict}"
        yield from reasons(base, None)
        return
    then = under(base)
    effect = "" if cand.status != "decided" else f"; effect: {row['effect']}"
    if base.verdict == cand.verdict:
        yield f"{what}: {cand.verdict} {then} and under {cand.name}{effect}"
    else:
        yield f"{what}: {base.verdict} {then}, {cand.verdict} under {cand.name}{effect}"
    yield from reasons(cand, base)
    yield from _no_more(cand, base)
    if base.verdict != cand.verdict and (base.status != "decided" or base.row["decided_by"] != "policy"):
        yield from (f"Then: {each}" for each in reasons(base, None))


def reasons(side: Side, other: Side | None) -> Iterator[str]:
    """Yield why a side says what it says, against the other."""
    row = side.row
    if side.status == "quarantined":
        about = f" ({', '.join(side.missing)})" if side.missing else ""
        yield f"It cannot be replayed: {CAUSES.get(str(row['cause']), row['cause'])}{about}"
    elif side.status == "undecided":
        yield from _undecided(side)
    elif row["decided_by"] != "policy":
        before = "" if row["decided_by"] == "approval" else ", before policies"
        yield f"Blocked by the stage `{row['decided_by']}`{before}: {row['reason']}"
    elif row["reason_code"] == "not_permitted":
        yield from _not_permitted(side, other)
    else:
        yield from _determined(side, other)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def deciding(side: Side) -> tuple[Sequence[str], Evaluation | None]:
    """The policies that determined a verdict, and the evaluation in which they did."""
    decision = side.decision
    if decision is None:
        return (), None
    second = side.patched is not None and (
        decision.reason_code == "patch_insufficient" or decision.verdict == "approve"
    )
    if second:
        return decision.enforced_determining, side.patched
    return decision.determining, side.first


def _determined(side: Side, other: Side | None) -> Iterator[str]:
    names, evaluation = deciding(side)
    if evaluation is None or side.clauses is None or not names:
        yield f"{_capital(side.verdict)}: {side.row['reason']}"
        return
    verb = _VERBS.get(side.row["reason_code"], side.verdict)
    for ident in names[:MOST]:
        yield _applies(ident, verb, side, evaluation, other)
    if len(names) > MOST:
        yield f"And by {count(len(names) - MOST, 'more policy', 'more policies')}: {', '.join(names[MOST:])}"
    if side.row["reason_code"] not in _VERBS:  # a patch that could not be applied
        yield f"{_capital(side.verdict)}: {side.row['reason']}"
    if side.verdict == "modify":
        yield f"It would run with {_patched(side)}"
    yield from _lifted(side, evaluation)


def _lifted(side: Side, evaluation: Evaluation) -> Iterator[str]:
    """Policies that apply, and were lifted because people granted it."""
    grants = None if side.decision is None else side.decision.grants
    applies = evaluation.told.satisfied
    names = sorted(each for each in (grants.lifted if grants else ()) if applies.get(each) == "true")
    if names:
        yield f"{', '.join(f'`{name}`' for name in names)} would ask for approval; it was granted"


def _patched(side: Side) -> str:
    before, after = (json.loads(side.row[name]) for name in ("args", "enforced_args"))
    names = [name for name in dict.fromkeys((*before, *after)) if before.get(name) != after.get(name)]
    return ", ".join(f"`{n}` {cedar(before.get(n))} changed to {cedar(after.get(n))}" for n in names)


def _applies(ident: str, verb: str, side: Side, evaluation: Evaluation, other: Side | None) -> str:
    """A policy that determined the verdict: the clause that flipped, or what it rests on."""
    assert side.clauses is not None  # noqa: S101 - policies were asked
    policy = side.clauses.policies[ident]
    now = "now " if other is not None and other.verdict != side.verdict else ""
    if side.row["reason_code"] == "policy_error" and (stop := stop_of(policy, evaluation)):
        message = evaluation.told.messages.get((ident, stop.clauses[0].key), "")
        said = f": {message}" if message else ""
        return f"{_capital(verb)} {now}by `{ident}`: {quoted(stop.clauses[0])} could not be evaluated{said}"
    contrast = None if other is None else _contrast(ident, side, other)
    clauses = contrast[0] if contrast is not None and contrast[0] else holding(policy, evaluation)
    told = "; ".join(seen(clause, policy, evaluation) for clause in clauses)
    rest = f"; {contrast[1]}" if contrast is not None else ""
    of = ", of the changed request" if evaluation is side.patched else ""
    return f"{_capital(verb)} {now}by `{ident}`{place_of(policy)}{of}" + (f": {told}" if told else "") + rest


def _contrast(ident: str, side: Side, other: Side) -> tuple[tuple[Clause, ...], str] | None:
    """Clauses of the side that flipped, and what the other version made of them; None: it applied there, too."""
    if other.bundle is None or side.clauses is None:
        return None
    if other.clauses is None or ident not in other.clauses.policies:
        return (), f"there is no such policy {under(other)}"
    here, there = _evaluations(side, other)
    if here is None or there is None:
        return None
    was, now = other.clauses.policies[ident], side.clauses.policies[ident]
    stop = stop_of(was, there)
    if stop is None:
        return None
    flipped = tuple(p.cand for p in pairs_of(was, now) if p.base in stop.clauses and p.cand is not None)
    same = {str(v) for each in flipped for c in core_of(each, now, here) for v in values_of(c, here.prepared)}
    return flipped, f"{under(other)} {stopped(was, stop, there, past=True, known=same)}"


def _evaluations(side: Side, other: Side) -> tuple[Evaluation | None, Evaluation | None]:
    """The evaluation that decided, and the same one of the other version, if it came to that."""
    _, here = deciding(side)
    if here is not None and here is side.patched:
        return here, other.patched or other.first
    return here, other.first


def holding(policy: PolicyClauses, evaluation: Evaluation) -> tuple[Clause, ...]:
    """Return the conditions that a satisfied policy rests on; those on presence are left out where there is more."""
    truths = evaluation.told.truths
    held = [
        clause
        for body in policy.bodies
        for clause in body.clauses
        if (truths[policy.id, clause.key] == "true") == (body.kind == "when")
        and truths[policy.id, clause.key] in ("true", "false")
    ]
    telling = [clause for clause in held if not is_presence(clause)]
    return tuple((telling or held)[:MOST])


def _not_permitted(side: Side, other: Side | None) -> Iterator[str]:
    """Each permit that is meant for such a call, with what it fails at."""
    if side.first is None or side.clauses is None:
        yield side.row["reason"]
        return
    gone = _permits_gone(side, other)
    yield from gone
    permits = [each for each in applicable(side) if f"`{each.id}`" not in " ".join(gone)]
    if not permits and not gone:
        yield "Blocked: no permit is meant for such a call (principal, action, resource)"
    for policy in permits[: MOST - len(gone)]:
        stop = stop_of(policy, side.first)
        if stop is not None:
            yield f"Not permitted by `{policy.id}`{place_of(policy)}: {stopped(policy, stop, side.first)}"
    if (rest := len(permits) - max(0, MOST - len(gone))) > 0:
        yield f"And {count(rest, 'more permit fails', 'more permits fail')}"


def _permits_gone(side: Side, other: Side | None) -> list[str]:
    """Permits that the other version had satisfied, and why they are not now."""
    if other is None or other.decision is None or other.decision.answer is None or side.first is None:
        return []
    assert side.clauses is not None  # noqa: S101 - asked by the caller
    found = []
    for ident, truth in (other.first.told.satisfied if other.first else {}).items():
        if truth != "true" or other.clauses is None or other.clauses.policies[ident].info.effect != "permit":
            continue
        now = side.clauses.policies.get(ident)
        if now is None:
            found.append(f"Blocked: permit `{ident}`, which let it pass, is not in {side.name}")
        elif stop := stop_of(now, side.first):
            was = _before(stop, now, side, other)
            found.append(
                f"Blocked: permit `{ident}`{place_of(now)} no longer holds: {stopped(now, stop, side.first)}{was}"
            )
    return found


def _before(stop: Stop, now: PolicyClauses, side: Side, other: Side) -> str:
    """What the clauses at which a policy fails now were in the other version."""
    assert other.clauses is not None  # noqa: S101 - asked by the caller
    assert other.first is not None  # noqa: S101 - as above
    assert side.first is not None  # noqa: S101 - as above
    policy = other.clauses.policies[now.id]
    known = {str(value) for each in stop.clauses for value in values_of(each, side.first.prepared)}
    was = [pair.base for pair in pairs_of(policy, now) if pair.cand in stop.clauses]
    told = [seen(each, policy, other.first, past=True, known=known) for each in was if each is not None]
    return f"; {under(other)} " + ("; ".join(told) if told else "there was no such clause")


def applicable(side: Side) -> list[PolicyClauses]:
    """The permits whose scope a call is in; if there are none, those for its action."""
    if side.clauses is None or side.first is None:
        return []
    permits = [each for each in side.clauses.policies.values() if each.info.effect == "permit"]
    truths = side.first.told.truths
    within = [each for each in permits if all(truths[each.id, c.key] == "true" for c in each.scope)]
    if within:
        return within
    return [p for p in permits if all(truths[p.id, c.key] == "true" for c in p.scope if c.place == "action")]


def _no_more(cand: Side, base: Side) -> Iterator[str]:
    """What stopped the call then, and does not now."""
    names, _ = deciding(base)
    if base.verdict in ("allow", cand.verdict) or cand.first is None or cand.clauses is None:
        return
    for ident in names[:MOST]:
        now = cand.clauses.policies.get(ident)
        if now is None:
            yield f"`{ident}`, which stopped it then, is not in {cand.name}"
        elif stop := stop_of(now, cand.first):
            said = stopped(now, stop, cand.first) + _before(stop, now, cand, base)
            yield f"`{ident}`{place_of(now)}, which stopped it then, no longer applies: {said}"


def _undecided(side: Side) -> Iterator[str]:
    evaluation, clauses = side.first, side.clauses
    if evaluation is None or clauses is None:
        yield f"Undecided: the record did not ask for {_names(side.missing)}"
        return
    told = evaluation.told
    open_ = [each for each in clauses.policies.values() if told.satisfied[each.id] == "unknown"]
    matter = [name for name in side.missing if any(_hangs(each, name, evaluation) for each in open_)]
    yield f"Undecided: the record did not ask for {_names(matter or side.missing)}"
    for policy in open_[:MOST]:
        first = next(each for each in policy.top if told.truths[policy.id, each.key] == "unknown")
        yield f"Whether `{policy.id}`{place_of(policy)} applies hangs on {needed(first, evaluation)}"
    if len(open_) > MOST:
        yield f"And {count(len(open_) - MOST, 'more policy hangs', 'more policies hang')} on it"


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _hangs(policy: PolicyClauses, name: str, evaluation: Evaluation) -> bool:
    """Whether a clause of a policy may hang on one missing name."""
    case = evaluation.prepared.case
    types = {} if case is None else {"principal": case.principal.type, "resource": case.resource.type}
    told = evaluation.told.truths
    leaves = (c for c in policy.walk() if not c.children and told[policy.id, c.key] == "unknown")
    return any(is_touched(policy, each, [name], types) for each in leaves)
