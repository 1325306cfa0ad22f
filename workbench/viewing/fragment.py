"""A piece of HTML made by Python, in a box of fixed height with its own scroll bar.

One rule: what can run or load is taken out in the browser as well (`js/src/safe.js`), though it was escaped here.
"""

from __future__ import annotations

from typing import Any, ClassVar

import traitlets

from workbench.viewing import assets
from workbench.viewing.messages import Message
from workbench.viewing.view import View


class Nothing(Message, frozen=True):
    """A view that is only looked at is told nothing."""


class FragmentView(View):
    """A fragment of HTML in a notebook.

    Args:
        label: what it is, for who cannot see it.
        placeholder: what stands there while there is nothing to show.
        height: pixels; the reader may pull it longer.
    """

    _esm = assets.esm("fragment")
    accepts: ClassVar[Any] = Nothing

    is_stale = traitlets.Bool(False).tag(sync=True)
    """Shown paler: something newer is on its way."""
    _html = traitlets.Unicode("").tag(sync=True)
    _placeholder = traitlets.Unicode("").tag(sync=True)
    _height = traitlets.Int().tag(sync=True)

    def __init__(self, *, label: str, placeholder: str = "", height: int = 480) -> None:
        super().__init__(label=label, _placeholder=placeholder, _height=height)

    def show(self, html: str) -> None:
        """Show a fragment; empty: the placeholder."""
        with self.lock, self.hold_sync():
            self._html = html
            self.is_stale = False

    def handle(self, message: Message) -> None:
        """Nothing is asked of it."""
