"""Pictures, offline: each shows numbers of a result, in a notebook, a report and as a file. `wb.plots` has them.

`plot` is the picture itself, `folding` keeps ten thousand names to fifteen; the others draw one kind of result each.
"""

from __future__ import annotations

from workbench.plotting.bounds import intervals
from workbench.plotting.comparisons import effects, policies, transitions
from workbench.plotting.folding import MAX_BARS
from workbench.plotting.fronts import pareto
from workbench.plotting.maps import coverage_map
from workbench.plotting.plot import Plot, Theme
from workbench.plotting.shifts import drift
from workbench.plotting.times import verdicts

__all__ = [
    "MAX_BARS", "Plot", "Theme", "coverage_map", "drift", "effects", "intervals", "pareto", "policies", "transitions",
    "verdicts",
]  # fmt: skip
