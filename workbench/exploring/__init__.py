"""Look through a lake's decisions in a notebook: filter, sort, follow a session, read one in full.

`explorer` is the view, `filters` what is asked, `index` the narrow columns that answer, `hits` what finds a text.
"""

from __future__ import annotations

from workbench.exploring.explorer import Explorer, explore
from workbench.exploring.filters import Filter

__all__ = ["Explorer", "Filter", "explore"]
