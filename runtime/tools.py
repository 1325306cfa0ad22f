"""Tools as the runtime knows them: a function, its resource, its scopes, what to keep of its result.

One rule: the tool receives the JSON that was decided about, and nothing else: canonical JSON, in which a whole
float is an integer (`4.0` arrives as `4`), so that live and replayed decisions see the same value.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from runtime.arguments import json_form, plain_arguments, salvaged
from runtime.canonical import Json, canonical, sha256
from runtime.effects import EFFECT_ID, Effects, effects_of, require_slots, template_of, without_effect_id
from runtime.errors import RegistrationError
from runtime.foreign import message_of, repr_of
from runtime.request import RequestInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runtime.request import ResourceTemplate

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
    """Of what a caller gives: without `effect_id`."""
    takes_effect_id: bool = False
    effects: Effects = field(default_factory=Effects)
    """What it declares about what it does to the world."""
    names: frozenset[str] | None = field(init=False, compare=False, repr=False)
    """Of its parameters, where it takes those and no others; None: it takes any."""
    shared: tuple[ResourceTemplate, ...] = field(init=False, compare=False, repr=False)
    """Templates of several slots, which other arguments might give as well."""

    def __post_init__(self) -> None:
        """Work out what of binding a call hangs on the declaration only."""
        parameters = self.signature.parameters
        fixed = all(p.kind is not p.VAR_KEYWORD for p in parameters.values())
        templates = (self.resource, *(self.effects.writes or ()))
        object.__setattr__(self, "names", frozenset(parameters) if fixed else None)
        object.__setattr__(self, "shared", tuple(each for each in templates if each.id.count("{") > 1))

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function, or an object whose `__call__` is one."""
        return inspect.iscoroutinefunction(self.fn) or inspect.iscoroutinefunction(type(self.fn).__call__)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Bound:
        """Name the call's arguments and take them to JSON, defaults included: policies see what the tool gets.

        Never raises: what does not fit is kept for the record, with the refusal beside it.
        """
        try:
            if (
                self.names is not None and not args and kwargs.keys() == self.names
            ):  # there is nothing to bind
                named, text = plain_arguments({name: kwargs[name] for name in self.signature.parameters})
            else:
                self._refuse_effect_id(kwargs)
                named, text = plain_arguments(self._named(args, kwargs))
            if self.shared:
                self._refuse_shared(named)
            return Bound(named, None, text)
        except TypeError as exc:
            return Bound(
                salvaged(args, kwargs), f"{message_of(exc):.1024}; the tool is {self.name}{self.signature}"
            )
        except RequestInvalid as exc:
            return Bound(salvaged(args, kwargs), str(exc))

    def _named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Arguments by name, with defaults."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return _flat(bound)

    def check(self, args: Mapping[str, Json]) -> None:
        """Refuse arguments the tool would not run with exactly: a patch may have added some, or taken some away."""
        if self.names is not None and args.keys() == self.names:  # each is there, and nothing else
            self._refuse_shared(args)
            return
        try:
            self._refuse_effect_id(args)
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
        self._refuse_shared(args)

    def _refuse_shared(self, args: Mapping[str, Json]) -> None:
        """Refuse arguments that would share their resource, or what they write, with other arguments."""
        for template in self.shared:
            template.check(args)

    def _refuse_effect_id(self, args: Mapping[str, Any]) -> None:
        """The runtime alone says which effect this is, also to a tool that takes any argument."""
        if self.takes_effect_id and EFFECT_ID in args:
            raise TypeError(f"`{EFFECT_ID}` is given by the runtime")


@dataclass(frozen=True, slots=True)
class Bound:
    """Arguments of one call as JSON, and why the tool cannot take them, if it cannot."""

    args: Mapping[str, Json]
    refusal: str | None
    text: str | None = None
    """Canonical text of `args`, where they were bound to the tool's signature just now."""


def make_tool(  # one place that checks a declaration
    fn: Callable[..., Any],
    *,
    name: str | None,
    resource: str | None,
    scopes: tuple[str, ...],
    store: ResultStorage,
    declared: Mapping[str, Any] | None = None,
) -> Tool:
    """Check a declaration and build the tool.

    Args:
        fn: the function.
        name: the tool's; None: the function's.
        resource: `Type::{argument}`; None: `Tool::<name>`.
        scopes: a session must hold.
        store: what to keep of results.
        declared: what `effects_of` takes.

    Raises:
        RegistrationError: no function, or a generator; no name; positional-only parameters, a reserved name; a
            resource slot that is no parameter; unknown storage; effects that do not fit together.
    """
    tool_name = _name(fn, name)
    whole = _signature(fn, tool_name)
    signature = without_effect_id(whole)
    template = template_of(resource or f"Tool::{tool_name}", f"tool {tool_name!r}: resource")
    parameters = signature.parameters
    if store not in get_args(ResultStorage):
        raise RegistrationError(
            f"tool {tool_name!r}: `store` must be one of {', '.join(get_args(ResultStorage))}, got {store!r}"
        )
    if RESERVED in parameters:
        raise RegistrationError(
            f"tool {tool_name!r} has a parameter `{RESERVED}`, which is reserved; rename it"
        )
    _require_names(signature, tool_name)
    require_slots(template, signature, f"tool {tool_name!r}: resource")
    return Tool(
        name=tool_name,
        fn=fn,
        resource=template,
        scopes=tuple(sorted(set(scopes))),
        store=store,
        signature=signature,
        takes_effect_id=signature is not whole,
        effects=effects_of(fn, tool_name, signature, **(declared or {})),
    )


def _require_names(signature: inspect.Signature, tool: str) -> None:
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise RegistrationError(
                f"tool {tool!r}: parameter `{parameter.name}` has no name in a call; arguments are named"
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


def _flat(bound: inspect.BoundArguments) -> dict[str, Any]:
    """Arguments by name, with `**kwargs` of the tool unpacked."""
    flat: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        flat.update(value if kind is inspect.Parameter.VAR_KEYWORD else {name: value})
    return flat


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
        return canonical(msgspec.to_builtins(value, enc_hook=json_form, order="deterministic"))
    except Exception:  # noqa: BLE001 - a guard point: the value's own methods run here, and may raise anything
        return canonical({"repr": repr_of(value)})
