"""What the gate predicts against what one more loop brings: metrics of probed tokens."""

from __future__ import annotations

from torch import Tensor

from ouro_rl.model.policy.exit_gate import log_stay
from ouro_rl.training.warmstart.losses import STAGE_TWO_MARGIN


def calibration(gate_logits: Tensor, token_logprobs: Tensor, min_depth: int = 1) -> dict[str, Tensor]:
    """Values of every decision that the gate takes, or would take, about the T loops of k tokens; their means are
    metrics of `metrics.jsonl`. Both arguments [T, k].

    The realized gain of loop t + 1 is what it adds to the log-prob of the token that was sampled, and it helps if that
    is more than Stage II's margin. The prediction is 1 - lambda_t, the probability of running it. Loops whose filters
    drop the token are left out.

    `gate/gain`: the gain, in nats; `gate/helps`: whether it helps; `gate/brier`: the squared difference between
    prediction and that; `gate/stay_if_helps` and `gate/stay_if_not`: the prediction, apart by that."""
    gain = (token_logprobs[1:] - token_logprobs[:-1]).detach()[min_depth - 1 :]
    stay = log_stay(gate_logits.detach()[min_depth - 1 : -1]).exp()
    known = gain.isfinite()
    gain, stay = gain[known], stay[known]
    helps = gain > STAGE_TWO_MARGIN
    return {
        "gate/gain": gain,
        "gate/helps": helps.float(),
        "gate/brier": (stay - helps.float()).square(),
        "gate/stay_if_helps": stay[helps],
        "gate/stay_if_not": stay[~helps],
    }
