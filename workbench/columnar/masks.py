"""Verdict masks: the outputs of a kernel as bits of whole numbers, a word for 64 policies.

One rule: every row of the frame has a row here, in order; a policy that does not apply has bits that are zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from workbench.columnar.lowering import collected
from workbench.columnar.operations import packed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from workbench.columnar.frames import Kernel

WORD = 64
"""Policies in one mask."""
_KINDS = (("s", "satisfied"), ("e", "errored"))


def masks(kernel: Kernel, frame: pl.DataFrame, count: int) -> pl.DataFrame:
    """Run a kernel over a frame in memory; see `lazy_masks`."""
    return collected(lazy_masks(kernel, frame.lazy(), count), frame.height)


def lazy_masks(kernel: Kernel, frame: pl.LazyFrame, count: int, *, keep: Sequence[str] = ()) -> pl.LazyFrame:
    """Run a kernel. Lazy in, lazy out; the streaming engine takes all of it, so a frame may exceed the memory.

    Args:
        kernel: policies of one group.
        frame: columns of the group's rows; texts may be `Enum`, which is faster.
        count: how many policies there are, those that do not apply included.
        keep: columns of the frame that come out, too.

    Returns:
        One row a row of the frame, in order: `satisfied_<w>`, `errored_<w>` (UInt64, bit n of word w is policy
        64 w + n), and `refused` (UInt64, number of a policy in scope that was not compiled, plus one; 0: none).
    """
    flags = kernel.plan.added(frame)
    names = set(kernel.plan.names)
    found = [
        _word(names, kind, word).alias(f"{title}_{word}")
        for kind, title in _KINDS
        for word in range((count + WORD - 1) // WORD)
    ]
    refused = [pl.when(f"u{n}").then(n + 1) for n in kernel.refused if f"u{n}" in names]
    first = pl.coalesce(*refused, pl.lit(0)) if refused else pl.lit(0)
    columns = [*found, first.cast(pl.UInt64).alias("refused")]
    # Not `select`: constants alone would give one row.
    return flags.with_columns(columns).select(*keep, *(column.meta.output_name() for column in columns))


def _word(names: AbstractSet[str], kind: str, word: int) -> pl.Expr:
    flags = {bit: f"{kind}{word * WORD + bit}" for bit in range(WORD)}
    return packed({bit: pl.col(name) for bit, name in flags.items() if name in names})
