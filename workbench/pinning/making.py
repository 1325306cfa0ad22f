"""Decisions of a lake made pins.

One rule: a pin comes to what was recorded, under the policies it was recorded under, or it is not made.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from workbench.asked import Asked
from workbench.errors import PinInvalid
from workbench.explaining.one import decided, find
from workbench.masking import MARKED
from workbench.pinning.pinned import Expected, PinFile, Verdict
from workbench.pinning.pins import Pinned
from workbench.pinning.places import dotted, walk
from workbench.pinning.recording import expected_of, whole
from workbench.pinning.redacting import cut, is_marked, replaced
from workbench.pinning.reducing import Oracle, refitted, without_numbers, without_unread
from workbench.recorded import Recorded
from workbench.replay import CAUSES
from workbench.texts import visible
from workbench.weighing.stakes import closest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from runtime.bundle import Bundle
    from workbench.atoms import Path
    from workbench.lake import Lake

_NOT_OF_POLICIES = frozenset({"idempotency_conflict", "duplicate_differs", "args_invalid", "undecidable"})
"""Refusals that no bundle has a say in."""


def pin(
    lake: Lake,
    decision_id: str,
    *,
    note: str | None = None,
    keep: Iterable[str] = (),
    expect: str | None = None,
) -> Pinned:
    """Make a regression test of one recorded decision: minimal, redacted, with the verdict and clause to expect.

    Args:
        lake: the pinned lake.
        decision_id: its id, or the first characters of it where they fit one only.
        note: why it is pinned; in the file.
        keep: names that stay in clear though no policy compares them with a literal: `context.args.reason` (or
            `args.reason`), `resource.owner`, `context.customer` with all its members.
        expect: the verdict that is right, where it is not the recorded one. Then nothing is left out: the policies
            that are to come to it may read what the recorded ones did not.

    Raises:
        DecisionNotFound: none, or several; names ids that are near.
        PinInvalid: it cannot be decided again, no policy has a say in it, a name is not known, or it hangs on a
            field that never leaves in clear.

    Cost: the decision is found as `why` finds it; then some tens of evaluations, a tenth of a second together, more
        where a long text is searched by `like`.
    """
    return made(lake, decision_id, note=note, keep=keep, expect=expect, marked=MARKED)


def made(
    lake: Lake,
    decision_id: str,
    *,
    note: str | None,
    keep: Iterable[str],
    expect: str | None,
    marked: Collection[str],
) -> Pinned:
    """Make a pin. Args: as `pin`, and `marked`: names of members that never leave in clear."""
    if expect is not None and expect not in get_args(Verdict):
        raise PinInvalid(f"no verdict {visible(expect)!r}; {closest(expect, get_args(Verdict))}")
    full, own = _whole(lake, decision_id)
    full = replace(full, note=note)
    names = frozenset(_named(full, keep, marked))
    try:
        oracle = Oracle.of(full, own, names)
    except LookupError:
        raise PinInvalid(
            f"decision {full.decision_id} cannot be pinned: what the record holds does not decide it"
        ) from None
    small = full
    if expect in (None, full.expected.verdict):
        small = without_numbers(without_unread(full, oracle), oracle)
    safe = refitted(cut(replaced(small, oracle, marked), oracle), own)
    return Pinned(_told(full, safe, oracle, expect))


def whole_pin(lake: Lake, decision_id: str) -> Pinned:
    """Return a decision as a pin that hides nothing, to be checked and not to be written: it is not masked.

    Raises:
        DecisionNotFound, PinInvalid: as `pin`.
    """
    return Pinned(_whole(lake, decision_id)[0])


def _whole(lake: Lake, decision_id: str) -> tuple[PinFile, Bundle]:
    """A decision with everything the record holds of it, and the bundle that decided it."""
    record = find(lake, decision_id)
    side = decided(lake, record, Asked())
    (row,) = record.iter_rows(named=True)
    cannot = f"decision {row['decision_id']} cannot be pinned"
    if side.status != "decided" or side.bundle is None or side.decision is None:
        raise PinInvalid(f"{cannot}: {CAUSES.get(str(side.row['cause']), side.row['cause'])}")
    if row["reason_code"] in _NOT_OF_POLICIES:
        raise PinInvalid(f"{cannot}: no bundle has a say in `{row['reason_code']}`")
    recorded = Recorded(row, row["context"], row["enforced_context"])
    return whole(recorded, side, side.bundle, side.decision), side.bundle


def _named(pin: PinFile, keep: Iterable[str], marked: Collection[str]) -> Iterator[Path]:
    """The names that are to stay in clear."""
    known = {dotted(name[:n]) for name, _ in walk(pin) for n in range(2, len(name) + 1)}
    known |= {f"{name[0]}.{name[1]}" for name, _ in walk(pin) if len(name) > 1}
    for asked in keep:
        name = f"context.{asked}" if asked.startswith("args.") else asked
        if name not in known:
            raise PinInvalid(f"the decision has no `{visible(asked)}` to keep; {closest(name, known)}")
        path = tuple(name.split("."))
        if is_marked(path, marked):
            raise PinInvalid(f"`{visible(asked)}` is marked sensitive, and never leaves in clear")
        yield path


def _told(full: PinFile, safe: PinFile, oracle: Oracle, expect: str | None) -> PinFile:
    """The pin with what it expects, in its own values, and the names of what stands in clear."""
    from workbench.pinning.deciding import decided_under  # noqa: PLC0415

    side, _ = decided_under(safe, oracle.own)
    expected = expected_of(side)
    if expect is not None and expect != expected.verdict:
        expected = Expected(verdict=expect)  # type: ignore[arg-type]  # checked by the caller
    hidden = {*safe.hidden.left_out, *safe.hidden.blanked, *safe.hidden.cut}
    originals = {(name, repr(value)) for name, value in walk(full)}
    clear = {
        dotted(name)
        for name, value in walk(safe)
        if not isinstance(value, dict) and (name, repr(value)) in originals and dotted(name) not in hidden
    }
    clear |= {"context.now", *(["context.scopes"] if safe.request.scopes else [])}
    kept = sorted(dotted(name) for name in oracle.keep)
    return replace(safe, expected=expected, clear=sorted(clear), kept=kept)
