"""What computed a score, as one text: equal texts, equal scores for equal cases.

One rule: whatever may change a score is in it: the metric's code, its parameters, and the judge with its own. The
threshold is not: it says what a score is worth, not what it is.

Accepted: of a parameter that is an object of some library's, only its kind and, where it has one, its `version` are
known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

from workbench.scoring.offline import deepeval

if TYPE_CHECKING:
    from deepeval.metrics import BaseMetric

_STATE = frozenset({
    "threshold", "score", "score_breakdown", "reason", "success", "error", "evaluation_cost", "input_tokens",
    "output_tokens", "verbose_logs", "skipped", "flaky", "confidence", "system_one_fallback_reason", "test_case",
    "async_mode", "verbose_mode", "include_reason", "model", "using_native_model", "evaluation_model", "waits",
    "_system_one_outcomes", "_system_one_disabled", "version", "level",
})  # fmt: skip
"""What a metric keeps of its last case, or says about how it is run: no parameters."""
_DIGITS = 12


def version_of(metric: BaseMetric) -> str:
    """Return what computes the score: the metric's own version, or its library's, its parameters, and its judge's.

    Example:
        >>> from workbench.scoring.metrics import VerdictCorrectness
        >>> version_of(VerdictCorrectness())
        'workbench 1'
    """
    home = type(metric).__module__.partition(".")[0]
    said = getattr(metric, "version", None)
    own = (deepeval().__version__ if home == "deepeval" else "unversioned") if said is None else str(said)
    parts = [own if own.startswith(f"{home} ") else f"{home} {own}"]
    given = {name: value for name, value in vars(metric).items() if name not in _STATE}
    if given := {name: value for name, value in given.items() if value != getattr(type(metric), name, None)}:
        text = msgspec.json.encode(_plain(given), order="deterministic")
        parts.append(f"params:{hashlib.sha256(text).hexdigest()[:_DIGITS]}")
    if (model := getattr(metric, "model", None)) is not None:
        parts.append(f"judge:{judge_version(model)}")
    return " ".join(parts)


def judge_version(model: Any) -> str:
    """Return what a judge calls itself: its `version`, else its kind and the model's name."""
    said = getattr(model, "version", None)
    if said is not None:
        return str(said)
    name = getattr(model, "get_model_name", None)
    return f"{_kind(type(model))} {name() if callable(name) else ''}".strip()


def _kind(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _plain(value: Any) -> Any:
    """A parameter as JSON: what is no plain value is told by its kind."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Enum():
            return [_kind(type(value)), value.name]
        case Mapping():
            return {str(name): _plain(each) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case set() | frozenset():
            return sorted(msgspec.json.encode(_plain(each)).decode() for each in value)
        case type():
            return _kind(value)
    dumped = getattr(value, "model_dump", None)
    if callable(dumped):
        return [_kind(type(value)), _plain(dumped())]
    return [_kind(type(value)), str(getattr(value, "version", ""))]
