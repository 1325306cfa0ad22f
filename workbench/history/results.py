"""From what was decided in columns to the rows of a replay.

One rule: what happened then and what would happen now are told by the functions of `workbench.effects`, each asked
once for every combination that occurs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.effects import EFFECTS, now_of, then_of
from workbench.history.references import quoted
from workbench.replay import FRAME, UNDECIDED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ENGINE = "redecide-columnar"
"""Name in the `engine` column."""

_NONE = pl.lit([], dtype=pl.List(pl.String))
_COPIED = (
    "decision_id", "session_id", "step", "tenant", "tool", "args", "kind", "decided_at", "writer", "position",
)  # fmt: skip
_FOUND = (
    "status", "verdict", "decided_by", "reason_code", "reason", "determining", "enforced_args",
)  # fmt: skip


def assembled(rows: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """Return rows of `FRAME` for what was decided, with `row`.

    Args:
        rows: columns of `decisions` with `execution_status` and `row`; `recompilable`, where it was asked.
        found: what was decided, a row a row in the same order.
    """
    told = _decided(_base(rows), rows, found)
    return _framed(told.with_columns(pl.col("missing").fill_null(_NONE), decidable=pl.lit(value=True)))


def quarantined(
    rows: pl.DataFrame, causes: pl.Series, about: pl.Series | None = None, *, decidable: bool = False
) -> pl.DataFrame:
    """Return rows of `FRAME` for what cannot be replayed, with `row`; undecided, where the cause says so.

    Args:
        rows: as `assembled` takes them.
        causes: of `workbench.replay.CAUSES`, a row a row.
        about: what the causes are about, sources or what was erased (List[String]); null: nothing.
        decidable: whether the rows came out as recorded, and fail at a later level.
    """
    told = _base(rows).with_columns(
        causes.alias("cause"),
        (_NONE if about is None else pl.lit(about)).alias("missing"),
        decidable=pl.lit(decidable),
    )
    known_to_lack = pl.col("cause").is_in(list(UNDECIDED))
    status = pl.when(known_to_lack).then(pl.lit("undecided")).otherwise(pl.lit("quarantined"))
    return _framed(told.with_columns(pl.col("missing").fill_null(_NONE), status=status, effect=status))


def _base(rows: pl.DataFrame) -> pl.DataFrame:
    recompilable = "recompilable" if "recompilable" in rows.columns else pl.lit(None, pl.Boolean)
    return rows.select(
        "row",
        *_COPIED,
        principal=_uid(rows, "principal"),
        resource=_uid(rows, "resource"),
        recorded_verdict="verdict",
        recorded_decided_by="decided_by",
        recorded_reason_code="reason_code",
        recorded_determining="determining",
        then=once_each(rows, ("verdict", "kind", "execution_status"), then_of),
        engine=pl.lit(ENGINE),
        recompilable=recompilable,
    )


def _framed(told: pl.DataFrame) -> pl.DataFrame:
    schema = {"row": pl.UInt32, **FRAME}
    lacking = [
        pl.lit(None, dtype=dtype).alias(name) for name, dtype in schema.items() if name not in told.columns
    ]
    return told.with_columns(lacking).select(pl.col(name).cast(dtype) for name, dtype in schema.items())


def _decided(base: pl.DataFrame, rows: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    decided = found["status"] == "decided"
    same = found["enforced_args"].eq_missing(rows["enforced_args"]) & found["enforced_args"].is_not_null()
    effects = once_each(
        base.select("then", "kind").with_columns(verdict=found["verdict"], same=same),
        ("then", "verdict", "kind", "same"),
        _effect,
    )
    faults = pl.col("errors").list.eval(pl.struct(policy=pl.element(), message=pl.lit(None, dtype=pl.String)))
    return base.with_columns(
        found.select(
            *_FOUND,
            missing=pl.col("missing"),
            errors=pl.when(decided).then(faults),
            effect=pl.when(pl.col("status") == "undecided").then(pl.lit("undecided")).otherwise(effects),
            cause=pl.when(pl.col("status") == "undecided").then(pl.lit("missing_fact")),
            verdict_changed=pl.when(decided).then(found["verdict"].ne_missing(rows["verdict"])),
        )
    )


def _effect(then: Any, verdict: str | None, kind: str, same: bool) -> str:  # noqa: FBT001 - a column's value
    return EFFECTS[then, now_of(verdict, kind=kind, same_action=same)]


def once_each(frame: pl.DataFrame, keys: Sequence[str], function: Callable[..., str]) -> pl.Series:
    """Return what a function says of each row, asking it once for each combination of values."""
    distinct = frame.select(keys).unique()
    said = pl.Series("said", [function(*values) for values in distinct.iter_rows()], dtype=pl.String)
    table = distinct.with_columns(said)
    joined = frame.select(keys).join(
        table, on=list(keys), how="left", nulls_equal=True, maintain_order="left"
    )
    return joined["said"]


def _uid(rows: pl.DataFrame, role: str) -> pl.Series:
    """`Type::"id"`; null where there is no entity."""
    frame = rows.select(kind=f"{role}_type", ident=quoted(rows[f"{role}_id"]))
    return frame.select(uid=pl.concat_str("kind", pl.lit("::"), "ident"))["uid"]
