"""One night of a regression job, from beginning to end.

```
plan    which decisions are new, for each candidate       -> on disk before anything is looked at
judge   replay, compare, gates over all nights, scores    -> each result on disk as it is found
log     MLflow, through an outbox on disk
tell    notifications, then files
done    from now on these windows were looked at
```

One rule: a night that was planned is finished before another is planned, by the same windows. So it may be stopped
between any two steps (`STEPS`), and what the next run does is what this one would have done: no window is skipped,
none is counted, logged or told twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from runtime.canonical import content_hash
from runtime.errors import GovernanceError
from workbench.errors import WorkbenchError
from workbench.lake import open_lake
from workbench.regressing import asking, delivering, nights, windows
from workbench.regressing.drift_night import judge_window
from workbench.regressing.judging import begins, judge, judged_before
from workbench.regressing.result import Candidate, Drifted, Night
from workbench.regressing.state import State
from workbench.regressing.stored import from_json, to_json
from workbench.texts import visible
from workbench.tracking import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runtime.canonical import Json
    from workbench.lake import Lake
    from workbench.regressing.asking import Question
    from workbench.regressing.job import Job
    from workbench.regressing.state import Asked, Begun
    from workbench.regressing.windows import Plan
    from workbench.replay import Replay

STEPS = ("planned", "replayed", "filed", "judged", "entered", "logged", "notified", "written", "told", "done")
"""Where a night may be stopped, in order: what is called with each of them is called when it is reached."""


def _nothing(_step: str) -> None:
    """Do nothing at a step."""


def regress(
    job: Job,
    *,
    dry_run: bool = False,
    again: bool = False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    at: Callable[[str], object] = _nothing,
) -> Night:
    """Run a night of a job.

    A night that was stopped is finished first, over the windows it was planned with; what is new since is looked at
    then, as a night of its own.

    Args:
        job: as `workbench.regressing.job_file.read_job` read it.
        dry_run: plan the windows, and judge, keep and send nothing.
        again: judge the last night's windows once more.
        now: tells the time.
        at: called with each of `STEPS` as it is reached.

    Returns:
        What it came to; its `exit_code` is the command's. What kept the job from running is a night that says so,
        with verdict `could not run`, and is told to whoever asked to be notified.

    Durability: when it returns, the state is on disk, and what MLflow is to have is there or in the outbox.
    """
    started = now()
    run = _Run(
        job, now, at, Night(job=job.name, lake=shown(job.lake), started=started.isoformat(), seconds=0.0)
    )
    try:
        return run.timed(run.planned_only()) if dry_run else run.night(again=again)
    except (WorkbenchError, GovernanceError, OSError) as exc:
        return _could_not(job, replace(run.timed(run.frame), problems=(visible(str(exc)),)), dry_run=dry_run)


def _could_not(job: Job, night: Night, *, dry_run: bool) -> Night:
    """Tell that a night could not run, where that can be told."""
    if dry_run:
        return night
    try:
        return delivering.tell(job, night, job.output.folder / "could-not-run", _nothing)
    except (WorkbenchError, OSError) as exc:
        return replace(night, problems=(*night.problems, visible(str(exc))))


@dataclass
class _Run:
    """The night under way."""

    job: Job
    now: Callable[[], datetime]
    at: Callable[[str], object]
    frame: Night
    _bases: dict[tuple[Any, ...], Replay] = field(default_factory=dict)
    _begun: float = field(default_factory=monotonic)
    _failed: dict[str, Candidate] = field(default_factory=dict)
    """Candidates whose window could not be judged, by series."""
    _problems: list[str] = field(default_factory=list)

    def timed(self, night: Night) -> Night:
        """Return a night with the seconds that it took so far."""
        return replace(night, seconds=round(monotonic() - self._begun, 3))

    @cached_property
    def lake(self) -> Lake:
        """The lake, pinned at what it holds now; the whole run looks at this."""
        return open_lake(self.job.lake)

    @cached_property
    def asked(self) -> tuple[Question | Candidate, ...]:
        """What is asked, by the versions that folders and aliases stand for now; or why it cannot be."""
        return tuple(asking.questions(self.job, self.lake))

    @cached_property
    def questions(self) -> dict[str, Question]:
        """What can be asked, by series."""
        return {each.key: each for each in self.asked if not isinstance(each, Candidate)}

    @property
    def drift(self) -> str | None:
        """The series of this job's drift; None: it is not asked for."""
        wanted = self.job.drift is not None or not self.job.candidates
        return asking.drift_key(self.job) if wanted else None

    def planned_only(self) -> Night:
        """Return the windows, judged by nothing."""
        with State.open(self.job.state, read_only=True) as state:
            plans = self._plans(state)
            notes = nights.first(state.unfinished())
        found = [
            each if isinstance(each, Candidate) else each.result(
                verdict="inconclusive", night=plans[each.key].night, window=plans[each.key].window,
                reopened=nights.reopened(plans[each.key], {}), notes=notes,
            )
            for each in self.asked
        ]  # fmt: skip
        drift = None if self.drift is None else nights.drift_planned(plans[self.drift])
        return replace(self.frame, candidates=tuple(found), drift=drift)

    def night(self, *, again: bool) -> Night:
        """Finish what was begun, and look at what is new."""
        with State.open(self.job.state) as state:
            begun = self._again(state) if again else state.unfinished()
            if begun is not None and not begun.again:
                begun = self._still_asked(state, begun)
            if begun is not None and not begun.asked:  # every candidate was changed since it was planned
                state.finish(begun, self.timed(self.frame))
                begun = None
            if begun is None:
                plans = self._plans(state)
                return self._fresh(state, plans) or self._nothing_new(state, plans)
            night = self._finished(state, begun, resumed=not again)
            fresh = None if again else self._fresh(state, self._plans(state))
            return night if fresh is None else nights.worse(night, fresh)

    def _again(self, state: State) -> Begun | None:
        """Take the last night back, if the job still asks for all that it was of."""
        last = state.last()
        gone = [] if last is None else [each for each in last.asked if not self._is_asked(each)]
        if gone:
            names = ", ".join(visible(str(each.about.get("name"))) for each in gone)
            raise WorkbenchError(
                f"the last night was of {names} as it was then, which the job no longer asks for (another version, "
                "baseline or question); run without --again"
            )
        return state.again()

    def _is_asked(self, each: Asked) -> bool:
        return each.series in self.questions or each.series == asking.drift_key(self.job)

    def _still_asked(self, state: State, begun: Begun) -> Begun:
        """Forget planned windows of candidates that the job no longer asks for: the next run plans them again."""
        for each in begun.asked:
            if each.result is None and not self._is_asked(each):
                begun = state.drop(begun, each.series)
        return begun

    def _plans(self, state: State) -> dict[str, Plan]:
        """The window of each series."""
        now = self.now()
        keys = [*self.questions, *([] if self.drift is None else [self.drift])]
        return {key: self._plan(state, key, now) for key in keys}

    def _plan(self, state: State, series: str, now: datetime) -> Plan:
        return windows.plan(
            self.lake, state.looks(series), window=self.job.window, now=now, chosen=self.job.filter
        )

    def _fresh(self, state: State, plans: Mapping[str, Plan]) -> Night | None:
        """Run a night as planned; None: nothing is new for anybody."""
        news = {key: plan for key, plan in plans.items() if nights.is_news(plan, drift=key == self.drift)}
        if not news:
            return None
        about = {key: each.about for key, each in self.questions.items()}
        planned = {key: (plan, about.get(key, {"kind": asking.DRIFT})) for key, plan in news.items()}
        return self._finished(
            state, state.begin(self.job.name, self.now().isoformat(), planned), resumed=False
        )

    def _nothing_new(self, state: State, plans: Mapping[str, Plan]) -> Night:
        """Say again what earlier nights say, by the gates as they are now."""
        found = self._all(state, {}, plans)
        drifted = None if self.drift is None else nights.drift_before(state, self.drift, plans[self.drift])
        _, problems = delivering.flush(self.job)  # of earlier nights
        night = replace(self.frame, candidates=found, drift=drifted, problems=tuple(problems))
        return delivering.tell(self.job, self.timed(night), self.job.output.folder / "nothing-new", self.at)

    # From planned to done.

    def _finished(self, state: State, begun: Begun, *, resumed: bool) -> Night:
        self._failed.clear()  # of the night before, where a stopped one was finished first
        self._problems.clear()
        self.at("planned")
        if begun.phase == "planned":
            begun = self._judged(state, begun)
        if begun.phase == "judged":
            begun = self._logged(state, begun)
        if begun.phase == "logged":
            night = self._told(state, begun, resumed=resumed)
            begun = state.reached(begun, "told", night=to_json(night))
        night = from_json(str(begun.notes["night"]), Night)
        self.at("told")
        state.finish(begun, night)
        self.at("done")
        return night

    def _judged(self, state: State, begun: Begun) -> Begun:
        """Judge every window that has no result yet; one that cannot be judged is planned again by the next run."""
        for each in [each for each in begun.asked if each.result is None]:
            try:
                begun = self._window(state, begun, each)
            except (WorkbenchError, GovernanceError) as exc:
                self._not_judged(each, visible(str(exc)))
                begun = state.drop(begun, each.series)
            self.at("judged")
        self._bases.clear()
        return (
            begun if begun.phase == "judged" else state.reached(begun, "judged")
        )  # the rest was judged before

    def _not_judged(self, each: Asked, why: str) -> None:
        question = self.questions.get(each.series)
        if question is None:
            self._problems.append(f"drift could not be judged: {why}")
        else:
            self._failed[each.series] = question.result(
                verdict="could not run", night=0, window=each.look.range, notes=(why,)
            )

    def _window(self, state: State, begun: Begun, each: Asked) -> Begun:
        seen, question = state.looks(each.series), self.questions.get(each.series)
        plan = windows.planned_again(self.lake, seen, each.look, chosen=self.job.filter)
        place, entry = self._place(begun, each), self._entry(begun, each)
        if question is None:
            drifted = judge_window(self.job, self.lake, plan, each.look, place, entry=entry)
            self.at("filed")
            return state.judged(begun, each.series, drifted)
        if plan.begins:
            return state.judged(begun, each.series, begins(question, plan, each.look))
        earlier, replayed = state.sums(each.series), partial(self._replayed, question, plan)
        found = judge(self.job, self.lake, question, plan, each.look, earlier, replayed, place, entry=entry)
        self.at("filed")
        return state.judged(begun, each.series, found.candidate, found.sums)

    def _logged(self, state: State, begun: Begun) -> Begun:
        """Put what was judged into the outbox, and send what is there."""
        filed = [each for each in begun.asked if each.result is not None and each.result.files is not None]
        lost = delivering.put(self.job, [(each.look.night, self._place(begun, each)) for each in filed])
        self.at("entered")
        runs, problems = delivering.flush(self.job)
        told: list[Json] = [*self._problems, *lost, *problems]
        begun = state.reached(begun, "logged", runs=nights.kept(runs), problems=told)
        self.at("logged")
        return begun

    def _replayed(self, question: Question, plan: Plan, lake: Lake) -> tuple[Replay, Replay]:
        """The window as the baseline decides it, once for all candidates that look at it, and as this one does."""
        window = plan.window
        version = None if question.base is None else question.base.version
        key = (tuple(sorted(window.after.items())), tuple(sorted(window.to.items())), plan.stretch, version)
        if (known := self._bases.get(key)) is not None:
            found = known, question.candidate_of(known.lake)  # what that lake kept is prepared
        else:
            self._bases.clear()  # a replay of a million decisions takes a gigabyte
            found = question.both_of(lake)
            self._bases[key] = found[0]
        self.at("replayed")
        return found

    def _place(self, begun: Begun, each: Asked) -> Path:
        """The folder of one window's artifacts."""
        return self._folder(begun) / each.series[:12]

    def _folder(self, begun: Begun) -> Path:
        return self.job.output.folder / f"night-{begun.run:05}"

    def _entry(self, begun: Begun, each: Asked) -> str:
        """Name what MLflow is to have of a window, for good: of this run of this job, whoever else looked at it."""
        own = content_hash([self.job.name, shown(self.job.lake), begun.run, begun.started, begun.again])
        return f"{each.series[:16]}-{each.look.night:05}-{each.look.range.watermark}-{own[:12]}"

    def _told(self, state: State, begun: Begun, *, resumed: bool) -> Night:
        notes: Mapping[str, Any] = begun.notes
        runs = {name: (run, url) for name, (run, url) in notes.get("runs", {}).items()}
        found = [
            delivering.with_run(each.result, runs.get(self._entry(begun, each)))
            for each in begun.asked
            if each.result is not None
        ]
        judged = {(each.name, each.version): each for each in found if isinstance(each, Candidate)}
        night = replace(
            self.frame,
            started=begun.started,
            candidates=self._all(state, judged, {}),
            drift=next((each for each in found if isinstance(each, Drifted)), None),
            problems=tuple(notes.get("problems", ())),
            resumed=resumed,
        )
        return delivering.tell(
            self.job,
            self.timed(night),
            self._folder(begun),
            self.at,
            notebook=True,
            earlier=list(state.nights()),
        )

    def _all(
        self,
        state: State,
        judged: dict[tuple[str, str | None], Candidate],
        plans: Mapping[str, Plan],
    ) -> tuple[Candidate, ...]:
        """Every candidate of the job in its order: judged now, earlier, or not at all.

        Args:
            state: what earlier nights found.
            judged: now, by name and version; those that the job no longer asks for come last.
            plans: windows that are planned already.
        """
        found = []
        for each in self.asked:
            if isinstance(each, Candidate):
                found.append(each)
                continue
            now = self._failed.get(each.key) or judged.pop((each.which.text, each.bundle.version), None)
            if now is None:
                plan = plans.get(each.key) or self._plan(state, each.key, self.now())
                now = judged_before(self.job, each, plan, state.sums(each.key))
            found.append(now)
        return (*found, *judged.values())
