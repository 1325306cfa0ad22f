"""The runtime's fold over one request of which something is hidden: a verdict only if it is the same for all of it.

One rule: as in a replay, missing is not false. Besides names without a value (`Prepared.missing`), here single
conditions may be open: one that looks at a text which is replaced. Each may hold or not; the ruling must be one for
every choice.

Source of the rulings: `runtime.policy.decide` and `workbench.undecided.possible`, which replay decides with.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import cedarpy

from runtime.cedar import ask_batch, evaluate_batch
from runtime.policy import Derive, decide
from workbench.atoms import atoms_of, leaves_of
from workbench.rows import Undecided
from workbench.undecided import possible

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from runtime.bundle import Bundle
    from runtime.policy import Case, Decision, Evaluate, Prepared
    from runtime.ruling import Answer, Ruling
    from workbench.rows import Job

MAX_OPEN = 8
"""Open conditions of policies in scope that are tried in every combination; above that the request is undecided."""


def decided_job(job: Job, open_: Collection[str]) -> Decision | Undecided:
    """Decide a job.

    Args:
        job: whose request, as far as it is known.
        open_: ids of atoms (`workbench.atoms.atoms_of`) that may hold or not, whatever Cedar says of them here.

    Cost: a millisecond or two; 2^n foldings for n open conditions in scope.
    """
    fold = decide(job.request, job.bundle, job.grants)
    reply: Prepared | Answer | None = None
    while True:
        try:
            ask = fold.send(reply)  # type: ignore[arg-type]  # the first send is None, as generators want
        except StopIteration as stop:
            decision: Decision = stop.value
            return decision
        if isinstance(ask, Derive):
            reply = job.prepare(ask.args)
        elif (open_ or ask.prepared.missing) and not _is_settled(ask, job.bundle, open_):
            fold.close()
            return Undecided(ask.prepared.missing)
        else:
            reply = _answer(ask, job.bundle)


def _case(ask: Evaluate) -> Case:
    case = ask.prepared.case
    assert case is not None  # noqa: S101 - Evaluate is asked of what was not refused
    return case


def _answer(ask: Evaluate, bundle: Bundle) -> Answer:
    case = _case(ask)
    store = cedarpy.Entities.from_json_str(case.slice.text, bundle.cedar_schema)
    (answer,) = evaluate_batch([case], store, bundle, ask.lifted)
    return answer


def conditions_of(case: Case, bundle: Bundle) -> Answer:
    """Return Cedar's answer over every condition of a bundle's policies, each asked alone: ids of atoms."""
    store = cedarpy.Entities.from_json_str(case.slice.text, bundle.cedar_schema)
    (answer,) = ask_batch([case], store, atoms_of(bundle).engine, bundle.cedar_schema)
    return answer


def _is_settled(ask: Evaluate, bundle: Bundle, open_: Collection[str]) -> bool:
    """Whether every choice of what is open, and every value of what is missing, gives one verdict and one change."""
    told = conditions_of(_case(ask), bundle)
    within = _in_scope(told, bundle, open_)
    if len(within) > MAX_OPEN:
        return False
    rulings: set[Ruling] = set()
    for here in product((False, True), repeat=len(within)):
        held = {atom for atom, holds in zip(within, here, strict=True) if holds}
        world = replace(told, reasons=tuple(sorted({*told.reasons, *held} - (set(within) - held))))
        found = possible(world, bundle, ask.prepared.missing, ask.lifted)
        if not found.settled:
            return False
        rulings |= found.rulings
    verdicts = {ruling.verdict for ruling in rulings}
    return len(verdicts) == 1 and not (verdicts == {"modify"} and _changes(within, bundle))


def _in_scope(told: Answer, bundle: Bundle, open_: Collection[str]) -> list[str]:
    """The open conditions of policies whose scope may hold; those of the others change nothing."""
    found: list[str] = []
    for tree in atoms_of(bundle).trees.values():
        scope, *rest = (leaf.id for leaf in leaves_of(tree))
        if scope in open_ or scope in told.reasons:
            found += [ident for ident in (scope, *rest) if ident in open_]
    return found


def _changes(within: Collection[str], bundle: Bundle) -> bool:
    """Whether a policy that changes arguments hangs on something open."""
    return any(leaf in within for leaf in _of_modifies(bundle))


def _of_modifies(bundle: Bundle) -> Iterator[str]:
    for ident, tree in atoms_of(bundle).trees.items():
        if bundle.policies[ident].verdict == "modify":
            yield from (leaf.id for leaf in leaves_of(tree))
