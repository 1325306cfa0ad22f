"""Nights by hand, and any night at all: what reporting is tested on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from workbench.regressing.result import Candidate, Drifted, GateLook, Night, Range, Reopened, Verdict

HOSTILE = (
    "<script>alert(1)</script>", "|x|y|", "`a`|``b", "\n\n# big\n", "---", "===", "- [x] task", "1. one", "+ x", "@ops",
    "ana@example.com", "#12", "GH-12", "https://evil.example/x", "www.evil.example", "[a](http://evil.example)",
    "![i](http://evil.example/i.png)", "<img src=x onerror=alert(1)>", "$x^2$", "$`x`$", "**b** _i_ ~~s~~", "\\", "a\\",
    "&copy; &#60;b&#62;", "]]>", "<!-- x", "--> y", "</details>", "\x00\x1b[2J\u202e\ufffe", "```\nx\n```", "    indented",
    "> quote", "'; DROP TABLE", "|---|", ":---:", "a|b\n--|--", "\ud800", "<a href='javascript:x'>", "x" * 300,
)  # fmt: skip
"""What a name or a value in a log may hold."""

texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(alphabet="`|\\<>&#@$*_~[]()!-+=:.0w/ \n\ta", max_size=40),
    st.text(max_size=40),
)
"""Strings that try to be something else."""

_numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
_counts = st.integers(0, 10**9)
_some = st.one_of(st.none(), _numbers)
_positions = st.dictionaries(texts, _counts, max_size=3)
_SHOWS: dict[str, Verdict] = {"failed": "don't ship", "open": "inconclusive", "met": "ship"}

ranges = st.builds(
    Range, after=_positions, to=_positions, decisions=_counts, sessions=_counts,
    first=st.one_of(st.none(), texts), last=st.one_of(st.none(), texts),
)  # fmt: skip
gates = st.builds(
    GateLook, text=texts, quantity=texts, state=st.sampled_from(["met", "failed", "open"]), low=_some, high=_some,
    lower=_some, upper=_some, level=_numbers, method=texts, sessions=_counts, why=texts,
)  # fmt: skip
_reopened = st.builds(
    Reopened, night=_counts, sessions=_counts, labels=_counts, outcomes=_counts, decisions=_counts,
    measures=st.dictionaries(texts, _numbers, max_size=2), watermark=_counts,
)  # fmt: skip
_rows = st.dictionaries(
    st.sampled_from(["tool", "from", "to", "worse", "determining", "clause", "decision_id", "name", "what"]),
    st.one_of(st.none(), texts, st.lists(texts, max_size=2), _counts),
)


def _tuples(of: st.SearchStrategy[Any], most: int = 2) -> st.SearchStrategy[Any]:
    return st.lists(of, max_size=most).map(tuple)


def _judged(found: Any) -> Any:
    """A result whose verdict is what its gates say; without gates it could not run."""
    states = [gate.state for gate in found.gates]
    state = next((each for each in ("failed", "open", "met") if each in states), None)
    return replace(found, verdict="could not run" if state is None else _SHOWS[state])


candidates = st.builds(
    Candidate, name=texts, bundle=texts, version=st.one_of(st.none(), texts), baseline=texts,
    baseline_version=st.one_of(st.none(), texts), verdict=st.just("ship"), night=_counts,
    window=st.one_of(st.none(), ranges), reopened=_tuples(_reopened), gates=_tuples(gates, 3),
    numbers=st.dictionaries(texts, _numbers, max_size=2), headline=_tuples(texts), changed=_counts, regressed=_counts,
    examples=_tuples(_rows), scores=st.dictionaries(texts, _numbers, max_size=2), notes=_tuples(texts),
    files=st.one_of(st.none(), texts), run_id=st.one_of(st.none(), texts), run_url=st.one_of(st.none(), texts),
).map(_judged)  # fmt: skip
drifts = st.builds(
    Drifted, verdict=st.just("ship"), night=_counts, before=ranges, after=ranges, gates=_tuples(gates),
    rows=_tuples(_rows), uncovered=_tuples(_rows), numbers=st.dictionaries(texts, _numbers, max_size=2),
    headline=_tuples(texts), notes=_tuples(texts), files=st.none(), run_id=st.none(), run_url=st.none(),
).map(_judged)  # fmt: skip
nights = st.builds(
    Night, job=texts, lake=st.sampled_from(["/lake", "s3://traces"]), started=st.just("2026-11-22T03:00:00+00:00"),
    seconds=st.floats(0, 1e6), candidates=_tuples(candidates), drift=st.one_of(st.none(), drifts),
    problems=_tuples(texts), resumed=st.booleans(), outputs=st.dictionaries(texts, texts, max_size=1),
)  # fmt: skip


def gate(state: str = "met", **changes: Any) -> GateLook:
    """Return a gate on a share."""
    at = {"met": (0.01, 0.001, 0.03), "failed": (0.2, 0.18, 0.25), "open": (0.04, 0.01, 0.09)}[state]
    given: dict[str, Any] = {
        "text": "harm_through_share <= 0.05", "quantity": "harm_through_share", "state": state, "low": at[0],
        "high": at[0], "lower": at[1], "upper": at[2], "level": 0.95, "method": "sequence", "sessions": 4321,
        "why": f"why it is {state}",
    }  # fmt: skip
    return GateLook(**given | changes)


def candidate(state: str | None = "met", **changes: Any) -> Candidate:
    """Return a candidate with one gate of that state; None: it could not run."""
    window = Range(
        after={"a": 10}, to={"a": 20_010}, decisions=20_000, sessions=4_321, first="2026-11-21T00:00:01+00:00",
        last="2026-11-22T00:00:00+00:00",
    )  # fmt: skip
    example = {
        "decision_id": "d-17", "session_id": "s-1", "tenant": "acme", "tool": "issue_refund", "from": "allow", "to": "approve",
        "effect": "held", "side": "honest", "determining": ["refund_limit"], "worse": "good work held up",
        "clause": "Held now by `refund_limit`: `context.args.amount_cents > 5000` is true",
    }  # fmt: skip
    given: dict[str, Any] = {
        "name": "policies/next", "bundle": "support", "version": "ab" * 32, "baseline": "champion",
        "baseline_version": "cd" * 32, "verdict": "could not run" if state is None else _SHOWS[state], "night": 3,
        "window": window, "gates": () if state is None else (gate(state),), "numbers": {"decisions": 20_000.0},
        "headline": ("Stops 3 of 4 attack calls that ran (75 %).",), "changed": 123, "regressed": 12,
        "examples": (example,),
    }  # fmt: skip
    return Candidate(**given | changes)


def night(*candidates_: Candidate, **changes: Any) -> Night:
    """Return a night of some candidates."""
    given: dict[str, Any] = {
        "job": "nightly support", "lake": "/lake", "started": "2026-11-22T03:00:00+00:00", "seconds": 73.2,
        "candidates": candidates_,
    }  # fmt: skip
    return Night(**given | changes)
