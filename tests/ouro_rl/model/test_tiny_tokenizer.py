"""The tiny tokenizer: any text round-trips, and its format is that of the published checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouro_rl.core.errors import UserError
from ouro_rl.model.tiny_tokenizer import WORDS, make_tokenizer
from ouro_rl.model.tokenizer import load_tokenizer, stop_token_ids

TOKENIZER = make_tokenizer()


@given(st.text())
def test_any_text_round_trips(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


def test_digits_stand_alone_and_words_are_one_token() -> None:
    assert TOKENIZER.convert_ids_to_tokens(TOKENIZER("120+7")["input_ids"]) == ["1", "2", "0", "+", "7"]
    for word in WORDS:
        assert len(TOKENIZER(word)["input_ids"]) == 1
    assert TOKENIZER.decode(TOKENIZER("\\boxed{34}")["input_ids"]) == "\\boxed{34}"


def test_special_tokens_are_where_the_published_ones_are(random_checkpoint: Path) -> None:
    for tokenizer in (TOKENIZER, load_tokenizer(str(random_checkpoint))):
        assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
        assert stop_token_ids(tokenizer) == (0, 2)


def test_chat_template() -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "1+1"}]
    text = TOKENIZER.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert text == "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n"
    assert TOKENIZER.decode(TOKENIZER(text)["input_ids"]) == text


def test_the_published_special_tokens_are_corrected(tmp_path: Path) -> None:
    """In the published files bos, eos and pad are all `<|endoftext|>`: generation would never stop."""
    tokenizer = make_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token = tokenizer.pad_token = "<|endoftext|>"
    tokenizer.save_pretrained(tmp_path)
    mended = load_tokenizer(str(tmp_path))
    assert (mended.pad_token_id, mended.bos_token_id, mended.eos_token_id) == (0, 1, 2)


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no usable tokenizer"):
        load_tokenizer(str(tmp_path))
