"""An attribute that is worked out when it is first asked for, and then is a plain attribute.

One rule: of an immutable value only, so that two threads that ask at once work out the same. That is why it takes no
lock, as `functools.cached_property` does before Python 3.12, and costs a tenth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class once(Generic[_T]):  # noqa: N801 - used as a decorator, as `property` is
    """Decorates a method without arguments; its result is kept in the instance's `__dict__` under the same name."""

    def __init__(self, work: Callable[[Any], _T]) -> None:
        self._work = work
        self._name = work.__name__
        self.__doc__ = work.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> _T: ...

    def __get__(self, instance: object | None, owner: type) -> Self | _T:
        if instance is None:
            return self
        found = instance.__dict__[self._name] = self._work(instance)
        return found


__all__ = ["once"]
