"""Writing into a lake that others write into: rows of ours, and the texts of bundles that rows refer to.

One rule: when it returns the rows are there, once. A conflict is retried, since nothing was appended; a lost
acknowledgement is resolved by reading back.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import polars as pl

from runtime.errors import CommitConflict, LedgerError
from runtime.trace import POLICIES
from workbench.errors import BundleNotFound, LakeError, NotSavable
from workbench.tracking import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runtime.bundle import Bundle
    from runtime.canonical import Json
    from runtime.lake import LakeStore
    from runtime.trace import Table
    from workbench.lake import Lake

TRIES = 20
"""Refused commits in a row before giving up."""
PAUSE_S = 0.02
"""Wait after the first refused commit; it grows with each."""


def keep_texts(lake: Lake, store: LakeStore, bundle: Bundle) -> None:
    """Write the files of a bundle that the lake does not have.

    Raises:
        NotSavable: the lake has other texts under the same version.
        LakeError: the lake cannot be written.
    """

    def there() -> set[str]:
        mine = lake.policies.filter(pl.col("bundle_version") == bundle.version)
        return set(mine.select("row_hash").collect().to_series())

    known = there()
    rows = [row for row in bundle.row_dicts() if row["row_hash"] not in known]
    wanted = {str(row["row_hash"]) for row in rows}
    append(store, POLICIES, rows, lambda: wanted <= there())
    try:
        lake.bundle(bundle.version)
    except BundleNotFound as exc:
        raise NotSavable(f"bundle `{bundle.name}` cannot be read back: {exc}") from exc


def append(
    store: LakeStore, table: Table, rows: Sequence[dict[str, Json]], there: Callable[[], bool]
) -> None:
    """Append rows, whoever else commits meanwhile.

    Args:
        store: opened for writing.
        table: where to.
        rows: none: nothing is committed.
        there: tells whether they are in the table.

    Raises:
        LakeError: the lake refuses; nothing was written.
    """
    for refused in range(TRIES):
        try:
            if rows:
                store.append(table, rows)
        except CommitConflict:  # nothing was appended
            time.sleep(PAUSE_S * refused)
        except LedgerError as exc:  # nobody knows but the table
            if not there():
                raise LakeError(
                    f"`{table.name}` could not be written: {_masked(exc, store)}; save it again"
                ) from exc
            return
        else:
            return
    raise LakeError(
        f"`{table.name}` could not be written: others committed to it at {shown(store.uri)} {TRIES} times in a row; "
        "save it again"
    )


def _masked(exc: LedgerError, store: LakeStore) -> str:
    return str(exc).replace(store.uri, shown(store.uri))
