"""What waits for people: who may grant it, with what, how often, and what is recorded of it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runtime import (
    ApprovalClosed,
    ApprovalError,
    ApprovalRequired,
    ApprovalUnknown,
    Blocked,
    EntityUid,
    GrantExpired,
    GrantRefused,
    GrantReplayed,
    GrantStale,
    LedgerCorrupt,
    NotAnApprover,
    OsUser,
    SignedTokens,
)
from runtime import errors as every_error
from runtime.approvals import Approvals
from runtime.lifecycle import ENDINGS

if TYPE_CHECKING:
    pass


def test_a_decision_that_needs_approval_waits_with_all_that_is_asked(desk: Any) -> None:
    ident = desk.ask(5000)
    (found,) = desk.approvals.list("acme")
    assert (found.id, found.state, found.tenant, found.tool) == (ident, "pending", "acme", "pay")
    assert (found.principal, found.on_behalf_of) == ('Agent::"bot"', 'User::"ana"')
    assert {need.policy: need.approvers for need in found.needs} == {
        "huge": ('Role::"board"',),
        "large": ('Role::"finance"', 'User::"cfo"'),
    }
    assert found.expires_at - found.asked_at == timedelta(hours=24)
    row = desk.runtime.ledger.decision(ident)
    assert row is not None
    assert (found.action_hash, found.context_hash) == (row["action_hash"], row["context_hash"])
    assert desk.approvals.facts(found) == {}
    assert desk.approvals.list("other") == ()
    for part in (ident, "pending", "bot", "ana", "acme", "pay", "5000", "`huge` asks", "2026-11-24T00:00"):
        assert part in repr(found)


def test_nothing_waits_where_nothing_was_asked(desk: Any) -> None:
    desk.session().call("pay", order_id="o", cents=1)
    with pytest.raises(Blocked):
        desk.session().call("pay", order_id="o", cents="x")
    assert desk.approvals.list(state=None) == ()


def test_an_approver_sees_what_would_be_enforced(desk: Any) -> None:
    found = desk.approvals.get(desk.ask(201))
    assert json.loads(found.args)["cents"] == 200
    assert [need.policy for need in found.needs] == ["large"]  # not the one whose patch was applied
    assert found.context_hash is not None
    assert found.context_hash == found.row["enforced_context_hash"]


def test_what_a_terminal_would_obey_is_escaped(desk: Any) -> None:
    with pytest.raises(ApprovalRequired) as asked:
        desk.session().call("pay", order_id="\x9b31m\u202e" + "x" * 9999, cents=500)
    text = repr(desk.approvals.get(asked.value.approval_id))
    assert text.isprintable()
    assert len(text) < 1000


def test_each_policy_needs_its_own_grant(desk: Any) -> None:
    ident = desk.ask(5000)
    found = desk.approvals.grant(ident, desk.token(ident))
    assert found.state == "pending"
    assert [need.policy for need in found.missing] == ["huge"]
    with pytest.raises(ApprovalClosed, match=r"all that .* may grant .* is granted"):
        desk.approvals.grant(ident, desk.token(ident))
    done = desk.approvals.grant(ident, desk.token(ident, "User::chair", "Role::board"))
    assert done.state == "granted"
    assert desk.approvals.list() == ()
    assert desk.approvals.list(state="granted") == (done,)


def test_one_person_may_give_several(desk: Any) -> None:
    ident = desk.ask(5000)
    found = desk.approvals.grant(ident, desk.token(ident, "User::fin", "Role::finance", "Role::board"))
    assert found.state == "granted"
    assert {need.grant.approver for need in found.needs if need.grant} == {'User::"fin"'}


def test_grants_are_evidence(desk: Any) -> None:
    ident = desk.ask(5000)
    token = desk.token(ident, "User::fin", "Role::finance", "Role::board")
    granted = desk.approvals.grant(ident, token)
    rows = desk.rows(ident)
    assert [(row["kind"], row["label"], row["value"], row["source"]) for row in rows] == [
        ("approval", "huge", "granted", 'User::"fin"'),
        ("approval", "large", "granted", 'User::"fin"'),
    ]
    assert {row["outcome_id"] for row in rows} == {need.grant.id for need in granted.needs if need.grant}
    details = json.loads(rows[0]["details"])
    assert details["authenticator"] == "signed_token"
    assert (details["action_hash"], details["context_hash"]) == (granted.action_hash, granted.context_hash)
    assert details["expires_at"] == "2026-11-24T00:00:00.000Z"
    assert "sss" not in json.dumps(rows)
    assert token.text not in json.dumps(rows)


def test_a_grant_may_be_for_one_policy_alone(desk: Any) -> None:
    ident = desk.ask(5000)
    both = ("User::fin", "Role::finance", "Role::board")
    desk.approvals.grant(ident, desk.token(ident, *both), policy="huge")
    assert [need.policy for need in desk.approvals.get(ident).missing] == ["large"]
    other = desk.ask(5000)
    desk.approvals.grant(other, desk.token(other, *both, policy="large"))
    assert [need.policy for need in desk.approvals.get(other).missing] == ["huge"]
    with pytest.raises(ApprovalUnknown, match="not asked for by policy"):
        desk.approvals.grant(other, desk.token(other, *both, policy="large"), policy="huge")
    with pytest.raises(ApprovalUnknown, match="it is by huge, large"):
        desk.approvals.grant(other, desk.token(other, *both), policy="odd")


ADMITTED: dict[str, tuple[int, str, str, bool]] = {
    "by role": (500, "User::fin", "Role::finance", True),
    "by name": (500, "User::cfo", "Role::x", True),
    "by another role": (500, "User::fin", "Role::support", False),
    "a role as a user": (
        500,
        "Role::finance",
        "Role::x",
        True,
    ),  # `@approvers` names an entity; this is that entity
    "a user of a role's name": (500, "User::finance", "Role::x", False),
    "anybody else, where nobody is named": (7, "User::zoe", "Role::x", True),
    "the user acted for, where nobody is named": (7, "User::ana", "Role::x", False),
    "the principal, where nobody is named": (7, "Agent::bot", "Role::x", False),
    "the user acted for, by name": (9, "User::ana", "Role::x", True),
    "the user acted for, by role": (500, "User::ana", "Role::finance", False),
    "the user acted for, not named": (500, "User::ana", "Role::x", False),
    "the principal, by name": (9, "Agent::bot", "Role::x", False),
    "the principal, by role": (500, "Agent::bot", "Role::finance", False),
    "the user acted for of another type": (7, "Agent::ana", "Role::x", True),
}


@pytest.mark.parametrize(("cents", "who", "role", "admitted"), ADMITTED.values(), ids=ADMITTED)
def test_who_is_admitted(desk: Any, cents: int, who: str, role: str, admitted: bool) -> None:
    ident = desk.ask(cents)
    if admitted:
        assert desk.approvals.grant(ident, desk.token(ident, who, role)).state == "granted"
        return
    for answer, act in (("granted", desk.approvals.grant), ("denied", desk.approvals.deny)):
        with pytest.raises(NotAnApprover):
            act(ident, desk.token(ident, who, role, decision=answer))
    assert desk.approvals.get(ident).state == "pending"
    assert desk.rows(ident) == []


def test_a_token_is_used_once(desk: Any) -> None:
    ident = desk.ask(5000)
    token = desk.token(ident)
    desk.approvals.grant(ident, token)
    head = desk.runtime.ledger.head()
    with pytest.raises(GrantReplayed):
        desk.approvals.grant(ident, token)
    assert desk.runtime.ledger.head() == head


def test_a_token_is_used_once_also_by_two_at_once(desk: Any) -> None:
    """Both have looked, and found it unused; for different policies, so that only the token is in the way."""
    ident = desk.ask(5000)
    token = desk.token(ident, "User::fin", "Role::finance", "Role::board")
    commit = desk.runtime.ledger.commit

    def after_another(**given: Any) -> Any:
        desk.runtime.ledger.commit = commit
        desk.approvals.grant(ident, token, policy="huge")
        return commit(**given)

    desk.runtime.ledger.commit = after_another
    with pytest.raises(GrantReplayed):
        desk.approvals.grant(ident, token, policy="large")
    assert [need.policy for need in desk.approvals.get(ident).missing] == ["large"]
    assert len(desk.rows(ident)) == 1


@pytest.mark.parametrize("other", [{}, {"cents": 600}, {"tenant": "evil"}], ids=str)
def test_a_token_grants_nothing_else(desk: Any, other: dict[str, Any]) -> None:
    first, second = desk.ask(), desk.ask(**other)
    with pytest.raises(GrantStale):
        desk.approvals.grant(second, desk.token(first))
    assert desk.approvals.get(second).state == "pending"


def test_an_approver_works_in_their_tenants(desk: Any) -> None:
    ident = desk.ask(tenant="evil")
    with pytest.raises(NotAnApprover, match="does not approve in tenant 'evil'"):
        desk.approvals.grant(ident, OsUser())  # the chief financial officer of acme
    assert desk.approvals.list("acme") == ()


def test_the_user_of_the_operating_system_grants(desk: Any) -> None:
    ident = desk.ask()
    assert desk.approvals.grant(ident, OsUser()).state == "granted"
    (row,) = desk.rows(ident)
    assert (row["source"], json.loads(row["details"])["authenticator"]) == ('User::"cfo"', "os_user")


@pytest.mark.parametrize("credential", ["User::fin", b"x", None, EntityUid("User", "fin"), 3.5], ids=repr)
def test_a_name_proves_nothing(desk: Any, credential: object) -> None:
    ident = desk.ask()
    with pytest.raises(GrantRefused, match=r"proves nobody's identity; .* SignedToken, OsUser"):
        desk.approvals.grant(ident, credential)


def test_without_an_authenticator_nobody_grants(tmp_path: Path, make_desk: Any) -> None:
    desk = make_desk(tmp_path / "lake", authenticators=())
    ident = desk.ask()
    with pytest.raises(GrantRefused, match="no authenticator is configured"):
        desk.approvals.grant(ident, OsUser())
    desk.runtime.ledger.close()


def test_an_authenticator_of_ones_own_that_returns_no_approver_is_refused(
    tmp_path: Path, make_desk: Any
) -> None:
    class Naive:
        takes: type = str

        def authenticate(self, credential: str, for_: Any) -> Any:
            return credential

    desk = make_desk(tmp_path / "lake", authenticators=[Naive()])
    ident = desk.ask()
    with pytest.raises(GrantRefused, match="returned 'User::fin', no approver"):
        desk.approvals.grant(ident, "User::fin")
    desk.runtime.ledger.close()


def test_a_denial_ends_it_once(desk: Any) -> None:
    ident = desk.ask(5000)
    desk.approvals.grant(ident, desk.token(ident))
    denied = desk.approvals.deny(ident, desk.token(ident, decision="denied"), reason="not \ud800 today")
    assert denied.state == "denied"
    rows = desk.rows(ident)[1:]
    assert [(row["kind"], row.get("status"), row.get("value"), row["source"]) for row in rows] == [
        ("approval", None, "denied", 'User::"fin"'),
        ("execution", "denied", None, 'User::"fin"'),
    ]
    assert rows[1]["reason_code"] == "denied"
    assert json.loads(rows[0]["details"])["reason"].startswith("not \\ud800")
    for act, answer in ((desk.approvals.grant, "granted"), (desk.approvals.deny, "denied")):
        with pytest.raises(ApprovalClosed, match="is denied"):
            act(ident, desk.token(ident, "User::chair", "Role::board", decision=answer))


def test_a_denial_revokes_what_is_granted_and_not_used(desk: Any) -> None:
    ident = desk.ask()
    desk.approvals.grant(ident, desk.token(ident))
    assert desk.approvals.deny(ident, desk.token(ident, decision="denied")).state == "denied"
    with pytest.raises(Blocked) as blocked:
        desk.session().resume(ident)
    assert blocked.value.decision.reason_code == "grant_denied"


def test_a_yes_is_no_denial(desk: Any) -> None:
    ident = desk.ask()
    with pytest.raises(GrantRefused, match="says 'granted'"):
        desk.approvals.deny(ident, desk.token(ident))
    with pytest.raises(GrantRefused, match="says 'denied'"):
        desk.approvals.grant(ident, desk.token(ident, decision="denied"))


@pytest.mark.parametrize("granted", [False, True])
def test_it_expires_once(desk: Any, granted: bool) -> None:
    ident = desk.ask()
    if granted:
        desk.approvals.grant(ident, desk.token(ident))
    before = len(desk.rows(ident))
    desk.clock.pass_by(hours=23, minutes=59)
    assert desk.approvals.expire() == 0
    desk.clock.pass_by(minutes=1)
    with pytest.raises(GrantExpired):
        desk.approvals.grant(ident, desk.token(ident, "User::cfo"))
    assert desk.approvals.get(ident).state == "expired"
    assert desk.approvals.expire() == 0
    (row,) = desk.rows(ident)[before:]
    assert (row["kind"], row["status"], row["reason_code"]) == ("execution", "expired", "expired")
    assert row["reason_code"] in ENDINGS


def test_what_expired_is_in_the_lake_whoever_asked(desk: Any) -> None:
    ident = desk.ask()
    desk.clock.pass_by(hours=24)
    desk.runtime.drain()
    assert [row["status"] for row in desk.rows(ident)] == ["expired"]


def test_an_expired_token_grants_nothing(desk: Any) -> None:
    ident = desk.ask()
    token = desk.token(ident, lifetime=timedelta(seconds=60))
    desk.clock.pass_by(seconds=91)
    with pytest.raises(GrantExpired):
        desk.approvals.grant(ident, token)


def test_the_time_it_waits_is_chosen_on_opening(tmp_path: Path, make_desk: Any) -> None:
    desk = make_desk(tmp_path / "lake", approval_ttl=90)
    found = desk.approvals.get(desk.ask())
    assert found.expires_at - found.asked_at == timedelta(seconds=90)
    desk.runtime.ledger.close()
    with pytest.raises(ApprovalError, match="needs time to be granted"):
        make_desk(tmp_path / "other", approval_ttl=timedelta(0))


def test_nobody_else_is_told_of_it(desk: Any) -> None:
    with pytest.raises(ApprovalUnknown, match="no approval 'x'"):
        desk.approvals.get("x")
    allowed = desk.session()
    allowed.call("pay", order_id="o", cents=1)
    assert allowed.last_decision is not None
    with pytest.raises(ApprovalUnknown):
        desk.approvals.get(allowed.last_decision["decision_id"])
    with pytest.raises(ApprovalError, match="`state` must be one of"):
        desk.approvals.list(state="open")


def test_an_answer_in_between_is_seen(desk: Any) -> None:
    """Two approvers at once, one of them from another process: the second one's look is old when it writes."""
    ident = desk.ask(5000)

    class Racing(SignedTokens):
        def authenticate(self, credential: Any, for_: Any) -> Any:
            found = super().authenticate(credential, for_)
            if desk.approvals.get(ident).missing == desk.approvals.get(ident).needs:
                desk.approvals.grant(ident, desk.token(ident, "User::cfo", "Role::x"))
            return found

    racing = Approvals(desk.runtime.ledger, [Racing([desk.token_key])], clock=desk.clock)
    done = racing.grant(ident, desk.token(ident, "User::fin", "Role::finance", "Role::board"))
    assert done.state == "granted"
    assert {need.policy: need.grant.approver for need in done.needs if need.grant} == {
        "huge": 'User::"fin"',
        "large": 'User::"cfo"',
    }
    assert len(desk.rows(ident)) == 2


def test_what_was_changed_in_the_file_is_not_shown(desk: Any) -> None:
    ident = desk.ask()
    with contextlib.closing(sqlite3.connect(desk.runtime.ledger.path)) as file, file:
        file.execute("UPDATE decisions SET row = replace(row, '500', '100')")
    with pytest.raises(LedgerCorrupt):
        desk.approvals.get(ident)


def test_every_error_has_a_kind_of_its_own() -> None:
    found = [
        each
        for each in vars(every_error).values()
        if isinstance(each, type) and issubclass(each, ApprovalError)
    ]
    assert len({each.kind for each in found}) == len(found) > 6
