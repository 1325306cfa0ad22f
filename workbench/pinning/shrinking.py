"""Delta debugging: the most that can be taken away while something stays the same.

One rule: what is taken away was tried, together with all that was taken before it; nothing is taken on a guess.

Source: Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input (2002); here by halves, which finds a
set to which no single item can be added by the last halving it failed in, in O(k log n) trials for k items that stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


def most(items: Sequence[T], holds: Callable[[Sequence[T]], bool]) -> list[T]:
    """Return as many of the items as can be taken at once.

    Args:
        items: to take away.
        holds: whether all is still the same without these.

    Example:
        >>> most(range(6), lambda taken: not {2, 5} & set(taken))
        [0, 1, 3, 4]
    """

    def more(part: Sequence[T], taken: list[T]) -> list[T]:
        if not part:
            return taken
        if holds([*taken, *part]):
            return [*taken, *part]
        if len(part) == 1:
            return taken
        middle = len(part) // 2
        return more(part[middle:], more(part[:middle], taken))

    return more(items, [])
