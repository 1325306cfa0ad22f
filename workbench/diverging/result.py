"""First divergence: how much of a comparison is exact on this log, and how much hangs on what would come before it.

One rule (DESIGN section 6): a decision is *exact* if nothing that differs from the record can have reached it. It is

* *conditional in session* if an earlier decision of its session departs from the record: its effect is not `same` or
  not known (undecided, quarantined), or the agent sees another answer, that is a result, a refusal or a wait where it
  was not, or a refusal by another stage, for another reason or because of other policies;
* else *conditional across sessions* if an earlier changed action, of any session, shares a limit's counter with it or
  writes an entity that it reads. A changed action is one whose effect is not `same` or not known, or that runs, waits
  or is refused where it was not. It writes the entities its tool declared; its resource (as recorded, and as
  patches make it) where it declared none or may run with other arguments; nothing, where its tool only reads. A
  decision reads its principal, the user acted for, its resource, and what its facts are looked up by: keys hold no
  types, so an entity with such an id counts, in the same tenant or, where a fact is shared by all, in any. A counter
  is shared as `workbench.diverging.shared` says.

Both replays count: what either of them departs in. *Earlier* is log order: a ledger's positions, and between ledgers
the time of the decision. A decision that itself changes is exact if nothing changed before it.

Not followed: chains. What a decision that is itself conditional writes does not make its readers conditional; and an
action that the record does not have, because the agent would only have taken it under the candidate, is unknown to
any log. Sets of facts are read by their key, not by their members. So *exact* says that no change recorded here
reaches the decision directly; `Divergence.chained` counts those that a chain reaches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.diverging.gathering import gather
from workbench.diverging.reach import THROUGH, reached
from workbench.diverging.shared import InForce
from workbench.errors import ColumnUnknown, NotComparable
from workbench.faces import Faces, Page, Table
from workbench.progress import progress
from workbench.replay import RECORDED
from workbench.texts import count, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runtime.canonical import Json
    from runtime.limits import Limits
    from runtime.spec import ContextSpec
    from workbench.asked import Asked
    from workbench.compare import Diff
    from workbench.diverging.gathering import Gathered
    from workbench.lake import Lake

EXACT, IN_SESSION, ACROSS = DIVERGENCE = ("exact", "conditional_in_session", "conditional_across_sessions")
MOST_ROWS = 20
"""Rows of a table that is shown."""
_KINDS = pl.Enum(DIVERGENCE)


def divergence(
    diff: Diff, *, limits: Sequence[Limits] | None = None, specs: Sequence[ContextSpec] | None = None
) -> Divergence:
    """Say for each decision of a comparison whether it is exact on this log.

    Args:
        diff: of two replays of one lake.
        limits: those that the replays decide with beside the recorded ones; None: what the replays show. Where they
            do not show them, every earlier changed action of the tenant counts.
        specs: context specs that the replays compile facts by, likewise.

    Raises:
        NotComparable: the comparison was not made from a lake.

    Cost: one pass over some columns of `decisions`, and a hash join for each counter and kind of lookup; about 8
    bytes a decision for each.
    """
    lake: Any = diff.cand.lake  # a `Lake`, which the comparison's protocol says little of
    if not hasattr(lake, "find_bundle"):
        raise NotComparable(
            f"first divergence needs the decisions of the lake, and the comparison has a {type(lake).__name__}; "
            "compare replays that `lake.replay()` made"
        )
    replays = (diff.base, diff.cand)
    more = _shown(replays, "limits", limits), _shown(replays, "specs", specs)
    found = _recorded(lake, *more)
    return diverged(diff, lake.history, found)


@progress(None, "looking for what changes before a decision")
def diverged(diff: Diff, decisions: pl.LazyFrame, found: InForce) -> Divergence:
    """Say it of decisions that are at hand; see `divergence`."""
    gathered = gather(decisions, [diff.base.frame, diff.cand.frame], found)
    ids = diff.cand.frame.select("decision_id").collect().to_series()
    told = reached(gathered)
    after = told.select(pl.coalesce("in_session", "across")).to_series()
    place = told.sort("order")["place"]
    kinds = (
        pl.when(pl.col("in_session").is_not_null()).then(pl.lit(IN_SESSION))
        .when(pl.col("across").is_not_null()).then(pl.lit(ACROSS))
        .otherwise(pl.lit(EXACT)).cast(_KINDS)
    )  # fmt: skip
    rows = told.select(
        divergence=kinds,
        through=pl.when(pl.col("in_session").is_not_null())
        .then(pl.lit("session"))
        .otherwise(pl.col("through").cast(pl.String))
        .cast(pl.Enum(("session", *THROUGH))),
        after=pl.lit(ids.gather(place.gather(after))),
    )
    return Divergence(diff, rows, gathered)


def _recorded(
    lake: Lake, limits: tuple[Limits, ...] | None, specs: tuple[ContextSpec, ...] | None
) -> InForce:
    """What the lake says was in force, and what replays decide with; None: not known."""
    versions = lake.bundles.select("bundle_version").collect().to_series()
    bundles = [found for version in versions if (found := lake.find_bundle(version)) is not None]
    return InForce(
        limits={bundle.limits_hash: bundle.limits for bundle in bundles},
        specs={bundle.context_spec_hash: bundle.spec for bundle in bundles},
        more_limits=limits or (),
        more_specs=specs or (),
        known=limits is not None and specs is not None,
    )


def _shown(replays: Sequence[Any], name: str, given: Sequence[Any] | None) -> tuple[Any, ...] | None:
    """Limits or specs that replays decide with beside the record; None: one of them does not show it."""
    if given is not None:
        return tuple(given)
    found = []
    for replay in replays:
        asked: Asked | None = getattr(replay, "asked", None)
        if asked is None and replay.context != RECORDED:
            return None
        if asked is not None:
            found.append(asked.spec if name == "specs" else asked.limits and asked.limits.limits)
    return tuple(each for each in found if each is not None)


@dataclass(frozen=True, eq=False, repr=False)
class Divergence(Faces):
    """Which decisions of a comparison are exact on this log. Made by `divergence`."""

    diff: Diff
    told: pl.DataFrame
    """A row a decision, in the order of `diff.frame`."""
    gathered: Gathered

    @property
    def frame(self) -> pl.LazyFrame:
        """All decisions, one row each, in the order of `diff.frame`.

        Columns: those of `diff.frame`; `divergence` (Enum of `DIVERGENCE`); `through` (by what the earliest change
        reaches it, Enum `session | limit | entity | unknown`) and `after` (String: `decision_id` of that change),
        both null where it is exact.
        """
        return pl.concat([self.diff.frame, self.told.lazy()], how="horizontal")

    def by(self, *columns: str) -> pl.LazyFrame:
        """Count by columns of `diff.frame` (none: all): the columns, the three of `DIVERGENCE`, `decisions`; sorted.

        Raises:
            ColumnUnknown: naming the closest.
        """
        known = self.diff.frame.collect_schema().names()
        for name in columns:
            if name not in known:
                raise ColumnUnknown(name, known, "the comparison")
        counted = {kind: (pl.col("divergence") == kind).sum().cast(pl.Int64) for kind in DIVERGENCE}
        counted["decisions"] = pl.len().cast(pl.Int64)
        rows = self.frame.select(*columns, "divergence")
        return rows.group_by(columns).agg(**counted).sort(columns) if columns else rows.select(**counted)

    @cached_property
    def _counts(self) -> dict[str, int]:
        return self.by().collect().row(0, named=True)

    def counts(self) -> dict[str, int]:
        """Return how many decisions are `exact`, conditional in either way, and all (`decisions`)."""
        return dict(self._counts)

    @property
    def effects(self) -> pl.LazyFrame:
        """One row an effect of the candidate: `n`, and the three of `DIVERGENCE`, as `by` counts them."""
        return self.by("effect")

    @cached_property
    def chained(self) -> int:
        """How many exact decisions a chain of conditional ones reaches: they would hang on what others hang on.

        Cost: as of the three counts, as often as the longest chain has links.
        """
        found, rows = self.gathered, self.gathered.rows
        reach: pl.Series | None = None
        while True:
            told = reached(replace(found, rows=rows)).sort("order")
            again = told.select(pl.any_horizontal(pl.col("in_session", "across").is_not_null())).to_series()
            if reach is not None and again.sum() == reach.sum():
                return int(again.sum()) - (rows.height - self._counts[EXACT])
            reach = again
            rows = found.rows.with_columns(
                acts=pl.col("acts") | again,
                marks=pl.col("marks") | again,
                elsewhere=pl.col("elsewhere") | again,
            )

    @property
    def headline(self) -> str:
        """The three counts, in words."""
        counts = self._counts
        total, exact = counts["decisions"], counts[EXACT]
        reached = f"No earlier change reaches {exact:,} of {count(total, 'decision')} ({share(exact, total)})"
        rest = f"{counts[IN_SESSION]:,} are conditional in their session, {counts[ACROSS]:,} across sessions"
        said = f"{reached}: what is said of them is exact. {rest}"
        return said if self._narrowed is None else f"{said}. {_NARROWED.format(self._narrowed)}"

    @property
    def _narrowed(self) -> object:
        """Which decisions were chosen; None: all are here."""
        return getattr(self.diff.cand.lake, "chosen", None)

    def page(self) -> Page:
        """Say how much is exact, by effect, tool and tenant."""
        effects = self.effects.filter(pl.col("decisions") > 0).collect()
        lines = [self.headline, *_said(effects), _MEANING]
        parts = [
            _table("effect", "Which numbers of the comparison are exact on this log", effects),
            *(_table(name, "", self.by(name).collect()) for name in ("tool", "tenant")),
        ]
        return Page(kind="divergence", title="First divergence", lines=lines, parts=parts,
                    next=("found.frame.filter(pl.col('through') == 'entity')",))  # fmt: skip

    def as_dict(self) -> dict[str, Json]:
        """Return the counts, by effect, tool and tenant too."""
        tables: dict[str, Json] = {
            name: [dict(row) for row in self.by(name).collect().iter_rows(named=True)]
            for name in ("effect", "tool", "tenant")
        }
        return {**self._counts, **{f"by_{name}": rows for name, rows in tables.items()}}


_MEANING = (
    "Conditional decisions were made after something that differs under the candidate, in their session or through "
    "a shared limit or entity; what would come there cannot be read from this log."
)
_NARROWED = (
    "Only decisions where {} are here: an earlier change among the others is not seen, so fewer may be exact"
)


def _said(effects: pl.DataFrame) -> Iterator[str]:
    """A sentence for each effect that changes something."""
    changed = effects.filter(pl.col("effect") != "same")
    for effect, exact, *conditional, n in changed.iter_rows():
        yield f"Of {n:,} {effect}, {exact:,} exact and {sum(conditional):,} conditional."


def _table(name: str, title: str, rows: pl.DataFrame) -> Table:
    shown = rows.sort("decisions", descending=True).head(MOST_ROWS)
    left = rows.height - shown.height
    return Table(
        title=title,
        note=f"{count(left, 'row')} with fewer decisions left out" if left else "",
        heads=(name, "exact", "in session", "across sessions", "decisions", "share exact"),
        rows=[(str(row[0]), *row[1:], share(row[1], row[4])) for row in shown.iter_rows()],
    )
