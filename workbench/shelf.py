"""What a lake object keeps of one replay for the next, within a bound for all lakes of a process.

One rule: what is on a shelf is never changed, only taken or replaced; so threads may share it.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.history.keeping import Kept

MOST = 2 << 30
"""Bytes that are kept in a process, of all lakes together."""


class Shelf:
    """Where a lake object keeps its self-replay; it goes with the lake object."""

    def __init__(self) -> None:
        self._kept: Kept | None = None

    @property
    def kept(self) -> Kept | None:
        """What is kept; None: nothing."""
        return self._kept

    @property
    def size(self) -> int:
        """Bytes of it, about."""
        kept = self._kept
        return 0 if kept is None else kept.size

    def put(self, kept: Kept) -> None:
        """Keep something, in place of what was there; of other lakes, what was used longest ago makes room."""
        self._kept = kept
        self.touch()

    def drop(self) -> None:
        """Forget what is kept."""
        self._kept = None

    def touch(self) -> None:
        """Note that it was used."""
        key = id(self)
        with _lock:
            _shelves.pop(key, None)
            _shelves[key] = weakref.ref(self, lambda _: _shelves.pop(key, None))
            there = [found for each in list(_shelves.values()) if (found := each()) is not None]
        total = sum(each.size for each in there)
        for each in there:
            if total <= MOST or each is self:
                break
            total -= each.size
            each.drop()


_lock = threading.Lock()
_shelves: dict[int, weakref.ref[Shelf]] = {}
"""By identity, the one used last at the end."""
