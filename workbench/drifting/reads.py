"""Which policies read a variable, and how many decisions such a policy determined.

One rule: what a policy may read is read off its text: attribute chains whose value or presence it takes, and the
references of its patches. A chain that is read as a whole reads all that is below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.atoms import atoms_of, leaves_of
from workbench.undecided import refs_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.bundle import Bundle
    from workbench.atoms import Path
    from workbench.drifting.values import Name, Window
    from workbench.history.contexts import Contexts

_ENTITIES = {("principal",), ("resource",), ("action",)}


@dataclass(frozen=True, slots=True)
class Reads:
    """The policies in force in a window, what they read, and how often they determined."""

    paths: dict[tuple[str, str], frozenset[Path]]
    """By bundle version and policy."""
    determined: pl.DataFrame
    """`bundle_version`, `tool`, `policies` (List[String]: determining, of both evaluations), `n`."""
    members: dict[str, frozenset[str]]
    """Attributes that a fact gives its entity, by fact."""

    @classmethod
    def of(cls, window: Window, contexts: Contexts) -> Reads:
        """Read the policies of a window's decisions. One pass over two columns of lists."""
        both = (
            pl.concat_list(pl.col("determining").fill_null([]), pl.col("enforced_determining").fill_null([]))
            .list.unique()
            .list.sort()
        )
        rows = window.rows("bundle_version", "tool", "determining", "enforced_determining")
        keys = ("bundle_version", "tool", "policies")
        counted = rows.select("bundle_version", "tool", policies=both).group_by(keys).len("n").sort(keys)
        paths: dict[tuple[str, str], frozenset[Path]] = {}
        for version in counted["bundle_version"].unique():
            bundle = window.lake.find_bundle(version)
            if bundle is not None:
                paths |= {(version, ident): frozenset(found) for ident, found in _read_by(bundle)}
        members = {
            name: frozenset(found.frame["names"].explode(empty_as_null=True).drop_nulls())
            for name, found in contexts.facts.items()
        }
        return cls(paths, counted, members)

    def of_variable(self, name: Name) -> dict[str, Any]:
        """Return `policies` that read it, sorted, and `decisions` that one of them determined."""
        if name.what == "mix":
            return {"policies": [], "decisions": 0}
        wanted = self._paths_of(name)
        readers = {
            key
            for key, paths in self.paths.items()
            if any(_overlap(path, read) for path in wanted for read in paths)
        }
        pairs = pl.DataFrame(
            sorted(readers), schema={"bundle_version": pl.String, "policies": pl.String}, orient="row"
        )
        rows = self.determined if name.tool is None else self.determined.filter(tool=name.tool)
        each = rows.with_row_index("at").explode("policies", empty_as_null=True)
        hang = each.join(pairs, on=("bundle_version", "policies"), how="semi").unique("at")
        return {"policies": sorted({ident for _, ident in readers}), "decisions": int(hang["n"].sum())}

    def _paths_of(self, name: Name) -> list[Path]:
        """Where policies have a variable; whether a fact is there, and how old it is, is about all it gives."""
        path = tuple(name.path.split("."))
        if name.fact is None or path[0] == "context" or len(path) > 1:
            return [path]
        return [(*path, member) for member in sorted(self.members.get(name.fact, ()))]


def _read_by(bundle: Bundle) -> Iterator[tuple[str, set[Path]]]:
    """What each policy of a bundle reads."""
    for ident, tree in atoms_of(bundle).trees.items():
        read = {path for atom in leaves_of(tree) for path in (*atom.reads, *atom.asks)}
        read |= set(refs_of(bundle.policies[ident].patch))
        yield ident, read - _ENTITIES  # who it is, is no attribute of theirs


def _overlap(one: Path, two: Path) -> bool:
    """Whether one chain is the other, or leads to it; what is read of something computed may be any attribute."""
    if two[:1] == ("",):
        return one[-1:] == two[-1:]
    return one[: len(two)] == two[: len(one)]
