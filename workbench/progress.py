"""Progress of long work: a bar, in a terminal and in a notebook.

One rule: it is for who looks. Work of a second shows none; where standard error is no terminal (a script's log, a
pipe) and there is no notebook, nothing is written; and when the work ends, however it ends, the bar is gone.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from workbench.texts import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Advance = Callable[[int], object]

DELAY = 1.0
"""Seconds of work before a bar appears."""
MAX_TEXT = 40


@contextmanager
def progress(
    total: int, text: str, told: Advance | None = None, *, unit: str = "decision"
) -> Iterator[Advance]:
    """Show a bar while work is done; what is given is called with how much was done.

    Args:
        total: how much there is to do.
        text: what is being done.
        told: called instead; no bar is shown then.
        unit: of what.

    Example:
        >>> with progress(3, "counting") as advance:
        ...     for _ in range(3):
        ...         _ = advance(1)
    """
    if told is not None or not _looked_at():
        yield told or _nobody
        return
    from tqdm.auto import tqdm  # noqa: PLC0415 - 0.1 s that a script need not pay

    bar = tqdm(
        total=total, desc=shorten(visible(text), MAX_TEXT), unit=f" {unit}s", delay=DELAY, miniters=1,
        leave=False, disable=None,
    )  # fmt: skip
    try:
        if hasattr(bar, "container"):
            with _removable(bar) as advance:
                yield advance
        else:
            yield bar.update
    finally:
        bar.total = bar.n  # a notebook keeps a bar that did not reach its end
        bar.close()


@contextmanager
def _removable(bar: Any) -> Iterator[Advance]:
    """Show a notebook's bar so that it can be taken out again: `tqdm`'s would stay in a saved notebook, half done."""
    from IPython import display  # noqa: PLC0415 - there is a kernel, so it is loaded

    show: Callable[..., Any] = display.display
    began = time.monotonic()
    handle: Any = None
    bar.displayed = True  # by us, later

    def advance(done: int) -> None:
        nonlocal handle
        if handle is None and time.monotonic() - began >= DELAY:
            handle = show(bar.container, display_id=True)
        bar.update(done)

    try:
        yield advance
    finally:
        if handle is not None:
            handle.update({"text/plain": ""}, raw=True)


def _looked_at() -> bool:
    """Whether a person may be there: a terminal, or a Jupyter kernel. `tqdm` tells the second for sure."""
    error = sys.stderr
    return error is not None and (error.isatty() or "ipykernel" in sys.modules)


def _nobody(_: int) -> None:
    """Tell nobody."""
