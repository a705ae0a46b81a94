"""Ouro for transformers: configuration, layers, replay, checkpoints, tokenizer."""
