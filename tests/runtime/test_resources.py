"""Resources from arguments: distinct arguments are distinct resources, or the call is refused and recorded."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import Blocked, RegistrationError, Runtime
from runtime.bundle import bundle_from_files
from runtime.record import request_of
from runtime.request import RequestInvalid, ResourceTemplate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEMA = """
entity Agent; entity Repo;
action "push" appliesTo { principal: [Agent], resource: [Repo], context: { args: { owner: String, name: String } } };
"""
POLICIES = """
@id("permit") permit(principal, action, resource);
@id("mine") forbid(principal, action, resource == Repo::"ada/secret/x");
@id("cut") @verdict("modify") @patch("{\\"owner\\": \\"a/b\\"}") forbid(principal, action, resource)
  when { context.args.owner == "patched" };
"""
FILES = {"p.cedar": POLICIES, "schema.cedarschema": SCHEMA}


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    opened = Runtime.open(bundle_from_files(FILES, "b"), lake=tmp_path / "lake")
    yield opened
    opened.ledger.close()


texts = st.text(alphabet="ab/-é", max_size=5)
separators = st.text(alphabet="ab/-é", min_size=1, max_size=3)


@given(
    st.lists(separators, min_size=1, max_size=2).map(lambda found: [*found, ""]),
    st.lists(st.tuples(texts, texts, texts), min_size=2, max_size=30, unique=True),
    texts,
)
def test_two_argument_lists_never_share_a_resource(
    between: list[str], calls: list[tuple[str, ...]], prefix: str
) -> None:
    slots = [f"{{s{i}}}{text}" for i, text in enumerate(between)]
    template = ResourceTemplate.parse(f"Repo::{prefix}{''.join(slots)}")
    resources: dict[str, tuple[str, ...]] = {}
    for values in calls:
        args: dict[str, Any] = {f"s{i}": value for i, value in enumerate(values)}
        try:
            template.check(args)
        except RequestInvalid:
            continue
        ident = template.resolve(args).id
        mine = values[: len(between)]
        assert resources.setdefault(ident, mine) == mine


def test_a_separator_may_not_begin_in_an_argument_either() -> None:
    """`xa` + `aa` + `b` is `x` + `aa` + `ab`."""
    template = ResourceTemplate.parse("Repo::{owner}aa{name}")
    template.check({"owner": "x", "name": "ab"})
    with pytest.raises(RequestInvalid, match="must not hold 'aa'"):
        template.check({"owner": "xa", "name": "b"})


@pytest.mark.parametrize(
    ("owner", "runs"),
    [("ada", True), ("a/b", False), ("/", False), ("ada/", False), ("", True), ("a-b", True)],
)
def test_what_ends_an_argument_is_not_in_it(runtime: Runtime, owner: str, runs: bool) -> None:
    ran: list[str] = []

    @runtime.tool(resource="Repo::{owner}/{name}")
    def push(owner: str, name: str) -> None:
        ran.append(f"{owner}/{name}")

    with runtime.session(principal="Agent::bot", tenant="acme") as session:
        with contextlib.nullcontext() if runs else pytest.raises(Blocked, match="must not hold '/'"):
            push(owner, "x/y")  # the last one may: nothing comes after it
        assert bool(ran) == runs
        row = session.last_decision
        assert row is not None
        assert runs or (row["decided_by"], row["reason_code"]) == ("request", "args_invalid")


def test_a_patch_cannot_make_one_either(runtime: Runtime) -> None:
    @runtime.tool(resource="Repo::{owner}/{name}")
    def push(owner: str, name: str) -> None:
        raise AssertionError

    with runtime.session(principal="Agent::bot", tenant="acme") as session:
        with pytest.raises(Blocked, match="must not hold '/'"):
            push("patched", "x")
        assert (session.last_decision or {})["reason_code"] == "patch_invalid"


def test_slots_that_touch_are_refused_at_registration(runtime: Runtime) -> None:
    with pytest.raises(RegistrationError, match="put some text between two slots"):

        @runtime.tool(resource="Repo::{owner}{name}")
        def push(owner: str, name: str) -> None: ...

    with pytest.raises(RegistrationError, match="put some text between two slots"):

        @runtime.tool(name="push", resource="Repo::{owner}/{name}", writes=["Repo::{owner}{name}"])
        def push2(owner: str, name: str) -> None: ...


def test_a_recorded_template_resolves_as_it_did(runtime: Runtime) -> None:
    """What was recorded before there was a check is read back and decided again as it was."""

    @runtime.tool(resource="Repo::{owner}/{name}")
    def push(owner: str, name: str) -> None: ...

    with runtime.session(principal="Agent::bot", tenant="acme") as session:
        push("ada", "x")
        row = dict(session.last_decision or {})
    old = row | {"resource_template": "Repo::{owner}{name}", "args": '{"name":"c","owner":"a/b"}'}
    request = request_of(old)
    assert request.resource.resolve(request.args).id == "a/bc"
