"""The fold: each verdict, each stage, re-evaluation, fail-closed cases. Cedar itself evaluates."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest

from runtime.bundle import Bundle, bundle_from_files
from runtime.cedar import evaluate, faults
from runtime.context import compile_context
from runtime.entities import EntityUid
from runtime.policy import Decision, Derive, Evaluate, Grants, Prepared, decide
from runtime.prepare import prepare
from runtime.request import Request, ResourceTemplate
from runtime.ruling import REASONS, Answer, Flags, rule
from runtime.sources import CallableSource

SCHEMA = """
entity User;
entity Agent in [Team] = { level?: Long };
entity Team;
entity Order = { owner?: String };
action "refund" appliesTo {
  principal: [Agent], resource: [Order],
  context: { args: { order_id: String, amount_cents: Long, note?: String },
             order?: { refundable_cents: Long, owner?: String } }
};
"""
CONTEXT = """
[sources.orders]
kind = "callable"
[[facts]]
name = "order"
actions = ["refund"]
source = "orders"
key = { order_id = "args.order_id" }
fields = ["refundable_cents", "owner"]
tenant_column = "tenant"
"""
PERMIT = '@id("permit") permit(principal is Agent, action, resource);\n'
ORDERS = {"o-1": {"refundable_cents": 1000, "owner": "ana"}, "o-2": {"refundable_cents": 9000, "owner": "bo"}}


def bundle_of(policies: str, *, limits: str = "", context: str = CONTEXT) -> Bundle:
    files = {
        "p.cedar": policies,
        "schema.cedarschema": SCHEMA,
        "context.toml": context,
        "limits.toml": limits,
    }
    return bundle_from_files(files, "test")


def orders(where: dict[str, Any]) -> Any:
    row = ORDERS.get(where["order_id"])
    return None if row is None else {**row, "tenant": where["tenant"]}


def request_of(**changes: Any) -> Request:
    request = Request(
        decision_id="d",
        session_id="s",
        step=0,
        tenant="acme",
        principal=EntityUid("Agent", "bot"),
        on_behalf_of=None,
        scopes=("refunds",),
        tool="refund",
        resource=ResourceTemplate.parse("Order::{order_id}"),
        required_scopes=("refunds",),
        args={"order_id": "o-1", "amount_cents": 500},
        idempotency_key=None,
        at=datetime(2026, 11, 22, 10, 0, tzinfo=UTC),
        session_state={"calls": 0},
    )
    return replace(request, **changes)


def drive(bundle: Bundle, request: Request, grants: Grants | None = None, source: Any = orders) -> Decision:
    sources = {"orders": CallableSource(source)} if bundle.spec.sources else {}

    def facts(about: Request, resource: EntityUid) -> Any:
        return compile_context(bundle.spec, sources, about, resource)

    fold = decide(request, bundle, grants)
    reply: Prepared | Answer | None = None
    approval = (grants or Grants()).approval
    while True:
        try:
            ask = fold.send(reply)  # type: ignore[arg-type]
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        match ask:
            case Derive(args):
                reply = prepare(request, args, bundle, facts, approval=approval)
            case Evaluate(prepared, lifted):
                assert prepared.case is not None
                reply = evaluate(prepared.case, bundle, lifted)


def test_allow_names_its_permit() -> None:
    decision = drive(bundle_of(PERMIT), request_of())
    assert (decision.verdict, decision.decided_by, decision.determining) == ("allow", "policy", ("permit",))
    assert decision.runs
    assert decision.answer is not None
    assert decision.answer.decision == "Allow"
    assert decision.enforced_args == {"order_id": "o-1", "amount_cents": 500}


def test_no_permit_blocks() -> None:
    decision = drive(bundle_of('@id("p") permit(principal, action, resource) when { false };'), request_of())
    assert (decision.verdict, decision.reason_code, decision.determining) == ("block", "not_permitted", ())
    assert decision.action_hash is None


def test_a_plain_forbid_beats_everything() -> None:
    text = (
        PERMIT
        + """
    @id("no") forbid(principal, action, resource) when { context.args.amount_cents > 100 };
    @id("ask") @verdict("approve") forbid(principal, action, resource);
    @id("cut") @verdict("modify") @patch("{\\"amount_cents\\": 1}") forbid(principal, action, resource);
    """
    )
    decision = drive(bundle_of(text), request_of())
    assert (decision.verdict, decision.reason_code, decision.determining) == ("block", "forbidden", ("no",))
    assert decision.answer is not None
    assert decision.answer.reasons == ("ask", "cut", "no")


def test_a_forbid_that_errs_blocks_where_cedar_alone_would_allow() -> None:
    text = PERMIT + '@id("err") forbid(principal, action, resource) when { context.order.owner == "x" };'
    schema_free = text.replace("context.order.owner", "principal.level + 9223372036854775807 == 1 || false")
    text = PERMIT + (
        '@id("err") forbid(principal, action, resource) '
        "when { context.args.amount_cents + 9223372036854775807 == 0 };"
    )
    assert schema_free != text
    decision = drive(bundle_of(text), request_of())
    assert (decision.verdict, decision.reason_code, decision.determining) == (
        "block",
        "policy_error",
        ("err",),
    )
    assert decision.answer is not None
    assert decision.answer.decision == "Allow"
    assert "overflow" in decision.errors[0].message


def test_a_permit_that_errs_only_does_not_permit() -> None:
    text = (
        PERMIT
        + '@id("err") permit(principal, action, resource) when { context.args.amount_cents + 9223372036854775807 == 0 };'
    )
    decision = drive(bundle_of(text), request_of())
    assert decision.verdict == "allow"
    assert [fault.policy for fault in decision.errors] == ["err"]


ASK = '@id("ask") @verdict("approve") @approvers("Team::\\"finance\\"") forbid(principal, action, resource) when { context.args.amount_cents > 800 };\n'
CUT = (
    '@id("cut") @verdict("modify") @patch("{\\"amount_cents\\": {\\"$ref\\": \\"context.order.refundable_cents\\"}}") '
    "forbid(principal, action, resource) when { context has order && "
    "context.args.amount_cents > context.order.refundable_cents };\n"
)


def test_approve_needs_a_permit_too() -> None:
    high = {"order_id": "o-1", "amount_cents": 900}
    assert drive(bundle_of(PERMIT + ASK), request_of(args=high)).verdict == "approve"
    blocked = drive(
        bundle_of(ASK + '@id("p") permit(principal, action, resource) when { false };'), request_of(args=high)
    )
    assert (blocked.verdict, blocked.reason_code) == ("block", "not_permitted")


def test_modify_enforces_the_patched_request() -> None:
    decision = drive(bundle_of(PERMIT + CUT), request_of(args={"order_id": "o-1", "amount_cents": 5000}))
    assert (decision.verdict, decision.determining) == ("modify", ("cut",))
    assert decision.enforced_args == {"order_id": "o-1", "amount_cents": 1000}
    assert decision.enforced is not None
    assert decision.enforced_determining == ("permit",)
    assert decision.answer is not None
    assert decision.answer.decision == "Deny"


def test_the_patched_request_may_need_approval() -> None:
    decision = drive(
        bundle_of(PERMIT + CUT + ASK), request_of(args={"order_id": "o-1", "amount_cents": 5000})
    )
    assert (decision.verdict, decision.determining) == ("approve", ("ask",))
    assert decision.enforced_args == {"order_id": "o-1", "amount_cents": 1000}


def test_a_permit_must_hold_after_the_patch_too() -> None:
    narrow = '@id("permit") permit(principal, action, resource) when { context.args.amount_cents > 2000 };'
    decision = drive(bundle_of(narrow + CUT), request_of(args={"order_id": "o-1", "amount_cents": 5000}))
    assert (decision.verdict, decision.reason_code) == ("block", "patch_insufficient")


def test_resource_and_context_are_derived_again_for_the_patched_request() -> None:
    move = (
        '@id("move") @verdict("modify") @patch("{\\"order_id\\": \\"o-2\\"}") forbid(principal, action, resource) '
        'when { context.args.order_id == "o-1" };'
        '@id("bo") forbid(principal, action, resource) when { context has order && context.order has owner && '
        'context.order.owner == "bo" };'
    )
    decision = drive(bundle_of(PERMIT + move), request_of())
    assert (decision.verdict, decision.reason_code) == ("block", "patch_insufficient")
    assert decision.enforced is not None
    assert decision.enforced.resource == EntityUid("Order", "o-2")


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        ('{\\"amount_cents\\": 5000}', "patch_invalid"),
        ('{\\"amount_cents\\": \\"much\\"}', "patch_invalid"),
        ('{\\"unheard_of\\": 1}', "patch_invalid"),
        ('{\\"order_id\\": null}', "patch_invalid"),
        ('{\\"note\\": {\\"$ref\\": \\"resource.owner\\"}}', "patch_unresolved"),
        ('{\\"amount_cents\\": 6000}', "patch_insufficient"),
    ],
)
def test_a_bad_patch_blocks(patch: str, code: str) -> None:
    text = PERMIT + (
        f'@id("cut") @verdict("modify") @patch("{patch}") forbid(principal, action, resource) '
        "when { context.args.amount_cents >= 5000 };"
    )
    decision = drive(bundle_of(text), request_of(args={"order_id": "o-1", "amount_cents": 5000}))
    assert (decision.verdict, decision.reason_code, decision.runs) == ("block", code, False)


def test_conflicting_patches_block() -> None:
    text = PERMIT + "".join(
        f'@id("c{n}") @verdict("modify") @patch("{{\\"amount_cents\\": {n}}}") forbid(principal, action, resource) '
        "when { context.args.amount_cents > 400 };"
        for n in (1, 2)
    )
    decision = drive(bundle_of(text), request_of())
    assert (decision.verdict, decision.reason_code, decision.determining) == (
        "block",
        "patch_conflict",
        ("c1", "c2"),
    )


def test_grants_lift_their_forbids_and_no_other() -> None:
    other = '@id("ask2") @verdict("approve") forbid(principal, action, resource) when { context.args.amount_cents > 850 };'
    high = request_of(args={"order_id": "o-1", "amount_cents": 900})
    bundle = bundle_of(PERMIT + ASK + other)
    approval: Any = {"approvers": ["User::fin"], "granted_at": "2026-11-22T10:00:00Z"}
    asked = drive(bundle, high).action_hash
    one = drive(bundle, high, Grants(frozenset({"ask"}), approval, asked))
    assert (one.verdict, one.determining) == ("approve", ("ask2",))
    both = drive(bundle, high, Grants(frozenset({"ask", "ask2"}), approval, asked))
    assert both.verdict == "allow"
    assert both.first.case is not None
    assert "approval" in both.first.case.context


def test_grants_are_for_the_approved_action_alone() -> None:
    bundle = bundle_of(PERMIT + ASK)
    high = request_of(args={"order_id": "o-1", "amount_cents": 900})
    held = Grants(frozenset({"ask"}), None, drive(bundle, high).action_hash, "a-1")
    assert drive(bundle, high, held).verdict == "allow"
    other = replace(high, args={"order_id": "o-1", "amount_cents": 901})
    for request, grants in ((other, held), (high, replace(held, action_hash=None))):
        decision = drive(bundle, request, grants)
        assert (decision.verdict, decision.decided_by, decision.reason_code) == (
            "block",
            "approval",
            "grant_stale",
        )
        assert (decision.enforced_args, decision.action_hash, decision.grants) == (None, None, grants)
    # Nor do they make a call run that needs no approval any more and has become another.
    low = replace(high, args={"order_id": "o-1", "amount_cents": 10})
    assert drive(bundle, low).verdict == "allow"
    assert drive(bundle, low, held).reason_code == "grant_stale"


@pytest.mark.parametrize("code", ["grant_denied", "grant_expired", "grant_consumed"])
def test_an_approval_that_cannot_be_used_blocks(code: str) -> None:
    bundle = bundle_of(PERMIT + ASK)
    high = request_of(args={"order_id": "o-1", "amount_cents": 900})
    asked = drive(bundle, high).action_hash
    decision = drive(bundle, high, Grants(action_hash=asked, refusal=code))
    assert (decision.verdict, decision.decided_by, decision.reason_code) == ("block", "approval", code)
    assert code in REASONS
    refused = drive(bundle, replace(high, scopes=()), Grants(action_hash=asked, refusal=code))
    assert refused.decided_by == "request"  # the first stage that refuses


def test_a_grant_lifts_nothing_but_a_forbid_that_asks_for_it() -> None:
    """Under its own id, the policy has become a plain forbid since it was granted; or it is a permit."""
    high = request_of(args={"order_id": "o-1", "amount_cents": 900})
    plain = bundle_of(PERMIT + ASK.replace('@verdict("approve") @approvers("Team::\\"finance\\"") ', ""))
    grants = Grants(frozenset({"ask", "permit", "gone"}), None, None, "a-1")
    assert drive(plain, high, grants).reason_code == "forbidden"
    granted = replace(grants, action_hash=drive(bundle_of(PERMIT + ASK), high).action_hash)
    assert drive(bundle_of(PERMIT + ASK), high, granted).verdict == "allow"


@pytest.mark.parametrize(
    ("changes", "stage", "code"),
    [
        ({"scopes": ()}, "request", "scope_missing"),
        ({"tool": "delete_all"}, "request", "action_undeclared"),
        ({"args": {"order_id": "o-1", "amount_cents": 5.5}}, "request", "projection_failed"),
        ({"args": {"order_id": "o-1", "amount_cents": 2**63}}, "request", "args_invalid"),
        ({"args": {"order_id": "o-1", "amount_cents": 2**70}}, "request", "args_invalid"),
        ({"args": {"order_id": "o-1", "amount_cents": True}}, "request", "projection_failed"),
        ({"args": {"order_id": None, "amount_cents": 1}}, "request", "resource_unresolved"),
        ({"args": {"order_id": "o-1"}}, "request", "projection_failed"),
        ({"args": {"order_id": "o-1", "amount_cents": 1, "x": 1}}, "request", "projection_failed"),
        ({"principal": EntityUid("Order", "o")}, "request", "cedar_no_decision"),
    ],
)
def test_what_is_no_request_is_blocked_by_request(changes: dict[str, Any], stage: str, code: str) -> None:
    decision = drive(bundle_of(PERMIT), request_of(**changes))
    assert (decision.verdict, decision.decided_by, decision.reason_code) == ("block", stage, code)
    assert decision.enforced_args is None


def test_a_null_member_is_absent() -> None:
    text = PERMIT + '@id("n") forbid(principal, action, resource) when { context.args has note };'
    args = {"order_id": "o-1", "amount_cents": 1, "note": None}
    assert drive(bundle_of(text), request_of(args=args)).verdict == "allow"
    assert drive(bundle_of(text), request_of(args=args | {"note": "x"})).verdict == "block"


def test_a_spent_budget_blocks_by_limits() -> None:
    limits = '[[budget]]\nname = "few"\nmax = 2\n'
    bundle = bundle_of(PERMIT, limits=limits)
    assert drive(bundle, request_of(session_state={"calls": 1})).verdict == "allow"
    decision = drive(bundle, request_of(session_state={"calls": 2}))
    assert (decision.verdict, decision.decided_by, decision.reason_code) == (
        "block",
        "limits",
        "budget_spent",
    )
    assert decision.first.inputs["limits"] == {"calls": 2}


def test_a_failing_source_blocks_by_context() -> None:
    def broken(_: dict[str, Any]) -> Any:
        raise RuntimeError("down")

    decision = drive(bundle_of(PERMIT), request_of(), source=broken)
    assert (decision.decided_by, decision.reason_code) == ("context", "source_failed")


def test_a_fact_of_another_tenant_blocks_by_tenant() -> None:
    decision = drive(
        bundle_of(PERMIT),
        request_of(),
        source=lambda _: {"refundable_cents": 1, "owner": "x", "tenant": "evil"},
    )
    assert (decision.verdict, decision.decided_by, decision.reason_code) == (
        "block",
        "tenant",
        "tenant_crossing",
    )


def test_every_code_is_in_the_vocabulary_and_the_rule_is_total() -> None:
    rulings = {rule(Flags(*bits)) for bits in product((False, True), repeat=6)}
    assert {ruling.code for ruling in rulings} <= set(REASONS)
    # Fail closed: nothing but a decided, permitted request without errors or plain forbids may run.
    for bits in product((False, True), repeat=6):
        flags = Flags(*bits)
        safe = flags.decided and flags.permitted and not flags.forbid_error and not flags.plain_forbid
        assert (rule(flags).verdict != "block") == safe


def test_action_hash_binds_arguments_principal_and_policy() -> None:
    bundle, other = bundle_of(PERMIT), bundle_of(PERMIT + "// changed\n")
    base = drive(bundle, request_of()).action_hash
    assert base == drive(bundle, request_of(decision_id="e", session_id="t")).action_hash
    changed = [
        drive(bundle, request_of(args={"order_id": "o-1", "amount_cents": 501})),
        drive(bundle, request_of(principal=EntityUid("Agent", "bob"))),
        drive(bundle, request_of(tenant="other")),
        drive(other, request_of()),
    ]
    assert base not in [decision.action_hash for decision in changed]


def test_errors_nobody_can_attribute_are_refused() -> None:
    with pytest.raises(ValueError, match="names no policy"):
        faults(["something went wrong"], ["p"])
    assert faults(["error while evaluating policy `a`: b`: x"], ["a", "a`: b"])[0].policy == "a`: b"
