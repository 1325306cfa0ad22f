"""Missing is not false, live: which rows hang on what the record did not ask for.

One rule: the answer is `workbench.undecided.possible`, as in a replay, asked once for each distinct combination of
answers to the policies' atoms; and not at all where no policy for the tool touches what is missing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from runtime.ruling import Answer, PolicyFault
from workbench.atoms import atoms_of, leaves_of
from workbench.live.alone import ID
from workbench.live.classes import classes_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl
    from numpy.typing import NDArray

    from runtime.bundle import Bundle
    from workbench.history.sharing import Skeletons
    from workbench.live.alone import Alone
    from workbench.live.evaluating import Evaluated, Truths
    from workbench.live.parts import LivePart

    Names = tuple[str, ...]


class Asking(NamedTuple):
    """A candidate's policies for a part."""

    bundle: Bundle
    """With the recorded spec and limits."""
    policies: tuple[Alone, ...]
    """Those that may have to do with the part's tool, sorted by id."""
    missing: tuple[tuple[str, ...], ...]
    """What the record did not ask for, by kind of rows."""
    skeletons: Skeletons


class Waiting(NamedTuple):
    """Rows of a frame that hang on what is missing."""

    waits: NDArray[np.bool_]
    held: dict[str, NDArray[np.bool_]]
    """Rows whose atoms are not evaluated in columns, by reason."""


@lru_cache(maxsize=16_384)
def _concerned(alone: Alone, names: Names) -> bool:
    return alone.concerned(tuple(tuple(name.split(".")) for name in names))


def waiting(
    part: LivePart, frame: pl.DataFrame, kind: NDArray[np.uint32], where: object, asking: Asking
) -> Waiting | None:
    """Tell which rows are undecided; None: none is, because nothing that policies touch is missing.

    Args:
        part: whose rows they are.
        frame: what kernels read, a row a row.
        kind: of each row.
        where: names the frame.
        asking: the candidate.
    """
    by_names: dict[Names, list[int]] = {}
    for number, names in enumerate(asking.missing):
        if names and any(_concerned(each, names) for each in asking.policies):
            by_names.setdefault(names, []).append(number)
    found = Waiting(np.zeros(frame.height, np.bool_), {})
    for names, numbers in by_names.items():
        mine = np.isin(kind, numbers)
        if mine.any():
            _decide(part, frame, mine, where, names, asking, found)
    return found if by_names else None


def _decide(
    part: LivePart,
    frame: pl.DataFrame,
    mine: NDArray[np.bool_],
    where: object,
    names: Names,
    asking: Asking,
    found: Waiting,
) -> None:
    ids, columns = [], []
    for ident, each in _reached(part, frame, mine, where, asking):
        for why, held in each.held.items():
            found.held[why] = found.held.get(why, np.zeros(frame.height, np.bool_)) | (held & mine)
        if each.truths is not None:
            ids.append(ident)
            columns.append(each.truths[mine])
    classes = classes_of(columns, int(mine.sum()))
    told = (_told(ids, row) for row in classes.table)
    open_ = np.array([not asking.skeletons.settled(each, asking.bundle, names) for each in told], np.bool_)
    found.waits[mine] = open_[classes.codes]


def _reached(
    part: LivePart, frame: pl.DataFrame, mine: NDArray[np.bool_], where: object, asking: Asking
) -> Iterator[tuple[str, Evaluated]]:
    """Atoms by the ids they have in the bundle, of policies whose scope some row is in, or may be."""
    trees = atoms_of(asking.bundle).trees
    given = [(("atoms", each.text), each.text.parts) for each in asking.policies]
    for alone, evaluated in zip(asking.policies, part.evaluator.run(given, frame, where), strict=True):
        said = {policy.id: each for policy, each in zip(alone.text.parts.every, evaluated, strict=True)}
        own, theirs = leaves_of(alone.text.atoms.trees[ID]), leaves_of(trees[alone.id])
        pairs = list(zip(own, theirs, strict=True))
        scope = pairs[0][0]
        if scope.hierarchy or _any(said[scope.id].truths, mine):
            yield from ((their.id, said[our.id]) for our, their in pairs)


def _any(truths: Truths | None, mine: NDArray[np.bool_]) -> bool:
    return truths is not None and bool(truths[mine].any())


def _told(ids: Sequence[str], row: NDArray[np.uint8]) -> Answer:
    """What Cedar would say of the atoms, everything missing absent."""
    true = tuple(sorted(ident for ident, each in zip(ids, row, strict=True) if each & 1))
    wrong = sorted(ident for ident, each in zip(ids, row, strict=True) if each & 2)
    faults = tuple(PolicyFault(ident, "") for ident in wrong)
    return Answer("Allow" if true else "Deny", true, faults, permitted=bool(true))
