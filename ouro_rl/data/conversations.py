"""From a row's question to chat messages whose contents are strings, and to the text of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ouro_rl.core.errors import UserError

Message = dict[str, str]


def messages_of(question: Any, where: str, *, system_prompt: str | None, prompt_suffix: str) -> list[Message]:
    """The conversation of a question: a string, or a list of messages whose content is a string or text parts.

    `prompt_suffix` is appended to the last message of the user, `system_prompt` stands first unless the row has a
    system message. Raises UserError, naming `where`, for anything else."""
    if isinstance(question, str):
        question = [{"role": "user", "content": question}]
    if not isinstance(question, list) or not question or not all(isinstance(message, dict) for message in question):
        raise UserError(f"{where}: a question must be a string or a list of chat messages, not {str(question)[:60]!r}")
    messages = [_message(message, f"{where}, message {at}") for at, message in enumerate(question, start=1)]
    asked = [at for at, message in enumerate(messages) if message["role"] == "user"]
    if not asked:
        raise UserError(f"{where}: has no message of the user; give the question with the role `user`")
    messages[asked[-1]]["content"] += prompt_suffix
    if is_begun(messages) and not messages[-1]["content"]:
        raise UserError(f"{where}: the assistant's message at the end is empty; remove it, or begin the answer in it")
    if system_prompt is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system_prompt})
    return messages


def asks_nothing(messages: Sequence[Message], prompt_suffix: str) -> bool:
    """Whether the last question of a conversation from `messages_of` is blank, apart from the suffix."""
    question = next(message["content"] for message in reversed(messages) if message["role"] == "user")
    return not question.removesuffix(prompt_suffix).strip()


def is_begun(messages: Sequence[Message]) -> bool:
    """Whether the conversation ends with the beginning of the answer, which is then continued."""
    return messages[-1]["role"] == "assistant"


def prompt_texts(tokenizer: Any, conversations: Sequence[Sequence[Message]], assistant_prefix: str) -> list[str]:
    """The prompts in the tokenizer's chat template: a new turn of the assistant with `assistant_prefix`, or the
    assistant's last message left open, as the row has it."""
    begun = [is_begun(messages) for messages in conversations]
    texts: dict[bool, list[str]] = {True: [], False: []}
    for ends in set(begun):
        these = [messages for messages, is_open in zip(conversations, begun, strict=True) if is_open == ends]
        texts[ends] = tokenizer.apply_chat_template(
            these, add_generation_prompt=not ends, continue_final_message=ends, tokenize=False
        )
    queues = {True: iter(texts[True]), False: iter(text + assistant_prefix for text in texts[False])}
    return [next(queues[ends]) for ends in begun]


def _message(message: dict[str, Any], where: str) -> Message:
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        raise UserError(f"{where}: a message needs a `role`, such as user; it has {', '.join(map(str, message))}")
    if isinstance(content, list):
        content = "".join(_text_of(part, where) for part in content)
    if not isinstance(content, str):
        raise UserError(f"{where}: its content is {_kind(content)}; give a string or a list of text parts")
    return {"role": role, "content": content}


def _text_of(part: Any, where: str) -> str:
    """The text of a content part `{"type": "text", "text": ...}`; other keys may be there, as in Parquet."""
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, dict) else None
    if kind != "text" or not isinstance(part.get("text"), str):
        raise UserError(f"{where}: holds a part that is not text ({str(part)[:60]!r}); only texts can be trained on")
    return part["text"]


def _kind(content: Any) -> str:
    return "null" if content is None else f"a {type(content).__name__}"
