"""Missing is not false, in columns: which rows hang on what the record did not ask for.

One rule: the answer is `workbench.undecided.possible`, the one the row engine uses, asked once for each distinct
combination of answers to the policies' atoms.

`possible` takes a millisecond, so combinations must be few: atoms of policies that apply to no row (those of other
tools) are left out of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from workbench.atoms import atoms_of, leaves_of
from workbench.history.rulings import WORD, combinations
from workbench.undecided import possible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runtime.bundle import Bundle


def unsettled(
    masks: Callable[[], pl.DataFrame],
    atoms: Sequence[str],
    bundle: Bundle,
    missing: Sequence[str],
) -> pl.Series:
    """Tell which rows are undecided.

    Args:
        masks: evaluates `atoms_of(bundle).engine` with everything missing absent; called only if it is needed.
        atoms: ids of its policies, by bit number.
        bundle: the candidate.
        missing: names the record did not ask for.

    Returns:
        Boolean, never null, one a row: some value of what is missing gives another verdict, or another change of the
        arguments.

    Cost: `possible` once a distinct combination.
    """
    found = combinations(reached(masks(), atoms, bundle), atoms, frozenset(atoms))
    open_ = [not possible(told, bundle, missing, frozenset()).settled for told in found.answers]
    return pl.Series("undecided", open_, dtype=pl.Boolean).gather(found.codes)


def reached(masks: pl.DataFrame, atoms: Sequence[str], bundle: Bundle) -> pl.DataFrame:
    """Clear the bits of policies whose scope is false in every row: `possible` does not look at them.

    A scope that asks for ancestors is kept, because they may be what is missing.
    """
    any_row = masks.select(pl.all().bitwise_or()).row(0, named=True) if masks.height else {}
    seen = {
        ident
        for number, ident in enumerate(atoms)
        for kind in ("satisfied", "errored")
        if any_row.get(f"{kind}_{number // WORD}", 0) >> (number % WORD) & 1
    }
    kept: set[str] = set()
    for tree in atoms_of(bundle).trees.values():
        scope, *others = leaves_of(tree)
        if scope.hierarchy or scope.id in seen:
            kept |= {scope.id, *(atom.id for atom in others)}
    words = [0] * (len(atoms) // WORD + 1)
    for number, ident in enumerate(atoms):
        words[number // WORD] |= (ident in kept) << (number % WORD)
    return masks.with_columns(
        pl.col(name) & pl.lit(words[int(name.rpartition("_")[2])], pl.UInt64)
        for name in masks.columns
        if name.startswith(("satisfied_", "errored_"))
    )
