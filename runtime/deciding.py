"""From an attempt to a durable decision: reads what a decision rests on, drives the fold, commits.

One rule: a decision and everything that follows from it at once (idempotency claim, session step, charged limits,
asked approvals, the action's first state) are one transaction of the ledger; if any of it has moved meanwhile, it is
decided again on what holds now.
"""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runtime import actions, metering, recovery
from runtime.approval_state import GrantMoved
from runtime.canonical import new_id
from runtime.errors import (
    CommitConflict,
    GovernanceError,
    IdempotencyConflict,
    LedgerError,
    RegistrationError,
)
from runtime.foreign import message_of
from runtime.ledger import Claim, SessionCounters, SessionStep
from runtime.record import content_rows, decision_row
from runtime.request import Request
from runtime.settling import Attempt, Settled, args_hash, key_hash, raiser, refuse, same_action
from runtime.trace import DECISIONS
from runtime.values import micros

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runtime.enforced import Enforced
    from runtime.identity import Identity
    from runtime.ledger import Move
    from runtime.limits import Limits
    from runtime.loop import Runtime
    from runtime.policy import Decision, Grants
    from runtime.record import Row
    from runtime.tools import Tool

_ATTEMPTS = 16
"""How often a call is decided again when another call got in between."""

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""When a request is made that no call makes."""

_deciding: ContextVar[Settler | None] = ContextVar("redecide_deciding", default=None)
"""The session that is deciding in this context: its own tools are out of reach of the sources it asks."""


class Settler:
    """Decides and makes durable the attempts of one session, one at a time."""

    def __init__(self, runtime: Runtime, identity: Identity) -> None:
        self.runtime = runtime
        self.identity = identity
        self._lock = threading.Lock()
        self._requests: dict[str, Request] = {}
        """By tool, a request to take what calls have in common from; see `_like`."""

    def settle(self, attempt: Attempt) -> Settled:
        """Decide and make the decision durable.

        Raises:
            CommitConflict: others moved the session or a limit faster than it could decide; safe to retry.
            GovernanceError: called by a source of facts while its session decides.
            LedgerError: it could not be made durable. Nothing ran.
        """
        if _deciding.get() is self:
            raise GovernanceError(
                f"tool {attempt.tool.name!r} is called by a source of facts while its session decides; "
                "sources only read: call the system of record itself"
            )
        with self._lock:
            token = _deciding.set(self)
            try:
                return self._until_it_holds(attempt)
            finally:
                _deciding.reset(token)

    def _until_it_holds(self, attempt: Attempt) -> Settled:
        for _ in range(_ATTEMPTS):
            try:
                return self._settle_once(attempt)
            except (*metering.MOVED, GrantMoved):
                continue  # another call moved the session, took the key, spent the budget or used the grants
        raise CommitConflict(
            f"session {self.identity.session_id!r} is moved by others faster than it can decide; safe to retry"
        )

    def key_hash(self, tool: Tool, key: str | None) -> str | None:
        """Return the address of an idempotency key: its tenant, principal, on-behalf-of and tool are part of it."""
        if key is None:
            return None
        who = self.identity
        return key_hash(
            tenant=who.tenant, principal=who.principal, on_behalf_of=who.on_behalf_of, tool=tool.name, key=key
        )

    def _settle_once(self, attempt: Attempt) -> Settled:
        began = time.perf_counter_ns()
        enforced = self.runtime.enforced  # once: it may be another one by the time this is durable
        request = self._request(attempt, enforced.bundle.limits)
        attempt.tried[:] = [request.decision_id]
        claim = self._claim(attempt, micros(request.at)) if attempt.key_hash else None
        grants = self.runtime.approvals.held(attempt.approval_id) if attempt.approval_id else None
        if claim is not None and (grants is None or grants.refusal is None):
            return self._settle_repeat(attempt, request, claim, began, grants, enforced)
        decision = self._decide(request, attempt, grants, enforced)
        new_claim = None
        if decision.runs and attempt.key_hash:
            new_claim = _new_claim(attempt, attempt.key_hash, request)
        moves = [*metering.charges(enforced.bundle.limits, decision)]
        if grants is not None or decision.verdict == "approve":
            moves += self._of_approvals(decision, enforced)
        row = self._commit(attempt.tool, decision, began, enforced, claim=new_claim, moves=moves)
        return Settled(row, decision.enforced_args, None if decision.runs else raiser(decision))

    def _of_approvals(self, decision: Decision, enforced: Enforced) -> list[Move]:
        """What a decision does to approvals: it asks for one, or uses what it was granted."""
        approvals = self.runtime.approvals
        return [*approvals.asked(decision, enforced.bundle), *approvals.used(decision)]

    def _settle_repeat(
        self,
        attempt: Attempt,
        request: Request,
        claim: Claim,
        began: int,
        grants: Grants | None,
        enforced: Enforced,
    ) -> Settled:
        """An idempotency hit: passes policy first, is recorded as `duplicate`, and never runs the tool."""
        original, limits = self.runtime.ledger.decision(claim.decision_id), enforced.bundle.limits
        if claim.args_hash != args_hash(attempt):
            decision = refuse(
                request,
                "idempotency_conflict",
                f"idempotency key {attempt.key!r} was used by decision {claim.decision_id} with other arguments",
            )
            moves = metering.charges(limits, decision, runs=False)
            row = self._commit(
                attempt.tool, decision, began, enforced, repeat_of=claim.decision_id, moves=moves
            )
            return Settled(row, None, raiser(decision, IdempotencyConflict(decision.reason)))
        decision = self._decide(request, attempt, grants, enforced)
        if decision.runs and not same_action(decision, original):
            decision = refuse(
                request, "duplicate_differs", f"what would run now differs from what {claim.decision_id} ran"
            )
        moves = [*metering.charges(limits, decision, runs=False), *self._of_approvals(decision, enforced)]
        row = self._commit(attempt.tool, decision, began, enforced, repeat_of=claim.decision_id, moves=moves)
        if not decision.runs:
            return Settled(row, None, raiser(decision))
        return Settled(row, None, lambda: recovery.repeated(self.runtime, claim.decision_id))

    def _claim(self, attempt: Attempt, now: int) -> Claim | None:
        """Who holds the attempt's idempotency key; None: nobody, or its time is over and nothing of it is open."""
        found = self.runtime.ledger.claim(attempt.key_hash) if attempt.key_hash else None
        if found is not None and found.expires is not None and found.expires <= now:
            return found if actions.find(self.runtime.ledger, found.decision_id) else None
        return found

    def _decide(
        self, request: Request, attempt: Attempt, grants: Grants | None, enforced: Enforced
    ) -> Decision:
        """Decide; whatever deciding raises becomes a recorded refusal, so that no request leaves no trace."""
        try:
            return self.runtime.decide(request, attempt.tool, attempt.bound.refusal, grants, enforced)
        except (LedgerError, RegistrationError):
            raise
        except Exception as exc:  # noqa: BLE001 - a guard point: the evaluator, and sources and values not our own
            refused = refuse(request, "undecidable", f"{type(exc).__name__}: {message_of(exc)}")
            return replace(refused, grants=grants)

    def counters(self) -> SessionCounters:
        """Return where the session stands.

        Raises:
            RegistrationError: somebody else began it.
        """
        who = self.identity
        return self._own(self.runtime.ledger.session(who.tenant, who.session_id))

    def _own(self, found: SessionCounters) -> SessionCounters:
        who = self.identity
        if found.owner not in (None, who.owner):
            raise RegistrationError(
                f"session {who.session_id!r} of tenant {who.tenant!r} is of {found.owner}, not of {who.owner}; "
                "leave `session_id` out for a fresh one"
            )
        return found

    def _request(self, attempt: Attempt, limits: Limits) -> Request:
        who, tool, bound = self.identity, attempt.tool.name, attempt.bound
        standing = metering.look(self.runtime.ledger, who.tenant, who.session_id, tool, who.acts_as)
        counters = self._own(standing.session)
        request = self._like(attempt.tool).again(
            decision_id=new_id(),
            step=counters.next_step,
            args=bound.args,
            bound=None if bound.text is None else (bound.args, bound.text),
            idempotency_key=attempt.key,
            at=_whole_milliseconds(self.runtime.clock()),
            session_state={"calls": counters.calls},
        )
        resumed = attempt.approval_id is not None
        return metering.read(self.runtime.ledger, limits, request, resumed=resumed, standing=standing)

    def _like(self, tool: Tool) -> Request:
        """What all requests of this session and tool have in common; the rest of it is no call's."""
        found = self._requests.get(tool.name)
        if found is None or found.resource is not tool.resource or found.required_scopes is not tool.scopes:
            who = self.identity
            found = self._requests[tool.name] = Request(
                decision_id="",
                session_id=who.session_id,
                step=0,
                tenant=who.tenant,
                principal=who.principal,
                on_behalf_of=who.on_behalf_of,
                scopes=who.scopes,
                tool=tool.name,
                resource=tool.resource,
                required_scopes=tool.scopes,
                args={},
                idempotency_key=None,
                at=_NEVER,
                session_state={},
            )
        return found

    def _commit(
        self,
        tool: Tool,
        decision: Decision,
        began: int,
        enforced: Enforced,
        *,
        claim: Claim | None = None,
        repeat_of: str | None = None,
        moves: Iterable[Move] = (),
    ) -> Row:
        runtime, request = self.runtime, decision.request
        row = decision_row(
            decision,
            enforced.bundle,
            decided_at=runtime.clock(),
            latency_us=(time.perf_counter_ns() - began) // 1000,
            engine=runtime.engine,
            kind="duplicate" if repeat_of else "call" if decision.grants is None else "resumed",
            linked_to=repeat_of or (None if decision.grants is None else decision.grants.approval_id),
            followed=None if enforced.alias is None else runtime.followed(enforced.alias),
        )
        row["effect"] = tool.effects.effect
        row["writes"] = tool.effects.written(decision.enforced_args)
        step = SessionStep(
            tenant=request.tenant,
            session_id=request.session_id,
            expected_step=request.step,
            ran=decision.runs and repeat_of is None,
            owner=self.identity.owner,
        )
        contents = [*enforced.unrecorded, *content_rows(decision)]
        if step.ran:
            runtime.running[request.decision_id] = None  # before anybody can find it in the ledger
        try:
            links = runtime.ledger.commit(
                contents=contents,
                evidence=[(DECISIONS, row)],
                claim=claim,
                session=step,
                moves=list(moves),
            )
        except BaseException:
            runtime.running.pop(request.decision_id, None)
            raise
        enforced.unrecorded = []  # they are in the ledger now
        return links[0]


def _new_claim(attempt: Attempt, key: str, request: Request) -> Claim:
    """Take the key for as long as its tool says; from the evaluation time, which is recorded."""
    now, seconds = micros(request.at), attempt.tool.effects.key_ttl
    expires = None if seconds is None else now + round(seconds * 1_000_000)
    return Claim(key, args_hash(attempt), request.decision_id, expires=expires, at=now)


def _whole_milliseconds(moment: datetime) -> datetime:
    """Cut a moment to the milliseconds that Cedar's `datetime` has."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
