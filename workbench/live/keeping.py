"""What was evaluated, kept for the next edit: newest first, bounded in bytes.

One rule: what is kept can be made again, so anything may be dropped at any time.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


@dataclass(slots=True)
class Kept(Generic[_Value]):
    """Values by key; the longest unused go first."""

    most: int
    """Bytes."""
    used: int = 0
    """Bytes, as callers state them."""
    _values: OrderedDict[object, tuple[_Value, int]] = field(default_factory=OrderedDict)

    def get(self, key: object) -> _Value | None:
        """Return a value; None: it is not kept (any more)."""
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: object, value: _Value, size: int) -> _Value:
        """Keep a value of so many bytes; a value larger than all that may be kept is not."""
        self.drop(key)
        if size <= self.most:
            self._values[key] = (value, size)
            self.used += size
        while self.used > self.most:
            _, (_, gone) = self._values.popitem(last=False)
            self.used -= gone
        return value

    def drop(self, key: object) -> None:
        """Forget a value."""
        _, size = self._values.pop(key, (None, 0))
        self.used -= size

    def __len__(self) -> int:
        return len(self._values)
