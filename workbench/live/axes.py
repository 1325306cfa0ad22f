"""What every version of the policies is decided with: contexts, limits, and how the record is checked.

One rule: they are settled when a history is prepared; an edit changes policies and their schema, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workbench.redeciding import Plan
from workbench.rows import RowEngine

if TYPE_CHECKING:
    from runtime.bundle import Bundle
    from workbench.asked import Asked
    from workbench.lake import Lake
    from workbench.recompile import Recompiler


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of `lake.replay`, policies aside."""

    lake: Lake
    asked: Asked
    recompiler: Recompiler | None
    """Compiles contexts again; None: as recorded."""
    verify: Recompiler | None
    """Checks that recorded contexts can be compiled again; None: not asked."""

    @classmethod
    def of(cls, lake: Lake, asked: Asked) -> Axes:
        """Return the axes that are asked for."""
        return cls(lake, asked, asked.recompiler(lake), asked.verifier(lake) if asked.again else None)

    @property
    def itself(self) -> Plan:
        """How the record is replayed by its own policies."""
        return Plan(self.lake, RowEngine(), None, None, None, self.verify)

    def plan(self, bundle: Bundle) -> Plan:
        """How single rows are decided by a bundle."""
        return Plan(self.lake, RowEngine(), bundle, self.asked.limits, self.recompiler, self.verify)

    def bundle_for(self, bundle: Bundle, own: Bundle) -> Bundle:
        """A bundle with the spec and limits that hold for rows of a recorded one."""
        spec = own.spec if self.recompiler is None else self.recompiler.spec or own.spec
        return replace(bundle, spec=spec, limits=(self.asked.limits or own).limits)
