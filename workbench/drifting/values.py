"""What a window of the log is described by: facts, arguments, tools and verdicts, each as a column of values.

One rule: a variable has one value a decision or none, and none is a value of its own variable (`status`, `shape`),
not of the numbers: a fact that is found less often does not look like a fact whose values fell.

| what | values | of |
|---|---|---|
| `mix` | tool, verdict, stage and reason | all decisions |
| `status` | `found`, `none`, `not_asked`, `failed` | a fact |
| `value` | a member of a record, a number or a category | a fact, or an argument of a tool |
| `size` | number of elements | a fact or an argument that is a set |
| `age` | seconds from a fact's time, or a time given, to the decision, to one digit | a fact, or an argument |
| `shape` | which arguments were given | a tool |

Texts that are hardly ever the same twice (ids, free text) have no distribution to compare; their length stands for
them (`length`). Accepted: facts are read off the distinct records of the contexts, in Python once a record;
arguments by the columns of the engine, once a tool and bundle; those that do not fit the schema are told by `shape`
alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import polars as pl

from workbench.columnar.json_columns import read_typed
from workbench.columnar.layouts import RecordShape, ScalarShape
from workbench.history.caching import contexts_of
from workbench.history.contexts import age_column, fact_column
from workbench.texts import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.bundle import Bundle
    from runtime.schema import Record
    from workbench.columnar.json_columns import Typed
    from workbench.columnar.layouts import Layout
    from workbench.history.contexts import Contexts
    from workbench.lake import Lake

MANY, OFTEN = 50, 100
"""Different texts above which the length stands for them, unless each occurs so often on average: the distance
between two samples of mostly different texts is large by chance alone."""

_DRAW = "draw"
_SESSION = "session"
_ARGS = "context.args"
_MOMENT = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d"
_DECIMAL = r"^-?\d+\.\d+$"


class Name(NamedTuple):
    """A variable."""

    path: str
    """As policies have it, `context.order.cents`; or the column of `decisions`."""
    what: str
    """See the module."""
    tool: str | None = None
    """Whose argument it is; None: of all decisions."""
    fact: str | None = None
    """Of which it is; None: it is no fact's."""


Values = pl.DataFrame
"""`session` (UInt64: hash of tenant and session), `value` (Float64: a number; String: a category); no nulls. The rows
of a session stand in an order of chance, so that the first is one drawn from it."""


@dataclass(frozen=True, slots=True)
class Window:
    """Some decisions of a lake."""

    lake: Lake
    where: pl.Expr
    """Over the columns of `decisions`."""
    text: str
    """What it is, for people."""

    def rows(self, *columns: str, where: pl.Expr | None = None) -> pl.DataFrame:
        """Return its decisions, shadow decisions left out, with `session`; of each session in an order of chance."""
        rows = self.lake.history.filter(self.where)
        rows = rows if where is None else rows.filter(where)
        session = pl.concat_str("tenant", "session_id", separator="\0").hash()
        # Ids end in what is random of them: an order that has nothing to do with time or place.
        draw = pl.col("decision_id").str.tail(12)
        found = rows.select(*columns, session.alias(_SESSION), draw.alias(_DRAW))
        return found.sort(_SESSION, _DRAW).drop(_DRAW).collect()

    def mixes(self) -> dict[Name, Values]:
        """Tool, verdict, and stage with reason."""
        reason = pl.format("{} {}", "decided_by", "reason_code")
        rows = self.rows("tool", "verdict", "decided_by", "reason_code").with_columns(reason=reason)
        return {
            Name(name, "mix"): rows.select(_SESSION, value=pl.col(name).cast(pl.String))
            for name in ("tool", "verdict", "reason")
        }

    def contexts(self) -> Contexts:
        """The contexts of its lake, taken apart."""
        return contexts_of(self.lake)

    def fact(self, name: str, contexts: Contexts) -> dict[Name, Values]:
        """Status, members, size and age of one fact; nothing, if no context holds it."""
        if name not in contexts.facts:
            return {}
        known = contexts.frame.select("context_hash", code=fact_column(name), as_of=age_column(name))
        rows = (
            self.rows("context_hash", "decided_at")
            .join(known, on="context_hash", maintain_order="left")
            .drop_nulls("code")
        )
        records, code = contexts.facts[name].frame, rows["code"]
        path = _path(name, records)
        status = records["status"].gather(code)
        found = {Name(path, "status", fact=name): rows.select(_SESSION).with_columns(value=status)}
        seconds = _seconds(rows["decided_at"], pl.from_epoch(rows["as_of"], "us").dt.replace_time_zone("UTC"))
        aged = rows.select(_SESSION).with_columns(value=seconds).filter(status == "found").drop_nulls()
        found[Name(path, "age", fact=name)] = aged
        for (member, what), column in _members(records["value"]).items():
            values = column.gather(code)
            if isinstance(values.dtype, pl.Datetime):
                values = _seconds(rows["decided_at"], values)
            place = f"{path}.{member}" if member else path
            each = rows.select(_SESSION).with_columns(value=values).drop_nulls()
            found[Name(place, what, fact=name)] = each
        return found

    def tools(self) -> set[str]:
        """Tools that were called."""
        return set(self.rows("tool")["tool"].unique())

    def args(self, tool: str) -> dict[Name, Values]:
        """Shape and members of a tool's arguments."""
        rows = self.rows("args", "bundle_version", "decided_at", where=pl.col("tool") == tool)
        found: dict[Name, list[Values]] = {}
        for (version,), mine in rows.partition_by("bundle_version", as_dict=True).items():
            bundle = self.lake.find_bundle(str(version))
            for name, values in _arguments(mine, tool, None if bundle is None else _declared(bundle, tool)):
                found.setdefault(name, []).append(values)
        return {name: pl.concat(parts) for name, parts in found.items() if _alike(parts)}


def _alike(parts: list[Values]) -> bool:
    """Whether an argument has one type in all bundles; else there is nothing to compare but its shape."""
    return len({part.schema["value"] for part in parts}) == 1


def _seconds(decided_at: pl.Series, moments: pl.Series) -> pl.Series:
    """How long before the decision, to one significant digit: everything ages as time goes on."""
    return ((decided_at - moments).dt.total_milliseconds() / 1_000).round_sig_figs(1)


def _path(name: str, records: pl.DataFrame) -> str:
    """Where policies have a fact: a member of the context, or attributes of an entity."""
    into = records["into"].unique().to_list()
    return f"context.{name}" if into == ["context"] or len(into) != 1 else str(into[0])


def _members(texts: pl.Series) -> dict[tuple[str, str], pl.Series]:
    """Members of the distinct values of a fact, by name and what they are; one row a value."""
    columns: dict[str, list[Any]] = {}
    sizes: list[float | None] = []
    for row, text in enumerate(texts):
        value = None if text is None else msgspec.json.decode(text)
        sizes.append(float(len(value)) if isinstance(value, list) else None)
        for name, item in _leaves(value):
            columns.setdefault(name, [None] * texts.len())[row] = item
    read = {name: _column(items) for name, items in columns.items()}
    found = {
        (name, "age" if isinstance(each.dtype, pl.Datetime) else "value"): each for name, each in read.items()
    }
    if any(size is not None for size in sizes):
        found["", "size"] = pl.Series(sizes, dtype=pl.Float64)
    return found


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Scalars of a record, by dotted name; sets by their size."""
    if not isinstance(value, dict):
        return
    for name, item in value.items():
        place = f"{path}.{name}" if path else name
        if isinstance(item, dict):
            yield from _leaves(item, place)
        elif isinstance(item, list):
            yield place, float(len(item))
        elif item is not None:
            yield place, item


def _column(items: list[Any]) -> pl.Series:
    """Numbers where all are, else texts."""
    known = [item for item in items if item is not None]
    if all(isinstance(item, int | float) and not isinstance(item, bool) for item in known):
        return pl.Series([None if item is None else float(item) for item in items], dtype=pl.Float64)
    texts = pl.Series([None if item is None else _text(item) for item in items], dtype=pl.String)
    known_texts = texts.drop_nulls()
    if known_texts.len() and known_texts.str.contains(_MOMENT).all():
        moments = texts.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
        if moments.null_count() == texts.null_count():
            return moments
    return _decimals(texts)


def _text(item: object) -> str:
    return item if isinstance(item, str) else str(item).lower()


def _decimals(texts: pl.Series) -> pl.Series:
    """Decimals, which JSON holds as texts, as numbers."""
    known = texts.drop_nulls()
    decimal = known.len() > 0 and known.str.contains(_DECIMAL).all()
    return texts.cast(pl.Float64) if decimal else texts


def _declared(bundle: Bundle, tool: str) -> Record | None:
    action = bundle.schema.actions.get(tool)
    found = None if action is None else action.context.attrs.get("args")
    return None if found is None else found.type  # type: ignore[return-value]  # `args` is a record, or it does not load


def _arguments(rows: pl.DataFrame, tool: str, declared: Record | None) -> Iterator[tuple[Name, Values]]:
    if declared is None:
        yield Name(_ARGS, "shape", tool), rows.select(_SESSION, value=pl.lit("undeclared"))
        return
    read = read_typed(rows["args"], declared, form="arguments")
    kinds = dict(_kinds(read.layouts))
    columns = {name.partition(" ")[2]: (name, read.columns[name]) for name in read.columns.columns}
    yield Name(_ARGS, "shape", tool), rows.select(_SESSION).with_columns(value=_shape(rows, read, columns))
    for path, (name, column) in columns.items():
        if not path.endswith("?"):
            what, values = _value(column, kinds.get(name, ""), rows["decided_at"])
            found = rows.select(_SESSION).with_columns(value=values).drop_nulls()
            yield Name(f"{_ARGS}.{path}", what, tool), found


def _shape(rows: pl.DataFrame, read: Typed, columns: Mapping[str, tuple[str, pl.Series]]) -> pl.Series:
    """The names of the arguments that were given, in the schema's order."""
    given = [
        pl.when(pl.col(name).is_not_null()).then(pl.lit(path.removesuffix("?")))
        for path, (name, _) in columns.items()
        if "." not in path
    ]
    names = pl.concat_str(given, separator=", ", ignore_nulls=True) if given else pl.lit("")
    misfits = pl.int_range(pl.len()).is_in(read.bad["row"].implode())
    told = pl.when(misfits).then(pl.lit("does not fit the schema")).otherwise(names).alias("shape")
    return rows.select("args").hstack(read.columns).select(told)["shape"]


def _kinds(layouts: Mapping[str, Layout]) -> Iterator[tuple[str, str]]:
    """Kind of value by column."""
    for layout in layouts.values():
        for _, shape in layout.shapes:
            if isinstance(shape, ScalarShape):
                yield shape.column, shape.kind
            elif isinstance(shape, RecordShape):
                yield from _kinds(shape.members)


def _value(column: pl.Series, kind: str, decided_at: pl.Series) -> tuple[str, pl.Series]:
    """What a column of arguments says, as a number or a text."""
    if isinstance(column.dtype, pl.List):
        return "size", column.list.len().cast(pl.Float64)
    if kind == "datetime":
        return "age", _seconds(decided_at, pl.from_epoch(column, "ms").dt.replace_time_zone("UTC"))
    if column.dtype.is_numeric():
        return "value", column.cast(pl.Float64) / {"decimal": 10_000, "duration": 1_000}.get(kind, 1)
    return "value", column.cast(pl.String)


def lengths(before: pl.Series, after: pl.Series) -> bool:
    """Whether texts are hardly ever the same twice, so that their lengths are compared instead."""
    every = pl.concat([before, after])
    different = every.n_unique()
    return different > MANY and different * OFTEN > every.len()


def category(text: str) -> str:
    """A category as it may be shown."""
    return visible(text) if text else "(empty)"
