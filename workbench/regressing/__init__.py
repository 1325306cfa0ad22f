"""The regression job: what is new in a lake, replayed, judged by declared gates, said, logged, and remembered.

Its steps are its files: `job` what is asked, `windows` which decisions are new, `looks` what all nights together say,
`drift_gate` what a job without a candidate asks, `result` what came out, `reporting` how it is told, `state` what is
kept for the next night, and `regress` one night from beginning to end.
"""

from __future__ import annotations
