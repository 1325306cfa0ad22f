"""Decisions as MLflow traces, to be read in MLflow's own pages: their spans, tags, and what was said of them.

One rule: the ids of a trace, its spans and assessments are made from the entry's id and the trace's key. MLflow takes
a trace that it has as the same trace, so sending one again changes nothing.

Trace, tags and assessments go in one request each, spans of all traces in a few, through the parts of MLflow that its
own exporter uses: the documented way makes ids of its own, and sends from a thread of its own, later.

A store that cannot hold spans (a server before 3.4, a store of files) gets no traces, and that is said.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from runtime.canonical import content_hash
from workbench.texts import count, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from workbench.runs.entry import Assessment, Entry, Trace
    from workbench.tracking import Store

PREVIEW = 1000
"""Characters of what went in and came out, in MLflow's list of traces."""

AT_ONCE = 200
"""Spans in a request."""

SESSION, PRINCIPAL = "redecide.session", "redecide.principal"
"""Tags of a trace that MLflow has columns for."""

MAX_NAME = 200
"""Characters of those, and of names, that every store of MLflow takes."""

_SOURCES = {"program": "CODE", "person": "HUMAN", "judge": "LLM_JUDGE"}


def show(
    store: Store, entry: Entry, experiment_id: str, run_ids: Mapping[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Send the traces of an entry.

    Args:
        store: where to.
        entry: whose.
        experiment_id: MLflow's.
        run_ids: MLflow's runs, by key.

    Returns:
        MLflow's ids by key, and why there are none, if there are none.
    """
    if not entry.traces:
        return {}, ()
    spans = [span for trace in entry.traces for span in _spans(entry, trace)]
    try:
        client = _client(store)
        for start in range(0, len(spans), AT_ONCE):
            client.log_spans(experiment_id, spans[start : start + AT_ONCE])
    except NotImplementedError as exc:
        return {}, (f"{count(len(entry.traces), 'trace')}: {exc}",)
    for trace in entry.traces:
        client.start_trace(_info(entry, trace, experiment_id, run_ids[trace.run]))
    return trace_ids(entry), ()


def trace_ids(entry: Entry) -> dict[str, str]:
    """Return MLflow's ids of an entry's traces by key: the same for the same entry, everywhere."""
    return {each.key: f"tr-{_id(entry, each)}" for each in entry.traces}


def _client(store: Store) -> Any:
    """Raises NotImplementedError: this release of MLflow's client sends no spans."""
    try:
        from mlflow.tracing.client import TracingClient  # noqa: PLC0415 - seconds, and only where it is used
    except ImportError as exc:
        raise NotImplementedError(f"the installed MLflow has no traces: {exc}") from exc
    if not hasattr(TracingClient, "log_spans"):
        raise NotImplementedError("the installed MLflow sends no spans; it needs 3.4")
    return TracingClient(store.uri)


def _id(entry: Entry, trace: Trace, *more: str | int) -> str:
    """32 hex digits."""
    return content_hash([entry.id, trace.key, *more])[:32]


def _spans(entry: Entry, trace: Trace) -> Iterator[Any]:
    """Yield MLflow's spans; attributes are JSON, as MLflow keeps them."""
    from mlflow.entities import Span  # noqa: PLC0415 - as above
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415
    from opentelemetry.trace import SpanContext, Status, StatusCode  # noqa: PLC0415

    whole = int(_id(entry, trace), 16)
    contexts = [
        SpanContext(whole, int(_id(entry, trace, number)[:16], 16) or 1, is_remote=False)
        for number in range(len(trace.spans))
    ]
    for number, (step, context) in enumerate(zip(trace.spans, contexts, strict=True)):
        error = step.get("error")
        started = int(step.get("start_ns") or trace.started_ns)
        yield Span(
            ReadableSpan(
                name=shorten(str(step["name"]), MAX_NAME),
                context=context,
                parent=contexts[0] if number else None,
                start_time=started,
                end_time=max(int(step.get("end_ns") or started), started),
                attributes=_attributes(entry, trace, step),
                status=Status(StatusCode.ERROR, str(error)) if error else Status(StatusCode.OK),
                resource=Resource.get_empty(),
            )
        )


def _attributes(entry: Entry, trace: Trace, step: Mapping[str, Any]) -> dict[str, str]:
    from mlflow.tracing.constant import SpanAttributeKey as Key  # noqa: PLC0415 - as above

    named = {
        **step.get("attributes", {}),
        Key.REQUEST_ID: f"tr-{_id(entry, trace)}",
        Key.SPAN_TYPE: step.get("type", "UNKNOWN"),
        **{
            key: step[name]
            for name, key in (("inputs", Key.INPUTS), ("outputs", Key.OUTPUTS))
            if name in step
        },
    }
    return {name: _json(value) for name, value in named.items()}


def _info(entry: Entry, trace: Trace, experiment_id: str, run_id: str) -> Any:
    from mlflow.entities import TraceInfo, TraceLocation, TraceState  # noqa: PLC0415 - as above
    from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey  # noqa: PLC0415

    root = trace.spans[0]
    started, ended = (int(root.get(name) or trace.started_ns) for name in ("start_ns", "end_ns"))
    return TraceInfo(
        trace_id=f"tr-{_id(entry, trace)}",
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=started // 1_000_000,
        state=TraceState.ERROR if root.get("error") else TraceState.OK,
        request_preview=shorten(_json(root.get("inputs")), PREVIEW),
        response_preview=shorten(_json(root.get("outputs")), PREVIEW),
        client_request_id=trace.key,
        execution_duration=max(ended - started, 0) // 1_000_000,
        trace_metadata={TraceMetadataKey.SOURCE_RUN: run_id, **_grouped(trace)},
        tags={
            **trace.tags,
            TraceTagKey.TRACE_NAME: shorten(trace.name, MAX_NAME),
            "redecide.entry": entry.id,
        },
        assessments=[_assessed(entry, trace, number, each) for number, each in enumerate(trace.assessments)],
    )


def _grouped(trace: Trace) -> dict[str, str]:
    """By what MLflow groups traces: session and user, as the tags say."""
    from mlflow.tracing.constant import TraceMetadataKey as Key  # noqa: PLC0415 - as above

    names = {SESSION: Key.TRACE_SESSION, PRINCIPAL: Key.TRACE_USER}
    return {key: shorten(trace.tags[tag], MAX_NAME) for tag, key in names.items() if trace.tags.get(tag)}


def _assessed(entry: Entry, trace: Trace, number: int, said: Assessment) -> Any:
    from mlflow.entities import AssessmentSource, Expectation, Feedback  # noqa: PLC0415 - as above

    source = AssessmentSource(_SOURCES[said.by], said.source)
    common = {"name": said.name, "value": said.value, "source": source, "trace_id": f"tr-{_id(entry, trace)}"}
    if said.kind == "expectation":
        made = Expectation(**common)
        made.rationale = said.rationale
    else:
        made = Feedback(**common, rationale=said.rationale)
    made.assessment_id = f"a-{_id(entry, trace, number, said.name)}"
    return made


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
