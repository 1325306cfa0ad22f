"""Aliases: names for bundle versions, `champion`, `challenger`, in an append-only log of the lake.

One rule: an alias moves only from where whoever moves it believed it to be. The commit is refused by Delta if anybody
moved the same alias since the table was opened (an application id a name, as the drain has one a table), so of two
that promote at once one is told that the other came first.

The log is the history: who moved what, from which version, when and why. A row is never changed; rolling back is a
row like any other. Order is that of `at`, which is later than the row before it whatever the clock says.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from runtime.bundle import bundle_from_files
from runtime.canonical import new_id
from runtime.errors import (
    AliasMoved,
    AliasUnknown,
    BundleError,
    CommitConflict,
    CommitUncertain,
    GovernanceError,
    LedgerError,
)
from runtime.trace import ALIASES, POLICIES
from runtime.values import micros

if TYPE_CHECKING:
    from datetime import datetime

    from runtime.bundle import Bundle
    from runtime.lake import LakeStore

TRIES: Final = 20
"""Refused commits in a row, by others that move other aliases, before giving up with `CommitConflict`."""

_NAME: Final = re.compile(r"(?!latest\Z|v[0-9]+\Z)[a-z][a-z0-9_-]{0,62}\Z")
"""Also what MLflow's registry takes, which mirrors aliases: it keeps `latest`, `v1`, … for itself."""
_VERSION: Final = re.compile(r"[0-9a-f]{4,64}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """One row of the log: a name was given to a version."""

    row_id: str
    alias: str
    bundle_version: str
    previous_version: str | None
    """What the name stood for before; None: nothing."""
    actor: str
    reason: str
    at: int
    """Microseconds, UTC."""


def is_alias(name: str) -> bool:
    """Tell whether a text may be an alias: lower-case letters, digits, `_`, `-`; no digits of a version.

    Example:
        >>> is_alias("champion"), is_alias("policies/support"), is_alias("beef"), is_alias("Champion")
        (True, False, False, False)
    """
    return bool(_NAME.match(name)) and not _VERSION.match(name)


def check_alias(name: str) -> str:
    """Return a name that may be an alias.

    Raises:
        GovernanceError: it may not.
    """
    if not is_alias(name):
        raise GovernanceError(
            "an alias is 1 to 63 lower-case letters, digits, `_` or `-`, begins with a letter, and is no version and "
            f"neither `latest` nor `v1`: 'champion'; got {name!r:.80}"
        )
    return name


def read_aliases(store: LakeStore) -> list[Alias]:
    """Return the log, oldest first. Cost: reads the table, which has a row a promotion.

    Raises:
        LedgerError: the lake cannot be read.
    """
    rows = store.read(ALIASES).to_pylist()
    found = [Alias(**{**row, "at": micros(row["at"])}) for row in rows]
    return sorted(found, key=lambda each: (each.at, each.row_id))


def current(log: list[Alias], alias: str) -> Alias | None:
    """Return the row that holds for a name; None: it was never given."""
    return next((row for row in reversed(log) if row.alias == alias), None)


def find_alias(store: LakeStore, alias: str) -> Alias:
    """Return what an alias stands for.

    Raises:
        AliasUnknown: it was never given; names those that were.
        LedgerError: the lake cannot be read.
    """
    log = read_aliases(store)
    if (found := current(log, alias)) is None:
        known = ", ".join(sorted({row.alias for row in log})) or "none yet"
        raise AliasUnknown(
            f"the lake at {store.uri!r} has no alias {alias!r}; it has {known}; give one with "
            f"`redecide promote VERSION --alias {alias}`"
        )
    return found


def bundle_of(store: LakeStore, version: str) -> Bundle:
    """Return the bundle of exactly this version, from the texts in the lake.

    Raises:
        BundleError: the lake does not hold it, or its texts give another version.
        LedgerError: the lake cannot be read.
    """
    rows = [row for row in store.read(POLICIES).to_pylist() if row["bundle_version"] == version]
    if not rows:
        raise BundleError(f"the lake at {store.uri!r} holds no texts of bundle {version[:12]}")
    bundle = bundle_from_files({row["file"]: row["text"] for row in rows}, rows[0]["name"])
    if bundle.version != version:
        raise BundleError(
            f"the texts of bundle {version[:12]} in the lake at {store.uri!r} give {bundle.version[:12]}: rows of "
            "`policies` are missing or were changed"
        )
    return bundle


def move_alias(
    store: LakeStore,
    alias: str,
    version: str,
    *,
    expected: str | None,
    actor: str,
    reason: str,
    now: datetime,
) -> Alias:
    """Give a name to a version.

    Args:
        store: the lake, opened for writing.
        alias: the name.
        version: bundle version; its texts must be in the lake.
        expected: the version that the name is believed to stand for; None: it was never given.
        actor: who does it.
        reason: why, for whoever reads the log.
        now: the time.

    Returns:
        The row that holds now.

    Raises:
        AliasMoved: it stands for another version than `expected`; nothing was written.
        GovernanceError: no such name can be given, or there is no reason.
        BundleError: the lake does not hold the version.
        CommitConflict: others commit faster than we can; nothing was written; safe to retry.
        CommitUncertain: the lake did not say whether it was written, and cannot be read; look at the log.
        LedgerError: the lake cannot be written. Nothing was.

    Durability: when it returns, as any commit to the lake.
    """
    check_alias(alias)
    if not reason.strip() or not actor.strip():
        raise GovernanceError(f"moving alias {alias!r} needs a reason and who does it, for the log")
    bundle_of(store, version)
    for _ in range(TRIES):
        try:
            return _move(
                store, alias, version, expected=expected, actor=actor, reason=reason, now=micros(now)
            )
        except CommitConflict:
            continue  # this alias moved, or the table was made at the same moment: look again
    raise CommitConflict(
        f"alias {alias!r} could not be moved: others moved it {TRIES} times in a row; safe to retry"
    )


def _move(
    store: LakeStore, alias: str, version: str, *, expected: str | None, actor: str, reason: str, now: int
) -> Alias:
    app = f"redecide:alias:{alias}"
    handle = store.create(ALIASES)
    moves = handle.transaction_version(app) or 0
    log = read_aliases(store)  # as new as the handle, or newer: then the commit is refused
    last = current(log, alias)
    held = None if last is None else last.bundle_version
    if held != expected:
        told = f"by {last.actor}: {last.reason}" if last is not None else "by nobody"
        raise AliasMoved(
            f"alias {alias!r} stands for {_short(held)}, not for {_short(expected)}: it was moved {told}; "
            "look at it again"
        )
    at = now if last is None else max(now, last.at + 1)
    row = Alias(
        row_id=new_id(),
        alias=alias,
        bundle_version=version,
        previous_version=held,
        actor=actor,
        reason=reason,
        at=at,
    )
    try:
        store.append(ALIASES, [asdict(row)], app=(app, moves + 1), handle=handle)
    except CommitConflict:
        raise
    except LedgerError as exc:
        if not _written(store, row):
            raise
        del exc  # the commit is there; only its acknowledgement was lost
    return row


def _written(store: LakeStore, row: Alias) -> bool:
    try:
        return any(each.row_id == row.row_id for each in read_aliases(store))
    except LedgerError as exc:
        raise CommitUncertain(
            f"whether alias {row.alias!r} was moved to {row.bundle_version[:12]} is not known: {exc}; "
            "look at the log when the lake can be read"
        ) from exc


def _short(version: str | None) -> str:
    return "nothing" if version is None else version[:12]
