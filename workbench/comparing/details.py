"""One decision of a comparison under every version, as an HTML fragment.

One rule: everything is escaped by the templates, and bounded: what is cut says how much is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.diff_rows import WIDE
from workbench.errors import DecisionNotFound
from workbench.faces import Page, Table, cell
from workbench.masking import leaving
from workbench.texts import shorten, visible
from workbench.viewing.decision_versions import versions_html
from workbench.words import cause_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.comparing.candidates import Candidates

MAX_ARGS = 300
"""Characters of the arguments that a version would run."""


def detail_html(candidates: Candidates, place: int, decision_id: str) -> str:
    """Return one decision: every version's answer in a column, then clauses and contexts of base and one candidate.

    Args:
        candidates: what is compared.
        place: the candidate that is told in full.
        decision_id: in full.

    Raises:
        DecisionNotFound: the comparison has no such decision.

    Cost: about that of `diff.why`: one row is read and decided again.
    """
    above = answers_html(candidates, decision_id) if candidates.several else ""
    return above + versions_html(candidates.diffs[place], decision_id)


def answers_html(candidates: Candidates, decision_id: str) -> str:
    """Return what each version says of one decision, versions in columns."""
    rows = [_row(candidates, place, decision_id) for place in range(len(candidates.diffs))]
    base = {
        "says": rows[0]["from"], "effect": rows[0]["base_effect"], "by": ", ".join(rows[0]["base_determining"] or ()),
    }  # fmt: skip
    told = [base, *map(_told, rows)]
    lines = (
        ("says", "says"), ("effect", "effect"), ("policies", "by"),
        ("stage and reason", "stage"), ("would run", "runs"),
    )  # fmt: skip
    table = Table(
        heads=("", candidates.base, *candidates.names),
        rows=[
            (title, *(visible(shorten(str(each.get(key) or "–"), MAX_ARGS)) for each in told))
            for title, key in lines
        ],
    )
    return cell(Page(kind="decision", title="Under every version", lines=(), parts=(table,)))


def _row(candidates: Candidates, place: int, decision_id: str) -> dict[str, Any]:
    """The decision's row of a comparison, masked as all that is shown."""
    found = candidates.rows(place, pl.col("decision_id") == decision_id).collect()
    if not found.height:
        raise DecisionNotFound(f"the comparison has no decision {visible(decision_id)!r:.80}")
    return leaving(found).row(0, named=True)


def _told(row: Mapping[str, Any]) -> dict[str, str | None]:
    """A candidate's column."""
    if row["status"] != "decided":
        return {"says": row["to"], "effect": row["effect"], "stage": cause_words(row)}
    return {
        "says": row["to"], "effect": row["effect"], "by": ", ".join(row["determining"] or ()),
        "stage": f"{row['decided_by']}: {row['reason_code']}", "runs": row[WIDE[2]],
    }  # fmt: skip
