"""The texts of prompts and completions, be they plain or conversations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def text_of(completion: Any) -> str:
    """The text of a completion: a string, or a conversation whose messages' contents are joined."""
    if isinstance(completion, str):
        return completion
    return "\n".join(content_of(message) for message in completion)


def content_of(message: Mapping[str, Any]) -> str:
    """The text of a message: its content, or where that is a list of parts, the parts' texts in a row."""
    content = message.get("content") or ""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") if isinstance(part, Mapping) else str(part) for part in content)
    return str(content)


def last_user_text(prompt: Any) -> str:
    """The question of a prompt: a text, or the last message of its user."""
    if isinstance(prompt, str):
        return prompt
    return next((content_of(message) for message in reversed(prompt) if message.get("role") == "user"), "")
