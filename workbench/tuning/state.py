"""A tuning session without its picture: the newest texts, what they decide, and what was tried.

One rule: the answer shown is always of one version, and says of which. While a newer text is decided, or does not
load, the last answer stays and is known to be old (`Now.is_stale`).

The newest edit wins, without starving: a decision under way is finished when it is quick, so that the picture moves
while a slider is dragged; one that takes longer than `PATIENCE` is given up for the newest text. What lay between is
never decided.

Edits come from the kernel's threads and answers from the worker's: both take `_changed`. Nobody is told with it held.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from runtime.errors import GovernanceError
from runtime.tuning import find, tuned
from workbench.errors import TuningRefused, WorkbenchError
from workbench.tuning.drafts import Draft, draft_of, draft_of_bundle
from workbench.tuning.sliders import parsed
from workbench.tuning.trying import Tried
from workbench.viewing.background import Worker
from workbench.viewing.messages import said

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runtime.bundle import Bundle
    from workbench.live.answer import Answer
    from workbench.live.change import Change

PATIENCE = 0.4
"""Seconds that a decision may take before a newer text makes it give up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """A tuning session at one moment."""

    draft: Draft
    """The newest texts."""
    bundle: Bundle
    """The newest that loads: the draft's, or the one before it."""
    answer: Answer
    """The newest."""
    change: Change
    """The answer, held against the baseline."""
    is_stale: bool
    """The answer is of other texts than the newest."""
    is_deciding: bool
    """A newer answer is on its way."""
    problem: str
    """Why the newest texts could not be decided by; empty: they could, or are not yet."""


class History(Protocol):
    """What answers: `workbench.live.Live`."""

    @property
    def baseline(self) -> Answer:
        """What edits are compared with."""

    def decide(self, bundle: Bundle, *, cancelled: Callable[[], bool]) -> Answer | None:
        """Decide by a bundle; None: given up."""

    def complete(self, answer: Answer, *, cancelled: Callable[[], bool]) -> Answer | None:
        """Have Cedar decide what an answer left; None: given up."""


class Tuning:
    """Texts that are edited, and a history that answers. Made with a prepared history.

    Args:
        live: the history.
        bundle: what is edited.
        on_change: called after each change, on the thread it happened on.
    """

    def __init__(self, live: History, bundle: Bundle, on_change: Callable[[], object] = lambda: None) -> None:
        self._live: History | None = live
        self.on_change = on_change
        self.tried = Tried()
        self._changed = threading.Condition(threading.RLock())
        self._worker = Worker(self._fail)
        self._draft = draft_of_bundle(bundle)
        self._bundle = bundle
        self._revision = 0
        self._answered = -1
        self._is_deciding = False
        self._problem = ""
        self._whole = -1
        self._answer = live.baseline
        self._change = live.baseline.against(live.baseline)
        if live.baseline.bundle is not None and live.baseline.bundle.version == bundle.version:
            self._accept(0, bundle, live.baseline, self._change)
        else:
            self._decide()

    @property
    def live(self) -> History:
        """The history.

        Raises:
            TuningRefused: the session is closed, and the history gone.
        """
        live = self._live
        if live is None:
            raise TuningRefused("the tuner is closed; make another with `wb.tune`")
        return live

    @property
    def is_closed(self) -> bool:
        """Whether the history is gone."""
        return self._live is None

    @property
    def draft(self) -> Draft:
        """The newest texts; also when the session is closed."""
        return self._draft

    @property
    def bundle(self) -> Bundle:
        """The newest that loads; also when the session is closed."""
        return self._bundle

    @property
    def now(self) -> Now:
        """All of it, at one moment.

        Raises:
            TuningRefused: the session is closed.
        """
        with self._changed:
            self._require_open()
            is_stale = self._answered != self._revision
            return Now(
                draft=self._draft, bundle=self._bundle, answer=self._answer, change=self._change, is_stale=is_stale,
                is_deciding=is_stale and self._is_deciding, problem=self._problem,
            )  # fmt: skip

    def edit(self, file: str, text: str) -> Draft:
        """Put another text into a policy file, and have the history decided by it, if it loads.

        Raises:
            TuningRefused: there is no such file to edit.
        """
        with self._changed:
            draft = self._draft.edited(file, text)
            if draft is not self._draft:
                self._take(draft)
        self.on_change()
        return draft

    def set(self, values: Mapping[str, object]) -> Draft:
        """Give tunable literals other values: the text changes, and nothing else of it.

        Args:
            values: by name; `policy.name` where several policies use a name.

        Raises:
            PolicyError: an unknown name, or a value that is not allowed; names what is.
            TuningRefused: the text is in error, so that it has no literals.
        """
        with self._changed:
            bundle = self._draft.bundle
            if bundle is None:
                raise TuningRefused(f"the text is in error, so nothing can be set: {self._draft.problems[0]}")
            changed = tuned(bundle, values)
            if changed.version != bundle.version:
                self._take(draft_of_bundle(changed))
            draft = self._draft
        self.on_change()
        return draft

    def move(self, key: str, text: str) -> Draft:
        """Set one tunable from what a slider carries; see `set`."""
        bundle = self.now.draft.bundle
        return self.set({key: text if bundle is None else parsed(find(bundle, key), text)})

    def back(self, number: int) -> Draft:
        """Take the texts of a version that was tried; see `Tried`.

        Raises:
            TuningRefused: no version of that number was tried, or it is not kept.
        """
        with self._changed:
            found = self.tried.get(number)
            if found is None:
                raise TuningRefused(f"version {number} was not tried, or is not kept; see `.tried`")
            if self._draft.bundle is None or self._draft.bundle.version != found.bundle.version:
                self._take(draft_of_bundle(found.bundle))
            draft = self._draft
        self.on_change()
        return draft

    def load(self, files: Mapping[str, str]) -> Draft:
        """Take texts for all policy files at once."""
        with self._changed:
            self._take(draft_of({**self._draft.files, **files}, self._draft.name))
            draft = self._draft
        self.on_change()
        return draft

    def complete(self) -> None:
        """Have Cedar asked about all that the newest answer left, until a newer text comes."""
        with self._changed:
            self._require_open()
            if self._draft.bundle is None or self._answer.exact:
                return
            self._whole, self._answered = self._revision, -1
            self._decide()
        self.on_change()

    def wait(self, seconds: float | None = None) -> Now:
        """Wait until nothing is decided any more; None: as long as it takes."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_deciding or self.is_closed, seconds)
            return self.now

    def close(self) -> None:
        """Give up what is under way, and let go of the history."""
        with self._changed:
            if self.is_closed:
                return
            self._live = None
            del self._answer, self._change  # they hold the history, and a notebook holds what it showed
            self._changed.notify_all()
        self._worker.close()

    def _take(self, draft: Draft) -> None:
        """Make a draft the newest."""
        self._require_open()
        self._draft = draft
        self._revision += 1
        self._problem = ""
        if draft.bundle is None:
            return
        self._bundle = draft.bundle
        if self._answer.bundle is not None and self._answer.bundle.version == draft.bundle.version:
            self._accept(self._revision, draft.bundle, self._answer, self._change)
        else:
            self._decide()

    def _require_open(self) -> None:
        _ = self.live

    def _decide(self) -> None:
        """Have the worker decide by the newest texts, unless it is about to look for them."""
        with self._changed:
            if not self._is_deciding:
                self._is_deciding = True
                self._worker.submit(self._run)

    def _run(self, cancelled: Callable[[], bool]) -> None:
        """Decide by the newest texts until none are newer; on the worker's thread."""
        while (work := self._next(cancelled)) is not None:
            live, revision, bundle = work
            began = time.monotonic()

            def given_up(revision: int = revision, began: float = began) -> bool:
                is_old = self._revision != revision and time.monotonic() - began > PATIENCE
                return is_old or cancelled()

            try:
                answer = live.decide(bundle, cancelled=given_up)
                if answer is not None and self._whole == revision:
                    answer = live.complete(answer, cancelled=given_up)
                change = None if answer is None else answer.against(live.baseline)
            except (WorkbenchError, GovernanceError) as exc:
                self._refuse(revision, said(exc))
                continue
            if answer is not None and change is not None and not cancelled():
                self._accept(revision, bundle, answer, change)
                self.on_change()

    def _next(self, cancelled: Callable[[], bool]) -> tuple[History, int, Bundle] | None:
        with self._changed:
            live, bundle = self._live, self._draft.bundle
            is_done = self._answered == self._revision or bool(self._problem) or cancelled()
            if live is None or bundle is None or is_done:
                self._is_deciding = False
                self._changed.notify_all()
                return None
            return live, self._revision, bundle

    def _accept(self, revision: int, bundle: Bundle, answer: Answer, change: Change) -> None:
        with self._changed:
            if self.is_closed:
                return
            self._answered, self._answer, self._change = revision, answer, change
            self.tried.add(bundle, answer)

    def _refuse(self, revision: int, problem: str) -> None:
        with self._changed:
            if revision == self._revision:
                self._problem = problem
        self.on_change()

    def _fail(self, problem: str) -> None:
        """The worker's thread ended in an error that nobody foresaw."""
        with self._changed:
            self._is_deciding = False
            self._problem = problem
            self._changed.notify_all()
        self.on_change()
