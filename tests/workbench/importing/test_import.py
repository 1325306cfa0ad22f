"""A small file by hand: what each of its rows becomes, and that the lake is a lake like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import workbench as wb
from runtime.record import moment_of
from runtime.values import micros
from workbench.doctor_lake import lake_findings
from workbench.errors import LakeError, MappingInvalid
from workbench.importing import Imported, import_calls

DATA = Path(__file__).parent / "data"
SECOND = 1_000_000
BEGIN = micros(moment_of(946_684_800 * SECOND))


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    out = tmp_path_factory.mktemp("imported") / "lake"
    return import_calls(DATA / "calls.jsonl", DATA / "map.toml", out, runs=DATA / "runs.jsonl")


def decisions(imported: Imported) -> list[dict[str, Any]]:
    assert imported.lake is not None
    rows = wb.open(imported.lake).decisions.with_columns(pl.col("evaluated_at", "decided_at").dt.epoch("us"))
    return rows.sort("session_id", "step").collect().to_dicts()


def executions(imported: Imported) -> dict[tuple[str, int], dict[str, Any]]:
    assert imported.lake is not None
    steps = {row["decision_id"]: (row["session_id"], row["step"]) for row in decisions(imported)}
    found = wb.open(imported.lake).outcomes.filter(pl.col("kind") == "execution").collect().to_dicts()
    return {steps[row["decision_id"]]: row for row in found}


def test_every_row_is_a_decision_or_kept_aside(imported: Imported) -> None:
    assert (imported.rows, imported.mapped, imported.rejected) == (
        9,
        7,
        {"args_unreadable": 1, "mixed_types": 1},
    )
    assert imported.outcomes == {"aborted": 2, "failed": 1, "in doubt: no outcome": 1, "succeeded": 3}
    assert imported.labels == {
        "matched": 7, "recorded_reason": 1, "recorded_verdict": 6, "scenario": 2, "time": 2, "utility": 2,
    }  # fmt: skip
    assert (imported.sessions, imported.tenants, imported.tools, imported.derived_times) == (3, 1, 3, 4)
    assert imported.notes == ["Runs without an imported call: 1 of 4."]


def test_decisions_say_who_what_when(imported: Imported) -> None:
    rows = decisions(imported)
    said = [(row["session_id"], row["step"], row["tool"]) for row in rows]
    assert said == [
        ("a", 0, "read_order"), ("a", 1, "refund"), ("a", 2, "refund"),
        ("b", 0, "read_order"), ("b", 1, "refund"), ("b", 3, "refund"), ("c", 0, "close_ticket"),
    ]  # fmt: skip
    assert {(row["tenant"], row["principal_type"], row["principal_id"], row["kind"]) for row in rows} == {
        ("acme", "Agent", "bot", "call")
    }
    assert {(row["verdict"], row["reason_code"], tuple(row["determining"])) for row in rows} == {
        ("allow", "permitted", ("ungoverned",))
    }
    assert rows[1]["args"] == '{"amount":20,"note":"late","order_id":"o-1"}'
    assert json.loads(rows[1]["projection"])["amount"] == {"__extn": {"fn": "decimal", "arg": "20.0"}}
    assert [(row["resource_type"], row["resource_id"]) for row in (rows[0], rows[1])] == [
        ("Tool", "read_order"), ("Order", "o-1"),
    ]  # fmt: skip
    assert (rows[1]["effect"], rows[1]["writes"]) == ("idempotent", ['Ledger::"main"', 'Order::"o-1"'])
    assert (rows[0]["effect"], rows[0]["writes"]) == (None, None)


def test_times_are_read_or_derived(imported: Imported) -> None:
    rows = decisions(imported)
    read = micros(moment_of(1_772_355_600 * SECOND))  # 2026-03-01T09:00:00Z
    # Session `b` is the second one met, after the three rows of `a`; its third row was kept aside and left its place.
    at = [read + 250_750, read + 2 * SECOND, read + 3 * SECOND]
    at += [BEGIN + 3 * SECOND, BEGIN + 4 * SECOND, BEGIN + 5 * SECOND, BEGIN + 8 * SECOND]
    assert [row["decided_at"] for row in rows] == at
    assert [row["evaluated_at"] for row in rows] == [time // 1000 * 1000 for time in at]


def test_the_schema_is_what_the_calls_are(imported: Imported) -> None:
    schema = " ".join(imported.schema.split())
    assert '"amount": decimal, "note"?: String, "order_id": String,' in schema
    assert (
        'action "close_ticket" appliesTo { principal: [Agent], resource: [Tool], context: { args: { "ticket": Long, }, }, };'
        in schema
    )


def test_outcomes_are_honest(imported: Imported) -> None:
    found = executions(imported)
    assert {place: (row["status"], row["reason_code"]) for place, row in found.items()} == {
        ("a", 0): ("succeeded", "returned"), ("a", 1): ("succeeded", "returned"),
        ("a", 2): ("aborted", "guard_rejected"), ("b", 0): ("succeeded", "returned"),
        ("b", 1): ("failed", "raised"), ("c", 0): ("aborted", "raised"),
    }  # fmt: skip
    assert json.loads(found["a", 2]["guards"]) == [
        {"guard": "the old guard", "passed": False, "reason": "twice the same"}
    ]
    assert (found["b", 1]["error_type"], found["b", 1]["error_message"]) == (
        "TimeoutError",
        "the shop did not answer",
    )
    assert (found["c", 0]["error_type"], found["c", 0]["error_message"]) == (
        "RecordedError",
        "no such ticket",
    )
    assert (found["a", 0]["result"], found["a", 1]["result"]) == ('{"cents":4200}', '"done"')
    assert [found["a", step]["cost_micros"] for step in range(3)] == [12_500, 1_000_000, None]


def test_counters_of_a_session_are_what_the_runtime_would_have(imported: Imported) -> None:
    states = [json.loads(row["session_state"]) for row in decisions(imported)]
    of = [(state["calls"], state["failures"], state["repeats"], state["cost_micros"]) for state in states]
    assert of == [(0, 0, 0, 0), (1, 0, 0, 12_500), (2, 0, 1, 1_012_500), (0, 0, 0, 0), (1, 0, 0, 0), (2, 1, 0, 0), (0, 0, 0, 0)]  # fmt: skip
    assert not any(
        {"wall_ms", "input_tokens"} & state.keys() for state in states
    )  # not reported is not nothing


def test_labels_are_of_calls_and_of_sessions(imported: Imported) -> None:
    assert imported.lake is not None
    labels = wb.open(imported.lake).outcomes.filter(pl.col("kind") == "label").collect()
    sessions = labels.filter(pl.col("decision_id").is_null())
    assert sorted(sessions.select("session_id", "label", "value").rows()) == [
        ("a", "scenario", "hijacked"), ("a", "utility", "true"), ("b", "scenario", "honest"), ("b", "time", "derived"),
        ("b", "utility", "false"), ("c", "time", "derived"),
    ]  # fmt: skip
    verdicts = labels.filter(pl.col("label") == "recorded_verdict").sort("session_id", "recorded_at")
    assert verdicts["value"].to_list() == ["allow", "allow", "deny", "allow", "allow", "error"]


@pytest.mark.parametrize("engine", ["rows", "columnar"])
def test_it_replays_as_recorded(imported: Imported, engine: Any) -> None:
    assert imported.lake is not None
    replay = wb.open(imported.lake).replay(engine=engine)
    counts = replay.counts()
    assert (counts["decidable"], counts["recompilable"], counts["decisions_decided"]) == (7, 7, 7)
    frame = replay.frame.sort("session_id", "step").collect()
    assert frame["effect"].to_list() == ["same"] * 7
    assert frame["then"].to_list() == ["ran", "ran", "taken_back", "ran", "ran", "in_doubt", "taken_back"]


def test_nothing_is_wrong_with_the_lake(imported: Imported) -> None:
    told = list(lake_findings(str(imported.lake)))
    assert [finding for finding in told if finding.status == "bad"] == []
    assert any(f.subject == "chain" and "none changed, missing, doubled or reordered" in f.text for f in told)


def test_a_broken_row_is_found(imported: Imported, tmp_path: Path) -> None:
    """The check above can fail: it sees a row that was changed after the import."""
    import shutil

    from deltalake import DeltaTable

    shutil.copytree(str(imported.lake), tmp_path / "lake")
    DeltaTable(tmp_path / "lake" / "outcomes").update(
        updates={"status": "'succeeded'"}, predicate="status = 'failed'"
    )
    assert any(f.status == "bad" and "changed" in f.text for f in lake_findings(str(tmp_path / "lake")))


def test_nothing_else_is_left_beside_it(imported: Imported) -> None:
    assert imported.lake is not None
    assert {path.name for path in imported.lake.parent.iterdir()} == {"lake", "lake-rejected.parquet"}


def test_rows_kept_aside_are_whole(imported: Imported) -> None:
    assert imported.rejected_file is not None
    aside = pl.read_parquet(imported.rejected_file)
    assert aside.select("row", "cause").rows() == [(6, "mixed_types"), (8, "args_unreadable")]
    lines = (DATA / "calls.jsonl").read_text().splitlines()
    assert [json.loads(record) for record in aside["record"]] == [json.loads(lines[5]), json.loads(lines[7])]


def test_a_candidate_meets_the_same_guard(imported: Imported, tmp_path: Path) -> None:
    """A refund above 15 does not run: what ran is prevented, what the old guard refused stays as it was."""
    assert imported.lake is not None
    import_calls(
        DATA / "calls.jsonl",
        DATA / "map.toml",
        tmp_path / "again",
        runs=DATA / "runs.jsonl",
        bundle_folder=tmp_path / "mine",
    )
    policy = '@id("small") forbid (principal, action == Action::"refund", resource) when { context.args.amount.greaterThan(decimal("15.0")) };'
    (tmp_path / "mine" / "small.cedar").write_text(policy)
    frame = wb.open(imported.lake).replay(policy=tmp_path / "mine").frame.sort("session_id", "step").collect()
    assert frame.select("verdict", "effect").rows()[:3] == [
        ("allow", "same"),
        ("block", "prevented"),
        ("block", "same"),
    ]


def test_the_same_file_gives_the_same_rows(imported: Imported, tmp_path: Path) -> None:
    again = import_calls(
        DATA / "calls.jsonl", DATA / "map.toml", tmp_path / "again", runs=DATA / "runs.jsonl"
    )
    one, two = wb.open(str(imported.lake)), wb.open(str(again.lake))
    for table in ("decisions", "outcomes"):
        hashes = [
            getattr(lake, table).sort("position").select("position", "hash").collect() for lake in (one, two)
        ]
        assert hashes[0].equals(hashes[1])


def test_a_frame_is_imported_like_its_file(imported: Imported, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (DATA / "calls.jsonl").read_text().splitlines()]
    again = import_calls(
        pl.DataFrame(rows),
        DATA / "map.toml",
        tmp_path / "again",
        runs=pl.DataFrame([json.loads(line) for line in (DATA / "runs.jsonl").read_text().splitlines()]),
    )
    assert {**again.as_dict(), "lake": 0, "rejected_file": 0} == {
        **imported.as_dict(),
        "lake": 0,
        "rejected_file": 0,
    }


def test_a_dry_run_writes_nothing_and_tells_the_same(
    imported: Imported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = import_calls(DATA / "calls.jsonl", DATA / "map.toml", None, runs=DATA / "runs.jsonl")
    assert list(tmp_path.iterdir()) == []
    assert {**told.as_dict(), "lake": 0, "rejected_file": 0} == {
        **imported.as_dict(),
        "lake": 0,
        "rejected_file": 0,
    }


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    with pytest.raises(LakeError, match="is there already"):
        import_calls(DATA / "calls.jsonl", DATA / "map.toml", tmp_path / "lake", runs=DATA / "runs.jsonl")
    with pytest.raises(LakeError, match="no local folder"):
        import_calls(DATA / "calls.jsonl", DATA / "map.toml", "s3://bucket/lake", runs=DATA / "runs.jsonl")


def test_an_import_that_fails_leaves_nothing(tmp_path: Path) -> None:
    frame = pl.DataFrame({"run": ["a"], "fn": [None]}, schema={"run": pl.String, "fn": pl.String})
    mapping = {"version": 1, "call": {"session": "{run}", "tool": "{fn}"}}
    with pytest.raises(MappingInvalid, match=r"no row could be mapped.*value_missing"):
        import_calls(frame, mapping, tmp_path / "lake")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        import_calls(pl.DataFrame({"run": ["a"], "fn": ["f"]}), mapping, tmp_path / "lake", told=_interrupt())
    assert list(tmp_path.iterdir()) == []


def _interrupt() -> Any:
    """Interrupts when rows are being written, after they were read."""
    told: list[int] = []

    def advance(done: int) -> None:
        told.append(done)
        if len(told) == 2:
            raise KeyboardInterrupt

    return advance


def test_loops_of_a_candidate_are_judged(tmp_path: Path) -> None:
    """What limits look at is recorded as the runtime records it: a call that came a third time in a row is refused."""
    frame = pl.DataFrame({"s": ["a"] * 6 + ["b"], "t": ["f", "f", "f", "g", "f", "g", "f"]})
    mapping = {"version": 1, "call": {"session": "{s}", "tool": "{t}"}}
    found = import_calls(frame, mapping, tmp_path / "lake", bundle_folder=tmp_path / "mine")
    looped = 'version = 2\n[[loop]]\nname = "again"\nmax_repeats = 1\nmax_period = 2\n'
    (tmp_path / "mine" / "limits.toml").write_text(looped)
    replay = wb.open(str(found.lake)).replay(limits=tmp_path / "mine")
    frame = replay.frame.sort("session_id", "step").select("verdict", "reason_code", "status").collect()
    loops = [
        place for place, row in enumerate(frame.iter_rows()) if row == ("block", "loop_detected", "decided")
    ]
    assert loops == [2]
    assert set(frame["status"]) == {"decided"}
