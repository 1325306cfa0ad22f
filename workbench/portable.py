"""A replay's deciding in a form that can be sent: data as Arrow, policies as the texts of their files.

One rule: deciding a chunk elsewhere looks nothing up that did not come with it. So a worker needs this package and
no access to the lake; storage options stay here. Only the sources of facts must be in its reach, and only where
contexts are compiled again.

Accepted: this process reads the lake and collects the answers, which bounds how many workers it can feed; contexts
are taken apart again with each task; a callable or an open connection given as a source may not travel. Places that
only the whole lake tells are looked up when a worker asks.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from runtime.bundle import bundle_from_files
from runtime.canonical import new_id
from runtime.lake import LakeStore
from runtime.trace import CONTEXTS
from workbench.ending import ending
from workbench.errors import ReplayFailure
from workbench.executors import BundleTexts, ChunkTask, PlacesWanted
from workbench.history.records import MORE, Records
from workbench.lake import Lake
from workbench.pins import Pins
from workbench.ray_executor import connected
from workbench.redeciding import Plan, decider, in_columns
from workbench.rows import RowEngine
from workbench.where import recorded_places

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping

    import pyarrow as pa

    from runtime.bundle import Bundle
    from runtime.trace import Table
    from workbench.executors import Executor
    from workbench.recompile import Recipe, Recompiler
    from workbench.redeciding import EngineName
    from workbench.rows import Engine

    Places = Mapping[str, frozenset[str]]

COLUMNS_ROWS = 10_000, 100_000
"""Decisions a task where columns decide, at least and at most: policies are compiled once a task."""
CEDAR_ROWS = 5_000
"""Decisions a task where Cedar decides every row."""
_NOWHERE = "memory://task"
"""Address of a lake that is not there: nothing is looked up at it, and nothing is kept beside it."""


@dataclass(frozen=True, eq=False, repr=False)
class Piece(Lake):
    """What a task brought, as the lake it is from: its contexts and bundles, and no other table."""

    texts: pl.DataFrame = field(kw_only=True)
    sent: Mapping[str, BundleTexts] = field(kw_only=True)

    def table(self, table: Table, where: pl.Expr | None = None) -> pl.LazyFrame:
        """Return the contexts, in memory; there is nothing else."""
        if table is not CONTEXTS:
            raise ReplayFailure(f"a task was sent without the table `{table.name}` of its lake")
        return self.texts.lazy() if where is None else self.texts.lazy().filter(where)

    def find_bundle(self, version: str) -> Bundle | None:
        """Return the bundle of exactly this version; None if the lake lost it."""
        return None if version not in self.sent else _rebuilt(self.sent[version])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a replay decides with, picklable; see `workbench.executors.Work`."""

    id: str
    engine: EngineName | Engine
    candidate: BundleTexts | None
    limits_of: BundleTexts | None
    recompiler: Recipe | None
    verify: Recipe | None
    places: Places | None = None
    """Where the record says sources were, by name; None: not looked up yet."""

    def decide(self, task: ChunkTask) -> pa.Table:
        """Return one row of `workbench.replay.FRAME` for each record, in order.

        Raises:
            PlacesWanted: it has to be told where sources of facts were.
        """
        piece = Piece(_NOWHERE, Pins({}), LakeStore(_NOWHERE), texts=_frame(task.contexts), sent=task.bundles)
        plan = Plan(
            piece,
            RowEngine() if isinstance(self.engine, str) else self.engine,
            None if self.candidate is None else _rebuilt(self.candidate),
            None if self.limits_of is None else _rebuilt(self.limits_of),
            _recompiler(self, "recompiler"),
            _recompiler(self, "verify"),
        )
        return decider(plan, self.engine)(_frame(task.records)).to_arrow()

    def known(self) -> Places:
        """Where the record says sources were."""
        if self.places is None:
            raise PlacesWanted
        return self.places


_recompilers: dict[tuple[str, bool, str], Recompiler] = {}
"""Of the replay that this process works for: they keep sources open, and versions they have found."""


def _recompiler(sent: Sent, role: str) -> Recompiler | None:
    recipe: Recipe | None = getattr(sent, role)
    if recipe is None:
        return None
    key = (sent.id, sent.places is None, role)
    if any(each[:2] != key[:2] for each in _recompilers):
        _recompilers.clear()
    return _recompilers.setdefault(key, recipe.recompiler(sent.known))


def decided_on(
    executor: Executor, plan: Plan, chosen: EngineName | Engine
) -> Generator[pl.DataFrame, None, None]:
    """Decide the records of a lake on Ray.

    Args:
        executor: where; see `workbench.executors.Executor`.
        plan: the lake, and what to decide with.
        chosen: the engine.

    Returns:
        Frames with the columns of `workbench.replay.FRAME`; together one row a record, in order.

    Raises:
        MissingExtra: Ray is not installed.
        ReplayFailure: Ray does not start, cannot be reached, or loses a chunk for good; or a source cannot be sent.
    """
    work = sent_of(plan, chosen)

    def complete(asked: Sent) -> Sent:
        return replace(asked, places=recorded_places(plan.lake))

    records = Records(plan.lake)
    with connected(executor, complete) as runner:
        least, most = COLUMNS_ROWS
        size = max(least, min(most, records.count() // runner.most)) if in_columns(chosen) else CEDAR_ROWS
        tasks = tasks_of(plan.lake, records.chunks(MORE), size)
        answers = runner.answers(work, tasks)
        with ending(answers.close):
            yield from map(_frame, answers)


def sent_of(plan: Plan, chosen: EngineName | Engine) -> Sent:
    """Return what a plan decides with, as it is sent."""
    return Sent(
        id=new_id(),
        engine=chosen,
        candidate=_texts(plan.candidate),
        limits_of=_texts(plan.limits_of),
        recompiler=_recipe(plan.recompiler),
        verify=_recipe(plan.verify),
    )


def tasks_of(lake: Lake, chunks: Iterable[pl.DataFrame], size: int) -> Iterator[ChunkTask]:
    """Yield chunks with all that they refer to, in parts of `size` rows."""
    for chunk in chunks:
        some = pl.col("context_hash").is_in(_referred(chunk).implode())
        contexts = lake.table(CONTEXTS, some).select("context_hash", "context").collect()
        for part in chunk.iter_slices(size):
            mine = contexts.filter(pl.col("context_hash").is_in(_referred(part).implode()))
            found = ((version, lake.find_bundle(version)) for version in part["bundle_version"].unique())
            bundles = {version: texts for version, bundle in found if (texts := _texts(bundle))}
            yield ChunkTask(part.to_arrow(), mine.to_arrow(), bundles)


def _referred(records: pl.DataFrame) -> pl.Series:
    """Addresses of the contexts of records."""
    return pl.concat([records["context_hash"], records["enforced_context_hash"]]).drop_nulls().unique()


def _frame(table: pa.Table) -> pl.DataFrame:
    found = pl.from_arrow(table)
    assert isinstance(found, pl.DataFrame)  # noqa: S101 - a table becomes a frame
    return found


def _texts(bundle: Bundle | None) -> BundleTexts | None:
    if bundle is None:
        return None
    return BundleTexts(bundle.name, dict(bundle.files), bundle.policy_hash, bundle.limits.hash)


def _rebuilt(texts: BundleTexts) -> Bundle:
    """The bundle of some files.

    Raises:
        ReplayFailure: it was another one: somebody changed it after it was loaded.
    """
    bundle = _built(texts.name, tuple(texts.files.items()))
    if (bundle.policy_hash, bundle.limits.hash) != (texts.policy_hash, texts.limits_hash):
        raise ReplayFailure(
            f"bundle `{texts.name}` is not what its files say, so it cannot be sent to Ray's workers; load it from a "
            "folder (`load_bundle`), or use `executor='local'`"
        )
    return bundle


@lru_cache(maxsize=64)
def _built(name: str, files: tuple[tuple[str, str], ...]) -> Bundle:
    return bundle_from_files(dict(files), name)


def _recipe(recompiler: Recompiler | None) -> Recipe | None:
    """A recipe whose local places hold in any working directory."""
    if recompiler is None:
        return None
    recipe = recompiler.recipe
    return replace(recipe, given={name: _absolute(place) for name, place in recipe.given.items()})


def _absolute(place: Any) -> Any:
    local = isinstance(place, str | Path) and "://" not in str(place)
    return str(Path(place).absolute()) if local else place
