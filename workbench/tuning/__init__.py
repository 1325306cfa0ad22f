"""Live tuning of policies over a recorded history: editor, sliders, and what every edit does, at once."""

from __future__ import annotations

from workbench.tuning.tuner import Tuner, tune

__all__ = ["Tuner", "tune"]
