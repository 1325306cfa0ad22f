"""What a declared record says about its JSON texts and typed columns: members in the order of their text, and names.

One rule: all of it follows from the type and the form alone, so that every chunk of a history gets the same columns,
and nothing depends on a value.

Accepted: a set whose elements hold entities *inside* records or sets has canonical texts made of entity codes, which
only the caller knows; such columns are made only with a `Coder`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, assert_never

import polars as pl

from runtime.canonical import canonical
from runtime.schema import EntityRef, Extension, Primitive, Record, SetOf
from workbench.columnar.layouts import EntityShape, Layout, RecordShape, ScalarShape, SetShape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runtime.schema import Attribute, CedarType, Scaled
    from workbench.columnar.values import ScalarKind

Form = Literal["arguments", "cedar"]
"""`arguments`: JSON as callers write it, read by `runtime.projection`. `cedar`: what that projection writes."""

Path: TypeAlias = "tuple[str, ...]"
"""Names from the record down: JSON members for leaves, Cedar's attributes for typed columns."""

_KINDS: dict[str, ScalarKind] = {"Long": "long", "Bool": "bool", "String": "string"}
_DTYPES: dict[str, pl.DataType] = {"bool": pl.Boolean(), "string": pl.String(), "ipaddr": pl.String()}


@dataclass(frozen=True, slots=True)
class Column:
    """One typed column."""

    name: str
    path: Path
    """Attributes from the record down."""
    type: CedarType | None
    """Null: Boolean, where the optional record at `path` is."""
    scaled: Scaled | None = None

    @property
    def dtype(self) -> pl.DataType:
        """Type of the column."""
        return pl.Boolean() if self.type is None else dtype_of(self.type)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A member whose text is one column: a scalar, an entity, a set."""

    path: Path
    """JSON members from the record down."""
    text: str
    """Column of its canonical JSON text."""
    required: bool
    columns: tuple[Column, ...]
    """Attributes made of it: one, or several scaled ones."""
    never: bool = False
    """No value fits all attributes (a number of one, a record of another): rows are read only where it is absent."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A record: its members are leaves and branches."""

    path: Path
    text: str
    """Column of its text."""
    required: bool
    members: tuple[Leaf | Branch, ...]
    """In the order of canonical JSON."""
    where: Column | None = None
    """Typed column that says where the record is, if it or one above it is optional."""

    @property
    def place(self) -> str:
        """Boolean column, beside the leaves, that says where an optional record is."""
        return f"{self.text}?"

    def walk(self) -> Iterator[Leaf | Branch]:
        """Yield every member below, in the order of the text."""
        for member in self.members:
            yield member
            if isinstance(member, Branch):
                yield from member.walk()


@dataclass(frozen=True, slots=True)
class Plan:
    """A record's columns."""

    record: Record
    form: Form
    root: Branch
    columns: tuple[Column, ...]
    layouts: dict[str, Layout]
    refs: dict[str, str]
    """Entity type by the column of its ids."""

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """Leaves in the order of the text."""
        return tuple(each for each in self.root.walk() if isinstance(each, Leaf))

    @property
    def records(self) -> tuple[Branch, ...]:
        """Branches below the root in the order of the text."""
        return tuple(each for each in self.root.walk() if isinstance(each, Branch))

    @property
    def places(self) -> dict[Path, str]:
        """Columns, beside the leaves, that say where optional records are."""
        return {each.path: each.place for each in self.records if not each.required}

    @property
    def narrow(self) -> bool:
        """Whether a text may have no canonical form for integers beyond 2**53: where it has floats, or such names."""
        floats = self.form == "arguments" and _has_floats(self.record)
        return floats or not all(name.isascii() for leaf in self.leaves for name in leaf.path)


def _has_floats(type_: CedarType | None) -> bool:
    match type_:
        case Extension("decimal"):
            return True
        case SetOf(element):
            return _has_floats(element)
        case Record(attrs):
            return any(each.scaled or _has_floats(each.type) for each in attrs.values())
        case _:
            return False


def key_text(member: str) -> str:
    """A member's name and colon, as canonical JSON has them."""
    return canonical(member) + ":"


def text_order(member: str) -> bytes:
    """Sort key of member names: UTF-16 code units (RFC 8785 section 3.2.3)."""
    return member.encode("utf-16-be")


def dtype_of(type_: CedarType) -> pl.DataType:
    """The type of the column of a scalar, entity or set; of a record there is none, its place is Boolean."""
    match type_:
        case Primitive(name):
            return _DTYPES.get(_KINDS[name], pl.Int64())
        case Extension(name):
            return _DTYPES.get(name, pl.Int64())
        case EntityRef():
            return pl.String()
        case SetOf(element):
            return pl.List(dtype_of(element) if set_kind(element) else pl.String())
        case Record():
            return pl.Boolean()
        case _:
            assert_never(type_)


def set_kind(element: CedarType) -> str | None:
    """Kind of a set's elements as `layouts.SetShape` has it; null: canonical texts."""
    match element:
        case Primitive("Bool") | SetOf() | Record():
            return None
        case Primitive(name):
            return _KINDS[name]
        case Extension(name):
            return name
        case EntityRef(type=kind):
            return f"entity {kind}"
        case _:
            assert_never(element)


def plan_of(record: Record, form: Form, prefix: str = "") -> Plan:
    """Lay a record out.

    Args:
        record: declared type.
        form: of its JSON texts.
        prefix: put before the name of every typed column.
    """
    maker = _Maker(form, prefix)
    layouts = {
        name: maker.layout(attribute, (name,), optional=not attribute.required)
        for name, attribute in record.attrs.items()
    }
    root = Branch((), "", required=True, members=maker.members(record, (), ()))
    return Plan(record, form, root, tuple(maker.made.values()), layouts, maker.refs)


@dataclass(slots=True)
class _Maker:
    form: Form
    prefix: str
    made: dict[Path, Column] = field(default_factory=dict)
    """Typed columns by path of attributes."""
    refs: dict[str, str] = field(default_factory=dict)
    texts: int = 0

    def layout(self, attribute: Attribute, path: Path, *, optional: bool) -> Layout:
        """Layout of an attribute; `optional`: it, or a record above it, may be absent."""
        if isinstance(attribute.type, Record):
            where = self._column(path, None).name if optional else None
            below = {
                name: self.layout(each, (*path, name), optional=optional or not each.required)
                for name, each in attribute.type.attrs.items()
            }
            return Layout(((where, RecordShape(below)),), optional)
        scaled = attribute.scaled if self.form == "arguments" else None
        column = self._column(path, attribute.type, scaled)
        return Layout(((None, self._shape(attribute.type, column.name)),), optional)

    def _column(self, path: Path, type_: CedarType | None, scaled: Scaled | None = None) -> Column:
        name = f"{self.prefix}{len(self.made)} {'.'.join(path)}{'?' if type_ is None else ''}"
        self.made[path] = Column(name, path, type_, scaled)
        return self.made[path]

    def _shape(self, type_: CedarType, name: str) -> ScalarShape | EntityShape | SetShape:
        match type_:
            case Primitive(kind):
                return ScalarShape(_KINDS[kind], name)
            case Extension(kind):
                return ScalarShape(kind, name)
            case EntityRef(type=kind):
                self.refs[name] = kind
                return EntityShape(kind, name)
            case SetOf(element):
                if isinstance(element, EntityRef):
                    self.refs[name] = element.type
                return SetShape(set_kind(element), name)
            case _:
                raise AssertionError(type_)  # records have columns below

    def members(self, record: Record, json: Path, attrs: Path) -> tuple[Leaf | Branch, ...]:
        """The members of a record's text; several attributes may be made of one."""
        made_of: dict[str, dict[str, Attribute]] = {}
        for name, attribute in record.attrs.items():
            scaled = attribute.scaled if self.form == "arguments" else None
            made_of.setdefault(scaled.member if scaled else name, {})[name] = attribute
        return tuple(
            self._member(name, made_of[name], json, attrs) for name in sorted(made_of, key=text_order)
        )

    def _member(self, name: str, attributes: dict[str, Attribute], json: Path, attrs: Path) -> Leaf | Branch:
        path = (*json, name)
        text = f"leaf {self.texts} {'.'.join(path)}"
        self.texts += 1
        required = any(each.required for each in attributes.values())
        columns = tuple(column for each in attributes for column in self._below((*attrs, each)))
        (only, attribute), *others = attributes.items()
        if isinstance(attribute.type, Record) and not others:
            below = self.members(attribute.type, path, (*attrs, only))
            where = self.made.get((*attrs, only))
            return Branch(path, text, required, below, where)
        never = any(isinstance(each.type, Record) for each in attributes.values())
        return Leaf(path, text, required, columns, never)

    def _below(self, path: Path) -> list[Column]:
        return [column for at, column in self.made.items() if at[: len(path)] == path]


Coder: TypeAlias = "Callable[[str, str], int]"
"""Code of an entity by type and id."""
