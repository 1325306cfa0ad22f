"""What became of calls: every way in which a file can say it, and what is kept of results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import workbench as wb
from workbench.doctor_lake import lake_findings
from workbench.importing import import_calls
from workbench.importing.endings import ending_of
from workbench.importing.mapping_file import mapping_of

if TYPE_CHECKING:
    from pathlib import Path

CALL = {"session": "{s}", "tool": "{t}"}
OUTCOME: dict[str, Any] = {
    "executed": "ran", "error": "err", "result": "out", "status": "state",
    "statuses": {"done": "succeeded", "rolled back": "compensated", "nobody answered": "expired"},
}  # fmt: skip
VERDICT = {"column": "said", "reason": "why", "refused": ["deny", "0"]}


@pytest.mark.parametrize(
    ("row", "status", "code"),
    [
        ({}, None, None),
        ({"ran": True}, "succeeded", "returned"),
        ({"ran": "TRUE"}, "succeeded", "returned"),
        ({"ran": 0}, "aborted", "given_up"),
        ({"ran": True, "err": "boom"}, "failed", "raised"),
        ({"ran": True, "err": ""}, "succeeded", "returned"),
        ({"ran": True, "err": False}, "succeeded", "returned"),
        ({"ran": False, "err": "boom"}, "aborted", "raised"),
        ({"err": "boom"}, None, None),  # an error does not say whether it ran
        ({"said": "deny"}, "aborted", "guard_rejected"),
        ({"said": 0}, "aborted", "guard_rejected"),
        ({"said": "allow"}, None, None),
        ({"said": "deny", "ran": True}, "succeeded", "returned"),  # `executed` is believed
        ({"said": "deny", "ran": False, "err": "boom"}, "aborted", "guard_rejected"),
        ({"state": "done"}, "succeeded", "returned"),
        ({"state": "rolled back", "ran": True}, "compensated", None),
        ({"state": "nobody answered"}, "expired", "expired"),
    ],
)
def test_status(row: dict[str, Any], status: str | None, code: str | None) -> None:
    mapping = mapping_of({"version": 1, "call": CALL, "outcome": OUTCOME, "verdict": VERDICT})
    ending = ending_of(row, mapping)
    assert (ending.status, ending.columns.get("reason_code")) == (status, code)


def test_what_nobody_says_ran_only_if_the_mapping_says_so() -> None:
    mapping = mapping_of({
        "version": 1, "call": CALL, "outcome": {"error": "err", "otherwise": "ran"}, "verdict": VERDICT,
    })  # fmt: skip
    ends = [ending_of(row, mapping).status for row in ({}, {"err": "boom"}, {"said": "deny"})]
    assert ends == ["succeeded", "failed", "aborted"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"err": "KeyError: 'x'"}, ("KeyError", "'x'")),
        ({"err": "httpx.ReadTimeout: 5 s\nagain"}, ("httpx.ReadTimeout", "5 s\nagain")),
        ({"err": "no such order"}, ("RecordedError", "no such order")),
        ({"err": True, "out": "order is closed"}, ("RecordedError", "order is closed")),
        ({"err": True}, ("RecordedError", "the file says that it failed")),
        ({"err": {"code": 5}}, ("RecordedError", '{"code": 5}')),
    ],
)
def test_errors_in_words(row: dict[str, Any], told: tuple[str, str]) -> None:
    mapping = mapping_of({"version": 1, "call": CALL, "outcome": OUTCOME})
    columns = ending_of({"ran": True} | row, mapping).columns
    assert (columns["error_type"], columns["error_message"]) == told


@pytest.mark.parametrize("storage", ["full", "hash", "none"])
def test_results_are_kept_as_the_mapping_says(tmp_path: Path, storage: str) -> None:
    texts = ["short", "é" * 20_000, "é" * 20_000, None]
    frame = pl.DataFrame({"s": "a", "t": "f", "out": texts, "in": [5, None, 7, 8], "ms": [1.5, 20, None, 0]})
    outcome = {"otherwise": "ran", "result": "out", "result_storage": storage, "input_tokens": "in"}
    mapping = {"version": 1, "call": CALL, "outcome": outcome, "time": {"duration_ms": "ms"}}
    found = import_calls(frame, mapping, tmp_path / "lake")
    lake = wb.open(str(found.lake))
    rows = lake.outcomes.filter(pl.col("kind") == "execution").sort("position").collect()
    assert rows["result_storage"].to_list() == [storage, storage, storage, "none"]
    sizes = {"full": [7, 40_002, 40_002, None], "hash": [7, 40_002, 40_002, None], "none": [None] * 4}
    assert rows["result_bytes"].to_list() == sizes[storage]
    assert lake.blobs.collect().height == (1 if storage == "full" else 0)
    assert rows["input_tokens"].to_list() == [5, None, 7, 8]
    states = [json.loads(state) for state in lake.decisions.sort("step").collect()["session_state"]]
    assert [(state["input_tokens"], state["wall_ms"]) for state in states] == [
        (0, 0),
        (5, 2),
        (5, 22),
        (12, 22),
    ]
    assert [each for each in lake_findings(str(found.lake)) if each.status == "bad"] == []
    kept = rows["result"].to_list()
    full = ['"short"', '"' + "é" * 511, '"' + "é" * 511, None]  # the first KiB, cut between two characters
    assert kept == (full if storage == "full" else [None] * 4)
