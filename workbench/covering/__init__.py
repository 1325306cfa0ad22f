"""Coverage: which policies, clauses, contexts and values the decisions of a lake exercised, and which they never met.

`scanning` counts, a chunk at a time; `counts` keeps and merges what was counted; `clauses`, `values` and `boundaries`
say what there is to count. `result` is the answer with its faces, `gap` what one has and another lacks.
"""

from __future__ import annotations

from workbench.covering.gap import CoverageGap
from workbench.covering.result import Coverage, coverage

__all__ = ["Coverage", "CoverageGap", "coverage"]
