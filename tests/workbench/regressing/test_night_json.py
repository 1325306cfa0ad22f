"""A night as JSON: a contract that a schema holds, and that reads back to the same night."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import given, settings

from tests.workbench.regressing.nights import candidate, night, nights
from workbench.errors import JobStateError
from workbench.regressing.reporting.as_json import as_dict, dumps, json_schema, night_of, read
from workbench.regressing.reporting.write import NAMES, write
from workbench.regressing.result import Candidate, Drifted, GateLook, Night, Range, Reopened

if TYPE_CHECKING:
    from pathlib import Path

DERIVED = {"night": {"schema", "version", "verdict", "exit_code"}, "range": {"watermark"}}


def whole(value: Any) -> Any:
    """Return what JSON can hold of a value: lists, and halves of characters as escapes."""
    return json.loads(json.dumps(as_dict(value)))


@settings(max_examples=100, deadline=None)
@given(nights)
def test_any_night_keeps_the_contract_and_reads_back(found: Night) -> None:
    document = json.loads(dumps(found).encode())
    jsonschema.Draft202012Validator(json_schema()).validate(document)
    again = night_of(document)
    assert whole(again) == document
    assert (again.verdict, again.exit_code) == (found.verdict, found.exit_code)


def test_a_plain_night_reads_back_equal() -> None:
    found = night(candidate("failed"), problems=("x",), outputs={"json": "night.json"})
    again = night_of(json.loads(dumps(found)))
    assert replace(again, candidates=()) == replace(found, candidates=())
    assert [each.gates for each in again.candidates] == [each.gates for each in found.candidates]
    assert again == found


def test_the_schema_names_every_field_and_no_other() -> None:
    schema = json_schema()
    kinds = {"range": Range, "reopened": Reopened, "gate": GateLook, "candidate": Candidate, "drift": Drifted}
    found = {name: set(part["properties"]) for name, part in schema["$defs"].items() if "properties" in part}
    found["night"] = set(schema["properties"])
    expected = {
        name: {each.name for each in fields(kind)} | DERIVED.get(name, set())
        for name, kind in {**kinds, "night": Night}.items()
    }
    assert found == expected


def test_what_is_no_number_is_null() -> None:
    found = night(candidate(numbers={"a": float("nan"), "b": float("inf"), "c": 1.0}))
    document = json.loads(dumps(found))
    assert document["candidates"][0]["numbers"] == {"a": None, "b": None, "c": 1.0}
    assert night_of(document).candidates[0].numbers == {"c": 1.0}


def test_a_password_does_not_leave() -> None:
    assert "secret" not in dumps(night(lake="s3://me:secret@traces/lake"))


def test_newer_and_foreign_documents_are_refused_by_name() -> None:
    document = as_dict(night(candidate()))
    with pytest.raises(JobStateError, match="version 2 was written by a newer redecide"):
        night_of({**document, "version": 2})
    with pytest.raises(JobStateError, match=r"`schema` is not 'redecide\.night'"):
        night_of({"a": 1})
    assert night_of({**document, "added later": 1}).job == "nightly support"
    broken = {**document, "candidates": [{"name": "x"}]}
    with pytest.raises(JobStateError, match="cannot be read"):
        night_of(broken)


def test_the_files_are_of_one_night(tmp_path: Path) -> None:
    told = write(night(candidate("failed")), tmp_path / "new")
    assert told.outputs == {name: str(tmp_path / "new" / file) for name, file in NAMES.items()}
    assert read(tmp_path / "new" / "night.json") == told
    assert "## Don't ship" in (tmp_path / "new" / "night.md").read_text()
    page = (tmp_path / "new" / "night.html").read_text()
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert write(night(candidate()), tmp_path / "few", ["junit"]).outputs == {
        "junit": str(tmp_path / "few" / "junit.xml")
    }
    with pytest.raises(JobStateError, match=r"none\.json"):
        read(tmp_path / "none.json")
