"""Policies one by one: what an edit changes is found policy by policy, by what each decides.

One rule: two policies of equal `body` and `values` hold and err in the same rows, whatever they are called; so what
was evaluated of one is known of the other.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from cedarpy import pst

from workbench.atoms import leaves_of, split
from workbench.columnar.policies import document_tree, filled, read_policies
from workbench.history.merging import MergedPolicy as Merging
from workbench.history.merging import document_of, policies_of, reaches
from workbench.undecided import overlap, refs_of, touches

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from runtime.bundle import Bundle
    from workbench.atoms import Atoms
    from workbench.columnar.policies import Policies

_KEPT = 4_096
"""Texts of policies, and bundles of them, that are remembered."""
ID = "policy"


@dataclass(frozen=True)
class Text:
    """What a policy decides by, without its name, verdict and patch."""

    body: str
    """Cedar's JSON, annotations left out: of the policy, or of the template it is linked from."""
    values: str
    """JSON of a link's values; empty: no link."""
    read: Policies = field(compare=False)
    """The one policy, as the compiler takes it."""
    document: Mapping[str, Any] = field(compare=False)
    """`body`, read."""

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.body, self.values))

    @cached_property
    def atoms(self) -> Atoms:
        """The policy, taken apart."""
        (policy,) = self.read.every
        whole = {ID: filled(policy.template, policy.slots)}
        return split(pst.PolicySet(templates={}, static_policies=whole, template_links=()))

    @cached_property
    def parts(self) -> Policies:
        """Its atoms as policies, in the order of their numbers."""
        return read_policies(self.atoms.engine)

    def reaches(self, tool: str) -> bool:
        """Whether it may have to do with a tool's calls; see `workbench.history.merging.reaching`."""
        return reaches(self.document, tool)

    def reads(self, names: tuple[tuple[str, ...], ...]) -> bool:
        """Whether its value may hang on one of these missing names."""
        return any(touches(atom, name) for atom in leaves_of(self.atoms.trees[ID]) for name in names)


@dataclass(frozen=True)
class Alone:
    """One policy of a bundle."""

    id: str
    key: tuple[str, ...]
    """Equal keys decide equally, name, verdict and patch included."""
    text: Text
    refs: tuple[tuple[str, ...], ...]
    """What its patch refers to."""

    def concerned(self, names: tuple[tuple[str, ...], ...]) -> bool:
        """Whether missing names may change what it decides or writes."""
        return self.text.reads(names) or any(overlap(ref, name) for ref in self.refs for name in names)


@dataclass(slots=True)
class Shelf:
    """Policies that were read before."""

    _texts: OrderedDict[tuple[str, str], Text] = field(default_factory=OrderedDict)

    def policies(self, bundle: Bundle) -> tuple[Alone, ...]:
        """Return a bundle's policies, sorted by id."""
        found = [
            Alone(each.info.id, each.key, self._text(each), tuple(refs_of(each.info.patch)))
            for each in policies_of(bundle)
        ]
        return tuple(sorted(found, key=lambda alone: alone.id))

    def _text(self, policy: Merging) -> Text:
        key = (policy.body, policy.values)
        if key not in self._texts:
            read = read_policies(document_tree(document_of({ID: policy})))
            self._texts[key] = Text(*key, read, json.loads(policy.body))
        self._texts.move_to_end(key)
        while len(self._texts) > _KEPT:
            self._texts.popitem(last=False)
        return self._texts[key]
