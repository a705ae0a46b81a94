"""Extracts text from prompts and completions, given as strings or as conversations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def text_of(completion: Any) -> str:
    """The text of a completion: the string itself, or the contents of a conversation's messages, one per line."""
    if isinstance(completion, str):
        return completion
    return "\n".join(content_of(message) for message in completion)


def content_of(message: Mapping[str, Any]) -> str:
    """The text of a message: its content, or the concatenated texts of its parts if the content is a list."""
    content = message.get("content") or ""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") if isinstance(part, Mapping) else str(part) for part in content)
    return str(content)


def last_user_text(prompt: Any) -> str:
    """The question in a prompt: the string itself, or the last user message."""
    if isinstance(prompt, str):
        return prompt
    return next((content_of(message) for message in reversed(prompt) if message.get("role") == "user"), "")
