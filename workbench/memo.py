"""What is made of a bundle and asked for again and again: kept by its hash, the oldest given up.

One rule: what is kept is bounded, because an editor makes a bundle with every key that is pressed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

K = TypeVar("K")
V = TypeVar("V")

MOST = 256
"""Values kept of a kind."""


def remembered(kept: dict[K, V], key: K, make: Callable[[], V]) -> V:
    """Return what is kept under `key`, made if it is not there. Threads may make a value twice; both are equal.

    Example:
        >>> kept: dict[int, int] = {}
        >>> [remembered(kept, number, lambda: number) for number in range(300)][-1], len(kept)
        (299, 256)
    """
    found = kept.get(key)
    if found is None:
        found = make()
        while len(kept) >= MOST:
            kept.pop(next(iter(kept)), None)
        kept[key] = found
    return found
