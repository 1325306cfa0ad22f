"""What a browser may say to a widget: a closed union of typed messages for each.

One rule: what does not fit is dropped whole and said in one sentence. Names that come with a message are looked up in
what Python knows; nothing is executed, and no text of the browser becomes part of an expression but as a literal.

```python
class Sort(Message, frozen=True):
    column: Name
    descending: bool

match read(content, Window | Sort):
    case Sort(column=column): ...
    case Problem(text=text): ...
```
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from workbench.texts import shorten, visible

Index = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""A row's place, or a count: what JavaScript counts exactly."""
Name = Annotated[str, msgspec.Meta(max_length=1_000)]
"""Of a column, a facet, a file; to be looked up."""
Text = Annotated[str, msgspec.Meta(max_length=10_000)]
"""What a person typed."""
Value = Annotated[str, msgspec.Meta(max_length=200_000)]
"""A value of the log, such as a tenant's name, that the browser was given before."""

MAX_PROBLEM = 500
"""Characters of a sentence about a problem."""


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag=str.lower):
    """What a browser may say; `type` is the class's name in lower case."""


class Problem(msgspec.Struct, frozen=True):
    """Why something the browser asked cannot be."""

    text: str


def read(content: object, union: Any) -> Message | Problem:
    """Return the message that `content` is.

    Args:
        content: what came over the wire, already parsed JSON.
        union: the message types that are allowed, `Window | Sort`.

    Returns:
        One of the union, or what is wrong with it.
    """
    try:
        found: Message = msgspec.convert(content, union)
    except msgspec.ValidationError as exc:
        return Problem(f"the view sent a message that this version does not read: {said(exc)}")
    return found


def said(error: BaseException) -> str:
    """Write an error for a view: its message, or its class where it has none; visible and bounded."""
    text = str(error) or type(error).__name__
    return visible(shorten(text, MAX_PROBLEM))
