"""State simulated again under a candidate: budgets, counters, breakers and approvals as its own verdicts move them.

One rule: what a call was decided by is what the verdicts before it have left, under the candidate as under the
runtime; where the log cannot tell what they would have left, the row says so.
"""

from __future__ import annotations

from workbench.closed_loop.simulating import simulate, simulated
from workbench.closed_loop.state import APPROVALS, Approvals, Simulated, State

__all__ = ["APPROVALS", "Approvals", "Simulated", "State", "simulate", "simulated"]
