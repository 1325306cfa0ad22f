"""One group of rows decided by many versions of the policies at once.

One rule: what a version says of a row is what `workbench.history.fold` would, made of the same functions; rows of
which every version says the same are one *class*, and only classes are decided.

A version says of a row what follows from four things: which policies (of all versions) hold or err, whether the row's
arguments are what was enforced then, and for each set of patches that some version applies, what comes of applying
it: which policies hold afterwards, and whether that is what was enforced. Rows alike in these are a class. Policies
are evaluated once, patches applied once; a version then costs a few milliseconds, however many rows there are.

Accepted: no reasons, messages or arguments come out; a sweep counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from runtime.policy import conclude
from workbench.atoms import atoms_of
from workbench.history.absent import reached
from workbench.history.fold import refused_rows as refused
from workbench.history.merging import reaching
from workbench.history.patching import patched
from workbench.history.rulings import WORD, Outcome, combinations, outcome_of, permits_of
from workbench.undecided import possible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from runtime.bundle import Bundle
    from runtime.ruling import Answer
    from workbench.history.groups import PolicyGroup
    from workbench.history.merging import Merged
    from workbench.history.patching import Patched

SAID: tuple[tuple[str, str | None], ...] = (
    ("decided", "allow"), ("decided", "modify"), ("decided", "approve"), ("decided", "block"), ("undecided", None),
    ("handed_over", None),
)  # fmt: skip
"""All that is said of a row: status and verdict, by number."""
_NUMBER = {said: number for number, said in enumerate(SAID)}
BLOCK, UNDECIDED, HANDED_OVER = _NUMBER["decided", "block"], _NUMBER["undecided", None], len(SAID) - 1

_ATOM = "atom "
_PATCHED = Outcome(verdict="modify")
_ENDED = {"ended": pl.UInt8, "why": pl.String}


class Version(NamedTuple):
    """What one version says of each class."""

    said: pl.Series
    """UInt8, of `SAID`."""
    same: pl.Series
    """Boolean: what would be run, if anything, is what was enforced then."""
    why: pl.Series
    """String: why a class is handed over; null: it is not."""


@dataclass(frozen=True, slots=True)
class Shared:
    """A group, decided by every version."""

    classes: pl.Series
    """UInt32, one a row of the group."""
    versions: Sequence[tuple[tuple[int, ...], Version]]
    """What versions (by number) say; those that cannot differ here are together."""


@dataclass(slots=True)
class Skeletons:
    """What values of missing facts lead to, asked once for versions that differ in constants alone.

    `possible` looks at how policies are built and at what their atoms read, at no constant.
    """

    _known: dict[tuple[object, ...], bool] = field(default_factory=dict)
    _numbers: list[tuple[object, object]] = field(default_factory=list)
    _of: dict[str, int] = field(default_factory=dict)

    def settled(self, told: Answer, bundle: Bundle, missing: tuple[str, ...]) -> bool:
        """Whether every value gives one verdict and one change; see `workbench.undecided.possible`."""
        key = (self._number(bundle), told, missing)
        if key not in self._known:
            self._known[key] = possible(told, bundle, missing, frozenset()).settled
        return self._known[key]

    def _number(self, bundle: Bundle) -> int:
        if bundle.policy_hash not in self._of:
            infos = {
                ident: (info.effect, info.verdict, info.patch) for ident, info in bundle.policies.items()
            }
            shape = (atoms_of(bundle).trees, infos)
            if shape not in self._numbers:
                self._numbers.append(shape)
            self._of[bundle.policy_hash] = self._numbers.index(shape)
        return self._of[bundle.policy_hash]


def shared(group: PolicyGroup, merged: Merged, recorded: pl.Series, skeletons: Skeletons) -> Shared:
    """Decide a group by every version.

    Args:
        group: rows, with the merged bundle.
        merged: the versions.
        recorded: String, a row a row of the group: arguments that were enforced then; null: none.
        skeletons: kept over groups.
    """
    return _Sharing(group, merged, recorded, skeletons).run()


@dataclass(slots=True)
class _Distinct:
    """The distinct rows of a frame."""

    table: pl.DataFrame
    codes: pl.Series
    """UInt32, one a row of the frame; null for rows that are in no class."""


def _distinct(frame: pl.DataFrame) -> _Distinct:
    table = frame.unique()
    keys = [name for name in frame.columns if table[name].n_unique() > 1] or frame.columns[:1]
    numbered = table.select(keys).with_row_index("code")
    joined = frame.select(keys).join(numbered, on=keys, how="left", nulls_equal=True, maintain_order="left")
    return _Distinct(table, joined["code"])


@dataclass(slots=True)
class _Sharing:
    """A group, being decided."""

    group: PolicyGroup
    merged: Merged
    recorded: pl.Series
    skeletons: Skeletons
    bits: Mapping[str, int] = field(init=False)
    permits: frozenset[str] = field(init=False)
    atoms: Sequence[str] = field(init=False)
    """Ids in the merged bundle, by bit number; empty if nothing is missing."""

    def __post_init__(self) -> None:
        self.atoms = self.group.atom_ids if self.group.missing else ()
        self.bits = {ident: number for number, ident in enumerate(self.group.policy_ids)}
        self.permits = permits_of(self.merged.bundle.policies)

    def run(self) -> Shared:
        group = self.group
        masks = [_words(group.masks())]
        if group.missing:
            masks.append(_words(group.atoms()).rename(lambda name: _ATOM + name))
        first = _distinct(pl.concat(masks, how="horizontal"))
        alike = self._alike()
        firsts = [_First.of(self, first.table, numbers[0]) for numbers in alike]
        patches = self._patches(firsts, first.codes)
        frame = pl.DataFrame({"first": first.codes, "same": group.args.eq_missing(self.recorded)})
        frame = frame.with_columns(each.codes.alias(f"patch {n}") for n, each in enumerate(patches.values()))
        whole = _distinct(frame)
        found = [
            (numbers, self._version(whole.table, each, patches))
            for numbers, each in zip(alike, firsts, strict=True)
        ]
        return Shared(whole.codes, found)

    def _alike(self) -> list[tuple[int, ...]]:
        """Versions by number, those together that have the same policies but for some that never apply here."""
        group = self.group
        applies = reaching(self.merged, group.tool) if group.missing else self._applying()
        found: dict[frozenset[str], list[int]] = {}
        for number, ids in enumerate(self.merged.ids):
            found.setdefault(applies & frozenset(ids.values()), []).append(number)
        return [tuple(numbers) for numbers in found.values()]

    def _applying(self) -> frozenset[str]:
        ids = self.group.policy_ids
        return frozenset(ids[int(name[1:])] for name in self.group.compiled.kernel.plan.names)

    def masks_of(self, table: pl.DataFrame, version: int) -> pl.DataFrame:
        """A version's own policies, of all."""
        return _kept(table, "", (self.bits[ident] for ident in self.merged.ids[version].values()))

    def waits(self, table: pl.DataFrame, version: int) -> pl.Series:
        """Which rows of a table hang on what was not recorded (Boolean)."""
        group = self.group
        if not group.missing:
            return pl.repeat(False, table.height, dtype=pl.Boolean, eager=True)
        own = self.merged.atoms(version)
        bundle = self.merged.versions[version]
        ids = [own.get(ident, "") for ident in self.atoms]
        masks = _kept(table, _ATOM, (number for number, ident in enumerate(ids) if ident))
        found = combinations(reached(masks, ids, bundle), ids, frozenset(ids))
        open_ = [not self.skeletons.settled(told, bundle, group.missing) for told in found.answers]
        return pl.Series("waits", open_, dtype=pl.Boolean).gather(found.codes)

    def _patches(self, firsts: Iterable[_First], codes: pl.Series) -> dict[tuple[str, ...], _Distinct]:
        """What comes of each set of patches that some version applies to some row."""
        wanted: dict[tuple[str, ...], pl.Series] = {}
        for each in firsts:
            for policies, where in each.patched():
                wanted[policies] = wanted[policies] | where if policies in wanted else where
        value = cache(self.group.value)
        return {
            policies: self._applied(patched(self.group, where.gather(codes).arg_true(), policies, value))
            for policies, where in wanted.items()
            if where.any()
        }

    def _applied(self, found: Patched) -> _Distinct:
        """The classes of rows that patches were applied to; other rows of the group are in none."""
        parts = [
            found.stopped.select("row", ended=pl.lit(BLOCK)),
            found.handed_over.select("row", "why", ended=pl.lit(HANDED_OVER)),
        ]
        if found.rows.len():
            parts.append(self._again(found))
        frame = pl.concat(parts, how="diagonal_relaxed")
        lacking = [
            pl.lit(None, dtype).alias(name) for name, dtype in _ENDED.items() if name not in frame.columns
        ]
        frame = frame.with_columns(lacking)
        distinct = _distinct(frame.drop("row"))
        everywhere = pl.Series("code", [None], dtype=pl.UInt32).new_from_index(0, self.group.height)
        return _Distinct(distinct.table, everywhere.scatter(frame["row"], distinct.codes))

    def _again(self, found: Patched) -> pl.DataFrame:
        masks, bad = self.group.again(found.rows, found.leaves)
        frame = _words(masks).with_columns(
            row=found.rows, same=found.texts.eq_missing(self.recorded.gather(found.rows))
        )
        if self.group.missing:
            atoms = _words(self.group.atoms_again(found.rows, found.leaves))
            frame = frame.hstack(atoms.rename(lambda name: _ATOM + name))
        ends = [refused(_PATCHED, reason) for reason in bad["reason"]]
        ended = pl.DataFrame(
            {
                "at": bad["row"],
                "ended": [BLOCK if each.verdict == "block" else HANDED_OVER for each in ends],
                "why": [each.why for each in ends],
            },
            schema={"at": pl.UInt32, **_ENDED},
        ).unique("at", keep="last", maintain_order=True)
        return frame.with_row_index("at").join(ended, on="at", how="left", maintain_order="left").drop("at")

    def _version(
        self, table: pl.DataFrame, first: _First, patches: Mapping[tuple[str, ...], _Distinct]
    ) -> Version:
        codes = table["first"]
        frame = table.select(
            "same",
            said=first.said.gather(codes),
            why=pl.lit(None, pl.String),
            patch=first.patch.gather(codes),
        )
        for number, (policies, each) in enumerate(patches.items()):
            if policies not in first.sets:
                continue
            second = self._second(each.table, first, policies)
            at = table[f"patch {number}"]
            here = pl.col("patch") == first.sets.index(policies)
            frame = frame.with_columns(
                pl.when(here).then(column.gather(at)).otherwise(name).alias(name)
                for name, column in zip(("said", "same", "why"), second, strict=True)
            )
        return Version(frame["said"], frame["same"].fill_null(value=False), frame["why"])

    def _second(self, table: pl.DataFrame, first: _First, policies: tuple[str, ...]) -> Version:
        """What a version says of the classes of a set of patches."""
        if "same" not in table.columns:  # all of them ended before
            nothing = pl.Series("same", [False]).new_from_index(0, table.height)
            return Version(table["ended"], nothing, table["why"])
        words = table.with_columns(pl.col(pl.UInt64).fill_null(0))
        again = combinations(self.masks_of(words, first.version), self.group.policy_ids, self.permits)
        infos = self.merged.bundle.policies
        verdicts = [conclude(policies, answer, infos).verdict for answer in again.answers]
        numbers = pl.Series([_NUMBER["decided", verdict] for verdict in verdicts], dtype=pl.UInt8)
        said = numbers.gather(again.codes).set(self.waits(words, first.version), UNDECIDED)
        frame = table.select("same", "why", said=pl.coalesce("ended", said))
        return Version(frame["said"], frame["same"].fill_null(value=False), frame["why"])


@dataclass(frozen=True, slots=True)
class _First:
    """What one version says before patches are applied, of each class of the first evaluation."""

    version: int
    said: pl.Series
    patch: pl.Series
    """UInt32: which of `sets` is to be applied; null: none."""
    sets: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, sharing: _Sharing, table: pl.DataFrame, version: int) -> _First:
        masks = sharing.masks_of(table, version)
        found = combinations(masks, sharing.group.policy_ids, sharing.permits)
        made = [outcome_of(answer, sharing.merged.bundle.policies) for answer in found.answers]
        sets = tuple(dict.fromkeys(each.determining for each in made if each.verdict == "modify"))
        waits = sharing.waits(table, version)
        said = pl.Series([_NUMBER["decided", each.verdict] for each in made], dtype=pl.UInt8)
        patch = [sets.index(each.determining) if each.verdict == "modify" else None for each in made]
        patches = pl.DataFrame(
            {"patch": pl.Series(patch, dtype=pl.UInt32).gather(found.codes), "waits": waits}
        )
        return cls(
            version,
            said.gather(found.codes).set(waits, UNDECIDED),
            patches.select(pl.when(~pl.col("waits")).then("patch").alias("patch"))["patch"],
            sets,
        )

    def patched(self) -> Iterator[tuple[tuple[str, ...], pl.Series]]:
        """Yield each set of patches, and the classes (Boolean) it is applied to."""
        for number, policies in enumerate(self.sets):
            yield policies, (self.patch == number).fill_null(value=False)


def _words(masks: pl.DataFrame) -> pl.DataFrame:
    return masks.select(name for name in masks.columns if name != "refused")


def _kept(table: pl.DataFrame, prefix: str, bits: Iterable[int]) -> pl.DataFrame:
    """The words of a table, all but some bits cleared; without the prefix of their names."""
    keep: dict[int, int] = {}
    for bit in bits:
        keep[bit // WORD] = keep.get(bit // WORD, 0) | 1 << bit % WORD
    starts = (f"{prefix}satisfied_", f"{prefix}errored_")
    return table.select(
        (pl.col(name) & pl.lit(keep.get(int(name.rpartition("_")[2]), 0), pl.UInt64)).alias(
            name.removeprefix(prefix)
        )
        for name in table.columns
        if name.startswith(starts)
    )
