"""Scoring as a regression job declares it: metrics, cases and judge in TOML.

```toml
[scoring]
metrics = [
  "verdict_correctness",
  { metric = "g_eval", name = "fits_task", criteria = "Does what ran fit what was asked for?", label = "review" },
]
cases = { flips = 500, control = 200, strata = ["tool", "to"] }    # or "changed", or "all"
judge = { url = "http://127.0.0.1:8000/v1", model = "judge-8b", api_key_env = "JUDGE_KEY" }
concurrency = 8
rate = 120                   # judge calls a minute
timeout = 60                 # seconds a case
retries = 2
keep = true                  # rows go to the lake's `scores`, and known ones come from there
```

One rule: everything is checked before anything is judged, and everything that is wrong is told at once.

What a judge says is shown beside what people said, wherever a label says it: `label` names it (else the metric's own
name does), `yes` and `no` its values. A judge's rate is never shown without how it was made.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench.errors import ScoringInvalid, WorkbenchError
from workbench.regressing.job_keys import Keys
from workbench.scoring.agreement import NO, YES, agreement
from workbench.scoring.debiasing import debiased
from workbench.scoring.sampling import STRATA, Sample, sample
from workbench.scoring.scored import Scored
from workbench.texts import count, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from workbench.compare import Diff
    from workbench.score import Scores
    from workbench.scoring.judges import Judge

__all__ = ["Asked", "Drawn", "Scored", "Scoring", "read_scoring"]

_OWN = ("metric", "label", "yes", "no")
"""Keys of a metric's table that are not its parameters."""
_JUDGE = ("url", "model", "api_key_env", "temperature", "seed", "timeout", "proxy", "options", "version")
MAX_CASES = 10**7


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One metric that is asked for."""

    metric: str
    """As `workbench.scoring.builtin` names it."""
    params: Mapping[str, Any] = field(default_factory=dict)
    label: str | None = None
    """The label in which people say the same; None: the metric's name, if it asks a judge."""
    yes: tuple[str, ...] = YES
    no: tuple[str, ...] = NO


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A sample that is asked for; see `workbench.scoring.sampling.sample`."""

    flips: Literal["all"] | int = "all"
    control: int = 200
    strata: tuple[str, ...] = STRATA
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """What a job scores, and how. Made by `read_scoring`, or of plain values."""

    metrics: tuple[Asked, ...]
    cases: Literal["all", "changed"] | Drawn = "changed"
    judge: Mapping[str, Any] | None = None
    """Arguments of `workbench.scoring.judges.judge`; None: no metric asks one."""
    concurrency: int = 8
    rate: float | None = None
    """Judge calls a minute."""
    timeout: float = 60.0
    """Seconds a case."""
    retries: int = 2
    keep: bool = False
    level: float = 0.95
    """Of intervals."""

    def run(self, diff: Diff, *, labels: pl.LazyFrame | None = None, actor: str | None = None) -> Scored:
        """Score a comparison, and say what its judges are worth.

        Args:
            diff: what is scored is its candidate.
            labels: the labels in force; None: those of the lake.
            actor: who scores, in kept rows.

        Returns:
            The scores, with agreement and the corrected rate of every metric that asks a judge or has a label.

        Raises:
            ScoringInvalid: something cannot be used so; before anything is judged.
            MissingExtra: DeepEval, or `openai` for a judge, is not installed.

        Cost: what the judge takes, 8 calls at once; without one, seconds for thousands of cases.
        """
        from workbench.score import score  # noqa: PLC0415 - takes part in no job without scoring

        with ExitStack() as stack:
            llm = self._llm()
            if llm is not None:
                stack.callback(llm.close)
            metrics = self._named(llm)
            drawn = self._drawn(diff)
            scores = score(
                diff,
                [metric for _, metric in metrics.values()],
                labels=labels,
                cases=self.cases if isinstance(self.cases, str) else drawn,  # type: ignore[arg-type]  # one of the two
                concurrency=self.concurrency,
                retries=self.retries,
                rate=self.rate,
                timeout=self.timeout,
                keep=self.keep,
                actor=actor,
            )
        return self._told(scores, drawn, metrics, llm, diff.labels if labels is None else labels)

    def _llm(self) -> Judge | None:
        from workbench.scoring.judges import judge  # noqa: PLC0415 - loads DeepEval

        # `wb.score` tries again: it knows when to, and its clock stands while it waits.
        return None if self.judge is None else judge(**{"timeout": self.timeout, **self.judge, "retries": 0})

    def _named(self, llm: Judge | None) -> dict[str, tuple[Asked, Any]]:
        """The metrics, by the names that scores have them under."""
        from workbench.scoring import measure  # noqa: PLC0415 - loads DeepEval
        from workbench.scoring.builtin import metric_named  # noqa: PLC0415 - as above

        built = [metric_named(each.metric, each.params, llm) for each in self.metrics]
        named = measure.named(built)
        return {name: (each, named[name]) for name, each in zip(named, self.metrics, strict=True)}

    def _drawn(self, diff: Diff) -> Sample | None:
        if isinstance(self.cases, str):
            return None
        asked = self.cases
        return sample(diff, flips=asked.flips, control=asked.control, strata=asked.strata, seed=asked.seed)

    def _told(
        self,
        scores: Scores,
        drawn: Sample | None,
        metrics: Mapping[str, tuple[Asked, Any]],
        llm: Judge | None,
        labels: pl.LazyFrame,
    ) -> Scored:
        from workbench.scoring.builtin import needs_judge  # noqa: PLC0415 - loads DeepEval

        compared, rated, notes = {}, {}, [*_failed(scores), *_answered(llm)]
        there = set(scores.table["metric"].unique())
        for name, (asked, _) in metrics.items():
            if name in there and (asked.label is not None or needs_judge(asked.metric, asked.params)):
                said: dict[str, Any] = {
                    "label": asked.label,
                    "yes": asked.yes,
                    "no": asked.no,
                    "level": self.level,
                }
                compared[name] = agreement(scores, name, labels, **said)
                rated[name] = debiased(scores, name, labels, **said)
                notes += [
                    f"{name}: {note}" for note in dict.fromkeys((*rated[name].notes, *compared[name].notes))
                ]
        if drawn is not None and drawn.undecided:
            notes.append(
                f"{count(drawn.undecided, 'decision')} could not be decided again, and were not judged"
            )
        return Scored(
            scores=scores, agreement=compared, debiased=rated, sample=drawn, notes=tuple(map(visible, notes))
        )


def read_scoring(
    table: Mapping[str, Any], where: str = "[scoring]", *, folder: Path | None = None
) -> Scoring:
    """Read a TOML table.

    Args:
        table: its keys.
        where: what messages call it.
        folder: what the path of a `bundle` is relative to; None: the working directory.

    Raises:
        ScoringInvalid: a key or a value is none of ours, a metric or its parameter does not exist, or the judge
            cannot be asked (its key's variable is not set); all of it in one message, a line each, with the closest
            that is known.
        MissingExtra: DeepEval is not installed.

    Cost: loads DeepEval, 1 to 3 s the first time in a process. Nothing is sent.
    """
    keys = Keys(table, where)
    judge = _judge(keys)
    found = Scoring(
        metrics=_metrics(keys, folder or Path()),
        cases=_cases(keys),
        judge=judge,
        concurrency=keys.whole("concurrency", 8, least=1, most=256),
        rate=_above(keys, "rate", None),
        timeout=_above(keys, "timeout", 60.0) or 60.0,
        retries=keys.whole("retries", 2, least=0, most=20),
        keep=keys.flag("keep", default=False),
        level=_level(keys),
    )
    keys.done()
    _try(found, keys)
    if keys.problems:
        raise ScoringInvalid("\n".join(dict.fromkeys(keys.problems)))
    return found


def _metrics(keys: Keys, folder: Path) -> tuple[Asked, ...]:
    given = keys.get("metrics", [])
    if not isinstance(given, list) or not given:
        keys.wrong("metrics", 'is missing; give names and tables, as `metrics = ["verdict_correctness"]`')
        return ()
    read = [_metric(keys, at, each, folder) for at, each in enumerate(given, 1)]
    return tuple(each for each in read if each is not None)


def _metric(keys: Keys, at: int, given: object, folder: Path) -> Asked | None:
    if isinstance(given, str):
        return Asked(metric=given)
    if not isinstance(given, dict) or not isinstance(given.get("metric"), str):
        keys.wrong(
            "metrics",
            f'{at} is {shorten(visible(repr(given)), 80)}; give a name, or a table with `metric = "…"`',
        )
        return None
    inner = Keys(given, f"{keys.where} `metrics` {at}", keys.problems)
    yes, no = inner.texts("yes", YES, such_as='["ok"]'), inner.texts("no", NO, such_as='["wrong"]')
    for value in {each.lower() for each in yes} & {each.lower() for each in no}:
        inner.wrong("yes", f"and `no` both have `{visible(value)}`")
    params = {key: value for key, value in given.items() if key not in _OWN}
    if isinstance(params.get("bundle"), str):
        params["bundle"] = str(folder / params["bundle"])
    label = inner.text("label", such_as="review") or None
    return Asked(metric=given["metric"], params=params, label=label, yes=yes, no=no)


def _cases(keys: Keys) -> Literal["all", "changed"] | Drawn:
    given = keys.get("cases", "changed")
    if given in ("all", "changed"):
        return "all" if given == "all" else "changed"
    if not isinstance(given, dict):
        keys.wrong("cases", f'is {given!r}; it is "changed", "all", or a table with `flips` and `control`')
        return "changed"
    inner = Keys(given, f"{keys.where} `cases`", keys.problems)
    flips: Literal["all"] | int = "all"
    if inner.get("flips", "all") != "all":
        flips = inner.whole("flips", 0, least=0, most=MAX_CASES)
    found = Drawn(
        flips=flips,
        control=inner.whole("control", 200, least=0, most=MAX_CASES),
        strata=inner.texts("strata", STRATA, such_as='["tool", "to"]'),
        seed=inner.whole("seed", 0, least=0, most=2**31),
    )
    inner.done()
    return found


def _judge(keys: Keys) -> Mapping[str, Any] | None:
    if not keys.has("judge"):
        return None
    given = keys.get("judge")
    if not isinstance(given, dict):
        keys.wrong("judge", 'is no table; write `judge = { url = "http://127.0.0.1:8000/v1", model = "…" }`')
        return None
    inner = Keys(given, f"{keys.where} `judge`", keys.problems, set(_JUDGE))
    for key in ("url", "model"):
        inner.text(key, such_as="http://127.0.0.1:8000/v1" if key == "url" else "judge-8b")
        if key not in given:
            inner.wrong(key, "is missing")
    for key in ("api_key_env", "proxy", "version"):
        inner.text(key, such_as="JUDGE_KEY")
    if "api_key" in given:
        inner.asked.add("api_key")
        inner.wrong(
            "api_key",
            'does not belong in a file; name the variable that has it, as `api_key_env = "JUDGE_KEY"`',
        )
    _above(inner, "timeout", None)
    if not isinstance(given.get("options", {}), dict):
        inner.wrong("options", "is no table of members of the request, as `{ max_tokens = 500 }`")
    inner.done()
    return {key: value for key, value in given.items() if key in _JUDGE}


def _try(found: Scoring, keys: Keys) -> None:
    """Build the judge and every metric, and throw them away: what cannot be built is a problem now."""
    from workbench.scoring import measure  # noqa: PLC0415 - loads DeepEval
    from workbench.scoring.builtin import metric_named, needs_judge  # noqa: PLC0415 - as above
    from workbench.scoring.judges import NoJudge, judge  # noqa: PLC0415 - as above

    if found.judge is not None and not any(f"{keys.where} `judge`" in each for each in keys.problems):
        keys.read(lambda: judge(**found.judge or {}).close())
    built = []
    for each in found.metrics:
        llm = None if found.judge is None else NoJudge()
        built.append(keys.read(partial(metric_named, each.metric, each.params, llm)))
    whole = [each for each in built if each is not None]
    if len(whole) > 1:
        keys.read(lambda: _apart(measure.named, whole))
    unused = found.judge is not None and not any(
        needs_judge(each.metric, each.params) for each in found.metrics
    )
    if unused and not keys.problems:
        keys.wrong("judge", "is declared, and no metric asks one")


def _apart(named: Any, metrics: list[Any]) -> None:
    try:
        named(metrics)
    except ValueError as exc:
        if isinstance(exc, WorkbenchError):
            raise
        raise ScoringInvalid(str(exc)) from exc


def _above(keys: Keys, key: str, default: float | None) -> float | None:
    given = keys.get(key, default)
    if given is None:
        return None
    if isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given) and given > 0:
        return float(given)
    keys.wrong(key, f"is {given!r}; give a number above 0, as `{key} = 60`")
    return default


def _level(keys: Keys) -> float:
    given = keys.get("level", 0.95)
    if isinstance(given, float) and 0.5 < given < 1:  # noqa: PLR2004 - less is no certainty at all
        return given
    keys.wrong("level", f"is {given!r}; it lies between 0.5 and 1, as 0.95 for 95 %")
    return 0.95


def _failed(scores: Scores) -> list[str]:
    """Say how many cases could not be judged, with the most frequent error, for each metric."""
    found = []
    wrong = scores.table.filter(scores.table["status"] == "errored")
    for (metric,), rows in wrong.group_by(["metric"], maintain_order=True):
        first = rows["error"].mode().sort()[0]
        what = f"{metric}: {count(rows.height, 'case')} could not be judged, as: {shorten(str(first), 200)}"
        found.append(what)
    return found


def _answered(llm: Judge | None) -> list[str]:
    """Say which machines answered, where there were several."""
    if llm is None or len(llm.fingerprints) < 2:  # noqa: PLR2004 - one is as it should be
        return []
    each = ", ".join(f"`{name or 'none'}` {n:,} times" for name, n in sorted(llm.fingerprints.items()))
    return [f"several versions of {llm.get_model_name()} answered, by their fingerprints: {each}"]
