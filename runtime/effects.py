"""What a tool declares about its effect: its kind, what it writes, and the functions that finish or undo it.

One rule: a declaration that could not be kept is refused when the tool is registered, not when it matters.

Each function may take a parameter `effect_id`: the action's stable id, the same for all attempts under one
idempotency key, for the system behind it to recognise a repeat by. It is never given by a caller.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, get_args

from runtime.errors import RegistrationError
from runtime.foreign import repr_of
from runtime.guards import Guard, check_seconds, guards_of
from runtime.lifecycle import Effect
from runtime.request import RequestInvalid, ResourceTemplate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runtime.canonical import Json
    from runtime.isolation import Isolation
    from runtime.usage import Usage

EFFECT_ID: Final = "effect_id"
"""The parameter the runtime fills."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """A function beside the tool: commit, abort, undo or status. Called by names, like the tool itself."""

    fn: Callable[..., Any]
    value: str | None
    """Name of the parameter that takes the handle (of undo: the result); None: it takes none."""
    takes_effect_id: bool

    def arguments(self, value: Any, effect_id: str) -> dict[str, Any]:
        """Return what to call it with."""
        given = {} if self.value is None else {self.value: value}
        return given | ({EFFECT_ID: effect_id} if self.takes_effect_id else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """A checked declaration. Everything is optional: nothing declared means nothing known."""

    effect: Effect | None = None
    writes: tuple[ResourceTemplate, ...] | None = None
    """Entities the action writes; None: undeclared, so its resource."""
    guards: tuple[Guard, ...] = ()
    commit: Callback | None = None
    abort: Callback | None = None
    undo: Callback | None = None
    status: Callback | None = None
    timeout: float | None = None
    """Seconds the tool, and each function beside it, may take; None: however long it takes."""
    key_ttl: float | None = None
    """Seconds after which an idempotency key may be used anew; None: never."""
    usage: Callable[[Any], Usage | None] | None = None
    isolate: Isolation | None = None

    def written(self, args: Mapping[str, Json] | None) -> list[Json] | None:
        """Return the uids of what a call with these arguments writes, sorted; None: not known."""
        if self.writes is None or args is None:
            return None
        try:
            return [*sorted({str(template.resolve(args)) for template in self.writes})]
        except RequestInvalid:
            return None


def effects_of(
    fn: Callable[..., Any],
    tool: str,
    signature: inspect.Signature,
    *,
    effect: object = None,
    writes: object = None,
    guards: object = (),
    commit: Callable[..., Any] | None = None,
    abort: Callable[..., Any] | None = None,
    undo: Callable[..., Any] | None = None,
    status: Callable[..., Any] | None = None,
    timeout: float | None = None,
    key_ttl: float | None = None,
    usage: Callable[..., Any] | None = None,
    isolate: Isolation | None = None,
) -> Effects:
    """Check what a tool declares; see `Runtime.tool`.

    Raises:
        RegistrationError: an unknown effect; functions that do not belong to it, or that it lacks; a slot of `writes`
            that is no parameter; a time that is none; a function that cannot be isolated.
    """
    check_seconds(timeout, "`timeout`", tool)
    check_seconds(key_ttl, "`key_ttl`", tool)
    given = {"commit": commit, "abort": abort, "undo": undo, "status": status}
    return Effects(
        effect=_effect(effect, tool, given),
        writes=_writes(writes, signature, tool, effect),
        guards=guards_of(guards, tool),
        timeout=timeout,
        key_ttl=key_ttl,
        usage=_callable(usage, "usage", tool),
        isolate=_isolation(isolate, tool, fn, *given.values()),
        **{name: _callback(each, name, tool) for name, each in given.items()},
    )


_FUNCTIONS: Final[Mapping[Effect | None, tuple[frozenset[str], frozenset[str]]]] = {
    None: (frozenset(), frozenset({"status"})),
    "read": (frozenset(), frozenset()),
    "idempotent": (frozenset(), frozenset({"status"})),
    "staged": (frozenset({"commit", "abort"}), frozenset({"commit", "abort", "status"})),
    "compensable": (frozenset({"undo"}), frozenset({"undo", "status"})),
}
"""Functions that an effect needs, and those it may have."""


def _effect(effect: Any, tool: str, functions: Mapping[str, object]) -> Effect | None:
    if effect not in (None, *get_args(Effect)):
        raise RegistrationError(
            f"tool {tool!r}: `effect` is one of {', '.join(get_args(Effect))}, or left out; got {effect!r:.40}"
        )
    needs, may = _FUNCTIONS[effect]
    given = {name for name, fn in functions.items() if fn is not None}
    if missing := sorted(needs - given):
        raise RegistrationError(
            f"tool {tool!r}: a tool that is {effect!r} needs {' and '.join(f'`{name}=`' for name in sorted(needs))}; "
            f"missing is {', '.join(missing)}"
        )
    if extra := sorted(given - may):
        fits = [kind for kind, (_, allowed) in _FUNCTIONS.items() if kind and extra[0] in allowed]
        raise RegistrationError(
            f"tool {tool!r}: `{extra[0]}=` is for tools that are {' or '.join(fits)}; "
            f"this one is {effect or 'of no declared effect'}"
        )
    return effect  # type: ignore[no-any-return]  # one of the vocabulary, as checked


def _writes(
    writes: Any, signature: inspect.Signature, tool: str, effect: object
) -> tuple[ResourceTemplate, ...] | None:
    if writes is None:
        return None
    if isinstance(writes, str) or not hasattr(writes, "__iter__"):
        raise RegistrationError(
            f"tool {tool!r}: `writes` is a list of templates, such as ('Order::{{order_id}}',); got {writes!r:.80}"
        )
    what = f"tool {tool!r}: `writes`"
    templates = tuple(template_of(text, what) for text in writes)
    if templates and effect == "read":
        raise RegistrationError(f"tool {tool!r}: a tool that is 'read' writes nothing; leave `writes` out")
    for template in templates:
        require_slots(template, signature, what)
    return templates


def template_of(text: object, what: str) -> ResourceTemplate:
    """Parse a declared `Type::{argument}`.

    Raises:
        RegistrationError: it is none, or has a brace that is no slot.
    """
    if not isinstance(text, str):
        raise RegistrationError(f"{what} must be text such as 'Order::{{order_id}}', got {text!r:.80}")
    try:
        template = ResourceTemplate.parse(text)
    except ValueError as exc:
        raise RegistrationError(f"{what}: {exc}") from exc
    if template.has_loose_braces:
        raise RegistrationError(f"{what} {text!r}: braces must hold an argument's name alone: `{{order_id}}`")
    if template.has_touching_slots:
        raise RegistrationError(
            f"{what} {text!r}: put some text between two slots, such as `/`; else other arguments give the same id"
        )
    return template


def require_slots(template: ResourceTemplate, signature: inspect.Signature, what: str) -> None:
    """Refuse a template with a slot that is no parameter.

    Raises:
        RegistrationError: naming it and the parameters.
    """
    parameters = signature.parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if not takes_any and (unknown := sorted(template.slots - set(parameters))):
        raise RegistrationError(
            f"{what} {template.text!r} uses `{unknown[0]}`; "
            f"its parameters are {', '.join(parameters) or 'none'}"
        )


def without_effect_id(signature: inspect.Signature) -> inspect.Signature:
    """Return the signature that callers see; the same one if it has no `effect_id`."""
    if EFFECT_ID not in signature.parameters:
        return signature
    return signature.replace(parameters=[p for n, p in signature.parameters.items() if n != EFFECT_ID])


def _callable(fn: Any, name: str, tool: str) -> Any:
    if fn is not None and not callable(fn):
        raise RegistrationError(f"tool {tool!r}: `{name}=` is a function, got {repr_of(fn):.80}")
    return fn


def _callback(fn: Any, name: str, tool: str) -> Callback | None:
    """Find out which parameter takes the handle: the first that is not `effect_id`."""
    if _callable(fn, name, tool) is None:
        return None
    try:
        parameters = dict(inspect.signature(fn).parameters)
    except (TypeError, ValueError) as exc:
        raise RegistrationError(
            f"tool {tool!r}: `{name}=` has no signature: {exc}; wrap it in a function"
        ) from exc
    takes_effect_id = parameters.pop(EFFECT_ID, None) is not None
    named = [p for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = [
        p
        for p in parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if len(needed) > 1 or any(p not in named for p in needed):
        raise RegistrationError(
            f"tool {tool!r}: `{name}=` must be callable with {_SHAPES[name]}; it is {repr_of(fn):.80}"
        )
    if (name == "status" and not takes_effect_id) or (name != "status" and not named and not takes_effect_id):
        raise RegistrationError(
            f"tool {tool!r}: `{name}=` takes {_SHAPES[name]}; without them it cannot know which effect is meant"
        )
    return Callback(
        fn=fn, value=(needed or named)[0].name if named else None, takes_effect_id=takes_effect_id
    )


_SHAPES: Final = {
    "commit": "the handle, and `effect_id` if it likes",
    "abort": "the handle, and `effect_id` if it likes",
    "undo": "the result, and `effect_id` if it likes",
    "status": "`effect_id`, and the handle if it likes",
}


def _isolation(isolate: Any, tool: str, *functions: Any) -> Isolation | None:
    if isolate is None:
        return None
    from runtime.isolation import Isolation, target_of  # noqa: PLC0415 - only who isolates pays for it

    if not isinstance(isolate, Isolation):
        raise RegistrationError(
            f"tool {tool!r}: `isolate=` is a `runtime.isolation.Isolation`, got {isolate!r:.80}"
        )
    for fn in functions:
        if fn is not None:
            target_of(fn)
    return isolate
