from __future__ import annotations

import pytest

from workbench.errors import TuningRefused
from workbench.shipped import shipped
from workbench.tuning.drafts import MAX_PROBLEMS, Draft, draft_of

FILES = {path.name: path.read_text() for path in shipped("support-desk/candidate").iterdir()}
ORDERS = FILES["orders.cedar"]


def edited(text: str) -> Draft:
    return draft_of(FILES, "desk").edited("orders.cedar", text)


def test_texts_that_load_are_the_bundle_they_say() -> None:
    draft = edited(ORDERS.replace("540d", "10d"))
    assert draft.problems == ()
    assert draft.bundle is not None
    assert draft.bundle.files["orders.cedar"] == draft.files["orders.cedar"]


@pytest.mark.parametrize(
    ("piece", "other", "policy", "says"),
    [
        ("context.scopes.contains", "context.scopes.contain", "refund-scope", "contain"),
        ("resource.status ==", "resource.stat ==", "frozen-order", "stat"),
        ('"refund-window"', '"refund-scope"', "refund-scope", "taken by orders.cedar"),
        ("@approvers", "@aprovers", "refund-large", "aprovers"),
        ('\\"value\\": 5000', '\\"value\\": 5001', "refund-large", "5001"),
    ],
)
def test_a_problem_is_told_at_its_line_with_its_policy(
    piece: str, other: str, policy: str, says: str
) -> None:
    text = ORDERS.replace(piece, other, 1)
    (problem,) = edited(text).problems
    assert (problem.file, problem.policy) == ("orders.cedar", policy)
    assert says in problem.message
    assert not problem.message.startswith(("orders.cedar", "policy"))
    at = ORDERS.index(piece)
    first = ORDERS.rindex("@id", 0, at + 1) if "@id" in ORDERS[:at] else 0
    assert ORDERS.count("\n", 0, first) < problem.line <= ORDERS.count("\n", 0, at) + 1
    assert str(problem).startswith(f"orders.cedar:{problem.line}: policy `{policy}`: ")


def test_several_problems_are_told_in_the_order_of_the_text() -> None:
    text = ORDERS.replace("forbid (", "forbd (").replace("permit (", "prmit (")
    problems = edited(text).problems
    assert len(problems) == MAX_PROBLEMS
    assert [each.line for each in problems] == sorted({each.line for each in problems})
    assert [text.split("\n")[each.line - 1].split(" (")[0] for each in problems] == [
        "prmit", "prmit", "forbd", "forbd", "forbd",
    ]  # fmt: skip


def test_a_problem_of_one_file_does_not_hide_that_of_another() -> None:
    draft = edited(ORDERS.replace("permit (", "prmit (", 1))
    draft = draft.edited("tickets.cedar", draft.files["tickets.cedar"].replace("permit (", "prmit (", 1))
    assert {each.file for each in draft.problems} == {"orders.cedar", "tickets.cedar"}


def test_what_is_wrong_only_because_a_policy_is_gone_is_not_told() -> None:
    files = {
        "schema.cedarschema": FILES["schema.cedarschema"],
        "one.cedar": "prmit (principal, action, resource);",
    }
    (problem,) = draft_of(files, "one").problems
    assert "prmit" in problem.message


def test_an_empty_text_is_a_problem_of_the_bundle() -> None:
    files = {**FILES, "orders.cedar": "", "tickets.cedar": ""}
    (problem,) = draft_of(files, "none").problems
    assert (problem.file, problem.line) == ("", 0)


def test_other_line_ends_are_the_same_version() -> None:
    one, other = edited(ORDERS.replace("\n", "\r\n")).bundle, draft_of(FILES, "desk").bundle
    assert one is not None
    assert one == other


def test_only_policies_are_edited() -> None:
    draft = draft_of(FILES, "desk")
    assert draft.editable == ("orders.cedar", "tickets.cedar")
    for name in ("schema.cedarschema", "../orders.cedar", "new.cedar"):
        with pytest.raises(TuningRefused, match=r"the policies are in orders\.cedar, tickets\.cedar"):
            draft.edited(name, "")
