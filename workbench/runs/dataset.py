"""The decisions of a comparison as an MLflow data set: a Delta table at a version, with its schema and a digest.

One rule: the digest is of the logical pin (ledgers with positions, and what it was narrowed to): compaction changes
the Delta version, and neither the rows nor the digest.

The texts are those that MLflow's own `DeltaDatasetSource` and `mlflow.types.Schema` write and read (a test compares
them): made here, because importing MLflow takes seconds and a job that only prepares needs none of it; and because
its writer drops a version 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runtime.canonical import content_hash
from runtime.trace import DECISIONS
from workbench.tracking import shown

if TYPE_CHECKING:
    from workbench.runs.contents import Compared

_NARROWED = ("after", "where")
"""Pins that say which of the rows up to the pin are meant; absent: all."""

_TYPES: Mapping[str, Any] = {
    "string": {"type": "string"},
    "int32": {"type": "integer"},
    "int64": {"type": "long"},
    "bool": {"type": "boolean"},
    "float64": {"type": "double"},
    "timestamp": {"type": "datetime"},
    "list<string>": {"type": "array", "items": {"type": "string"}},
    "list<policy_error>": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {name: {"type": "string", "required": True} for name in ("policy", "message")},
        },
    },
}
"""MLflow's names of our column types."""


def dataset_of(diff: Compared, rows: int) -> dict[str, str]:
    """Return the decisions that were replayed, as `mlflow.entities.Dataset` takes them.

    Args:
        diff: the comparison.
        rows: how many decisions it is of.
    """
    pins = diff.cand.pins
    delta = pins.get("delta")
    source = {"path": f"{shown(str(diff.cand.lake.uri)).rstrip('/')}/{DECISIONS.name}"}
    at = delta.get(DECISIONS.name) if isinstance(delta, Mapping) else None
    columns = [
        {**_TYPES[each.dtype], "name": each.name, "required": each.required} for each in DECISIONS.columns
    ]
    return {
        "name": DECISIONS.name,
        "digest": digest_of(pins),
        "source_type": "delta_table",
        "source": json.dumps(source | ({} if at is None else {"delta_table_version": at})),
        "schema": json.dumps({"mlflow_colspec": columns}),
        "profile": json.dumps({"num_rows": rows}),
    }


def digest_of(pins: Mapping[str, object]) -> str:
    """Return 32 hex digits that name the rows a pin means; the same for a lake that was compacted since."""
    narrowed = {name: pins[name] for name in _NARROWED if pins.get(name)}
    meant = {"ledgers": pins.get("ledgers"), **narrowed} if narrowed else pins.get("ledgers")
    return content_hash(json.loads(json.dumps(meant, default=str)))[:32]


def watermark_of(pins: Mapping[str, object]) -> int:
    """Return the positions of all ledgers up to a pin: where a comparison stands on an axis."""
    ledgers = pins.get("ledgers")
    return sum(int(at) for at in ledgers.values()) if isinstance(ledgers, Mapping) else 0
