"""A checkpoint's tokenizer: loading and saving it, its stop tokens, and the texts of completions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils.hub import cached_file

from ouro_rl.core.errors import UserError, first_line
from ouro_rl.core.rollout import Rollout

TOKENIZER_FILE = "tokenizer.json"
NOT_OF_THE_TOKENIZER = ("auto_map", "backend", "is_local", "local_files_only")
"""Keys of a saved tokenizer_config.json that say how it was loaded, or name code that is not copied."""
MODEL_INPUTS = ("input_ids", "attention_mask")
"""What a tokenizer computes for the model. transformers 4 adds `token_type_ids` unless the file says otherwise, which
`generate(**inputs)` refuses."""
SPECIAL_TOKENS = {"pad_token": "<|endoftext|>", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
"""The special tokens of the published checkpoints, whose files set all three to `<|endoftext|>`."""
PROBES = (
    "\n\n1.", "    7", "2023", "x = 3.14159  # 2 * 3\t4", "\r\n  12,345.67 \u00a0 8", "naïve ﬁ Å",
    "def fact(n):\n    if n <= 1:\n        return 1\n\n    return n * fact(n - 1)\n\n\nprint(fact(10))\n",
    "小明有 12 个苹果，又买了 30 个。\n\n1. 一共有多少个？\n   答案：42。",
    "<|im_start|>user\nWhat is 7 + 8?<|im_end|>\n<|im_start|>assistant\n<think>\n",
)  # fmt: skip
"""Texts on which pre-tokenizers and normalizers differ: blanks before digits, numbers, code, Chinese."""


def load_tokenizer(path: str, revision: str | None = None) -> Any:
    """The tokenizer of a folder or hub id; it computes exactly what its `tokenizer.json` says, and pads on the left.

    transformers 5 rebuilds the pre-tokenizer and normalizer of some classes (`GPT2Tokenizer`) from its own code instead
    of reading them, so the class that `tokenizer_config.json` names is not used where there is a `tokenizer.json`.
    The published checkpoints' special tokens are corrected. Raises UserError if there is no tokenizer."""
    import ouro_rl.model.modeling_ouro  # noqa: F401 (registers `ouro`, whose config a generic tokenizer needs)

    try:
        file = tokenizer_file(path, revision)
        cls = AutoTokenizer if file is None else PreTrainedTokenizerFast
        tokenizer = cls.from_pretrained(path, revision=revision or "main", trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"model {path}: no usable tokenizer ({first_line(error)})") from error
    if file is not None:
        _read_exactly(tokenizer, file)
    if set(SPECIAL_TOKENS.values()) <= tokenizer.get_vocab().keys():
        for name, token in SPECIAL_TOKENS.items():
            setattr(tokenizer, name, token)
    tokenizer.padding_side = "left"  # a prompt's last token stands where the completion begins
    return tokenizer


def tokenizer_file(path: str, revision: str | None = None) -> Path | None:
    """The `tokenizer.json` of a folder or hub id; None if it has none."""
    found = cached_file(path, TOKENIZER_FILE, revision=revision, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)


def _read_exactly(tokenizer: Any, file: Path) -> None:
    """Undo what loading changed in the file's computation. Tokens that only `tokenizer_config.json` names stay."""
    text = file.read_text(encoding="utf-8")
    backend = _unpadded(Tokenizer.from_str(text))
    known = backend.get_vocab(with_added_tokens=True)
    further = [token for _, token in sorted(tokenizer.added_tokens_decoder.items()) if token.content not in known]
    backend.add_tokens(further)
    tokenizer._tokenizer = backend
    tokenizer.original_json = None if further else text


def other_token_ids(tokenizer: Any, file: Path, texts: Iterable[str] = PROBES) -> str | None:
    """The first of `texts` to which the tokenizer gives other ids than the `tokenizer.json` does; None if all agree."""
    reference = _unpadded(Tokenizer.from_file(str(file)))
    for text in texts:
        if (
            tokenizer(text, add_special_tokens=False)["input_ids"]
            != reference.encode(text, add_special_tokens=False).ids
        ):
            return text
    return None


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save a tokenizer so that transformers 4 and 5 load the same one: `tokenizer.json` as it was loaded, a class that
    both know, and additional special tokens under the name that both read."""
    tokenizer.save_pretrained(folder)
    original = getattr(tokenizer, "original_json", None)
    if original is not None:
        (folder / TOKENIZER_FILE).write_text(original, encoding="utf-8")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if (folder / TOKENIZER_FILE).exists():
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config["padding_side"] = tokenizer.padding_side
    config["model_input_names"] = list(MODEL_INPUTS)
    for key in NOT_OF_THE_TOKENIZER:
        config.pop(key, None)
    if isinstance(further := config.pop("extra_special_tokens", None), list):
        config["additional_special_tokens"] = further
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _unpadded(backend: Tokenizer) -> Tokenizer:
    """Without the file's padding and truncation: no prompt is cut or filled up."""
    backend.no_padding()
    backend.no_truncation()
    return backend


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
