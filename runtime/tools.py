"""Tools as the runtime knows them: a function, its resource, its scopes, what to keep of its result.

One rule: the tool receives the JSON that was decided about, and nothing else: canonical JSON, in which a whole
float is an integer (`4.0` arrives as `4`), so that live and replayed decisions see the same value.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from runtime.canonical import Json, canonical, parse, sha256
from runtime.errors import RegistrationError
from runtime.foreign import message_of, repr_of
from runtime.request import RequestInvalid, ResourceTemplate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RESERVED = "idempotency_key"
"""The one argument name a tool may not have: `Session.call` takes it."""

INLINE_BYTES = 32 * 1024
"""Results above this go to `blobs`; the row keeps their first KiB."""

KEPT_BYTES = 256 * 1024 * 1024
"""Results above this are kept as their address only: SQLite holds no text above a gigabyte."""

ResultStorage = Literal["full", "hash", "none"]
"""`full` the result is kept (and returned to an idempotent repeat); `hash` only its address; `none` nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A registered tool."""

    name: str
    fn: Callable[..., Any]
    resource: ResourceTemplate
    scopes: tuple[str, ...]
    store: ResultStorage
    signature: inspect.Signature

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function, or an object whose `__call__` is one."""
        return inspect.iscoroutinefunction(self.fn) or inspect.iscoroutinefunction(type(self.fn).__call__)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Bound:
        """Name the call's arguments and take them to JSON, defaults included: policies see what the tool gets.

        Never raises: what does not fit is kept for the record, with the refusal beside it.
        """
        try:
            bound = self.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return Bound({key: _to_json(value, key) for key, value in _flat(bound).items()}, None)
        except TypeError as exc:
            return Bound(_salvage(args, kwargs), f"{exc}; the tool is {self.name}{self.signature}")
        except RequestInvalid as exc:
            return Bound(_salvage(args, kwargs), str(exc))

    def check(self, args: Mapping[str, Json]) -> None:
        """Refuse arguments the tool would not run with exactly: a patch may have added some, or taken some away."""
        try:
            self.signature.bind(**args)
        except TypeError as exc:
            raise RequestInvalid("args_invalid", f"{exc}; {self.name}{self.signature}") from exc
        for name, parameter in self.signature.parameters.items():
            # Null is what policies see of an absent argument; any other default is a value nobody decided about.
            if name not in args and parameter.default not in (parameter.empty, None):
                raise RequestInvalid(
                    "args_invalid",
                    f"without `{name}` the tool would run with its own default, which was not decided about; "
                    f"patch it to a value; {self.name}{self.signature}",
                )


@dataclass(frozen=True, slots=True)
class Bound:
    """Arguments of one call as JSON, and why the tool cannot take them, if it cannot."""

    args: Mapping[str, Json]
    refusal: str | None


def make_tool(  # one place that checks a declaration
    fn: Callable[..., Any],
    *,
    name: str | None,
    resource: str | None,
    scopes: tuple[str, ...],
    store: ResultStorage,
) -> Tool:
    """Check a declaration and build the tool.

    Raises:
        RegistrationError: no function, or a generator; no name; positional-only parameters, a reserved name; a
            resource slot that is no parameter; unknown storage.
    """
    tool_name = _name(fn, name)
    signature = _signature(fn, tool_name)
    template = _template(resource or f"Tool::{tool_name}", tool_name)
    parameters = signature.parameters
    if store not in get_args(ResultStorage):
        raise RegistrationError(
            f"tool {tool_name!r}: `store` must be one of {', '.join(get_args(ResultStorage))}, got {store!r}"
        )
    if RESERVED in parameters:
        raise RegistrationError(
            f"tool {tool_name!r} has a parameter `{RESERVED}`, which is reserved; rename it"
        )
    for parameter in parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise RegistrationError(
                f"tool {tool_name!r}: parameter `{parameter.name}` has no name in a call; arguments are named"
            )
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if not takes_any and (unknown := sorted(template.slots - set(parameters))):
        raise RegistrationError(
            f"tool {tool_name!r}: resource {template.text!r} uses `{unknown[0]}`; "
            f"its parameters are {', '.join(parameters) or 'none'}"
        )
    return Tool(
        name=tool_name,
        fn=fn,
        resource=template,
        scopes=tuple(sorted(set(scopes))),
        store=store,
        signature=signature,
    )


def _name(fn: object, name: str | None) -> str:
    found = name if name is not None else getattr(fn, "__name__", "")
    if not isinstance(found, str) or not found or not found.isprintable():
        raise RegistrationError(
            f"a tool needs a name of printable characters, got {found!r} for {repr_of(fn):.80}; pass `name=`"
        )
    return found


def _signature(fn: Callable[..., Any], tool: str) -> inspect.Signature:
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise RegistrationError(
            f"tool {tool!r} is a generator, whose effects would come after its outcome was recorded; "
            "return a list"
        )
    try:
        return inspect.signature(fn)
    except (TypeError, ValueError) as exc:
        raise RegistrationError(f"tool {tool!r} has no signature: {exc}; wrap it in a function") from exc


def _template(text: str, tool: str) -> ResourceTemplate:
    try:
        template = ResourceTemplate.parse(text)
    except ValueError as exc:
        raise RegistrationError(f"tool {tool!r}: {exc}") from exc
    if template.has_loose_braces:
        raise RegistrationError(
            f"tool {tool!r}: in resource {text!r} braces must hold an argument's name alone: `{{order_id}}`"
        )
    return template


def _flat(bound: inspect.BoundArguments) -> dict[str, Any]:
    """Arguments by name, with `**kwargs` of the tool unpacked."""
    flat: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        flat.update(value if kind is inspect.Parameter.VAR_KEYWORD else {name: value})
    return flat


def _to_json(value: Any, name: str) -> Json:
    try:
        # Bytes are left as they are, to be refused: as base64 the tool would get something else than it was given.
        # Sets are sorted: one set is one array, in every process.
        plain = msgspec.to_builtins(
            value, builtin_types=(bytes, bytearray, memoryview), enc_hook=_plain, order="deterministic"
        )
        _refuse_nan(plain)
        # As it will be read back from the record: canonical JSON has no 5.0, only 5.
        return parse(canonical(plain))
    except Exception as exc:  # a guard point: the value's own methods run here, and may raise anything
        raise RequestInvalid("args_invalid", f"argument `{name}` is not JSON: {message_of(exc)}") from exc


def _salvage(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Json]:
    """What can be recorded of arguments that do not fit: JSON as it is, anything else as a bounded repr."""
    named = {str(key): value for key, value in kwargs.items()} | ({"*args": list(args)} if args else {})
    return {key.encode(errors="replace").decode(): _recordable(value, key) for key, value in named.items()}


def _recordable(value: Any, name: str) -> Json:
    try:
        return _to_json(value, name)
    except RequestInvalid:
        return {"repr": repr_of(value)[:1024]}


def _refuse_nan(value: Any) -> None:
    match value:
        case float() if not math.isfinite(value):
            raise ValueError(f"{value!r} is not a JSON number")
        case dict():
            for item in value.values():
                _refuse_nan(item)
        case list():
            for item in value:
                _refuse_nan(item)


def _plain(value: Any) -> Any:
    """Pydantic models and enums as JSON; anything else is no argument."""
    if isinstance(value, Enum):
        return value.value
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no JSON form")


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A tool's result as the trace keeps it."""

    columns: Mapping[str, Json]
    """Columns of `outcomes`."""
    blob: Mapping[str, Json] | None
    """Row of `blobs`, for a large result."""


def store_result(value: Any, storage: ResultStorage) -> StoredResult:
    """Return what to keep of `value`. What has no JSON form is kept as its `repr` under `{"repr": …}`.

    Never raises: the tool has run, and its outcome must be recorded.
    """
    if storage == "none":
        return StoredResult({"result_storage": "none"}, None)
    text = _result_text(value)
    size, address = len(text.encode()), sha256(text)
    columns: dict[str, Json] = {"result_storage": storage, "result_hash": address, "result_bytes": size}
    if storage == "hash" or size > KEPT_BYTES:
        return StoredResult(columns | {"result_storage": "hash"}, None)
    if size <= INLINE_BYTES:
        return StoredResult(columns | {"result": text}, None)
    head = text.encode()[:1024].decode(errors="ignore")
    return StoredResult(columns | {"result": head}, {"blob_hash": address, "bytes": size, "data": text})


def _result_text(value: Any) -> str:
    try:
        return canonical(msgspec.to_builtins(value, enc_hook=_plain, order="deterministic"))
    except Exception:  # noqa: BLE001 - a guard point: the value's own methods run here, and may raise anything
        return canonical({"repr": repr_of(value)})
