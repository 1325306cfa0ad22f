"""Histories that answer while policies are edited.

`prepare` reads a history once; `Live.decide` then says what a bundle makes of it, exactly as a replay would, in a
fraction of a second for a million decisions.
"""

from __future__ import annotations

from workbench.live.answer import Answer
from workbench.live.change import Change, Listed
from workbench.live.engine import Live, never, prepare

__all__ = ["Answer", "Change", "Listed", "Live", "never", "prepare"]
