"""Policy sets as trees: calls with the wrong number of arguments, and links with their slots filled."""

from __future__ import annotations

import json

import cedarpy
import pytest

from runtime.bundle import Bundle, bundle_from_files
from runtime.cedar import ask_batch
from runtime.entities import EntityUid, Slice
from runtime.policy import Case
from workbench.atoms import atoms_of
from workbench.columnar import decide_cases, policy_tree
from workbench.columnar.policies import document_tree, filled
from workbench.rows import policy_literals

SCHEMA = """
entity U; entity D;
action a appliesTo { principal: [U], resource: [D], context: { args: { n: Long } } };
"""


def bundle(condition: str) -> Bundle:
    text = f'@id("x") permit(principal, action, resource == D::"d") when {{ {condition} }};'
    return bundle_from_files({"schema.cedarschema": SCHEMA, "p.cedar": text}, "b")


def test_a_bundle_with_a_call_that_is_never_reached_is_taken_apart() -> None:
    """Cedar's validator does not look behind `false &&`, so such a bundle loads and decides."""
    of = bundle('context.args.n == 1 || (false && ip("::1").isIpv4(1, 2))')
    assert policy_literals(of) == {EntityUid("D", "d")}
    atoms = atoms_of(of)
    reads = {atom.reads for atom in atoms.every}
    assert frozenset({("context", "args", "n")}) in reads
    case = Case(
        EntityUid("U", "u"), EntityUid("Action", "a"), EntityUid("D", "d"), {"args": {"n": 1}}, Slice()
    )
    answer = ask_batch([case], cedarpy.Entities.from_json_str("[]"), atoms.engine, None)[0]
    last = atoms.every[-1].id  # the call
    assert [fault.policy for fault in answer.errors] == [last]


def test_a_filled_template_decides_as_its_link() -> None:
    text = """permit(principal in ?principal, action, resource is D in ?resource) when { principal == U::"u" };"""
    linked = cedarpy.PolicySet.from_str(text).with_linked_batch(
        [
            {
                "template_id": "policy0",
                "new_id": "l",
                "values": {"?principal": 'U::"u"', "?resource": 'D::"d"'},
            }
        ]
    )
    tree = linked.to_pst()
    link = tree.template_links[0]
    alone = filled(tree.templates[link.template_id], link.values)
    want = 'permit(principal in U::"u", action, resource is D in D::"d") when { principal == U::"u" };'
    assert alone == cedarpy.policies_to_pst(want).static_policies["policy0"]


def test_a_document_keeps_its_ids() -> None:
    document = json.loads(cedarpy.policies_to_json_str("permit(principal, action, resource);"))
    named = {**document, "staticPolicies": {"ip": document["staticPolicies"]["policy0"]}}
    assert list(document_tree(named).static_policies) == ["ip"]


@pytest.mark.parametrize("op", ["&&", "||"])
@pytest.mark.parametrize("number", [2, 3, 7, 150, 400])
def test_long_chains_decide_as_written(op: str, number: int) -> None:
    """Deeper than the syntax tree goes; every third operand is an error where it is reached."""
    quiet = "true" if op == "&&" else "false"
    parts = [
        f"(if context.n == {n} then context.{'nope' if n % 3 else 't'} else {quiet})" for n in range(number)
    ]
    for condition in (f" {op} ".join(parts), f" {op} (".join(parts) + ")" * (number - 1)):
        text = f"permit(principal, action, resource) when {{ {condition} }};"
        try:
            handle = cedarpy.PolicySet.from_str(text)
        except ValueError:
            continue  # Cedar's parser has its own end
        uids = EntityUid("U", "u"), EntityUid("Action", "a"), EntityUid("D", "d")
        contexts = [{"n": n, "t": t} for n in (0, 1, 2, 3, number - 1, number) for t in (True, False)]
        cases = [Case(*uids, context, Slice()) for context in contexts]
        found = decide_cases(cases, policy_tree(text), schema=None, strict=True)
        answers = ask_batch(cases, cedarpy.Entities.from_json_str("[]"), handle, None)
        told = [(each.decision, tuple(f.policy for f in each.errors)) for each in answers]
        assert [(found.answer(i).decision, found.answer(i).errors) for i in range(len(cases))] == told
