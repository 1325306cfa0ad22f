"""Opening saved replays again.

One rule: what is returned has the digest that was saved; anything else is an error that says what differs.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from runtime.spec import ContextSpec, parse_spec
from workbench.errors import ReplayDiffers
from workbench.keeping.saved import saved, tally_of
from workbench.progress import progress
from workbench.replay import RECORDED
from workbench.run import release
from workbench.texts import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runtime.bundle import Bundle
    from workbench.executors import Executor
    from workbench.keeping.saved import Saved
    from workbench.lake import Lake
    from workbench.redeciding import EngineName
    from workbench.replay import Replay

MAX_TOLD = 8
"""Differences named in a message; all are in `ReplayDiffers.differences`."""


@progress(None, "opening a saved replay")
def reopen(
    lake: Lake,
    replay: str,
    *,
    sources: Mapping[str, Any] | None = None,
    engine: EngineName | None = None,
    executor: Executor = "local",
    on_rows: Callable[[int], object] | None = None,
) -> Replay:
    """Make a saved replay again: the same rows under the same policies, contexts and limits, whatever came since.

    Args:
        lake: in which it was saved, at any pin.
        replay: its id, the first characters of it, or its name; see `saved`.
        sources: where sources of facts are now, by name, if they moved.
        engine: another engine than it was made with; the digest does not depend on it.
        executor: where to decide; see `workbench.executors.Executor`.
        on_rows: as `lake.replay` takes it.

    Returns:
        The replay, under its old id, with the digest it was saved with.

    Raises:
        ReplayNotFound: no such saved replay.
        PinUnreachable: the lake does not hold those rows any more.
        BundleNotFound: the texts of a bundle are gone.
        ReplayDiffers: it does not come out as it did; says in what.
        ReplayFailure: it cannot be made again, as a source of facts is not there.

    Cost: a replay, and its digest.
    """
    kept = saved(lake, replay)
    asked: dict[str, Any] = dict(kept.pins["asked"])  # type: ignore[arg-type]  # an object, as it was written
    policy, limits = (_bundle(lake, asked[axis]) for axis in ("policy", "limits"))
    spec = _spec(asked["spec"])
    axes: dict[str, Any] = {
        "context": RECORDED if spec is None else spec,
        "sources": {**asked["sources"], **(sources or {})} or None,
        "versions": asked["versions"] or None,
        "at": None if asked["at"] is None else datetime.fromisoformat(asked["at"]),
        "recompile": asked["recompile"],
        "engine": engine or asked["engine"],
        **asked["more"],
    }
    pinned = lake.at(dict(kept.pins))
    again = pinned.replay(policy, limits=limits, executor=executor, on_rows=on_rows, **axes)
    named = again.asked
    if named is not None and spec is not None:
        named = replace(named, spec_name=asked["spec"]["name"])
    found = replace(again, id=kept.replay_id, context=str(kept.pins["context"]), asked=named)
    with progress(None, "comparing it with what was saved"):
        _require_same(found, kept)
    return found


def _bundle(lake: Lake, kept: Mapping[str, str] | None) -> Bundle | None:
    """A bundle of the lake, under the name it was given by then."""
    return None if kept is None else replace(lake.bundle(kept["version"]), name=kept["name"])


def _spec(kept: Mapping[str, str] | None) -> ContextSpec | None:
    if kept is None:
        return None
    found = parse_spec(kept["text"], kept["name"])
    if found.hash != kept["hash"]:
        told = f"its context spec hashes to {found.hash[:12]}, was {kept['hash'][:12]}"
        raise ReplayDiffers(f"the saved replay was changed: {told}", differences=[told])
    return found


def _require_same(replay: Replay, kept: Saved) -> None:
    if replay.digest() == kept.digest:
        return
    told = list(_differences(replay, kept))
    more = f", and {len(told) - MAX_TOLD} more" if len(told) > MAX_TOLD else ""
    raise ReplayDiffers(
        f"replay {visible(kept.name or kept.replay_id)} does not come out as it did when {kept.actor} saved it at "
        f"{kept.at:%Y-%m-%d %H:%M} UTC: {'; '.join(told[:MAX_TOLD])}{more}",
        differences=told,
    )


def _differences(replay: Replay, kept: Saved) -> Iterator[str]:
    """What is not as it was, the most telling first."""
    then: dict[str, Any] = dict(kept.pins)
    now = replay.counts()
    for name in sorted(now.keys() | then["counts"].keys()):
        one, two = now.get(name, 0), then["counts"].get(name, 0)
        if one != two:
            yield f"{visible(name.replace('_', ' '))} {one:,}, was {two:,}"
    was = {tuple(row[:-1]): row[-1] for row in then["tally"]}
    found = {tuple(row[:-1]): row[-1] for row in tally_of(replay)}
    for key in sorted(was.keys() | found.keys(), key=str):
        if found.get(key, 0) != was.get(key, 0):
            words = visible(" ".join(str(part) for part in key if part is not None))
            yield f"{words} {found.get(key, 0):,}, was {was.get(key, 0):,}"
    if was == found:
        yield "the numbers are the same, but other decisions, policies or arguments make them"
    for what, here, there in (
        ("engine", replay.engine, then["engine"]),
        ("redecide", release(), then["redecide"]),
    ):
        if here != there:
            yield f"{what} is {here}, was {there}"
