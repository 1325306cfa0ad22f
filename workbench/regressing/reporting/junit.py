"""A night as JUnit XML: a test case for each gate of each candidate, as CI systems show them.

One rule: it has a failure where the exit code is 1 and an error where it is 3. A gate that is open is skipped, which
most CI systems take for neither: where doubt is to stop a build, the exit code has to. Where the gates alone do not
show the verdict, a case `verdict` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.errors import need
from workbench.masking import leaving
from workbench.regressing.reporting.sections import capital, headline, span
from workbench.texts import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from workbench.regressing.result import Candidate, GateLook, Night, Verdict

_DECLARED = '<?xml version="1.0" encoding="utf-8"?>\n'
_MAX = 2_000
"""Characters of a text."""
_SHOWS: Mapping[str, Verdict] = {"failed": "don't ship", "open": "inconclusive", "met": "ship"}
"""The verdict that a gate's state stands for."""


def junit(night: Night) -> str:
    """Return a night as JUnit XML: a suite for each candidate and for drift.

    Raises:
        MissingExtra: `junitparser` is not installed.
    """
    parser = need("junitparser")
    found = parser.JUnitXml(_seen(night.job))
    for place, suite in enumerate(_suites(night)):
        suite.timestamp = night.started[:19]
        if night.problems and place == 0:
            suite.append(parser.SystemErr("\n".join(map(_seen, night.problems))))
        found.append(suite)  # `add_testsuite` merges two that look alike
    found.update_statistics()
    found.time = night.seconds
    text: str = found.tostring().decode("utf-8")
    return leaving(f"{_DECLARED}{text}\n")


def _suites(night: Night) -> Iterator[Any]:
    for each in night.candidates:
        yield _suite(night, each.name, each.verdict, each.gates, _words(each), _rests_on(each))
    if night.drift is not None:
        found = night.drift
        words = [f"Night {found.night}: {span(found.after)}.", *found.headline, *found.notes]
        yield _suite(night, "drift", found.verdict, found.gates, words, {})
    if not night.candidates and night.drift is None:
        yield _suite(night, night.job, "could not run", (), headline(night), {})


def _words(each: Candidate) -> list[str]:
    told = [] if each.window is None else [f"Night {each.night}: {span(each.window)}."]
    return [*told, *each.headline, *each.notes]


def _rests_on(each: Candidate) -> dict[str, str | None]:
    return {
        "bundle": each.bundle,
        "version": each.version,
        "baseline": each.baseline_version or each.baseline,
        "mlflow.run_id": each.run_id,
    }


def _suite(
    night: Night,
    name: str,
    verdict: Verdict,
    gates: Sequence[GateLook],
    words: Sequence[str],
    rests_on: Mapping[str, str | None],
) -> Any:
    parser = need("junitparser")
    suite = parser.TestSuite(_seen(name))
    for key, value in {"verdict": verdict, **rests_on}.items():
        if value is not None:
            suite.add_property(key, _seen(value))
    owner = f"{night.job}.{name}"
    shown = [(gate.text, _SHOWS[gate.state], gate.why) for gate in gates]
    if verdict not in {each for _, each, _ in shown}:
        shown.append(("verdict", verdict, " ".join(words) or capital(verdict)))
    suite.add_testcases([_case(owner, *each) for each in shown])
    suite.append(parser.SystemOut("\n".join(map(_seen, words))))
    return suite


def _case(owner: str, name: str, verdict: Verdict, why: str) -> Any:
    case = need("junitparser").TestCase(name=_seen(name), classname=_seen(owner), time=0.0)
    case.result = list(_results(verdict, _seen(why)))
    return case


def _results(verdict: Verdict, why: str) -> Iterator[Any]:
    parser = need("junitparser")
    kinds = {"don't ship": parser.Failure, "inconclusive": parser.Skipped, "could not run": parser.Error}
    if verdict in kinds:
        found = kinds[verdict](why, "regression" if verdict == "don't ship" else verdict)
        found.text = why
        yield found


def _seen(text: str) -> str:
    """A text that XML can hold: what does not show is an escape."""
    return visible(shorten(text, _MAX))
