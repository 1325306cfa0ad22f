"""The AgentDojo data set: its suites as scripted sessions, their facts, and the run through the runtime.

`scripts` and `facts` are pure builders; `drive` runs them through the public `runtime` API. AgentDojo itself is an
extra (`pip install 'redecide[agentdojo]'`) and is imported on first use.
"""

from __future__ import annotations
