"""Live tuning: Cedar is edited, sliders are moved, and the history answers while they move.

One rule: what a tuner shows, `lake.replay(tuner.bundle)` says; nothing is saved, promoted or executed but by `save`,
into a new folder.

```python
tuner = wb.tune(lake, policy="policies/support-next")
tuner                                   # in a notebook: editor, sliders, numbers, lists
tuner.set("refund_limit", 20_000)       # what a slider does
tuner.answer.objectives                 # waits for the newest
tuner.save("policies/support-3")
```
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets
import polars as pl

from runtime.bundle import Bundle
from workbench.asked import Asked, asked_of, bundle_of
from workbench.errors import LakeEmpty, TuningRefused
from workbench.explaining.one import decided
from workbench.faces import cell
from workbench.live import prepare
from workbench.texts import count, shorten, visible
from workbench.tuning.lists import TITLES, label_of, rows_of
from workbench.tuning.saving import free_name, named_beside, save_bundle
from workbench.tuning.shown import status_of
from workbench.tuning.state import Tuning
from workbench.tuning.view import TuneView
from workbench.viewing.background import Worker
from workbench.viewing.decision import Decision
from workbench.viewing.decision_evidence import checks
from workbench.viewing.decision_record import read
from workbench.viewing.fragment import FragmentView
from workbench.viewing.table import TableView

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from os import PathLike

    from workbench.compare import Diff
    from workbench.lake import Lake
    from workbench.live.answer import Answer
    from workbench.live.change import Change, Listed
    from workbench.live.engine import Live
    from workbench.replay import Replay
    from workbench.tuning.drafts import Problem
    from workbench.weighing.stakes import Stakes

    StakesGiven = Stakes | Mapping[str, Any] | str | PathLike[str] | None
    Given = str | PathLike[str] | Bundle

MAX_NAME = 60
"""Characters of a bundle's name in a title."""
HEIGHT = 250
"""Pixels of a list."""
PLACEHOLDER = (
    "Choose a decision in a list above: what was recorded, and which clauses decide it now, is shown here."
)


class Tuner(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets ships no types
    """Policies that are edited over a history that answers. Made by `tune`; close it to give its memory back."""

    def __init__(
        self,
        lake: Lake,
        live: Live,
        bundle: Bundle,
        folder: Path,
        stakes: StakesGiven = None,
        axes: Mapping[str, Any] | None = None,
    ) -> None:
        self._lake = lake
        self._axes = axes or {}
        self._stakes = stakes
        self._folder = folder
        self._name = bundle.name
        self._names = {bundle.version: bundle.name}
        self._recorded: Replay | None = None
        self._compared: ipywidgets.Widget | None = None
        self._decision: str | None = None
        self._shown: Change | None = None
        self._worker = Worker(partial(self._say, tone="bad", is_comparing=False))
        self.tuning = Tuning(live, bundle)
        """The session without its picture."""
        self.view = TuneView(
            self.tuning,
            label=_label(bundle, live.baseline),
            folder=visible(folder.name or str(folder)),
            save=self._save_named,
            free_name=lambda: free_name(self._folder, self._name),
            compare=self._begin_comparing,
        )
        self._tables = {
            side: TableView(rows_of(_listed(self.tuning.now.change, side).rows), label=title, height=HEIGHT)
            for side, title in TITLES.items()
        }
        self.detail = FragmentView(label="decision", placeholder=PLACEHOLDER, height=HEIGHT + 110)
        for side, table in self._tables.items():
            table.observe(partial(self._on_selected, side), "selected")
        columns = ipywidgets.Layout(
            grid_template_columns="minmax(0, 1fr) minmax(0, 1fr)", grid_gap="12px", padding="0 14px"
        )
        lists = ipywidgets.GridBox(list(self._tables.values()), layout=columns)
        below = ipywidgets.VBox([self.detail], layout=ipywidgets.Layout(padding="12px 14px"))
        self._parts = (self.view, lists, below)
        super().__init__(list(self._parts))
        self.tuning.on_change = self._refresh
        self._refresh()

    @property
    def bundle(self) -> Bundle:
        """The newest version: of the texts, or, while they are in error, the last that loads."""
        return self.tuning.bundle

    @property
    def files(self) -> Mapping[str, str]:
        """The newest texts by file, in error or not."""
        return self.tuning.draft.files

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the texts, with file, line and policy; empty: they load."""
        return self.tuning.draft.problems

    @property
    def answer(self) -> Answer:
        """What the newest version makes of the history; waits for it. While texts are in error, the last answer.

        Raises:
            TuningRefused: the newest version could not be decided by; says why.
        """
        now = self.tuning.wait()
        if now.problem:
            raise TuningRefused(now.problem)
        return now.answer

    @property
    def baseline(self) -> Answer:
        """What everything is compared with: what the policy given, or without one what was recorded, made of it."""
        return self.tuning.live.baseline

    @property
    def tried(self) -> pl.LazyFrame:
        """One row a version that was decided, in order; see `workbench.tuning.trying.Tried.frame`."""
        return self.tuning.tried.frame

    def set(self, name: str, value: object) -> None:
        """Give a tunable literal another value, as its slider does; the text changes with it.

        Args:
            name: as `@tune` declares it; `policy.name` where several policies use the name.
            value: of the literal's kind; of an extension type, its text (`"10.50"`).

        Raises:
            PolicyError: an unknown name, or a value that is not allowed; names what is.
            TuningRefused: the texts are in error.
        """
        self.tuning.set({name: value})

    def edit(self, file: str, text: str) -> None:
        """Put another text into a policy file. A text in error is kept, told by `problems`, and decides nothing.

        Raises:
            TuningRefused: there is no such policy file; names those there are.
        """
        self.tuning.edit(file, text)

    def back(self, number: int) -> None:
        """Take the texts of a version that was tried, by its `number` in `tried`; 0 is the first."""
        self.tuning.back(number)

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write the newest version into a new folder, whole or not at all.

        Args:
            folder: must not exist; those above it are made.

        Returns:
            The folder, absolute. It loads as the version `bundle.version`.

        Raises:
            TuningRefused: the folder exists or cannot be written, or the texts are in error.
        """
        draft = self.tuning.draft
        if draft.bundle is None:
            raise TuningRefused(f"the text is in error and would not load: {draft.problems[0]}")
        saved = save_bundle(draft.bundle, folder)
        self._names[draft.bundle.version] = saved.name
        self._say(f"Saved version {draft.bundle.version[:12]} in {visible(str(saved))}", "good")
        return saved

    def complete(self) -> None:
        """Have Cedar decide what columns left of the newest answer (`answer.left`), however long it takes."""
        self.tuning.complete()

    def compare(self, *, on_rows: Callable[[int], object] | None = None) -> Diff:
        """Replay the history as recorded and with the newest version, and compare them.

        Args:
            on_rows: told how many decisions were replayed, now and then; None: a progress bar.

        Cost: two replays; the first is kept for the next comparison.
        """
        from workbench.compare import compare  # noqa: PLC0415 - statistics take half a second to load

        bundle = self._named(self.tuning.now.bundle)
        if self._recorded is None:
            self._recorded = self._lake.replay(on_rows=on_rows)
        now = self._lake.replay(bundle, **self._axes, on_rows=on_rows)
        return compare(self._recorded, now, stakes=self._stakes)

    def close(self) -> None:
        """Stop the work, give the memory back and take the tuner out of the notebook. What it saved stays."""
        if "_parts" not in self.__dict__:  # making it failed half-way, and Python takes it away
            return
        self._worker.close()
        self.tuning.close()
        self._recorded = self._shown = None
        for part in (*self._parts, *self._tables.values(), self.detail, self._compared):
            if part is not None:
                part.layout.close()
                part.close()
        self.layout.close()
        super().close()

    def __repr__(self) -> str:
        if self.tuning.is_closed:
            return f"{self.view.label}; closed"
        now = self.tuning.now
        tries = count(len(self.tuning.tried.all), "version")
        return f"{self.view.label}; {tries} tried, now {now.bundle.version[:12]}; {status_of(now)['text']}"

    def _refresh(self) -> None:
        """Show the session as it is now; on the thread that changed it."""
        with self.view.lock:
            if self.tuning.is_closed:
                return
            self.view.refresh()
            now = self.tuning.now
            for table in self._tables.values():
                table.is_stale = now.is_stale
            if now.change is not self._shown:
                self._shown = now.change
                self._list(now.change)
                if not now.is_stale:
                    self._explain()

    def _list(self, change: Change) -> None:
        for side, table in self._tables.items():
            with table.hold_sync():
                table.label = label_of(TITLES[side], _listed(change, side))
                table.rows = rows_of(_listed(change, side).rows)

    def _on_selected(self, side: str, change: Any) -> None:
        if change.new is None:
            return
        for other, table in self._tables.items():
            if other != side:
                table.selected = None
        self._decision = change.new
        self._explain()

    def _explain(self) -> None:
        """Show the chosen decision, as it was recorded and as the newest version decides it."""
        if self._decision is None:
            return
        with self.detail.lock:
            self.detail.label = f"decision {visible(self._decision)}, recorded and now"
            self.detail.is_stale, self.detail.problem = True, ""
        make = partial(explained, self._lake, self._decision, self._named(self.bundle), self._axes)
        self.detail.worker.submit(lambda _: make(), self.detail.show)

    def _named(self, bundle: Bundle) -> Bundle:
        """The bundle under the name it has on disk; what was not saved is told apart."""
        return replace(bundle, name=self._names.get(bundle.version, f"{self._name}, edited"))

    def _begin_comparing(self) -> None:
        bundle = self.bundle
        self._say("Comparing: replaying the history as recorded, and with these texts…", is_comparing=True)
        self._worker.submit(lambda _: self.compare(on_rows=_nobody), partial(self._show_comparison, bundle))

    def _show_comparison(self, bundle: Bundle, diff: Diff) -> None:
        from workbench.comparing.view import compare_view  # noqa: PLC0415 - as in `compare`

        before, self._compared = self._compared, compare_view(diff)
        self.children = [*self._parts, self._compared]
        if before is not None:
            before.close()
        self._say(
            f"Compared version {bundle.version[:12]} with what was recorded: below",
            "good",
            is_comparing=False,
        )

    def _say(self, text: str, tone: Any = "none", *, is_comparing: bool | None = None) -> None:
        self.view.say(text, tone, is_comparing=is_comparing)

    def _save_named(self, name: str) -> Path:
        """Save beside the bundle that is tuned, under a name given in the view."""
        try:
            return self.save(named_beside(self._folder, name))
        except TuningRefused as exc:
            self._say(str(exc), "bad")
            raise


def _label(bundle: Bundle, baseline: Answer) -> str:
    with_what = "what was recorded" if baseline.bundle is None else "the version given"
    decisions = count(baseline.decisions, "decision")
    return f"Tuning {visible(shorten(bundle.name, MAX_NAME))}: {decisions}, compared with {with_what}"


def _listed(change: Change, side: str) -> Listed:
    return change.blocked_good if side == "blocked" else change.released_harm


def _nobody(_: int) -> None:
    """Tell nobody: the view says what is under way."""


def explained(lake: Lake, decision_id: str, bundle: Bundle, axes: Mapping[str, Any]) -> str:
    """Return one decision in full as HTML, as it was recorded and as a bundle decides it, over `axes`."""
    record = read(lake, decision_id)
    base = decided(lake, record.frame, Asked())
    now = decided(lake, record.frame, asked_of(lake, bundle, **axes))
    return cell(Decision(record=record, base=base, cand=now, evidence=checks(record, base), notes=()).page())


def tune(
    lake: Lake,
    policy: Given | None = None,
    *,
    context: Given = "recorded",
    sources: Mapping[str, Any] | None = None,
    stakes: StakesGiven = None,
    on_rows: Callable[[int], object] | None = None,
) -> Tuner:
    """Tune policies live: every edit re-decides the history at once.

    Args:
        lake: the pinned lake, narrowed or not (`lake.where`).
        policy: what is edited, and the baseline it is compared with: a bundle, its folder, or a version the lake
            holds. None: the version recorded last is edited, and compared with what was recorded.
        context: whose spec to compile the facts again by, once for all edits, as `lake.replay` takes it: for policies
            that read what was not recorded.
        sources: locations of its sources by name.
        stakes: what is harm and good work, see `wb.Stakes`; None: label `origin` says it.
        on_rows: told how many decisions were prepared, now and then; None: a progress bar, where somebody may look.

    Returns:
        The tuner: a widget in a notebook, and the same by Python.

    Raises:
        BundleError, BundleNotFound: the policy cannot be used.
        LakeEmpty: there is nothing to decide.
        ViewNotBuilt: the browser modules are missing.

    Cost: reads the history once and keeps what policies can read of it in memory; see `workbench.live`.
    """
    bundle = _newest(lake) if policy is None else bundle_of(lake, policy)
    axes: dict[str, Any] = {"context": context, "sources": sources}
    live = prepare(lake, None if policy is None else bundle, **axes, stakes=stakes, on_rows=on_rows)
    return Tuner(lake, live, bundle, _folder_of(policy), stakes, axes)


def _newest(lake: Lake) -> Bundle:
    """The version that decided last."""
    rows = lake.decisions.filter(pl.col("kind") != "shadow").select("decided_at", "bundle_version")
    found = rows.top_k(1, by="decided_at").collect()
    if not found.height:
        raise LakeEmpty("no decision is left to tune with; narrow the lake less")
    return lake.bundle(found["bundle_version"][0])


def _folder_of(policy: Given | None) -> Path:
    """Where the view saves: beside the bundle's folder; without one, where Python runs."""
    if policy is None or isinstance(policy, Bundle) or not Path(policy).is_dir():
        return Path.cwd()
    return Path(policy).resolve().parent
