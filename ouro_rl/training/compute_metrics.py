"""What an update's answers cost, and whether depths differ between tokens: metrics and the warnings that follow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ouro_rl.core.rollout import ScoredRollout
from ouro_rl.core.sampling_params import DepthPolicy
from ouro_rl.core.summary_stats import deviation, mean
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.flops import answer_flops

LEAST_SPREAD = 0.05
"""Depths with a smaller standard deviation, in loops, have collapsed: about one token in 400 differs."""
LEAST_INFORMATION = 0.002
"""A gate with less mutual information between token and depth, in nats per token, treats all tokens alike."""


def compute_metrics(
    scored: Sequence[ScoredRollout], shape: OuroConfig, policy: DepthPolicy, solved_reward: float
) -> dict[str, float]:
    """Metrics of the completions whose depths the gate chose, without what is lost. NaN where there is nothing to take
    a mean of.

    compute/loops_per_answer          mean sum of a completion's depths
    compute/loops_per_correct_answer  the same over the solved completions (reward of `solved_reward` or more); absent
                                      without one
    compute/flops                     mean floating-point operations of a completion and its prompt, attention included
    depth/std_between_tokens          standard deviation of the depths of single tokens
    """
    scored = [item for item in scored if item.rollout.fixed_depth is None and item.rollout.finish_reason != "lost"]
    most = policy.max_loops(shape.total_ut_steps)
    runs_all = policy.kv_rule.runs_all_loops
    loops = [sum(item.rollout.depths) for item in scored]
    flops = [
        answer_flops(
            shape,
            len(item.rollout.prompt_ids),
            [most] * len(item.rollout.depths) if runs_all else item.rollout.depths,
            prompt_loops=most,
        )
        for item in scored
    ]
    solved = [item.reward is not None and item.reward >= solved_reward for item in scored]
    of_solved = [count for count, right in zip(loops, solved, strict=True) if right]
    return {
        "compute/loops_per_answer": mean(loops),
        **({"compute/loops_per_correct_answer": mean(of_solved)} if of_solved else {}),
        "compute/flops": mean(flops),
        "depth/std_between_tokens": deviation([depth for item in scored for depth in item.rollout.depths]),
    }


class DepthWatch:
    """Says when depth no longer adapts: once, and again when it had recovered."""

    def __init__(self) -> None:
        self.said: set[str] = set()

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """What to say after an update with these metrics, for the first time."""
        found = depth_warnings(metrics)
        new = [text for name, text in found.items() if name not in self.said]
        self.said = set(found)
        return new


def depth_warnings(metrics: Mapping[str, float]) -> dict[str, str]:
    """Faults of the depths by name, in plain words with the metric that shows them."""
    spread = metrics.get("depth/std_between_tokens", math.nan)
    information = metrics.get("gate/information", math.nan)
    if spread < LEAST_SPREAD:
        return {
            "collapsed": f"depth collapsed: nearly all tokens run {metrics['depth/mean']:.2f} loops "
            f"(depth/std_between_tokens {spread:.3f}, below {LEAST_SPREAD:g}), so the gate learns nothing more; lower "
            "gate.price or gate.lr, or set rollout.exploration"
        }
    if information < LEAST_INFORMATION:
        return {
            "static": "gate static: depth does not depend on the token, as if a coin drew it (gate/information "
            f"{information:.4f} nats, below {LEAST_INFORMATION:g}); set gate.variety_bonus, or lower gate.price"
        }
    return {}
