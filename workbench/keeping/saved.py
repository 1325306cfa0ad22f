"""Replays that are kept: a row in the lake says what one was made with, and what it must say again.

One rule: a saved replay is made again from the lake alone, and what comes out is what was saved or an error that says
what differs. So everything it was made with is in the lake before its row is: bundles that were given as folders are
written to `policies`, a `context.toml` goes into the row, and what cannot be kept (a source in memory, an engine of
the caller's own) is refused when it is saved, not when it is opened.

Kept are the question and the digest of the answer, not the answer: 64 bytes and a few KiB of pins a replay, whatever
it covers. Ledgers are pinned by position, so new rows, compaction and vacuum of the lake change nothing. What lies
outside of the lake may change: tables of facts that were vacuumed, or another version of Cedar.

Accepted: a password in the address of a source is not kept, so such a replay cannot be saved; sources that moved are
given again with `workbench.keeping.reopening.reopen(…, sources=…)`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from runtime.bundle import bundle_from_files
from runtime.canonical import Json, canonical
from runtime.errors import BundleError
from runtime.trace import REPLAYS
from runtime.values import micros
from workbench.asked import place_of
from workbench.errors import (
    NotSavable,
    ReplayNotFound,
)
from workbench.faces import Faces, Page, Table
from workbench.keeping.appending import append, keep_texts
from workbench.progress import progress
from workbench.run import release
from workbench.run import user_name as user
from workbench.texts import count, visible
from workbench.tracking import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.bundle import Bundle
    from workbench.asked import Asked
    from workbench.lake import Lake
    from workbench.replay import Replay

MIN_PREFIX = 6
"""Characters that a shortened id needs."""
MAX_TOLD = 8
"""Differences named in a message; all are in `ReplayDiffers.differences`."""

_TALLY = ("tool", "status", "verdict", "effect")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Saved(Faces):
    """A replay as it is kept in a lake."""

    replay_id: str
    name: str | None
    """As it was saved under."""
    digest: str
    """What it must say again; see `workbench.replay.Replay.digest`."""
    decisions: int
    """It covers."""
    pins: Mapping[str, Json]
    """What it was made with: as `Replay.pins`, and `asked`, by which it is made again."""
    actor: str
    """Who saved it."""
    at: datetime
    """When."""
    lake: str
    """Where, without a password."""

    def page(self) -> Page:
        """What it says."""
        said = f"Saved by {self.actor} at {self.at:%Y-%m-%d %H:%M} UTC."
        asked = [(name, _cell(value)) for name, value in self.pins.items() if name in _SHOWN]
        return Page(
            kind="saved replay",
            title=f"Replay {self.name or self.replay_id}",
            lines=[f"{count(self.decisions, 'decision')}, digest {self.digest[:16]}.", said],
            parts=[Table(title="Made with", heads=("what", "value"), rows=asked, code=frozenset({1}))],
            next=[f"lake.reopen({self.name or self.replay_id!r})"],
            pins={"replay": self.replay_id, "lake": self.lake, "digest": self.digest},
        )

    def as_dict(self) -> dict[str, Json]:
        """All of it, as JSON."""
        return {
            "replay_id": self.replay_id,
            "name": self.name,
            "digest": self.digest,
            "decisions": self.decisions,
            "pins": dict(self.pins),
            "actor": self.actor,
            "at": self.at.isoformat(),
            "lake": self.lake,
        }


_SHOWN = (
    "policy",
    "context",
    "limits",
    "spec",
    "sources",
    "versions",
    "at",
    "state",
    "engine",
    "ledgers",
    "redecide",
)


def _cell(value: Json) -> str:
    return value if isinstance(value, str) else canonical(value)


@progress(None, "saving the replay")
def save(
    replay: Replay, *, name: str | None = None, actor: str | None = None, now: datetime | None = None
) -> Saved:
    """Keep a replay, so that it can be opened again by anyone who reads the lake.

    Args:
        replay: made by `lake.replay`.
        name: to open it by, besides its id; None: by its id only.
        actor: who saves it; None: this process's user.
        now: the time; None: the clock's.

    Returns:
        What was kept. A replay that was saved before is not saved twice. Of several of one name the last is opened.

    Raises:
        NotSavable: something it was made with is not in the lake and cannot be put there; the name is empty, or the
            replay has another already. Nothing was written.
        LakeError: the lake cannot be written. Texts of bundles may have been, which is harmless; save again.

    Durability: when it returns, as any commit to the lake: on an object store at once, on a local disk when the
    system has written it back. Texts of bundles are committed before the row that refers to them.

    Cost: the digest, O(rows); two commits.
    """
    asked = _require_savable(replay)
    if name is not None and not name.strip():
        raise NotSavable(f"a name is a text to open the replay by, or None; got {name!r:.80}")
    bundles = [bundle for bundle in (asked.policy, asked.limits) if bundle is not None]
    for bundle in bundles:
        _require_whole(bundle)
    digest = replay.digest()
    if (before := _found(replay.lake, replay.id)) is not None and before.digest == digest:
        if name not in (None, before.name):
            raise NotSavable(
                f"this replay is saved already, {_as(before)}, and keeps that name; replay again and save that as "
                f"{visible(str(name))!r}"
            )
        return before
    pins = {
        **replay.pins,
        "name": name,
        "redecide": release(),
        "asked": _kept(replay, asked),
        "counts": replay.counts(),
        "tally": [*tally_of(replay)],
    }
    row: dict[str, Json] = {
        "replay_id": replay.id,
        "pins": canonical(pins),
        "digest": digest,
        "rows": replay.counts()["decisions"],
        "actor": actor or user(),
        "at": micros(now or datetime.now(UTC)),
    }
    store = replay.lake.store.writing()
    for bundle in bundles:
        keep_texts(replay.lake, store, bundle)
    append(store, REPLAYS, [row], lambda: _found(replay.lake, replay.id) is not None)
    return _saved(row, replay.lake)


def _as(kept: Saved) -> str:
    return "without a name" if kept.name is None else f"as {visible(kept.name)!r}"


def _require_savable(replay: Replay) -> Asked:
    """The axes of a replay that can be made again.

    Raises:
        NotSavable: it cannot; says what is in the way.
    """
    asked = replay.asked
    if asked is None:
        raise NotSavable("this replay was not made by `lake.replay`, so nobody can say how to make it again")
    if replay.lake.chosen is not None:
        raise NotSavable(
            f"this replay is of decisions that were chosen, where {replay.lake.narrowing.text}; replay the whole "
            "lake, save that, and narrow what is opened again"
        )
    if replay.engine_asked is None:
        raise NotSavable(
            f"this replay was decided by an engine in memory ({replay.engine}), which the lake cannot keep; "
            "replay with `engine='auto'`, 'columnar' or 'rows', and save that"
        )
    if "others" in asked.more:
        raise NotSavable(
            "this replay took counters of the session that the runtime does not keep as recorded, which "
            "`lake.replay` does not offer; make it by `lake.replay(state='simulated')`, and save that"
        )
    for name, given in asked.sources.items():
        if not isinstance(given, str | Path):
            raise NotSavable(
                f"source `{name}` was given as {place_of(given)}, which is gone when the replay is opened again; "
                "write its facts to a Delta table, replay with that table's path, and save that"
            )
        if shown(str(given)) != str(given):
            raise NotSavable(
                f"source `{name}` has a password in its address, {shown(str(given))}, and others read the lake; "
                "give the address without it (credentials from the environment), and save that replay"
            )
    return asked


def _require_whole(bundle: Bundle) -> None:
    """Refuse a bundle that its texts do not give, say one that was changed in memory."""
    try:
        again = bundle_from_files(dict(bundle.files), bundle.name)
    except BundleError as exc:
        raise NotSavable(f"the texts of bundle `{bundle.name}` do not load: {exc}") from exc
    if again.version != bundle.version or again.limits.hash != bundle.limits.hash:
        raise NotSavable(
            f"bundle `{bundle.name}` is not what its files say: it was changed in memory; load it from a folder "
            "(`load_bundle`), replay, and save that"
        )


def _kept(replay: Replay, asked: Asked) -> dict[str, Json]:
    """What a replay is made again by."""
    spec, policy, limits = asked.spec, asked.policy, asked.limits
    return {
        "policy": None if policy is None else {"name": policy.name, "version": policy.version},
        "limits": None if limits is None else {"name": limits.name, "version": limits.version},
        "spec": None if spec is None else {"name": asked.spec_name, "hash": spec.hash, "text": spec.text},
        "sources": {name: place_of(given) for name, given in asked.sources.items()},
        "versions": dict(asked.versions),
        "at": None if asked.at is None else asked.at.isoformat(),
        "recompile": asked.recompile,
        "engine": replay.engine_asked,
        "more": dict(asked.more),
    }


def tally_of(replay: Replay) -> list[list[Json]]:
    """Return how many decisions came out how, by tool: it names what differs, should the digest."""
    counted = replay.frame.group_by(_TALLY).len().sort(_TALLY, nulls_last=True).collect(engine="streaming")
    return [list(row) for row in counted.iter_rows()]


def saved_replays(lake: Lake) -> pl.LazyFrame:
    """Return the saved replays of a lake, the last first.

    Returns:
        `replay_id`, `name`, `policy`, `context` (String), `rows` (Int64: decisions), `digest`, `actor`, `at`.
    """
    said = {name: pl.col("pins").str.json_path_match(f"$.{name}") for name in ("name", "policy", "context")}
    rows = lake.replays.unique("replay_id", keep="any").with_columns(**said)
    columns = ("replay_id", "name", "policy", "context", "rows", "digest", "actor", "at")
    return rows.select(columns).sort("at", "replay_id", descending=True)


def saved(lake: Lake, replay: str) -> Saved:
    """Return what is kept of a replay.

    Args:
        lake: in which it was saved.
        replay: its id, the first characters of it where they fit one only, or its name; of several of one name, the
            last.

    Raises:
        ReplayNotFound: there is none, or several fit.
    """
    rows = saved_replays(lake).select("replay_id", "name").collect()
    name = rows.filter(pl.col("name") == replay)["replay_id"].to_list()[:1]
    near = [each for each in rows["replay_id"] if len(replay) >= MIN_PREFIX and each.startswith(replay)]
    fits = [replay] if replay in near else name or near
    if len(fits) != 1:
        known = ", ".join(visible(row["name"] or row["replay_id"]) for row in rows.head(MAX_TOLD).to_dicts())
        what = f"{len(fits)} saved replays begin with" if fits else "no saved replay"
        raise ReplayNotFound(f"{what} {replay!r} in the lake at {shown(lake.uri)}; it has {known or 'none'}")
    found = _found(lake, fits[0])
    assert found is not None  # noqa: S101 - it was listed
    return found


def _found(lake: Lake, replay_id: str) -> Saved | None:
    rows = lake.replays.filter(pl.col("replay_id") == replay_id).head(1).collect()
    return None if rows.is_empty() else _saved(rows.row(0, named=True), lake)


def _saved(row: Mapping[str, Any], lake: Lake) -> Saved:
    pins = json.loads(row["pins"])
    at = row["at"]
    return Saved(
        replay_id=row["replay_id"],
        name=pins.get("name"),
        digest=row["digest"],
        decisions=row["rows"],
        pins=pins,
        actor=row["actor"],
        at=at if isinstance(at, datetime) else datetime.fromtimestamp(at / 1_000_000, UTC),
        lake=shown(lake.uri),
    )
