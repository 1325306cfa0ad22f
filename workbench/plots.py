"""Pictures of results, offline: `wb.plots.effects(diff)` and its like; see `workbench.plotting`."""

from __future__ import annotations

from workbench.plotting import (
    MAX_BARS,
    Plot,
    Theme,
    coverage_map,
    drift,
    effects,
    intervals,
    pareto,
    policies,
    transitions,
    verdicts,
)

__all__ = [
    "MAX_BARS", "Plot", "Theme", "coverage_map", "drift", "effects", "intervals", "pareto", "policies", "transitions",
    "verdicts",
]  # fmt: skip
