"""Credit over depth: what each of T loops earned for a token, from its probed loops (`records.Probes`).

A token y was sampled at depth d, drawn from p_t = p(d = t). It would have been the same token at another loop with
probability pi_t(y), so the posterior of the depth is r_t = p_t pi_t(y) / sum_s p_s pi_s(y). The Rao-Blackwell form of
the policy gradient puts r_t in the place of the one depth that was drawn:

    gate   A sum_t r_t grad log p_t        head   A sum_t r_t grad log pi_t(y)

It is the score function's mean over depths, given the token: of the same mean and never of more variance, as long as
the depth matters for the rest of the answer through the token alone. That holds for the last token, and for every token
under the KV rule `full`; elsewhere it drops what the depth does through the keys and values that later tokens read.

Sizes: T loops, k probed tokens. Weights are constants; a loop of weight 0 adds nothing, whatever its log-prob is.
"""

from __future__ import annotations

import torch
from torch import Tensor


def depth_posterior(log_pdf: Tensor, token_logprobs: Tensor) -> Tensor:
    """r_t = p_t pi_t(y) / sum_s p_s pi_s(y) -> [T, k], detached. Both [T, k] in nats, -inf where impossible."""
    return (log_pdf + token_logprobs).detach().softmax(0)


def loop_weights(credit: str, log_pdf: Tensor) -> Tensor:
    """RLTT's weights of the loops (arXiv 2602.10520) -> [T, k], detached: they sum to 1 for every token.

    `rltt_uniform`: 1 / T; `rltt_progressive`: in proportion to t; `rltt_exit`: p_t, from `log_pdf` [T, k]."""
    if credit == "rltt_exit":
        return log_pdf.detach().exp()
    loops = torch.arange(1, len(log_pdf) + 1, device=log_pdf.device, dtype=log_pdf.dtype)
    weights = {"rltt_uniform": torch.ones_like(loops), "rltt_progressive": loops}[credit]
    return (weights / weights.sum()).unsqueeze(1).expand_as(log_pdf)


def spread(weights: Tensor, logprobs: Tensor) -> Tensor:
    """sum_t w_t log p_t: two [T, k] -> [k], with the gradient of the log-probs alone."""
    counts = weights > 0
    return (weights.detach() * torch.where(counts, logprobs, torch.zeros_like(logprobs))).sum(0)


def spread_loss(weights: Tensor, logprobs: Tensor, advantages: Tensor, ratios: Tensor) -> Tensor:
    """-rho A sum_t w_t log p_t, all [k] but the two [T, k]: credit spread over the loops.

    `ratios`: importance weights of the samples, 1 on the policy that sampled; no gradient flows to them."""
    return -ratios.detach() * advantages * spread(weights, logprobs)


def mixed(score: Tensor, probed: Tensor, tokens: Tensor, eta: float) -> Tensor:
    """Losses of all tokens, `score` [n], with those of the probed `tokens` [k] replaced: RB + eta * (score - RB)."""
    return score.index_put((tokens,), torch.lerp(probed, score[tokens], eta))
