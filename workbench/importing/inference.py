"""Types of tools' arguments, inferred from their calls.

One rule: each argument gets the one type that holds most of its values; a call with another value there is kept
aside with its cause, never bent. What a type holds is the runtime's projection to say, not this module.

An argument is required if every call has it, and not null. One that no call has a value of is not declared: a null
member is absent. Numbers are `Long`, or `decimal` where more of them fit it. An array is a `Set` (policies see no
order in it), one that is always empty a `Set<String>`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

from runtime.projection import ProjectionError, project
from runtime.schema import Attribute, Extension, Primitive, Record, SetOf

if TYPE_CHECKING:
    from runtime.canonical import Json
    from runtime.schema import CedarType
    from workbench.importing.causes import Cause

_Kind = Literal["String", "Long", "decimal", "Bool", "Set", "Record"]
_ORDER: Final[tuple[_Kind, ...]] = ("String", "Long", "decimal", "Bool", "Record", "Set")
"""Which type is taken where two hold as many values."""
_LONG: Final = Primitive("Long")
_DECIMAL: Final = Extension("decimal")
_ESCAPES: Final = frozenset({"__extn", "__entity", "__expr"})


@dataclass(slots=True)
class Shape:
    """What was seen at one place of the arguments of one tool."""

    held: Counter[_Kind] = field(default_factory=Counter)
    """By type, how many of the values that are not null it holds; a number counts for each type that holds it."""
    seen: int = 0
    """Values that are not null."""
    members: dict[str, Shape] = field(default_factory=dict)
    element: Shape | None = None

    def add(self, value: Json) -> None:
        """Take in one value."""
        if value is None:
            return
        self.seen += 1
        match value:
            case bool():
                self.held["Bool"] += 1
            case int() | float():
                self.held.update(_numbers(value))
            case str():
                self.held["String"] += 1
            case list():
                self.held["Set"] += 1
                self.element = self.element or Shape()
                for item in value:
                    self.element.add(item)
            case _:
                self.held["Record"] += 1
                for name, item in value.items():
                    self.members.setdefault(name, Shape()).add(item)

    @property
    def type(self) -> CedarType | None:
        """The type that holds most; None: none holds any."""
        kind = max(_ORDER, key=lambda each: (self.held[each], -_ORDER.index(each)))
        if not self.held[kind]:
            return None
        match kind:
            case "Set":
                assert self.element is not None  # noqa: S101 - made with the first array
                return SetOf(self.element.type or Primitive("String"))
            case "Record":
                return self.record
            case "decimal":
                return _DECIMAL
            case "String" | "Long" | "Bool":
                return Primitive(kind)

    @property
    def record(self) -> Record:
        """The type of the objects seen here; `seen` of a member that all of them have is theirs."""
        attrs: dict[str, Attribute] = {}
        for name, shape in sorted(self.members.items()):
            if name not in _ESCAPES and (found := shape.type) is not None:
                attrs[name] = Attribute(found, required=shape.seen == self.held["Record"])
        return Record(attrs)


@lru_cache(maxsize=65_536, typed=True)
def _numbers(value: float) -> tuple[_Kind, ...]:
    """Types that hold a number."""
    return tuple(kind for kind, type_ in (("Long", _LONG), ("decimal", _DECIMAL)) if _holds(type_, value))  # type: ignore[misc]  # the names are kinds


def _holds(type_: CedarType, value: Json) -> bool:
    try:
        project(value, type_, "")
    except ProjectionError:
        return False
    return True


def misfit(args: dict[str, Json], record: Record) -> tuple[Cause, str] | None:
    """Return why arguments do not fit their tool's type, and the words for it; None: they do."""
    try:
        project(dict(args), record, "args")
    except ProjectionError as exc:
        return _cause(exc), str(exc)
    return None


def _cause(exc: ProjectionError) -> Cause:
    if exc.path.rpartition(".")[2] in _ESCAPES or any(f"[{name!r}]" in exc.path for name in _ESCAPES):
        return "name_reserved"
    match exc.value:
        case None:
            return "null_in_array" if exc.path.endswith("]") else "mixed_types"
        case (int() | float()) as number if not isinstance(number, bool):
            return _cause_of_number(number, exc.why)
        case str() if "surrogate" in exc.why:
            return "text_unusable"
        case _:
            return "mixed_types"


def _cause_of_number(value: float, why: str) -> Cause:
    """Whether a number is of the right kind and too fine or too large, or stands where no number does."""
    if why.startswith("must be an integer"):
        return "mixed_types" if _holds(_DECIMAL, value) else "float_not_exact"
    return "mixed_types" if why.startswith("must be a") else "float_not_exact"
