"""Lakes of an older schema: read as they are, upgraded by the first row of this version, exactly once whoever races.

`golden/lake_v1` was written by the release before version 2; `golden/make_lake_v1.py` says what is in it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from deltalake.table import TableAlterer

from runtime.arrow import arrow_schema, to_arrow
from runtime.drain import app_id, drain
from runtime.errors import CommitConflict, LedgerCorrupt, LedgerTooNew
from runtime.evidence import broken_links
from runtime.lake import VERSION_KEY, Behind, LakeStore
from runtime.ledger import Ledger
from runtime.testing import context, decision, execution
from runtime.trace import CONTEXTS, DECISIONS, DRAINED, OUTCOMES, SCHEMA_VERSION, SCORES, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GOLDEN = Path(__file__).parent / "golden" / "lake_v1"
LATER = {
    DECISIONS.name: ("effect", "writes", "grants", "approval"),
    OUTCOMES.name: ("reason_code", "guards", "cost_micros", "input_tokens", "output_tokens", "details"),
}
"""Columns that version 2 added."""
EVERYTHING = (0, 2**62, 100_000)


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """Return a copy of the golden lake, writable."""
    shutil.copytree(GOLDEN, tmp_path / "lake")
    return LakeStore(tmp_path / "lake", write=True)


@pytest.fixture
def ledger(store: LakeStore) -> Iterator[Ledger]:
    """Open the golden lake's own ledger, which holds rows that were not drained."""
    with Ledger.open(Path(store.uri) / "_ledger.sqlite", create=False) as opened:
        yield opened


def act(ledger: Ledger) -> None:
    """Write a decision and its outcome with columns of this version."""
    made = decision(tenant="acme", effect="compensable", writes=['Order::"o-1"', 'Order::"o-2"'], grants=[])
    ledger.commit(contents=[context("new")], evidence=[(DECISIONS, made)])
    ended = execution(made, reason_code="returned", cost_micros=7, guards="[]")
    ledger.commit(evidence=[(OUTCOMES, ended)])


def chain_of(store: LakeStore) -> list[tuple[str, dict[str, Any]]]:
    """Every row of the chain, as it was hashed."""
    return [(table.name, row) for table in (DECISIONS, OUTCOMES) for row in plain(store.read(table))]


def plain(rows: pa.Table) -> list[dict[str, Any]]:
    """Rows as dicts, timestamps as microseconds."""
    times = [
        field.with_type(pa.int64()) if pa.types.is_timestamp(field.type) else field for field in rows.schema
    ]
    return list(rows.cast(pa.schema(times)).to_pylist())


def assert_lake_is_ledger(ledger: Ledger, store: LakeStore) -> None:
    """Every row of the ledger is in the lake, as it was written, and once; the chain read from there is whole."""
    for table in DRAINED:
        rows = [row for _, row in ledger.rows_after(table, *EVERYTHING)]
        by_key = [(table.key, "ascending")]
        assert store.read(table).sort_by(by_key).equals(to_arrow(table, rows).sort_by(by_key)), table.name
    assert broken_links(chain_of(store)) == []
    positions = [row["position"] for _, row in chain_of(store)]
    assert sorted(positions) == list(range(1, ledger.extent()[0] + 1))


def assert_upgraded(store: LakeStore, table: Table) -> None:
    assert store.behind(table) is None
    handle = store.table(table)
    assert handle is not None
    assert handle.metadata().configuration[VERSION_KEY] == str(SCHEMA_VERSION)
    assert {field.name for field in handle.schema().fields} == set(arrow_schema(table).names)


# -- reading ---------------------------------------------------------------------------------------------------


def test_an_older_lake_is_read_as_it_is(store: LakeStore) -> None:
    for table in DRAINED:
        found = LakeStore(store.uri).read(table)
        assert found.schema == arrow_schema(table)
        assert found.num_rows > 0
        assert {name: found[name].null_count for name in LATER.get(table.name, ())} == dict.fromkeys(
            LATER.get(table.name, ()), found.num_rows
        )
    assert broken_links(chain_of(store)) == []
    assert {row["schema_version"] for _, row in chain_of(store)} == {1}


def test_only_columns_that_are_not_there_may_be_asked_for(store: LakeStore) -> None:
    found = store.read(DECISIONS, ["writes", "effect"])
    assert found.schema.names == ["writes", "effect"]
    assert found.num_rows == store.read(DECISIONS, ["tenant"]).num_rows == 38


def test_what_an_upgrade_would_change_is_told(store: LakeStore) -> None:
    told = {table.name: store.behind(table) for table in DRAINED}
    assert told == {table.name: Behind(1, LATER.get(table.name, ())) for table in DRAINED}
    assert store.behind(SCORES) is None  # not there


def test_reading_upgrades_nothing(store: LakeStore) -> None:
    before = {path: path.read_bytes() for path in Path(store.uri).rglob("*") if path.is_file()}
    for table in DRAINED:
        LakeStore(store.uri).read(table)
        LakeStore(store.uri).behind(table)
    assert {path: path.read_bytes() for path in Path(store.uri).rglob("*") if path.is_file()} == before


def test_a_column_that_every_version_has_is_never_made_up(tmp_path: Path) -> None:
    store = LakeStore(tmp_path / "lake", write=True)
    less = Table(CONTEXTS.name, CONTEXTS.doc, CONTEXTS.columns[:1], CONTEXTS.key, content_addressed=True)
    store.append(less, pa.table({"context_hash": ["00"]}))
    with pytest.raises(LedgerCorrupt, match="lacks 'context'"):
        store.read(CONTEXTS)


# -- the first row of this version -----------------------------------------------------------------------------


def test_a_drain_upgrades_and_loses_nothing(store: LakeStore, ledger: Ledger) -> None:
    old = {row["hash"] for _, row in chain_of(store)}
    act(ledger)
    report = drain(ledger, store)
    assert report.rows["decisions"] > 1, "rows of version 1 that were in the ledger only come along"
    assert_lake_is_ledger(ledger, store)
    rows = [row for _, row in chain_of(store)]
    assert old < {row["hash"] for row in rows}
    assert {row["schema_version"] for row in rows} == {1, 2}
    for table in DRAINED:
        assert_upgraded(store, table)
    found = {row["effect"]: row["writes"] for row in store.read(DECISIONS, ["effect", "writes"]).to_pylist()}
    assert found == {None: None, "compensable": ['Order::"o-1"', 'Order::"o-2"']}
    assert drain(ledger, store).rows == {}


def test_an_older_release_refuses_an_upgraded_lake_by_name(
    store: LakeStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain(ledger, store)
    monkeypatch.setattr("runtime.lake.SCHEMA_VERSION", 1)  # as the release before has it
    for table in DRAINED:
        with pytest.raises(LedgerTooNew, match="schema version 2, this redecide reads up to 1"):
            LakeStore(store.uri).read(table)


@pytest.mark.parametrize("half", ["property", "columns"])
def test_a_table_found_half_way_is_read_and_completed(store: LakeStore, ledger: Ledger, half: str) -> None:
    handle = store.table(DECISIONS)
    assert handle is not None
    if half == "property":
        handle.alter.set_table_properties({VERSION_KEY: "2"}, raise_if_not_exists=False)
    else:
        store.create(DECISIONS)
        handle = store.table(DECISIONS)
        assert handle is not None
        handle.alter.set_table_properties({VERSION_KEY: "1"}, raise_if_not_exists=False)
    assert store.behind(DECISIONS) == (Behind(2, LATER["decisions"]) if half == "property" else Behind(1, ()))
    assert store.read(DECISIONS).num_rows == 38
    act(ledger)
    drain(ledger, store)
    assert_upgraded(store, DECISIONS)
    assert_lake_is_ledger(ledger, store)


# -- races -----------------------------------------------------------------------------------------------------


def test_a_writer_of_before_the_upgrade_is_refused(store: LakeStore, ledger: Ledger) -> None:
    """It holds a handle from before, with the right sequence: what an older release's paused drainer holds."""
    handle = store.table(DECISIONS)
    assert handle is not None
    drain(ledger, store)
    rows = store.read(DECISIONS).slice(0, 1).select([field.name for field in handle.schema().fields])
    with pytest.raises(CommitConflict):
        store.append(DECISIONS, rows, app=(app_id(ledger.id, DECISIONS), 10**6), handle=handle)
    with pytest.raises(CommitConflict):
        store.append(DECISIONS, rows, app=("another", 1), handle=handle)
    assert_lake_is_ledger(ledger, store)


STOPS = [f"{name}:{when}" for name in ("set_table_properties", "add_columns") for when in ("before", "after")]


@pytest.mark.parametrize("stop", STOPS)
def test_whoever_upgrades_meanwhile_the_rows_are_there_once(
    store: LakeStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    """Another drainer does all of the work just before or after a commit of this one's upgrade."""
    act(ledger)
    left = once(monkeypatch, stop, lambda: drain(ledger, store))
    monkeypatch.setattr("runtime.drain._take_lease", lambda *_: None)  # the lease only saves work
    drain(ledger, store)
    assert not left
    assert_lake_is_ledger(ledger, store)
    assert_upgraded(store, DECISIONS)


@pytest.mark.parametrize("stop", STOPS)
def test_an_upgrade_that_dies_is_completed_by_the_next(
    store: LakeStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    class Died(BaseException):
        pass

    def die() -> None:
        raise Died

    act(ledger)
    once(monkeypatch, stop, die, of="decisions")
    with pytest.raises(Died):
        drain(ledger, store)
    assert store.read(DECISIONS).num_rows == 38
    assert broken_links(chain_of(store)) == []
    begun, ended = stop != STOPS[0], stop == STOPS[-1]
    told = Behind(2 if begun else 1, LATER["decisions"])
    assert store.behind(DECISIONS) == (None if ended else told), "older readers are shut out first"
    drain(ledger, store)
    assert_lake_is_ledger(ledger, store)
    assert_upgraded(store, DECISIONS)


@pytest.mark.parametrize("stop", STOPS)
def test_rows_of_another_ledger_may_come_in_between(
    store: LakeStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stop: str
) -> None:
    with Ledger.open(tmp_path / "other.sqlite") as other:
        act(ledger)
        act(other)
        left = once(monkeypatch, stop, lambda: drain(other, store))
        drain(ledger, store)
        assert not left
        found = [row["writer"] for row in plain(store.read(DECISIONS, ["writer"]))]
        assert found.count(other.id) == 1
        assert found.count(ledger.id) == len(list(ledger.rows_after(DECISIONS, *EVERYTHING)))
        assert broken_links(chain_of(store)) == []


def once(
    monkeypatch: pytest.MonkeyPatch, stop: str, action: Callable[[], object], *, of: str = ""
) -> list[Callable[[], object]]:
    """Do something once, before or after the commit of that name (on a table, if one is named); what is left to do."""
    name, _, when = stop.partition(":")
    real, left = getattr(TableAlterer, name), [action]

    def stopped(self: Any, *args: Any, **kwargs: Any) -> None:
        mine = self.table.table_uri.rstrip("/").endswith(of)
        if left and mine and when == "before":
            left.pop()()
        real(self, *args, **kwargs)
        if left and mine and when == "after":
            left.pop()()

    monkeypatch.setattr(TableAlterer, name, stopped)
    return left
