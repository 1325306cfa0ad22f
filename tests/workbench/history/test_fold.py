"""The fold over columns says what the row engine says; what it does not take is handed over with a reason.

Every row that `folding` folds is held against `runtime.policy.decide`, driven by `cedarpy`, in all its columns.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from workbench.history.fold import fold

ASK = (
    '@id("ask") @verdict("approve") @approvers("Team::\\"finance\\"") forbid (principal, action, resource) '
    "when { context.args.amount > 50 };\n"
)


def test_what_is_not_modified_is_ruled_at_once(folding: Any) -> None:
    no = '@id("no") forbid (principal, action, resource) when { context.args.amount > 500 };\n'
    found = folding(ASK + no)({"amount": 1}, {"amount": 51}, {"amount": 501})
    assert [row["verdict"] for row in found] == ["allow", "approve", "block"]
    assert [row["enforced_args"] is None for row in found] == [False, False, True]


def test_a_patched_request_runs_with_its_new_arguments(folding: Any, modify: Any) -> None:
    cut = modify("cut", {"amount": 10}, "context.args.amount > 10")
    found = folding(cut)({"amount": 5}, {"amount": 11}, {"amount": 12})
    assert [row["verdict"] for row in found] == ["allow", "modify", "modify"]
    assert found[1]["enforced_args"] == '{"amount":10,"box":{},"order_id":"o1"}'
    assert found[1]["enforced_determining"] == ["permit"]
    assert found[1]["determining"] == ["cut"]


def test_a_patched_request_may_need_approval(folding: Any, modify: Any) -> None:
    (row,) = folding(ASK + modify("cut", {"amount": 60}, "context.args.amount > 70"))({"amount": 100})
    assert (row["verdict"], row["reason_code"], row["determining"]) == (
        "approve",
        "approval_required",
        ["ask"],
    )
    assert row["enforced_args"] == '{"amount":60,"box":{},"order_id":"o1"}'


def test_a_permit_must_hold_before_and_after(folding: Any, modify: Any) -> None:
    permit = '@id("permit") permit (principal, action, resource) when { context.args.amount > 20 };\n'
    cut = modify("cut", {"amount": 10}, "context.args.amount < 30 || context.args.amount > 100")
    found = folding(permit + cut)({"amount": 5}, {"amount": 25}, {"amount": 50})
    assert [row["reason_code"] for row in found] == ["not_permitted", "patch_insufficient", "permitted"]


def test_a_second_modify_is_not_applied(folding: Any, modify: Any) -> None:
    cut = modify("cut", {"amount": 50}, "context.args.amount > 20")
    (row,) = folding(cut)({"amount": 100})
    assert (row["verdict"], row["reason_code"]) == ("block", "patch_insufficient")
    assert row["enforced_determining"] == ["cut"]


def test_errors_of_both_evaluations_are_kept(folding: Any, modify: Any) -> None:
    overflow = "context.args.amount {} && context.args.amount + 9223372036854775807 > 0"
    errs = "".join(
        f'@id("{name}") permit (principal, action, resource) when {{ {overflow.format(when)} }};\n'
        for name, when in (("late", "== 10"), ("early", "> 10"), ("both", "> 0"))
    )
    permit = '@id("permit") permit (principal, action, resource);\n'
    (row,) = folding(permit + errs + modify("cut", {"amount": 10}, "context.args.amount > 10"))(
        {"amount": 20}
    )
    assert (row["verdict"], row["errors"]) == ("modify", ["both", "early", "late"])


def test_a_forbid_that_errs_blocks_before_and_after(folding: Any, modify: Any) -> None:
    errs = (
        '@id("err") forbid (principal, action, resource) '
        "when { context.args.amount != 20 && context.args.amount + 9223372036854775807 < 0 };\n"
    )
    found = folding(errs + modify("cut", {"amount": 10}, "context.args.amount > 10"))(
        {"amount": 20}, {"amount": 30}
    )
    assert [row["reason_code"] for row in found] == ["patch_insufficient", "policy_error"]
    assert found[0]["reason"].endswith("forbid `err` could not be evaluated")


def test_a_result_that_projection_refuses_is_an_invalid_patch(folding: Any, modify: Any) -> None:
    found = folding(
        modify("gone", {"amount": None}, "context.args.amount > 10")
        + modify("text", {"amount": "many"}, "context.args.amount < 0")
    )({"amount": 20}, {"amount": -1}, {"amount": 5})
    assert [row["reason_code"] for row in found] == ["patch_invalid", "patch_invalid", "permitted"]
    assert "after the patch of `gone`: `context.args.amount` is required" in found[0]["reason"]


def test_many_rows_of_many_combinations_keep_their_order(folding: Any, modify: Any) -> None:
    policies = (
        ASK
        + modify("cut", {"amount": {"$ref": "context.order.refundable"}}, "context.args.amount > 90")
        + modify("note", {"note": None}, "context.args has note")
        + modify(
            "say", {"opts": {"label": "slow"}}, "context.args has opts && !(context.args.opts has label)"
        )
    )
    notes: list[dict[str, Any]] = [{}, {"note": "x"}, {"opts": {}}, {"opts": {"label": "z"}, "note": "y"}]
    rows = [{"order_id": f"o{i % 4 + 1}", "amount": i * 7 % 130, **notes[i % 3]} for i in range(200)]
    found = folding(policies)(*rows)
    assert {row["verdict"] for row in found} == {"allow", "modify", "approve", "block"}
    assert {row["status"] for row in found} == {"decided"}


def test_new_arguments_that_are_not_decided_here_are_handed_over(folding: Any, modify: Any) -> None:
    made = folding(modify("cut", {"amount": 10}, "context.args.amount > 10"))
    made({"amount": 11}, {"amount": 1}, {"amount": 12})
    again = made.group.again

    def lost(rows: pl.Series, leaves: Any) -> Any:
        masks, bad = again(rows, leaves)
        stranger = pl.DataFrame({"row": [1], "reason": ["an entity nobody knows"]}, schema=bad.schema)
        return masks, pl.concat([bad, stranger])

    made.group.again = lost
    found = fold(made.group)
    assert found["status"].to_list() == ["decided", "decided", "handed_over"]
    assert found["why"].to_list() == [None, None, "an entity nobody knows"]
    assert found["enforced_args"].is_null().to_list() == [False, False, True]


def test_no_rows_give_no_rows(folding: Any) -> None:
    assert folding(ASK)() == []
