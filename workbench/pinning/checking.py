"""A pin held against a bundle: passed, failed with the clause that flipped, or undecided with what is missing.

One rule: passed means that the bundle comes to what is expected for every value of what the pin does not hold.
Undecided is no pass.

Compared is what `expected` says, and only that: the verdict, the stage that decides, the change of a `modify`; of the
determining policies, that each is still among them (another one beside it changes nothing for the caller), and of an
`approve` that they are the same, because each asks for a grant of its own. Which permit lets an `allow` pass is told
and not compared, and so are clauses: both may be written otherwise, and come to the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal

from runtime.bundle import Bundle, load_bundle
from runtime.canonical import canonical
from workbench.explaining.clause_words import quoted, values_in
from workbench.explaining.words import deciding, reasons
from workbench.faces import Faces, Page, Table
from workbench.pinning.deciding import decided_under
from workbench.pinning.reading import readings
from workbench.texts import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from os import PathLike

    from runtime.canonical import Json
    from runtime.policy import Decision
    from workbench.explaining.clauses import Clause, PolicyClauses
    from workbench.explaining.one import Evaluation, Side
    from workbench.faces import Cell
    from workbench.pinning.deciding import Gap
    from workbench.pinning.pinned import PinFile
    from workbench.pinning.reading import Reading

Outcome = Literal["passed", "failed", "undecided"]

_UNFIT = frozenset({"projection_failed", "args_invalid", "cedar_no_decision"})
"""Refusals that a placeholder, or what was left out, may be the reason of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """A clause that is not what it was when the decision was pinned."""

    policy: str
    clause: str | None
    """As it is written now; null: it is gone."""
    before: str | None
    """As it was written; null: it was not there."""
    place: str
    """`orders.cedar:32`; empty: the clause is gone."""
    was: str | None
    now: str | None
    values: str
    """What it read, in words."""

    def __str__(self) -> str:
        place = f" ({self.place})" if self.place else ""
        if self.clause is None:
            return f"`{self.policy}`: `{self.before}`, which was {_truth(self.was)}, is gone"
        now = f"`{self.policy}`{place}: `{self.clause}` is {_truth(self.now)}"
        if self.before is None:
            then = "was not there"
        elif self.before == self.clause:
            then = f"was {_truth(self.was)}"
        else:
            then = f"was `{self.before}`, {_truth(self.was)}"
        return f"{now}, {then}" + (f": {self.values}" if self.values else "")


def _truth(truth: str | None) -> str:
    return str(truth).replace("_", " ")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Checked(Faces):
    """What a bundle makes of a pin."""

    outcome: Outcome
    decision_id: str
    bundle: str
    """Name of the bundle."""
    version: str
    expected: str
    """The verdict that is expected."""
    verdict: str | None
    """What it is; null: undecided."""
    why: tuple[str, ...]
    """Sentences, what is wrong first."""
    flips: tuple[Flip, ...] = ()
    missing: tuple[str, ...] = ()
    """What an undecided one hangs on."""
    request: str = field(default="")
    """The call, in words."""

    @property
    def passed(self) -> bool:
        """Whether it is as expected, whatever is missing."""
        return self.outcome == "passed"

    @property
    def message(self) -> str:
        """All of it as plain text: what a failing test shows."""
        head = f"{self.request}: expected {self.expected}, got {self.verdict or 'undecided'}"
        lines = [head, *self.why]
        if self.flips:
            lines += ["Clauses that are not what they were:", *(f"  {each}" for each in self.flips)]
        lines.append(f"(decision {self.decision_id}, bundle {self.bundle} {self.version[:12]})")
        return "\n".join(visible(line) for line in lines)

    def page(self) -> Page:
        """What it says."""
        rows: list[list[Cell]] = [
            [each.policy, each.place, each.before, each.was, each.clause, each.now, each.values]
            for each in self.flips
        ]
        table = Table(
            title="Clauses that are not what they were",
            heads=["policy", "place", "clause then", "was", "clause now", "is", "values"],
            rows=rows,
            code=frozenset({0, 2, 4}),
        )
        return Page(
            kind="pin",
            title=f"Pin of decision {self.decision_id}: {self.outcome}",
            lines=(f"{self.request}: expected {self.expected}, got {self.verdict or 'undecided'}", *self.why),
            parts=(table,) if rows else (),
            pins={"bundle": f"{self.bundle} {self.version}"},
        )

    def as_dict(self) -> dict[str, Json]:
        """All of it, as JSON."""
        flips: list[Json] = [
            {
                "policy": f.policy,
                "clause": f.clause,
                "before": f.before,
                "place": f.place,
                "was": f.was,
                "now": f.now,
                "values": f.values,
            }
            for f in self.flips
        ]
        return {
            "outcome": self.outcome, "decision_id": self.decision_id, "bundle": self.bundle,
            "version": self.version, "expected": self.expected, "verdict": self.verdict, "why": [*self.why],
            "flips": flips, "missing": [*self.missing],
        }  # fmt: skip


def check(pin: PinFile, bundle: Bundle | str | PathLike[str]) -> Checked:
    """Hold a pin against a bundle.

    Args:
        pin: as read from its file.
        bundle: loaded, or its folder; its own schema, limits and ages of facts hold.

    Raises:
        BundleError: the folder holds no bundle that loads.

    Cost: some ten milliseconds of a core; the first pin under a bundle takes its policies apart, too.
    """
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(str(bundle))
    side, gaps = decided_under(pin, loaded)
    asked = pin.request
    told: dict[str, Any] = {
        "decision_id": pin.decision_id,
        "bundle": loaded.name,
        "version": loaded.version,
        "expected": pin.expected.verdict,
        "request": f"{asked.tool} by {asked.principal}" + (f" on {r}" if (r := side.row["resource"]) else ""),
    }
    if side.status != "decided":
        missing = tuple(dict.fromkeys(side.missing))
        why = tuple(_hangs(pin, loaded, gaps, missing)) or tuple(reasons(side, None))
        return Checked(outcome="undecided", verdict=None, why=why, missing=missing, **told)
    wrong = tuple(_differences(pin, side))
    if wrong and (open_ := _may_be_ours(pin, side)):
        why = (f"the bundle cannot take the request as it is pinned: {side.row['reason']}", *wrong)
        return Checked(outcome="undecided", verdict=None, why=why, missing=open_, **told)
    if wrong and gaps and side.verdict == pin.expected.verdict:  # why is not sure, where something is hidden
        missing = tuple(dict.fromkeys(gap.name for gap in gaps))
        why = (*_hangs(pin, loaded, gaps, missing), *wrong)
        return Checked(outcome="undecided", verdict=None, why=why, missing=missing, **told)
    if not wrong:
        why = (f"{side.verdict}, as expected", *reasons(side, None))
        return Checked(outcome="passed", verdict=side.verdict, why=why, **told)
    flips = tuple(flips_of(pin, side))
    why = (*wrong, *reasons(side, None), *_rested(pin))
    return Checked(outcome="failed", verdict=side.verdict, why=why, flips=flips, **told)


def _differences(pin: PinFile, side: Side) -> Iterator[str]:
    """What is not as expected."""
    wanted, row = pin.expected, side.row
    if side.verdict != wanted.verdict:
        yield f"the verdict is {side.verdict}, not {wanted.verdict}"
        return
    if wanted.stage is not None and row["decided_by"] != wanted.stage:
        yield f"the stage `{row['decided_by']}` decides, not `{wanted.stage}`"
    if wanted.change is not None and canonical(change_of(side.decision)) != canonical(wanted.change):
        yield f"the arguments are changed by {canonical(change_of(side.decision))}, not by {canonical(wanted.change)}"
    if wanted.determining is not None and row["decided_by"] == "policy" and wanted.verdict != "allow":
        now, then = set(row["determining"]), set(wanted.determining)
        if then - now or (wanted.verdict == "approve" and now - then):
            yield f"determined by {_names(now)}, not by {_names(then)}"


def change_of(decision: Decision | None) -> Json:
    """Return what a `modify` does to the arguments, as a merge patch; null: it is none."""
    import json_merge_patch  # noqa: PLC0415 - only where arguments are changed

    if decision is None or decision.verdict != "modify" or decision.enforced_args is None:
        return None
    made: Json = json_merge_patch.create_patch(dict(decision.first.args), dict(decision.enforced_args))
    return made


def _may_be_ours(pin: PinFile, side: Side) -> tuple[str, ...]:
    """What the pin hides, where the bundle refuses the request's shape: the original might fit."""
    hidden = pin.hidden
    if side.row["reason_code"] not in _UNFIT:
        return ()
    return (*hidden.left_out, *hidden.blanked, *hidden.replaced, *hidden.cut)


def _hangs(pin: PinFile, bundle: Bundle, gaps: Sequence[Gap], missing: Sequence[str]) -> Iterator[str]:
    """What an undecided one hangs on, and what to do about it."""
    for gap in {gap.name: gap for gap in reversed(gaps)}.values():
        if gap.name in missing:
            said = "" if gap.reading is None else f", and {_reader(gap.reading)}"
            keep = gap.name if gap.reading is not None else "the argument it counts or changes"
            yield (
                f"`{gap.name}` was {gap.why} when the decision was pinned{said}; "
                f"pin {pin.decision_id} again with `--keep {keep}`"
            )
    known = {gap.name for gap in gaps}
    read = readings(bundle, pin.request.tool)
    for name in missing:
        reading = next((each for each in read if each.touches(tuple(name.split(".")))), None)
        if name not in known and reading is not None:
            yield f"`{name}` was not asked for when the decision was recorded, and {_reader(reading)}"
        elif name.startswith("limits.") and name not in known:
            yield f"`{name}` was not counted when the decision was recorded, and a limit of the bundle asks for it"


def _reader(reading: Reading) -> str:
    return f"`{reading.policy.id}` reads it: {quoted(reading.clause)}"


def _rested(pin: PinFile) -> Iterator[str]:
    told = [f"`{each.clause}` of `{each.policy}` was {each.was}" for each in pin.expected.clauses]
    if told:
        yield f"Expected, because {'; '.join(told)}"


def flips_of(pin: PinFile, side: Side) -> Iterator[Flip]:
    """Yield the clauses that are not what they were, of the policies that determine the verdict then or now."""
    names, evaluation = deciding(side)
    evaluation = evaluation or side.first
    if evaluation is None or side.clauses is None:
        return
    for ident in dict.fromkeys((*names, *(pin.expected.determining or ()))):
        yield from _flips(ident, pin.clauses.get(ident, {}), side.clauses.policies.get(ident), evaluation)


def _flips(
    ident: str, then: Mapping[str, str], policy: PolicyClauses | None, evaluation: Evaluation
) -> Iterator[Flip]:
    clauses = [] if policy is None else [each for each in policy.walk() if is_told(each)]
    texts = list(then)
    told = SequenceMatcher(None, texts, [each.text for each in clauses], autojunk=False)
    for _, i, j, k, m in told.get_opcodes():
        for before, clause in zip_longest(texts[i:j], clauses[k:m]):
            was = None if before is None else then[before]
            now = None if clause is None else evaluation.told.truths[ident, clause.key]
            if was != now or clause is None or before is None:
                yield _flip(ident, before, clause, was, now, evaluation)


def _flip(
    ident: str,
    before: str | None,
    clause: Clause | None,
    was: str | None,
    now: str | None,
    evaluation: Evaluation,
) -> Flip:
    place = ""
    if clause is not None:
        place = clause.file if clause.line is None else f"{clause.file}:{clause.line}"
    return Flip(
        policy=ident,
        clause=None if clause is None else clause.text,
        before=before,
        place=place,
        was=was,
        now=now,
        values="" if clause is None or now == "not_reached" else values_in(clause, evaluation),
    )


def is_told(clause: Clause) -> bool:
    """Whether what a clause was is kept in pins: not of those taken apart, nor of the action, which is the tool."""
    return not clause.children and clause.place != "action"


def _names(found: set[str]) -> str:
    return ", ".join(f"`{each}`" for each in sorted(found)) or "none"
