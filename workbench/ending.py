"""Ends that are reached, whatever interrupts: threads that stop, files that go, lines that are wiped.

One rule: what is to be ended with a block is ended before an interrupt of the block reaches its caller.

One Ctrl-C may raise `KeyboardInterrupt` twice: Polars raises one out of the query it stops, and Python's own handler
raises another at the next call, which is mostly the first one of a clean-up. So a clean-up is tried until it went
through; an interrupt that meets it while another exception is on its way is the same interrupt, and is dropped; one
that meets it at the end of a whole block is raised once all is ended.

These are generators, not classes with `__exit__`: an interrupt at the very call of `__exit__` would leave its body
undone. A generator that is dropped there is closed by Python, which runs its `finally`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def ending(end: Callable[[], object]) -> Iterator[None]:
    """End something with the block, however the block ends.

    Args:
        end: ends it; may be called again if it was interrupted, and does nothing then that it has done.
    """
    late: KeyboardInterrupt | None = None
    whole = False
    try:
        yield
        whole = True
    finally:
        while True:
            try:
                end()
            except KeyboardInterrupt as exc:
                late = exc
            else:
                break
    if whole and late is not None:
        raise late


@contextmanager
def undoing(undo: Callable[[], object]) -> Iterator[None]:
    """Undo something unless the block is done whole; as `ending` otherwise."""
    whole = False

    def unless_whole() -> None:
        if not whole:
            undo()

    with ending(unless_whole):
        yield
        whole = True


@contextmanager
def interrupts_of(*kinds: type[BaseException]) -> Iterator[None]:
    """Raise `KeyboardInterrupt` in place of what a library that calls Python makes of one that is raised there.

    Args:
        kinds: the errors of that library; those that do not name an interrupt stay what they are.
    """
    try:
        yield
    except kinds as exc:
        if KeyboardInterrupt.__name__ not in str(exc):
            raise
        raise KeyboardInterrupt from exc
