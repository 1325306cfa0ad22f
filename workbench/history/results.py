"""From what was decided in columns to the rows of a replay.

One rule: what happened then and what would happen now are told by the functions of `workbench.effects`, each asked
once for every combination that occurs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from workbench.effects import EFFECTS, now_of, then_of
from workbench.history.lists import gathered
from workbench.history.references import quoted
from workbench.replay import FRAME, UNDECIDED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workbench.history.decided import Decided

ENGINE = "redecide-columnar"
"""Name in the `engine` column."""

_NONE = pl.lit([], dtype=pl.List(pl.String))
_COPIED = (
    "decision_id", "session_id", "step", "tenant", "tool", "args", "kind", "decided_at", "writer", "position",
)  # fmt: skip
_FOUND = (
    "status", "verdict", "decided_by", "reason_code", "reason", "determining", "enforced_args",
)  # fmt: skip
_FATE, _ENFORCED = "fate", "enforced_then"
_FATE_OF = ("then", "kind", "recorded_verdict")


def base_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Return what no candidate changes of recorded rows.

    Args:
        rows: columns of `decisions` with `execution_status` and `row`; `recompilable`, where it was asked.

    Returns:
        Columns of `FRAME` and `row`; `_FATE` (UInt32): which of the distinct (then, kind, recorded verdict) a row
        has; `_ENFORCED` (String): the arguments that were enforced then. See `assembled`.
    """
    base = _base(rows).drop("engine")
    fates = base.select(_FATE_OF).unique(maintain_order=True).with_row_index(_FATE)
    numbers = base.select(_FATE_OF).join(
        fates, on=list(_FATE_OF), how="left", nulls_equal=True, maintain_order="left"
    )[_FATE]
    return base.with_columns(numbers, rows["enforced_args"].alias(_ENFORCED))


def assembled(base: pl.DataFrame, decided: Decided, by_rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows of `FRAME`, with `row`, in the order of the base.

    Args:
        base: of the rows; see `base_of`.
        decided: those that were decided in columns, in the same order.
        by_rows: the others, as the row engine has them: columns of `FRAME`, and `row`; in the same order.

    Cost: some gathers of small tables; what happened and what would happen are told once a combination. What the row
    engine said is told like an outcome of its own, so that nothing wide is moved.
    """
    narrow = base.select("row", _FATE, *_FATE_OF, _ENFORCED, "recompilable")
    mine = ~narrow["row"].is_in(by_rows["row"].implode())
    narrow = narrow.filter(mine) if by_rows.height else narrow
    said, (effects, codes) = _said(decided.outcomes), _effects(narrow, decided)
    numbers, args, again = decided.numbers, decided.enforced_args, narrow["recompilable"]
    if by_rows.height:
        order = _order(mine)
        numbers = _merged(numbers, by_rows["row"], said.height, order)
        codes = _merged(codes, by_rows["row"], effects.height, order)
        said = pl.concat([said, by_rows.select(said.columns)])
        effects = pl.concat([effects, by_rows.select(effects.columns)])
        args = pl.concat([args, by_rows["enforced_args"]]).gather(order)
        again = pl.concat([again, by_rows["recompilable"]]).gather(order)
    told = gathered(said, numbers).hstack(gathered(effects, codes))
    whole = base.drop(_FATE, _ENFORCED).with_columns(again).hstack(told)
    return _framed(whole.with_columns(args.alias("enforced_args")))


def _said(outcomes: pl.DataFrame) -> pl.DataFrame:
    """Outcomes as `FRAME` has them, but for what hangs on the row."""
    faults = pl.col("errors").list.eval(pl.struct(policy=pl.element(), message=pl.lit(None, dtype=pl.String)))
    undecided = pl.col("status") == "undecided"
    return outcomes.select(
        *(name for name in _FOUND if name != "enforced_args"),
        missing=pl.col("missing").fill_null(_NONE),
        errors=pl.when(pl.col("status") == "decided").then(faults).cast(FRAME["errors"]),
        cause=pl.when(undecided).then(pl.lit("missing_fact")),
        engine=pl.lit(ENGINE),
        decidable=pl.lit(value=True),
        handed_over=pl.lit(None, pl.String),
    )


def _order(mine: pl.Series) -> pl.Series:
    """Where each row is, if those that are `mine` come first and then the others."""
    ours = mine.to_numpy()
    order = np.empty(len(ours), np.uint32)
    number = int(ours.sum())
    order[ours], order[~ours] = np.arange(number), np.arange(number, len(ours))
    return pl.Series(order)


def _merged(numbers: pl.Series, others: pl.Series, first: int, order: pl.Series) -> pl.Series:
    """Numbers of all rows, where each of the others has a number of its own, from `first` on."""
    more = pl.Series(np.arange(first, first + others.len()), dtype=numbers.dtype)
    return pl.concat([numbers.alias("n"), more.alias("n")]).gather(order)


def _effects(base: pl.DataFrame, decided: Decided) -> tuple[pl.DataFrame, pl.Series]:
    """`effect` and `verdict_changed` for each combination that occurs, and which one each row has."""
    said = decided.outcomes.select("status", "verdict").unique(maintain_order=True)
    kinds = decided.outcomes.select("status", "verdict").join(
        said.with_row_index("n"),
        on=["status", "verdict"],
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )["n"]
    same = (decided.enforced_args == base[_ENFORCED]).fill_null(
        value=False
    )  # null: nothing runs then, or now
    fates = {row[0]: row[1:] for row in base.select(_FATE, *_FATE_OF).unique(_FATE).iter_rows()}
    codes = (base[_FATE] * said.height + kinds.gather(decided.numbers)) * 2 + same.cast(pl.UInt32)
    occurs = np.bincount(codes.to_numpy()) > 0
    told = [
        _told(*fates[code // 2 // said.height], *said.row(code // 2 % said.height), same=bool(code % 2))
        if there
        else (None, None)
        for code, there in enumerate(occurs)
    ]
    schema = {"effect": pl.String, "verdict_changed": pl.Boolean}
    return pl.DataFrame(told, schema=schema, orient="row"), codes


def _told(
    then: Any, kind: str, recorded: str, status: str, verdict: str | None, *, same: bool
) -> tuple[str, bool | None]:
    if status == "undecided":
        return "undecided", None
    return _effect(then, verdict, kind, same), verdict != recorded


def quarantined(
    rows: pl.DataFrame, causes: pl.Series, about: pl.Series | None = None, *, decidable: bool = False
) -> pl.DataFrame:
    """Return rows of `FRAME` for what cannot be replayed, with `row`; undecided, where the cause says so.

    Args:
        rows: as `base_of` takes them.
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
