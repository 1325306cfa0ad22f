"""Hostile arguments, keys and names against a real runtime: refused and recorded, bounded, and nothing executed."""

from __future__ import annotations

import enum
import json
import time
import tracemalloc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from runtime import Blocked, IdempotencyConflict, RegistrationError, Runtime
from runtime.arguments import MAX_BYTES, MAX_DEPTH, SALVAGED_BYTES
from runtime.bundle import bundle_from_files
from runtime.lake import LakeStore
from runtime.trace import DECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SCHEMA = """
entity Agent; entity Thing;
action "act", "any" appliesTo { principal: [Agent], resource: [Thing], context: { args: {
  id: String, note?: String, n?: Long, amount?: decimal, tags?: Set<String>, more?: { a?: { b?: String } } } } };
"""
SECONDS = 15
"""Of processor time; what is not linear takes for ever."""
POLICIES = '@id("permit") permit(principal, action, resource);'


class World:
    """A runtime with a tool that takes what its schema declares, and one that takes anything."""

    def __init__(self, lake: Path) -> None:
        self.ran: list[dict[str, Any]] = []
        texts = {"p.cedar": POLICIES, "schema.cedarschema": SCHEMA}
        self.runtime = Runtime.open(bundle_from_files(texts, "b"), lake=lake)
        self.lake = lake

        @self.runtime.tool(resource="Thing::{id}")
        def act(
            id: str,  # noqa: A002 - as the schema says
            note: Any = None,
            n: Any = None,
            amount: Any = None,
            tags: Any = None,
            more: Any = None,
        ) -> None:
            given = {"id": id, "note": note, "n": n, "amount": amount, "tags": tags, "more": more}
            self.ran.append({name: value for name, value in given.items() if value is not None})

        @self.runtime.tool(resource="Thing::{id}", name="any")
        def anything(**given: Any) -> None:
            self.ran.append(given)

    def session(self, **changes: Any) -> Any:
        return self.runtime.session(**({"principal": "Agent::bot", "tenant": "acme"} | changes))

    def blocked(self, tool: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Call a tool that must not run; return the row of the decision."""
        session = self.session()
        with pytest.raises(Blocked):
            session.call(tool, *args, **kwargs)
        assert self.ran == []
        row = session.last_decision
        assert self.runtime.ledger.decision(row["decision_id"]) is not None
        return dict(row)


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("hostile") / "lake")
    yield made
    made.runtime.ledger.close()


@pytest.fixture
def world(shared_world: World) -> World:
    """Return one runtime for all tests: whatever is thrown at it, it goes on."""
    shared_world.ran.clear()
    return shared_world


# Values that are no arguments


def nested(levels: int, wrap: Callable[[Any], Any]) -> Any:
    found: Any = "x"
    for _ in range(levels):
        found = wrap(found)
    return found


def cyclic_list() -> Any:
    found: list[Any] = []
    found.append(found)
    return found


def cyclic_dict() -> Any:
    found: dict[str, Any] = {}
    found["again"] = {"and": [found]}
    return found


@dataclass
class Pair:
    left: Any
    right: Any


class Silent:
    """Every method of its own raises."""

    def __repr__(self) -> str:
        raise ValueError("no repr")

    __str__ = __iter__ = __hash__ = __len__ = __eq__ = __repr__  # type: ignore[assignment]


class Endless(dict[str, Any]):
    """A mapping that says it never ends."""

    def items(self) -> Any:
        while True:
            yield "a", 1

    __iter__ = keys = values = items


class _Imposter:
    """Something that calls itself a dict, for whoever goes by names."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Any:
        while True:
            yield "a"

    def __repr__(self) -> str:
        return "x" * 50_000_000


_Imposter.__name__ = "dict"


class Model:
    """Dumps itself as something that dumps itself."""

    def model_dump(self, **_: Any) -> Any:
        return {"again": Model()}


class Doubling:
    """Dumps itself as a small object whose JSON is endless."""

    def model_dump(self, **_: Any) -> Any:
        return nested(60, lambda inner: [inner, inner])


class Word(str):
    """A text that claims to be another one."""

    __slots__ = ()

    def __str__(self) -> str:
        return "another"

    def encode(self, *_: Any, **__: Any) -> bytes:
        return b"another"

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return id(self)


NO_JSON: dict[str, Callable[[], Any]] = {
    "deep list": lambda: nested(100_000, lambda inner: [inner]),
    "deep object": lambda: nested(100_000, lambda inner: {"a": inner}),
    "one level too deep": lambda: nested(MAX_DEPTH + 1, lambda inner: [inner]),
    "50 MB": lambda: "x" * 50_000_000,
    "50 MB within": lambda: {"a": ["x" * 50_000_000]},
    "50 MB of bytes": lambda: b"x" * 50_000_000,
    "small text whose JSON is large": lambda: "\x00" * (MAX_BYTES // 4),
    "two million numbers": lambda: list(range(2_000_000)),
    "long member name": lambda: {"x" * 50_000_000: 1},
    "cyclic list": cyclic_list,
    "cyclic object": cyclic_dict,
    "doubling list": lambda: nested(60, lambda inner: [inner, inner]),
    "doubling objects": lambda: nested(60, lambda inner: {"a": inner, "b": inner}),
    "doubling dataclass": lambda: nested(60, lambda inner: Pair(inner, inner)),
    "doubling model": Doubling,
    "endless model": Model,
    "nan": lambda: float("nan"),
    "nan within": lambda: {"a": [float("nan")]},
    "inf": lambda: float("inf"),
    "-inf within": lambda: [float("-inf")],
    "surrogate": lambda: "\ud800",
    "surrogate within": lambda: {"a": "\udfff"},
    "surrogate name": lambda: {"\ud800": 1},
    "2**63": lambda: 2**63,
    "-2**63-1 within": lambda: [-(2**63) - 1],
    "ten million digits": lambda: 1 << 33_000_000,
    "int names": lambda: {1: "a"},
    "null name": lambda: {None: "a"},
    "mixed set": lambda: {1, "a", None},
    "generator": lambda: (i for i in range(3)),
    "iterator": lambda: iter([1]),
    "object": object,
    "silent": Silent,
    "silent within": lambda: [Silent(), {"a": Silent()}],
    "endless object": lambda: {"a": Endless(b=object())},
    "imposter": _Imposter,
    "imposter within": lambda: [_Imposter()],
    "word": lambda: Word("a"),
    "bytes": lambda: b"a",
    "function": lambda: print,
    "type": lambda: dict,
    "complex": lambda: 1j,
    "memory": lambda: memoryview(b"abc"),
}


@pytest.mark.parametrize("name", NO_JSON)
def test_what_is_no_argument_is_refused_recorded_and_never_runs(world: World, name: str) -> None:
    value = NO_JSON[name]()
    began = time.process_time()
    row = world.blocked("act", "1", note=value)
    assert time.process_time() - began < SECONDS
    assert (row["decided_by"], row["reason_code"]) == ("request", "args_invalid")
    assert len(row["args"]) < 2 * SALVAGED_BYTES
    assert len(row["reason"]) < 20_000
    kept = json.loads(row["args"])
    assert kept["*args"] == ["1"]
    assert set(kept["note"]) == {"repr"}
    assert len(kept["note"]["repr"]) <= 1024


def test_refusals_reach_the_lake(world: World) -> None:
    small = [
        name for name in NO_JSON if not name.startswith(("deep", "50", "two", "long", "doubling", "ten"))
    ]
    ids = {world.blocked("act", "1", note=NO_JSON[name]())["decision_id"] for name in small}
    world.runtime.drain()
    stored = LakeStore(world.lake).read(DECISIONS, ["decision_id", "reason_code"]).to_pylist()
    assert {row["decision_id"] for row in stored if row["reason_code"] == "args_invalid"} >= ids


@pytest.mark.parametrize("name", ["50 MB", "50 MB within", "long member name", "many numbers"])
def test_a_refusal_copies_nothing(world: World, name: str) -> None:
    """What is too large is not made JSON to find out: its size is known before."""
    value = NO_JSON[name]() if name in NO_JSON else [0] * 1_100_000
    world.blocked("act", "1", note=1)  # whatever is loaded once
    tracemalloc.start()
    try:
        world.blocked("act", "1", note=value)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


def test_many_arguments_are_weighed_together(world: World) -> None:
    part = "x" * (MAX_BYTES // 4)
    row = world.blocked("act", "1", note=part, n=part, amount=part, tags=part)
    assert row["reason_code"] == "args_invalid"
    assert "larger than 8 MiB" in row["reason"]
    row = world.blocked("any", **{f"a{i}": part for i in range(1000)})  # one text, shared
    assert "larger than 8 MiB" in row["reason"]
    assert len(row["args"]) < 2 * SALVAGED_BYTES


@pytest.mark.parametrize("tool", ["act", "any"])
def test_a_hundred_thousand_names(world: World, tool: str) -> None:
    began = time.process_time()
    row = world.blocked(tool, id="1", **{f"a{i}": i for i in range(100_000)})
    assert time.process_time() - began < SECONDS
    expected = "args_invalid" if tool == "act" else "projection_failed"
    assert (row["decided_by"], row["reason_code"]) == ("request", expected)
    if tool == "act":
        kept = json.loads(row["args"])
        assert kept["…"]["left_out"] > 99_000
        assert len(row["args"]) < 2 * SALVAGED_BYTES


def test_names_may_be_anything(world: World) -> None:
    for name in ("", "\ud800", "a b", "__extn", "x" * 10_000_000, "*args", "…"):
        row = world.blocked("act", id="1", **{name: 1})
        assert row["reason_code"] == "args_invalid"
        assert len(row["reason"]) < 20_000
        assert len(row["args"]) < SALVAGED_BYTES
        assert world.blocked("any", id="1", **{name: 1})["decided_by"] == "request"


def test_an_interruption_while_arguments_are_read_passes_through(world: World) -> None:
    class Interrupting:
        def model_dump(self, **_: Any) -> Any:
            raise KeyboardInterrupt

    session = world.session()
    with pytest.raises(KeyboardInterrupt):
        session.call("act", "1", note=Interrupting())
    assert world.ran == []
    assert session.last_decision is None


# Values that are arguments, whatever they look like


IDS = [
    "../../etc/passwd",
    "'; DROP TABLE decisions; --",
    '" OR ""="',
    'x") in Thing::"y',
    "\\",
    "\x00",
    "\x7f\x1b[31m",
    "%2e%2e%2f",
    "{id}",
    "${id}",
    'Thing::"1"',
    "\u202e\u200b",
    "é",
    "e\u0301",
    "\U0001f600",
    "\ufeff",
    " ",
    "",
    "NaN",
    "x" * 100_000,
]


@pytest.mark.parametrize("ident", IDS, ids=lambda ident: ascii(ident)[:20])
def test_odd_ids_are_ids(world: World, ident: str) -> None:
    session = world.session()
    session.call("act", ident, note=ident)
    assert world.ran == [{"id": ident, "note": ident}]
    row = session.last_decision
    assert (row["resource_id"], json.loads(row["args"])["id"]) == (ident, ident)


def test_odd_ids_reach_the_lake_as_they_are(world: World) -> None:
    session = world.session()
    for ident in IDS:
        session.call("act", ident)
    world.runtime.drain()
    names = ["session_id", "resource_id", "args", "step"]
    stored = LakeStore(world.lake).read(DECISIONS, names).sort_by("step").to_pylist()
    mine = [row for row in stored if row["session_id"] == session.identity.session_id]
    assert [row["resource_id"] for row in mine] == IDS
    assert [json.loads(row["args"])["id"] for row in mine] == IDS


class Colour(enum.StrEnum):
    RED = "red"


class Sly(dict[str, Any]):
    """Says other members than it has."""

    def items(self) -> Any:
        return [("a", {"b": "said"})]

    __iter__ = keys = items


class Doubled(str):
    """A member name that is never equal to its double."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


@pytest.mark.parametrize(
    ("given", "got"),
    [
        ({"amount": -0.0}, {"amount": 0}),
        ({"amount": 1e2}, {"amount": 100}),
        ({"n": 2**63 - 1}, {"n": 2**63 - 1}),
        ({"n": -(2**63)}, {"n": -(2**63)}),
        ({"note": Colour.RED}, {"note": "red"}),
        ({"tags": {"b", "a"}}, {"tags": ["a", "b"]}),
        ({"tags": ("a", "a")}, {"tags": ["a", "a"]}),
        ({"more": Sly(a={"b": "held"})}, {"more": {"a": {"b": "held"}}}),
        ({"more": {"a": {Doubled("b"): "one", Doubled("b"): "two"}}}, {"more": {"a": {"b": "two"}}}),
        ({"note": "x" * 1_000_000}, {"note": "x" * 1_000_000}),
    ],
    ids=lambda each: ascii(each).replace("{'b', 'a'}", "{'a', 'b'}")[:40],  # the same in every process
)
def test_the_tool_gets_what_was_decided_and_recorded(world: World, given: Any, got: Any) -> None:
    session = world.session()
    session.call("act", "1", **given)
    assert world.ran == [{"id": "1", **got}]
    recorded = json.loads(session.last_decision["args"])
    assert {name: value for name, value in recorded.items() if value is not None} == {"id": "1", **got}
    assert session.last_decision["enforced_args"] == session.last_decision["args"]
    assert [type(value) for value in world.ran[0].values()] == [
        type(value) for value in ({"id": "1"} | got).values()
    ]


def test_a_change_after_the_decision_changes_nothing(world: World) -> None:
    """The caller keeps the list it gave; the tool has another one."""
    tags = ["a"]
    world.session().call("act", "1", tags=tags)
    tags.append("b")
    assert world.ran[0]["tags"] == ["a"]
    assert world.ran[0]["tags"] is not tags


def test_a_million_numbers_are_decided_in_linear_time(world: World) -> None:
    began = time.process_time()
    row = world.blocked("act", "1", tags=[7] * 1_000_000)
    assert row["reason_code"] == "projection_failed"
    assert time.process_time() - began < SECONDS


def test_thirty_thousand_tags_run(world: World) -> None:
    tags = [f"t{i}" for i in range(30_000)]
    began = time.process_time()
    world.session().call("act", "1", tags=tags)
    assert time.process_time() - began < SECONDS
    assert world.ran == [{"id": "1", "tags": tags}]


# Keys and names


BAD_KEYS = ["", "\ud800", "x" * 5000, 5, b"k", Word("k"), Colour.RED, ["k"], object(), Silent(), float("nan")]


@pytest.mark.parametrize("key", BAD_KEYS, ids=lambda key: type(key).__name__)
def test_a_key_that_is_none_is_refused_before_anything_is_decided(world: World, key: Any) -> None:
    session = world.session()
    with pytest.raises(IdempotencyConflict) as caught:
        session.call("act", "1", idempotency_key=key)
    assert len(str(caught.value)) < 500
    assert world.ran == []
    assert session.last_decision is None


@pytest.mark.parametrize("key", IDS[:-1], ids=lambda key: ascii(key)[:20])
def test_odd_keys_are_keys(world: World, key: str) -> None:
    if not key:
        return
    session = world.session()
    session.call("act", "1", idempotency_key=key)
    session.call("act", "1", idempotency_key=key)
    session.call("act", "1", idempotency_key=f"{key} ")
    assert len(world.ran) == 2


@pytest.mark.parametrize("name", ["session_id", "tenant", "principal", "on_behalf_of", "scopes"])
@pytest.mark.parametrize("value", ["\ud800", "x" * 5000, 5, b"k", object(), Silent(), float("nan")],
                         ids=lambda value: type(value).__name__)  # fmt: skip
def test_a_name_that_is_none_opens_no_session(world: World, name: str, value: Any) -> None:
    given = value
    if isinstance(value, str) and name in ("principal", "on_behalf_of"):
        given = f"Agent::{value}"
    if name == "scopes":
        given = [value]
    with pytest.raises(RegistrationError) as caught:
        world.session(**{name: given})
    assert len(str(caught.value)) < 6000


def test_a_name_is_what_it_holds_not_what_it_says(world: World) -> None:
    session = world.session(tenant=Word("acme"), session_id=Word("s"), scopes=[Word("a")])
    session.call("act", "1")
    row = session.last_decision
    assert (row["tenant"], row["session_id"], row["scopes"]) == ("acme", "s", ["a"])
    assert world.session(tenant=Colour.RED).identity.tenant == "red"
