"""Other texts for what a row was decided by: counters of limits, and the state of an approval.

One rule: what is not given stays as it was recorded.
"""

from __future__ import annotations

import polars as pl

from workbench.digests import connection


def inputs_with(texts: pl.Series, patches: pl.Series) -> pl.Series:
    """Return `stage_inputs` with other counters.

    Args:
        texts: as recorded.
        patches: JSON of what `limits` is to hold instead, such as `{"meters":{…}}`, a text a row; null: as recorded.
    """
    if patches.null_count() == patches.len():
        return texts
    rows = pl.DataFrame({"text": texts, "patch": patches}).with_row_index("place").rechunk()
    sql = (
        "SELECT place, CASE WHEN patch IS NULL OR NOT json_valid(text) THEN text "
        "ELSE CAST(json_merge_patch(text, patch) AS VARCHAR) END AS text FROM texts"
    )
    with connection() as cursor:
        cursor.register("texts", rows.to_arrow())
        found: pl.DataFrame = cursor.sql(sql).pl()
    return found.sort("place")["text"]


def approvals_refused(texts: pl.Series, codes: pl.Series) -> pl.Series:
    """Return `approval` with a reason why it cannot be used.

    Args:
        texts: as recorded.
        codes: of `runtime.ruling.REASONS`, a text a row; null: as recorded.
    """
    frame = pl.DataFrame({"text": texts, "code": codes})
    other = pl.col("text").str.replace(r'"refusal":(?:null|"[a-z_]*")', '"refusal":"CODE"')
    told = other.str.replace("CODE", pl.col("code"), literal=True)
    return frame.select(text=pl.when(pl.col("code").is_not_null()).then(told).otherwise("text"))["text"]
