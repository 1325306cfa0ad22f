"""Lets AgentDojo's checkers compare quickly: what a session left alone becomes one object on both sides.

AgentDojo's checkers of `workspace` and `travel` compare the environment before with the environment after through
DeepDiff, which descends into every field of every e-mail, event and file: three quarters of the time of building the
data set. It does not descend where both sides are *the same object*, and a session touches a few of some hundred.

One rule: an object is shared only where both sides are equal in value and in type, so that no checker can tell. Two
guards: Python's equality, and the `repr` of both, for `1`, `1.0` and `True` are equal.

Accepted: from then on the two environments hold common objects. A checker that altered one of those in place would
alter both; those of the benchmark's version read only, and a test runs them with and without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel


def share(before: Any, after: Any) -> None:
    """Make what is alike in two environments one object, in place: `before` takes those of `after`.

    Args:
        before: an environment of AgentDojo's; altered.
        after: the same environment after a session; not altered.

    Cost: about 2 ms for the largest suite.
    """
    from pydantic import BaseModel  # noqa: PLC0415 - comes with AgentDojo

    for name, value in vars(before).items():
        other = getattr(after, name, None)
        if isinstance(value, BaseModel) and type(value) is type(other):
            share(value, other)
        elif isinstance(value, dict) and isinstance(other, dict):
            for key in value.keys() & other.keys():
                if isinstance(value[key], BaseModel) and _alike(value[key], other[key]):
                    value[key] = other[key]
        elif isinstance(value, list) and isinstance(other, list):
            for place, (one, two) in enumerate(zip(value, other, strict=False)):
                if isinstance(one, BaseModel) and _alike(one, two):
                    value[place] = two


def _alike(one: BaseModel, two: Any) -> bool:
    return type(one) is type(two) and one == two and repr(one) == repr(two)
