"""Mappings: what is wrong with one is said with the key and the way out; what is right reads as it says."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import workbench as wb
from workbench.errors import MappingInvalid
from workbench.importing import import_calls, read_mapping
from workbench.importing.mapping_file import mapping_of
from workbench.importing.suggest import suggest

CALL = '[call]\nsession = "{s}"\ntool = "{t}"\n'
FRAME = pl.DataFrame({"s": ["a", "a"], "t": ["f", "g"], "step": [1, 0], "x": [1, None], "y": ["p", "q"]})


def read(text: str) -> Any:
    return mapping_of(tomllib.loads("version = 1\n" + text))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", r"`call.session` is missing"),
        ('[call]\nsession = "{s}"', r"`call.tool` is missing"),
        (CALL + 'tennant = "a"', r"unknown key `call.tennant`; did you mean `tenant`\?"),
        (CALL + "[calls]", r"unknown key `calls`; did you mean `call`\?"),
        (CALL + "[tme]\n", r"unknown key `tme`; did you mean `time`\?"),
        (CALL + 'principal = "bot"', r"`call.principal` must be `Type::\{column\}` or `Type::id`"),
        (CALL + 'tenant = "{a"', r"`call.tenant` has a brace that is no `\{column\}`"),
        (CALL + "tenant = 5", r"`call.tenant` must be a text, got 5"),
        (CALL + "args = 5", r"`call.args` must be a text"),
        (CALL + 'args_missing = "none"', r"`call.args_missing` must be reject or empty"),
        (CALL + '[time]\nunit = "h"', r"`time.unit` must be s or ms or us"),
        (CALL + '[outcome]\nstatus = "y"', r"`outcome.status` and `outcome.statuses` go together"),
        (CALL + '[outcome]\nstatus = "y"\nstatuses = { ok = "fine" }', r"`outcome.statuses.ok` must be one of succeeded"),
        (CALL + '[verdict]\nrefused = ["deny"]', r"`verdict.refused` names values of `verdict.column`"),
        (CALL + '[[labels]]\nname = "a"', r"`labels\[0\].column` is missing"),
        (CALL + '[[labels]]\nname = "a"\ncolumn = "x"\nof = "run"', r"`labels\[0\].of` must be call or session"),
        (CALL + "[labels]", r"write each as `\[\[labels\]\]`"),
        (CALL + '[tools.f]\narguments = { x = "number" }', r"`tools.f.arguments.x` must be text or drop"),
        (CALL + '[tools.f]\neffect = "write"', r"`tools.f.effect` must be read or idempotent"),
        (CALL + "[missing]\nx = 2026-01-01", r"a value is no JSON"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text: str, why: str) -> None:
    with pytest.raises(MappingInvalid, match=why):
        read(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (CALL + 'order = "stepp"', r"`call.order`: the file of calls has no column `stepp`; did you mean `step`\?"),
        (CALL + 'principal = "Agent::{who}"', r"`call.principal`: .* no column `who`; there are s, t, step, x, y"),
        (CALL + 'args = { a = "z" }', r"`call.args`: .* no column `z`"),
        (CALL + '[outcome]\nerror = "err"', r"`outcome.error`: .* no column `err`"),
        (CALL + '[[labels]]\nname = "n"\ncolumn = "z"', r"`labels.n`: .* no column `z`"),
        (CALL + '[runs]\nsession = "{s}"', r"give the second file, too"),
        (CALL + '[time]\nzone = "Mars/Base"', r"`time.zone` must be an IANA zone"),
        (CALL + '[tools.f]\nresource = "Thing"', r"`tools.f`: resource template must be `Type::id`"),
        (CALL + '[tools.f]\nresource = "Thing::{a-b}"', r"`tools.f`: .* a brace that is no `\{argument\}`"),
        (CALL + 'principal = "__cedar::T::a"', r"no schema can be made of these calls"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_file_is_named(text: str, why: str) -> None:
    with pytest.raises(MappingInvalid, match=why):
        import_calls(FRAME, read(text), None)


def test_a_second_file_needs_its_key() -> None:
    with pytest.raises(MappingInvalid, match=r"name its key, `\[runs\] session"):
        import_calls(FRAME, read(CALL), None, runs=FRAME)
    runs = read(CALL + '[runs]\nsession = "{z}"')
    with pytest.raises(MappingInvalid, match=r"`runs.session`: the file of runs has no column `z`"):
        import_calls(FRAME, runs, None, runs=FRAME)


def test_files_that_are_not_there_or_not_of_a_known_kind(tmp_path: Path) -> None:
    with pytest.raises(MappingInvalid, match=r"no mapping at .*--suggest"):
        read_mapping(tmp_path / "map.toml")
    (tmp_path / "map.toml").write_text("version = ")
    with pytest.raises(MappingInvalid, match=r"cannot be read"):
        read_mapping(tmp_path / "map.toml")
    (tmp_path / "map.toml").write_text("version = 2\n" + CALL)
    with pytest.raises(MappingInvalid, match=r"map.toml.*`version` must be 1, got 2"):
        read_mapping(tmp_path / "map.toml")
    for name, why in (
        ("calls.csv", "neither Parquet nor JSON lines"),
        ("calls.jsonl", "no file at"),
        ("calls.parquet", "no file at"),
    ):
        with pytest.raises(MappingInvalid, match=why):
            import_calls(tmp_path / name, read(CALL), None)
    (tmp_path / "calls.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(MappingInvalid, match=r"cannot be read"):
        import_calls(tmp_path / "calls.parquet", read(CALL), None)


def test_columns_of_their_own_and_structs_are_arguments(tmp_path: Path) -> None:
    """A null there is an argument that was not given."""
    mapping = read(
        CALL + 'order = "step"\nargs = { n = "x", name = "y" }\n[tools.f]\nresource = "Thing::{name}"'
    )
    found = import_calls(FRAME, mapping, tmp_path / "one")
    rows = wb.open(str(found.lake)).decisions.sort("step").collect()
    assert rows.select("tool", "args", "resource_id").rows() == [
        ("g", '{"name":"q"}', "g"), ("f", '{"n":1,"name":"p"}', "p"),
    ]  # fmt: skip
    frame = FRAME.select("s", "t", a=pl.struct("x", "y"))
    found = import_calls(frame, read(CALL + 'args = "a"'), tmp_path / "two")
    assert wb.open(str(found.lake)).decisions.sort("step").collect()["args"].to_list() == [
        '{"x":1,"y":"p"}',
        '{"y":"q"}',
    ]


@pytest.mark.parametrize(
    ("unit", "value", "at"),
    [
        ("s", 1_700_000_000, 1_700_000_000_000_000),
        ("ms", 1_700_000_000_123, 1_700_000_000_123_000),
        ("s", 1_700_000_000.5, 1_700_000_000_500_000),
        ("s", "2023-11-14 22:13:20", 1_700_000_000_000_000 - 3_600_000_000),
        ("s", "2023-11-14T22:13:20Z", 1_700_000_000_000_000),
    ],
)
def test_times_of_all_kinds(tmp_path: Path, unit: str, value: object, at: int) -> None:
    frame = pl.DataFrame({"s": ["a"], "t": ["f"], "at": [value]})
    mapping = read(CALL + f'[time]\nat = "at"\nunit = "{unit}"\nzone = "Europe/Berlin"')
    found = import_calls(frame, mapping, tmp_path / "lake")
    rows = wb.open(str(found.lake)).decisions.select(pl.col("decided_at").dt.epoch("us")).collect()
    assert (rows["decided_at"].to_list(), found.derived_times) == ([at], 0)


def test_a_session_that_differs_has_no_label(tmp_path: Path) -> None:
    mapping = read(CALL + '[[labels]]\nname = "kind"\ncolumn = "y"\nof = "session"')
    found = import_calls(FRAME, mapping, None)
    assert (found.labels, found.notes) == (
        {"time": 1},
        ["Label `kind` differs within 1 session, which are left without it."],
    )


def test_a_suggestion_can_be_used(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "run_id": ["a"],
            "tool_name": ["f"],
            "args_json": ["{}"],
            "decision": ["deny"],
            "executed": [False],
            "odd": [1],
        }
    )
    text = suggest(frame)
    assert '# name = "odd"' in text
    found = import_calls(frame, mapping_of(tomllib.loads(text)), tmp_path / "lake")
    assert (found.mapped, found.outcomes) == (1, {"aborted": 1})
