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

import logging
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

_LOG = logging.getLogger("redecide")
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
        BundleError: the lake's version does not load, or a source of it is not bound, and the ledger remembers no
            other of this lake; or there is neither alias nor folder of that name.
        LedgerError: the lake cannot be read, and the ledger remembers none.
    """
    try:
        found = find_alias(store, alias)
        bundle = bundle_of(store, found.bundle_version)
        begun = make(bundle, found)
    except (AliasUnknown, LedgerError, BundleError) as exc:
        kept = _kept(ledger, alias, store.uri)
        if kept is not None:
            return _remembered(kept, make, exc)
        if isinstance(exc, AliasUnknown):
            raise BundleError(f"there is no folder {alias!r}, and {exc}") from exc
        raise
    _keep(ledger, found, bundle, store.uri)
    return begun, Following(alias=found, confirmed_at=micros(now), problem=None)


def _remembered(
    kept: tuple[Bundle, Alias], make: Callable[[Bundle, Alias], Enforced], why: Exception
) -> tuple[Enforced, Following]:
    bundle, found = kept
    _LOG.warning("alias %r: opened with %s, which the ledger remembers: %s", found.alias, _short(found), why)
    return make(bundle, found), Following(alias=found, confirmed_at=None, problem=str(why))


class Follower:
    """Looks at the log now and then, on a thread that goes with its runtime."""

    def __init__(self, runtime: Runtime, store: LakeStore, following: Following, seconds: float) -> None:
        self.following = following
        self._runtime = weakref.ref(runtime)
        self._store = store
        self._seconds = seconds
        self._ended = threading.Event()
        self._looking = threading.Lock()
        self.switching = threading.RLock()
        """Held while the version changes, so that a look under way never undoes a pin."""
        self._thread = threading.Thread(target=self._work, name="redecide alias", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End; a look under way is waited for, for a moment, and changes nothing any more."""
        with self.switching:
            self._ended.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_SECONDS)

    def inputs(self, alias: Alias) -> dict[str, Json]:
        """What a decision records of the alias it follows."""
        now = self.following
        confirmed = now.confirmed_at if now.alias.row_id == alias.row_id else None
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
            confirmed_at = micros(runtime.clock())
        # The edge of the thread: a store's own errors, and the panics of its library, are no reason to look no more.
        except BaseException as exc:  # noqa: BLE001 - as above
            why = str(exc) if isinstance(exc, GovernanceError) else f"{type(exc).__name__}: {exc}"
            enforced = runtime.enforced.alias or held  # it may have been taken up, and not been kept
            return self._told(
                Following(alias=enforced, confirmed_at=self.following.confirmed_at, problem=why)
            )
        if runtime.enforced.alias is None:
            return self.following  # it was pinned meanwhile
        return self._told(Following(alias=found, confirmed_at=confirmed_at, problem=None))

    def _told(self, now: Following) -> Following:
        """Log what is new: that the alias is not followed, why, and that it is again."""
        if now.problem is not None and now.problem != self.following.problem:
            _LOG.warning(
                "alias %r is not followed, %s stays in force: %s",
                now.alias.alias,
                _short(now.alias),
                now.problem,
            )
        elif now.problem is None and self.following.problem is not None:
            _LOG.warning("alias %r is followed again: %s", now.alias.alias, _short(now.alias))
        return now

    def _take_up(self, runtime: Runtime, found: Alias) -> None:
        bundle = bundle_of(self._store, found.bundle_version)
        with self.switching:
            if self._ended.is_set():
                return
            runtime.switch(bundle, alias=found)
        _keep(runtime.ledger, found, bundle, self._store.uri)

    def _work(self) -> None:
        while not self._ended.wait(self._seconds):
            if self._runtime() is None:
                return
            self.look()


def _keep(ledger: Ledger, alias: Alias, bundle: Bundle, lake: str) -> None:
    kept: dict[str, Json] = {
        "alias": asdict(alias),
        "name": bundle.name,
        "files": dict(bundle.files),
        "lake": lake,
    }
    text = canonical(kept)

    def move(db: sqlite3.Connection) -> None:
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"alias:{alias.alias}", text))

    ledger.commit(moves=[move])


def _kept(ledger: Ledger, alias: str, lake: str) -> tuple[Bundle, Alias] | None:
    """What was last followed under this name in this lake; of another lake, nothing."""
    rows = ledger.query("SELECT value FROM meta WHERE name = ?", (f"alias:{alias}",))
    kept: Any = parse(rows[0][0]) if rows else None
    if kept is None or kept["lake"] != lake:
        return None
    return bundle_from_files(kept["files"], kept["name"]), Alias(**kept["alias"])


def _short(alias: Alias) -> str:
    return alias.bundle_version[:12]


def check_seconds(seconds: float) -> float:
    """Return how long after a look the next one comes.

    Raises:
        GovernanceError: it is no number above nothing.
    """
    given: object = seconds
    if (
        not isinstance(given, int | float)
        or isinstance(given, bool)
        or not 0 < given <= threading.TIMEOUT_MAX
    ):
        raise GovernanceError(f"`look_every` is a number of seconds above 0, as 5.0; got {given!r:.40}")
    return float(given)
