"""The texts of prompts and completions, be they plain or conversations."""

from __future__ import annotations

from typing import Any


def text_of(completion: Any) -> str:
    """The text of a completion: a string, or a conversation whose messages' contents are joined."""
    if isinstance(completion, str):
        return completion
    return "\n".join(str(message.get("content") or "") for message in completion)


def last_user_text(prompt: Any) -> str:
    """The question of a prompt: a text, or the last message of its user."""
    if isinstance(prompt, str):
        return prompt
    return next((str(message.get("content") or "") for message in reversed(prompt) if message.get("role") == "user"), "")
