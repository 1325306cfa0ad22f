"""Why a row is kept aside: each cause by a row that has it, beside rows that are imported all the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import polars as pl
import pytest

import workbench as wb
from workbench.importing import Imported, import_calls
from workbench.importing.causes import CAUSES, Cause
from workbench.rows import RowEngine

MAPPING: dict[str, Any] = {
    "version": 1,
    "call": {
        "session": "{s}", "tool": "{t}", "tenant": "{tenant}", "principal": "Agent::{who}", "args": "args",
        "order": "n", "known_tools": ["f", "g"],
    },
    "time": {"at": "at"},
    "outcome": {"status": "status", "statuses": {"ok": "succeeded"}, "cost": "cost"},
    "tools": {"g": {"resource": "Thing::{id}"}},
    "missing": {"tenant": "acme", "who": "bot"},
}  # fmt: skip
GOOD: dict[str, Any] = {"s": "s-1", "t": "f", "n": 1, "args": '{"x": 1.5, "tags": ["a"]}', "status": "ok"}
"""A row that is imported; three of them set the types."""

ROWS: dict[Cause, list[dict[str, Any] | str]] = {
    "row_unreadable": ["{", "[1]", '"text"', '{"s": 1, "s": 2}'],
    "value_missing": [{"s": None}, {"s": ""}, {"t": None}],
    "text_unusable": [{"tenant": "x" * 300}, {"s": "\ud800"}, {"who": "\ud800"}, {"args": '{"x": "\\ud800"}'}],
    "no_such_tool": [{"t": "h"}],
    "order_unusable": [{"n": None}, {"n": "first"}, {"n": True}, {"n": [1]}],
    "time_unreadable": [{"at": "yesterday"}, {"at": True}, {"at": 1e300}, {"at": "0001-01-01"}, {"at": {"y": 1}}],
    "args_missing": [{"args": None}, {"args": " "}],
    "args_unreadable": [{"args": "{'x': 1}"}, {"args": '{"x": '}, {"args": "[" * 100_000}],
    "args_not_object": [{"args": "[1]"}, {"args": "null"}, {"args": [1]}, {"args": 5}],
    "member_doubled": [{"args": '{"x": 1, "x": 2}'}, {"args": '{"x": {"y": 1, "y": 1}}'}],
    "number_out_of_range": [
        {"args": '{"x": 9223372036854775808}'}, {"args": '{"x": NaN}'}, {"args": '{"x": 1e999}'},
        {"args": '{"x": ' + "9" * 5000 + "}"},
    ],
    "type_unsupported": [],
    "too_deep": [{"args": '{"x": ' + "[" * 50 + "]" * 50 + "}"}, {"args": '{"x":' * 40 + "1" + "}" * 40}],
    "float_not_exact": [{"args": '{"x": 0.00001}'}, {"args": '{"x": 1e15}'}],
    "mixed_types": [{"args": '{"x": "one"}'}, {"args": '{"x": [1]}'}, {"args": '{"tags": "a"}'}, {"args": '{"x": true}'},
                    {"args": '{"tags": 5}'}, {"args": '{"tags": [0.5]}'}, {"args": '{"tags": {"a": 1}}'}],
    "null_in_array": [{"args": '{"tags": ["a", null]}'}],
    "name_reserved": [{"args": '{"__extn": {"fn": "decimal", "arg": "1.0"}}'}],
    "resource_unresolved": [{"t": "g", "args": "{}"}, {"t": "g", "args": '{"id": null}'}, {"t": "g", "args": '{"id": ["a"]}'}],
    "outcome_unreadable": [{"status": "perhaps"}],
    "usage_unreadable": [{"cost": -1}, {"cost": "free"}, {"cost": float("inf")}, {"cost": True}],
    "not_decidable": [],
}  # fmt: skip


def lines(rows: list[dict[str, Any] | str]) -> str:
    texts = (row if isinstance(row, str) else json.dumps(GOOD | row) for row in rows)
    return "".join(f"{text}\n" for text in texts)


def done(tmp_path: Path, rows: list[dict[str, Any] | str], mapping: dict[str, Any] = MAPPING) -> Imported:
    known: dict[str, Any] = dict.fromkeys(
        ("at", "cost", "tenant", "who")
    )  # so that the file has every column
    (tmp_path / "calls.jsonl").write_text(lines([known, {}, {}, *rows]))
    return import_calls(tmp_path / "calls.jsonl", mapping, tmp_path / "lake")


def test_the_table_above_is_complete() -> None:
    assert tuple(ROWS) == get_args(Cause) == tuple(CAUSES)


@pytest.mark.parametrize("cause", [cause for cause, rows in ROWS.items() if rows])
def test_each_cause(tmp_path: Path, cause: Cause) -> None:
    rows = ROWS[cause]
    found = done(tmp_path, rows)
    assert (found.mapped, found.rejected) == (3, {cause: len(rows)})
    assert found.rejected_file is not None
    aside = pl.read_parquet(found.rejected_file)
    assert aside["row"].to_list() == [4 + place for place in range(len(rows))]
    assert aside["cause"].unique().to_list() == [cause]
    counts = wb.open(str(found.lake)).replay(engine="rows").counts()
    assert (counts["decisions"], counts["decidable"], counts["decisions_decided"]) == (3, 3, 3)


def test_all_at_once(tmp_path: Path) -> None:
    rows = [row for of in ROWS.values() for row in of]
    found = done(tmp_path, rows)
    assert found.rejected == {cause: len(of) for cause, of in ROWS.items() if of}
    assert found.mapped + found.kept_aside == found.rows == 3 + len(rows)
    page = found.markdown()
    assert all(cause in page.replace("\\", "") for cause, of in ROWS.items() if of)


def test_what_json_cannot_say(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"s": ["a", "a"], "t": ["f", "g"], "raw": [None, b"\x00"]}, schema_overrides={"raw": pl.Binary}
    )
    mapping = {"version": 1, "call": {"session": "{s}", "tool": "{t}", "args": {"data": "raw"}}}
    assert import_calls(frame, mapping, tmp_path / "lake").rejected == {"type_unsupported": 1}


def test_what_cedar_refuses_goes_aside_and_the_rest_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call that fits the schema is known to be refused, so the engine is told to answer for one that it is not there."""
    honest = RowEngine.run

    def run(self: RowEngine, jobs: Any) -> Any:
        from workbench.rows import Undecided

        found = honest(self, jobs)
        return [
            Undecided(("x",)) if job.request.step == 1 else one for job, one in zip(jobs, found, strict=True)
        ]

    with monkeypatch.context() as patched:
        patched.setattr(RowEngine, "run", run)
        found = done(tmp_path, [])
    assert (found.mapped, found.rejected) == (2, {"not_decidable": 1})
    lake = wb.open(str(found.lake))
    assert lake.decisions.sort("step").collect()["step"].to_list() == [0, 2]
    assert lake.replay(engine="rows").counts()["decidable"] == 2


@pytest.mark.parametrize(
    ("values", "type_", "aside"),
    [
        ([1, 2, 3], "Long", 0),
        ([1, 2.5, 3], "decimal", 0),
        ([1.0, 2.0], "Long", 0),  # JSON has one kind of number
        ([1, 2, 2.55555], "Long", 1),
        ([1.5, 2**62, 2**61], "Long", 1),  # more of them are integers beyond Cedar's decimal
        ([1, "a", "b"], "String", 1),
        ([1, "a"], "String", 1),
        ([True, False], "Bool", 0),
        ([[], []], "Set<String>", 0),
        ([[1], [2, 3], []], "Set<Long>", 0),
        ([[1, "a", "b"], ["c"]], "Set<String>", 1),
        ([{"a": 1}, {"a": 2, "b": None}], '{ "a": Long, }', 0),
        ([{"a": 1}, {"b": "x"}], '{ "a"?: Long, "b"?: String, }', 0),
        ([{}, {}], "{}", 0),
    ],
)
def test_the_type_that_holds_most(tmp_path: Path, values: list[Any], type_: str, aside: int) -> None:
    rows = [{"s": "a", "t": "f", "args": {"v": value}} for value in values]
    (tmp_path / "calls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mapping = {"version": 1, "call": {"session": "{s}", "tool": "{t}", "args": "args"}}
    found = import_calls(tmp_path / "calls.jsonl", mapping, None)
    assert f'"v": {type_},' in " ".join(found.schema.split())
    assert found.kept_aside == aside


def test_what_only_some_calls_have_is_optional_and_what_none_has_is_not_declared(tmp_path: Path) -> None:
    rows = [
        {"s": "a", "t": "f", "args": args} for args in ({"x": 1, "y": None, "z": None}, {"x": 2, "y": "b"})
    ]
    (tmp_path / "calls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = import_calls(
        tmp_path / "calls.jsonl",
        {"version": 1, "call": {"session": "{s}", "tool": "{t}", "args": "args"}},
        tmp_path / "lake",
    )
    assert 'args: { "x": Long, "y"?: String, },' in " ".join(found.schema.split())
    assert wb.open(str(found.lake)).replay().counts()["decidable"] == 2


def test_arguments_are_converted_only_where_the_mapping_says(tmp_path: Path) -> None:
    rows = [
        {"args": '{"x": 1, "y": [null, 2], "z": 0.00001}'},
        {"args": '{"x": "a", "y": "plain", "z": null}'},
    ]
    tools = {"f": {"arguments": {"x": "text", "y": "text", "z": "drop"}}}
    texts = [GOOD | row | {"at": None, "cost": None, "tenant": None, "who": None} for row in rows]
    (tmp_path / "calls.jsonl").write_text(lines(list(texts)))
    found = import_calls(tmp_path / "calls.jsonl", MAPPING | {"tools": tools}, tmp_path / "lake")
    assert found.kept_aside == 0
    args = wb.open(str(found.lake)).decisions.sort("step").collect()["args"].to_list()
    assert args == ['{"x":"1","y":"[null,2]"}', '{"x":"a","y":"plain"}']
