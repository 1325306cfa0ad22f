"""What a judge answered, read: a chat completion, and in its text the JSON that was asked for.

One rule: what is not exactly an answer is a `ValueError` that says what it is instead; nothing is guessed.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from workbench.texts import shorten, visible

__all__ = ["MAX_SAID", "Completion", "completion_of", "read", "text_of"]

MAX_SAID = 200
"""Characters of an answer that an error quotes."""


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class Completion(msgspec.Struct):
    """An answer of the protocol, as far as it is used."""

    choices: list[_Choice]
    system_fingerprint: str | None = None


def completion_of(body: bytes) -> Completion:
    """Read an answer.

    Raises:
        ValueError: it is none.
    """
    try:
        return msgspec.json.decode(body, type=Completion)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ValueError(f"no chat completion: {visible(shorten(str(exc), MAX_SAID))}") from exc


def text_of(found: Completion) -> str:
    """Return the text of an answer.

    Raises:
        ValueError: there is none, it was refused, or it is cut off.
    """
    if not found.choices:
        raise ValueError("no choices")
    choice = found.choices[0]
    if choice.message.refusal:
        raise ValueError(f"refused: {visible(shorten(choice.message.refusal, MAX_SAID))}")
    if choice.finish_reason in ("length", "content_filter"):
        raise ValueError(f"cut off by the server ({choice.finish_reason})")
    if not (choice.message.content or "").strip():
        raise ValueError("empty")
    return str(choice.message.content)


def read(text: str, schema: Any) -> Any:
    """Read an answer as the JSON object it holds, be there prose or thinking around it.

    Args:
        text: of an answer.
        schema: the pydantic model that it must be of.

    Raises:
        ValueError: it is not JSON, a number in it is not finite, or it is not of that shape.
    """
    begin, end = text.find("{"), text.rfind("}")
    try:
        value = json.loads(text[begin : end + 1] if begin >= 0 else text, parse_constant=_not_finite)
        return schema.model_validate(value)
    except ValueError as exc:  # pydantic's error is one, as is json's
        said = " ".join(str(exc).split())
        raise ValueError(
            f"{visible(shorten(said, MAX_SAID))}; it said {visible(shorten(text, MAX_SAID))!r}"
        ) from None


def _not_finite(text: str) -> float:
    raise ValueError(f"{text} is no number")
