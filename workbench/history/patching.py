"""Patches of `modify` policies over columns: RFC 7396 merge patches with references, on the texts of leaves.

One rule: a row's new arguments are what `runtime.patches.merge` would make of them, or the row is handed over. The
order of its refusals is kept: an unresolved reference, then a conflict, then a change that changes nothing.

A patch is a list of writes, each of a leaf. Written is a canonical text (`null`: the member is removed), so that
nothing is parsed; whether the result fits its types is found by whoever reads the leaves again.

Accepted, all handed over: arguments that the resource or a fact's key is made of, members the schema does not
declare, references inside arrays or to anything but a scalar whose text is known exactly, rows whose arguments their
leaves do not say.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from runtime.canonical import canonical
from runtime.policy import names_of
from workbench.columnar.json_leaves import written
from workbench.columnar.json_plan import Branch, plan_of
from workbench.history.references import NotSimple, references

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runtime.canonical import Json
    from runtime.schema import Record
    from workbench.columnar.json_leaves import Leaves, Path
    from workbench.history.fold import Group
    from workbench.history.references import Lookup, References

REMOVED = "null"
"""What a removal writes."""

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_LONG = r"\d{16}"
_FLOAT = r"\d[.eE]"
_RISKY = f"{_LONG}|{_FLOAT}"


class Write(NamedTuple):
    """One leaf of a patch."""

    policy: str
    path: Path
    text: str | None
    """Canonical JSON; null: `ref` says it."""
    ref: str | None
    """Dotted path of a `$ref`."""


class Patched(NamedTuple):
    """What patches made of some rows; each row is in one of the three."""

    rows: pl.Series
    """UInt32: rows of the group that have new arguments."""
    leaves: Leaves
    """Of the new arguments, one row each."""
    texts: pl.Series
    """Canonical JSON of the new arguments."""
    stopped: pl.DataFrame
    """`row` (UInt32), `code` and `reason` (String), as `PatchError` has them."""
    handed_over: pl.DataFrame
    """`row` (UInt32), `why` (String)."""


def patched(group: Group, rows: pl.Series, policies: Sequence[str], value: Lookup) -> Patched:
    """Apply the patches of some policies to rows of a group.

    Args:
        group: the rows.
        rows: UInt32, those for which exactly these `modify` policies are satisfied.
        policies: their ids, sorted.
        value: `group.value`.
    """
    infos = group.bundle.policies
    try:
        writes = [write for policy in policies for write in writes_of(policy, infos[policy].patch)]
        _refuse_places(writes, group)
        refs = references(value, rows, (write.ref for write in writes if write.ref))
    except NotSimple as exc:
        return _none(group, pl.DataFrame({"row": rows}).with_columns(pl.lit(str(exc)).alias("why")))
    return _apply(group, rows, writes, refs)


def writes_of(policy: str, patch: Json) -> Iterator[Write]:
    """Yield every leaf of a patch, in the order the runtime resolves them.

    Raises:
        NotSimple: an empty object, or references inside an array.
    """
    if not isinstance(patch, dict):
        raise NotSimple(f"the patch of `{policy}` is no object")
    yield from _writes(policy, patch, ())


def _writes(policy: str, patch: Json, path: Path) -> Iterator[Write]:
    match patch:
        case {"$ref": str(ref), **rest} if not rest and path:
            yield Write(policy, path, None, ref)
        case dict() if patch and not ("$ref" in patch and not path):
            for key, value in patch.items():
                yield from _writes(policy, value, (*path, key))
        case dict():
            raise NotSimple(f"the patch of `{policy}` writes an empty object, or is a reference as a whole")
        case list() if _refers(patch):
            raise NotSimple(f"the patch of `{policy}` has a reference inside an array")
        case _:
            yield Write(policy, path, canonical(patch), None)


def _refers(value: Json) -> bool:
    match value:
        case dict():
            return "$ref" in value or any(_refers(item) for item in value.values())
        case list():
            return any(_refers(item) for item in value)
        case _:
            return False


def _refuse_places(writes: Sequence[Write], group: Group) -> None:
    """Refuse writes that are no change of one leaf, or of one optional record."""
    places = group.leaves.records
    for policy, path, text, _ in writes:
        where = f"the patch of `{policy}` writes `{'.'.join(path)}`"
        if path[0] in group.bound:
            raise NotSimple(f"{where}, which the resource or the key of a fact is made of")
        if any(path[: len(place)] == place for place in _brittle(group.record)):
            raise NotSimple(f"{where}, in an optional record that holds a required one")
        if path in group.leaves.columns:
            continue
        if text != REMOVED or path not in places:
            raise NotSimple(f"{where}, which is no declared leaf")


def _brittle(record: Record) -> list[Path]:
    """Optional records that cannot be made by one write: a required record below would come with them."""
    branches = [each for each in plan_of(record, "arguments").root.walk() if isinstance(each, Branch)]
    required = [each.path for each in branches if each.required]
    return [
        each.path
        for each in branches
        if not each.required and any(path[: len(each.path)] == each.path for path in required)
    ]


def _none(group: Group, handed_over: pl.DataFrame) -> Patched:
    nothing = pl.Series("row", [], dtype=pl.UInt32)
    stopped = pl.DataFrame(schema={"row": pl.UInt32, "code": pl.String, "reason": pl.String})
    return Patched(nothing, group.leaves.take(nothing), pl.Series([], dtype=pl.String), stopped, handed_over)


def together(leaves: Sequence[Leaves]) -> Leaves:
    """Put the leaves of rows of one group below each other."""
    frames, odd = [each.frame for each in leaves], [each.odd for each in leaves]
    return replace(leaves[0], frame=pl.concat(frames), odd=pl.concat(odd))


def _apply(group: Group, rows: pl.Series, writes: Sequence[Write], refs: References) -> Patched:
    frame = pl.DataFrame({"row": rows, "odd": group.leaves.odd.gather(rows), "doubtful": refs.doubtful})
    frame = frame.with_columns(texts.alias(_ref(ref)) for ref, texts in refs.texts.items())
    frame = frame.with_columns(_why(), *_refusal([*_unresolved(writes), *_conflicts(writes)]))
    going = frame.filter(pl.col("why").is_null() & pl.col("code").is_null())
    leaves = _edited(group.leaves.take(going["row"]), writes, going)
    going = going.select("row", written(leaves, group.record, form="arguments").alias("text"))
    going = going.with_columns(_unusable(writes, refs, leaves), *_unchanged(writes, going, group.args))
    ended = pl.concat(
        [frame.select("row", "why", "code", "reason"), going.select("row", "why", "code", "reason")]
    )
    over = pl.col("why").is_not_null()
    new = (going["why"].is_null() & going["code"].is_null()).arg_true()
    return Patched(
        going["row"].gather(new),
        leaves.take(new),
        going["text"].gather(new),
        ended.filter(~over & pl.col("code").is_not_null()).drop("why"),
        ended.filter(over).select("row", "why"),
    )


def _unchanged(writes: Sequence[Write], frame: pl.DataFrame, args: pl.Series) -> tuple[pl.Expr, pl.Expr]:
    """The refusal of a change that changes nothing."""
    names = names_of(tuple(dict.fromkeys(write.policy for write in writes)))
    same = pl.col("text") == args.gather(frame["row"])
    return _refusal([_Check(same, "patch_invalid", f"patch of {names} changes nothing")])


def _ref(ref: str) -> str:
    return f"ref {ref}"


def _text(write: Write) -> pl.Expr:
    """What is written; null: the reference is absent, or (as a leaf's text) the member is removed."""
    return pl.lit(write.text, pl.String) if write.ref is None else pl.col(_ref(write.ref))


def _why() -> pl.Expr:
    odd = pl.when("odd").then(pl.lit("the arguments hold more than their leaves say"))
    return pl.coalesce(
        odd, pl.when("doubtful").then(pl.lit("a patch refers to a decimal that no double may hold"))
    ).alias("why")


class _Check(NamedTuple):
    """One reason to refuse."""

    fails: pl.Expr
    code: str
    reason: str


def _refusal(checks: Sequence[_Check]) -> tuple[pl.Expr, pl.Expr]:
    """The first check that fails; null: none."""
    nothing = pl.lit(None, pl.String)
    codes = [pl.when(check.fails).then(pl.lit(check.code)) for check in checks]
    reasons = [pl.when(check.fails).then(pl.lit(check.reason)) for check in checks]
    return pl.coalesce(*codes, nothing).alias("code"), pl.coalesce(*reasons, nothing).alias("reason")


def _unresolved(writes: Sequence[Write]) -> Iterator[_Check]:
    for write in writes:
        if write.ref is not None:
            reason = f"patch of `{write.policy}` refers to `{write.ref}`, which is absent here"
            yield _Check(_text(write).is_null(), "patch_unresolved", reason)


def _conflicts(writes: Sequence[Write]) -> Iterator[_Check]:
    """Every pair of writes of two policies to one place, in the order the runtime compares them."""
    first: dict[Path, Write] = {}
    for write in writes:
        for path, other in first.items():
            shorter = min(len(path), len(write.path))
            if path[:shorter] != write.path[:shorter]:
                continue  # as are all of one policy: members of an object are distinct
            differ = _text(other) != _text(write) if path == write.path else pl.lit(value=True)
            place = ".".join(write.path)
            reason = f"patches of `{other.policy}` and `{write.policy}` write different values to `{place}`"
            yield _Check(differ, "patch_conflict", reason)
        first.setdefault(write.path, write)


def _edited(leaves: Leaves, writes: Sequence[Write], frame: pl.DataFrame) -> Leaves:
    """Put the written texts into the leaves; a record on the way to one is there from then on."""
    columns: dict[str, pl.Series] = {}
    for write in writes:
        for column, value in _changes(leaves, write).items():
            columns[column] = frame.with_columns(value.alias(column))[column]
    return replace(leaves, frame=leaves.frame.with_columns(*columns.values()))


def _changes(leaves: Leaves, write: Write) -> dict[str, pl.Expr]:
    """New values of columns, by name."""
    path = write.path
    above = (path[:length] for length in range(1, len(path)))
    changes = {leaves.records[place]: pl.lit(value=True) for place in above if place in leaves.records}
    if write.text != REMOVED:
        return changes | {leaves.columns[path]: _text(write)}
    below = [column for place, column in leaves.columns.items() if place[: len(path)] == path]
    records = [column for place, column in leaves.records.items() if place[: len(path)] == path]
    gone = dict.fromkeys(below, pl.lit(None, pl.String)) | dict.fromkeys(records, pl.lit(value=False))
    return changes | gone


def _unusable(writes: Sequence[Write], refs: References, leaves: Leaves) -> pl.Expr:
    """Say where the new arguments may hold a float, or a name that is not ASCII, beside an integer beyond 2**53.

    Such a value has no canonical form.
    """
    constants = [write.text for write in writes if write.text is not None]
    texts = pl.concat([pl.Series(constants, dtype=pl.String), *refs.texts.values()])
    if not (texts.str.contains(_RISKY) & ~texts.str.starts_with('"')).any():
        return pl.lit(None, pl.String).alias("why")
    bare = pl.col("text").str.replace_all(_QUOTED, "")
    strange = not all(part.isascii() for path in leaves.columns for part in path)
    mixed = bare.str.contains(_LONG) & (pl.lit(strange) | bare.str.contains(_FLOAT))
    return pl.when(mixed).then(pl.lit("a float beside an integer beyond 2**53")).alias("why")
