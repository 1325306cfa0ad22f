"""One part decided by one candidate: evaluate, patch, evaluate again, conclude, as `workbench.history.fold` does.

One rule: what is said of a row is what `lake.replay` of the candidate would say; a row that columns do not decide is
left to Cedar, with the reason. The functions that conclude are the runtime's own, asked once a class of rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from runtime.policy import conclude
from runtime.ruling import Answer, PolicyFault
from workbench.history.rulings import outcome_of
from workbench.live.classes import classes_of, numbered
from workbench.live.patches import Batches
from workbench.live.said import UNDECIDED, Said
from workbench.live.waiting import waiting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from workbench.history.rulings import Outcome
    from workbench.live.alone import Alone
    from workbench.live.classes import Classes
    from workbench.live.evaluating import Evaluated
    from workbench.live.keeping import Kept
    from workbench.live.parts import LivePart, Rows
    from workbench.live.patches import Batch
    from workbench.live.said import Book
    from workbench.live.waiting import Asking

_LEFT = 0
"""Number of `said.LEFT` in every book."""


class Piece(NamedTuple):
    """What a candidate says of a part."""

    codes: NDArray[np.int32]
    """One a row of the part: what is said, by number in the book."""
    left: Mapping[str, Rows]
    """Rows of the part that are left to Cedar, by reason."""
    counted: Mapping[tuple[int, int], int]
    """Rows by key and what is said."""

    @property
    def size(self) -> int:
        """Bytes."""
        return (
            256 + self.codes.nbytes + sum(each.nbytes for each in self.left.values()) + 96 * len(self.counted)
        )


class Ruled(NamedTuple):
    """Policies over a frame: rows by class, and an answer for each."""

    classes: Classes
    ids: tuple[str, ...]
    """Of the policies that say something, in the order of the table's columns."""
    answers: tuple[Answer, ...]


@dataclass(slots=True)
class Fold:
    """A part, being decided."""

    part: LivePart
    asking: Asking
    book: Book
    batches: Kept[Batches]
    codes: NDArray[np.int32] = field(init=False)
    left: dict[str, list[Rows]] = field(default_factory=dict)

    def run(self) -> Piece:
        """Decide every row."""
        part, policies = self.part, self.asking.bundle.policies
        ruled, held = self._ruled(part.frame, ())
        made = [outcome_of(answer, policies) for answer in ruled.answers]
        table = np.array([[self._first(each, same) for same in (False, True)] for each in made], np.int32)
        self.codes = table[ruled.classes.codes, part.same.view(np.uint8)]
        found = waiting(part, part.frame, part.kind, (), self.asking)
        waits = None if found is None else found.waits
        if waits is not None:
            self.codes[waits] = self.book.number(UNDECIDED)
        for names, where in self._modified(made, ruled, waits).items():
            self._patch(names, where, ruled)
        if found is not None:
            held += list(found.held.items())
        for why, each in held:
            self._leave(why, np.flatnonzero(each))
        left = {why: np.unique(np.concatenate(rows)) for why, rows in self.left.items()}
        return Piece(self.codes, left, counted(part.keys, self.codes))

    def _leave(self, why: str, rows: Rows) -> None:
        fresh = rows[self.codes[rows] != _LEFT]  # the first reason holds
        if len(fresh):
            self.codes[fresh] = _LEFT
            self.left.setdefault(why, []).append(fresh)

    def _ruled(self, frame: object, where: object) -> tuple[Ruled, list[tuple[str, NDArray[np.bool_]]]]:
        """Evaluate the policies over a frame of the part; and which rows columns do not decide."""
        policies = self.asking.policies
        given = [(each.text, each.text.read) for each in policies]
        found = [each for (each,) in self.part.evaluator.run(given, frame, where)]  # type: ignore[arg-type]  # a frame
        held = [
            (f"policy `{alone.id}`: {why}", rows)
            for alone, each in zip(policies, found, strict=True)
            for why, rows in each.held.items()
        ]
        return _ruled(policies, found, frame.height, self._permits), held  # type: ignore[attr-defined]  # a frame

    @property
    def _permits(self) -> frozenset[str]:
        infos = self.asking.bundle.policies
        return frozenset(each.id for each in self.asking.policies if infos[each.id].effect == "permit")

    def _first(self, outcome: Outcome, same: bool) -> int:  # noqa: FBT001 - a column's value
        """Number of what is said of a class before anything is patched."""
        runs = same and outcome.verdict == "allow"
        return self.book.number(
            Said("decided", outcome.verdict, "policy", outcome.reason_code, outcome.determining, runs)
        )

    def _modified(
        self, made: Sequence[Outcome], ruled: Ruled, waits: NDArray[np.bool_] | None
    ) -> dict[tuple[str, ...], NDArray[np.bool_]]:
        """Rows (Boolean) by the set of patches that is to be applied to them."""
        found = {}
        for names in dict.fromkeys(each.determining for each in made if each.verdict == "modify"):
            mine = np.array([each.verdict == "modify" and each.determining == names for each in made])
            where = mine[ruled.classes.codes]
            if waits is not None:
                where &= ~waits
            if where.any():
                found[names] = where
        return found

    def _patch(self, names: tuple[str, ...], where: NDArray[np.bool_], ruled: Ruled) -> None:
        """Apply patches to rows, and decide what comes of it."""
        bundle, part = self.asking.bundle, self.part
        key = tuple((name, repr(bundle.policies[name].patch)) for name in names)
        batches = self.batches.get((part.number, key)) or Batches(key)
        batches.cover(part, self._alike(names, ruled) | where, names, bundle)
        self.batches.put((part.number, key), batches, batches.size)
        for batch in batches.every:
            mine = where[batch.rows]
            if mine.any():
                codes, left = self._again(names, batch)
                self.codes[batch.rows[mine]] = codes[mine]
                chosen = [(why, batch.rows[places[mine[places]]]) for why, places in left]
                for _, rows in chosen:
                    self.codes[rows] = -1  # not left yet, whatever they were before the patch
                for why, rows in chosen:
                    self._leave(why, rows)

    def _alike(self, names: tuple[str, ...], ruled: Ruled) -> NDArray[np.bool_]:
        """Rows for which exactly these patches hold, whatever other policies say: an edit of those asks for them."""
        infos = self.asking.bundle.policies
        modifies = [n for n, ident in enumerate(ruled.ids) if infos[ident].verdict == "modify"]
        wanted = np.array([ruled.ids[n] in names for n in modifies], np.uint8)
        mine = ((ruled.classes.table[:, modifies] & 1) == wanted).all(axis=1)
        found: NDArray[np.bool_] = mine[ruled.classes.codes]
        return found

    def _again(
        self, names: tuple[str, ...], batch: Batch
    ) -> tuple[NDArray[np.int32], list[tuple[str, Rows]]]:
        """What is said of the rows of a batch, and which of them are left to Cedar."""
        codes = np.full(len(batch.rows), _LEFT, np.int32)
        left = list(batch.over.items())
        for code, places in batch.ended.items():
            codes[places] = self.book.number(Said("decided", "block", "policy", code, names))
        if not len(batch.going):
            return codes, left
        ruled, held = self._ruled(batch.frame, batch.name)
        table = np.array([self._ending(names, each) for each in ruled.answers], np.int32)
        codes[batch.going] = table[ruled.classes.codes, batch.same.view(np.uint8)]
        kind = self.part.kind[batch.rows[batch.going]]
        found = waiting(self.part, batch.frame, kind, batch.name, self.asking)
        if found is not None:
            codes[batch.going[found.waits]] = self.book.number(UNDECIDED)
            held += list(found.held.items())
        return codes, [*left, *((why, batch.going[each]) for why, each in held)]

    def _ending(self, names: tuple[str, ...], again: Answer) -> list[int]:
        ending = conclude(names, again, self.asking.bundle.policies)
        runs = ending.verdict == "modify"
        said = Said("decided", ending.verdict, "policy", ending.code, ending.determining)
        return [self.book.number(said._replace(same=same and runs)) for same in (False, True)]


def _ruled(
    policies: Sequence[Alone], found: Sequence[Evaluated], height: int, permits: frozenset[str]
) -> Ruled:
    saying = [(alone.id, each.truths) for alone, each in zip(policies, found, strict=True)]
    told = [(ident, truths) for ident, truths in saying if truths is not None]
    ids = tuple(ident for ident, _ in told)
    classes = classes_of([truths for _, truths in told], height)
    return Ruled(classes, ids, tuple(_answer(ids, row, permits) for row in classes.table))


def _answer(ids: Sequence[str], row: NDArray[np.uint8], permits: frozenset[str]) -> Answer:
    """As Cedar would give it; `ids` are sorted."""
    said = list(zip(ids, row.tolist(), strict=True))
    satisfied = [ident for ident, each in said if each & 1]
    allowing = tuple(ident for ident in satisfied if ident in permits)
    forbids = tuple(ident for ident in satisfied if ident not in permits)
    errors = tuple(PolicyFault(ident, "") for ident, each in said if each & 2)
    allowed = bool(allowing) and not forbids
    return Answer("Allow" if allowed else "Deny", forbids or allowing, errors, permitted=bool(allowing))


def counted(keys: NDArray[np.int32], codes: NDArray[np.int32]) -> dict[tuple[int, int], int]:
    """Count rows by key and what is said."""
    here, said = numbered(codes)
    number = max(1, len(said))
    sums = np.bincount(keys.astype(np.intp) * number + here)
    return {(int(each // number), int(said[each % number])): int(sums[each]) for each in np.flatnonzero(sums)}
