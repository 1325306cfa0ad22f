"""Grants as a state machine: whatever people, agents, clocks and restarts do, in whatever order.

The model knows who granted what. After every step the ledger must agree with it, and nothing may have run that was
not granted in full, in time, by others than the principal, and exactly once.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from runtime import ApprovalError, ApprovalRequired, Blocked

POLICIES = {500: {"large"}, 5000: {"large", "huge"}, 7: {"odd"}}
ADMITTED = {"large": {"Role::finance", "User::cfo"}, "huge": {"Role::board"}, "odd": None}
PEOPLE = ("User::fin", "User::cfo", "User::ana", "Agent::bot")
ROLES = ("Role::finance", "Role::board", "Role::x")
TENANTS = ("acme", "evil")


@dataclass
class Asked:
    """What the model knows of one approval."""

    id: str
    cents: int
    tenant: str
    until: Any
    state: str = "pending"
    granted: set[str] = field(default_factory=set)
    ran: int = 0


def may(policy: str, who: str, roles: set[str]) -> bool:
    if who == "Agent::bot":
        return False
    named = ADMITTED[policy]
    if who == "User::ana":  # the user acted for: by name alone, whatever roles they hold
        return named is not None and who in named
    return named is None or bool(named & {who, *roles})


class Approving(RuleBasedStateMachine):
    """Two tenants ask; people answer with tokens, good and bad; agents resume; time passes; the process restarts."""

    make_desk: Any
    asked = Bundle("asked")
    tokens = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.desk = self.make_desk(self.folder / "lake")
        self.known: list[Asked] = []
        self.used: set[str] = set()

    def teardown(self) -> None:
        self.desk.runtime.ledger.close()
        shutil.rmtree(self.folder)

    def settle(self) -> None:
        """What time does in the model."""
        for each in self.known:
            if each.state in ("pending", "granted") and each.until <= self.desk.clock.now:
                each.state = "expired"

    @rule(target=asked, cents=st.sampled_from(sorted(POLICIES)), tenant=st.sampled_from(TENANTS))
    def ask(self, cents: int, tenant: str) -> Asked:
        ident = self.desk.ask(cents, tenant=tenant)
        made = Asked(ident, cents, tenant, self.desk.clock.now + timedelta(hours=24))
        self.known.append(made)
        return made

    @rule(
        target=tokens, of=asked, who=st.sampled_from(PEOPLE), roles=st.sets(st.sampled_from(ROLES)),
        says=st.sampled_from(["granted", "denied"]),
    )  # fmt: skip
    def sign(self, of: Asked, who: str, roles: set[str], says: str) -> tuple[Any, ...]:
        token = self.desk.token(of.id, who, *(roles or {"Role::x"}), decision=says)
        return token, of, who, roles, says, self.desk.clock.now

    @rule(given=tokens, to=asked)
    def present(self, given: tuple[Any, ...], to: Asked) -> None:
        """Present a token for the approval it was signed for, or for another; once, or again."""
        self.settle()
        token, of, who, roles, says, signed_at = given
        fresh = self.desk.clock.now - signed_at < timedelta(minutes=10, seconds=30)
        mine = {policy for policy in POLICIES[to.cents] if may(policy, who, roles)}
        open_ = ("pending",) if says == "granted" else ("pending", "granted")
        wanted = mine - to.granted if says == "granted" else mine
        good = fresh and to is of and token.text not in self.used and to.state in open_ and bool(wanted)
        act = self.desk.approvals.grant if says == "granted" else self.desk.approvals.deny
        try:
            act(to.id, token)
        except ApprovalError:
            assert not good
            return
        assert good
        self.used.add(token.text)
        if says == "denied":
            to.state = "denied"
            return
        to.granted |= wanted
        if to.granted == POLICIES[to.cents]:
            to.state = "granted"

    @rule(
        of=asked, tenant=st.sampled_from(TENANTS), principal=st.sampled_from(["Agent::bot", "Agent::mallory"])
    )
    def resume(self, of: Asked, tenant: str, principal: str) -> None:
        self.settle()
        before = len(self.desk.paid)
        good = of.state == "granted" and tenant == of.tenant and principal == "Agent::bot"
        try:
            self.desk.session(tenant=tenant, principal=principal).resume(of.id)
        except (Blocked, ApprovalRequired, ApprovalError):
            assert not good
            assert len(self.desk.paid) == before
            return
        assert good
        assert self.desk.paid[before:] == [of.cents]
        of.state, of.ran = "consumed", of.ran + 1

    @rule(minutes=st.sampled_from([1, 9, 60, 12 * 60]))
    def time_passes(self, minutes: int) -> None:
        self.desk.clock.pass_by(minutes=minutes)

    @rule()
    def restart(self) -> None:
        self.desk.runtime.ledger.close()
        before, self.desk = self.desk, self.make_desk(self.folder / "lake")
        self.desk.clock.now, self.desk.paid[:] = before.clock.now, before.paid

    @invariant()
    def the_ledger_agrees(self) -> None:
        self.settle()
        self.desk.approvals.expire()
        for each in self.known:
            found = self.desk.approvals.get(each.id)
            assert found.state == each.state
            assert {need.policy for need in found.needs if need.grant} == each.granted
            assert each.ran <= 1
            ends = [row["status"] for row in self.desk.rows(each.id) if row["kind"] == "execution"]
            assert ends == ([each.state] if each.state in ("denied", "expired") else [])


def test_grants_keep_their_rule(make_desk: Any) -> None:
    run_state_machine_as_test(
        type("Here", (Approving,), {"make_desk": make_desk}),
        settings=settings(
            max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
