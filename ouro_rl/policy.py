"""The policy's log-probs: one function for the worker that samples and for the trainer that replays.

The action at a position is the pair (depth, token): log pi(d, y) = log p(d) + log softmax(W h^d / tau)[y]. The depth's half lives in
`ouro_rl.exit_gate`; what shapes the token distribution (temperature today) enters here, on both sides alike.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """log softmax(logits / tau) in fp32, [..., vocab]; temperature 0 (greedy) reports that of 1."""
    scaled = logits.float() if temperature in (0.0, 1.0) else logits.float() / temperature
    return torch.log_softmax(scaled, dim=-1)


def token_logprobs(logits: Tensor, token_ids: Tensor, temperature: float) -> Tensor:
    """Log-prob of each token: logits [..., vocab], token_ids [...] -> [...], fp32."""
    return token_log_softmax(logits, temperature).gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy in nats of log-probabilities [..., vocab] -> [...]."""
    return -(log_probs.exp() * log_probs).sum(-1)


def uniforms(seeds: Tensor, positions: Tensor, stream: int) -> Tensor:
    """Counter-based random numbers in [0, 1): a pure function of (seed, position, stream), so that a sample depends on
    its own seed alone. int64 tensors [n] -> fp64 [n]. SplitMix64's finaliser (Steele et al., 2014), applied twice."""
    state = _mix(seeds + _wrap(0x9E3779B97F4A7C15) * (positions + 1))
    state = _mix(state + _wrap(0xD1B54A32D192ED03) * (stream + 1))
    return _shift(state, 11).double() * 2.0**-53


TOKEN_STREAM, DEPTH_STREAM = 0, 1


def sample_tokens(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """Inverse-CDF draw: log_probs [n, vocab], one uniform a row [n] -> token ids [n]. The sum runs in fp64."""
    cumulative = log_probs.double().exp().cumsum(-1)
    target = (uniform * cumulative[:, -1]).unsqueeze(-1)
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp(max=log_probs.shape[-1] - 1)


def _mix(state: Tensor) -> Tensor:
    state = (state ^ _shift(state, 30)) * _wrap(0xBF58476D1CE4E5B9)
    state = (state ^ _shift(state, 27)) * _wrap(0x94D049BB133111EB)
    return state ^ _shift(state, 31)


def _shift(state: Tensor, bits: int) -> Tensor:
    """Logical right shift: int64 has only the arithmetic one."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def _wrap(constant: int) -> int:
    """An unsigned 64-bit constant as the int64 with the same bits."""
    return constant - (1 << 64) if constant >= 1 << 63 else constant
