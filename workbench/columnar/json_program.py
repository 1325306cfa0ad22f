"""A plan as the table of steps that the compiled pass (`json_kernel`) interprets.

One rule: a step reads what `json_values.reading` is sure of, or less; a leaf whose values the pass does not read
itself is `DEFERRED`: its text is cut out, and `reading` is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np

from runtime.canonical import canonical
from runtime.schema import EntityRef, Extension, Primitive
from workbench.columnar.json_plan import Branch, key_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.columnar.json_plan import Column, Form, Leaf, Plan

OPEN: Final = 0
"""A record begins; its key's text holds the brace."""
CLOSE: Final = 1
STRING: Final = 2
"""A JSON string between two fixed texts, with canonical escapes."""
LONG: Final = 3
BOOL: Final = 4
NUMBER: Final = 5
"""A number of at most fifteen digits, or a text of one, in ten-thousandths; one column or several, by factor."""
DECIMAL: Final = 6
"""The text of a decimal between two fixed texts, in ten-thousandths."""
MOMENT: Final = 7
"""`2026-01-31T12:00:00Z` or `…00.250Z` between two fixed texts, in milliseconds."""
DEFERRED: Final = 8
"""Any JSON value; only its end is found. No control character is in it."""
NEVER: Final = 9
"""No value fits."""

FIELDS: Final = (
    *("kind", "required", "nullable", "key", "key_size", "head", "head_size", "tail", "tail_size"),
    *("other", "other_size", "end", "end_size", "seen", "text", "value", "values", "narrow", "skip"),
)
"""Columns of the table of steps. `key` begins with a comma. `head`, `tail`: around a string's text; `other`, `end`:
another such pair. `seen`, `text`, `value`: columns written, -1 none. `skip`: the step to go on with if the key is not
there."""

ABSENT: Final = 0
THERE: Final = 1
NULL: Final = 2
"""What `seen` says of a leaf in a row."""

GIVEN: Final = (
    *("texts", "buffers", "missing", "begin", "stop", "rows", "steps", "count", "literals", "factors"),
    *("views", "view_columns", "ints", "bools", "bool_columns", "seen", "seen_columns", "sure"),
    *("spare", "room", "spare_buffer"),
)
"""What the pass is given, a 64-bit integer each; what has no size is an address.

`texts`: views of all texts. `buffers`: where each buffer that they point into begins and ends. `missing`: a byte a
row, there is no text; 0: there always is. `begin`, `stop`: rows to read, of `rows`. `steps`, `count`: the table.
`literals`: fixed texts. `factors`: by column of `ints`, of a NUMBER; 0: the ten-thousandths themselves. `views`,
`ints`, `bools`, `seen`: written to, a column after the other; all but `ints` are zero at first. `sure`: a byte a row,
zero at first. `spare`, `room`: memory for strings that had escapes, and its size. `spare_buffer`: the number of the
buffer it will be."""

PADDING: Final = 8
"""Bytes behind the fixed texts, which are compared eight at a time."""
_MOST_FACTOR = 2**63 - 1

Bytes: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]"
Table: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.int64]]"


class At(NamedTuple):
    """Where a column is written."""

    column: int
    seen: int
    """Column of `seen` that says where it is null; -1: nowhere."""
    text: bool = False
    """It is a leaf's text, which is there of a null, too."""


class Kind(NamedTuple):
    """How a leaf is read."""

    code: int
    around: tuple[tuple[str, str], ...] = ()
    """Fixed texts around a string; up to two pairs."""


@dataclass(frozen=True, slots=True)
class Program:
    """What the compiled pass is given, and where it writes which column."""

    steps: Table
    literals: Bytes
    factors: Table
    leaves: int
    """Columns of `seen`: leaves in the order of the text."""
    views: dict[str, At]
    """Columns of `views`, by name: texts of leaves, and strings."""
    ints: dict[str, At]
    bools: dict[str, At]
    """Booleans, and places of records; one may have two names."""
    places: int
    """Columns of `bools`."""
    deferred: tuple[Leaf, ...]
    """Leaves that only their texts are there of; of those that no value fits, not even these."""
    enums: dict[str, tuple[str, ...]]
    """By column of ids: those that there are."""


def program_of(plan: Plan, wanted: Sequence[str]) -> Program:
    """Lay the steps of a plan out.

    Args:
        plan: of the record.
        wanted: the columns that are asked for; strings and texts of others are not written.
    """
    maker = _Maker(plan, frozenset(wanted))
    maker.members(plan.root)
    steps = np.array([[step[name] for name in FIELDS] for step in maker.steps], dtype=np.int64)
    literals = np.frombuffer(bytes(maker.literals) + bytes(PADDING), dtype=np.uint8)
    return Program(
        steps=steps,
        literals=literals,
        factors=np.array(maker.factors or [0], dtype=np.int64),
        leaves=len(plan.leaves),
        views=maker.views,
        ints=maker.ints,
        bools=maker.bools,
        places=maker.places,
        deferred=tuple(maker.deferred),
        enums=maker.enums,
    )


def kind_of(leaf: Leaf, form: Form) -> Kind:
    """How a leaf is read."""
    if leaf.never:
        return Kind(NEVER)
    if all(_is_number(column, form) for column in leaf.columns):
        return Kind(NUMBER)
    (column, *others) = leaf.columns
    return Kind(DEFERRED) if others or column.scaled else _kind_of_one(column, form)


def _is_number(column: Column, form: Form) -> bool:
    if column.scaled is not None:
        return 0 < column.scaled.factor <= _MOST_FACTOR
    return column.type == Extension("decimal") and form == "arguments"


def _kind_of_one(column: Column, form: Form) -> Kind:
    match column.type:
        case Primitive("Long"):
            return Kind(LONG)
        case Primitive("Bool"):
            return Kind(BOOL)
        case Primitive():
            return Kind(STRING, (('"', '"'),))
        case EntityRef(type=name):
            tail = f'","type":{canonical(name)}}}'
            if form == "cedar":
                return Kind(STRING, (('{"__entity":{"id":"', tail + "}"),))
            return Kind(STRING, (('"', '"'), ('{"id":"', tail)))
        case Extension("datetime" | "decimal" as name):
            around = ('"', '"')
            if form == "cedar":
                around = ('{"__extn":{"arg":"', f'","fn":"{name}"}}}}')
            return Kind(MOMENT if name == "datetime" else DECIMAL, (around,))
        case _:
            return Kind(DEFERRED)


@dataclass(slots=True)
class _Maker:
    plan: Plan
    wanted: frozenset[str]
    steps: list[dict[str, int]] = field(default_factory=list)
    literals: bytearray = field(default_factory=bytearray)
    factors: list[int] = field(default_factory=list)
    views: dict[str, At] = field(default_factory=dict)
    ints: dict[str, At] = field(default_factory=dict)
    bools: dict[str, At] = field(default_factory=dict)
    deferred: list[Leaf] = field(default_factory=list)
    enums: dict[str, tuple[str, ...]] = field(default_factory=dict)
    places: int = 0
    """Columns of `bools` so far."""
    seen: int = 0

    def members(self, branch: Branch) -> None:
        """Add the steps of a record's members and of its end."""
        for member in branch.members:
            if isinstance(member, Branch):
                self._branch(member)
            else:
                self._leaf(member)
        self._step(CLOSE)

    def _branch(self, branch: Branch) -> None:
        step = self._member(OPEN, branch, "{")
        step["value"] = self.places
        names = [branch.place, *([] if branch.where is None else [branch.where.name])]
        self.bools |= dict.fromkeys(names, At(self.places, -1))
        self.places += 1
        self.members(branch)
        step["skip"] = len(self.steps)

    def _leaf(self, leaf: Leaf) -> None:
        kind = kind_of(leaf, self.plan.form)
        step = self._member(kind.code, leaf)
        step["seen"], seen = self.seen, self.seen
        self.seen += 1
        # A null of an optional argument means that it is absent.
        step["nullable"] = int(
            self.plan.form == "arguments" and not leaf.required and kind.code not in (DEFERRED, NEVER)
        )
        for pair, names in zip(kind.around, (("head", "tail"), ("other", "end")), strict=False):
            for text, name in zip(pair, names, strict=True):
                step[name], step[f"{name}_size"] = self._literal(text)
        self._value(kind, leaf, step, seen)
        if later := kind.code in (DEFERRED, NEVER):
            self.deferred.append(leaf)
        if later or leaf.text in self.wanted:
            step["text"] = len(self.views)
            self.views[leaf.text] = At(step["text"], seen, text=True)

    def _value(self, kind: Kind, leaf: Leaf, step: dict[str, int], seen: int) -> None:
        """Give the values of a leaf their columns."""
        column = leaf.columns[0]
        match kind.code:
            case code if code in (LONG, NUMBER, DECIMAL, MOMENT):
                step["value"], step["values"] = len(self.ints), len(leaf.columns)
                step["narrow"] = int(self.plan.narrow)
                for each in leaf.columns:
                    self.ints[each.name] = At(len(self.ints), seen)
                    self.factors.append(each.scaled.factor if each.scaled else 0)
            case code if code == BOOL:
                step["value"] = self.places
                self.bools[column.name] = At(self.places, seen)
                self.places += 1
            case code if code == STRING:
                enum = column.type.enum if isinstance(column.type, EntityRef) else None
                if enum is not None:
                    self.enums[column.name] = tuple(enum)
                if enum is not None or column.name in self.wanted:
                    step["value"] = len(self.views)
                    self.views[column.name] = At(step["value"], seen)
            case _:
                pass

    def _member(self, code: int, member: Leaf | Branch, more: str = "") -> dict[str, int]:
        step = self._step(code)
        step["key"], step["key_size"] = self._literal(f",{key_text(member.path[-1])}{more}")
        step["required"] = int(member.required)
        return step

    def _step(self, code: int) -> dict[str, int]:
        step = dict.fromkeys(FIELDS, 0) | {"kind": code, "seen": -1, "text": -1, "value": -1}
        self.steps.append(step)
        step["skip"] = len(self.steps)
        return step

    def _literal(self, text: str) -> tuple[int, int]:
        """Keep a fixed text: where it begins, and its size in bytes."""
        begin, held = len(self.literals), text.encode()
        self.literals += held
        return begin, len(held)
