"""Contexts compiled again for a whole chunk are, byte for byte, those the runtime's compiler gives for each row alone."""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime import Blocked, Runtime
from runtime.bundle import bundle_from_files
from runtime.context import compile_context
from runtime.entities import EntityUid
from runtime.sources import bind_sources
from workbench.history.caching import contexts_of
from workbench.history.recompiling import Again
from workbench.history.records import MORE, Records, with_contexts
from workbench.history.run import joined
from workbench.lake import open_lake
from workbench.recompile import Recompiler
from workbench.recorded import Recorded
from workbench.where import recorded_places

SCHEMA = """
entity Agent = { n?: Long, s?: String }; entity User; entity Thing = { n?: Long, s?: String };
action one appliesTo { principal: Agent, resource: Thing, context: {
  args: { a: String, b?: Long, c?: { d?: String } }, on_behalf_of?: User, f?: { n?: Long, s?: String }, g?: Set<Long> } };
action two appliesTo { principal: Agent, resource: Thing, context: {
  args: { a: String, b?: Long, c?: { d?: String } }, on_behalf_of?: User, f?: { n?: Long, s?: String }, g?: Set<Long> } };
"""
PERMIT = '@id("p") permit(principal, action, resource);\n'
PATHS = ("args.a", "args.b", "args.c.d", "tenant", "session", "tool", "principal.id", "on_behalf_of.id",
         "on_behalf_of.type", "resource.id", "resource.type")  # fmt: skip
WORDS = ("x", "y", "s-1", "acme", "one")

rows = st.lists(
    st.fixed_dictionaries(
        {
            "k": st.sampled_from(WORDS),
            "m": st.sampled_from([1, 2, None]),
            "t": st.sampled_from(["acme", "zeta"]),
            "n": st.sampled_from([1, 2, 2**60, None]),
            "s": st.sampled_from(["", "é", None]),
        }
    ),
    max_size=6,
)
facts = st.fixed_dictionaries(
    {
        "path": st.sampled_from(PATHS),
        "actions": st.sampled_from([["*"], ["one"]]),
        "source": st.sampled_from(["left", "right"]),
        "tenant": st.booleans(),
    }
)
calls = st.lists(
    st.tuples(
        st.sampled_from(["one", "two"]),
        st.fixed_dictionaries(
            {"a": st.sampled_from(WORDS)},
            optional={"b": st.sampled_from([1, 2]), "c": st.sampled_from([{}, {"d": "x"}])},
        ),
        st.sampled_from(["bot", "x"]),
        st.sampled_from([None, EntityUid("User", "x")]),
        st.sampled_from(["acme", "zeta"]),
        st.sampled_from(["s-1", "s-2"]),
    ),
    min_size=1,
    max_size=8,
)
SCHEMA_OF_ROWS = pa.schema(
    [("k", pa.string()), ("m", pa.int64()), ("t", pa.string()), ("n", pa.int64()), ("s", pa.string())]
)


def _spec(found: dict[str, dict[str, Any]]) -> str:
    lines = [f'[sources.{name}]\nkind = "delta"\nuri = "../{name}"\n' for name in ("left", "right")]
    for name, fact in found.items():
        column = "m" if fact["path"] == "args.b" else "k"
        where = 'tenant_column = "t"' if fact["tenant"] else "shared = true"
        into = {"r": 'into = "resource"\n', "p": 'into = "principal"\n', "g": 'shape = "set"\n'}.get(name, "")
        fields = ["n"] if name == "g" else ["n", "s"]
        lines.append(
            f'[[facts]]\nname = "{name}"\nactions = {json.dumps(fact["actions"])}\nsource = "{fact["source"]}"\n'
            f'key = {{ {column} = "{fact["path"]}" }}\nfields = {json.dumps(fields)}\n{where}\n{into}'
        )
    return "".join(lines)


def _write(root: Path, name: str, content: list[dict[str, Any]]) -> None:
    write_deltalake(str(root / name), pa.Table.from_pylist(content, schema=SCHEMA_OF_ROWS), mode="overwrite")
    time.sleep(0.002)  # commits are told apart by milliseconds


def _record(root: Path, spec: str, made: list[Any]) -> None:
    own = bundle_from_files({"p.cedar": PERMIT, "schema.cedarschema": SCHEMA, "context.toml": spec}, "own")
    with Runtime.open(own, lake=root / "lake") as runtime:
        for tool in ("one", "two"):
            runtime.tool(lambda **_: 1, name=tool, resource="Thing::{a}")
        for tool, args, who, behalf, tenant, ident in made:
            session = runtime.session(
                principal=EntityUid("Agent", who),
                on_behalf_of=behalf,
                tenant=tenant,
                session_id=f"{ident} {tenant} {who} {behalf}",
            )
            with suppress(Blocked):
                session.call(tool, **args)


names = st.sets(st.sampled_from(["f", "g", "r", "p"]), min_size=1)
specs = names.flatmap(lambda chosen: st.fixed_dictionaries(dict.fromkeys(sorted(chosen), facts)))


def _check(root: Path, spec_text: str, pinned: dict[str, str], at: datetime | None) -> int:
    """Compile the lake's contexts by a spec, as a chunk and row by row; how many different ones there are."""
    lake = open_lake(root / "lake")
    files = {"p.cedar": PERMIT, "schema.cedarschema": SCHEMA, "context.toml": spec_text}
    spec = bundle_from_files(files, "other").spec
    again = Recompiler(spec, {}, root / "lake", partial(recorded_places, lake), at=at, versions=pinned)
    (records,) = Records(lake).chunks(MORE)
    fresh, made = Again(again, lake).compiled(joined(records, contexts_of(lake)), spec)
    assert fresh["cause"].null_count() == fresh.height
    sources = bind_sources(spec, {}, root / "lake")
    rows = with_contexts(records, lake).iter_rows(named=True)
    for row, found in zip(rows, fresh["context_hash"], strict=True):
        recorded = Recorded(row, row["context"], row["enforced_context"])
        request = recorded.request
        alone = compile_context(
            spec,
            sources,
            request,
            request.resource.resolve(request.args),
            versions=_versions(recorded, sources, pinned, at),
        )
        assert found == alone.hash
    assert set(made.frame["context_hash"]) == set(fresh["context_hash"])
    return made.frame.height


GENERATED = given(
    specs=st.tuples(specs, specs),
    tables=st.tuples(rows, rows, rows, rows),
    first=calls,
    second=calls,
    pinned=st.sampled_from([{}, {"left": "0"}, {"left": "1", "right": "0"}]),
    late=st.booleans(),
)


def _generated(specs: Any, tables: Any, first: Any, second: Any, pinned: Any, late: bool) -> None:
    """Record under one spec over two versions of two tables, compile by the other at versions and times."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, content in zip(("left", "right"), tables[:2], strict=True):
            _write(root, name, content)
        _record(root, _spec(specs[0]), first)
        for name, content in zip(("left", "right"), tables[2:], strict=True):
            _write(root, name, content)
        _record(root, _spec(specs[0]), second)
        _check(root, _spec(specs[1]), pinned, datetime.now(UTC) if late else None)


test_a_chunk_compiles_as_each_row_alone = settings(max_examples=3, suppress_health_check=list(HealthCheck))(
    GENERATED(_generated)
)
test_many_chunks_compile_as_each_row_alone = pytest.mark.fuzz(
    settings(max_examples=150, suppress_health_check=list(HealthCheck))(GENERATED(_generated))
)


def test_rows_that_differ_in_one_thing_are_asked_about_apart(tmp_path: Path) -> None:
    """Whatever a key may read: two calls differ in that alone, and a fact that is looked up by it is another."""
    for name in ("left", "right"):
        _write(tmp_path, name, [{"k": "x", "m": 1, "t": "acme", "n": 1, "s": None}])
    user, other = EntityUid("User", "x"), EntityUid("User", "y")
    args = {"a": "x", "b": 1, "c": {"d": "x"}}
    base = ("one", args, "bot", user, "acme", "s-1")
    changes: dict[int, list[Any]] = {
        0: ["two"],
        1: [{**args, "a": "y"}, {**args, "b": 2}, {**args, "c": {}}],
        2: ["x"],
        3: [None, other],
        4: ["zeta"],
        5: ["s-2"],
    }
    varied = [(*base[:at], new, *base[at + 1 :]) for at, several in changes.items() for new in several]
    nothing = {"f": {"path": "tool", "actions": ["none"], "source": "left", "tenant": False}}
    _record(tmp_path, _spec(nothing).partition("[[facts]]")[0], [base, *varied])
    for path in PATHS:
        fact = {"path": path, "actions": ["*"], "source": "left", "tenant": False}
        # At one version, so that nothing but the key tells them apart.
        several = _check(tmp_path, _spec({"f": fact}), {"left": "0"}, None)
        assert several > 1 or path in ("on_behalf_of.type", "resource.type"), path
    own = {"path": "tool", "actions": ["*"], "source": "left", "tenant": True}
    assert _check(tmp_path, _spec({"f": own}), {"left": "0"}, None) > 1


def _versions(
    recorded: Recorded, sources: Any, pinned: dict[str, str], at: datetime | None
) -> dict[str, str]:
    """Which version of each source holds for a row, said again from the rule: given, at a time, recorded, of then."""
    then = {fact.source: fact.version for fact in (recorded.compiled.facts if recorded.compiled else {}).values()
            if fact.version is not None}  # fmt: skip
    found = {}
    for name, source in sources.items():
        moment = at or recorded.row["decided_at"]
        by_time = source.version_at(int(moment.timestamp() * 1_000_000))
        found[name] = pinned.get(name) or (by_time if at else then.get(name) or by_time)
    return found
