"""Runs for MLflow: what one says (`entry`), how it is sent, exactly once (`sending`), where it waits (`outbox`).

One rule: a run is complete on disk before MLflow hears of it, so whatever happens to either side, it can be sent
again and is there once.
"""

from __future__ import annotations

ARTIFACTS = ("report", "coverage", "plots", "policies")
"""Files of a run that it can do without: they are for people, and take most of the time."""
