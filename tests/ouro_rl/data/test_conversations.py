"""Questions as chat messages: text parts, nulls, and conversations that begin the answer."""

from __future__ import annotations

import pytest

from ouro_rl.core.errors import UserError
from ouro_rl.data.conversations import messages_of
from ouro_rl.data.prompts import ChatFormat, render
from ouro_rl.model.tiny_tokenizer import make_tokenizer

TOKENIZER = make_tokenizer()
USER, BEGUN = {"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "<think>\nI add \n"}
OPEN = "<|im_start|>assistant\n"


def texts(*questions, **chat) -> list[str]:
    prompts = render([(question, {}) for question in questions], TOKENIZER, ChatFormat(**chat), "rows")
    return [TOKENIZER.decode(prompt.token_ids) for prompt in prompts]


def test_a_partial_answer_is_continued_in_the_same_turn() -> None:
    question = "<|im_start|>user\n1+1?<|im_end|>\n"
    assert texts([USER, BEGUN]) == [question + OPEN + BEGUN["content"]], "to the last blank, without an end of turn"
    assert texts("1+1?", [USER, BEGUN], [USER], assistant_prefix="A:") == [
        question + OPEN + "A:", question + OPEN + BEGUN["content"], question + OPEN + "A:",
    ]  # fmt: skip


def test_the_suffix_belongs_to_the_question() -> None:
    earlier = [USER, {"role": "assistant", "content": "2"}]
    (text,) = texts([*earlier, USER, BEGUN], prompt_suffix=" Box it.", system_prompt="Be brief.")
    assert text.count(" Box it.") == 1 and f"1+1? Box it.<|im_end|>\n{OPEN}<think>" in text
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert USER["content"] == "1+1?", "the row is not changed"


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "1+", "image_url": None}, {"type": "text", "text": "1?"}]
    assert texts([{"role": "user", "content": parts}]) == texts("1+1?")


@pytest.mark.parametrize(
    ("question", "part"),
    [
        (7, "must be a string or a list of chat messages"),
        ([], "must be a string or a list"),
        (["text"], "must be a string or a list"),
        ([{"content": "x"}], "message 1: a message needs a `role`"),
        ([{"role": "user", "content": None}], "message 1: its content is null"),
        ([USER, {"role": "assistant", "content": None, "tool_calls": []}], "message 2: its content is null"),
        ([USER, {"role": "assistant", "content": ""}], "the assistant's message at the end is empty"),
        ([{"role": "user"}], "its content is null"),
        ([{"role": "user", "content": 3}], "its content is a int"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "a part that is not text"),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "a part that is not text"),
        ([{"role": "system", "content": "x"}], "no message of the user"),
    ],
)
def test_invalid_conversations_are_refused(question, part: str) -> None:
    with pytest.raises(UserError, match=part) as caught:
        messages_of(question, "row 3", system_prompt=None, prompt_suffix="")
    assert str(caught.value).startswith("row 3")
