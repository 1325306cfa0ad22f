"""What registering a tool makes of it: a function that is governed, and a declaration that its schema fits.

One rule: whoever calls the decorated function goes through a session, or is refused.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from runtime.errors import GovernanceError, RegistrationError
from runtime.schema import Record
from runtime.session import Session, current_session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runtime.bundle import Bundle
    from runtime.loop import Runtime
    from runtime.schema import ActionType
    from runtime.tools import Tool


def find_tool(
    tool: str | Callable[..., Any], tools: Mapping[str, Tool], governed: Mapping[str, Callable[..., Any]]
) -> Tool:
    """Return a registered tool; see `Runtime.find_tool`."""
    if isinstance(tool, str):
        found = tools.get(tool)
    else:
        given = getattr(tool, "redecide_tool", tool)
        pairs = ((each, governed.get(each.name)) for each in tools.values())
        found = next((each for each, wrapper in pairs if wrapper is given or each.fn == given), None)
    if found is None:
        known = ", ".join(sorted(tools)) or "none"
        what = f"no tool {tool!r:.120}" if isinstance(tool, str) else f"{tool!r:.120} is no tool that"
        raise RegistrationError(f"{what} is registered here; registered are {known}")
    return found


def governed(tool: Tool, runtime: Runtime) -> Callable[..., Any]:
    """Return a function that calls `tool` through the session it runs in, and refuses outside of one."""

    def session() -> Session:
        found = current_session()
        if found is None:
            raise GovernanceError(f"tool {tool.name!r} is governed; call it inside `with runtime.session(…)`")
        if not found.is_of(runtime):
            raise GovernanceError(
                f"tool {tool.name!r} is registered with another runtime than the session it is called in; "
                "open a session of its own runtime"
            )
        return found

    if tool.is_async:

        @functools.wraps(tool.fn)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await session().acall(tool.name, *args, **kwargs)
    else:

        @functools.wraps(tool.fn)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return session().call(tool.name, *args, **kwargs)

    # How `find_tool` knows it again, also when a framework has wrapped it once more.
    wrapper.redecide_tool = wrapper  # type: ignore[attr-defined]  # functions take attributes
    wrapper.__signature__ = tool.signature  # type: ignore[attr-defined]  # frameworks read it
    del wrapper.__wrapped__  # no way around the governor through introspection
    return wrapper


def check_against_schema(tool: Tool, bundle: Bundle) -> None:
    """A declared action takes exactly its tool's parameters and resource; else every call would be refused later."""
    action = bundle.schema.actions.get(tool.name)
    if action is None:
        return
    if action.principals and tool.resource.type not in action.resources:
        raise RegistrationError(
            f"tool {tool.name!r} has resource {tool.resource.text!r}, its action applies to "
            f"{', '.join(action.resources)}; pass `resource=`, such as {f'{action.resources[0]}::{{argument}}'!r}"
        )
    if any(p.kind is p.VAR_KEYWORD for p in tool.signature.parameters.values()):
        return
    declared = _declared_arguments(action)
    given = set(tool.signature.parameters)
    if declared != given:
        raise RegistrationError(
            f"tool {tool.name}{tool.signature} does not fit its schema: only in the tool: "
            f"{', '.join(sorted(given - declared)) or 'none'}; only in the schema: "
            f"{', '.join(sorted(declared - given)) or 'none'}"
        )


def _declared_arguments(action: ActionType) -> set[str]:
    """Names of the JSON arguments an action's schema takes: a scaled attribute takes the member it scales."""
    args = action.context.attrs["args"].type if "args" in action.context.attrs else Record()
    assert isinstance(args, Record)  # noqa: S101 - checked when the bundle was loaded
    return {attr.scaled.member if attr.scaled else name for name, attr in args.attrs.items()}
