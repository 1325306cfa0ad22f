"""The tuner's view: texts, sliders and numbers in a notebook, and what a person does to them.

One rule: the view holds nothing. It shows a moment of a `Tuning` (`workbench.tuning.shown` writes it), and what the
browser asks is done to that; so two views of one tuner, and Python, see the same.

What a browser types is on its screen before Python knows it. Each message carries the browser's count of them, and
`_seen` gives it back with the texts it led to: a browser that is ahead of it keeps its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec
import traitlets

from workbench.tuning import shown
from workbench.viewing import assets
from workbench.viewing.messages import Index, Message, Name, Text
from workbench.viewing.view import View

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from workbench.tuning.state import Tuning

MAX_TEXT = 2_000_000
"""Characters of a policy file that a browser may send."""
MAX_BROWSERS = 20
"""Browsers whose counts are kept; of more, the oldest is forgotten."""


class Edit(Message, frozen=True):
    """Another text for a policy file."""

    file: Name
    text: Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
    client: Name
    """Which browser view says so."""
    seq: Index


class Move(Message, frozen=True):
    """Another value for a tunable literal, by its key."""

    key: Name
    value: Text
    client: Name
    """Which browser view says so."""
    seq: Index


class Back(Message, frozen=True):
    """The texts of a version that was tried."""

    number: Index


class Complete(Message, frozen=True):
    """Have Cedar decide what columns left."""


class Save(Message, frozen=True):
    """Write the texts into a new folder of this name."""

    name: Name


class Compare(Message, frozen=True):
    """Compare the history as recorded with what the texts make of it."""


class TuneView(View):
    """The upper part of a tuner: texts, sliders, numbers, versions tried.

    Args:
        tuning: what is shown and edited.
        folder: where versions are saved, in words.
        save: writes the texts into a folder of that name; returns it.
        free_name: a name that is not taken.
        compare: begins a comparison.
    """

    _esm = assets.esm("tune")
    accepts: ClassVar[Any] = Edit | Move | Back | Complete | Save | Compare

    _files = traitlets.Dict().tag(sync=True)
    _seen = traitlets.Dict().tag(sync=True)
    _problems: traitlets.List[Any] = traitlets.List().tag(sync=True)
    _controls: traitlets.List[Any] = traitlets.List().tag(sync=True)
    _status = traitlets.Dict().tag(sync=True)
    _answer = traitlets.Dict().tag(sync=True)
    _picture = traitlets.Dict().tag(sync=True)
    _saving = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        tuning: Tuning,
        *,
        label: str,
        folder: str,
        save: Callable[[str], Path],
        free_name: Callable[[], str],
        compare: Callable[[], object],
    ) -> None:
        self._tuning = tuning
        self._save, self._free_name, self._compare = save, free_name, compare
        saving = {"folder": folder, "name": free_name(), "text": "", "tone": "none", "is_comparing": False}
        super().__init__(label=label, _saving=saving)
        self.refresh()

    def refresh(self) -> None:
        """Show the session as it is now."""
        with self.lock, self.hold_sync():
            now, baseline = self._tuning.now, self._tuning.live.baseline
            self._files = shown.files_of(now)
            self._problems = shown.problems_of(now)
            self._controls = shown.controls_of(now)
            self._answer = shown.answer_of(now, baseline)
            self._picture = shown.picture_of(now, self._tuning.tried, baseline)
            self._status = shown.status_of(now)

    def say(self, text: str, tone: shown.Tone = "none", *, is_comparing: bool | None = None) -> None:
        """Show a sentence below; and whether a comparison is under way, None: as before."""
        with self.lock:
            before = self._saving
            comparing = before["is_comparing"] if is_comparing is None else is_comparing
            self._saving = {
                **before,
                "text": text,
                "tone": tone,
                "is_comparing": comparing,
                "name": self._free_name(),
            }

    def handle(self, message: Message) -> None:
        """Do what the browser asks."""
        with self.hold_sync():
            self.problem = ""
            match message:
                case Edit(file=file, text=text):
                    self._saw(message.client, file, message.seq)
                    self._tuning.edit(file, text)
                case Move(key=key, value=value):
                    self._saw(message.client, f"={key}", message.seq)
                    self._tuning.move(key, value)
                case Back(number=number):
                    self._tuning.back(number)
                case Complete():
                    self._tuning.complete()
                case Save(name=name):
                    self._save(name)
                case Compare():
                    self._compare()

    def _saw(self, client: str, what: str, seq: int) -> None:
        """Note that a browser's message was read: its `seq`-th about that file or slider."""
        others = {name: counts for name, counts in self._seen.items() if name != client}
        while len(others) >= MAX_BROWSERS:
            others.pop(next(iter(others)))
        self._seen = {**others, client: {**self._seen.get(client, {}), what: seq}}
