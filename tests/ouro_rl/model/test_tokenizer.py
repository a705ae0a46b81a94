"""Token ids are those of `tokenizer.json`, whatever class a checkpoint names, and stay so in saved checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ouro_rl.cli.preflight.checks import check_token_ids
from ouro_rl.model.tokenizer import PROBES, load_tokenizer, other_token_ids, save_tokenizer, tokenizer_file

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = ["a\n\n\nb\n\n    return 7\n        x = 2023 2024\n\n1. One\n\n2. Two    7    8 ", "def f(x):\n    return x"]
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def digits(tokenizer: Tokenizer) -> None:
    """SmolLM2's pre-tokenizer: every digit alone."""
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def normalized(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])


def begins_with_bos(tokenizer: Tokenizer) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )


def flagged_tokens(tokenizer: Tokenizer) -> None:
    tokenizer.add_tokens([AddedToken("<think>", normalized=True, lstrip=True, rstrip=True)])
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", rstrip=True, special=True)])


def padded_and_cut(tokenizer: Tokenizer) -> None:
    tokenizer.enable_padding(length=16, pad_token=SPECIAL[0])
    tokenizer.enable_truncation(4)


def folder_with(folder: Path, *changes, cls: str = "GPT2Tokenizer") -> Path:
    """A checkpoint folder with a small BPE tokenizer, which has had `changes`."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for change in changes:
        change(tokenizer)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS * 50, trainer)
    for change in changes:
        change(tokenizer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": cls, "additional_special_tokens": SPECIAL[1:], "chat_template": TEMPLATE}
    config |= {f"{name}_token": SPECIAL[0] for name in ("bos", "eos", "unk")}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "ouro"}))
    return folder


KINDS = [(digits,), (normalized,), (begins_with_bos,), (flagged_tokens,), (padded_and_cut,), (digits, normalized)]


@pytest.mark.parametrize("changes", KINDS, ids=lambda changes: "+".join(change.__name__ for change in changes))
@pytest.mark.parametrize("cls", ["GPT2Tokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast"])
def test_ids_are_those_of_the_file_before_and_after_saving(tmp_path: Path, changes, cls: str) -> None:
    file = folder_with(tmp_path, *changes, cls=cls) / "tokenizer.json"
    reference = Tokenizer.from_file(str(file))
    reference.no_padding()
    reference.no_truncation()
    saved = tmp_path / "saved"
    save_tokenizer(load_tokenizer(str(tmp_path)), saved)
    assert (saved / "tokenizer.json").read_bytes() == file.read_bytes()
    for tokenizer in (load_tokenizer(str(tmp_path)), load_tokenizer(str(saved))):
        for text in PROBES:
            assert tokenizer(text)["input_ids"] == reference.encode(text).ids, text
            assert (
                tokenizer(text, add_special_tokens=False)["input_ids"]
                == reference.encode(text, add_special_tokens=False).ids
            )
        assert tokenizer.chat_template == TEMPLATE
        assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (*SPECIAL[1:], SPECIAL[0])
        assert tokenizer.padding_side == "left"
        assert other_token_ids(tokenizer, file) is None


def test_the_probes_show_a_rebuilt_pre_tokenizer(tmp_path: Path) -> None:
    file = folder_with(tmp_path, digits) / "tokenizer.json"
    rebuilt = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    rebuilt.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert other_token_ids(rebuilt, file) in PROBES
    assert not check_token_ids(rebuilt, str(tmp_path)).passed
    assert check_token_ids(load_tokenizer(str(tmp_path)), str(tmp_path)).passed


def test_tokens_of_the_config_alone_are_kept(tmp_path: Path) -> None:
    folder_with(tmp_path, digits)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"additional_special_tokens": ["<answer>"]}))
    tokenizer = load_tokenizer(str(tmp_path))
    (new,) = tokenizer("<answer>", add_special_tokens=False)["input_ids"]
    save_tokenizer(tokenizer, tmp_path / "saved")
    again = load_tokenizer(str(tmp_path / "saved"))
    assert again("<answer>", add_special_tokens=False)["input_ids"] == [new]
    assert again.all_special_tokens == tokenizer.all_special_tokens


def test_a_saved_tokenizer_names_what_transformers_4_knows(tmp_path: Path) -> None:
    """transformers 4 has no `TokenizersBackend` and wants `extra_special_tokens` to be a dict."""
    save_tokenizer(load_tokenizer(str(folder_with(tmp_path, digits))), tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["additional_special_tokens"] == SPECIAL[1:]
    assert not {"backend", "extra_special_tokens"} & config.keys()
    assert [config[f"{name}_token"] for name in ("pad", "bos", "eos")] == SPECIAL
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").padding_side == "left"


def test_a_tokenizer_without_tokenizer_json_is_loaded_by_its_class(tmp_path: Path) -> None:
    folder_with(tmp_path)
    backend = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer.json").unlink()
    backend.model.save(str(tmp_path))
    assert tokenizer_file(str(tmp_path)) is None
    assert load_tokenizer(str(tmp_path))("a 1", add_special_tokens=False)["input_ids"] == backend.encode("a 1").ids
