"""What each mistake in a policy file is told: file, line, policy, and the way out."""

from __future__ import annotations

import pytest

from runtime.bundle import bundle_from_files
from runtime.errors import BundleError, PolicyError, PolicySchemaError, PolicySyntaxError

SCHEMA = """\
entity Agent in [Role];
entity Role;
entity Account { owner?: String };
action pay, read appliesTo {
  principal: [Agent], resource: [Account],
  context: { args: { amount: decimal }, payee?: { trusted: Bool } }
};
"""
OK = '@id("ok")\npermit (principal, action, resource);\n'
FORBID = "\nforbid (principal, action, resource);"
PERMIT = "\npermit (principal, action, resource);"


def annotated(*lines: str, effect: str = FORBID) -> str:
    """A good policy, and on line 4 one with these annotations."""
    return OK + '\n@id("bad")\n' + "\n".join(lines) + effect


# name: (text of the one policy file, error, line, policy, part of the message)
MISTAKES: dict[str, tuple[str, type[BundleError], int, str | None, str]] = {
    "syntax": (
        OK + "permit (principal,\n action resource);",
        PolicySyntaxError,
        4,
        None,
        "unexpected token `resource`",
    ),
    "syntax in a policy with an id": (
        OK + '@id("bad")\npermit (principal, action, resource)\nwhen {\n  foo\n};',
        PolicySyntaxError,
        6,
        "bad",
        "foo",
    ),
    "effect": (OK + '@id("bad")\nallow (principal, action, resource);', PolicySyntaxError, 4, "bad", "allow"),
    "no semicolon": (
        OK + "permit (principal, action, resource)",
        PolicySyntaxError,
        3,
        None,
        "ends with `;`",
    ),
    "open string": (
        OK + 'permit (principal, action,\nresource == A::"x);',
        PolicySyntaxError,
        4,
        None,
        "invalid token",
    ),
    "doubled annotation": (
        OK + '@id("bad")\n@doc("a")\n@doc("b")' + PERMIT,
        PolicySyntaxError,
        4,
        "bad",
        "doc",
    ),
    "missing id": (OK + PERMIT, PolicyError, 4, None, 'write `@id("'),
    "empty id": (OK + '\n@id("")' + PERMIT, PolicyError, 4, None, 'write `@id("'),
    "doubled id": (OK + OK, PolicyError, 3, "ok", "taken by p.cedar:1"),
    "misspelt annotation": (annotated('@aprovers("x")'), PolicyError, 4, "bad", "did you mean `@approvers`?"),
    "annotation in capitals": (
        annotated('@Verdict("approve")'),
        PolicyError,
        4,
        "bad",
        "did you mean `@verdict`?",
    ),
    "verdict": (
        annotated('@verdict("deny")'),
        PolicyError,
        4,
        "bad",
        'must be "approve" or "modify", got \'deny\'',
    ),
    "verdict on a permit": (
        annotated('@verdict("approve")', effect=PERMIT),
        PolicyError,
        4,
        "bad",
        "only a forbid",
    ),
    "patch on a permit": (
        annotated('@patch("{}")', effect=PERMIT),
        PolicyError,
        4,
        "bad",
        "`@patch` stands on a permit",
    ),
    "approvers on a permit": (
        annotated('@approvers("R::\\"x\\"")', effect=PERMIT),
        PolicyError,
        4,
        "bad",
        "`@approvers` stands on a permit",
    ),
    "modify without patch": (annotated('@verdict("modify")'), PolicyError, 4, "bad", "needs a `@patch`"),
    "patch without modify": (
        annotated('@patch("{}")'),
        PolicyError,
        4,
        "bad",
        'without `@verdict("modify")`',
    ),
    "patch with approve": (
        annotated('@verdict("approve")', '@patch("{}")'),
        PolicyError,
        4,
        "bad",
        'without `@verdict("modify")`',
    ),
    "patch that is no JSON": (
        annotated('@verdict("modify")', '@patch("{")'),
        PolicyError,
        4,
        "bad",
        "is not JSON",
    ),
    "patch with NaN": (
        annotated('@verdict("modify")', '@patch("{\\"a\\": NaN}")'),
        PolicyError,
        4,
        "bad",
        "`NaN` is no JSON number",
    ),
    "patch with a doubled member": (
        annotated('@verdict("modify")', '@patch("{\\"a\\": 1, \\"a\\": 2}")'),
        PolicyError,
        4,
        "bad",
        "same member twice",
    ),
    "patch that is a list": (
        annotated('@verdict("modify")', '@patch("[1]")'),
        PolicyError,
        4,
        "bad",
        "must be a JSON object",
    ),
    "patch that is a reference": (
        annotated('@verdict("modify")', '@patch("{\\"$ref\\": \\"context.x\\"}")'),
        PolicyError,
        4,
        "bad",
        "JSON object",
    ),
    "reference without a root": (
        annotated('@verdict("modify")', '@patch("{\\"a\\": [{\\"$ref\\": \\"args.x\\"}]}")'),
        PolicyError,
        4,
        "bad",
        "rooted in `context.`, `resource.` or `principal.`",
    ),
    "reference to a root": (
        annotated('@verdict("modify")', '@patch("{\\"a\\": {\\"$ref\\": \\"context\\"}}")'),
        PolicyError,
        4,
        "bad",
        "rooted",
    ),
    "reference that is no text": (
        annotated('@verdict("modify")', '@patch("{\\"a\\": {\\"$ref\\": 5}}")'),
        PolicyError,
        4,
        "bad",
        "rooted",
    ),
    "approvers without approve": (
        annotated('@approvers("Role::\\"x\\"")'),
        PolicyError,
        4,
        "bad",
        'without `@verdict("approve")`',
    ),
    "approvers that are no uid": (
        annotated('@verdict("approve")', '@approvers("finance")'),
        PolicyError,
        4,
        "bad",
        "'finance' is no entity uid",
    ),
    "approvers with a comma too many": (
        annotated('@verdict("approve")', '@approvers("Role::\\"x\\",")'),
        PolicyError,
        4,
        "bad",
        "separated by commas",
    ),
    "undeclared attribute": (
        OK + '@id("bad") permit (principal, action, resource)\nwhen {\n  context.zip\n};',
        PolicySchemaError,
        5,
        "bad",
        "attribute `zip`",
    ),
    "unguarded optional attribute": (
        OK + '@id("bad") permit (principal, action, resource)\nwhen { context.payee.trusted };',
        PolicySchemaError,
        4,
        "bad",
        "ask first: `context has x",
    ),
    "unknown action": (
        OK + '@id("bad")\npermit (principal,\n  action == Action::"py", resource);',
        PolicySchemaError,
        5,
        "bad",
        "py",
    ),
    "unlinked template that does not validate": (
        OK + '@id("bad")\npermit (principal in ?principal, action, resource)\nwhen { principal.x };',
        PolicySchemaError,
        5,
        "bad",
        "attribute `x`",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_file_line_policy_and_way_out(name: str) -> None:
    text, error, line, policy, hint = MISTAKES[name]
    with pytest.raises(error) as caught:
        bundle_from_files({"p.cedar": text, "schema.cedarschema": SCHEMA}, "b")
    assert type(caught.value) is error
    assert (caught.value.file, caught.value.line, caught.value.policy) == ("p.cedar", line, policy)
    assert hint in str(caught.value)
    assert str(caught.value).startswith(f"p.cedar:{line}: " + (f"policy `{policy}`: " if policy else ""))
    assert not str(caught.value).endswith(".")


def test_annotations_of_ones_own_are_allowed() -> None:
    kept = ('@note("x")', '@title("x")', '@reason("x")', '@jira("ABC-1")', '@owner("t")', '@severity("high")')
    text = OK + '@id("own")\n' + "\n".join(kept) + FORBID
    loaded = bundle_from_files({"p.cedar": text, "schema.cedarschema": SCHEMA}, "b")
    assert len(loaded.policies["own"].annotations) == 7


def test_a_doubled_id_names_both_places_across_files() -> None:
    with pytest.raises(PolicyError, match=r"^b\.cedar:3: policy `ok`: .*a\.cedar:1"):
        bundle_from_files({"b.cedar": "\n\n" + OK, "a.cedar": OK, "schema.cedarschema": SCHEMA}, "b")


def test_an_attribute_that_no_fact_can_promise_is_refused_at_load() -> None:
    schema = "entity A = { level: Long }; entity R; action x appliesTo { principal: [A], resource: [R], context: {} };"
    files = {"p.cedar": '@id("p") permit(principal, action, resource);', "schema.cedarschema": schema}
    with pytest.raises(PolicySchemaError, match=r"`A` requires attribute `level`.*declare `level\?:`"):
        bundle_from_files(files, "b")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('[[budget]]\nname = "b"\nmax = 3\nactions = ["sned"]', 4, "action 'sned' is not declared"),
        ('[[budget]]\nname = "b"\nmax = 3\nactions = []', 4, "must name tools, or be left out"),
        ('version = 1\n[[budget]]\nname = "b"\nmaxx = 3', 4, "unknown key `maxx`, did you mean `max`"),
        ('version = 1\n[[budget]]\nname = "b"', 2, "`max` must be an integer of 0 or more, it is missing"),
        ("[[budget]]\nmax = 3", 1, 'needs `name = "…"`'),
        ("version = 1\n[[budget", 2, "not valid TOML"),
        ("version = 3", 1, "`version` must be 1 or 2, got 3"),
    ],
)
def test_a_limit_that_would_never_hold_is_refused_at_its_line(text: str, line: int, message: str) -> None:
    schema = "entity A; action act appliesTo { principal: [A], resource: [A] };"
    policy = '@id("p") permit(principal, action, resource);'
    files = {"schema.cedarschema": schema, "p.cedar": policy, "limits.toml": text}
    with pytest.raises(BundleError) as caught:
        bundle_from_files(files, "b")
    assert message in str(caught.value)
    assert (caught.value.file, caught.value.line) == ("limits.toml", line)


def test_a_link_with_a_member_twice_is_refused_not_read_as_the_last() -> None:
    schema = "entity A; action act appliesTo { principal: [A], resource: [A] };"
    policy = '@id("t") permit(principal == ?principal, action, resource);'
    link = (
        '[{"template": "t", "id": "l", "values": {"?principal": "A::\\"x\\"", "?principal": "A::\\"y\\""}}]'
    )
    with pytest.raises(BundleError, match="same member twice"):
        bundle_from_files({"schema.cedarschema": schema, "p.cedar": policy, "links.json": link}, "b")


def test_what_loads_can_decide_so_conditions_that_the_engine_cannot_read_are_refused_by_line() -> None:
    """Cedar's parser takes deeper conditions than the engine's reader: found in the tuner, with 60 nested ifs."""
    schema = (
        'entity A; entity B; action "x" appliesTo { principal: [A], resource: [B], context: { args: {} } };'
    )
    texts = {"schema.cedarschema": schema}

    def nested(depth: int) -> str:
        condition = "true"
        for _ in range(depth):
            condition = f"if principal == resource then {condition} else false"
        return (
            '@id("fine")\npermit (principal, action, resource);\n'
            f'@id("deep")\nforbid (principal, action, resource) when {{ {condition} }};\n'
        )

    assert bundle_from_files({**texts, "p.cedar": nested(20)}, "b").policy_set is not None
    with pytest.raises(PolicyError, match="nested too deep for Cedar's engine") as refused:
        bundle_from_files({**texts, "p.cedar": nested(70)}, "b")
    assert (refused.value.file, refused.value.line, refused.value.policy) == ("p.cedar", 3, "deep")


@pytest.mark.parametrize("opening", ["(", "[", "!(", "principal.contains("])
def test_brackets_that_would_end_the_process_are_refused(opening: str) -> None:
    """cedarpy 4.12 runs out of stack, and the process with it, at some 800 of them."""
    closing = {"(": ")", "[": "]"}[opening[-1]]
    deep = opening * 2000 + "true" + closing * 2000
    texts = {
        "schema.cedarschema": "entity A;",
        "p.cedar": f'@id("fine") permit (principal, action, resource);\n@id("deep") forbid (principal, action, resource)\nwhen {{ {deep} }};\n',
    }
    with pytest.raises(PolicySyntaxError, match="nested more than 150 deep") as refused:
        bundle_from_files(texts, "b")
    assert (refused.value.file, refused.value.line, refused.value.policy) == ("p.cedar", 2, "deep")


def test_brackets_in_strings_and_comments_are_no_brackets() -> None:
    schema = (
        'entity A; entity B; action "x" appliesTo { principal: [A], resource: [B], context: { args: {} } };'
    )
    text = f'// {"(" * 300}\n@id("{"[" * 300}") permit (principal, action, resource);\n'
    assert bundle_from_files({"schema.cedarschema": schema, "p.cedar": text}, "b").policies


def test_a_chain_too_long_to_be_read_is_refused() -> None:
    schema = (
        'entity A; entity B; action "x" appliesTo { principal: [A], resource: [B], context: { args: {} } };'
    )
    chain = " || ".join(f'principal == A::"{number}"' for number in range(3000))
    text = f'@id("listed") permit (principal, action, resource) when {{ {chain} }};\n'
    with pytest.raises(PolicyError, match=r"use a set: `\[…\].contains\(x\)`"):
        bundle_from_files({"schema.cedarschema": schema, "p.cedar": text}, "b")
