"""The rows that are not read by columns: parsed in Python, and read exactly as the runtime reads a call.

One rule: what `runtime.projection` (form `arguments`) or Cedar (form `cedar`) refuses is `Refused`, with the reason.
Of a member that stands there twice both take the last, and so does this; the row is odd, and no runtime records one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

from runtime.canonical import NotCanonical, canonical
from runtime.projection import ProjectionError, project
from runtime.schema import SetOf
from workbench.columnar.decoding import Bound, Decoded, Elements, Extended, Ref, Unfit, decode
from workbench.columnar.json_plan import Branch, set_kind
from workbench.columnar.layouts import canonical_text

if TYPE_CHECKING:
    from runtime.canonical import Json
    from runtime.schema import CedarType
    from workbench.columnar.json_plan import Coder, Form, Path, Plan

Cell: TypeAlias = "None | bool | int | str | list[bool | int | str]"
"""One value of a typed column."""

_INT64 = range(-(2**63), 2**63)
ROOT = "context.args"
"""Where arguments stand, for messages; the same words as the runtime's."""


class Refused(ValueError):  # noqa: N818 - says what became of the row
    """Neither the projection nor Cedar takes this text."""


def parse_row(text: str | None, form: Form) -> Json:
    """Parse JSON as the runtime does (`arguments`) or Cedar (`cedar`): of doubles, both keep the last."""
    if text is None:
        raise Refused("no text")
    number = _cedar_integer if form == "cedar" else _integer
    try:
        found: Json = json.loads(text, parse_int=number, parse_constant=_constant)
    except RecursionError:
        raise Refused("not read: nested too deeply") from None
    except ValueError as exc:
        raise Refused(f"not JSON: {exc}") from None
    return found


def _integer(digits: str) -> int | float:
    try:
        value = int(digits)
    except ValueError:  # Python's own limit, thousands of digits
        return float(digits)
    return value if value in _INT64 else float(digits)


def _cedar_integer(digits: str) -> int | float:
    """To Cedar's parser a negative zero is no integer."""
    return -0.0 if digits == "-0" else _integer(digits)


def _constant(name: str) -> Json:
    raise ValueError(f"`{name}` is no JSON value")


def row_cells(text: str | None, plan: Plan, coder: Coder | None) -> dict[str, Cell]:
    """Read one text into its typed columns, by name.

    Raises:
        Refused: see the module.
    """
    decoded = _decoded(parse_row(text, plan.form), plan.record, plan.form)
    found: dict[str, Cell] = {}
    for column in plan.columns:
        value = _at(decoded, column.path)
        if column.type is None:
            found[column.name] = value is not None
        else:
            found[column.name] = None if value is None else _cell(value, column.type, coder)
    return found


def leaf_cell(text: str, type_: CedarType, form: Form, coder: Coder | None) -> Cell:
    """Read the canonical text of one leaf.

    Raises:
        Refused: see the module; also if the text is not canonical.
    """
    value = parse_row(text, form)
    if not is_canonical(value, text):
        raise Refused("not canonical JSON")
    return _cell(_decoded(value, type_, form), type_, coder)


def is_canonical(value: Json, text: str) -> bool:
    """Whether a value's canonical text is `text`."""
    try:
        return canonical(value) == text
    except NotCanonical:
        return False


def _decoded(value: Json, type_: CedarType, form: Form) -> Decoded:
    try:
        return decode(project(value, type_, ROOT) if form == "arguments" else value, type_)
    except (ProjectionError, Unfit) as exc:
        raise Refused(str(exc)) from None
    except RecursionError:
        raise Refused("not read: nested too deeply") from None


def _at(value: Decoded, path: Path) -> Decoded | None:
    found: Decoded | None = value
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _cell(value: Decoded, type_: CedarType, coder: Coder | None) -> Cell:
    match value, type_:
        case Elements(members), SetOf(element):
            if set_kind(element) is None:
                return sorted({canonical_text(_bound(each, coder)) for each in members})
            return sorted(_scalars(members, element))
        case ((bool() | int() | str()), _):
            return value
        case Extended(payload=payload), _:
            return payload
        case Ref(id=ident), _:
            return ident
        case _:
            raise AssertionError(value)  # `decode` made it fit its type


def _scalars(members: tuple[Decoded, ...], element: CedarType) -> set[Any]:
    """Cells of a set's members; all are of one type, which `sorted` needs."""
    return {_cell(each, element, None) for each in members}


def _bound(value: Decoded, coder: Coder | None) -> Decoded:
    """A value inside of a set, with codes for its entities."""
    match value:
        case Ref(kind, ident):
            if coder is None:
                raise Refused("a set of records or sets that name entities, whose codes are not known here")
            return Bound(kind, 0, coder(kind, ident))
        case Elements(members):
            return Elements(tuple(_bound(each, coder) for each in members))
        case dict():
            return {name: _bound(each, coder) for name, each in value.items()}
        case _:
            return value


def row_leaves(text: str | None, plan: Plan) -> tuple[dict[str, str | bool | None], bool]:
    """Take the canonical texts of the leaves from one text.

    Returns:
        By column: text of each leaf, place of each optional record; and whether they say the whole text, exactly.

    Raises:
        Refused: no leaves: not JSON, no object, members that are not declared, values without a canonical form.
    """
    value = parse_row(text, plan.form)
    found: dict[str, str | bool | None] = {}
    try:
        lossless = _collect(value, plan.root, found)
        return found, lossless and is_canonical(value, text or "")
    except NotCanonical as exc:
        raise Refused(str(exc)) from None


def _collect(value: Json, branch: Branch, found: dict[str, str | bool | None]) -> bool:
    """Add the leaves of one record; false if a null was dropped where a leaf has no place for it."""
    if not isinstance(value, dict):
        raise Refused(
            f"not an object where a record is declared: {'.'.join(branch.path) or 'the whole text'}"
        )
    names = {member.path[-1] for member in branch.members}
    dropped = [name for name in value if name not in names]
    if unknown := [name for name in dropped if value[name] is not None]:
        raise Refused(f"undeclared members: {', '.join(sorted(unknown))}")
    lossless = not dropped
    for member in branch.members:
        name = member.path[-1]
        if not isinstance(member, Branch):
            found[member.text] = canonical(value[name]) if name in value else None
            continue
        here = value.get(name) is not None
        lossless &= here == (name in value)
        if member.required and not here:
            raise Refused(f"a record is required: {'.'.join(member.path)}")
        if not member.required:
            found[member.place] = here
        if here:
            lossless &= _collect(value[name], member, found)
        else:
            found |= {each.text: None for each in member.walk() if not isinstance(each, Branch)}
            found |= {
                each.place: False for each in member.walk() if isinstance(each, Branch) and not each.required
            }
    return lossless
