"""How memory that was freed goes back to the system: when it needs some, rather than at once.

One rule: it is set before Polars is loaded, and only where nobody has set it.

A replay goes over the log a chunk at a time and needs for each what it freed after the one before. Polars asks its
allocator, jemalloc, to give freed pages back within a second or two, and every one that is used again is given,
zeroed and mapped again by the system: a quarter of a replay's processor time. Kept for ten seconds and then marked
as free (`MADV_FREE`), they are used again as they are, and the system takes them when it is short of memory.

Accepted: until then they count as the process's: half a gibibyte for a million decisions. Where Polars was imported
first, its own setting holds; where it is built on another allocator, nothing is changed.
"""

from __future__ import annotations

import os
import sys

VARIABLE = "_RJEM_MALLOC_CONF"
"""Read by the allocator when Polars is loaded; Polars sets it then, unless it is set."""
KEPT = "dirty_decay_ms:10000,muzzy_decay_ms:-1"
"""Polars has 500 and 1000."""


def keep_freed_memory() -> None:
    """Set the variable, unless it is set or it is too late. Child processes inherit it."""
    if "polars" not in sys.modules:
        os.environ.setdefault(VARIABLE, KEPT)
