"""Bring your own traces: any table of tool calls becomes a lake.

`import_calls` reads a file and a mapping of its columns (`workbench.importing.mapping` says what it may hold), and
writes a lake of an ungoverned baseline, which replays like any other. Rows that cannot be mapped are kept aside with
their cause (`workbench.importing.causes`).
"""

from __future__ import annotations

from workbench.importing.imported import Imported
from workbench.importing.importer import import_calls
from workbench.importing.mapping import Mapping
from workbench.importing.mapping_file import read_mapping

__all__ = ["Imported", "Mapping", "import_calls", "read_mapping"]
