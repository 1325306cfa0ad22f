"""One decision under two versions, side by side: what each says, its policies' clauses, and what it saw.

One rule: the left is the base of the comparison, the right its candidate, in every part; what is the same on both is
shown once, or folded away.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from workbench.explaining.why import why as why_of
from workbench.faces import Listing
from workbench.parts import HUES, Cedar, Item
from workbench.texts import number, shorten
from workbench.viewing.cedar_html import lines_of
from workbench.viewing.contexts_html import differences
from workbench.viewing.decision_policies import is_same, marked, policies_of
from workbench.viewing.decision_view import MAX_VALUE, as_object, document, names, seen_by_policies, sentences

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from workbench.compare import Diff
    from workbench.explaining.one import Side
    from workbench.explaining.why import Why

MAX_LINES = 1_000
"""Lines of a text in which edited ones are looked for."""


def versions_html(diff: Diff, decision_id: str) -> str:
    """Return one decision under both versions of a comparison as an HTML fragment with its styles.

    Args:
        diff: of two replays of a lake.
        decision_id: its id, or the first characters of it where they fit one only.

    Raises:
        DecisionNotFound: none, or several; names ids that are near.
        ReplayFailure: a replay does not keep what it was asked for; says what to call.

    Cost: as `Diff.why`; the fragment is bounded, whatever the record holds.
    """
    return html_of(why_of(diff, decision_id))


def html_of(why: Why) -> str:
    """Return an explanation as that fragment."""
    from workbench.report import rendered as render  # noqa: PLC0415 - Altair comes with it

    ids, more = policies_of(why.base, why.cand)
    row = why.cand.row
    left, right = (seen_by_policies(side) for side in (why.base, why.cand))
    sides = [_side(side) for side in (why.base, why.cand)]
    values: dict[str, Any] = {
        "id": why.decision_id,
        "title": row["tool"] + (f" on {row['resource']}" if row["resource"] else ""),
        "who": Listing(items=_who(row)),
        "lines": sentences(why),
        "sides": sides,
        "policies": [_policy(why, ident) for ident in ids],
        "more": more,
        "args": document("Arguments", row["args"], folded=True),
        "contexts_": differences(left, right),
        "enforced": _enforced(why),
        "names": (why.base.name, why.cand.name),
        "written": number,
        "lines_of": lambda part: lines_of(part.text, part.marks, line=part.line, edited=part.edited),
    }
    return render("versions.html.j2", values)


def _who(row: Any) -> list[Item]:
    return [
        Item("principal", row["principal"], is_code=True),
        Item("tenant", row["tenant"]),
        Item("session", f"{row['session_id']}, step {row['step']:,}"),
        Item("what ran then", str(row["then"]).replace("_", " ")),
        Item("effect", row["effect"]),
    ]


def _side(side: Side) -> dict[str, Any]:
    """What one version says, in a few words."""
    row = side.row
    said = (
        names(list(row["determining"] or ())) if row["determining"] else row["reason"] or row["cause"] or ""
    )
    by = (
        ""
        if side.status != "decided"
        else f"{row['decided_by']}: {str(row['reason_code']).replace('_', ' ')}"
    )
    return {
        "name": side.name,
        "verdict": side.verdict,
        "hue": HUES.get(side.verdict, "plain"),
        "by": by,
        "said": shorten(str(said), MAX_VALUE),
        "missing": names(list(side.missing)) if side.missing else "",
    }


def _policy(why: Why, ident: str) -> dict[str, Any]:
    """A policy's text under both versions; once, where text and truths are the same."""
    same = is_same(why.cand, why.base, ident)
    found: Sequence[Cedar | None] = tuple(_texts(why, ident, same=same))
    return {"id": ident, "same": same, "texts": found}


def _texts(why: Why, ident: str, *, same: bool) -> Iterator[Cedar | None]:
    if same:
        yield marked(why.cand, None, ident)
        return
    found = marked(why.base, why.cand, ident), marked(why.cand, why.base, ident)
    edited = _edited(*("" if part is None else part.text for part in found))
    for part, places in zip(found, edited, strict=True):
        yield None if part is None else replace(part, edited=places)


def _edited(one: str, other: str) -> tuple[frozenset[int], frozenset[int]]:
    """Places of the lines that differ between two texts; nothing where one of them is missing."""
    left, right = one.split("\n")[:MAX_LINES], other.split("\n")[:MAX_LINES]
    if not one or not other:
        return frozenset(), frozenset()
    places: tuple[set[int], set[int]] = (set(), set())
    for tag, i, j, k, m in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if tag != "equal":
            places[0].update(range(i, j))
            places[1].update(range(k, m))
    return frozenset(places[0]), frozenset(places[1])


def _enforced(why: Why) -> Any:
    """What would run under each, where that differs; None: it does not."""
    texts = [side.row.get("enforced_args") for side in (why.base, why.cand)]
    if texts[0] == texts[1]:
        return None
    return differences(*(None if text is None else as_object(text) for text in texts))
