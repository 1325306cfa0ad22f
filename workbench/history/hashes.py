"""Content addresses by the column.

One rule: the address of a text is what `runtime.canonical.sha256` gives; DuckDB computes it without a row loop.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import polars as pl

from runtime.canonical import canonical
from runtime.entities import EntityUid
from workbench.digests import connection
from workbench.history.references import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

_SPECIAL = r'["\\\x00-\x1f]'


def sha256(texts: pl.Series) -> pl.Series:
    """Return the address (String, 64 hex digits) of each text; null for null."""
    frame = pl.DataFrame({"text": texts})  # noqa: F841 - DuckDB reads it by its name
    with connection() as cursor:
        found: pl.DataFrame = cursor.sql("select sha256(text) as hash from frame").pl()
        return found["hash"]


def uid_texts(kinds: pl.Series, ids: pl.Series) -> pl.Series:
    """Return JSON strings of entity uids, type and quoted id; null where there is no entity."""
    frame = pl.DataFrame({"kind": kinds, "id": ids})
    plain = frame.select(pl.concat_str(pl.lit('"'), "kind", pl.lit('::\\"'), "id", pl.lit('\\""')))
    special = frame.filter(pl.col("id").str.contains(_SPECIAL)).unique()
    if special.is_empty():
        return plain.to_series().alias("uid")
    texts = [canonical(str(EntityUid(*row))) for row in special.iter_rows()]
    known = special.with_columns(text=pl.Series(texts, dtype=pl.String))
    found = frame.with_columns(plain=plain.to_series()).join(
        known, on=["kind", "id"], how="left", maintain_order="left"
    )
    return found.select(uid=pl.coalesce("text", "plain"))["uid"]


def action_hashes(rows: pl.DataFrame, args: pl.Series, policy_hash: str) -> pl.Series:
    """Return `runtime.policy.action_hash` of each row; null where `args` is null.

    Args:
        rows: columns of `decisions`, of the resource that would be acted on.
        args: canonical JSON of what would be run.
        policy_hash: of the policies that let it.
    """
    tools = rows["tool"].unique()
    action = {tool: canonical(f"Action::{json.dumps(tool, ensure_ascii=False)}") for tool in tools}
    members: Sequence[tuple[str, pl.Series]] = (
        ("action", rows["tool"].replace_strict(action, return_dtype=pl.String)),
        ("args", args),
        ("on_behalf_of", uid_texts(rows["on_behalf_of_type"], rows["on_behalf_of_id"]).fill_null("null")),
        ("policy", pl.Series([f'"{policy_hash}"']).new_from_index(0, rows.height)),
        ("principal", uid_texts(rows["principal_type"], rows["principal_id"])),
        ("resource", uid_texts(rows["resource_type"], rows["resource_id"]).fill_null("null")),
        ("tenant", quoted(rows["tenant"])),
    )
    pieces: list[pl.Series] = []
    for number, (name, values) in enumerate(members):
        start = ("{" if number == 0 else ",") + f'"{name}":'
        pieces += [
            pl.Series([start]).new_from_index(0, rows.height).alias(f"{number}a"),
            values.alias(f"{number}b"),
        ]
    texts = pl.DataFrame([*pieces, pl.Series(["}"]).new_from_index(0, rows.height).alias("end")])
    return sha256(texts.select(pl.concat_str(pl.all())).to_series())
