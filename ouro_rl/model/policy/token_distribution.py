"""The policy's log-probs: one function for the worker that samples and for the trainer that replays.

The action at a position is the pair (depth, token): log pi(d, y) = log p(d) + log pi(y | h^d). The depth term is in
`ouro_rl.model.policy.exit_gate`. The token term is `token_distribution`: logit processors, temperature, top-k, top-p,
min-p, and a softmax over the tokens that they keep.

The kept tokens (the support) are always all logits above some threshold, ties included, so the size of the support
determines it; workers record the size for every token. The trainer keeps that many of the largest logits. If it applied
the filters again, a difference in the last bit of a logit could drop a token at the edge of the nucleus, and the
log-probs of the others would jump by its mass; the n-th largest logit, in contrast, moves continuously. With new
weights (reused or stale batches) the size stays the one at sampling time: both policies then share one action space up
to its edge, like the sampling masks that DeepSeek-V3.2 keeps (arXiv 2512.02556, section 3.1). The recorded token always
belongs to the support: if its logit has fallen out, it takes the last place. So no recorded token has probability 0,
and bitwise-equal logits give bitwise-equal log-probs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ouro_rl.core.sampling_params import TokenFilters
from ouro_rl.model.policy.logit_processors import process_logits

UNFILTERED = TokenFilters()
NUCLEUS_CANDIDATES = (256, 4096)
"""Top-p looks at this many of the largest logits first, then at this many; rows with a larger nucleus are sorted."""
Prefixes = Sequence[Sequence[int]]
"""All tokens of each row so far, prompt and completion; only logit processors need them."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a worker sampled, for n rows."""

    token_ids: Tensor
    """int64 [n]."""
    support_sizes: Tensor
    """int64 [n]: how many tokens the filters kept; unused without filters."""


def token_distribution(
    logits: Tensor,
    temperature: float,
    filters: TokenFilters = UNFILTERED,
    *,
    prefixes: Prefixes | None = None,
    recorded: Recorded | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The distribution of the next token: logits [n, vocab] -> fp32 log-probs [n, vocab] and support sizes int64 [n].

    Log-probs are -inf for tokens that are filtered out; sizes are None without filters. `recorded`: replay with the
    recorded support instead of applying the filters. Temperature 0 (greedy) reports that of temperature 1."""
    logits = logits.float()
    if filters.logit_processors:
        assert prefixes is not None, "logit processors read what stands before each row"
        logits = process_logits(filters.logit_processors, logits, prefixes)
    scaled = logits if temperature in (0.0, 1.0) else logits / temperature
    if not filters.restrict:
        return torch.log_softmax(scaled, dim=-1), None
    with torch.no_grad():
        if recorded is None:
            outside = scaled < support_threshold(scaled, filters).unsqueeze(1)
            sizes = (outside.shape[1] - outside.sum(-1, dtype=torch.int32)).long()
        else:
            sizes = recorded.support_sizes
            outside = scaled < replay_threshold(scaled, recorded).unsqueeze(1)
            outside.scatter_(1, recorded.token_ids.unsqueeze(1), False)
    return torch.log_softmax(torch.where(outside, -torch.inf, scaled), dim=-1), sizes


def support_threshold(scaled: Tensor, filters: TokenFilters) -> Tensor:
    """The smallest logit that the filters keep in each row: [n, vocab] -> [n]. Rows are independent of each other."""
    threshold = scaled.new_full(scaled.shape[:1], -torch.inf)
    if 0 < filters.top_k < scaled.shape[1]:
        threshold = scaled.topk(filters.top_k).values[:, -1]
    if filters.top_p < 1:
        kept = scaled if filters.top_k == 0 else torch.where(scaled < threshold.unsqueeze(1), -torch.inf, scaled)
        # Rounding may leave the total probability of the top-k tokens below top_p: then only top-k applies.
        threshold = torch.maximum(threshold, nucleus_threshold(kept, filters.top_p))
    if filters.min_p > 0:
        threshold = torch.maximum(threshold, scaled.amax(-1) + math.log(filters.min_p))
    return threshold


def nucleus_threshold(scaled: Tensor, top_p: float) -> Tensor:
    """The smallest logit of the nucleus, the fewest top tokens whose probability reaches `top_p`: [n, vocab] -> [n]."""
    log_normalizer = (scaled.amax(-1) - torch.log_softmax(scaled, dim=-1).amax(-1)).unsqueeze(1)
    threshold = scaled.new_empty(len(scaled))
    rows = torch.arange(len(scaled), device=scaled.device)
    for candidates in (*NUCLEUS_CANDIDATES, scaled.shape[1]):
        ordered = scaled[rows].topk(min(candidates, scaled.shape[1])).values
        threshold[rows], reached = _where_reached(ordered, log_normalizer[rows], top_p)
        rows = rows[~reached]
        if len(rows) == 0:
            break
    return threshold


def _where_reached(ordered: Tensor, log_normalizer: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Logits in descending order [n, k] -> the one where the probability reaches `top_p` [n], and whether it does
    [n]."""
    cumulative = (ordered.double() - log_normalizer).exp().cumsum(-1)
    place = (cumulative < top_p).sum(-1, keepdim=True)
    threshold = ordered.gather(1, place.clamp(max=ordered.shape[1] - 1)).squeeze(1)
    return threshold, (place < ordered.shape[1]).squeeze(1)


def replay_threshold(scaled: Tensor, recorded: Recorded) -> Tensor:
    """The smallest of the `recorded.support_sizes` largest logits: [n, vocab] -> [n].

    If the recorded token is not among them, one logit fewer is kept: the recorded token takes the last place."""
    sizes = recorded.support_sizes
    everything = sizes >= scaled.shape[1]
    most = int(sizes.masked_fill(everything, 1).max()) if len(sizes) else 1
    largest = scaled.topk(most).values
    largest = torch.cat(
        [torch.full_like(largest[:, :1], torch.inf), largest], dim=1
    )  # column k: the smallest of the k largest
    last = sizes.clamp(max=most).unsqueeze(1)
    threshold, before = largest.gather(1, last), largest.gather(1, last - 1)
    own = scaled.gather(1, recorded.token_ids.unsqueeze(1))
    return torch.where(own < threshold, before, threshold).squeeze(1).masked_fill(everything, -torch.inf)


def chosen_logprobs(log_probs: Tensor, token_ids: Tensor) -> Tensor:
    """Log-prob of each row's token: log_probs [n, vocab], token_ids [n] -> [n]."""
    return log_probs.gather(1, token_ids.unsqueeze(1)).squeeze(1)


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy in nats: log-probs [..., vocab] -> [...]; a token of probability 0 contributes 0."""
    return -(log_probs.exp() * log_probs.clamp(min=torch.finfo(log_probs.dtype).min)).sum(-1)


def sample_tokens(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """Inverse-CDF sampling: log_probs [n, vocab], one uniform per row [n] -> token ids [n], never one of probability 0.

    fp32 probabilities are summed in fp64."""
    cumulative = log_probs.exp().double().cumsum(-1)
    total = cumulative[:, -1]
    # Rounding could raise the target to the total, which is past the last possible token.
    target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(cumulative, target.unsqueeze(-1), right=True).squeeze(-1)
    return tokens.clamp(max=log_probs.shape[-1] - 1)  # NaN logits would give an index past the end
