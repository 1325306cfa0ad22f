"""Where the facts of a replay are: every obvious wrong thing is said before the first row is decided."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from runtime import Runtime
from workbench.errors import ReplayFailure
from workbench.lake import Lake, open_lake
from workbench.where import recorded_places

SCHEMA = """
entity Agent;
entity Thing;
action pay appliesTo {
  principal: Agent, resource: Thing, context: { args: { iban: String }, payee?: { trusted: Bool } }
};
action mail appliesTo {
  principal: Agent, resource: Thing, context: { args: { to: String }, customer?: { tier: String } }
};
"""
OPEN = '@id("all") permit (principal, action, resource);\n'
STRICT = OPEN + (
    '@id("stranger") forbid (principal, action == Action::"pay", resource)\n'
    "unless { context has payee && context.payee.trusted };\n"
)
FACTS = """
[sources.payees]
kind = "delta"
[sources.customers]
kind = "delta"
[[facts]]
name = "payee"
actions = ["pay"]
source = "payees"
key = { iban = "args.iban" }
fields = ["trusted"]
tenant_column = "tenant"
[[facts]]
name = "customer"
actions = ["mail"]
source = "customers"
key = { email = "args.to" }
fields = ["tier"]
tenant_column = "tenant"
"""


def bundle(folder: Path, policies: str, context: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "p.cedar").write_text(policies)
    (folder / "schema.cedarschema").write_text(SCHEMA)
    (folder / "context.toml").write_text(context)
    return folder


def recorded(root: Path, context: str) -> Lake:
    """Record two calls, each of which asks one of two sources."""
    places = {name: str(root / "facts" / name) for name in ("payees", "customers")}
    write_deltalake(places["payees"], pa.table({"tenant": ["acme"], "iban": ["A"], "trusted": [False]}))
    write_deltalake(places["customers"], pa.table({"tenant": ["acme"], "email": ["x@y"], "tier": ["gold"]}))
    with Runtime.open(bundle(root / "now", OPEN, context), lake=root / "lake", sources=places) as runtime:
        runtime.tool(lambda iban: iban, name="pay", resource="Thing::{iban}")
        runtime.tool(lambda to: to, name="mail", resource="Thing::{to}")
        with runtime.session(principal="Agent::bot", tenant="acme") as session:
            session.call("mail", to="x@y")
            session.call("pay", iban="A")
    return open_lake(root / "lake")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return recorded(tmp_path, FACTS)


@pytest.fixture
def strict(tmp_path: Path) -> Path:
    return bundle(tmp_path / "next", STRICT, FACTS)


def test_the_record_says_where_each_source_was(lake: Lake, strict: Path, tmp_path: Path) -> None:
    """No row asks both sources; what one row does not know, another one does."""
    assert recorded_places(lake) == {
        name: frozenset({str(tmp_path / "facts" / name)}) for name in ("customers", "payees")
    }
    assert lake.replay().counts()["recompilable"] == 2
    again = lake.replay(policy=strict, context=strict)
    assert again.counts()["recompilable"] == again.counts()["decisions_decided"] == 2
    assert again.frame.collect()["effect"].to_list() == ["same", "prevented"]


def test_a_misspelt_name(lake: Lake, strict: Path, tmp_path: Path) -> None:
    with pytest.raises(ReplayFailure, match="declares a source `payee`; did you mean `payees`"):
        lake.replay(policy=strict, context=strict, sources={"payee": tmp_path / "facts" / "payees"})


def test_a_name_of_another_bundle_is_ignored(lake: Lake, tmp_path: Path) -> None:
    assert lake.replay(sources={"hotels": tmp_path / "nowhere"}).counts()["recompilable"] == 2


def test_no_table_there(lake: Lake, strict: Path) -> None:
    with pytest.raises(ReplayFailure, match="`payees`: there is no Delta table at 'facts/payes'"):
        lake.replay(policy=strict, context=strict, sources={"payees": "facts/payes"})


def test_nobody_says_where(tmp_path: Path) -> None:
    lake, strict = recorded(tmp_path, ""), bundle(tmp_path / "next", STRICT, FACTS)
    with pytest.raises(
        ReplayFailure, match=r"2 sources .*: `customers`, `payees`; give `sources=\{'customers'"
    ):
        lake.replay(policy=strict, context=strict)
    facts = {name: tmp_path / "facts" / name for name in ("customers", "payees")}
    assert lake.replay(policy=strict, context=strict, sources=facts).counts()["decisions_decided"] == 2


def test_a_source_that_is_gone_is_named(lake: Lake, strict: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "facts" / "payees")
    own = lake.replay()
    assert own.headline.endswith("; 1 recorded context could not be compiled again")
    rows = lake.replay(policy=strict, context=strict).frame.collect()
    assert rows["cause"].to_list() == [None, "source_unreadable"]
    assert rows["missing"].to_list() == [[], ["payees"]]


def retrusted(root: Path) -> None:
    """Version 1 of the payees: trusted now."""
    rows = pa.table({"tenant": ["acme"], "iban": ["A"], "trusted": [True]})
    write_deltalake(str(root / "facts" / "payees"), rows, mode="overwrite")


def test_facts_at_another_version_of_a_source(lake: Lake, strict: Path, tmp_path: Path) -> None:
    """Under the recorded spec, and under another; a time holds for the sources that no version names."""
    retrusted(tmp_path)
    effects = {
        version: lake.replay(strict, versions={"payees": version}).frame.collect()["effect"].to_list()
        for version in (0, 1, "1")
    }
    assert effects == {0: ["same", "prevented"], 1: ["same"] * 2, "1": ["same"] * 2}
    now = datetime.now(UTC)
    several: list[dict[str, Any]] = [{"context": strict}, {"at": now}, {"at": now, "context": strict}]
    for axes in several:
        replay = lake.replay(strict, versions={"payees": 0}, **axes)
        assert replay.frame.collect()["effect"].to_list() == ["same", "prevented"]
    assert lake.replay(strict, at=now).frame.collect()["effect"].to_list() == ["same", "same"]
    replay = lake.replay(strict, versions={"payees": 0}, at=now)
    assert replay.context == f"recorded spec, payees at version 0, other sources at {now.isoformat()}"
    assert (replay.pins["versions"], replay.pins["at"]) == ({"payees": "0"}, now.isoformat())
    own = lake.replay()
    assert not {"versions", "at", "sources", "spec", "limits"} & own.pins.keys()


def test_versions_of_a_sweep(lake: Lake, strict: Path, tmp_path: Path) -> None:
    retrusted(tmp_path)
    for engine in ("auto", "rows"):
        found = [
            lake.sweep(strict, versions={"payees": version}, engine=engine).frame.collect()["block"].to_list()
            for version in (0, 1)
        ]
        assert found == [[1], [0]]


@pytest.mark.parametrize(
    ("versions", "told"),
    [
        ({"payee": 0}, r"a source `payee` that no fact is asked of; did you mean `payees`\?"),
        ({"hotels": 0}, "the sources are `customers`, `payees`"),
        ({"payees": 7}, r"facts/payees' has versions up to 0, not 7"),
        ({"payees": "last"}, "is a whole number, got 'last'"),
        ({"payees": -1}, "a version is a whole number or a text"),
        ({"payees": True}, "a version is a whole number or a text"),
        (12, "`versions` maps sources to versions"),
    ],
)
def test_versions_that_cannot_be_read(lake: Lake, strict: Path, versions: Any, told: str) -> None:
    for context in ("recorded", strict):
        with pytest.raises(ReplayFailure, match=told):
            lake.replay(strict, versions=versions, context=context)


def test_a_sql_table_has_no_versions(lake: Lake, tmp_path: Path) -> None:
    spec = FACTS.replace(
        '[sources.payees]\nkind = "delta"', '[sources.payees]\nkind = "sql"\ntable = "payees"'
    )
    other = bundle(tmp_path / "other", STRICT, spec)
    with pytest.raises(ReplayFailure, match="SQL table without `version_query`: it has no versions"):
        lake.replay(other, context=other, versions={"payees": 1}, sources={"payees": "sqlite://"})
