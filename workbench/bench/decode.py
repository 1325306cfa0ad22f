"""How fast JSON arguments become typed columns: ours, checked exactly, beside three readers that do not check.

One rule: every reader gets the same column of texts, in one process, and gives typed columns of the same members;
ours must first agree with the values that the texts were made of. Its compiled pass is loaded first, and that told
apart: a process loads it once it has read some megabytes.

The texts hold what real calls hold: numbers, ids, notes with an escape in one of a hundred, and in the long ones a
nested record, a set, a date and amounts with a fraction.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
import polars as pl

from runtime.schema import parse_schema
from workbench.bench.measure import best_of, machine
from workbench.columnar.json_columns import read_json, read_typed
from workbench.columnar.json_leaves import written
from workbench.columnar.json_loading import LOADER
from workbench.errors import OracleMismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runtime.schema import Record
    from workbench.bench.measure import Timing

Size: TypeAlias = Literal["short", "long"]
"""About 180 and about 570 bytes a text."""

GOALS: Final[Mapping[Size, float]] = {"short": 3e6, "long": 1.5e6}
"""Rows a second; DESIGN section 10."""

_SCHEMA = """
entity User; entity Order; entity Customer;
action short appliesTo { principal: User, resource: Order, context: {
  amount_cents: Long, currency: String, note: String, order_id: Order, reason?: String, urgent: Bool } };
action long appliesTo { principal: User, resource: Order, context: {
  amount: decimal, attempts: Long, channel: String, customer: { email: String, id: Customer, vip?: Bool },
  note: String, opened_at: datetime, order_id: Order, reason?: String, subject: String, tags: Set<String>,
  urgent: Bool } };
"""
_NOTE = "the parcel came late and one of the cups was broken"
_MORE = (
    f"{_NOTE}; I would like my money back. Nobody answered the telephone on Monday, nor on Tuesday, and the driver "
    "left it in the rain behind the house, where the neighbour's dog found it before I did. Please tell me when"
)
_ESCAPED = 10
"""Notes with an escape, of a thousand."""
_SINCE = 1_700_000_000_000
"""Milliseconds: where the dates of the long texts begin."""


@dataclass(frozen=True, slots=True)
class Texts:
    """One column of texts, and what they were made of."""

    record: Record
    column: pl.Series
    values: pl.DataFrame
    """By attribute, those that one column shows as it is."""
    plain: Mapping[str, pl.DataType]
    """The nearest types of readers that know nothing of Cedar."""

    @property
    def bytes_a_row(self) -> float:
        """Mean length."""
        return float(self.column.str.len_bytes().mean() or 0)  # type: ignore[arg-type]  # a number's mean is one


def texts(size: Size, rows: int, seed: int = 20) -> Texts:
    """Make texts; the same seed gives the same ones."""
    random = np.random.default_rng(seed)
    drawn = pl.DataFrame(
        {
            "n": np.arange(rows),
            "amount": random.integers(1, 500_000, rows),
            "chance": random.integers(0, 1000, rows),
            "id": random.integers(0, max(rows // 12, 1), rows),
        }
    )
    made = drawn.select(**_short()) if size == "short" else drawn.select(**_long())
    record = parse_schema(_SCHEMA).actions[size].context
    column = made.select(_joined(*_MEMBERS[size]))["text"]
    return Texts(record, column, made, _PLAIN[size])


def _chosen(among: int, usual: str, other: str) -> pl.Expr:
    """`other` in so many of a thousand rows."""
    return pl.when(pl.col("chance") < among).then(pl.lit(other)).otherwise(pl.lit(usual))


def _short() -> dict[str, pl.Expr]:
    end = _chosen(_ESCAPED, "and a plain end", 'with a \\"quote\\"')
    return {
        "amount_cents": pl.col("amount"),
        "currency": pl.lit("EUR"),
        "note": pl.format("{}: {}, {}", "n", pl.lit(f"look, {_NOTE}"), end),
        "order_id": pl.format("o-{}", "id"),
        "reason": pl.when(pl.col("chance") % 3 > 0).then(pl.lit("damaged")),
        "urgent": pl.col("chance") % 2 == 0,
    }


def _long() -> dict[str, pl.Expr]:
    end = _chosen(_ESCAPED, "schöne Grüße", "on two\\nlines")
    moment = (_SINCE + pl.col("amount") * 1000).cast(pl.Datetime("ms"))
    return {
        "amount": pl.format("{}.5", pl.col("amount") // 100),
        "attempts": pl.col("chance") % 5,
        "channel": _chosen(500, "web form", "telephone"),
        "email": pl.format("customer{}@example.org", "id"),
        "id": pl.format("c-{}", "id"),
        "vip": pl.when(pl.col("chance") % 7 == 0).then(pl.lit(value=True)),
        "note": pl.format("{}: {} {}", "n", pl.lit(_MORE), end),
        "opened_at": moment.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "order_id": pl.format("o-{}", "id"),
        "reason": pl.when(pl.col("chance") % 3 > 0).then(pl.lit("damaged on arrival")),
        "subject": pl.format("about the order o-{} of last week", "id"),
        "tags": pl.format('"late","{}","parcel"', _chosen(100, "calm", "angry")),
        "urgent": pl.col("chance") % 2 == 0,
    }


Part: TypeAlias = "str | tuple[str, str, str]"
"""Fixed text, or a column between two texts that are absent where it is null."""

_MEMBERS: Final[Mapping[Size, tuple[Part, ...]]] = {
    "short": (
        *('{"amount_cents":', ("", "amount_cents", ""), ',"currency":"', ("", "currency", ""), '","note":"'),
        *(("", "note", '"'), ',"order_id":"', ("", "order_id", '"'), (',"reason":"', "reason", '"')),
        *(',"urgent":', ("", "urgent", "}")),
    ),
    "long": (
        *(
            '{"amount":',
            ("", "amount", ""),
            ',"attempts":',
            ("", "attempts", ""),
            ',"channel":"',
            ("", "channel", '"'),
        ),
        *(
            ',"customer":{"email":"',
            ("", "email", '"'),
            ',"id":"',
            ("", "id", '"'),
            (',"vip":', "vip", ""),
            "}",
        ),
        *(',"note":"', ("", "note", '"'), ',"opened_at":"', ("", "opened_at", '"'), ',"order_id":"'),
        *(
            ("", "order_id", '"'),
            (',"reason":"', "reason", '"'),
            ',"subject":"',
            ("", "subject", '"'),
            ',"tags":[',
        ),
        *(("", "tags", "]"), ',"urgent":', ("", "urgent", "}")),
    ),
}

_PLAIN: Final[Mapping[Size, Mapping[str, pl.DataType]]] = {
    "short": {
        "amount_cents": pl.Int64(),
        "currency": pl.String(),
        "note": pl.String(),
        "order_id": pl.String(),
        "reason": pl.String(),
        "urgent": pl.Boolean(),
    },
    "long": {
        "amount": pl.Float64(),
        "attempts": pl.Int64(),
        "channel": pl.String(),
        "customer": pl.Struct({"email": pl.String(), "id": pl.String(), "vip": pl.Boolean()}),
        "note": pl.String(),
        "opened_at": pl.String(),
        "order_id": pl.String(),
        "reason": pl.String(),
        "subject": pl.String(),
        "tags": pl.List(pl.String()),
        "urgent": pl.Boolean(),
    },
}


def _joined(*parts: Part) -> pl.Expr:
    pieces = [
        pl.lit(part)
        if isinstance(part, str)
        else pl.concat_str([pl.lit(part[0]), pl.col(part[1]).cast(pl.String), pl.lit(part[2])])
        for part in parts
    ]
    return pl.concat_str(pieces, ignore_nulls=True).alias("text")


def by_polars(given: Texts) -> pl.DataFrame:
    """`str.json_decode`, typed."""
    struct = pl.Struct(dict(given.plain))
    return (
        given.column.to_frame()
        .lazy()
        .select(pl.col("text").str.json_decode(struct))
        .collect(engine="streaming")
    )


def by_pyarrow(given: Texts) -> object:
    """`pyarrow.json`, typed; it reads lines, so the column is joined first."""
    import pyarrow as pa  # noqa: PLC0415 - one reader of several
    from pyarrow import json as arrow_json  # noqa: PLC0415 - as above

    schema = pa.schema(
        pl.DataFrame(schema=dict(given.plain)).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    )
    lines = io.BytesIO(given.column.str.join("\n").item().encode())
    options = arrow_json.ParseOptions(
        explicit_schema=_arrow_plain(schema, pa), unexpected_field_behavior="error"
    )
    return arrow_json.read_json(lines, parse_options=options)


def _arrow_plain(schema: Any, pa: Any) -> Any:
    """`pyarrow.json` reads no large strings and lists."""

    def plain(kind: Any) -> Any:
        if pa.types.is_large_string(kind):
            return pa.string()
        if pa.types.is_large_list(kind):
            return pa.list_(plain(kind.value_type))
        if pa.types.is_struct(kind):
            return pa.struct([(each.name, plain(each.type)) for each in kind])
        return kind

    return pa.schema([(each.name, plain(each.type)) for each in schema])


def by_duckdb(given: Texts) -> pl.DataFrame:
    """DuckDB's `from_json`, typed, on as many threads as Polars has."""
    import duckdb  # noqa: PLC0415 - one reader of several

    with duckdb.connect(
        config={"threads": pl.thread_pool_size(), "autoinstall_known_extensions": False}
    ) as base:
        base.register("given", given.column.to_frame().to_arrow())
        query = f"SELECT unnest(from_json(text, '{_duck(given.plain)}')) FROM given"  # noqa: S608 - our own names
        found: pl.DataFrame = base.sql(query).pl()
    return found


_DUCK = {
    pl.Int64(): '"BIGINT"',
    pl.Float64(): '"DOUBLE"',
    pl.String(): '"VARCHAR"',
    pl.Boolean(): '"BOOLEAN"',
}


def _duck(types: Mapping[str, Any]) -> str:
    return "{" + ",".join(f'"{name}":{_duck_type(kind)}' for name, kind in types.items()) + "}"


def _duck_type(kind: Any) -> str:
    if isinstance(kind, pl.Struct):
        return _duck(dict(kind.to_schema()))
    return f"[{_duck_type(kind.inner)}]" if isinstance(kind, pl.List) else _DUCK[kind]


READERS: Final[Mapping[str, Callable[[Texts], object]]] = {
    "redecide": lambda given: read_typed(given.column, given.record, form="arguments"),
    "redecide, with leaves": lambda given: read_json(given.column, given.record, form="arguments"),
    "duckdb from_json": by_duckdb,
    "pyarrow.json": by_pyarrow,
    "polars json_decode": by_polars,
}
"""Every reader by its name; only ours check types exactly."""


def check(given: Texts) -> None:
    """Hold what we read to what the texts were made of.

    Raises:
        OracleMismatch: a row was refused, has another value, or cannot be written again.
    """
    leaves, found = read_json(given.column, given.record, form="arguments")
    shown = {name.split(" ")[1].rpartition(".")[2]: found.columns[name] for name in found.columns.columns}
    same = all(_same(shown[name], given.values[name]) for name in ("order_id", "reason", "urgent", "note"))
    again = written(leaves, given.record, form="arguments")
    if found.bad.height or leaves.odd.any() or not same or not again.equals(given.column):
        raise OracleMismatch(
            f"typed columns of {given.bytes_a_row:.0f}-byte texts are not what they were made of",
            case=given.column,
        )


def _same(found: pl.Series, made: pl.Series) -> bool:
    if made.dtype == pl.String:
        made = made.str.replace_all('\\"', '"', literal=True).str.replace_all("\\n", "\n", literal=True)
    return found.equals(made)


def decode(*, rows: int, repeats: int = 3, seed: int = 20) -> dict[str, Any]:
    """Time every reader on both sizes of texts.

    Returns:
        `machine`; `loading`: `seconds`, `cpu_seconds` that our compiled pass took to load, or to compile if it had to
        be, before anything was timed, and `why_not` it was not (empty: it was); and `runs`, one a size and reader:
        `size`, `bytes`, `rows`, `reader`, `seconds`, `cpu_seconds`, `rows_per_second`, `ratio` (our time into
        theirs).
    """
    loading = best_of(1, LOADER.loaded)
    runs = []
    for size in GOALS:
        given = texts(size, rows, seed)
        check(given)
        timed = {name: best_of(repeats, partial(read, given)) for name, read in READERS.items()}
        runs += [_run(size, given, name, timing, timed["redecide"]) for name, timing in timed.items()]
    loaded = {"seconds": loading.best, "cpu_seconds": loading.cpu, "why_not": LOADER.why_not}
    return {"machine": machine(), "loading": loaded, "runs": runs}


def _run(size: Size, given: Texts, name: str, timing: Timing, ours: Timing) -> dict[str, Any]:
    rows = given.column.len()
    return {
        "size": size,
        "bytes": round(given.bytes_a_row),
        "rows": rows,
        "reader": name,
        "seconds": timing.best,
        "cpu_seconds": timing.cpu,
        "rows_per_second": rows / timing.best,
        "ratio": timing.best / ours.best,
    }


def decode_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The figures for people."""
    yield "JSON arguments to typed columns; only ours checks types exactly"
    loading = found["loading"]
    yield (
        f"not compiled: {loading['why_not']}"
        if loading["why_not"]
        else f"the compiled pass was there after {loading['seconds']:.2f} s (CPU {loading['cpu_seconds']:.2f} s)"
    )
    yield f"{'bytes':>6} {'rows':>11} {'seconds':>8} {'cpu s':>7} {'M rows/s':>9} {'ours is':>9}  reader"
    for run in found["runs"]:
        yield (
            f"{run['bytes']:>6} {run['rows']:>11,} {run['seconds']:>8.3f} {run['cpu_seconds']:>7.2f} "
            f"{run['rows_per_second'] / 1e6:>9.2f} {run['ratio']:>8.1f}×  {run['reader']}"
        )
    for size, goal in GOALS.items():
        best = max(
            run["rows_per_second"]
            for run in found["runs"]
            if (run["size"], run["reader"]) == (size, "redecide")
        )
        said = "goal met:" if best >= goal else "goal missed:"
        yield f"{size}: {best / 1e6:.2f} M rows/s ({said} {goal / 1e6:.1f} M)"
