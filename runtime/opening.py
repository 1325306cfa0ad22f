"""Opening a runtime: everything that can be refused is refused before anything is recorded.

One rule: the bundle, the lake's place, the sources and the authenticators are checked first, the ledger is opened
next, and what processes that are gone have left is settled before the first call.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.approvals import Approvals
from runtime.approvers import as_authenticators
from runtime.bundle import Bundle, load_bundle
from runtime.clocks import checked_clock
from runtime.enforced import enforceable
from runtime.errors import BundleError, GovernanceError
from runtime.following import Follower, check_seconds, first_look, named_alias
from runtime.lake import LEDGER_FILE, LakeStore, lake_uri
from runtime.ledger import Ledger
from runtime.recovery import recover

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta

    from runtime.aliases import Alias
    from runtime.authenticators import Authenticator
    from runtime.enforced import Enforced
    from runtime.following import Following
    from runtime.loop import Runtime


def open_runtime(
    kind: type[Runtime],
    bundle: str | Path | Bundle,
    *,
    lake: str,
    ledger: str | Path | None,
    sources: Mapping[str, Any],
    storage_options: Mapping[str, str] | None,
    clock: Callable[[], datetime] | None,
    authenticators: str | Path | Iterable[Authenticator],
    approval_ttl: timedelta | float,
    look_every: float,
) -> Runtime:
    """Open a runtime; arguments and errors as `Runtime.open`, of which `kind` is."""
    told = checked_clock(clock)
    path = _ledger_of(lake, ledger)
    alias, every = named_alias(bundle), check_seconds(look_every)
    if alias is not None and "://" not in lake and not Path(lake).is_dir():
        raise BundleError(
            f"there is no folder {alias!r}, and no lake at {lake!r} that could have an alias of that name"
        )
    loaded = bundle if isinstance(bundle, Bundle) else None if alias is not None else load_bundle(bundle)
    lake_uri(lake)  # a folder that no Delta table can be in is refused before anything is recorded
    base = None if "://" in lake else Path(lake)
    begun: tuple[Enforced, Following | None] | None = None
    if loaded is not None:
        begun = enforceable(loaded, sources, base), None
    known = as_authenticators(authenticators)
    store = LakeStore(lake, storage_options)

    def ready(found: Bundle, row: Alias) -> Enforced:
        return enforceable(found, sources, base, alias=row)

    opened = Ledger.open(path)
    try:
        enforced, following = begun or first_look(opened, store, str(alias), ready, told())
        made = kind(
            enforced=enforced,
            ledger=opened,
            approvals=Approvals(opened, known, ttl=approval_ttl, clock=told),
            lake=lake,
            sources=sources,
            storage_options=storage_options,
            clock=told,
        )
        made.recovered = recover(made)
    except BaseException:
        opened.close()
        raise
    if following is not None:
        made.follower = Follower(made, store, following, every)
        made.follower.start()
    return made


def _ledger_of(lake: str, ledger: str | Path | None) -> Path:
    """Where the ledger is: the file that is named, or one in the lake's folder."""
    if ledger is None and "://" in lake:
        raise GovernanceError(f"a lake at {lake!r} needs `ledger=`, a local file for the durable ledger")
    return Path(ledger) if ledger is not None else Path(lake) / LEDGER_FILE
