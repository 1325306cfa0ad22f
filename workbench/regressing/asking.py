"""What a night has to judge: each candidate against its baseline, as versions that are known now, and its series.

One rule: a candidate that cannot be judged is a result that says so, and the others go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runtime.canonical import content_hash
from runtime.errors import GovernanceError
from workbench.errors import WorkbenchError
from workbench.regressing.result import Candidate
from workbench.regressing.state import series_key
from workbench.texts import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.bundle import Bundle
    from runtime.canonical import Json
    from workbench.lake import Lake
    from workbench.regressing.job import Job, Which
    from workbench.replay import Replay

DRIFT = "drift"
"""What the series of a job that looks for drift is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One candidate against one baseline: what a series of nights asks."""

    key: str
    """Of the series."""
    which: Which
    bundle: Bundle
    baseline: Which
    base: Bundle | None
    """None: as recorded."""
    context: Bundle | str
    limits: Bundle | None
    sources: dict[str, str]

    @property
    def about(self) -> dict[str, Json]:
        """What is kept of it, for people."""
        return {
            "kind": "candidate", "name": self.which.text, "bundle": self.bundle.name, "version": self.bundle.version,
            "baseline": self.baseline.text, "baseline_version": None if self.base is None else self.base.version,
        }  # fmt: skip

    @property
    def is_baseline(self) -> bool:
        """Whether the candidate is the very version that it is held beside."""
        return self.base is not None and self.base.version == self.bundle.version

    def candidate_of(self, lake: Lake) -> Replay:
        """Decide a window as the candidate would."""
        return lake.replay(**self._candidate)

    def both_of(self, lake: Lake) -> tuple[Replay, Replay]:
        """Decide a window as the baseline does and as the candidate would, over one scan."""
        base, cand = lake.replay_all([{"policy": self.base, "recompile": False}, self._candidate])
        return base, cand

    @property
    def _candidate(self) -> dict[str, Any]:
        """The candidate, as `lake.replay` takes it."""
        more: dict[str, Any] = {} if not self.sources else {"sources": self.sources}
        recompile = None if self.context != "recorded" else False
        axes = {"policy": self.bundle, "context": self.context, "limits": self.limits}
        return {**axes, "recompile": recompile, **more}

    def result(self, **said: Any) -> Candidate:
        """Return what is said of it."""
        return Candidate(
            name=self.which.text, bundle=self.bundle.name, version=self.bundle.version,
            baseline=self.baseline.text, baseline_version=None if self.base is None else self.base.version, **said,
        )  # fmt: skip


def questions(job: Job, lake: Lake) -> Iterator[Question | Candidate]:
    """Yield what each declared candidate asks; where it cannot be asked, the result that says why."""
    asked: dict[str, str] = {}
    for which in job.candidates:
        try:
            found = _question(job, lake, which)
        except (WorkbenchError, GovernanceError) as exc:
            yield _could_not(job, which, visible(str(exc)))
            continue
        other = asked.setdefault(found.key, which.text)
        if found.is_baseline or other != which.text:
            same = "the baseline" if found.is_baseline else f"`{visible(other)}`"
            yield found.result(verdict="could not run", night=0, window=None, notes=(_same(found, same),))
        else:
            yield found


def _same(found: Question, other: str) -> str:
    version = found.bundle.version[:12]
    return (
        f"it is {other}, version {version}: there is nothing to compare; propose another candidate, or leave "
        "`candidates` out to watch for drift"
    )


def _could_not(job: Job, which: Which, why: str) -> Candidate:
    return Candidate(
        name=which.text, bundle=which.text, version=None, baseline=job.baseline.text, baseline_version=None,
        verdict="could not run", night=0, window=None, notes=(why,),
    )  # fmt: skip


def _question(job: Job, lake: Lake, which: Which) -> Question:
    bundle = which.bundle(lake)
    if bundle is None:
        raise WorkbenchError(f"`{visible(which.text)}` names no bundle; give a folder, a version or an alias")
    base = job.baseline.bundle(lake)
    context, limits = _context(job, lake, bundle), _of(job.limits, lake, bundle)
    named: dict[str, Json] = {
        "candidate": bundle.version,
        "baseline": None if base is None else base.version,
        "context": context if isinstance(context, str) else context.context_spec_hash,
        "limits": None if limits is None else limits.limits_hash,
        "sources": dict(job.sources),
    }
    if job.context.kind == "spec":
        named["context"] = content_hash((job.context.path or job.path).read_text(encoding="utf-8"))
    return Question(
        key=series_key({**job.asks(), **named}), which=which, bundle=bundle, baseline=job.baseline, base=base,
        context=context, limits=limits, sources=dict(job.sources),
    )  # fmt: skip


def _of(which: Which, lake: Lake, candidate: Bundle) -> Bundle | None:
    return candidate if which.kind == "candidate" else which.bundle(lake)


def _context(job: Job, lake: Lake, candidate: Bundle) -> Bundle | str:
    if job.context.kind == "spec":
        return str(job.context.path)
    found = _of(job.context, lake, candidate)
    return "recorded" if found is None else found


def drift_key(job: Job) -> str:
    """Return the series of a job that looks for drift: whatever policies the log was decided under."""
    return series_key({**job.asks(), "about": DRIFT})
