"""Metrics by name, from configuration: ours, and DeepEval's own, with and without a judge.

One rule: a metric is built before anything is judged, or not at all. A name, a parameter or a value that is not known
is an error that names the closest; a metric that needs a judge is not built without one.

A metric's `version` is of DeepEval and of every parameter it was built with, so that a stored score is used again
only for the very same question. No metric built here asks another model than its judge (`eval_mode` is `llm`:
DeepEval's own remote models are not offered), and those that only demand a model without asking it get `NoJudge`.
"""

from __future__ import annotations

import inspect
import re
import typing
import warnings
from typing import TYPE_CHECKING, Any

from runtime.canonical import content_hash
from runtime.errors import GovernanceError
from workbench.errors import ScoringInvalid
from workbench.scoring import metrics as ours
from workbench.scoring.decision_metric import DecisionMetric
from workbench.scoring.judges import NoJudge
from workbench.scoring.offline import deepeval
from workbench.texts import shorten, visible
from workbench.weighing.stakes import closest

_LIBRARY = deepeval()  # before the imports below: they would load it with its telemetry on

import deepeval.metrics as library  # noqa: E402
from deepeval.metrics import BaseConversationalMetric, BaseMetric  # noqa: E402
from deepeval.metrics.g_eval.utils import Rubric  # noqa: E402
from deepeval.test_case import MultiTurnParams, SingleTurnParams, ToolCall, ToolCallParams  # noqa: E402
from pydantic import TypeAdapter, ValidationError, create_model  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from deepeval.models import DeepEvalBaseLLM

__all__ = ["BUILT_IN", "LEFT_OUT", "OURS", "metric_named", "needs_judge", "parameters_of"]

_SINGLE = (
    "ExactMatchMetric", "PatternMatchMetric", "GEval", "FaithfulnessMetric", "ContextualRecallMetric",
    "ContextualRelevancyMetric", "ContextualPrecisionMetric", "AnswerRelevancyMetric", "HallucinationMetric",
    "BiasMetric", "ToxicityMetric", "SummarizationMetric", "PIILeakageMetric", "NonAdviceMetric", "MisuseMetric",
    "RoleViolationMetric", "ToolPermissionMetric", "ToolCorrectnessMetric", "JsonCorrectnessMetric",
    "PromptAlignmentMetric", "TaskCompletionMetric", "ArgumentCorrectnessMetric",
)  # fmt: skip
_CONVERSATIONAL = (
    "ConversationalGEval", "RoleAdherenceMetric", "KnowledgeRetentionMetric", "TopicAdherenceMetric", "ToolUseMetric",
    "GoalAccuracyMetric", "TurnRelevancyMetric", "ConversationCompletenessMetric", "TurnFaithfulnessMetric",
    "TurnContextualPrecisionMetric", "TurnContextualRecallMetric", "TurnContextualRelevancyMetric",
)  # fmt: skip
_SOUND, _TRACE = (
    "of sound or pictures, which no decision has",
    "reads a trace that only its own tracing makes",
)
_CODE, _MCP = "is made of code, not of parameters: give it to `wb.score`", "reads MCP's own messages"
_REMOTE = "asks a model of its maker's, and no other"
LEFT_OUT: Mapping[str, str] = {
    "AgentLoopDetectionMetric": _TRACE, "StepEfficiencyMetric": _TRACE, "PlanAdherenceMetric": _TRACE,
    "PlanQualityMetric": _TRACE, "DAGMetric": _CODE, "ConversationalDAGMetric": _CODE, "ArenaGEval": _CODE,
    "JevEval": _REMOTE, "ConversationalJevEval": _REMOTE, "MCPUseMetric": _MCP, "MultiTurnMCPUseMetric": _MCP,
    "MCPTaskCompletionMetric": _MCP, "TranscriptionAccuracyMetric": _SOUND, "AudioGlitchMetric": _SOUND,
    "TextToImageMetric": _SOUND, "ImageEditingMetric": _SOUND, "ImageCoherenceMetric": _SOUND,
    "ImageHelpfulnessMetric": _SOUND, "ImageReferenceMetric": _SOUND, "VoiceNaturalnessMetric": _SOUND,
    "TurnTakingNaturalnessMetric": _SOUND, "SpeechIntelligibilityMetric": _SOUND, "VoiceConsistencyMetric": _SOUND,
    "AgentResponsivenessMetric": _SOUND, "AudioIntegrityMetric": _SOUND, "VoiceReliabilityMetric": _SOUND,
}  # fmt: skip
"""DeepEval's metrics that have no name here, and why."""


def _snake(name: str) -> str:
    plain = name.removesuffix("Metric").replace("GEval", "_g_eval")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", plain).lower().strip("_")


BUILT_IN: Mapping[str, type] = {_snake(name): getattr(library, name) for name in (*_SINGLE, *_CONVERSATIONAL)}
"""DeepEval's metrics by name: `ToolCorrectnessMetric` is `tool_correctness`, or `deepeval.tool_correctness`."""
OURS: Mapping[str, type] = {
    _snake(name): each
    for name, each in inspect.getmembers(ours, inspect.isclass)
    if each.__module__.startswith("workbench.scoring.")
    and issubclass(each, BaseMetric)
    and each is not DecisionMetric
}
"""Ours by name: `VerdictCorrectness` is `verdict_correctness`; of two of one name, ours is meant."""
PREFIX = "deepeval."

_SESSION = frozenset({"task_completion"})
"""Of DeepEval's metrics of one turn, those that are of a whole session unless `level` says otherwise."""
_QUIET: Mapping[str, Mapping[str, Any]] = {
    "exact_match": {}, "pattern_match": {}, "tool_permission": {}, "tool_correctness": {},
    "json_correctness": {"include_reason": False},
}  # fmt: skip
"""Metrics that ask no model, with what must be said for that."""
_OURS_TO_SAY = frozenset(
    {
        *(
            "self",
            "model",
            "system_one_model",
            "eval_mode",
            "async_mode",
            "verbose_mode",
            "flaky",
            "args",
            "kwargs",
        ),
        *("evaluation_template", "template_class", "top_logprobs", "name"),
    }
)
"""Parameters that configuration does not have."""
_KINDS: Mapping[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list,
    "object": dict,
}


def parameters_of(name: str) -> tuple[str, ...]:
    """Return the parameters that a metric has in configuration, with `level`, and `name` where it can be called.

    Raises:
        ScoringInvalid: there is no metric of that name; names the closest.
    """
    found = inspect.signature(_class(name)).parameters
    own = [each for each in found if each not in _OURS_TO_SAY and not each.startswith("_")]
    return (*own, *(("name",) if "name" in found else ()), *(() if name in OURS else ("level",)))


def needs_judge(name: str, params: Mapping[str, object]) -> bool:
    """Say whether a metric asks a model, with these parameters."""
    plain = name.removeprefix(PREFIX)
    if name in OURS or plain in ("exact_match", "pattern_match", "tool_permission"):
        return False
    asked = "available_tools" in params or (
        plain == "json_correctness" and bool(params.get("include_reason"))
    )
    return plain not in _QUIET or asked


def metric_named(
    name: str, params: Mapping[str, object] | None = None, llm: DeepEvalBaseLLM | None = None
) -> BaseMetric:
    """Return a metric built from plain values.

    Args:
        name: of `OURS` or `BUILT_IN`.
        params: of its class, as TOML has them: `evaluation_params` are names, `rubric` tables, `available_tools`
            names or tables with `name` and `description`, `expected_schema` types by member (`{"id" = "string"}`).
            `level` (`decision`, `session`) says what it is measured once for.
        llm: what judges; None: nothing does.

    Raises:
        ScoringInvalid: an unknown name or parameter (names the closest), a value that does not fit, one that is
            missing, or there is no judge and the metric asks one.
    """
    given = dict(params or {})
    known = parameters_of(name)
    for key in given:
        if key not in known:
            raise ScoringInvalid(f"{name}: no parameter `{visible(str(key))}`; {closest(str(key), known)}")
    level = given.pop("level", None)
    if needs_judge(name, given) and llm is None:
        raise ScoringInvalid(
            f"{name}: asks a judge, and none is given; add `judge = {{ url = …, model = … }}`"
        )
    found = _built(name, given, llm)
    if name not in OURS:
        said: dict[str, Any] = {"metric": name.removeprefix(PREFIX), "params": dict(params or {})}
        found.version = f"{_LIBRARY.__version__} {content_hash(said)[:12]}"
        found.level = _level(name, level)
        found.waits = needs_judge(name, given)
    return found


def _class(name: str) -> type:
    if (found := OURS.get(name, BUILT_IN.get(name.removeprefix(PREFIX)))) is not None:
        return found
    for left, why in LEFT_OUT.items():
        if _snake(left) == name:
            raise ScoringInvalid(f"metric `{name}` {why}")
    raise ScoringInvalid(f"no metric is called `{visible(name)}`; {closest(name, [*OURS, *BUILT_IN])}")


def _built(name: str, given: Mapping[str, object], llm: DeepEvalBaseLLM | None) -> Any:
    which = _class(name)
    signature = inspect.signature(which).parameters
    chosen = {key: _value(which, name, key, value) for key, value in given.items()}
    if name not in OURS:
        chosen = dict(_QUIET.get(name.removeprefix(PREFIX), {})) | chosen
    fixed = {
        "eval_mode": "llm",
        "async_mode": False,
        "_include_g_eval_suffix": False,
        "model": llm or NoJudge(),
    }
    chosen |= {key: value for key, value in fixed.items() if key in signature}
    for key, each in signature.items():
        if (
            each.default is each.empty
            and key not in chosen
            and each.kind is each.POSITIONAL_OR_KEYWORD
            and key != "self"
        ):
            raise ScoringInvalid(f"{name}: `{key}` is missing")
    if "evaluation_params" in signature and "g_eval" in name and "evaluation_params" not in chosen:
        turns = issubclass(which, BaseConversationalMetric)
        chosen["evaluation_params"] = (
            [MultiTurnParams.ROLE, MultiTurnParams.CONTENT, MultiTurnParams.TOOLS_CALLED]
            if turns
            else [SingleTurnParams.INPUT, SingleTurnParams.ACTUAL_OUTPUT]
        )
    if "g_eval" in name and not (chosen.get("criteria") or chosen.get("evaluation_steps")):
        raise ScoringInvalid(f"{name}: `criteria` is missing: say what is judged, or give `evaluation_steps`")
    try:
        with (
            warnings.catch_warnings()
        ):  # that DeepEval 4 turned some scores round: 1 is good here, and always was
            warnings.simplefilter("ignore", DeprecationWarning)
            return which(**chosen)
    except (ValueError, TypeError, GovernanceError) as exc:
        raise ScoringInvalid(f"{name}: {shorten(visible(' '.join(str(exc).split())), 300)}") from exc


def _level(name: str, asked: object) -> str:
    turns = issubclass(_class(name), BaseConversationalMetric)
    if asked is None:
        return "session" if turns or name.removeprefix(PREFIX) in _SESSION else "decision"
    if asked not in ("decision", "session"):
        raise ScoringInvalid(f'{name}: `level` is {asked!r}; it is "decision" or "session"')
    if turns and asked == "decision":
        raise ScoringInvalid(f"{name}: is of a conversation, so its `level` is `session`")
    return str(asked)


def _value(which: type, name: str, key: str, value: object) -> Any:
    """Read one parameter: by its name where it is no plain value, else by the library's own annotation."""
    special: Mapping[str, Callable[[], Any]] = {
        "evaluation_params": lambda: [_member(_enum(which, name), each) for each in _list(value)],
        "available_tools": lambda: [_tool(each) for each in _list(value)],
        "rubric": lambda: [Rubric.model_validate(each) for each in _list(value)],
        "expected_schema": lambda: _schema(value),
        "threshold": lambda: _threshold(value),
        "bundle": lambda: _text(value, "a bundle's folder"),
        "name": lambda: _text(value, "what the metric is called"),
    }
    try:
        if key in special:
            return special[key]()
        hint = _hints(which).get(key, Any)
        return TypeAdapter(hint).validate_python(value, strict=not isinstance(value, int))
    except ValidationError as exc:
        said = "; ".join(dict.fromkeys(each["msg"].lower() for each in exc.errors()[:3]))
        raise ScoringInvalid(f"{name}: `{key}` is {shorten(visible(repr(value)), 80)}; {said}") from None
    except ValueError as exc:
        if isinstance(exc, ScoringInvalid):
            raise
        raise ScoringInvalid(f"{name}: `{key}`: {exc}") from None


def _hints(which: type) -> dict[str, Any]:
    made: Any = which
    return typing.get_type_hints(made.__init__)


def _list(value: object) -> list[Any]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"is {value!r}; give a list that is not empty")
    return list(value)


def _enum(which: type, name: str) -> Any:
    if name.endswith("tool_correctness"):
        return ToolCallParams
    return MultiTurnParams if issubclass(which, BaseConversationalMetric) else SingleTurnParams


def _member(of: Any, value: object) -> Any:
    known = [each.value for each in of]
    if value not in known:
        raise ValueError(f"has {visible(str(value))!r}; {closest(str(value), known)}")
    return of(value)


def _tool(value: object) -> ToolCall:
    match value:
        case str():
            return ToolCall(name=value)
        case {"name": str(), **rest} if rest.keys() <= {"description"}:
            return ToolCall(**value)  # type: ignore[arg-type]
    raise ValueError(f"has {value!r}; give a name, or a table with `name` and `description`")


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"is {value!r}; give {what}")
    return value


def _schema(value: object) -> Any:
    if not isinstance(value, dict) or not value:
        raise ValueError(f'is {value!r}; give types by member, as {{ id = "string" }}')
    for member, kind in value.items():
        if kind not in _KINDS:
            raise ValueError(f"`{visible(str(member))}` is {kind!r}; {closest(str(kind), _KINDS)}")
    members: dict[str, Any] = {str(member): (_KINDS[kind], ...) for member, kind in value.items()}
    return create_model("Expected", **members)


def _threshold(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"is {value!r}; give a number between 0 and 1")
    return float(value)
