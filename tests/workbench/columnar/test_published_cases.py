"""Cedar's published cases: decision, determining policies and errors, for every case the columns decide."""

from __future__ import annotations

import json
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from runtime.entities import Entity, EntityUid, Slice
from runtime.policy import Case
from runtime.schema import parse_schema
from workbench.columnar import decide_cases, policy_tree

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.schema import CedarSchema

schema_of = lru_cache(maxsize=1024)(parse_schema)


def uid_of(value: dict[str, Any]) -> EntityUid:
    return EntityUid(**value.get("__entity", value))


def case_of(row: dict[str, Any]) -> Case:
    """A case of a file."""
    entities = tuple(
        Entity(
            uid_of(each["uid"]),
            each.get("attrs", {}),
            tuple(map(uid_of, each.get("parents", ()))),
            each.get("tags", {}),
        )
        for each in json.loads(row["entities_json"])
    )
    uids = [uid_of(json.loads(row[name])) for name in ("principal", "action", "resource")]
    return Case(uids[0], uids[1], uids[2], json.loads(row["context_json"]), Slice(entities))


def said(row: dict[str, Any]) -> tuple[str, list[str], list[str]]:
    """What Cedar says: as published, and where the file says nothing, as `cedarpy` said of the same case."""
    named = (row["expected_reason"], row["cedarpy_reason"]), (row["expected_errors"], row["cedarpy_errors"])
    reasons, errors = (sorted(a if a is not None else b) for a, b in named)
    return row["expected_decision"], reasons, errors


def disagreement(row: dict[str, Any], reasons: Counter[str]) -> str | None:
    """Decide one case; a disagreement as text."""
    schema: CedarSchema | None = schema_of(row["schema_text"]) if row["validate_request"] else None
    found = decide_cases([case_of(row)], policy_tree(row["policies"]), schema=schema)
    if found.handed_over:
        reasons[found.handed_over[0][:80]] += 1
        return None
    answer = found.answer(0)
    got = answer.decision.lower(), list(answer.reasons), list(answer.errors)
    return None if got == said(row) else f"{row['case_id']}: {got} for {said(row)}"


@pytest.mark.parametrize(
    ("file", "share"),
    [
        ("cedar_handwritten", 1.0),
        ("cedar_examples", 1.0),
        ("corpus_cit-2026-03-13-4.10", 1.0),
    ],
)
def test_published_cases(shared_data: Path, file: str, share: float) -> None:
    """Each case alone; of the corpus every tenth, for `test_conform` takes it in frames."""
    every = 10 if file.startswith("corpus") else 1
    rows = pl.read_parquet(shared_data / "cedar_cases" / f"{file}.parquet").gather_every(every).to_dicts()
    reasons: Counter[str] = Counter()
    wrong = [text for row in rows if (text := disagreement(row, reasons))]
    decided = 1 - reasons.total() / len(rows)
    print(  # noqa: T201 - the share is what one runs this for
        f"{file}: {len(rows)} cases, {decided:.2%} decided in columns; handed over: {reasons.most_common(5)}"
    )
    assert wrong == []
    assert decided >= share
