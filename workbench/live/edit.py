"""One bundle, decided over a prepared history: part by part, then what is left to Cedar.

One rule: only what the bundle changes beside what is kept is worked out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from runtime.schema import SCHEMA_FILE
from workbench.history.sharing import Skeletons
from workbench.live.alone import Shelf
from workbench.live.folding import Fold, Piece
from workbench.live.keeping import Kept
from workbench.live.waiting import Asking
from workbench.recorded import counters_read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from runtime.bundle import Bundle
    from workbench.live.alone import Alone
    from workbench.live.evaluating import Evaluated
    from workbench.live.history import History
    from workbench.live.left import ByCedar
    from workbench.live.parts import LivePart, Rows
    from workbench.live.patches import Batches
    from workbench.live.reading import Typed

_SHARES = (0.5, 0.3, 0.2)
"""Of the bytes that are kept: what policies say, patched rows, parts as they were decided."""
_EDITS = 4_096
"""Edits after which what was worked out about missing facts is forgotten."""


@dataclass(slots=True)
class Memory:
    """What edits leave for the next one."""

    evaluated: Kept[Evaluated]
    batches: Kept[Batches]
    pieces: Kept[Piece]
    shelf: Shelf = field(default_factory=Shelf)
    skeletons: Skeletons = field(default_factory=Skeletons)
    edits: int = 0

    @classmethod
    def of(cls, most: int) -> Memory:
        """An empty one, of so many bytes at most."""
        one, two, three = (int(most * share) for share in _SHARES)
        return cls(Kept(one), Kept(two), Kept(three))

    @property
    def used(self) -> int:
        """Bytes."""
        return self.evaluated.used + self.batches.used + self.pieces.used

    def next(self) -> None:
        """Begin an edit."""
        self.edits += 1
        if self.edits % _EDITS == 0:
            self.skeletons = Skeletons()


class Asked(NamedTuple):
    """Rows that columns left to Cedar."""

    reasons: dict[str, int]
    rows: Rows
    """Those that it decided."""
    codes: NDArray[np.int32]
    """What it says of them."""
    left: int
    """How many others there are."""


@dataclass(slots=True)
class Edit:
    """A bundle, being decided."""

    history: History
    typed: Typed
    memory: Memory
    cedar: ByCedar
    bundle: Bundle
    cancelled: Callable[[], bool]
    policies: tuple[Alone, ...] = field(init=False)
    _reaching: dict[str, tuple[Alone, ...]] = field(default_factory=dict)
    _bundles: dict[tuple[str, str], Bundle] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.policies = self.memory.shelf.policies(self.bundle)

    def pieces(self) -> list[tuple[LivePart, Piece]] | None:
        """Decide every part; None: cancelled."""
        found = []
        for part in self.typed.parts:
            if self.cancelled():
                return None
            found.append((part, self._piece(part)))
        return found

    def _piece(self, part: LivePart) -> Piece:
        bundle, policies = self._with(part.own), self._for(part.tool)
        missing = self._missing(part, bundle)
        key = (part.number, tuple(each.key for each in policies), missing)
        piece = self.memory.pieces.get(key)
        if piece is None:
            asking = Asking(bundle, policies, missing, self.memory.skeletons)
            piece = Fold(part, asking, self.history.book, self.memory.batches).run()
            self.memory.pieces.put(key, piece, piece.size)
        return piece

    def _for(self, tool: str) -> tuple[Alone, ...]:
        """The policies that may have to do with a tool's calls."""
        if tool not in self._reaching:
            self._reaching[tool] = tuple(each for each in self.policies if each.text.reaches(tool))
        return self._reaching[tool]

    def _with(self, own: Bundle) -> Bundle:
        """The bundle with the spec and limits that hold for rows of a recorded one."""
        key = (own.spec.hash, own.limits.hash)
        if key not in self._bundles:
            self._bundles[key] = self.history.axes.bundle_for(self.bundle, own)
        return self._bundles[key]

    def _missing(self, part: LivePart, bundle: Bundle) -> tuple[tuple[str, ...], ...]:
        ancestors = frozenset().union(*(each.text.atoms.ancestors for each in self.policies))
        own = bundle.policy_hash == part.own.policy_hash
        key = (part.number, own, counters_read(bundle), ancestors)
        known = self.typed.missing
        if key not in known:
            known[key] = part.missing(bundle)
        return known[key]

    def by_cedar(self, pieces: Sequence[tuple[LivePart, Piece]], most: int) -> Asked | None:
        """Ask Cedar about what columns left, if that is not too much; None: cancelled."""
        reasons = Counter({why: len(rows) for why, rows in self.typed.left.items()})
        whole = [np.zeros(0, np.intp), *self.typed.left.values()]
        for part, piece in pieces:
            for why, places in piece.left.items():
                reasons[why] += len(places)
                whole.append(part.rows[places])
        rows = np.concatenate(whole)
        by_tool = self._by_tool(rows)
        new = {key: self.cedar.unknown(key, mine) for key, mine in by_tool.items()}
        if sum(map(len, new.values())) <= most:
            for key, those in new.items():
                if len(those) and not self.cedar.decide(key, those, self.bundle, self.cancelled):
                    return None
        known = [self.cedar.known(key, mine) for key, mine in by_tool.items()]
        decided = np.concatenate([rows[:0], *(mine for mine, _ in known)])
        codes = np.concatenate([np.zeros(0, np.int32), *(said for _, said in known)])
        return Asked(dict(reasons), decided, codes, len(rows) - len(decided))

    def _by_tool(self, rows: Rows) -> dict[object, Rows]:
        """Rows by all that Cedar's answer hangs on: the tool, the policies for it, what may be missing."""
        tools = np.array([key.tool for key in self.history.keys], object)[self.history.key[rows]]
        own = self.bundle.policy_hash if self.bundle.policy_hash in self.history.own else ""
        schema = self.bundle.files[SCHEMA_FILE]
        found: dict[object, Rows] = {}
        for tool in dict.fromkeys(tools):
            those = tuple(each.key for each in self._for(tool))
            found[tool, those, schema, own] = rows[tools == tool]
        return found
