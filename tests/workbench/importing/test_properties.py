"""Whatever a file holds: its rows are decisions or kept aside, and what is a decision replays as recorded."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workbench as wb
from runtime.evidence import broken_links
from runtime.lake import LakeStore
from runtime.trace import DECISIONS, OUTCOMES
from workbench.doctor_lake import lake_findings
from workbench.errors import MappingInvalid
from workbench.importing import import_calls

TOOLS = ["read", "send money", 'say "hi"', "a::b", "x{y}", "zeile\n", "\u202e", "é", "Tool", "\x00"]
NAMES = st.sampled_from(["a", "b", "c d", "é", "if", "", "\n", '"', "type", "id", "__entity"])
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.integers(-(2**64), 2**64), st.sampled_from([0.5, 1.0, 1e-5, 1e300]),
    st.text(max_size=5), st.sampled_from(["a", "\u202e", "\x00", "1.5"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
ARGS: st.SearchStrategy[Any] = st.one_of(
    st.dictionaries(NAMES, VALUES, max_size=4), st.dictionaries(NAMES, VALUES, max_size=4).map(json.dumps),
    st.sampled_from([None, "{", "[]", '{"a": 1, "a": 2}', "{}"]),
)  # fmt: skip
ROW = st.fixed_dictionaries(
    {
        "session": st.sampled_from(["s", "t", "ü", None]),
        "tenant": st.sampled_from(["acme", "", "a/b", "x" * 300]),
        "tool": st.sampled_from(TOOLS),
        "args": ARGS,
        "at": st.sampled_from([None, 0, 1_700_000_000, 1_600_000_000.5, "2024-02-29T12:00:00+02:00", "soon"]),
        "ran": st.sampled_from([True, False, None, "true", 0, "maybe"]),
        "error": st.sampled_from([None, "", "ValueError: no", "boom", True, False]),
        "result": VALUES,
        "verdict": st.sampled_from([None, "allow", "deny"]),
        "cost": st.sampled_from([None, 0, 0.1, -1, "1.5"]),
    }
)
MAPPING: dict[str, Any] = {
    "version": 1,
    "call": {"session": "{session}", "tool": "{tool}", "tenant": "t-{tenant}", "args": "args"},
    "time": {"at": "at"},
    "outcome": {
        "executed": "ran",
        "error": "error",
        "result": "result",
        "result_format": "json",
        "cost": "cost",
    },
    "verdict": {"column": "verdict", "refused": ["deny"]},
    "labels": [{"name": "said", "column": "verdict", "of": "session"}, {"name": "origin", "column": "error"}],
}


def check(rows: list[dict[str, Any]], folder: Path) -> None:
    (folder / "calls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        found = import_calls(folder / "calls.jsonl", MAPPING, folder / "lake")
    except MappingInvalid as exc:
        assert "no row could be mapped" in str(exc)  # noqa: PT017 - the other way out
        return
    assert found.mapped + found.kept_aside == found.rows == len(rows)
    assert sum(found.outcomes.values()) == found.mapped
    lake = wb.open(str(found.lake))
    for engine in ("rows", "columnar"):
        replay = lake.replay(engine=engine)
        frame = replay.frame.collect()
        assert frame.filter(pl.col("effect") != "same").is_empty()
        assert replay.counts()["decidable"] == replay.counts()["decisions_decided"] == found.mapped
    assert [each for each in lake_findings(str(found.lake)) if each.status == "bad"] == []
    _ledger_order(str(found.lake))


def _ledger_order(uri: str) -> None:
    """Positions have no gap, the chain holds, and a session's calls stand in the order of their steps and times."""
    store = LakeStore(uri)
    both = {table.name: pl.from_arrow(store.read(table)) for table in (DECISIONS, OUTCOMES)}
    frames = {name: frame for name, frame in both.items() if isinstance(frame, pl.DataFrame)}
    rows = [
        (name, row)
        for name, frame in frames.items()
        for row in frame.with_columns(pl.col(pl.Datetime("us", "UTC")).dt.epoch("us")).to_dicts()
    ]
    assert broken_links(rows) == []
    assert sorted(row["position"] for _, row in rows) == list(range(1, len(rows) + 1))
    ordered = frames["decisions"].sort("position")
    for _, mine in ordered.group_by("tenant", "session_id", maintain_order=True):
        assert mine["step"].is_sorted()
        assert mine["step"].n_unique() == mine.height
        calls = [json.loads(state)["calls"] for state in mine["session_state"]]
        assert calls == list(range(mine.height))


@pytest.mark.slow
@settings(max_examples=12)
@given(st.lists(ROW, min_size=1, max_size=12))
def test_any_file(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(rows, Path(folder))


@pytest.mark.fuzz
@settings(max_examples=1_000)
@given(st.lists(ROW, min_size=1, max_size=40))
def test_any_file_at_length(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(rows, Path(folder))
