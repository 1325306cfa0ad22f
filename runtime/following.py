"""Following an alias: a running runtime takes up what the name stands for, without a restart.

One rule: what is enforced is a version that loaded, whose sources are bound and whose schema fits the registered
tools. A version that does not is refused, said, and the one before it stays in force; nothing is ever enforced in
part, and never nothing.

The lake's log is looked at every few seconds on a thread of its own. What was found last is kept in the ledger, so
that a runtime opens when the lake is out of reach. Each decision records which row of the log it follows, and when
that was last confirmed: `stage_inputs.alias`.

Accepted: calls under way finish under the version they began with; so for a moment both decide.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runtime.aliases import Alias, bundle_of, find_alias, is_alias
from runtime.bundle import Bundle, bundle_from_files
from runtime.canonical import canonical, parse
from runtime.errors import AliasUnknown, BundleError, GovernanceError, LedgerError
from runtime.values import micros

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from datetime import datetime

    from runtime.canonical import Json
    from runtime.enforced import Enforced
    from runtime.lake import LakeStore
    from runtime.ledger import Ledger
    from runtime.loop import Runtime

LOOK_SECONDS: Final = 5.0
"""How long after a look at the log the next one comes."""
_JOIN_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """Where a runtime stands with its alias."""

    alias: Alias
    """The row of the log that is enforced."""
    confirmed_at: int | None
    """When the lake last said so, microseconds UTC; None: not since this runtime was opened."""
    problem: str | None
    """Why what the lake says now is not enforced, or why it could not be asked; None: nothing is wrong."""


def named_alias(bundle: object) -> str | None:
    """Return the alias that a runtime is to follow; None: it was given a bundle or a folder.

    A folder of that name goes before the alias: a path pins.
    """
    if not isinstance(bundle, str) or not is_alias(bundle) or Path(bundle).exists():
        return None
    return bundle


def first_look(
    ledger: Ledger, store: LakeStore, alias: str, make: Callable[[Bundle, Alias], Enforced], now: datetime
) -> tuple[Enforced, Following]:
    """Return what to begin with: what the lake says, else what the ledger remembers, with why the lake did not say.

    Args:
        ledger: that remembers.
        store: the lake.
        alias: to be followed.
        make: makes a version ready to decide.
        now: the time.

    Raises:
        BundleError: the lake's version does not load, and the ledger remembers none; or there is neither alias nor
            folder of that name.
        LedgerError: the lake cannot be read, and the ledger remembers none.
        ContextSpecError: a source of the version is not bound.
    """
    kept = _kept(ledger, alias)
    try:
        found = find_alias(store, alias)
        bundle = bundle_of(store, found.bundle_version)
    except AliasUnknown as exc:  # also where the ledger remembers one: then this is another lake
        raise BundleError(f"there is no folder {alias!r}, and {exc}") from exc
    except (LedgerError, BundleError) as exc:
        if kept is None:
            raise
        bundle, found = kept
        return make(bundle, found), Following(alias=found, confirmed_at=None, problem=str(exc))
    begun = make(bundle, found)
    _keep(ledger, found, bundle)
    return begun, Following(alias=found, confirmed_at=micros(now), problem=None)


class Follower:
    """Looks at the log now and then, on a thread that goes with its runtime."""

    def __init__(self, runtime: Runtime, store: LakeStore, following: Following, seconds: float) -> None:
        self.following = following
        self._runtime = weakref.ref(runtime)
        self._store = store
        self._seconds = seconds
        self._ended = threading.Event()
        self._looking = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="redecide alias", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End; a look under way is waited for, for a moment."""
        self._ended.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_SECONDS)

    def inputs(self, alias: Alias) -> dict[str, Json]:
        """What a decision records of the alias it follows."""
        confirmed = self.following.confirmed_at if self.following.alias is alias else None
        told: dict[str, Json] = {"name": alias.alias, "row_id": alias.row_id, "confirmed_at": confirmed}
        return {"alias": told}

    def look(self) -> Following:
        """Look at the log now, and take up what it says; what is wrong is in the answer."""
        with self._looking:
            runtime = self._runtime()
            if runtime is not None and not self._ended.is_set():
                self.following = self._looked(runtime)
            return self.following

    def _looked(self, runtime: Runtime) -> Following:
        held = self.following.alias
        try:
            found = find_alias(self._store, held.alias)
            if found.row_id != held.row_id:
                self._take_up(runtime, found)
        except GovernanceError as exc:
            return Following(alias=held, confirmed_at=self.following.confirmed_at, problem=str(exc))
        return Following(alias=found, confirmed_at=micros(runtime.clock()), problem=None)

    def _take_up(self, runtime: Runtime, found: Alias) -> None:
        bundle = bundle_of(self._store, found.bundle_version)
        runtime.switch(bundle, alias=found)
        _keep(runtime.ledger, found, bundle)

    def _work(self) -> None:
        while not self._ended.wait(self._seconds):
            if self._runtime() is None:
                return
            self.look()


def _keep(ledger: Ledger, alias: Alias, bundle: Bundle) -> None:
    text = canonical({"alias": asdict(alias), "name": bundle.name, "files": dict(bundle.files)})

    def move(db: sqlite3.Connection) -> None:
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"alias:{alias.alias}", text))

    ledger.commit(moves=[move])


def _kept(ledger: Ledger, alias: str) -> tuple[Bundle, Alias] | None:
    rows = ledger.query("SELECT value FROM meta WHERE name = ?", (f"alias:{alias}",))
    if not rows:
        return None
    kept: Any = parse(rows[0][0])
    return bundle_from_files(kept["files"], kept["name"]), Alias(**kept["alias"])
