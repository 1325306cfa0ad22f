"""Two JSON documents, key by key: what differs is open, what is the same is folded away.

One rule: nothing is left out silently. Members that are the same are counted and can be unfolded; what is cut says
how much of it is not shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

from runtime.canonical import canonical
from workbench.texts import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.canonical import Json

State = Literal["same", "changed", "added", "removed"]
"""`added`: on the right only; `removed`: on the left only."""

MAX_ROWS = 200
"""Differences that are shown."""
MAX_VALUE = 2_000
"""Characters of one value."""
MAX_SAME = 8 * 1024
"""Characters of what is the same, folded."""
_MAX_DEPTH = 12
_ALIGNED = 400
"""Items of lists that are matched with each other; of longer ones, place by place."""

_ABSENT = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One member of two documents."""

    depth: int
    key: str
    state: State
    left: str | None
    """As JSON, cut; None: there is none, or its members follow."""
    right: str | None
    same: int = 0
    """Members below it that are the same and not shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """What differs between two documents."""

    rows: Sequence[Row]
    left_out: int
    """Differences beyond those."""
    same: int
    """Members at the top that are the same."""
    folded: str
    """Those, as JSON, cut."""

    @property
    def number(self) -> int:
        """How many values differ."""
        told = sum(row.state != "same" and not (row.left is None and row.right is None) for row in self.rows)
        return told + self.left_out


def contexts_html(
    left: Mapping[str, Json] | None,
    right: Mapping[str, Json] | None,
    *,
    names: tuple[str, str] = ("then", "now"),
) -> str:
    """Return what differs between two contexts as an HTML fragment, without styles.

    Args:
        left: a JSON object; None: there is none.
        right: the other one.
        names: what they are called.
    """
    from workbench.report import rendered as render  # noqa: PLC0415 - Altair comes with it

    return render("contexts.html.j2", {"diff": differences(left, right), "names": names})


def differences(left: Mapping[str, Json] | None, right: Mapping[str, Json] | None) -> Differences:
    """Compare two JSON objects member by member.

    Cost: O(members), and of lists up to `_ALIGNED` items a match of the two.
    """
    one, two = (dict(left or {}), dict(right or {}))
    alike = {name: value for name, value in one.items() if name in two and _same(two[name], value)}
    rows: list[Row] = []
    total = 0
    for row in _members(one, two, 0):
        total += 1
        if len(rows) < MAX_ROWS:
            rows.append(row)
    folded = _said(alike, MAX_SAME) if alike else ""
    return Differences(rows=rows, left_out=total - len(rows), same=len(alike), folded=folded or "")


def _members(left: Mapping[str, Json], right: Mapping[str, Json], depth: int) -> Iterator[Row]:
    for name in dict.fromkeys((*left, *right)):
        yield from _one(name, left.get(name, _ABSENT), right.get(name, _ABSENT), depth)  # type: ignore[arg-type]  # JSON, or the mark


def _one(key: str, left: Json, right: Json, depth: int) -> Iterator[Row]:
    """The rows of one member; none where both are the same."""
    if left is _ABSENT or right is _ABSENT:
        state: State = "added" if left is _ABSENT else "removed"
        yield Row(depth=depth, key=_key(key), state=state, left=_said(left), right=_said(right))
        return
    if _same(left, right):
        return
    match left, right:
        case dict(), dict() if depth < _MAX_DEPTH and not _is_value(left) and not _is_value(right):
            same = sum(name in right and _same(right[name], value) for name, value in left.items())
            yield Row(depth=depth, key=_key(key), state="changed", left=None, right=None, same=same)
            yield from _members(left, right, depth + 1)
        case list(), list() if depth < _MAX_DEPTH:
            pairs = list(_items(left, right))
            same = sum(_same(one, two) for _, one, two in pairs)
            yield Row(depth=depth, key=_key(key), state="changed", left=None, right=None, same=same)
            for place, one, two in pairs:
                yield from _one(place, one, two, depth + 1)
        case _:
            yield Row(depth=depth, key=_key(key), state="changed", left=_said(left), right=_said(right))


def _same(one: object, other: object) -> bool:
    """Whether two values are the same JSON: `true` is not 1."""
    if one is _ABSENT or other is _ABSENT:
        return one is other
    return one == other and canonical(one) == canonical(other)  # type: ignore[arg-type]  # JSON


def _is_value(value: Mapping[str, Json]) -> bool:
    """Whether an object is one of Cedar's values: an entity, an extension value."""
    return len(value) == 1 and next(iter(value)) in ("__entity", "__extn")


def _items(left: Sequence[Json], right: Sequence[Json]) -> Iterator[tuple[str, Json, Json]]:
    """Pair the items of two lists, those that are the same with each other."""
    if max(len(left), len(right)) > _ALIGNED:
        for place, (one, two) in enumerate(zip_longest(left, right, fillvalue=_ABSENT)):
            yield f"[{place}]", one, two  # type: ignore[misc]  # JSON, or the mark
        return
    texts = [[canonical(each) for each in side] for side in (left, right)]
    for _, i, j, k, m in SequenceMatcher(None, texts[0], texts[1], autojunk=False).get_opcodes():
        for n in range(max(j - i, m - k)):
            one = left[i + n] if i + n < j else _ABSENT
            two = right[k + n] if k + n < m else _ABSENT
            yield f"[{k + n if two is not _ABSENT else i + n}]", one, two  # type: ignore[misc]  # as above


def _key(name: str) -> str:
    return visible(shorten(name, 120))


def _said(value: object, limit: int = MAX_VALUE) -> str | None:
    """A value as JSON, what does not show escaped, cut with how much is left out."""
    if value is _ABSENT:
        return None
    text = canonical(value)  # type: ignore[arg-type]  # JSON
    if len(text) <= limit:
        return visible(text)
    return f"{visible(text[:limit])} … {len(text) - limit:,} more characters"
