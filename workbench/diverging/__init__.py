"""First divergence: which decisions of a log still mean what they say under a candidate, and which no longer do."""

from __future__ import annotations

from workbench.diverging.result import DIVERGENCE, Divergence, divergence

__all__ = ["DIVERGENCE", "Divergence", "divergence"]
