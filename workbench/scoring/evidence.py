"""The evidence of many decisions, checked at once: what each refers to is there, and hashes to what is said of it.

One rule: a part is `holds`, `broken` or `missing`; a part that the decision does not refer to (no context was
compiled for a refused request) is left out, not counted as there.

It says nothing of rows that were not asked for, nor of what a signed checkpoint would: `redecide verify` walks
the whole chain.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from runtime.canonical import NotCanonical
from runtime.evidence import check_address, row_hash
from runtime.trace import CONTEXTS, DECISIONS, ENTITIES, GENESIS, SLICES
from runtime.values import micros
from workbench.errors import ScoringInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.trace import Table

Part = Literal["holds", "broken", "missing"]

PARTS = ("row", "link", "context", "entities", "policies")
"""What a decision is proved by."""


def evidence_of(lake: Any, rows: pl.DataFrame) -> pl.Series:
    """Check the evidence of decisions.

    Args:
        lake: the lake they are in.
        rows: with `decision_id`.

    Returns:
        A list of texts for each, `<part>: <holds|broken|missing>`, in the order of `PARTS`; null: the lake does not
        have the decision.

    Raises:
        ScoringInvalid: the lake has no tables.

    Cost: 30 µs a decision; reads `position` and `hash` of every row of the chain.
    """
    if not hasattr(lake, "slices"):
        raise ScoringInvalid(
            "evidence completeness needs a replay of a lake: it reads what decisions refer to"
        )
    found = _decisions(lake, rows)
    contexts = _standing(lake, CONTEXTS, found["context_hash"])
    slices = _slices(lake, found["slice_hash"])
    policies = {each: lake.find_bundle(each) is not None for each in found["bundle_version"].unique()}
    said = {}
    for row in found.iter_rows(named=True):
        previous = row.pop("previous")
        told: dict[str, Part | None] = {
            "row": _row(row),
            "link": _link(row, previous),
            "context": None if row["context_hash"] is None else contexts.get(row["context_hash"], "missing"),
            "entities": None if row["slice_hash"] is None else slices.get(row["slice_hash"], "missing"),
            "policies": "holds" if policies[row["bundle_version"]] else "missing",
        }
        said[row["decision_id"]] = [f"{part}: {told[part]}" for part in PARTS if told[part] is not None]
    return pl.Series([said.get(each) for each in rows["decision_id"]], dtype=pl.List(pl.String))


def _decisions(lake: Any, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows as they are recorded, with `previous`: the hash of the row before in the chain, of either table."""
    mine = lake.decisions.join(rows.lazy().select("decision_id"), on="decision_id", how="semi")
    names = ["writer", "position", "hash"]
    chain = pl.concat([lake.decisions.select(names), lake.outcomes.select(names)])
    before = chain.select("writer", position=pl.col("position") + 1, previous="hash")
    joined = mine.join(before, on=["writer", "position"], how="left")
    return joined.collect()  # type: ignore[no-any-return]  # a lake's


def _row(row: Mapping[str, Any]) -> Part:
    plain = {name: micros(value) if isinstance(value, datetime) else value for name, value in row.items()}
    try:
        return "holds" if row_hash(DECISIONS.name, plain) == row["hash"] else "broken"
    except NotCanonical:
        return "broken"


def _link(row: Mapping[str, Any], previous: str | None) -> Part:
    if row["position"] == 1:
        previous = GENESIS
    if previous is None:
        return "missing"
    return "holds" if previous == row["prev_hash"] else "broken"


def _standing(lake: Any, table: Table, wanted: pl.Series) -> dict[str, Part]:
    """Rows of a content-addressed table that are wanted, by address; those that are not there are left out."""
    addresses = wanted.drop_nulls().unique()
    rows = lake.table(table, pl.col(table.key).is_in(addresses.implode())).collect()
    return dict(_checked(table, rows))


def _checked(table: Table, rows: pl.DataFrame) -> Iterator[tuple[str, Part]]:
    for row in rows.iter_rows(named=True):
        try:
            check_address(table, row)
        except ValueError:
            yield row[table.key], "broken"
        else:
            yield row[table.key], "holds"


def _slices(lake: Any, wanted: pl.Series) -> dict[str, Part]:
    """Sets of entities: as broken, or as missing, as the worst entity of them."""
    slices = _standing(lake, SLICES, wanted)
    rows = lake.slices.filter(pl.col("slice_hash").is_in(wanted.drop_nulls().unique().implode())).collect()
    entities = _standing(lake, ENTITIES, rows["entity_hashes"].explode())
    for address, hashes in rows.select("slice_hash", "entity_hashes").iter_rows():
        states = {slices[address], *(entities.get(each, "missing") for each in hashes)}
        slices[address] = next(state for state in ("broken", "missing", "holds") if state in states)
    return slices
