"""A real comparison of a small reviewed lake, made once a process."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.bench.reviewed import reviewed_lake
from workbench.compare import compare
from workbench.lake import open_lake
from workbench.shipped import shipped

if TYPE_CHECKING:
    from workbench.compare import Diff

DECISIONS = 1_500
GATES = {"gates": [{"quantity": "good_held_share", "at_most": 0.01}]}


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="redecide-desk-")


@cache
def desk() -> Diff:
    """Return what the stricter candidate would have made of a support desk's sessions."""
    lake = open_lake(reviewed_lake(Path(_folder().name), DECISIONS))
    return compare(lake.replay(recompile=False), lake.replay(shipped("support-desk/candidate")), gates=GATES)
