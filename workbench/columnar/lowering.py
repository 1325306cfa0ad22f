"""From nodes to Polars: a plan of stages, each a set of columns over the columns of the stages before.

One rule: a node that is used twice, or that stands on a tall tower of operations, becomes a column of its own; what
is used once stays inside its user's expression. So work is shared, and no expression is deep.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import polars as pl

from workbench.columnar.nodes import gathered, ordered, uses_of
from workbench.columnar.operations import OPERATIONS
from workbench.columnar.rewriting import TEXT, Lookup, dictionary_table, rewritten, with_dictionaries

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from workbench.columnar.nodes import Node
    from workbench.columnar.rewriting import Source

_LONG = 50_000
"""Rows from which on the streaming engine is faster."""

_CHEAP = frozenset({"column", "literal", "bit", "not", "present"})
"""Operations that cost less than keeping what they give."""

_TALLEST = 24
"""Operations on top of each other before a column is made of them."""

_DTYPES = {"bool": pl.Boolean, "long": pl.Int64, "text": pl.String, "code": pl.UInt32}

_OPTIMIZATIONS = pl.QueryOptFlags(comm_subexpr_elim=False, comm_subplan_elim=False)
"""Sharing was worked out here."""


@dataclass(frozen=True, slots=True)
class _Steps:
    """Columns that are added one set after the other, and the outputs over them."""

    stages: tuple[tuple[pl.Expr, ...], ...]
    outputs: tuple[pl.Expr, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run over a frame."""

    nodes: Mapping[str, Node]
    """The outputs, by the name of the column each becomes."""
    source: Source
    """What a node gives over an entity table."""
    texts: frozenset[str]
    """Columns of the frame that are read as texts."""
    _known: dict[object, _Steps] = field(default_factory=dict, repr=False, compare=False)
    """By the dictionaries of the frame's columns."""

    def run(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """The outputs, a row for each row of the frame, in order. Lazy in, lazy out.

        A text column may be `Enum`: then what is asked of a text alone is computed once a category.
        """
        return self.added(frame).select(self.names)

    def added(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """The frame with the outputs added, and whatever they needed on the way."""
        types = {name: dtype for name, dtype in frame.collect_schema().items() if name in self.texts}
        if others := [name for name, dtype in types.items() if isinstance(dtype, pl.Categorical)]:
            frame = frame.with_columns(pl.col(others).cast(pl.String))
        steps = self._steps({name: dtype for name, dtype in types.items() if isinstance(dtype, pl.Enum)})
        for stage in steps.stages:
            frame = frame.with_columns(stage)
        return frame.with_columns(steps.outputs)

    def _steps(self, enums: Mapping[str, pl.Enum]) -> _Steps:
        """The steps for a frame whose columns have these dictionaries."""
        key = tuple(enums.items())
        if key not in self._known:
            tables = {dictionary_table(name): dtype.categories for name, dtype in enums.items()}
            source = _Source(self.source, tables) if enums else self.source
            self._known[key] = _steps(with_dictionaries(self.nodes, enums), source)
        return self._known[key]

    @property
    def names(self) -> list[str]:
        """Names of the outputs."""
        return list(self.nodes)

    def collect(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Run over a frame in memory."""
        return collected(self.run(frame.lazy()), frame.height)


def collected(frame: pl.LazyFrame, height: int) -> pl.DataFrame:
    """Run a plan over a frame of so many rows in memory: where it pays, in pieces that pass through on all cores."""
    engine: Literal["streaming", "in-memory"] = "streaming" if height >= _LONG else "in-memory"
    return frame.collect(engine=engine, optimizations=_OPTIMIZATIONS)


@dataclass(frozen=True, slots=True)
class _Source:
    """Entity tables, and the dictionaries of a frame's columns."""

    tables: Source
    dictionaries: Mapping[str, pl.Series]

    def __call__(self, table: str, node: Node) -> pl.Series:
        texts = self.dictionaries.get(table)
        if texts is None:
            return self.tables(table, node)
        return lower({"value": node}, self).collect(texts.to_frame(str(TEXT.param)))["value"]


def lower(outputs: Mapping[str, Node], source: Source) -> Plan:
    """Plan the computation of `outputs`, which is made when the first frame comes.

    Args:
        outputs: nodes by the name of the column each becomes.
        source: what a node gives over an entity table, by table and node.
    """
    columns = (node for node in ordered(outputs.values()) if node.op == "column" and node.dtype == "text")
    return Plan(dict(outputs), source, frozenset(str(node.param) for node in columns))


def _steps(outputs: Mapping[str, Node], source: Source) -> _Steps:
    cheap = rewritten(outputs, source)
    every = ordered(cheap.values())
    uses = uses_of(every, cheap.values())
    made: dict[Node, _Made] = {}
    stages: dict[int, list[pl.Expr]] = {}
    for node in every:
        height = 1 + max((made[arg].height for arg in node.args), default=0)
        stage = max((made[arg].stage for arg in node.args), default=0)
        expr = _expression(node, [made[arg].expr for arg in node.args], source)
        if height > _TALLEST or (uses[node] > 1 and node.op not in _CHEAP):
            name = f"_{len(made)}"
            stages.setdefault(stage, []).append(expr.alias(name))
            made[node] = _Made(pl.col(name), 0, stage + 1)
        else:
            made[node] = _Made(expr, height, stage)
    return _Steps(
        tuple(tuple(stages[number]) for number in sorted(stages)),
        tuple(made[node].expr.alias(name) for name, node in cheap.items()),
    )


def columns_of(node: Node) -> list[str]:
    """The columns that a node reads from the frame it is computed over."""
    return [str(each.param) for each in ordered([node]) if each.op == "column"]


@dataclass(frozen=True, slots=True)
class _Made:
    expr: pl.Expr
    height: int
    stage: int


def _balanced(join: Callable[[pl.Expr, pl.Expr], pl.Expr], args: list[pl.Expr]) -> pl.Expr:
    """Join many conditions without a tower: Polars walks expressions recursively."""
    if len(args) == 1:
        return args[0]
    half = len(args) // 2
    return join(_balanced(join, args[:half]), _balanced(join, args[half:]))


def _expression(  # noqa: C901, PLR0911 - a case an operation
    node: Node, args: list[pl.Expr], source: Source
) -> pl.Expr:
    match node.op, node.param:
        case "column", str(name):
            return pl.col(name)
        case "key", str(name):
            return pl.col(name).to_physical().cast(pl.UInt32)
        case "literal", value:
            return pl.lit(value, dtype=_DTYPES[node.dtype])
        case "gather", _:
            return pl.lit(source(*gathered(node))).gather(args[0])
        case "look", Lookup(series):
            return pl.lit(series).gather(args[0])
        case "not", _:
            return ~args[0]
        case "and" | "or" as op, _:
            return _balanced(operator.and_ if op == "and" else operator.or_, args)
        case "when", _:
            return pl.when(args[0]).then(args[1]).otherwise(args[2])
        case "where", _:
            return pl.when(args[0]).then(args[1])
        case "filled", _:
            return args[0].fill_null(value=False)
        case "present", _:
            return args[0].is_not_null()
        case op, param:
            return OPERATIONS[op].lower(param, *args)
