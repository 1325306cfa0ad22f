"""What a night of a regression job came to.

One rule: plain values, which go through JSON and come back the same: what is told after a crash is what was found
before it. No number is computed here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.canonical import Json

Verdict = Literal["ship", "don't ship", "inconclusive", "could not run"]
"""`ship`: nothing that was asked for regressed, and that is sure; `don't ship`: a regression; `inconclusive`: more
sessions or labels are needed; `could not run`: nothing was judged."""

EXIT: Mapping[Verdict, int] = {"ship": 0, "don't ship": 1, "inconclusive": 2, "could not run": 3}
"""What a job exits with (DESIGN section 8)."""

WORST: tuple[Verdict, ...] = ("don't ship", "could not run", "inconclusive", "ship")
"""Of several candidates, the first that occurs is the night's: a regression that was found is never hidden."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Decisions of a window, by ledger: what comes after one pin, up to another."""

    after: Mapping[str, int]
    """Ledger to the last position that is not in it; a ledger that is not named begins with its first row."""
    to: Mapping[str, int]
    """Ledger to the last position that is."""
    decisions: int
    sessions: int
    first: str | None
    """ISO time (UTC) of its first decision; None: it has none."""
    last: str | None

    @property
    def watermark(self) -> int:
        """Positions of all ledgers up to its end: where it stands on an axis."""
        return sum(self.to.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Reopened:
    """An earlier window of which more became known."""

    night: int
    """Which one, counted from 1."""
    sessions: int
    """Of its sessions, those that were looked at again."""
    labels: int
    """Late labels that touched them."""
    outcomes: int
    """Late executions and approvals."""
    decisions: int
    """Later decisions of its sessions."""
    measures: Mapping[str, float]
    """Its numbers, as they are now: `<quantity>.low`, `.high`."""
    watermark: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLook:
    """One gate, as all nights together judge it."""

    text: str
    """As declared: `harm_through_share <= 0.05`."""
    quantity: str
    state: Literal["met", "failed", "open"]
    low: float | None
    """On this log, over all nights, at least; exact: a share, a total per session, or (`on = "log"`) a total. None:
    the log has none of what it is a share of."""
    high: float | None
    lower: float | None
    """For future traffic, sure at `level` however often one looks; None: nothing bounds it, or `on = "log"`."""
    upper: float | None
    level: float
    """Of this gate's bounds, each by itself."""
    method: str
    """How the bounds were made."""
    sessions: int
    why: str
    """In words, with what is still needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What the night says of one candidate."""

    name: str
    """As declared: a folder, a version, an alias."""
    bundle: str
    """The bundle's name."""
    version: str | None
    """Of the bundle; None: it could not be loaded."""
    baseline: str
    """As declared."""
    baseline_version: str | None
    """None: as recorded."""
    verdict: Verdict
    night: int
    """Looks at this candidate so far, with this one; 0: none."""
    window: Range | None
    reopened: tuple[Reopened, ...] = ()
    gates: tuple[GateLook, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Of this window: `Diff.summary()`, `Diff.metrics()`."""
    headline: tuple[str, ...] = ()
    """This window in sentences."""
    changed: int = 0
    """Decisions of this window that would change."""
    regressed: int = 0
    """Of them, those that got worse: good work stopped or held up, harm let run."""
    examples: tuple[Mapping[str, Json], ...] = ()
    """A few regressed decisions: `decision_id`, `session_id`, `tenant`, `tool`, `from`, `to`, `effect`, `side`,
    `determining`, `clause` (null: not told)."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """As `Scores.summary()`, and what `scoring` adds."""
    notes: tuple[str, ...] = ()
    """What a reader must know beside: why it could not run, what could not be replayed, what was not labelled."""
    files: str | None = None
    """Folder of its artifacts."""
    run_id: str | None = None
    """MLflow's; None: it is not there (yet)."""
    run_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drifted:
    """What a job without a candidate found: this window beside the last, under the same policy."""

    verdict: Verdict
    """`ship`: it stayed as it was, as far as the gate asks."""
    night: int
    before: Range
    after: Range
    gates: tuple[GateLook, ...]
    rows: tuple[Mapping[str, Json], ...]
    """What moved most: `name`, `before`, `after`, `distance`, `p`, `drifted`, `policies`, `decisions`."""
    uncovered: tuple[Mapping[str, Json], ...]
    """What this window has and the last had not: `what`, `name`, `decisions`."""
    numbers: Mapping[str, float]
    headline: tuple[str, ...]
    notes: tuple[str, ...] = ()
    files: str | None = None
    run_id: str | None = None
    run_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What a night came to."""

    job: str
    lake: str
    """Without a password."""
    started: str
    """ISO time, UTC."""
    seconds: float
    candidates: tuple[Candidate, ...] = ()
    drift: Drifted | None = None
    problems: tuple[str, ...] = ()
    """What went wrong beside: MLflow away, a notification not delivered, what the job could not run for."""
    resumed: bool = False
    """Whether it went on where an earlier try was stopped."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Files that were written, by kind: `markdown`, `junit`, `json`, `html`."""

    @property
    def verdict(self) -> Verdict:
        """Of all candidates, or of the drift gate."""
        found = [each.verdict for each in self.candidates]
        found += [] if self.drift is None else [self.drift.verdict]
        return next((each for each in WORST if each in found), "could not run")

    @property
    def exit_code(self) -> int:
        """0 ship, 1 regression, 2 inconclusive, 3 could not run."""
        return EXIT[self.verdict]
