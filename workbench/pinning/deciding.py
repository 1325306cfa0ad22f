"""A pin decided under a bundle: by the replay's own code for a row, over what the pin holds.

One rule: a name that the pin hides, and that a policy of the bundle may look at, is missing: not absent, not the
placeholder that stands there. A verdict comes out only if it is the same for every value of it.

What counts as looking: of what was left out, blanked or cut, any reading; of texts that were replaced one for one, a
clause that looks at the text itself; unless the pin says that this very clause was checked to say the same
(`hidden.settled`). Facts are as pinned; ages, limits and schema are the bundle's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from runtime.canonical import canonical, content_hash, sha256
from runtime.entities import EntityUid
from runtime.facts import CompiledContext, Fact
from runtime.policy import Decision
from runtime.request import ResourceTemplate
from runtime.values import micros
from workbench.explaining.clauses import clauses_of
from workbench.explaining.one import Evaluation, Side
from workbench.explaining.truths import truths_of_cases
from workbench.pinning.evaluating import decided_job
from workbench.pinning.reading import hit, measured, patched_by, readings, spelt
from workbench.recorded import Recorded, prepare_recorded, recorded_facts
from workbench.replay import FRAME
from workbench.rows import Job, Undecided

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.bundle import Bundle
    from runtime.canonical import Json
    from runtime.policy import Prepared
    from runtime.request import Request
    from workbench.atoms import Path
    from workbench.pinning.pinned import PinFile, PinnedFact
    from workbench.pinning.reading import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Something that a bundle reads and the pin does not hold."""

    name: str
    """As policies name it."""
    why: str
    """`left out`, `blanked`, `replaced`, `cut`."""
    reading: Reading | None
    """A clause that reads it; None: a patch or a budget does."""
    open_: frozenset[str] = frozenset()
    """Conditions that may hold or not; empty: the name has no value at all."""


class Answered(NamedTuple):
    """What a bundle makes of a pin."""

    recorded: Recorded
    result: Decision | Undecided
    prepared: Prepared
    """The request as it stands."""
    gaps: tuple[Gap, ...]
    """What the bundle reads, and the pin does not hold."""


def answered(pin: PinFile, bundle: Bundle) -> Answered:
    """Decide a pin.

    Cost: a millisecond or two; the first under a bundle takes its policies apart.
    """
    recorded = record_of(pin)
    gaps = tuple(_gaps(pin, bundle))
    job = _job(recorded, bundle, gaps)
    result = decided_job(job, frozenset().union(*(gap.open_ for gap in gaps)))
    if isinstance(result, Undecided):
        result = Undecided(tuple(dict.fromkeys((*result.missing, *(gap.name for gap in gaps)))))
    return Answered(recorded, result, job.prepare(recorded.request.args), gaps)


def decided_under(pin: PinFile, bundle: Bundle) -> tuple[Side, tuple[Gap, ...]]:
    """Decide a pin, and every clause of the policies.

    Returns:
        What the bundle makes of it, `decided` or `undecided`, with what every clause was; and what it reads that the
        pin does not hold.

    Cost: some ten milliseconds of a core; the first under a bundle takes its policies apart.
    """
    recorded, result, prepared, gaps = answered(pin, bundle)
    decision = result if isinstance(result, Decision) else None
    patched = None if decision is None else decision.enforced
    first, second = (
        _evaluation(each, bundle) if decision is None or decision.answer is not None else None
        for each in (prepared, patched)
    )
    side = Side(
        name=bundle.name, bundle=bundle, status="undecided" if decision is None else "decided",
        row=_row(recorded, prepared, result), decision=decision, clauses=clauses_of(bundle), first=first,
        patched=second, facts=prepared,
    )  # fmt: skip
    return side, gaps


def _job(recorded: Recorded, bundle: Bundle, gaps: tuple[Gap, ...]) -> Job:
    answer = recorded_facts(bundle)
    hidden = tuple(dict.fromkeys(gap.name for gap in gaps if not gap.open_))

    def facts(
        record: Recorded, request: Request, resource: EntityUid
    ) -> tuple[CompiledContext, tuple[str, ...]]:
        compiled, missing = answer(record, request, resource)
        return compiled, tuple(dict.fromkeys((*missing, *hidden)))

    def prepared(args: Mapping[str, Json]) -> Prepared:
        return prepare_recorded(recorded, args, bundle, facts)

    return Job(recorded.request, bundle, prepared, recorded.grants)


def _gaps(pin: PinFile, bundle: Bundle) -> Iterator[Gap]:
    """What the policies that apply may look at, and the pin hides."""
    if pin.request.tool not in bundle.schema.actions:
        return
    hidden = pin.hidden
    for why, names in (("left out", hidden.left_out), ("blanked", hidden.blanked)):
        for text in names:
            for name in spelt(bundle, tuple(text.split("."))):
                yield from _of_value(name, why, pin, bundle)
    for why, names in (("replaced", hidden.replaced), ("cut", hidden.cut)):
        for text in names:
            yield from _of_text(tuple(text.split(".")), why, pin, bundle)


def _of_value(name: Path, why: str, pin: PinFile, bundle: Bundle) -> Iterator[Gap]:
    """Of a name without its value: whatever reads it."""
    tool = pin.request.tool
    found = next((each for each in readings(bundle, tool) if each.touches(name)), None)
    refs, written = patched_by(bundle, tool)
    if found is not None or hit((*refs, *written), name):
        yield Gap(name=".".join(name), why=why, reading=found)
    for meter, path in measured(bundle, tool):
        if hit([path], name):
            yield Gap(name=f"limits.{meter}", why=why, reading=None)


def _of_text(name: Path, why: str, pin: PinFile, bundle: Bundle) -> Iterator[Gap]:
    """Of a name with another text: what looks at the text itself, and was not checked to say the same."""
    types = types_of(pin).get(name, frozenset())
    for each in readings(bundle, pin.request.tool):
        looks = (
            each.touches(name) if why == "cut" else each.looks_at(name, types)
        )  # a cut text is equal to no other
        if looks and each.text not in pin.hidden.settled:
            open_ = frozenset(atom.id for atom in each.atoms)
            yield Gap(name=".".join(name), why=why, reading=each, open_=open_)
    _, written = patched_by(bundle, pin.request.tool)
    if hit(written, name):
        yield Gap(name=".".join(name), why=why, reading=None)


def types_of(pin: PinFile) -> Mapping[Path, frozenset[str]]:
    """Return the entity types of what stands at names of ids and parents."""
    asked = pin.request
    behalf = asked.on_behalf_of
    found: dict[Path, frozenset[str]] = {
        ("context", "on_behalf_of"): frozenset(() if behalf is None else {EntityUid.parse(behalf).type}),
        ("principal", "id"): frozenset({EntityUid.parse(asked.principal).type}),
        ("resource", "id"): frozenset({ResourceTemplate.parse(asked.resource).type}),
    }
    facts = [*pin.facts.values(), *(pin.patched.facts.values() if pin.patched else ())]
    for fact in facts:
        name = (fact.into, "parents")
        found[name] = found.get(name, frozenset()) | {kind for kind, _ in fact.parents}
    return found


def _evaluation(prepared: Prepared | None, bundle: Bundle) -> Evaluation | None:
    if prepared is None or prepared.case is None or prepared.refusal is not None:
        return None
    (told,) = truths_of_cases([(prepared.case, prepared.missing)], bundle, clauses_of(bundle))
    return Evaluation(prepared=prepared, told=told)


def record_of(pin: PinFile) -> Recorded:
    """Return the pin as a row of `decisions` with its context, for the replay's code."""
    asked, args = pin.request, canonical(pin.request.args)
    principal = EntityUid.parse(asked.principal)
    behalf = None if asked.on_behalf_of is None else EntityUid.parse(asked.on_behalf_of)
    context = compiled_of(pin.facts, pin.recorded.spec_hash)
    patched = None if pin.patched is None else compiled_of(pin.patched.facts, pin.recorded.spec_hash)
    judged: dict[str, Json] = {} if asked.max_skew_us is None else {"max_skew_us": asked.max_skew_us}
    row = {
        "decision_id": pin.decision_id, "kind": "call", "session_id": "", "step": 0, "tenant": asked.tenant,
        "principal_type": principal.type, "principal_id": principal.id,
        "on_behalf_of_type": None if behalf is None else behalf.type,
        "on_behalf_of_id": None if behalf is None else behalf.id,
        "scopes": asked.scopes, "required_scopes": asked.required_scopes, "tool": asked.tool,
        "resource_template": asked.resource, "args": args, "args_hash": sha256(args),
        "session_state": canonical(asked.session), "evaluated_at": micros(asked.at), "idempotency_key": None,
        "stage_inputs": canonical({"context": judged, "limits": {**asked.limits, **asked.session}}),
        "policy_hash": pin.recorded.policy_hash, "verdict": pin.recorded.verdict,
        "decided_by": pin.recorded.stage, "reason_code": pin.recorded.reason_code, "reason": "",
        "enforced_args": None if pin.patched is None else canonical(pin.patched.args),
        "context_hash": context.hash, "enforced_context_hash": None if patched is None else patched.hash,
        **_approval(pin),
    }  # fmt: skip
    return Recorded(row, context.content, None if patched is None else patched.content)


def _approval(pin: PinFile) -> dict[str, Any]:
    held = pin.grants
    if held is None:
        return {"approval": None, "grants": None}
    told: dict[str, Json] = {
        "approval": held.approval, "lifted": [*sorted(held.lifted)], "approval_id": "as pinned",
        "action_hash": held.action_hash, "refusal": held.refusal,
    }  # fmt: skip
    return {"approval": canonical(told), "grants": None}


def compiled_of(facts: Mapping[str, PinnedFact], spec_hash: str) -> CompiledContext:
    """Return pinned facts as a compiled context; one that is not among them was not asked for."""
    return CompiledContext.of((_fact(name, fact) for name, fact in facts.items()), spec_hash)


def _fact(name: str, fact: PinnedFact) -> Fact:
    as_of = None if fact.as_of is None else micros(fact.as_of)
    message = None if fact.code is None else f"it failed when it was recorded ({fact.code})"
    return Fact(
        name=name, status=fact.status, value=fact.value, into=fact.into, parents=fact.parents, source=fact.source,
        kind=fact.kind, key=fact.key, as_of=as_of, hash=content_hash(fact.value), code=fact.code, message=message,
    )  # fmt: skip


def _row(recorded: Recorded, prepared: Prepared, result: Decision | Undecided) -> dict[str, Any]:
    """The row as `workbench.explaining` reads it."""
    record = recorded.row
    resource = prepared.resource
    told: dict[str, Any] = dict.fromkeys(FRAME) | {
        name: record[name] for name in ("decision_id", "session_id", "step", "tenant", "tool", "args", "kind")
    }
    told |= {
        "principal": str(recorded.request.principal),
        "resource": None if resource is None else str(resource),
    }
    if isinstance(result, Undecided):
        return told | {"status": "undecided", "cause": "missing_fact", "missing": list(result.missing)}
    args = result.enforced_args
    return told | {
        "status": "decided", "missing": [], "verdict": result.verdict, "decided_by": result.decided_by,
        "reason_code": result.reason_code, "reason": result.reason, "determining": list(result.determining),
        "enforced_args": None if args is None else canonical(dict(args)), "effect": "",
    }  # fmt: skip
