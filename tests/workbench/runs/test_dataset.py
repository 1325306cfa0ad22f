"""The data set: texts that MLflow's own classes read and write, and a digest of the rows that are meant."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.workbench.runs.comparisons import DECISIONS, desk
from workbench.runs.dataset import dataset_of, digest_of, watermark_of
from workbench.tracking import library

PINS: dict[str, Any] = {"ledgers": {"a": 40, "b": 2}, "delta": {"decisions": 3}}


def test_mlflows_own_classes_read_and_write_it() -> None:
    library()
    from mlflow.data.delta_dataset_source import DeltaDatasetSource
    from mlflow.entities import Dataset
    from mlflow.types import Schema

    made = dataset_of(desk(), DECISIONS)
    source = DeltaDatasetSource.from_json(made["source"])
    again = DeltaDatasetSource(path=source.path, delta_table_version=source.delta_table_version)
    version = json.loads(made["source"])["delta_table_version"]
    assert again.to_dict() | {"delta_table_version": version} == json.loads(
        made["source"]
    )  # it drops a version 0
    assert made["source_type"] == DeltaDatasetSource._get_source_type()
    columns = json.loads(made["schema"])["mlflow_colspec"]
    assert Schema.from_json(json.dumps(columns)).to_dict() == columns
    assert json.loads(made["profile"]) == {"num_rows": DECISIONS}
    assert Dataset(**made).digest == made["digest"]


@pytest.mark.parametrize(
    "other",
    [
        {"ledgers": {"a": 41, "b": 2}},
        {"after": {"a": 10}},
        {"after": {"a": 11}},
        {"where": "tenant == acme #1"},
        {"where": "tenant == acme #1", "after": {"a": 10}},
    ],
)
def test_other_rows_are_another_digest(other: dict[str, Any]) -> None:
    assert digest_of(PINS | other) != digest_of(PINS)
    assert digest_of(PINS | other | {"delta": {"decisions": 99}}) == digest_of(PINS | other)


def test_the_same_rows_are_the_same_digest() -> None:
    assert digest_of(PINS | {"delta": {}, "after": {}, "where": None}) == digest_of(PINS)
    assert digest_of({"ledgers": {"b": 2, "a": 40}}) == digest_of(PINS)
    assert len(digest_of(PINS)) == 32


def test_the_watermark_is_the_positions_of_all_ledgers() -> None:
    assert watermark_of(PINS) == 42
    assert watermark_of({}) == 0
