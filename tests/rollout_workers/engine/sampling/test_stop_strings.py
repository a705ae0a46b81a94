"""Stop strings: the text of each token, the automaton against a plain search, and samples that end at one."""

import random
from dataclasses import replace

import pytest
import torch

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.rollout import Prompt, RolloutRequest
from ouro_rl.core.sampling_params import SamplingParams, StopStrings
from ouro_rl.model.tiny_tokenizer import make_tokenizer
from ouro_rl.model.token_bytes import byte_alphabet, stop_strings_of, token_pieces
from ouro_rl.model.tokenizer import completion_texts
from rollout_workers.engine.engine import RolloutEngine
from rollout_workers.engine.sampling.stop_strings import StopStringMatcher, token_table
from tests.references.tiny_models import random_model

PIECES = (b"a", b"b", b"ab", b"ba", b"aab", b"", b"\xc3", b"\xa9", b"xyz", b"b\nQ", b"aaaaab\n")
CPU = torch.device("cpu")


def first_end(strings, tokens):
    """By plain search: the number of tokens until the text contains a stop string, and the string that ends first."""
    text = b""
    for count, token in enumerate(tokens, start=1):
        text += PIECES[token] if token < len(PIECES) else b""
        found = [
            (text.find(s.encode()) + len(s.encode()), place) for place, s in enumerate(strings) if s.encode() in text
        ]
        if found:
            return count, strings[min(found)[1]]
    return None


@pytest.mark.parametrize("strings", [
    ("ab",), ("aab", "b\n"), ("é",), ("aa", "aaa", "a\nQ"), ("baab", "aabb", "abba"), ("xyzx", "yz"), ("b", "ab"),
    ("ab", "b"),
    ("aaab", "aab"),
])  # fmt: skip
def test_the_automaton_finds_what_a_search_finds(strings):
    rng, stop = random.Random(0), StopStrings(strings=strings, pieces=PIECES)
    ended = 0
    for _ in range(1000):
        tokens = [rng.randrange(len(PIECES) + 2) for _ in range(rng.randrange(1, 12))]
        matcher = StopStringMatcher(stop, 3, len(PIECES) + 2, CPU)
        row, got = torch.tensor([1]), None
        for count, token in enumerate(tokens, start=1):
            if matcher.advance(row, torch.tensor([token])).item():
                got = count, matcher.ended_by([1])[0]
                break
        assert got == first_end(strings, tokens)
        assert matcher.ended_by([0, 2]) == [None, None]
        ended += got is not None
    assert ended > 15


def test_a_reused_slot_starts_from_scratch():
    matcher = StopStringMatcher(StopStrings(strings=("ab",), pieces=PIECES), 2, 11, CPU)
    rows = torch.tensor([0, 1])
    assert not matcher.advance(rows, torch.tensor([0, 0])).any()
    matcher.start(torch.tensor([0]))
    assert matcher.advance(rows, torch.tensor([1, 1])).tolist() == [False, True]


def test_a_large_vocabulary_is_quick_to_tabulate():
    rng = random.Random(1)
    pieces = tuple(bytes(rng.choices(b"abc \n", k=rng.randint(1, 12))) for _ in range(49_152))
    table = token_table(StopStrings(strings=("```\n", "\n\nabc ab"), pieces=pieces), 49_152)
    assert table.shape == (1 + 4 + 8 + 2, 49_152)
    token = next(i for i, piece in enumerate(pieces) if piece == b"ab")
    assert table[0, token] == 0


def test_every_byte_has_a_character():
    assert sorted(byte_alphabet().values()) == list(range(256))


def test_pieces_are_what_the_tokenizer_writes():
    tokenizer = make_tokenizer()
    pieces = token_pieces(tokenizer)
    assert len(pieces) == len(tokenizer) and pieces[2] == b"<|im_end|>"
    for text in ("7 + 8 = 15\n", "né — 日本", "\\boxed{3}<|im_end|>", "system user\t"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert b"".join(pieces[i] for i in ids).decode() == text == tokenizer.decode(ids)


def test_pieces_of_a_sentence_piece_tokenizer():
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    words = {"<unk>": 0, "\u2581the": 1, "cat": 2, "<0xC3>": 3, "<0xA9>": 4}
    backend = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>"))
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    assert token_pieces(PreTrainedTokenizerFast(tokenizer_object=backend))[1:] == (b" the", b"cat", b"\xc3", b"\xa9")
    backend.decoder = decoders.WordPiece()
    with pytest.raises(UserError, match="use stop_token_ids"):
        token_pieces(PreTrainedTokenizerFast(tokenizer_object=backend))


def test_strings_that_cannot_be_used():
    tokenizer = make_tokenizer()
    assert stop_strings_of(tokenizer, ()) is None
    assert stop_strings_of(tokenizer, ("\n\n", "é")).strings == ("\n\n", "é")
    with pytest.raises(UserError, match="eval key: 600 bytes in total, at most 512"):
        stop_strings_of(tokenizer, ("x" * 600,), key="eval key")


def test_samples_end_with_the_token_that_completes_a_string():
    """Every sample against its own text; the tokens before the end are those of the run without stop strings."""
    tokenizer = make_tokenizer()
    model = random_model(3, vocab=len(tokenizer))
    prompt = Prompt(index=0, token_ids=(1, 40, 50))
    request = RolloutRequest(prompt=prompt, seeds=tuple(range(300)))
    params = SamplingParams(max_new_tokens=12, temperature=3.0, stop_token_ids=(2,))
    free = RolloutEngine(model, EngineConfig(max_batch=64)).generate([request], params)
    strings = ("e", "se", "boxed", "}{")  # "user" and "system" are tokens: "e" ends inside them
    stopped = RolloutEngine(model, EngineConfig(max_batch=64)).generate(
        [request], replace(params, stop_strings=stop_strings_of(tokenizer, strings))
    )
    texts, kinds = completion_texts(tokenizer, stopped), set()
    for long, short, text in zip(free, stopped, texts, strict=True):
        assert short.completion_ids == long.completion_ids[: len(short.completion_ids)]
        before = tokenizer.decode(short.completion_ids[:-1])
        assert not any(s in before for s in strings)
        whole = tokenizer.decode(short.completion_ids)
        if short.stop_string is None:
            by_id = short.completion_ids[-1] == 2
            assert short.finish_reason == ("stop" if by_id else "length") and by_id == (len(short.depths) < 12 or by_id)
            assert text == (before if by_id else whole)
        else:
            assert short.finish_reason == "stop" and text.endswith(short.stop_string) and whole.startswith(text)
            kinds.add((short.stop_string, whole == text))
    assert {("e", True), ("e", False)} <= kinds or {("e", True), ("se", False)} <= kinds
