"""A checkpoint's tokenizer: loading it, its stop tokens, and the texts of completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ouro_rl.core.errors import UserError
from ouro_rl.core.rollout import Rollout


def load_tokenizer(path: str) -> Any:
    """The tokenizer of a folder or hub id, with the published checkpoints' special tokens corrected.

    Their files set bos, eos and pad to `<|endoftext|>`; correct are `<|im_start|>`, `<|im_end|>` and `<|endoftext|>`.
    Raises UserError if there is no tokenizer.
    """
    from transformers import AutoTokenizer

    import ouro_rl.model.modeling_ouro  # noqa: F401 (registers `ouro`, whose config a generic tokenizer needs)

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        problem = " ".join(str(error).strip().split("\n")[0].split())[:200]
        raise UserError(f"model {path}: no usable tokenizer ({problem})") from error
    right = {"pad_token": "<|endoftext|>", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    if set(right.values()) <= tokenizer.get_vocab().keys():
        for name, token in right.items():
            setattr(tokenizer, name, token)
    return tokenizer


def stop_token_ids(tokenizer: Any, further: Sequence[int] = (), key: str = "") -> tuple[int, ...]:
    """Ids that end a completion: end of turn, end of text (which base models emit), and `further` ones (set by `key`).

    Raises UserError for an id that the tokenizer does not have."""
    if unknown := [token for token in further if token >= len(tokenizer)]:
        raise UserError(f"{key}: {unknown[0]} is not a token id, the tokenizer has {len(tokenizer)} tokens; correct it")
    ends = {tokenizer.eos_token_id, tokenizer.get_vocab().get("<|endoftext|>"), *further}
    return tuple(sorted(ends - {None}))


def completion_texts(tokenizer: Any, rollouts: Sequence[Rollout]) -> list[str]:
    """The completions as graders see them: without the final stop token, or up to the end of the stop string.

    The stop string stays, since graders may look for it (such as `</answer>`). Other special tokens stay, too."""
    by_token = [rollout.finish_reason == "stop" and rollout.stop_string is None for rollout in rollouts]
    kept = [rollout.completion_ids[: -1 if cut else None] for rollout, cut in zip(rollouts, by_token, strict=True)]
    texts = tokenizer.batch_decode(kept, skip_special_tokens=False)
    return [_up_to(text, rollout.stop_string) for text, rollout in zip(texts, rollouts, strict=True)]


def _up_to(text: str, end: str | None) -> str:
    """`text` up to the end of the first `end` in it; all of it if there is none."""
    head, found, _ = text.partition(end) if end else (text, "", "")
    return head + found
