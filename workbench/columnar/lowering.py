"""From nodes to Polars: a plan of stages, each a set of columns over the columns of the stages before.

One rule: a node that is used twice, or that stands on a tall tower of operations, becomes a column of its own; what
is used once stays inside its user's expression. So work is shared, and no expression is deep.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from workbench.columnar.nodes import gathered
from workbench.columnar.operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from workbench.columnar.nodes import Node

_TALLEST = 24
"""Operations on top of each other before a column is made of them."""

_DTYPES = {"bool": pl.Boolean, "long": pl.Int64, "text": pl.String, "code": pl.UInt32}

_OPTIMIZATIONS = pl.QueryOptFlags(comm_subexpr_elim=False, comm_subplan_elim=False)
"""Sharing was worked out here."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run over a frame."""

    stages: tuple[tuple[pl.Expr, ...], ...]
    outputs: tuple[pl.Expr, ...]

    def run(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """The outputs, a row for each row of the frame. Lazy in, lazy out."""
        for stage in self.stages:
            frame = frame.with_columns(stage)
        # Not `select`: constants alone would give one row.
        return frame.with_columns(self.outputs).select(expr.meta.output_name() for expr in self.outputs)

    def collect(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Run over a frame in memory."""
        return self.run(frame.lazy()).collect(optimizations=_OPTIMIZATIONS)


def lower(outputs: Mapping[str, Node], column: Callable[[str, Node], pl.Series]) -> Plan:
    """Plan the computation of `outputs`.

    Args:
        outputs: nodes by the name of the column each becomes.
        column: what a node gives over an entity table, by table and node.
    """
    ordered = _ordered(outputs.values())
    uses = _uses(ordered, outputs.values())
    made: dict[Node, _Made] = {}
    stages: dict[int, list[pl.Expr]] = {}
    for node in ordered:
        height = 1 + max((made[arg].height for arg in node.args), default=0)
        stage = max((made[arg].stage for arg in node.args), default=0)
        expr = _expression(node, [made[arg].expr for arg in node.args], column)
        if node.args and (uses[node] > 1 or height > _TALLEST):
            name = f"_{len(made)}"
            stages.setdefault(stage, []).append(expr.alias(name))
            made[node] = _Made(pl.col(name), 0, stage + 1)
        else:
            made[node] = _Made(expr, height, stage)
    return Plan(
        tuple(tuple(stages[number]) for number in sorted(stages)),
        tuple(made[node].expr.alias(name) for name, node in outputs.items()),
    )


def columns_of(node: Node) -> list[str]:
    """The columns that a node reads from the frame it is computed over."""
    return [str(each.param) for each in _ordered([node]) if each.op == "column"]


@dataclass(frozen=True, slots=True)
class _Made:
    expr: pl.Expr
    height: int
    stage: int


def _ordered(roots: Iterable[Node]) -> list[Node]:
    """Every node once, after those it is made of. Without recursion: graphs may be deep."""
    done: dict[Node, None] = {}
    stack = [(root, False) for root in roots]
    while stack:
        node, expanded = stack.pop()
        if node in done:
            continue
        if expanded:
            done[node] = None
        else:
            stack.append((node, True))
            stack.extend((arg, False) for arg in node.args)
    return list(done)


def _uses(nodes: Iterable[Node], roots: Iterable[Node]) -> dict[Node, int]:
    uses = dict.fromkeys(nodes, 0)
    for node in list(uses):
        for arg in node.args:
            uses[arg] += 1
    for root in roots:
        uses[root] += 1
    return uses


def _balanced(join: Callable[[pl.Expr, pl.Expr], pl.Expr], args: list[pl.Expr]) -> pl.Expr:
    """Join many conditions without a tower: Polars walks expressions recursively."""
    if len(args) == 1:
        return args[0]
    half = len(args) // 2
    return join(_balanced(join, args[:half]), _balanced(join, args[half:]))


def _expression(  # noqa: PLR0911 - a case an operation
    node: Node, args: list[pl.Expr], column: Callable[[str, Node], pl.Series]
) -> pl.Expr:
    match node.op, node.param:
        case "column", str(name):
            return pl.col(name)
        case "literal", value:
            return pl.lit(value, dtype=_DTYPES[node.dtype])
        case "gather", _:
            return pl.lit(column(*gathered(node))).gather(args[0])
        case "not", _:
            return ~args[0]
        case "and" | "or" as op, _:
            return _balanced(operator.and_ if op == "and" else operator.or_, args)
        case "when", _:
            return pl.when(args[0]).then(args[1]).otherwise(args[2])
        case "filled", _:
            return args[0].fill_null(value=False)
        case "present", _:
            return args[0].is_not_null()
        case op, param:
            return OPERATIONS[op].lower(param, *args)
