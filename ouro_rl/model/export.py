"""Writes a checkpoint as a folder for others: weights in one precision, tokenizer, code, and a README; no optimizer."""

from __future__ import annotations

from pathlib import Path

import torch

from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.checkpoint_contract import PublishedCode, complete_checkpoint


def export_checkpoint(checkpoint: str, out: Path, *, dtype: str, code: PublishedCode, card: str) -> None:
    """`card` is the README, `code` what makes the folder loadable without ouro-rl. The exit gate stays in fp32."""
    model, tokenizer = load_policy(checkpoint, torch.float32)
    model.to(getattr(torch, dtype))
    model.config.dtype = dtype
    model.save_pretrained(out)
    complete_checkpoint(out, tokenizer, code, card)
