"""Searches in texts, the dearest operations of all: fewer of them, over fewer rows.

One rule: a search is changed only where nobody else asks for what it finds, and where the rows left out cannot
change the answer.

* `t like "*a*" || t like "*b*"` walks over each text once.
* `c && t like "*a*"` searches where `c` holds; elsewhere the text is null, and nothing is found in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.columnar.nodes import TRUE, Node, and_, filled, made, or_, ordered, rebuilt, uses_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEEPEST = 8
"""Conditions inside each other that are looked through for a search."""
_CONDITIONS = frozenset({"and", "or", "not", "filled"})


def searched(outputs: Mapping[str, Node]) -> dict[str, Node]:
    """The same outputs, with cheaper searches."""
    if not any(map(_is_search, ordered(outputs.values()))):
        return dict(outputs)
    return _masked(_merged(outputs))


def _is_search(node: Node) -> bool:
    """Whether a node walks over texts; comparing their ends costs little."""
    if node.op == "like":
        return len(node.param) > 2 or node.param == (None, None)  # type: ignore[arg-type]  # parts of a pattern  # noqa: PLR2004
    return node.op == "like_any"


def _merged(outputs: Mapping[str, Node]) -> dict[str, Node]:
    """Search a text once for all that one `or` asks for."""
    every = ordered(outputs.values())
    uses = uses_of(every, outputs.values())
    known: dict[Node, Node] = {}
    for node in every:
        by_text: dict[Node, list[Node]] = {}
        for arg in node.args if node.op == "or" else ():
            if uses[arg] == 1 and _needle(arg):
                by_text.setdefault(_like(arg).args[0], []).append(arg)
        joined = {arg: text for text, args in by_text.items() if len(args) > 1 for arg in args}
        if joined:
            rest = [known[arg] for arg in node.args if arg not in joined]
            texts = dict.fromkeys(joined.values())
            known[node] = or_(*rest, *(_any(known[text], by_text[text]) for text in texts))
        else:
            known[node] = rebuilt(node, tuple(known[arg] for arg in node.args))
    return {name: known[node] for name, node in outputs.items()}


def _like(node: Node) -> Node:
    return node.args[0] if node.op == "filled" else node


def _needle(node: Node) -> str | None:
    """The one text that a node searches for, between whatever; null: it does something else."""
    like = _like(node)
    match like.op, like.param:
        case "like", (None, str(needle), None):
            return needle
        case _:
            return None


def _any(text: Node, likes: list[Node]) -> Node:
    needles = tuple(needle for like in likes if (needle := _needle(like)))
    return filled(made("like_any", (text,), needles, "bool", nullable=text.nullable))


def _masked(outputs: Mapping[str, Node]) -> dict[str, Node]:
    """Search only where all else of a conjunction holds."""
    every = ordered(outputs.values())
    work = _Masking(every, uses_of(every, outputs.values()))
    for node in every:
        work.add(node)
    return {name: work.known[node] for name, node in outputs.items()}


class _Masking:
    def __init__(self, every: list[Node], uses: Mapping[Node, int]) -> None:
        self.known: dict[Node, Node] = {}
        self.depths: dict[Node, int] = {}
        """Conditions with a search in them that nobody else asks for, and how deep it is."""
        for node in every:
            below = [self.depths[arg] for arg in node.args if arg in self.depths]
            if uses[node] > 1 or not (_is_search(node) or (node.op in _CONDITIONS and below)):
                continue
            if (depth := max(below, default=0) + 1) <= _DEEPEST:
                self.depths[node] = depth

    def add(self, node: Node) -> None:
        """Change a node, those that it is made of having been added."""
        mixed = node.op == "and" and 0 < sum(arg in self.depths for arg in node.args) < len(node.args)
        self.known[node] = (
            self._where(node, TRUE) if mixed else rebuilt(node, tuple(self.known[arg] for arg in node.args))
        )

    def _where(self, node: Node, here: Node) -> Node:
        """A condition whose searches are made in the rows of `here` alone, where alone it counts."""
        if node.op == "and":
            plain = [self.known[arg] for arg in node.args if arg not in self.depths]
            here = and_(here, *plain)
            return and_(*plain, *(self._where(arg, here) for arg in node.args if arg in self.depths))
        if not _is_search(node):
            return rebuilt(
                node, tuple(self._where(a, here) if a in self.depths else self.known[a] for a in node.args)
            )
        text = made("where", (here, self.known[node.args[0]]), None, "text", nullable=True)
        return rebuilt(node, (text,))
