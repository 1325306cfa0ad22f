"""What every view shares: typed messages in, problems shown, work in the background, one lock.

One rule: the browser changes no trait. It sends messages of the view's closed union; `handle` decides what comes of
one, and whatever it raises is shown in the view (`problem`), not in the kernel's log.

JupyterLab hands messages of widgets over on a thread of their own, also while a cell runs; a worker's callbacks come
on a third. So `handle`, callbacks and what users call take `lock` before they touch the view's state.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

import anywidget
import traitlets

from workbench.viewing.background import Worker
from workbench.viewing.messages import Message, Problem, read, said

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class View(anywidget.AnyWidget):
    """A widget that is drawn by a module of ours."""

    _esm: ClassVar[Any]
    """The browser module, `assets.esm(name)`."""
    accepts: ClassVar[Any]
    """The messages that this view reads, as a union of `Message` classes."""

    label = traitlets.Unicode("").tag(sync=True)
    """What the view is, for who cannot see it."""
    problem = traitlets.Unicode("").tag(sync=True)
    """What is wrong now; empty: nothing."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Take the module's text for its path: for a path, anywidget holds on to every widget that ever was."""
        super().__init_subclass__(**options)
        given = cls.__dict__.get("_esm")
        if given is not None and not isinstance(
            given, traitlets.TraitType
        ):  # a widget's own class has the trait
            cls._esm = str(given)

    def __init__(self, **traits: Any) -> None:
        self.lock = threading.RLock()
        self.worker = Worker(self.show_problem)
        super().__init__(**traits)
        self.on_msg(self._on_message)

    def handle(self, message: Message) -> None:
        """Do what a message asks; called with the lock held."""
        raise NotImplementedError

    def show_problem(self, text: str) -> None:
        """Show one sentence in the view; empty takes it away."""
        with self.lock:
            self.problem = text

    def set_state(self, sync_data: Mapping[str, Any]) -> None:
        """Ignore traits set by the browser: it asks by messages."""

    def close(self) -> None:
        """Stop the work and take the view out of the notebook."""
        self.worker.close()
        self.layout.close()
        super().close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.label!r})"

    def _on_message(self, _widget: object, content: object, _buffers: Sequence[memoryview]) -> None:
        match read(content, self.accepts):
            case Problem(text=text):
                self.show_problem(text)
            case message:
                try:
                    with self.lock:
                        self.handle(message)
                except Exception as exc:  # noqa: BLE001 - the edge: said where it was asked, the kernel is not troubled
                    self.show_problem(said(exc))
