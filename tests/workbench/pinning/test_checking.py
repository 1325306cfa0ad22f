"""Pins by hand: what is compared, what is undecided, grants, facts of a patched request, files that are wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import Blocked
from runtime.bundle import Bundle, bundle_from_files
from tests.workbench.test_replay_resumed import POLICIES, Story
from tests.workbench.test_replay_resumed import SCHEMA as PAY
from workbench.errors import PinInvalid
from workbench.pinning import pinned
from workbench.pinning.checking import check
from workbench.pinning.making import pin
from workbench.pinning.pins import Pinned, pin_files, read_pin

if TYPE_CHECKING:
    from workbench.lake import Lake

SCHEMA = """
entity Group;
entity User in [Group] { level?: Long };
entity Doc { owner?: User, state?: String, size?: Long };
action "read" appliesTo { principal: [User], resource: [Doc], context: {
  args: { id: String, @scaled("price*100") price_cents?: Long, note?: String, flag: Bool }, customer?: { tier: String } } };
"""
MAY = '@id("may") permit (principal, action, resource);\n'


def bundle(*policies: str, schema: str = SCHEMA, **files: str) -> Bundle:
    text = MAY + "".join(f'@id("p{n}") {policy}\n' for n, policy in enumerate(policies))
    return bundle_from_files({"a.cedar": text, "schema.cedarschema": schema, **files}, "by-hand")


def example(**changed: Any) -> dict[str, Any]:
    """Return a pin as its file has it."""
    return {
        "redecide_pin": 1,
        "decision_id": "d-1",
        "expected": {"verdict": "allow"},
        "request": {
            "tool": "read", "principal": 'User::"user-1"', "tenant": "tenant-1", "resource": "Doc::{id}",
            "args": {"id": "id-1", "flag": False}, "at": "2026-11-01T00:00:00Z", "session": {"calls": 0},
        },
        "facts": {
            "doc": {"status": "found", "into": "resource", "source": "docs", "kind": "delta",
                    "value": {"owner": "user-1", "size": 5}},
        },
        "hidden": {
            "left_out": ["context.customer", "resource.state", "context.args.price"],
            "blanked": ["context.args.flag"],
            "replaced": ["principal.id", "resource.id", "context.args.id", "context.tenant", "resource.owner"],
        },
        "recorded": {"verdict": "allow", "stage": "policy", "reason_code": "permitted", "bundle": "b",
                     "version": "v", "policy_hash": "p", "spec_hash": "s"},
    } | changed  # fmt: skip


def of(**changed: Any) -> pinned.PinFile:
    return pinned.read(json.dumps(example(**changed)))


def outcome(*policies: str, **changed: Any) -> str:
    return check(of(**changed), bundle(*policies)).outcome


FORBID = "forbid (principal, action, resource) when {{ {} }};"


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        # What the pin holds decides.
        ("resource has size && resource.size > 4", "failed"),
        ("resource has size && resource.size > 5", "passed"),
        ("context.session.calls > 0", "passed"),
        # What was left out is neither absent nor present.
        ("resource has state", "undecided"),
        ('resource has state && resource.state == "x"', "undecided"),
        ("!(resource has state)", "undecided"),
        ("context has customer", "undecided"),
        ("resource has state || true", "failed"),
        ("resource has state && false", "passed"),
        # A scaled integer of what was left out is left out, too.
        ("context.args has price_cents", "undecided"),
        # What was not asked for when it was recorded.
        ("principal has level && principal.level > 3", "undecided"),
        ('principal in Group::"x"', "undecided"),
        # A blanked value is no value.
        ("context.args.flag", "undecided"),
        # A placeholder is compared with other placeholders, and with no literal.
        ('context.tenant == "tenant-1"', "undecided"),
        ('context.tenant == "other"', "undecided"),
        ('context.tenant like "*"', "undecided"),
        ('principal == User::"user-1"', "undecided"),
        ('resource has owner && resource.owner == User::"user-1"', "undecided"),
        ('["tenant-1", "b"].contains(context.tenant)', "undecided"),
        ("context.args.id == context.tenant", "passed"),
        ('context.args.id == "id-1" && false', "passed"),
        ('context.args.id == "a" || true', "failed"),
    ],
)  # fmt: skip
def test_missing_is_not_false(condition: str, expected: str) -> None:
    assert outcome(FORBID.format(condition)) == expected


def test_placeholders_are_compared_with_each_other() -> None:
    user = {"status": "found", "into": "principal", "source": "users", "kind": "sql", "value": {"level": 1}}
    facts = example()["facts"] | {"user": user}
    condition = "resource has owner && resource.owner == principal"
    assert outcome(FORBID.format(condition), facts=facts) == "failed"
    facts["doc"] = facts["doc"] | {"value": {"owner": "user-2"}}
    assert outcome(FORBID.format(condition), facts=facts) == "passed"


def test_scopes_that_name_somebody_are_open() -> None:
    assert outcome('forbid (principal == User::"user-1", action, resource);') == "undecided"
    assert outcome('forbid (principal, action, resource == Doc::"x");') == "undecided"
    assert outcome('forbid (principal == User::"user-1", action, resource) when { false };') == "passed"


def test_a_clause_that_was_checked_is_known() -> None:
    told = example()["hidden"] | {"settled": ['context.tenant == "acme"']}
    assert outcome(FORBID.format('context.tenant == "acme"'), hidden=told) == "passed"
    assert outcome(FORBID.format('context.tenant == "acme" && true'), hidden=told) == "passed"
    assert outcome(FORBID.format('context.tenant == "acmes"'), hidden=told) == "undecided"


def test_a_cut_text_is_equal_to_no_other() -> None:
    hidden = example()["hidden"] | {"cut": ["context.args.note"]}
    asked = example()["request"]
    asked["args"]["note"] = ""
    condition = FORBID.format("context.args has note && context.args.note == context.args.id")
    assert outcome(condition, hidden=hidden, request=asked) == "undecided"
    assert (
        outcome(FORBID.format("context.args.id == context.tenant"), hidden=hidden, request=asked) == "passed"
    )


def test_a_budget_over_an_argument_that_was_left_out_is_open() -> None:
    limits = 'version = 2\n[[budget]]\nname = "spent"\nmeasure = "args.price_cents"\nmax = 100\n'
    told = check(of(), bundle(**{"limits.toml": limits}))
    assert told.outcome == "undecided"
    assert any("limits.args.price_cents" in each for each in told.missing)


def test_a_schema_that_asks_for_what_was_left_out_says_nothing_of_the_policies() -> None:
    asks = SCHEMA.replace("note?: String", "note: String")
    hidden = example()["hidden"] | {"left_out": ["context.args.note"]}
    told = check(of(hidden=hidden), bundle(schema=asks))
    assert told.outcome == "undecided"
    assert "cannot take the request as it is pinned" in told.message
    assert told.missing[0] == "context.args.note"


def test_a_tool_that_is_gone_fails() -> None:
    told = check(of(), bundle(schema=SCHEMA.replace('"read"', '"write"')))
    assert (told.outcome, told.verdict) == ("failed", "block")
    assert "declares no action" in told.message


BLOCK = "forbid (principal, action, resource) when { resource has size && resource.size > 4 };"
ASK = '@verdict("approve") forbid (principal, action, resource) when { context.session.calls >= 0 };'


@pytest.mark.parametrize(
    ("expected", "policies", "found"),
    [
        ({"verdict": "block", "determining": ["p0"]}, (BLOCK,), "passed"),
        ({"verdict": "block", "determining": ["p0"]}, (BLOCK, BLOCK), "passed"),
        ({"verdict": "block", "determining": ["gone"]}, (BLOCK,), "failed"),
        ({"verdict": "block"}, (BLOCK,), "passed"),
        ({"verdict": "block", "stage": "limits"}, (BLOCK,), "failed"),
        ({"verdict": "approve", "determining": ["p0"]}, (ASK,), "passed"),
        ({"verdict": "approve", "determining": ["p0"]}, (ASK, ASK), "failed"),
        ({"verdict": "allow", "determining": ["another"]}, (), "passed"),
        ({"verdict": "modify"}, (), "failed"),
    ],
)  # fmt: skip
def test_what_is_compared(expected: dict[str, Any], policies: tuple[str, ...], found: str) -> None:
    assert outcome(*policies, expected=expected) == found


def test_the_change_of_a_modify_is_compared() -> None:
    change = '@verdict("modify") @patch("{\\"note\\": \\"x\\"}") forbid (principal, action, resource) unless { context.args has note && context.args.note == "x" };'
    assert outcome(change, expected={"verdict": "modify", "change": {"note": "x"}}) == "passed"
    assert outcome(change, expected={"verdict": "modify", "change": {"note": "y"}}) == "failed"
    assert outcome(change, expected={"verdict": "modify"}) == "passed"


def test_hostile_texts_are_shown_and_escaped() -> None:
    asked = example()["request"] | {"principal": json.dumps("\u202e<b>")}
    asked["principal"] = f"User::{asked['principal']}"
    told = check(of(request=asked), bundle(BLOCK))
    assert "\u202e" not in told.message
    assert "<b>" not in told._repr_html_()
    assert "\u202e" not in repr(told)


# Grants


@pytest.fixture(scope="module")
def granted(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    story = Story(tmp_path_factory.mktemp("granted"))
    ident = story.ask(500, note="for ana")
    story.grant(ident)
    story.session().resume(ident)
    with pytest.raises(Blocked):
        story.session().resume(ident)  # it is used up
    return story.told()


def pays(policies: str = POLICIES) -> Bundle:
    return bundle_from_files({"p.cedar": policies, "schema.cedarschema": PAY}, "pays")


def test_a_resumed_call_has_its_grants_in_its_own_values(granted: Lake) -> None:
    rows = granted.history.filter(kind="resumed").select("decision_id", "verdict").collect()
    (ident,) = rows.filter(verdict="allow")["decision_id"]
    each = pin(granted, ident)
    assert each.file.grants is not None
    assert each.file.grants.lifted == ["large"]
    assert each.file.request.principal == 'Agent::"agent-1"'
    assert "note" not in each.file.request.args
    assert "context.approval.approvers" in each.file.clear  # a policy compares them with a name
    assert each.check(pays()).passed
    # What people granted is this action, and the policy that asked: nothing else is.
    assert each.check(pays(POLICIES.replace('@id("large")', '@id("bigger")'))).verdict == "approve"
    other = replace(each.file.request, args=each.file.request.args | {"cents": 502})
    assert check(replace(each.file, request=other), pays()).verdict == "block"
    (used,) = rows.filter(verdict="block")["decision_id"]
    again = pin(granted, used)
    assert (again.file.expected.stage, again.file.recorded.reason_code) == ("approval", "grant_consumed")
    assert again.check(pays()).passed


# Files


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[]", "no pinned decision"),
        ('{"a": 1, "a": 2}', "same member twice|not JSON"),
        (json.dumps(example(redecide_pin=2)), "a pin of version 2; this release reads version 1"),
        (json.dumps(example(expect={})), "no key `expect`; did you mean `expected`"),
        (json.dumps(example(expected={"verdikt": "allow"})), "no key `expected.verdikt`; did you mean `verdict`"),
        (json.dumps(example(expected={"verdict": "maybe"})), r"Invalid enum value 'maybe' - at `\$.expected.verdict`"),
        (json.dumps(example(facts={"doc": {"statsu": "found"}})), "did you mean `status`"),
        (json.dumps(example(request=example()["request"] | {"principal": "bot"})), "entity uid"),
        (json.dumps(example(request=example()["request"] | {"at": "2026-11-01T00:00:00"})), "zone"),
        (json.dumps(example(request=example()["request"] | {"resource": "Doc"})), "resource template"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_names_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    place = tmp_path / "a.pin.json"
    place.write_text(text)
    with pytest.raises(PinInvalid, match=said) as raised:
        read_pin(place)
    assert str(place) in str(raised.value)


def test_a_file_is_written_whole_and_found_again(tmp_path: Path) -> None:
    each = Pinned(of(note="why"))
    place = each.write(tmp_path)
    assert place.name == "d-1.pin.json"
    assert read_pin(place).file == each.file
    assert pin_files(tmp_path) == [place] == pin_files(place)
    assert [file.name for file in tmp_path.iterdir()] == [place.name]
    with pytest.raises(PinInvalid, match="no pins at"):
        pin_files(tmp_path / "nothing")


_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(_TEXT, _JSON, max_size=4), st.lists(_TEXT, max_size=3), _TEXT)
def test_whatever_a_pin_holds_reads_back(args: dict[str, Any], names: list[str], note: str) -> None:
    file = of()
    changed = replace(
        file,
        note=note,
        request=replace(file.request, args=args),
        hidden=replace(file.hidden, cut=names),
        clauses={"p": {"b": "true", "a": "false"}},
    )
    text = pinned.text_of(changed)
    assert pinned.read(text) == changed
    assert text.isascii()
    assert list(pinned.read(text).clauses["p"]) == ["b", "a"]
