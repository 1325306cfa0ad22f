"""Opening a lake: real Delta tables, written as the drain writes them, read at a pin."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from runtime import trace
from runtime.bundle import bundle_from_files
from runtime.canonical import sha256
from runtime.evidence import CHAIN_COLUMNS, chain
from runtime.lake import LEDGER_FILE, VERSION_KEY, LakeStore
from workbench.errors import (
    BundleNotFound,
    LakeEmpty,
    LakeError,
    LakeNotFound,
    PinUnreachable,
    SchemaMismatch,
    WorkbenchError,
)
from workbench.lake import Lake, open_lake
from workbench.pins import Pins, heads, pinned

if TYPE_CHECKING:
    from collections.abc import Mapping

FILES = {
    "policies.cedar": '@id("may")\npermit (principal, action, resource);\n',
    "schema.cedarschema": "entity Agent;\nentity Order;\n"
    'action "refund" appliesTo { principal: [Agent], resource: [Order], context: { args: { note?: String } } };\n',
}
BUNDLE = bundle_from_files(FILES, "support")
EPOCH = datetime(2026, 11, 1, tzinfo=UTC)
MINUTE = 60_000_000
BLANKS: dict[str, Any] = {"string": "", "int32": 1, "int64": 0, "list<string>": [], "list<policy_error>": []}


class Writer:
    """A ledger's worth of rows, chained, on their way into a lake."""

    def __init__(self, store: LakeStore, ident: str = "ledger-1") -> None:
        self.store, self.ident = store, ident
        self.position, self.last = 0, trace.GENESIS

    def row(self, table: trace.Table, **values: Any) -> dict[str, Any]:
        """Return the next row of the chain; what is required and not given is blank."""
        self.position += 1
        now = int(EPOCH.timestamp()) * 1_000_000 + self.position * MINUTE
        required = [
            column for column in table.columns if column.required and column.name not in CHAIN_COLUMNS
        ]
        body = {
            column.name: now if column.dtype == "timestamp" else BLANKS[column.dtype] for column in required
        }
        row = chain(table, body | values, self.ident, self.position, self.last)
        self.last = str(row["hash"])
        return row

    def decision(self, session: str = "s-1", tenant: str = "acme", **values: Any) -> dict[str, Any]:
        known = {"kind": "call", "verdict": "allow", "tool": "refund", "bundle_version": BUNDLE.version}
        return self.row(
            trace.DECISIONS,
            **{"decision_id": f"{self.ident}-d{self.position + 1}", "session_id": session, "tenant": tenant}
            | known
            | {"principal_type": "Agent", "principal_id": "bot"}
            | values,
        )

    def label(
        self, name: str, value: str, session: str = "s-1", tenant: str = "acme", **values: Any
    ) -> dict[str, Any]:
        ident = {"outcome_id": f"{self.ident}-o{self.position + 1}", "kind": "label", "session_id": session}
        return self.row(
            trace.OUTCOMES, **ident, tenant=tenant, label=name, value=value, source="test", **values
        )

    def ended(self, decision: str, status: str | None, **values: Any) -> dict[str, Any]:
        """Return an outcome of a decision of the first session."""
        ident = {"outcome_id": f"{self.ident}-o{self.position + 1}", "kind": "execution", "session_id": "s-1"}
        more = {"tenant": "acme", "decision_id": decision, "status": status}
        return self.row(trace.OUTCOMES, **ident | more | values)

    def put(self, table: trace.Table, *rows: Mapping[str, Any]) -> None:
        self.store.append(table, list(rows))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "a lake"


@pytest.fixture
def writer(place: Path) -> Writer:
    return Writer(LakeStore(place, write=True))


@pytest.fixture
def filled(writer: Writer) -> Writer:
    """Five decisions of two tenants and three labels: positions 1 to 8, in three commits."""
    writer.put(trace.POLICIES, *BUNDLE.row_dicts())
    rows = [writer.decision(), writer.decision("s-2", "blue"), writer.decision(verdict="block")]
    labels = [writer.label("origin", "user", decision_id="ledger-1-d1"), writer.label("scenario", "honest")]
    late = [writer.decision("s-3"), writer.decision("s-3", tool="ship")]
    correction = writer.label("origin", "attack", decision_id="ledger-1-d1")
    writer.put(trace.DECISIONS, *reversed(late))
    writer.put(trace.DECISIONS, *rows)
    writer.put(trace.OUTCOMES, *labels, correction)
    return writer


def ids(frame: pl.LazyFrame) -> list[str]:
    return frame.select("decision_id").collect().to_series().to_list()


# -- rows ------------------------------------------------------------------------------------------------------


def test_rows_come_in_the_order_they_became_durable(filled: Writer, place: Path) -> None:
    lake = open_lake(place)
    assert ids(lake.decisions) == [f"ledger-1-d{n}" for n in (1, 2, 3, 6, 7)]
    assert lake.outcomes.collect()["position"].to_list() == [4, 5, 8]
    assert isinstance(lake.decisions, pl.LazyFrame)
    assert lake.decisions.collect_schema().names() == [column.name for column in trace.DECISIONS.columns]


@pytest.mark.parametrize("table", trace.TABLES, ids=lambda table: table.name)
def test_every_table_can_be_read_also_where_nothing_was_written(
    filled: Writer, place: Path, table: trace.Table
) -> None:
    frame = getattr(open_lake(place), table.name)
    assert frame.collect_schema().names() == [column.name for column in table.columns]
    assert frame.collect().height == {"decisions": 5, "outcomes": 3, "policies": 2}.get(table.name, 0)


def test_content_comes_once_a_key_whatever_doubles_there_are(filled: Writer, place: Path) -> None:
    rows = [{"context_hash": sha256(text), "context": text} for text in ("b", "a", "b")]
    filled.put(trace.CONTEXTS, *rows)
    filled.put(trace.CONTEXTS, rows[1])
    found = open_lake(place).contexts.collect()
    assert found.rows() == sorted((sha256(text), text) for text in ("a", "b"))


@pytest.mark.parametrize("folder", ["lake", "my lake", "é#?", "day=1/lake", "tenant=x/my lake", "*"])
def test_a_lake_may_be_in_any_folder(tmp_path: Path, folder: str) -> None:
    place = tmp_path / folder
    writer = Writer(LakeStore(place, write=True))
    writer.put(trace.POLICIES, *BUNDLE.row_dicts())
    writer.put(trace.DECISIONS, *(writer.decision(tenant=tenant) for tenant in ("x y", "", "a/b", "d%20=é")))
    lake = open_lake(place)
    assert lake.decisions.collect()["tenant"].to_list() == ["x y", "", "a/b", "d%20=é"]
    assert ids(lake.decisions.filter(pl.col("tenant") == "a/b")) == ["ledger-1-d3"]
    assert lake.decisions.select("tool").collect()["tool"].to_list() == ["refund"] * 4
    assert lake.bundle(BUNDLE.version).version == BUNDLE.version


@pytest.mark.parametrize("tenant", ["", "a/b", "c d%20=é", '<b>"x"</b>', "tenant=1", "..", "日本"])
def test_a_tenant_may_have_any_name(writer: Writer, place: Path, tenant: str) -> None:
    writer.put(trace.DECISIONS, writer.decision(tenant=tenant), writer.decision(tenant="plain"))
    lake = open_lake(place)
    assert lake.decisions.collect()["tenant"].to_list() == [tenant, "plain"]
    assert ids(lake.decisions.filter(pl.col("tenant") == tenant)) == ["ledger-1-d1"]
    assert lake.sessions.collect()["tenant"].sort().to_list() == sorted([tenant, "plain"])


def test_a_table_of_an_older_schema_lacks_columns_which_are_null(filled: Writer, place: Path) -> None:
    path = place / trace.SCORES.name
    pl.DataFrame({"row_id": ["r"], "replay_id": ["x"]}).write_delta(path)
    found = open_lake(place).scores.collect()
    assert found.row(0, named=True) | {"row_id": "r", "replay_id": "x"} == found.row(0, named=True)
    assert found["score"].to_list() == [None]
    assert found.schema["score"] == pl.Float64


# -- pins ------------------------------------------------------------------------------------------------------


def test_what_arrives_later_is_not_seen(filled: Writer, place: Path) -> None:
    lake = open_lake(place)
    before = ids(lake.decisions), lake.labels.collect().rows()
    filled.put(trace.DECISIONS, filled.decision("s-9"))
    filled.put(trace.OUTCOMES, filled.label("origin", "user", decision_id="ledger-1-d1"))
    assert (ids(lake.decisions), lake.labels.collect().rows()) == before
    assert lake.pins.ledgers == {"ledger-1": 8}
    assert open_lake(place).pins.ledgers == {"ledger-1": 10}
    again = open_lake(place, at=json.loads(json.dumps(lake.pins.as_dict())))
    assert (ids(again.decisions), again.labels.collect().rows()) == before
    assert again.held_back == {"ledger-1": 2}


def test_a_pin_outlives_compaction_and_vacuum(filled: Writer, place: Path) -> None:
    lake = open_lake(place)
    before, pins = lake.decisions.collect(), lake.pins.as_dict()
    table = DeltaTable(place / "decisions")
    table.optimize.compact()
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert lake.decisions.collect().equals(before)
    assert open_lake(place, at=pins).decisions.collect().equals(before)
    assert open_lake(place).pins.delta["decisions"] > pins["delta"]["decisions"]


def test_a_half_drained_tail_waits(filled: Writer, place: Path) -> None:
    """A drain writes decisions before outcomes: 9 is an outcome that is not there yet."""
    late = filled.label("origin", "user")
    filled.put(trace.DECISIONS, filled.decision("s-4"))
    lake = open_lake(place)
    assert lake.pins.ledgers == {"ledger-1": 8}
    assert lake.held_back == {"ledger-1": 2}
    assert "2 positions beyond the pin" in repr(lake)
    filled.put(trace.OUTCOMES, late)
    assert open_lake(place).pins.ledgers == {"ledger-1": 10}


def test_ledgers_are_pinned_apart(filled: Writer, place: Path) -> None:
    other = Writer(filled.store, "ledger-2")
    other.put(trace.DECISIONS, other.decision("z"), other.decision("z"))
    lake = open_lake(place, at={"ledger-2": 1})
    assert ids(lake.decisions) == ["ledger-2-d1"]
    assert lake.held_back == {"ledger-1": 8, "ledger-2": 1}
    assert [row["writer"] for row in open_lake(place).decisions.collect().to_dicts()] == ["ledger-1"] * 5 + [
        "ledger-2"
    ] * 2


@pytest.mark.parametrize(
    ("pin", "says"),
    [
        ({"ledger-1": 9}, "up to position 8, the pin asks for 9"),
        ({"ledger-7": 1}, "no ledger 'ledger-7'; it has ledger-1"),
    ],
)
def test_a_pin_that_the_lake_cannot_honour(
    filled: Writer, place: Path, pin: dict[str, int], says: str
) -> None:
    with pytest.raises(PinUnreachable, match=says):
        open_lake(place, at=pin)


@pytest.mark.parametrize("pin", [{"ledgers": 3}, {"a": "b"}, {"a": True}, 5])
def test_what_is_no_pin(pin: Any) -> None:
    with pytest.raises(ValueError, match="maps ledger ids to positions"):
        pinned(pin)


def test_a_pin_may_hold_nothing() -> None:
    assert pl.DataFrame({"writer": ["w"], "position": [1]}).filter(Pins({}).holds).height == 0


@given(
    st.dictionaries(st.sampled_from("ab"), st.sets(st.integers(1, 30), min_size=1).map(sorted), min_size=1)
)
def test_heads_are_the_ends_of_what_is_complete(ledgers: dict[str, list[int]]) -> None:
    def expected(positions: list[int]) -> tuple[int, int]:
        end = positions[0]
        while end + 1 in positions:
            end += 1
        return end, positions[-1]

    rows = [(writer, position) for writer, positions in ledgers.items() for position in positions]
    frame = pl.LazyFrame(rows, schema={"writer": pl.String, "position": pl.Int64}, orient="row")
    assert heads(frame) == {writer: expected(positions) for writer, positions in ledgers.items()}


# -- labels, sessions, bundles ---------------------------------------------------------------------------------


def test_the_last_label_holds_and_tenants_do_not_mix(filled: Writer, place: Path) -> None:
    filled.put(trace.OUTCOMES, filled.label("scenario", "hijacked", tenant="blue"))
    found = open_lake(place).labels.collect()
    said = {(row["tenant"], row["decision_id"], row["label"]): row["value"] for row in found.to_dicts()}
    assert said == {
        ("acme", "ledger-1-d1", "origin"): "attack",
        ("acme", None, "scenario"): "honest",
        ("blue", None, "scenario"): "hijacked",
    }


def test_sessions(filled: Writer, place: Path) -> None:
    filled.put(trace.DECISIONS, filled.decision(kind="shadow"))
    rows = open_lake(place).sessions.collect().to_dicts()
    assert [(row["tenant"], row["session_id"], row["decisions"]) for row in rows] == [
        ("acme", "s-1", 2), ("blue", "s-2", 1), ("acme", "s-3", 2),
    ]  # fmt: skip
    assert rows[0]["principal"] == 'Agent::"bot"'
    assert (rows[0]["allow"], rows[0]["block"]) == (1, 1)
    assert rows[2]["tools"] == ["refund", "ship"]
    assert rows[0]["started_at"] < rows[0]["ended_at"]


def test_a_bundle_comes_back_from_its_texts(filled: Writer, place: Path) -> None:
    lake = open_lake(place)
    bundle = lake.bundle(BUNDLE.version[:8])
    assert (bundle.version, bundle.name, dict(bundle.files)) == (
        BUNDLE.version,
        "support",
        dict(BUNDLE.files),
    )
    assert lake.find_bundle(BUNDLE.version) is lake.find_bundle(BUNDLE.version)
    assert lake.find_bundle(BUNDLE.version[:8]) is None
    assert lake.bundles.collect().to_dicts()[0]["files"] == sorted(BUNDLE.files)


@pytest.mark.parametrize("version", ["", "abc", "0" * 64])
def test_a_bundle_that_is_not_there(filled: Writer, place: Path, version: str) -> None:
    with pytest.raises(
        BundleNotFound, match=rf"no bundle of version '{version}'.*it has {BUNDLE.version[:12]}"
    ):
        open_lake(place).bundle(version)


def test_a_shortened_version_that_fits_two(filled: Writer, place: Path) -> None:
    row = BUNDLE.row_dicts()[0] | {"row_hash": "r", "bundle_version": BUNDLE.version[:-1] + "-"}
    filled.put(trace.POLICIES, row)
    with pytest.raises(BundleNotFound, match="2 bundles begin with version"):
        open_lake(place).bundle(BUNDLE.version[:12])


def test_texts_that_give_another_version_are_no_bundle(writer: Writer, place: Path) -> None:
    rows = BUNDLE.row_dicts()
    rows[0]["text"] = str(rows[0]["text"]).replace("permit", "forbid")
    writer.put(trace.POLICIES, *rows)
    writer.put(trace.DECISIONS, writer.decision())
    lake = open_lake(place)
    with pytest.raises(BundleNotFound, match="missing or were changed"):
        lake.bundle(BUNDLE.version)
    assert lake.find_bundle(BUNDLE.version) is None


# -- what is wrong with a path ---------------------------------------------------------------------------------


def test_nothing_is_there(place: Path) -> None:
    with pytest.raises(LakeNotFound, match=r"nothing is there.*redecide demo") as caught:
        open_lake(place)
    assert isinstance(caught.value, FileNotFoundError | WorkbenchError)
    assert not place.exists()


def test_a_file_is_no_lake(place: Path) -> None:
    place.write_text("")
    with pytest.raises(LakeNotFound, match="it is a file"):
        open_lake(place)


def test_a_folder_without_tables_is_no_lake(filled: Writer, place: Path) -> None:
    with pytest.raises(LakeNotFound, match=f"did you mean '{place}'"):
        open_lake(place.parent)


def test_a_table_is_no_lake(filled: Writer, place: Path) -> None:
    with pytest.raises(LakeNotFound, match=f"is one Delta table; open the lake it is in: '{place}'"):
        open_lake(place / "decisions")


def test_a_ledger_that_was_never_drained_is_an_empty_lake(tmp_path: Path) -> None:
    """What is left of a script that forgot `rt.drain()`."""
    (tmp_path / LEDGER_FILE).touch()
    with pytest.raises(LakeEmpty, match=r"no decision yet; drain the runtime \(`rt.drain\(\)`\)"):
        open_lake(tmp_path)


def test_a_lake_without_decisions_is_empty(writer: Writer, place: Path) -> None:
    writer.put(trace.POLICIES, *BUNDLE.row_dicts())
    with pytest.raises(LakeEmpty, match="no decision yet; drain"):
        open_lake(place)
    writer.store.create(trace.DECISIONS)
    with pytest.raises(LakeEmpty, match="no decision yet; drain"):
        open_lake(place)


def test_a_table_of_a_newer_schema_is_refused_by_name(filled: Writer, place: Path) -> None:
    table = DeltaTable(place / "outcomes")
    table.alter.set_table_properties({VERSION_KEY: "99"}, raise_if_not_exists=False)
    with pytest.raises(SchemaMismatch, match=r"outcomes.*schema version 99"):
        open_lake(place)


def test_a_damaged_table_is_named(filled: Writer, place: Path) -> None:
    for log in (place / "outcomes" / "_delta_log").iterdir():
        if log.is_file():
            log.write_text("{")
    with pytest.raises(LakeError, match="outcomes"):
        open_lake(place)


def test_a_url_and_a_path_name_the_same_lake(
    filled: Writer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.parent)
    assert open_lake(place.name).uri == str(place)
    assert ids(open_lake(str(place)).decisions) == ids(open_lake(Path(place.name)).decisions)


def test_a_file_url_is_a_lake_too(filled: Writer, place: Path) -> None:
    found = open_lake(place.as_uri())
    assert ids(found.decisions) == ids(open_lake(place).decisions)
    with pytest.raises(LakeNotFound, match="none of its children is a table of ours"):
        open_lake((place / "nothing").as_uri())


def test_a_store_that_cannot_be_reached_is_named_without_its_password() -> None:
    with pytest.raises(LakeError, match=r"nowhere://key:\*\*\*@host/lake") as caught:
        open_lake("nowhere://key:hunter2@host/lake")
    assert "hunter2" not in str(caught.value)


def test_opening_writes_nothing(filled: Writer, place: Path) -> None:
    def files() -> list[Path]:
        return sorted(place.rglob("*"))

    before = files()
    lake = open_lake(place)
    _ = (
        lake.decisions.collect(),
        lake.labels.collect(),
        lake.aliases.collect(),
        repr(lake),
        lake._repr_html_(),
    )
    assert files() == before


# -- how it shows itself ---------------------------------------------------------------------------------------


def test_repr_says_what_is_there(filled: Writer, place: Path) -> None:
    shown = repr(open_lake(place)).splitlines()
    assert shown[0] == f"Lake {place}"
    assert shown[1] == "  5 decisions in 3 sessions of 2 tenants, 2026-11-01 00:01 to 2026-11-01 00:07 UTC"
    assert shown[2] == "  verdicts: allow 4, block 1"
    assert shown[3] == "  outcomes: none yet 4"
    assert shown[4] == f"  bundle support {BUNDLE.version[:12]}: 5 decisions"
    assert shown[5] == "  labels: origin 1, scenario 1"
    assert shown[6] == "  pinned: ledger ledger-1 at position 8"


def test_of_several_outcomes_the_last_holds(filled: Writer, place: Path) -> None:
    """Positions say which: an approval and a label are no executions, whenever they come."""
    endings = [
        filled.ended("ledger-1-d1", "in_doubt"),
        filled.ended("ledger-1-d2", "compensated"),
        filled.ended("ledger-1-d1", "succeeded", reason_code="resolved"),
        filled.ended("ledger-1-d1", None, kind="approval", details="{}"),
        filled.label("origin", "attack", decision_id="ledger-1-d2"),
    ]
    filled.put(trace.OUTCOMES, *endings[::-1])
    lake = open_lake(place)
    found = lake.executions.select("decision_id", "status", "reason_code").collect().rows()
    assert found == [("ledger-1-d2", "compensated", None), ("ledger-1-d1", "succeeded", "resolved")]
    assert "  outcomes: compensated 1, succeeded 1, none yet 2" in repr(lake).splitlines()
    for said in ("compensated <strong>1", "succeeded <strong>1", "none yet <strong>2"):
        assert said in lake._repr_html_()
    assert lake.labels.collect().height == 3
    earlier = lake.at({"ledger-1": 9}).executions.collect()
    assert earlier.select("decision_id", "status").rows() == [("ledger-1-d1", "in_doubt")]


def test_nothing_in_a_lake_is_markup_or_a_terminal_code(writer: Writer, place: Path) -> None:
    evil = "<script>alert(1)</script>\x1b[2J"
    writer.put(trace.POLICIES, *(row | {"name": evil} for row in BUNDLE.row_dicts()))
    writer.put(trace.DECISIONS, writer.decision(evil, evil, verdict=evil))
    writer.put(trace.OUTCOMES, writer.label(evil, "x"))
    lake = open_lake(place)
    assert "<script>" not in lake._repr_html_()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u001b[2J" in lake._repr_html_()
    assert "\x1b" not in repr(lake) + lake._repr_html_()


def test_secrets_of_a_store_are_not_shown() -> None:
    store = LakeStore("/nonexistent", {"AWS_SECRET_ACCESS_KEY": "hunter2"})
    lake = Lake("s3://key:hunter2@bucket/lake", Pins({"w": 1}), store)
    with pytest.raises(BundleNotFound, match="bucket/lake") as caught:
        lake.bundle("abcd")
    assert "hunter2" not in str(caught.value) + repr(lake.pins) + repr(lake.store)
