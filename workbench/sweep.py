"""Sweeps: many versions of a policy over one history, a row of counts for each.

One rule: a version's numbers are those its replay has (`workbench.metrics`), over the same decisions; none is left
out of them, and a version that cannot be made is an error before anything is replayed.

Two ways to give versions: other values for literals that `@tune` declares, every combination of them; or a list of
bundles; or both, then every bundle with every combination.

Accepted: only counts are kept. What a version decides for each decision is decided again when it is asked for; the
last one asked for is kept. Versions that decide by the same texts are decided once, and all versions over one scan
where columns decide (`workbench.history.sweeping`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain, product
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from runtime.bundle import Bundle
from runtime.trace import SCHEMA_VERSION
from runtime.tuning import find, tuned
from workbench.asked import bundle_of
from workbench.errors import BundleNotFound, ReplayFailure
from workbench.history.sweeping import Tagged, Tally, Told
from workbench.metrics import DECIDED, STATES, UNRESOLVED, counts
from workbench.progress import progress
from workbench.redeciding import chosen_engine
from workbench.replay import RECORDED
from workbench.sweep_scan import Options, sweep_scan, tagger
from workbench.texts import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from workbench.lake import Lake
    from workbench.redeciding import EngineName
    from workbench.replay import Replay
    from workbench.rows import Engine
    from workbench.splitting import Split

    Given = str | PathLike[str] | Bundle
    Over = Mapping[str, Iterable[object]]
    Money = Callable[[pl.DataFrame], pl.Series]

_OF_A_BASE = frozenset({"decisions_changed", "decisions_undecided", "decisions_quarantined"})
"""Numbers of a comparison that need its base, or stand here under a state's name."""
COUNTS: Mapping[str, pl.Expr] = {
    "decisions": pl.len(),
    **{
        state: (
            pl.col("status").eq(state) if state in UNRESOLVED else DECIDED & pl.col("verdict").eq(state)
        ).sum()
        for state in STATES
    },
    **{name: each for name, each in counts("decision").items() if name not in _OF_A_BASE | {"decisions"}},
}
"""What is counted of a replay, in the order of the columns: how many decisions it puts into each state, and the
numbers of `workbench.metrics`, by effect and by whose call it is."""
_FIXED = ("version", "name", "policy_version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of the policies."""

    number: int
    bundle: Bundle
    values: Mapping[str, object]
    """What was tuned, by name as given."""


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """Versions of a policy, each with what it makes of the history. Made by `Lake.sweep`."""

    lake: Lake
    versions: tuple[Version, ...]
    context: str
    """`recorded`, or which spec the contexts were compiled again with."""
    engine: str
    rows: pl.DataFrame = field(repr=False)
    again: Callable[[Bundle], Replay] = field(repr=False)
    """Replays one version."""
    handed_over: Mapping[str, int]
    """Rows that Cedar decided, by reason, each once for every version; empty where it decided all."""
    seconds: Mapping[str, float]
    """Time by what it was spent on; empty where versions were replayed one after the other."""
    tallies: Sequence[Tally] = field(repr=False)
    """What is said of the decisions, one a version."""
    money: Callable[[pl.DataFrame], pl.Series] = field(repr=False)
    """Tells what decisions are about (Int64), of `tool` and `args`; 0 where that is not declared."""
    _kept: dict[int, Replay] = field(default_factory=dict)

    @property
    def frame(self) -> pl.LazyFrame:
        """One row a version, in order; in memory.

        Columns: `version` (UInt32, from 0), `name` and `policy_version` of the bundle (String); a column for each
        tuned name (Int64, String or Boolean; named `policy.name` where it would hide another column); then
        `COUNTS` (UInt32). The six states sum to `decisions`, as do the effects. Calls are of `attack`, `honest` or
        `unlabelled` by the label `origin`.
        """
        return self.rows.lazy()

    def bundle(self, version: int) -> Bundle:
        """Return a version's bundle; `bundle.files` are its texts, to be written to a folder.

        Raises:
            BundleNotFound: there is no such version.
        """
        return self._version(version).bundle

    def replay(self, version: int) -> Replay:
        """Return the replay of one version: decided again, unless it is the last that was asked for.

        Raises:
            BundleNotFound: there is no such version.
        """
        found = self._version(version)
        if version not in self._kept:
            self._kept.clear()
            self._kept[version] = self.again(found.bundle)
        return self._kept[version]

    def decisions(self, version: int) -> pl.LazyFrame:
        """Return what one version decides: one row a recorded decision, columns as in `workbench.replay.FRAME`.

        Raises:
            BundleNotFound: there is no such version.

        Cost: a replay, unless it is the last version that was asked for.
        """
        return self.replay(version).frame

    @cached_property
    def pins(self) -> dict[str, Any]:
        """What this sweep rests on: ledgers with their last position, Delta versions, policies, context, engine."""
        return {
            **self.lake.pins.as_dict(),
            **self.lake.narrowing.pins(),
            "policies": [each.bundle.version for each in self.versions],
            "context": self.context,
            "engine": self.engine,
            "schema_version": SCHEMA_VERSION,
        }

    @property
    def tuned(self) -> list[str]:
        """Columns of `frame` that say what was tuned."""
        return [name for name in self.rows.columns if name not in COUNTS and name not in _FIXED]

    @property
    def identity(self) -> list[str]:
        """Columns of `frame` that say which version it is."""
        return [*_FIXED, *self.tuned]

    def part(self, name: str | None = None, of: Literal["n", "money"] = "n") -> pl.DataFrame:
        """Return the counts of a part of the history, one row a version, columns as in `frame`.

        Args:
            name: `search` or `confirm`, if the sweep was split; None: all of it.
            of: count decisions, or add up the money they are about.
        """
        numbers = weighed(self.tallies, part=name, of=of)
        return self.rows.with_columns(
            pl.Series(each, [found[each] for found in numbers], pl.Int64) for each in COUNTS
        )

    def _version(self, number: int) -> Version:
        if not 0 <= number < len(self.versions):
            raise BundleNotFound(
                f"the sweep has no version {number}; they are numbered 0 to {len(self.versions) - 1}"
            )
        return self.versions[number]

    def __repr__(self) -> str:
        from workbench.sweep_view import text  # noqa: PLC0415 - it imports us

        return text(self)

    def _repr_html_(self) -> str:
        from workbench.sweep_view import html  # noqa: PLC0415 - it imports us

        return html(self)


def sweep_lake(
    lake: Lake,
    policy: Given | Sequence[Given],
    over: Over | None = None,
    *,
    context: Given = RECORDED,
    limits: Given | None = None,
    sources: Mapping[str, Any] | None = None,
    versions: Mapping[str, int | str] | None = None,
    at: datetime | None = None,
    engine: EngineName | Engine = "auto",
    split: Split | None = None,
    money: Money | None = None,
    on_rows: Callable[[int], object] | None = None,
) -> Sweep:
    """Replay the history under many versions of a policy. Nothing is executed.

    Args:
        lake: the pinned lake.
        policy: a bundle, its folder, or a version the lake holds; or a list of them.
        over: values by name of a tunable (`policy.name` where several policies use a name); every combination is a
            version, the last name changing fastest.
        context: as `lake.replay` takes it, like the next four.
        limits: whose limits to decide with; None: as recorded.
        sources: locations of sources by name.
        versions: versions of sources by name.
        at: compile facts as they were at this time.
        engine: see `workbench.redeciding.EngineName`.
        split: counts parts of the history apart, too (`Sweep.part`); None: there is one.
        money: tells what decisions are about, in the smallest unit, of `tool` and `args`; adds it up, too.
        on_rows: told how many decisions were decided, now and then; None: a progress bar, where somebody may look.

    Raises:
        BundleError: a bundle cannot be used, a name is no tunable, a value is not allowed; names what is.
        BundleNotFound: no such version in the lake.
        ReplayFailure: there is nothing to sweep; or as `lake.replay`.

    Cost: reading, and a replay of what was recorded; then, in columns, milliseconds a version and half a million
    decisions. Rows that columns do not decide, and all of a small lake's, cost a replay a version.
    """
    tried = versions_of(lake, policy, over or {})
    distinct = list({each.bundle.version: each.bundle for each in tried}.values())
    options = Options(
        context=context, limits=limits, sources=sources, versions=versions, at=at, engine=engine
    )
    again = partial(options.replay, lake)
    decisions = _decisions(lake)
    chosen = chosen_engine(engine, decisions * len(distinct))
    what = f"sweeping {count(len(distinct), 'version')}"
    with progress(len(distinct) * decisions, what, on_rows) as advance:
        tags = tagger(lake, split, money or _nothing)
        if chosen in ("auto", "columnar"):
            strict = chosen == "columnar"
            scanned = sweep_scan(lake, distinct, options, strict=strict, advance=advance, tags=tags)
            tallies, said = scanned.tallies, scanned[1:]
        else:
            tallies, said = _apart(distinct, again, tags, advance)
    by_version = dict(zip((bundle.version for bundle in distinct), tallies, strict=True))
    each = [by_version[version.bundle.version] for version in tried]
    context, name, handed_over, seconds = said
    rows = _frame(tried, weighed(each))
    return Sweep(lake, tried, context, name, rows, again, handed_over, seconds, each, money or _nothing)


def _apart(
    bundles: Sequence[Bundle],
    again: Callable[..., Replay],
    tags: Callable[[pl.DataFrame], Tagged],
    advance: Callable[[int], object],
) -> tuple[list[Tally], tuple[str, str, Mapping[str, int], Mapping[str, float]]]:
    """Replay one version after the other: the tally of each, and what `Scanned` says besides."""
    first = again(bundles[0], on_rows=advance)
    rest = (again(bundle, on_rows=advance) for bundle in bundles[1:])
    tagged = tags(first.rows)  # equal pins give equal rows in equal order
    tallies = [tallied(replay.rows, tagged) for replay in chain([first], rest)]
    return tallies, (first.context, first.engine, dict(first.handed_over), {})


def _nothing(rows: pl.DataFrame) -> pl.Series:
    """No money is declared."""
    return pl.repeat(0, rows.height, dtype=pl.Int64, eager=True)


def versions_of(lake: Lake, policy: Given | Sequence[Given], over: Over) -> tuple[Version, ...]:
    """Make every version that is to be replayed, in order."""
    one = isinstance(policy, str | PathLike | Bundle)
    given = [policy] if one else list(policy)  # type: ignore[arg-type]  # mypy does not narrow by a name
    if not given:
        raise ReplayFailure("a sweep needs a bundle, or a list of at least one")
    bundles = [bundle_of(lake, each) for each in given]  # type: ignore[arg-type]  # as above
    values = {name: _values(name, each) for name, each in over.items()}
    points = [dict(zip(values, point, strict=True)) for point in product(*values.values())]
    made = [tuned(bundle, point) for bundle in bundles for point in points]
    return tuple(
        Version(number=number, bundle=bundle, values={name: find(bundle, name).value for name in values})
        for number, bundle in enumerate(made)
    )


def _values(name: str, given: object) -> list[object]:
    """The values to try for a name; text and single values are refused, not taken apart."""
    listed = not isinstance(given, str | bytes | Mapping) and hasattr(given, "__iter__")
    found = list(given) if listed else []  # type: ignore[call-overload]  # it has `__iter__`
    if not found:
        raise ReplayFailure(
            f"`over` must give a list of values for `{name}`, such as {{{name!r}: [100, 200]}}, got {given!r:.80}"
        )
    return found


def tallied(rows: pl.DataFrame, tagged: Tagged) -> Tally:
    """Count what a replay says.

    Args:
        rows: one row a decision; columns of `workbench.replay.FRAME`.
        tagged: what is known of each besides, in the same order.
    """
    keys = Told._fields
    read = [name for name in keys if name not in Tagged._fields]
    frame = rows.select(read).with_columns(each.alias(name) for name, each in tagged._asdict().items())
    found = Tally()
    for *said, n, money in (
        frame.group_by(keys).agg(pl.len().cast(pl.Int64), pl.col("money").sum()).iter_rows()
    ):
        found.add(Told(*said), n, money)
    return found


def weighed(
    tallies: Sequence[Tally],
    *,
    part: str | None = None,
    of: Literal["n", "money"] = "n",
    counts: Mapping[str, pl.Expr] = COUNTS,
) -> list[dict[str, int]]:
    """Count what tallies say, one result a tally: the numbers, by the names of `counts`.

    Args:
        tallies: of versions.
        part: of the history; None: all of it.
        of: count decisions, or add up the money they are about.
        counts: what to count, over the fields of `Told`.
    """
    kinds = list(dict.fromkeys(told for tally in tallies for told in tally.n if part in (None, told.part)))
    schema = dict.fromkeys(Told._fields, pl.String) | {"verdict_changed": pl.Boolean}
    rows = pl.DataFrame(kinds, schema=schema, orient="row").with_row_index("at")
    each = rows.group_by("at", maintain_order=True).agg(**counts).drop("at")
    found = []
    for tally in tallies:
        sums = tally.n if of == "n" else tally.money
        weights = pl.Series([sums[told] for told in kinds], dtype=pl.Int64)
        found.append(each.select((pl.all().cast(pl.Int64) * weights).sum()).row(0, named=True))
    return found


def _decisions(lake: Lake) -> int:
    return int(lake.history.select(pl.len()).collect().item())


def _frame(versions: Sequence[Version], numbers: Sequence[Mapping[str, int]]) -> pl.DataFrame:
    names = list(versions[0].values)
    columns = [
        pl.Series("version", [each.number for each in versions], pl.UInt32),
        pl.Series("name", [each.bundle.name for each in versions], pl.String),
        pl.Series("policy_version", [each.bundle.version for each in versions], pl.String),
        *_tuned_columns(versions, names),
    ]
    columns += [pl.Series(name, [each[name] for each in numbers], pl.UInt32) for name in COUNTS]
    return pl.DataFrame(columns)


def _tuned_columns(versions: Sequence[Version], names: Sequence[str]) -> Iterator[pl.Series]:
    taken = {*_FIXED, *COUNTS}
    for name in names:
        column = find(versions[0].bundle, name).key if name in taken else name
        values = [each.values[name] for each in versions]
        alike = len({type(value) for value in values}) == 1
        yield pl.Series(column, values if alike else list(map(str, values)))
