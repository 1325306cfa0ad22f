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

    def planned_only(self) -> Night:
        """Return the windows, judged by nothing."""
        lake = open_lake(self.job.lake)
        with State.open(self.job.state, read_only=True) as state:
            asked, results, plans = self._plans(state, lake)
            numbers = {key: len(state.looks(key)) + 1 for key in plans}
            open_ = state.unfinished()
        found = [
            each if isinstance(each, Candidate) else each.result(
                verdict="inconclusive", night=numbers[each.key], window=plans[each.key].window,
                reopened=nights.touched(plans[each.key]), notes=nights.first(open_),
            )
            for each in results
        ]  # fmt: skip
        if asked is not None:
            plan = plans[asked]
            before = plan.seen[-1].range if plan.seen else plan.window
            drift = Drifted(
                verdict="inconclusive", night=numbers[asked], before=before, after=plan.window, gates=(), rows=(),
                uncovered=(), numbers={}, headline=(),
            )  # fmt: skip
            return replace(self.frame, candidates=tuple(found), drift=drift)
        return replace(self.frame, candidates=tuple(found))

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
                return self._fresh(state) or self._nothing_new(state)
            night = self._finished(state, begun, resumed=not again)
            fresh = None if again else self._fresh(state)
            return night if fresh is None else nights.worse(night, fresh)

    def _keys(self) -> set[str]:
        asked = self._asked(open_lake(self.job.lake))
        return {each.key for each in asked if not isinstance(each, Candidate)} | {asking.drift_key(self.job)}

    def _again(self, state: State) -> Begun | None:
        """Take the last night back, if the job still asks for all that it was of."""
        last, wanted = state.last(), self._keys()
        gone = [] if last is None else [each for each in last.asked if each.series not in wanted]
        if gone:
            names = ", ".join(visible(str(each.about.get("name"))) for each in gone)
            raise WorkbenchError(
                f"the last night was of {names} as it was then, which the job no longer asks for (another version, "
                "baseline or question); run without --again"
            )
        return state.again()

    def _still_asked(self, state: State, begun: Begun) -> Begun:
        """Forget planned windows of candidates that the job no longer asks for: the next run plans them again."""
        wanted = self._keys()
        for each in begun.asked:
            if each.series not in wanted and each.result is None:
                begun = state.drop(begun, each.series)
        return begun

    def _asked(self, lake: Lake) -> list[Question | Candidate]:
        return list(asking.questions(self.job, lake))

    def _plans(
        self, state: State, lake: Lake
    ) -> tuple[str | None, list[Question | Candidate], dict[str, Plan]]:
        """What is asked, and the window of each series; the key of the drift series, if there is one."""
        results = self._asked(lake)
        keys = [each.key for each in results if not isinstance(each, Candidate)]
        drift = asking.drift_key(self.job) if self.job.drift is not None or not self.job.candidates else None
        keys += [] if drift is None else [drift]
        now = self.now()
        plans = {
            key: windows.plan(lake, state.looks(key), window=self.job.window, now=now, chosen=self.job.filter)
            for key in keys
        }
        return drift, results, plans

    def _fresh(self, state: State) -> Night | None:
        """Plan and run a night; None: nothing is new for anybody."""
        lake = open_lake(self.job.lake)
        drift, results, plans = self._plans(state, lake)
        news = {key: plan for key, plan in plans.items() if nights.is_news(plan, drift=key == drift)}
        if not news:
            return None
        about: dict[str, Mapping[str, Any]] = {
            each.key: each.about for each in results if not isinstance(each, Candidate)
        }
        if drift is not None:
            about[drift] = {"kind": asking.DRIFT}
        begun = state.begin(
            self.job.name, self.now().isoformat(), {key: (plan, about[key]) for key, plan in news.items()}
        )
        return self._finished(state, begun, resumed=False, asked=results)

    def _nothing_new(self, state: State) -> Night:
        """Say again what earlier nights say, by the gates as they are now."""
        lake = open_lake(self.job.lake)
        drift, results, plans = self._plans(state, lake)
        found = [
            each if isinstance(each, Candidate) else self._before(state, each, plans[each.key])
            for each in results
        ]
        drifted = None if drift is None else nights.drift_before(state, drift, plans[drift])
        _, problems = delivering.flush(self.job)  # of earlier nights
        night = replace(self.frame, candidates=tuple(found), drift=drifted, problems=tuple(problems))
        return delivering.tell(self.job, self.timed(night), self.job.output.folder / "nothing-new", self.at)

    def _before(self, state: State, asked: Question, plan: Plan) -> Candidate:
        seen = state.looks(asked.key)
        return judged_before(self.job, asked, seen[-1] if seen else None, state.sums(asked.key), plan)

    # From planned to done.

    def _finished(
        self, state: State, begun: Begun, *, resumed: bool, asked: list[Question | Candidate] | None = None
    ) -> Night:
        self.at("planned")
        lake = open_lake(self.job.lake)
        asked = self._asked(lake) if asked is None else asked
        if begun.phase == "planned":
            begun = self._judged(
                state, begun, lake, [each for each in asked if not isinstance(each, Candidate)]
            )
        if begun.phase == "judged":
            filed = [
                each for each in begun.asked if each.result is not None and each.result.files is not None
            ]
            lost = delivering.put(self.job, [(each.look.night, self._place(begun, each)) for each in filed])
            self.at("entered")
            runs, problems = delivering.flush(self.job)
            begun = state.reached(
                begun, "logged", runs=nights.kept(runs), problems=[*self._problems, *lost, *problems]
            )
            self.at("logged")
        if begun.phase == "logged":
            night = self._told(state, begun, asked, resumed=resumed)
            begun = state.reached(begun, "told", night=to_json(night))
        night = from_json(str(begun.notes["night"]), Night)
        self.at("told")
        state.finish(begun, night)
        self.at("done")
        return night

    def _judged(self, state: State, begun: Begun, lake: Lake, asked: list[Question]) -> Begun:
        """Judge every window that has no result yet; one that cannot be judged is planned again by the next run."""
        questions = {each.key: each for each in asked}
        for each in begun.asked:
            if each.result is not None:
                continue
            question = questions.get(each.series)
            try:
                begun = self._window(state, begun, lake, each, question)
            except (WorkbenchError, GovernanceError) as exc:
                why = visible(str(exc))
                if question is None:
                    self._problems.append(
                        f"{visible(str(each.about.get('name') or 'drift'))} could not be judged: {why}"
                    )
                else:
                    said = question.result(
                        verdict="could not run", night=0, window=each.look.range, notes=(why,)
                    )
                    self._failed[question.key] = said
                begun = state.drop(begun, each.series)
            self.at("judged")
        self._bases.clear()
        return (
            begun if begun.phase != "planned" else state.reached(begun, "judged")
        )  # the rest was judged before

    def _window(
        self, state: State, begun: Begun, lake: Lake, each: Asked, question: Question | None
    ) -> Begun:
        plan = windows.planned_again(lake, state.looks(each.series), each.look, chosen=self.job.filter)
        folder, entry = self._place(begun, each), self._entry(begun, each)
        if question is not None:
            return self._candidate(state, begun, lake, each, question, plan, folder)
        if each.series != asking.drift_key(self.job):
            raise WorkbenchError("the candidate changed while the night was planned; run again")
        result = judge_window(self.job, lake, plan, each.look, folder, entry=entry)
        self.at("filed")
        return state.judged(begun, each.series, result)

    def _candidate(
        self,
        state: State,
        begun: Begun,
        lake: Lake,
        each: Asked,
        question: Question,
        plan: Plan,
        folder: Path,
    ) -> Begun:
        if plan.begins:
            return state.judged(begun, each.series, begins(question, plan, each.look))
        base = self._base(question, plan, lake)
        self.at("replayed")
        earlier = state.sums(each.series)
        found = judge(
            self.job, lake, question, plan, each.look, earlier, base, folder, entry=self._entry(begun, each)
        )
        self.at("filed")
        return state.judged(begun, each.series, found.candidate, found.sums)

    def _base(self, question: Question, plan: Plan, lake: Lake) -> Replay:
        """The window, decided by the baseline: once for all candidates that look at the same decisions."""
        window = plan.window
        version = None if question.base is None else question.base.version
        key = (tuple(sorted(window.after.items())), tuple(sorted(window.to.items())), plan.stretch, version)
        if key not in self._bases:
            self._bases.clear()  # a replay of a million decisions takes a gigabyte
            self._bases[key] = question.baseline_of(plan.new(lake))
        return self._bases[key]

    def _place(self, begun: Begun, each: Asked) -> Path:
        """The folder of one window's artifacts."""
        return self._folder(begun) / each.series[:12]

    def _folder(self, begun: Begun) -> Path:
        return self.job.output.folder / f"night-{begun.run:05}"

    def _entry(self, begun: Begun, each: Asked) -> str:
        """Name what MLflow is to have of a window, for good: of this run of this job, whoever else looked at it."""
        own = content_hash([self.job.name, shown(self.job.lake), begun.run, begun.started, begun.again])
        return f"{each.series[:16]}-{each.look.night:05}-{each.look.range.watermark}-{own[:12]}"

    def _told(self, state: State, begun: Begun, asked: list[Question | Candidate], *, resumed: bool) -> Night:
        notes: Mapping[str, Any] = begun.notes
        runs = {name: (run, url) for name, (run, url) in notes.get("runs", {}).items()}
        results = [each.result for each in begun.asked if each.result is not None]
        entries = {place: self._entry(begun, each) for place, each in enumerate(begun.asked)}
        found = delivering.with_runs(results, entries, runs)
        judged = {(each.name, each.version): each for each in found if isinstance(each, Candidate)}
        lake = open_lake(self.job.lake)
        night = replace(
            self.frame,
            started=begun.started,
            candidates=tuple(self._all(state, lake, asked, judged)),
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
        self, state: State, lake: Lake, asked: list[Question | Candidate],
        judged: dict[tuple[str, str | None], Candidate],
    ) -> list[Candidate]:  # fmt: skip
        """Every candidate of the job in its order: judged now, earlier, or not at all."""
        found = []
        for each in asked:
            if isinstance(each, Candidate):
                found.append(each)
                continue
            if each.key in self._failed:
                found.append(self._failed[each.key])
                continue
            now = judged.pop((each.which.text, each.bundle.version), None)
            if now is None:
                seen = state.looks(each.key)
                plan = windows.plan(
                    lake, seen, window=self.job.window, now=self.now(), chosen=self.job.filter
                )
                now = self._before(state, each, plan)
            found.append(now)
        return [*found, *judged.values()]
