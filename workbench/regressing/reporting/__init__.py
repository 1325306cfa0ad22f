"""How a night is told: a page, Markdown, JUnit XML, JSON, an executed notebook, a webhook and a file.

One rule: from a `Night` alone. What is told tonight and what is told after a crash is the same, and nothing here
replays, judges or reads a lake.
"""

from __future__ import annotations
