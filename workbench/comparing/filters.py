"""What a view shows of a comparison: a cell of the matrix or one of the lists, narrowed by tool, policy, tenant.

One rule: a filter is data, and its conditions are the only place that says which rows it means; the list, the counts
beside it, `view.where` and `view.selection` all come from them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from workbench.comparing.conditions import Blames, Condition, Differ, Flag, In, Is, IsNot, Nobody
from workbench.effects import STOPPED
from workbench.errors import FilterUnknown
from workbench.metrics import SIDES
from workbench.texts import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

Side = Literal["tool", "policy", "tenant"]
"""What counts are broken down by, and narrowed."""
FACETS: tuple[Side, ...] = ("tool", "policy", "tenant")
Hue = Literal["good", "bad", "tight", "loose", "doubt", "plain"]
"""Of a list: what it means to find many in it."""

_RAN, _STOPPED = Is("then", "ran"), In("effect", tuple(STOPPED))
_FREED = In("effect", ("released", "escalated"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell of the transition matrix."""

    before: str
    after: str

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.before} → {self.after}"

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Which rows are in it."""
        return (Is("from", self.before), Is("to", self.after))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A list of decisions that people ask for by name."""

    name: str
    title: str
    help: str
    conditions: tuple[Condition, ...]
    hue: Hue


_OWNERS: dict[str, tuple[str, Hue, Hue]] = {
    "attack": ("belong to an attack", "good", "bad"),
    "honest": ("belong to the user's task", "bad", "good"),
    "unlabelled": ("nobody said whose", "tight", "loose"),
}
"""By side: whose its calls are, and what it means to stop and to release them."""


def _of_side(side: str, verb: str) -> tuple[Listed, Listed]:
    owner, stopping, releasing = _OWNERS[side]
    stopped = Listed(
        name=f"{side}_{verb}",
        title=f"{side.capitalize()} calls {verb}",
        help=f"They ran; {owner}.",
        conditions=(Is("side", side), _RAN, _STOPPED),
        hue=stopping,
    )
    released = Listed(
        name=f"{side}_released",
        title=f"{side.capitalize()} calls released",
        help=f"They did not run; now they would, or would wait for approval; {owner}.",
        conditions=(Is("side", side), _FREED),
        hue=releasing,
    )
    return stopped, released


LISTS: tuple[Listed, ...] = (
    Listed(
        name="changed", title="Changed", help="Decided under both versions: another verdict, or another effect.",
        conditions=(Flag("changed"),), hue="plain",
    ),
    *(each for side, verb in SIDES.items() for each in _of_side(side, verb)),
    Listed(
        name="attack_still_run", title="Attack calls that still run",
        help="They ran, belong to an attack, and the candidate lets them run again.",
        conditions=(Is("side", "attack"), _RAN, Is("effect", "same")), hue="bad",
    ),
    Listed(
        name="unresolved", title="Could not be replayed", help="Neither allowed nor blocked: see the cause.",
        conditions=(IsNot("status", "decided"),), hue="doubt",
    ),
    Listed(name="all", title="All decisions", help="Every recorded decision.", conditions=(), hue="plain"),
)  # fmt: skip
"""The lists, by what is asked first. They overlap."""

ALWAYS = frozenset({"changed", "unresolved", "all"})
"""Lists that are shown even where nothing is in them: an empty one says something."""


def differing(columns: Sequence[str]) -> Listed:
    """Return the list of decisions on which candidates differ from each other.

    Args:
        columns: what each candidate says, two or more.
    """
    return Listed(
        name="differ", title="Candidates differ", help="The candidates do not all say the same.",
        conditions=(Differ(columns[0], tuple(columns[1:])),), hue="plain",
    )  # fmt: skip


def side_of(name: str) -> Side:
    """Return the side of that name.

    Raises:
        FilterUnknown: there is none; names those there are.
    """
    for side in FACETS:
        if name == side:
            return side
    raise FilterUnknown(f"decisions are counted by {', '.join(FACETS)}, not by {visible(name)!r:.80}")


@dataclass(frozen=True, slots=True)
class Key:
    """One value that counts are broken down by."""

    side: Side
    value: str | None
    """The tool, policy or tenant; of a policy None: no policy decided."""
    looser: bool = False
    """Where no policy decided: then, rather than now."""

    @property
    def title(self) -> str:
        """In words."""
        if self.value is not None:
            return self.value
        if self.side != "policy":
            return f"(no {self.side})"
        return (
            "(no policy: it was not permitted)"
            if self.looser
            else "(no policy: not permitted, or decided before)"
        )

    @property
    def condition(self) -> Condition:
        """Which rows it has."""
        match self.side, self.value:
            case "policy", None:
                return Nobody(self.looser)
            case "policy", str(policy):
                return Blames(policy)
            case side, value:
                return Is(side, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What is shown."""

    candidate: int = 0
    """Which candidate it is about, from 0."""
    what: Cell | Listed = LISTS[0]
    keys: tuple[Key, ...] = ()
    """One of a side at most; all hold."""

    def conditions(self, *, what: bool = True, without: Side | None = None) -> tuple[Condition, ...]:
        """Return which rows it means.

        Args:
            what: also the cell or list; counts of cells and lists are those of all of them.
            without: leave this side out; counts by tool are those of all tools.
        """
        chosen = self.what.conditions if what else ()
        return (*chosen, *(key.condition for key in self.keys if key.side != without))

    def toggled(self, key: Key) -> Filter:
        """Return the filter with this key chosen in its side's place; without it, if it was chosen."""
        rest = tuple(each for each in self.keys if each.side != key.side)
        return replace(self, keys=rest if key in self.keys else (*rest, key))

    @property
    def title(self) -> str:
        """In words."""
        return ", ".join((self.what.title, *(f"{key.side} {key.title}" for key in self.keys)))
