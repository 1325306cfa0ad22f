"""A browser for tests: speaks to widgets as a notebook's front end does, and keeps what they say.

One rule: it stands in for the wire, not for the widget: what a view sends is what a notebook would get, buffers
included. Drawing is tested in a real browser.

```python
with Browser() as browser:
    table = TableView(rows, label="rows")
    browser.says(table, type="window", id="a:1", version=1, start=0, n=50)
    assert browser.tables(table)[-1]["tool"][0] == "refund"
```
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import comm
import polars as pl
from comm.base_comm import BaseComm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.viewing.view import View


class Sent(NamedTuple):
    """One message that a widget sent."""

    kind: str
    """`comm_open`, `comm_msg` or `comm_close`."""
    model: str
    data: Mapping[str, Any]
    buffers: tuple[bytes, ...]


class Browser:
    """Takes the place of the kernel's comms while it is entered."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []

    def __enter__(self) -> Self:
        browser = self

        class Wire(BaseComm):
            def publish_msg(
                self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any
            ) -> None:
                del metadata, keys  # as a kernel's has them
                told = json.loads(json.dumps(data or {}))  # what is no JSON would not arrive
                kept = tuple(bytes(each) for each in buffers or ())
                browser.sent.append(Sent(msg_type, self.comm_id, told, kept))

        self._before = comm.create_comm
        comm.create_comm = Wire
        return self

    def __exit__(self, *_: object) -> None:
        comm.create_comm = self._before

    def says(self, view: View, **content: Any) -> None:
        """Send a custom message to a view, and wait until what it set off is done."""
        told = json.loads(json.dumps(content))
        message = {"content": {"data": {"method": "custom", "content": told}}, "buffers": []}
        view.comm.handle_msg(message)
        view.worker.wait(30)

    def sets(self, view: View, **state: Any) -> None:
        """Try to set traits, as a front end can."""
        data = {"method": "update", "state": state, "buffer_paths": []}
        view.comm.handle_msg({"content": {"data": data}, "buffers": []})

    def customs(self, view: View) -> list[Sent]:
        """Return the custom messages that a view sent, in order."""
        found = (sent for sent in self.sent if sent.model == view.comm.comm_id)
        return [sent for sent in found if sent.data.get("method") == "custom"]

    def tables(self, view: View) -> list[pl.DataFrame]:
        """Return the tables that a view sent, in order, decoded."""
        return [
            pl.read_ipc_stream(io.BytesIO(each.buffers[0])) for each in self.customs(view) if each.buffers
        ]

    def state(self, view: View) -> dict[str, Any]:
        """Return the traits as the front end has them now."""
        found: dict[str, Any] = {}
        for sent in self.sent:
            if sent.model == view.comm.comm_id:
                found |= sent.data.get("state", {})
        return found
