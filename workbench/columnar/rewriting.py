"""Cheaper forms of a graph, once the entity tables are known: codes for texts, look-ups for lists, bits for flags.

One rule: what is read here are entity tables and the dictionaries of a frame's columns, never the values of a
request; so a rewritten graph gives the same for any row over the same tables.

* A column that comes with its dictionary (`Enum`) is an entity table of texts: what is asked of one text alone is
  asked once a distinct text.
* Texts of two tables are compared by codes, which both tables get.
* Membership in a list of an entity becomes a bit at (list, member), as long as there are at most `_MOST_BITS`.
* Flags of one entity are gathered together, as the bits of one number.

Accepted: tables of bits are made when a plan is, so a plan costs what its tables cost, whatever the frame's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import polars as pl

from workbench.columnar.nodes import (
    Node,
    column,
    filled,
    gathered,
    literal,
    made,
    ordered,
    rebuilt,
    value_of,
)
from workbench.columnar.operations import OPERATIONS
from workbench.columnar.searching import searched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from workbench.columnar.nodes import DType

    Source = Callable[[str, Node], pl.Series]
    """What a node gives over an entity table, by table and node."""

_MOST_BITS = 1 << 24
"""Pairs of list and member that a table of bits may have: 2 MiB."""
_MOST_PAIRS = 1 << 18
"""Pairs of lists compared when a plan is made."""
_WORD = 64
_WIDTHS = ((8, pl.UInt8), (16, pl.UInt16), (32, pl.UInt32), (64, pl.UInt64))
_Key: TypeAlias = "tuple[str, Node]"
"""A column over an entity table: table and node."""
_Host: TypeAlias = "tuple[str, Node]"
"""Table and the rows it is read at."""
TEXT = column("value", "text", nullable=False)
"""The one column of a dictionary."""


@dataclass(frozen=True, slots=True, eq=False)
class Lookup:
    """A column that is read by row number."""

    series: pl.Series


def dictionary_table(name: str) -> str:
    """What the dictionary of a column is called among the entity tables; no entity type has a blank in its name."""
    return f"dictionary {name}"


def with_dictionaries(outputs: Mapping[str, Node], names: Iterable[str]) -> dict[str, Node]:
    """The graph with these text columns as rows of their dictionaries, which become tables."""
    names = frozenset(names)
    if not names:
        return dict(outputs)
    known: dict[Node, Node] = {}
    for node in ordered(outputs.values()):
        if node.op == "column" and node.param in names and node.dtype == "text":
            key = made("key", (), node.param, "code", nullable=node.nullable)
            known[node] = made(
                "gather", (key,), (dictionary_table(str(node.param)), TEXT), "text", nullable=node.nullable
            )
        else:
            known[node] = rebuilt(node, tuple(known[arg] for arg in node.args))
    return {name: known[node] for name, node in outputs.items()}


def rewritten(outputs: Mapping[str, Node], source: Source) -> dict[str, Node]:
    """The same outputs, from cheaper operations."""
    every = ordered(outputs.values())
    if not any(node.op == "gather" for node in every):
        return searched(outputs)
    return _packed(searched(_Rewriter(source, every).outputs(outputs)))


class _Rewriter:
    """Replaces what is looked up in tables, bottom up."""

    def __init__(self, source: Source, every: list[Node]) -> None:
        self.source = source
        self.every = every
        self.known: dict[Node, Node] = {}
        self.codes: Mapping[_Key, _Codes] = _coded(every, source)
        self.lists: dict[_Key, _Lists] = {}

    def outputs(self, outputs: Mapping[str, Node]) -> dict[str, Node]:
        for node in self.every:
            self.known[node] = self._cheaper(node) or rebuilt(node, tuple(self.known[a] for a in node.args))
        return {name: self.known[node] for name, node in outputs.items()}

    def _cheaper(self, node: Node) -> Node | None:
        match node.op, [arg.op for arg in node.args]:
            case "gather", ["literal"]:
                return self._constant(node)
            case "equal", ["gather", "gather"] if node.args[0].dtype == "text":
                return self._same_text(*node.args)
            case "is_member", ["gather", _] if node.args[1].dtype == "code":
                return self._member(*node.args)
            case "overlaps" | "is_subset", ["gather", "gather"]:
                return self._compared(node)
            case _:
                return None

    def _look(self, gather: Node, series: pl.Series, dtype: DType) -> Node:
        """Another column of the table that a node is gathered from, at the same rows."""
        nullable = gather.args[0].nullable or bool(series.null_count())
        return _look(series, self.known[gather.args[0]], dtype, nullable=nullable)

    def _same_text(self, left: Node, right: Node) -> Node:
        """Equality of codes; an absent text has a code of its own on each side, so nothing equals it."""
        codes = self.codes[gathered(left)], self.codes[gathered(right)]
        one = self._look(left, codes[0].series.fill_null(codes[0].count), "code")
        two = self._look(right, codes[1].series.fill_null(codes[1].count + 1), "code")
        return filled(made("equal", (one, two), None, "bool", nullable=one.nullable or two.nullable))

    def _constant(self, node: Node) -> Node | None:
        """An attribute of an entity that is the same in all rows."""
        if node.dtype == "list":
            return None
        value = self.source(*gathered(node))[value_of(node.args[0])]
        return None if value is None else literal(value, node.dtype)

    def _lists(self, gather: Node) -> _Lists:
        key = gathered(gather)
        if key not in self.lists:
            self.lists[key] = _lists_of(self.source(*key))
        return self.lists[key]

    def _member(self, whole: Node, member: Node) -> Node | None:
        """Membership of a code in a list of an entity, as a bit at (list, code)."""
        lists = self._lists(whole)
        if lists.distinct.dtype != pl.List(pl.UInt32):
            return None
        entries = lists.distinct.to_frame("code").with_row_index("list").explode("code").drop_nulls()
        width = max(entries["code"].to_list(), default=0) + 2  # with one more, that nothing is in
        size = len(lists.distinct) * width
        if size > _MOST_BITS:
            return None
        at = entries.select(pl.col("list").cast(pl.UInt32) * width + pl.col("code")).to_series()
        bits = pl.zeros(size, dtype=pl.Boolean, eager=True).scatter(at, values=True)
        return self._bit(whole, lists.numbers * width, self._below(member, width), bits)

    def _below(self, member: Node, width: int) -> Node:
        """The code, or the one that is in no list for any that is too large."""
        if member.op == "gather":
            series = self.source(*gathered(member)).clip(upper_bound=width - 1)
            return self._look(member, series, "code")
        code = self.known[member]
        return made("capped", (code,), width - 1, "code", nullable=code.nullable)

    def _compared(self, node: Node) -> Node | None:
        """Two lists of two entities, as a bit at (list, list)."""
        one, two = map(self._lists, node.args)
        if len(one.distinct) * len(two.distinct) > _MOST_PAIRS:
            return None
        pairs = one.distinct.to_frame("a").join(
            two.distinct.to_frame("b"), how="cross", maintain_order="left_right"
        )
        bits = pairs.select(OPERATIONS[node.op].lower(node.param, pl.col("a"), pl.col("b"))).to_series()
        second = self._look(node.args[1], two.numbers, "code")
        return self._bit(node.args[0], one.numbers * len(two.distinct), second, bits)

    def _bit(self, host: Node, starts: pl.Series, step: Node, bits: pl.Series) -> Node:
        start = self._look(host, starts, "code")
        at = made("offset", (start, step), None, "code", nullable=start.nullable or step.nullable)
        return filled(_look(bits, at, "bool", nullable=at.nullable))


@dataclass(frozen=True, slots=True)
class _Lists:
    """A column of lists, each distinct one numbered."""

    numbers: pl.Series
    """UInt32; null where the column is."""
    distinct: pl.Series
    """By number."""


def _lists_of(series: pl.Series) -> _Lists:
    column_ = series.to_frame("value")
    distinct = column_.unique(maintain_order=True).drop_nulls().with_row_index("number")
    numbers = column_.join(distinct, on="value", how="left", maintain_order="left")["number"]
    return _Lists(numbers.cast(pl.UInt32), distinct["value"])


@dataclass(frozen=True, slots=True)
class _Codes:
    """Codes of the texts of a column, the same for the same text in every column it is compared with."""

    series: pl.Series
    """Null where the text is. There is room for two codes more."""
    count: int


def _coded(every: Iterable[Node], source: Source) -> dict[_Key, _Codes]:
    """Codes for the texts of tables that are compared with each other."""
    classes: dict[_Key, set[_Key]] = {}
    for node in every:
        if node.op == "equal" and node.args[0].dtype == "text" and all(a.op == "gather" for a in node.args):
            left, right = map(gathered, node.args)
            joined = classes.get(left, {left}) | classes.get(right, {right})
            classes |= dict.fromkeys(joined, joined)
    found: dict[_Key, _Codes] = {}
    for keys in {id(each): each for each in classes.values()}.values():
        columns = {key: source(*key) for key in keys}
        texts = pl.Enum(pl.concat([each.unique() for each in columns.values()]).drop_nulls().unique())
        count = len(texts.categories)
        dtype = next(dtype for bits, dtype in _WIDTHS if count + 2 <= 1 << bits)
        found |= {
            key: _Codes(each.cast(texts).to_physical().cast(dtype), count) for key, each in columns.items()
        }
    return found


def _packed(outputs: Mapping[str, Node]) -> dict[str, Node]:
    """Gather the flags of an entity together, as the bits of one number."""
    every = ordered(outputs.values())
    hosts: dict[_Host, list[Node]] = {}
    for node in every:
        if node.op == "gather" and node.dtype == "bool" and not gathered(node)[1].nullable:
            hosts.setdefault((gathered(node)[0], node.args[0]), []).append(node)
    known: dict[Node, Node] = {}
    for node in every:
        if node in known:
            continue
        known[node] = rebuilt(node, tuple(known[arg] for arg in node.args))
        if node.op == "gather" and len(flags := hosts.get((gathered(node)[0], node.args[0]), [])) > 1:
            for start in range(0, len(flags), _WORD):
                known |= _bits(flags[start : start + _WORD], known[node.args[0]])
    return {name: known[node] for name, node in outputs.items()}


def _bits(flags: list[Node], index: Node) -> dict[Node, Node]:
    """Nodes that read the bits of one number, for flags that are gathered from one table at one index."""
    dtype = next(dtype for bits, dtype in _WIDTHS if bits >= len(flags))
    word = made("packed", tuple(gathered(flag)[1] for flag in flags), dtype, "code", nullable=False)
    whole = made("gather", (index,), (gathered(flags[0])[0], word), "code", nullable=index.nullable)
    return {
        flag: made("bit", (whole,), (bit, dtype), "bool", nullable=index.nullable)
        for bit, flag in enumerate(flags)
    }


def _look(series: pl.Series, index: Node, dtype: DType, *, nullable: bool) -> Node:
    """The series at the rows that `index` gives."""
    return made("look", (index,), Lookup(series), dtype, nullable=nullable)
