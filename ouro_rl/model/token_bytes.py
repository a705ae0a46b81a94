"""The bytes of each token: workers match stop strings against these and need no tokenizer.

A byte-level token may end inside a character, and a stop string inside a token; bytes have neither boundary. In UTF-8,
a string occurs in the bytes of a text exactly where it occurs in the text."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ouro_rl.core.errors import UserError
from ouro_rl.core.sampling_params import StopStrings

KEY = "rollout.stop_strings"
MOST_BYTES = 512
"""Limit for all stop strings together: workers hold a table of (bytes) x (vocabulary)."""
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def stop_strings_of(tokenizer: Any, strings: Sequence[str], key: str = KEY) -> StopStrings | None:
    """`strings` with the tokenizer's pieces, for `SamplingParams`; None for no strings. `key` names them in errors.

    Raises UserError if the strings are too long, or if the tokenizer's tokens cannot be decoded one by one."""
    if not strings:
        return None
    total = sum(len(text.encode()) for text in strings)
    if total > MOST_BYTES:
        raise UserError(
            f"{key}: {total} bytes in total, at most {MOST_BYTES} are possible; give fewer or shorter strings"
        )
    pieces = token_pieces(tokenizer, key)
    for text in strings:
        written = b"".join(pieces[token] for token in tokenizer(text, add_special_tokens=False)["input_ids"])
        if text.encode() not in written:
            raise UserError(
                f"{key}: the tokenizer cannot encode {text!r} (it becomes {written!r}); give another string"
            )
    return StopStrings(strings=tuple(strings), pieces=pieces)


def token_pieces(tokenizer: Any, key: str = KEY) -> tuple[bytes, ...]:
    """UTF-8 bytes of every token by id, empty for unused ids. Special tokens give their name, as in completions."""
    kinds = _decoders(tokenizer)
    if "ByteLevel" in kinds:
        alphabet = byte_alphabet()
        read = lambda token: bytes(alphabet[character] for character in token)  # noqa: E731
    elif {"ByteFallback", "Metaspace"} & kinds:
        read = _sentence_piece
    else:
        raise UserError(
            f"{key}: tokens of this tokenizer cannot be decoded one by one ({sorted(kinds)}); use stop_token_ids"
        )
    added = {index: token.content.encode() for index, token in tokenizer.added_tokens_decoder.items()}
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return tuple(added[i] if i in added else b"" if token is None else read(token) for i, token in enumerate(tokens))


@functools.cache
def byte_alphabet() -> dict[str, int]:
    """Character -> byte of byte-level (GPT-2) tokenizers.

    Printable Latin-1 characters map to themselves; the other bytes, in order, are written as U+0100 and up."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}


def _sentence_piece(token: str) -> bytes:
    byte = BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("\u2581", " ").encode()


def _decoders(tokenizer: Any) -> set[str]:
    """The decoder types of the tokenizer; empty if it is not based on the `tokenizers` library."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return set() if backend is None else set(_kinds(json.loads(backend.to_str())["decoder"] or {}))


def _kinds(decoder: dict[str, Any]) -> Iterator[str]:
    if "type" in decoder:
        yield decoder["type"]
    for part in decoder.get("decoders", ()):
        yield from _kinds(part)
