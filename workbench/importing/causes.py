"""Why a row of a file is not imported: the closed vocabulary, and the exception that carries one of it.

One rule: a row is imported whole and exactly, or it is kept aside under one of these; nothing is dropped to make it
fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

Cause = Literal[
    "row_unreadable", "value_missing", "text_unusable", "no_such_tool", "order_unusable", "time_unreadable",
    "args_missing", "args_unreadable", "args_not_object", "member_doubled", "number_out_of_range", "type_unsupported",
    "too_deep", "float_not_exact", "mixed_types", "null_in_array", "name_reserved", "resource_unresolved",
    "outcome_unreadable", "usage_unreadable", "not_decidable",
]  # fmt: skip
"""Why a row is kept aside."""

CAUSES: Final[Mapping[Cause, str]] = {
    "row_unreadable": "the line is not a JSON object",
    "value_missing": "a column that says who, where or what is null",
    "text_unusable": "a text cannot be an id: not Unicode, no `Type::id`, or too long for a partition",
    "no_such_tool": "the tool is not among the mapping's `call.known_tools`",
    "order_unusable": "the place in the session is null, or no number",
    "time_unreadable": "the time is there, and cannot be read",
    "args_missing": "there are no arguments, and the mapping does not say that this means none",
    "args_unreadable": "the arguments are not JSON",
    "args_not_object": "the arguments are JSON, and no object",
    "member_doubled": "an object in the arguments has the same member twice",
    "number_out_of_range": "an integer beyond 64 bits, NaN or an infinity in the arguments",
    "type_unsupported": "a value in the arguments that JSON does not have: bytes, a time without a zone",
    "too_deep": "arguments are nested deeper than policies can follow",
    "float_not_exact": "a number with more than four fractional digits, or beyond Cedar's decimal",
    "mixed_types": "a value of another type than most calls of this tool have there",
    "null_in_array": "a null in an array: a Cedar set has no place for it",
    "name_reserved": "a member called `__extn`, `__entity` or `__expr`, which Cedar's JSON keeps for itself",
    "resource_unresolved": "the resource cannot be made of the arguments",
    "outcome_unreadable": "the column that says whether it ran holds something the mapping does not name",
    "usage_unreadable": "a cost, a token count or a duration is no number of 0 or more",
    "not_decidable": "Cedar refuses the request",
}
"""Closed vocabulary of causes, with their meaning, in the order in which a row is looked at."""

assert tuple(CAUSES) == get_args(Cause)  # noqa: S101 - one list, written twice for the type checker


class Unmappable(Exception):  # noqa: N818 - never leaves this package
    """A row that cannot be imported."""

    def __init__(self, cause: Cause, detail: str) -> None:
        super().__init__(detail)
        self.cause: Cause = cause
        self.detail = detail
