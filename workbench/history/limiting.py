"""The limits stage in columns: rows that recorded inputs refuse, and rows whose inputs columns do not hold.

One rule: a row is refused here as `runtime.limits.Limits.judge` refuses it, for the same reason in the same words, or
it is handed over: where its record lacks a counter, where an emergency stop held it, and where a patch asks a budget
for more than is left.

A budget over the session's own counters is judged by `session_state`, which every chunk has. What else was counted
stands in `stage_inputs`, a wide column that is read only where some limits need it (`needs_inputs`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from runtime.errors import BundleError
from runtime.limits import AFTER, ARGS
from runtime.limits_file import parse_limits
from runtime.trace import POLICIES
from workbench.columnar.layouts import ScalarShape
from workbench.digests import connection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from runtime.bundle import Bundle
    from runtime.limits import Breaker, Budget, Limits, Loop, Meter
    from runtime.schema import Record
    from workbench.columnar.json_columns import Typed
    from workbench.columnar.layouts import Layout
    from workbench.history.chunk import Part
    from workbench.lake import Lake

INPUTS = "stage_inputs"
"""Column of `decisions` that holds what limits were judged by."""
_BEFORE = ("tenant", "context", "request")
"""Stages before the limits: whether a stop held such a row is in its inputs alone."""
_WHOLE = r"^-?(?:0|[1-9][0-9]{0,17})$"
_CLOSED = r'^\{"calls":\d{1,6},"errors":\d{1,6},"state":"closed"\}$'
_OPEN = r'^\{"calls":(\d{1,6}),"errors":(\d{1,6}),"state":"open","until":(-?\d{1,14})\}$'
_HALF_OPEN = r'^\{"calls":\d{1,6},"errors":\d{1,6},"probing":(\d{1,6}),"state":"half_open"\}$'
_LIST = r"^\[(?:[0-9]{1,18}(?:,[0-9]{1,18})*)?\]$"


class Limited(NamedTuple):
    """What the limits stage makes of the rows of a part."""

    refused: pl.DataFrame
    """One row a row of the part: `reason_code` and `reason` (String); null: limits let it pass, or `why` is there."""
    why: pl.Series
    """String, one a row: why it is handed over; null: it is not."""
    room: Mapping[str, pl.Series]
    """By argument that budgets count: what is left of it, one a row (Int64); null: not known here."""


class _Judged(NamedTuple):
    """One limit over the rows of a part."""

    code: pl.Expr
    """String; null: it does not refuse."""
    reason: pl.Expr
    missing: pl.Expr
    """String: why it is not judged here; null: it is."""

    @property
    def told(self) -> pl.Expr:
        """`refused`, or `missing` (String); null: it lets the call pass."""
        unknown = pl.when(self.missing.is_not_null()).then(pl.lit("missing"))
        return pl.when(self.code.is_not_null()).then(pl.lit("refused")).otherwise(unknown)


def needs_inputs(lake: Lake, others: Iterable[Bundle | None]) -> bool:
    """Whether limits of a lake's bundles, or of others, are judged by more than the session's own counters."""
    texts = lake.table(POLICIES).filter(pl.col("file") == "limits.toml").select("text").unique().collect()
    found = [*map(_read, texts["text"]), *(bundle.limits for bundle in others if bundle is not None)]
    return any(_needs(limits) for limits in found if limits is not None)


@lru_cache(maxsize=64)
def _read(text: str) -> Limits | None:
    try:
        return parse_limits(text)
    except BundleError:
        return None  # rows of such a bundle are quarantined


def _needs(limits: Limits) -> bool:
    return bool(limits.loops or limits.breakers) or any(
        not budget.meter.of_session for budget in limits.budgets
    )


def limited(part: Part, limits: Limits) -> Limited:
    """Judge the rows of a part."""
    loops = [loop for loop in limits.loops if loop.applies(part.key.tool)]
    budgets = [each for each in limits.budgets if each.applies(part.key.tool) and _is_for(part, each.meter)]
    breakers = [each for each in limits.breakers if each.applies(part.key.tool) and _is_for(part, each)]
    frame = _frame(part, breakers, loops, budgets)
    judged = [_stopped()]
    judged += [_breaker(number, breaker) for number, breaker in enumerate(breakers)]
    judged += [_loop(number, loop) for number, loop in enumerate(loops)]
    judged += [_budget(number, budget, frame) for number, budget in enumerate(budgets)]
    told = frame.select(
        first=pl.coalesce(each.told for each in judged),
        reason_code=pl.coalesce(each.code for each in judged),
        reason=pl.coalesce(each.reason for each in judged),
        why=pl.coalesce(each.missing for each in judged),
    )
    here = pl.col("first") == "refused"
    refused = told.select(pl.when(here).then(name).alias(name) for name in ("reason_code", "reason"))
    why = told.select(why=pl.when(pl.col("first") == "missing").then("why"))["why"]
    return Limited(refused, why, _room(frame, budgets))


def _room(frame: pl.DataFrame, budgets: Sequence[Budget]) -> dict[str, pl.Series]:
    left: dict[str, list[pl.Expr]] = {}
    for number, budget in enumerate(budgets):
        if budget.meter.measure.startswith(ARGS):
            name = budget.meter.measure.removeprefix(ARGS)
            left.setdefault(name, []).append(budget.max - _used(number, budget.meter))
    known = {name: pl.all_horizontal(each.is_not_null() for each in found) for name, found in left.items()}
    return {
        name: frame.select(room=pl.when(known[name]).then(pl.min_horizontal(found)))["room"]
        for name, found in left.items()
    }


def _is_for(part: Part, each: Meter | Breaker) -> bool:
    return each.per != "on_behalf_of" or part.key.on_behalf_of_type is not None


# -- columns -----------------------------------------------------------------------------------------------


def _frame(
    part: Part, breakers: Sequence[Breaker], loops: Sequence[Loop], budgets: Sequence[Budget]
) -> pl.DataFrame:
    """What is judged: code and stage, `session <counter>`, and `breaker`, `cycles`, `meter`, `asks` by number."""
    rows = part.rows
    columns = [rows["reason_code"], rows["decided_by"]]
    columns += [_whole(part, name).alias(f"session {name}") for name in ("calls", "repeats", *_counters())]
    pointers = {f"meter {n}": ("meters", budget.meter.name) for n, budget in enumerate(budgets)}
    pointers |= {f"breaker {n}": ("breakers", breaker.key) for n, breaker in enumerate(breakers)}
    pointers |= {f"cycles {n}": ("cycles", loop.key) for n, loop in enumerate(loops)}
    columns += _recorded(rows, pointers)
    for number, budget in enumerate(budgets):
        if budget.meter.measure.startswith(ARGS):
            columns.append(_asked(part, budget.meter).alias(f"asks {number}"))
    return pl.DataFrame(columns)


def _counters() -> list[str]:
    return sorted({name for names in AFTER.values() for name in names})


def _whole(part: Part, name: str) -> pl.Series:
    """A counter of the session; null: not recorded, or not declared as an integer."""
    column = _scalar(part.session.layouts.get(name))
    if column is None:
        return pl.Series([None], dtype=pl.Int64).new_from_index(0, part.rows.height)
    return part.session.columns[column]


def _scalar(layout: Layout | None) -> str | None:
    match None if layout is None else layout.shapes:
        case ((_, ScalarShape("long", column)),):
            return column
        case _:
            return None


def _asked(part: Part, meter: Meter) -> pl.Series:
    """An amount in the arguments, 0 where it is absent; null: not held as one column."""
    return amount(part.args, part.record, meter.measure.removeprefix(ARGS), part.rows.height)


def amount(args: Typed, record: Record, name: str, height: int) -> pl.Series:
    """Return an argument that a budget counts (Int64), 0 where it is absent; null: it is not held as one column."""
    column = _scalar(args.layouts.get(name))
    if column is not None:
        return args.columns[column].fill_null(0)
    nothing = 0 if name.partition(".")[0] not in record.attrs else None
    return pl.Series([nothing], dtype=pl.Int64).new_from_index(0, height)


def _recorded(rows: pl.DataFrame, pointers: dict[str, tuple[str, str]]) -> Iterator[pl.Series]:
    """Texts of recorded inputs (String), as they stand there; null: absent, or not read."""
    if INPUTS not in rows.columns or not pointers:
        nothing = pl.Series([None], dtype=pl.String).new_from_index(0, rows.height)
        yield from (nothing.alias(name) for name in pointers)
        return
    paths = [
        f"/limits/{kind}/{name.replace('~', '~0').replace('/', '~1')}" for kind, name in pointers.values()
    ]
    texts = rows.select(text=INPUTS).with_row_index("place").rechunk()  # DuckDB takes a table piece by piece
    sql = "SELECT place, CASE WHEN json_valid(text) THEN json_extract(text, $paths) END AS found FROM texts"
    with connection() as cursor:
        cursor.register("texts", texts.to_arrow())
        found = cursor.sql(sql, params={"paths": paths}).pl().sort("place")["found"]
    for place, name in enumerate(pointers):
        yield found.list.get(place).cast(pl.String).alias(name)


# -- judging -----------------------------------------------------------------------------------------------

_NOTHING = pl.lit(None, dtype=pl.String)


def _stopped() -> _Judged:
    early = pl.col("decided_by").is_in(_BEFORE) & (pl.col("reason_code") != "cedar_no_decision")
    why = (
        pl.when(pl.col("reason_code") == "stopped")
        .then(pl.lit("an emergency stop held it"))
        .when(early & pl.col("session repeats").is_not_null())  # older records know no stops
        .then(pl.lit("refused before the limits: whether a stop held it is in its inputs"))
    )
    return _Judged(_NOTHING, _NOTHING, why)


def _breaker(number: int, breaker: Breaker) -> _Judged:
    text = pl.col(f"breaker {number}")
    opened, probing = text.str.extract_groups(_OPEN), text.str.extract(_HALF_OPEN)
    calls, errors, until = (opened.struct.field(str(place)) for place in (1, 2, 3))
    moment = pl.from_epoch(until.cast(pl.Int64, strict=False), time_unit="ms").dt.strftime(
        "%Y-%m-%dT%H:%M:%S%.3fZ"
    )
    waits = (probing.cast(pl.Int64, strict=False) >= breaker.probes).fill_null(value=False)
    known = text.str.contains(_CLOSED) | moment.is_not_null() | probing.is_not_null()
    missing = ~known.fill_null(value=False)
    return _Judged(
        pl.when(moment.is_not_null() | waits).then(pl.lit("breaker_open")),
        pl.when(moment.is_not_null())
        .then(_worded(breaker.is_open(*_MARKS), moment, errors, calls))
        .when(waits)
        .then(_worded(breaker.is_half_open(_MARKS[0]), probing)),
        pl.when(missing).then(pl.lit(f"breaker `{breaker.name}`: its state is not held here")),
    )


def _loop(number: int, loop: Loop) -> _Judged:
    text = pl.col(f"cycles {number}")
    fits = text.str.contains(_LIST)
    matched = pl.when(fits).then(text).str.strip_chars("[]").str.split(",")
    code, reason = _NOTHING, _NOTHING
    for period in range(loop.max_period, 0, -1):
        found = matched.list.get(period - 1, null_on_oob=True).cast(pl.Int64, strict=False)
        repeats = found // period
        over = (repeats > loop.max_repeats).fill_null(value=False)
        code = pl.when(over).then(pl.lit("loop_detected")).otherwise(code)
        reason = pl.when(over).then(_worded(loop.message(period, _MARKS[0]), repeats)).otherwise(reason)
    why = pl.when(~fits.fill_null(value=False)).then(
        pl.lit(f"loop `{loop.name}`: its cycles are not held here")
    )
    return _Judged(code, reason, why)


def _budget(number: int, budget: Budget, frame: pl.DataFrame) -> _Judged:
    meter = budget.meter
    used, most = _used(number, meter), _total(meter)
    in_args = f"asks {number}" in frame.columns
    asked = pl.col(f"asks {number}") if in_args else pl.lit(0 if meter.is_after else 1)
    over = used >= budget.max if meter.is_after else used > budget.max - asked
    bounded = (most < budget.max if meter.is_after else most <= budget.max - asked).fill_null(value=False)
    wrong = (asked < 0).fill_null(value=False)
    refused = over.fill_null(value=False)
    code = pl.lit("budget_spent" if meter.window_ms is None else "rate_exceeded")
    missing = (used.is_null() | asked.is_null()) & ~bounded & ~wrong
    return _Judged(
        pl.when(wrong).then(pl.lit("amount_invalid")).when(refused).then(code),
        pl.when(wrong)
        .then(pl.lit(budget.no_amount))
        .when(refused)
        .then(_worded(budget.message(*_MARKS[:2]), used, asked)),
        pl.when(missing).then(pl.lit(f"budget `{budget.name}`: what it counts is not held here")),
    )


def _used(number: int, meter: Meter) -> pl.Expr:
    if meter.of_session:
        return _total(meter)
    text = pl.col(f"meter {number}")
    return pl.when(text.str.contains(_WHOLE)).then(text).cast(pl.Int64, strict=False)


def _total(meter: Meter) -> pl.Expr:
    """The session's counter of all calls, which bounds what is counted of some; null: none does."""
    if meter.per != "session" or meter.measure.startswith(ARGS):
        return pl.lit(None, dtype=pl.Int64)
    names = AFTER.get(meter.measure, (meter.measure,))
    return pl.sum_horizontal([pl.col(f"session {name}") for name in names], ignore_nulls=False)


_MARKS = ("\x01", "\x02", "\x03")
"""Stand for values in the wording of a reason."""


def _worded(text: str, *values: pl.Expr) -> pl.Expr:
    """Put values where the marks of a text stand."""
    found = dict(zip(_MARKS, values, strict=False))
    parts = re.split("([\x01-\x03])", text)
    return pl.concat_str([found[part].cast(pl.String) if part in found else pl.lit(part) for part in parts])
