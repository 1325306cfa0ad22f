"""What can be reached from an entity, for the entities of a slice.

One rule: two signatures of one `Signatures` are equal exactly if everything reachable is: the same entities, with the
same content, linked in the same way.

Cost: O(entities + links) a slice; a closure is not walked again for each entity above it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workbench.columnar.decoding import Ref, Unfit

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    Links = Callable[[Ref], Sequence[Ref]]

_NOTHING: frozenset[Ref] = frozenset()


def ancestors(parents: Mapping[Ref, Sequence[Ref]]) -> dict[Ref, frozenset[Ref]]:
    """Everything above each entity; parents that are not in the slice count, and have none above them.

    Raises:
        Unfit: an entity is above itself, which Cedar refuses.
    """
    found: dict[Ref, frozenset[Ref]] = {}
    for root in parents:
        order = _after_links(root, lambda ref: parents.get(ref, ()), found)
        if order is None:
            raise Unfit(f"`{root.type}` `{root.id}` is above itself, or below an entity that is")
        for ref in order:
            above = parents.get(ref)
            found[ref] = frozenset(above).union(*(found[each] for each in above)) if above else _NOTHING
    return found


def _after_links(root: Ref, links: Links, known: Mapping[Ref, object]) -> list[Ref] | None:
    """What a root leads to and is not known, the root last, each after all that it leads to; null: in a circle."""
    done: dict[Ref, None] = {}
    opened: set[Ref] = set()
    stack = [root]
    while stack:
        ref = stack[-1]
        if ref in done or ref in known:
            stack.pop()
            continue
        rest = [each for each in links(ref) if each not in done and each not in known]
        if not rest:
            done[ref] = None
            stack.pop()
        elif ref in opened:  # all that was put on top of it is done, but for what waits for it
            return None
        else:
            opened.add(ref)
            stack.extend(rest)
    return list(done)


@dataclass(frozen=True, slots=True)
class Signatures:
    """Signatures of what entities reach, comparable between the slices of one run."""

    _numbers: dict[Hashable, int] = field(default_factory=dict)

    def add(self, root: Ref, links: Links, content: Callable[[Ref], Hashable], found: dict[Ref, int]) -> None:
        """Add the signature of an entity, and of all it leads to.

        Args:
            root: the entity.
            links: what an entity leads to; nothing, if it is not in the slice.
            content: what tells two versions of an entity, and two entities, apart.
            found: the signatures of the slice so far.
        """
        order = _after_links(root, links, found)
        groups = _together(root, links, found) if order is None else [[ref] for ref in order]
        for group in groups:
            below = {found[other] for ref in group for other in links(ref) if other not in group}
            key = frozenset(map(content, group)), frozenset(below)
            # Which of the group an entity is, is no part of it: all of them reach the same.
            found |= dict.fromkeys(group, self._numbers.setdefault(key, len(self._numbers)))


def _together(root: Ref, links: Links, known: Mapping[Ref, object]) -> list[list[Ref]]:
    """The same where there are circles: entities that reach each other, together (Tarjan, without recursion)."""
    number: dict[Ref, int] = {}
    low: dict[Ref, int] = {}
    path: list[Ref] = []
    closed: set[Ref] = set()
    groups: list[list[Ref]] = []
    stack: list[tuple[Ref, list[Ref]]] = [(root, list(links(root)))]
    while stack:
        ref, rest = stack[-1]
        if ref not in number:
            number[ref] = low[ref] = len(number)
            path.append(ref)
        if rest:
            other = rest.pop()
            if other in known or other in closed:
                continue
            if other not in number:
                stack.append((other, list(links(other))))
            else:
                low[ref] = min(low[ref], number[other])
            continue
        stack.pop()
        if stack:
            above = stack[-1][0]
            low[above] = min(low[above], low[ref])
        if low[ref] == number[ref]:
            at = path.index(ref)
            groups.append(path[at:])
            closed.update(path[at:])
            del path[at:]
    return groups
