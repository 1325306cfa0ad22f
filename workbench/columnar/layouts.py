"""Where values stand in columns: from decoded values to typed columns, and from columns to compiled values.

One rule: a layout says everything a policy may depend on at compile time (which types occur at a path, what may be
missing) and nothing about a value. In columns null means *absent*; a mask says where a record is, or which of
several types a row has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, assert_never

import polars as pl

from workbench.columnar.canon import LETTERS, prefix_of, sized
from workbench.columnar.decoding import Bound, Decoded, Elements, Extended, Ref
from workbench.columnar.nodes import FALSE, TRUE, filled, or_, present
from workbench.columnar.values import (
    Alternative,
    Data,
    ListedData,
    Member,
    MembersData,
    RecordData,
    Scalar,
    TextsData,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from workbench.columnar.nodes import DType, Node
    from workbench.columnar.values import EntityData, ScalarKind

    Reader = Callable[[str, DType, bool], Node]
    """Node of a column, by name, type, and whether it may be null."""
    Resolver = Callable[[str, Node], EntityData]
    """Entity by its type and its row in the type's table."""


@dataclass(frozen=True, slots=True)
class ScalarShape:
    """One column of a scalar."""

    kind: ScalarKind
    column: str


@dataclass(frozen=True, slots=True)
class EntityShape:
    """One column of rows of an entity table."""

    type: str
    column: str


@dataclass(frozen=True, slots=True)
class SetShape:
    """One column of lists."""

    kind: str | None
    """As in `ListedData`; null: canonical texts. Empty: nothing but empty sets, and no column."""
    column: str


@dataclass(frozen=True, slots=True)
class RecordShape:
    """Columns below."""

    members: Mapping[str, Layout]


Shape: TypeAlias = "ScalarShape | EntityShape | SetShape | RecordShape"


@dataclass(frozen=True, slots=True)
class Layout:
    """What may stand at a path."""

    shapes: tuple[tuple[str | None, Shape], ...]
    """Each possible type with the column that says where it is; null: where its own column has a value."""
    missing: bool
    """Whether some row may have nothing here."""


@dataclass(slots=True)
class Columns:
    """Columns as they are made."""

    series: dict[str, pl.Series] = field(default_factory=dict)

    def add(self, hint: str, values: Sequence[object], dtype: pl.DataType | type[pl.DataType]) -> str:
        """Keep a column, and return the name it got."""
        name = f"{len(self.series)} {hint}"
        self.series[name] = pl.Series(name, values, dtype=dtype)
        return name


_DTYPES: Mapping[str, type[pl.DataType]] = {"bool": pl.Boolean, "string": pl.String, "ipaddr": pl.String}
_NODE_TYPES: Mapping[str, DType] = {"bool": "bool", "string": "text", "ipaddr": "text"}


def kind_of(value: Decoded) -> str:
    """The kind of a decoded value: a scalar kind, `entity T`, `set` or `record`."""
    match value:
        case bool():
            return "bool"
        case int():
            return "long"
        case str():
            return "string"
        case Extended(kind):
            return kind
        case Bound(type=kind) | Ref(type=kind):
            return f"entity {kind}"
        case Elements():
            return "set"
        case dict():
            return "record"
        case _:
            assert_never(value)


def store(values: Sequence[Decoded | None], hint: str, columns: Columns) -> Layout:
    """Put the values of one path into columns; null: nothing there."""
    kinds = [None if value is None else kind_of(value) for value in values]
    occurring = [kind for kind in dict.fromkeys(kinds) if kind is not None]
    missing = None in kinds
    masked = len(occurring) > 1 or (missing and occurring in (["record"], ["set"]))
    shapes: list[tuple[str | None, Shape]] = []
    for kind in occurring:
        here = [own == kind for own in kinds]
        of_kind = [value if mine else None for value, mine in zip(values, here, strict=True)]
        mask = columns.add(f"{hint}?", here, pl.Boolean) if masked else None
        shapes.append((mask, _shape(kind, of_kind, hint, columns)))
    return Layout(tuple(shapes), missing)


def _shape(kind: str, values: Sequence[Decoded | None], hint: str, columns: Columns) -> Shape:
    if kind == "record":
        records = [value if isinstance(value, dict) else {} for value in values]
        names = dict.fromkeys(name for record in records for name in record)
        return RecordShape(
            {
                name: store([record.get(name) for record in records], f"{hint}.{name}", columns)
                for name in names
            }
        )
    if kind == "set":
        return _set_shape([v.members if isinstance(v, Elements) else None for v in values], hint, columns)
    column = columns.add(hint, [_payload(value) for value in values], _polars(kind))
    if kind.startswith("entity "):
        return EntityShape(kind.removeprefix("entity "), column)
    return ScalarShape(_scalar_kind(kind), column)


def _scalar_kind(kind: str) -> ScalarKind:
    return next(known for known in _SCALARS if known == kind)


_SCALARS: tuple[ScalarKind, ...] = ("long", "bool", "string", "decimal", "datetime", "duration", "ipaddr")


def _polars(kind: str) -> type[pl.DataType]:
    return pl.UInt32 if kind.startswith("entity ") else _DTYPES.get(kind, pl.Int64)


def _payload(value: Decoded | None) -> bool | int | str | None:
    match value:
        case None | bool() | int() | str():
            return value
        case Extended(payload=payload):
            return payload
        case Bound(row=row):
            return row
        case _:
            raise AssertionError(value)  # not of a kind that has one column


def _set_shape(values: Sequence[tuple[Decoded, ...] | None], hint: str, columns: Columns) -> SetShape:
    kinds = {kind_of(member) for members in values if members for member in members}
    if not kinds:
        return SetShape("", "")
    kind = next(iter(kinds))
    if len(kinds) > 1 or kind in {"set", "record", "bool"}:
        return SetShape(None, columns.add(hint, _distinct(values, canonical_text), pl.List(pl.String)))
    column = columns.add(hint, _distinct(values, _member), pl.List(_polars(kind)))
    return SetShape(kind, column)


def _distinct(
    values: Sequence[tuple[Decoded, ...] | None], key: Callable[[Decoded], object]
) -> list[list[object] | None]:
    return [None if m is None else sorted({key(each) for each in m}) for m in values]  # type: ignore[type-var]  # one kind


def _member(value: Decoded) -> object:
    return value.code if isinstance(value, Bound) else _payload(value)


def canonical_text(value: Decoded) -> str:
    """The canonical text of a value (see `workbench.columnar.canon`)."""
    match value:
        case bool():
            return "b1" if value else "b0"
        case Bound(type=kind, code=code):
            return f"{prefix_of(f'entity {kind}')}{code}"
        case Elements(members):
            return "S" + "".join(sized(text) for text in sorted({canonical_text(each) for each in members}))
        case dict():
            return "R" + "".join(sized(n) + sized(canonical_text(value[n])) for n in sorted(value))
        case _:
            return f"{LETTERS[kind_of(value)]}{_payload(value)}"


def view(layout: Layout, reader: Reader, resolve: Resolver) -> Member:
    """The values of a path, as the compiler sees them.

    Args:
        layout: where they stand.
        reader: node of a column: of the frame itself, or gathered from an entity table.
        resolve: entity of a type by its row.
    """
    single = len(layout.shapes) == 1
    found, here = [], []
    for mask, shape in layout.shapes:
        data, own = _data(shape, reader, resolve, nullable=layout.missing or not single)
        guard = filled(reader(mask, "bool", True)) if mask else own
        here.append(guard)
        found.append(Alternative(TRUE if single else guard, data))
    return Member(or_(*here) if layout.missing else TRUE, tuple(found))


def _data(shape: Shape, reader: Reader, resolve: Resolver, *, nullable: bool) -> tuple[Data, Node]:
    """The data, and where it is by its own column."""
    match shape:
        case ScalarShape(kind, name):
            node = reader(name, _NODE_TYPES.get(kind, "long"), nullable)
            return Scalar(kind, filled(node) if kind == "bool" else node), present(node)
        case EntityShape(kind, name):
            node = reader(name, "code", nullable)
            return resolve(kind, node), present(node)
        case SetShape(kind, name):
            if not name:
                return MembersData(()), TRUE
            node = reader(name, "list", nullable)
            return TextsData(node) if kind is None else ListedData(kind, node), present(node)
        case RecordShape(members):
            below = {name: view(each, reader, resolve) for name, each in members.items()}
            return RecordData(below), FALSE if nullable else TRUE
        case _:
            assert_never(shape)
