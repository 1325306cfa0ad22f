"""Many bundles of one schema as one, so that what they share is evaluated once.

One rule: a policy two bundles have under one id, with the same text, verdict and patch, is one policy; every other
stands beside it. Nothing decides by the merged bundle as a whole: a version is a set of its policies.

Ids in the merged bundle are numbers that sort as the policies' own ids do, because the order of ids decides which of
two patches is looked at first.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from runtime.canonical import sha256
from workbench.atoms import atoms_of, leaves_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.bundle import Bundle, PolicyInfo


@dataclass(frozen=True, slots=True)
class Merged:
    """Bundles of one schema, merged."""

    bundle: Bundle
    """Every policy once; its id is its number."""
    versions: tuple[Bundle, ...]
    ids: tuple[Mapping[str, str], ...]
    """For each version, the merged id by the policy's own."""

    def atoms(self, version: int) -> dict[str, str]:
        """Return a version's own ids of its atoms, by the ids they have in `atoms_of(self.bundle)`."""
        ours, theirs = atoms_of(self.bundle).trees, atoms_of(self.versions[version]).trees
        return {
            our.id: their.id
            for own, merged in self.ids[version].items()
            for our, their in zip(leaves_of(ours[merged]), leaves_of(theirs[own]), strict=True)
        }

    def ancestors(self, version: int) -> frozenset[str]:
        """Return which of `principal` and `resource` a version asks the ancestors of, as `reads_ancestors` does."""
        trees = atoms_of(self.bundle).trees
        atoms = (atom for ident in self.ids[version].values() for atom in leaves_of(trees[ident]))
        return frozenset().union(*(atom.hierarchy for atom in atoms))


@dataclass(frozen=True, slots=True)
class MergedPolicy:
    """A policy that decides, as the merged document needs it."""

    info: PolicyInfo
    body: str
    """Cedar's JSON, annotations left out: of the policy, or of the template it is linked from."""
    values: str
    """JSON of a link's values; empty: no link."""

    @property
    def key(self) -> tuple[str, ...]:
        """Equal keys decide equally."""
        info = self.info
        return (info.id, info.effect, info.verdict, json.dumps(info.patch), self.body, self.values)


def merged(versions: Sequence[Bundle]) -> Merged:
    """Merge bundles. Schema, spec and limits are the first one's."""
    found = [list(policies_of(bundle)) for bundle in versions]
    every = {policy.key: policy for policies in found for policy in policies}
    numbers = {key: f"p{number:08}" for number, key in enumerate(sorted(every))}
    document = document_of({numbers[key]: policy for key, policy in every.items()})
    bundle = replace(
        versions[0],
        name="merged",
        policies={numbers[key]: replace(each.info, id=numbers[key]) for key, each in every.items()},
        document=document,
        policy_hash=sha256(json.dumps([document, [each.policy_hash for each in versions]])),
        tunables={},
    )
    ids = tuple({policy.info.id: numbers[policy.key] for policy in policies} for policies in found)
    return Merged(bundle, tuple(versions), ids)


def policies_of(bundle: Bundle) -> Iterator[MergedPolicy]:
    """Yield what decides in a bundle: policies, and links of templates."""
    document = bundle.document
    for ident, body in document["staticPolicies"].items():
        yield MergedPolicy(bundle.policies[ident], _body(body), "")
    for link in document["templateLinks"]:
        body = document["templates"][link["templateId"]]
        values = json.dumps(link["values"], sort_keys=True)
        yield MergedPolicy(bundle.policies[link["newId"]], _body(body), values)


def _body(body: Mapping[str, Any]) -> str:
    return json.dumps({**body, "annotations": {}}, sort_keys=True)


def document_of(policies: Mapping[str, MergedPolicy]) -> dict[str, Any]:
    """Return policies as one policy set in Cedar's JSON format."""
    linked = {ident: policy for ident, policy in policies.items() if policy.values}
    return {
        "staticPolicies": {
            ident: json.loads(policy.body) for ident, policy in policies.items() if not policy.values
        },
        "templates": {f"t{ident}": json.loads(policy.body) for ident, policy in linked.items()},
        "templateLinks": [
            {"templateId": f"t{ident}", "newId": ident, "values": json.loads(policy.values)}
            for ident, policy in linked.items()
        ],
    }


def reaching(merged: Merged, tool: str) -> frozenset[str]:
    """Return merged ids of the policies that may have to do with a tool's calls: versions alike in them decide alike.

    Left out are those of one other action, unless their scope asks for ancestors: a record may not say those.
    """
    document = merged.bundle.document
    bodies = dict(document["staticPolicies"])
    bodies |= {link["newId"]: document["templates"][link["templateId"]] for link in document["templateLinks"]}
    return frozenset(ident for ident, body in bodies.items() if reaches(body, tool))


def reaches(body: Mapping[str, Any], tool: str) -> bool:
    """Tell whether a policy may be about a tool, by its action scope."""
    action = body["action"]
    other = action["op"] == "==" and action["entity"]["id"] != tool
    return not other or any("in" in (body[role]["op"], *body[role]) for role in ("principal", "resource"))


def families(versions: Sequence[Bundle]) -> list[tuple[tuple[int, ...], Merged]]:
    """Merge the versions that can be: those of one schema that ask for the ancestors of the same roles."""
    found: list[tuple[tuple[int, ...], Merged]] = []
    for numbers in _alike([version.schema for version in versions]):
        whole = merged([versions[number] for number in numbers])
        parts = _alike([whole.ancestors(place) for place in range(len(numbers))])
        for places in parts:
            mine = tuple(numbers[place] for place in places)
            found.append((mine, whole if len(parts) == 1 else merged([versions[n] for n in mine])))
    return found


def _alike(values: Sequence[object]) -> list[tuple[int, ...]]:
    """Places of equal values, together."""
    kinds: list[object] = []
    places: list[list[int]] = []
    for place, value in enumerate(values):
        if value not in kinds:
            kinds.append(value)
            places.append([])
        places[kinds.index(value)].append(place)
    return [tuple(each) for each in places]
