"""What goes into the objective and what comes out: frozen records of tensors.

Sizes: N rollouts of an update (groups are consecutive), C tokens of the longest completion, T loops at most; m
completions of a micro batch with n tokens in all, one completion after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """All rollouts of an update, as far as credit depends on them."""

    rewards: Tensor
    """fp64 [N]; NaN: could not be scored."""
    depths: Tensor
    """int64 [N, C], 1-based; `NO_DEPTH` after a completion's end."""
    finished: Tensor
    """bool [N]: ended by itself; not cut off at the maximum length and not given up."""
    by_gate: Tensor
    """bool [N]: the gate chose its depths; False where they were fixed."""


@dataclass(frozen=True, kw_only=True)
class Credits:
    """What each token and each decision of the gate earned; N rollouts, or some of them after `rows`."""

    advantages: Tensor
    """fp32 [N, C], of the token head."""
    gate_returns: Tensor
    """fp32 [N, C, T - 1], of the decision after each loop; 0 where none was made, and where depths were fixed."""
    gate_advantages: Tensor
    """fp32 [N, C]: what `gate_returns` hold besides the loops of the token itself; 0 where depths were fixed."""
    loop_prices: Tensor
    """fp32 [N, C]: what `gate_returns` charge each token for one more loop of its own; 0 where depths were fixed."""
    stay_costs: Tensor
    """fp32 [N, T - 1]: what the loops after a decision to stay cost on average. Times the probability of staying it is
    the state's baseline of the cost, which the losses add to the return; 0 if the returns have another baseline."""
    hazards: Tensor
    """fp32 [N, T - 1]: share of the update's decisions at each loop that were exits, the same for all rollouts."""
    by_gate: Tensor
    """bool [N], from `Sampled`."""
    of_rollouts: Tensor
    """fp32 [N]: the advantage of each completion as a whole, from its reward alone."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the update, by their names in `metrics.jsonl`."""

    def rows(self, some: slice) -> Credits:
        """Those of some rollouts."""
        tensors = {item.name: getattr(self, item.name)[some] for item in fields(self) if item.name != "metrics"}
        return replace(self, **tensors)


@dataclass(frozen=True, kw_only=True)
class Probes:
    """All T loops of k probed tokens: as replayed up to a token's depth, beyond it what the loop would have given."""

    tokens: Tensor
    """int64 [k]: which of the micro batch's n tokens, ascending."""
    token_logprobs: Tensor
    """fp32 [T, k], with gradient: log-prob of the recorded token at each loop; -inf where a loop's filters drop it."""
    gate_logits: Tensor
    """fp32 [T, k], with gradient, as the policy uses them (see `Replayed.gate_logits`)."""
    detached_gate_logits: Tensor
    """The same from detached states: their gradient reaches the gate alone."""


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A micro batch after its replay: what was recorded, and the same computed anew, with gradient."""

    token_logprobs: Tensor
    """fp32 [n], with gradient."""
    gate_logits: Tensor
    """fp32 [T, n], with gradient, as the policy uses them (`exit_gate.policy_logits`): lambda = sigmoid of them. 0 at
    loops that a token did not run."""
    depths: Tensor
    """int64 [n], as recorded."""
    sampler_logprobs: Tensor
    """fp32 [n]: the tokens' log-probs, as recorded."""
    depth_logprobs: Tensor
    """fp32 [n]: log p(depth), as recorded."""
    advantages: Tensor
    """fp32 [n], from `Credits`."""
    gate_returns: Tensor
    """fp32 [n, T - 1], from `Credits`, like the following ones."""
    gate_advantages: Tensor
    """fp32 [n]."""
    loop_prices: Tensor
    """fp32 [n]."""
    stay_costs: Tensor
    """fp32 [n, T - 1]."""
    hazards: Tensor
    """fp32 [n, T - 1]."""
    by_gate: Tensor
    """bool [n]."""
    lengths: Tensor
    """int64 [m]: tokens of each completion."""
    weights: Tensor
    """fp32 [n]: of each token in the loss (`losses.token_weights`)."""
    probes: Probes | None = None
    """None: no token was probed."""


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What a micro batch adds to the loss of its update."""

    token: Tensor
    """Of the token head; a scalar with gradient."""
    gate: Tensor
    """Of the gate, without `gate.loss_weight`; a scalar with gradient."""
    total: Tensor
    """What is minimized; a scalar with gradient."""
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    """Values of tokens or decisions, any number of them, detached, by the names of their means in `metrics.jsonl`."""
