"""The mathematics of the exit gate, shared by the model, the rollout workers and the loss.

lambda_t = sigmoid(z_t) is the probability of exiting after loop t, given that the token reached loop t. With
log S_t = sum_{s<=t} log(1 - lambda_s), p(d=t) = lambda_t S_{t-1} for t < T and p(d=T) = S_{T-1}: the last gate is never
used (arXiv 2510.25741, section 3). Everything is computed in log space and in fp32: 1 - lambda underflows long before
log(1 - lambda) does.

Depth bounds are part of the policy. T is the maximum number of loops (`max_depth`, which may differ from the number the
model was trained with). Below `min_depth` the gate makes no decision, and lambda_t is taken as 0. A decision that the
bounds force has log-probability 0 and no gradient.

Gate logits are stacked along a leading loop axis: `gate_logits[t - 1]` belongs to loop t, shape [T, ...].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ouro_rl.core.errors import UserError
from ouro_rl.core.sampling_params import MOST_LOOPS, NO_DEPTH, DepthPolicy, ExitRule


def temperature_tensor(gate_temperature: float, device: torch.device) -> Tensor:
    """The gate's temperature as `policy_logits` divides by it: workers and trainer must get the same bits, and devices
    may divide by a number and by a tensor in different ways."""
    return torch.full((), gate_temperature, dtype=torch.float32, device=device)


def policy_logits(gate_logits: Tensor, policy: DepthPolicy, gate_temperature: Tensor | None = None) -> Tensor:
    """The model's gate logits z as the policy uses them: any shape -> fp32, with lambda = sigmoid of the result.

    lambda = e + (1 - 2 e) sigmoid(z / temperature): the gate temperature flattens, the exploration floor e bounds. All
    functions below take logits after this step. It is applied once: by the worker before it decides, and by the trainer
    before it computes the loss. `gate_temperature` (`temperature_tensor`) stands for the policy's where operations are
    recorded once and repeated at other temperatures (CUDA graphs)."""
    if gate_temperature is None:
        gate_temperature = temperature_tensor(policy.gate_temperature, gate_logits.device)
    logits = gate_logits.float() / gate_temperature
    if policy.exploration > 0:
        # log lambda = log e - log sigmoid(log e - log (1 - 2 e) - log sigmoid(z)), and so for 1 - lambda: torch's log
        # would give other bits in tensors of other sizes, and worker and trainer would differ.
        shift = math.log(policy.exploration / (1 - 2 * policy.exploration))
        logits = F.logsigmoid(shift - F.logsigmoid(-logits)) - F.logsigmoid(shift - F.logsigmoid(logits))
    return logits


def log_exit(gate_logits: Tensor) -> Tensor:
    """log lambda: log-probability of exiting now. Any shape, fp32."""
    return F.logsigmoid(gate_logits.float())


def log_stay(gate_logits: Tensor) -> Tensor:
    """log (1 - lambda): log-probability of running another loop. Any shape, fp32."""
    return F.logsigmoid(-gate_logits.float())


def decides(loops: Tensor, max_loops: int, min_depth: int = 1) -> Tensor:
    """Whether the gate decides after these loops: from `min_depth` on, but not at the last loop. Any shape -> bool."""
    return (loops >= min_depth) & (loops < max_loops)


def exit_log_pdf(gate_logits: Tensor, min_depth: int = 1) -> Tensor:
    """log p(d = t) for t = 1..T, shape [T, ...] like `gate_logits`; -inf below `min_depth`.

    The probabilities sum to 1 over the first axis."""
    max_loops = gate_logits.shape[0]
    before = torch.zeros_like(gate_logits[:1], dtype=torch.float32)
    if max_loops == 1:
        return before
    asked = gate_logits[min_depth - 1 : -1]
    log_survival = torch.cat([before, log_stay(asked).cumsum(0)])
    leave = torch.cat([log_exit(asked), before])
    impossible = torch.full_like(gate_logits[: min_depth - 1], -torch.inf, dtype=torch.float32)
    return torch.cat([impossible, log_survival + leave])


def expected_depth(gate_logits: Tensor, min_depth: int = 1, floor: int = 1) -> Tensor:
    """E[max(d, floor)] = sum_t max(t, floor) p(d = t) with its exact gradient: [T, ...] -> [...].

    Computed as the least of these depths plus the sum of the probabilities S_t of going past loop t from there on."""
    survival = log_stay(gate_logits[min_depth - 1 : -1]).cumsum(0).exp()
    least = max(min_depth, floor)
    return least + survival[least - min_depth :].sum(0)


def decision_logprobs(gate_logits: Tensor, depths: Tensor, min_depth: int = 1) -> Tensor:
    """Log-probability of each decision that led to `depths`: stay at t < d, leave at t = d < T; shape [T - 1, ...].

    Loops without a decision (t > d, t < min_depth, or no depth) hold 0; see `decision_mask`."""
    logits, max_loops = gate_logits[:-1], gate_logits.shape[0]
    leaving = _loops(max_loops, depths) == depths
    chosen = torch.where(leaving, log_exit(logits), log_stay(logits))
    return torch.where(decision_mask(max_loops, depths, min_depth), chosen, torch.zeros_like(chosen))


def decision_mask(max_loops: int, depths: Tensor, min_depth: int = 1) -> Tensor:
    """Where the gate made a decision: min_depth <= t <= d for t < T. `depths` [...] -> bool [T - 1, ...]."""
    loops = _loops(max_loops, depths)
    return decides(loops, max_loops, min_depth) & (loops <= depths) & (depths != NO_DEPTH)


def _loops(max_loops: int, depths: Tensor) -> Tensor:
    """1..T-1, shaped to broadcast against `depths` with the loops first."""
    return torch.arange(1, max_loops, device=depths.device).view(-1, *[1] * depths.dim())


def decision_entropy(gate_logits: Tensor, depths: Tensor, min_depth: int = 1) -> Tensor:
    """Entropy in nats of the decisions that led to `depths`, summed over loops: [T, ...], depths [...] -> [...].

    Its expectation over sampled depths is the entropy of the exit distribution, but it does not use gate logits beyond
    a token's depth."""
    stay, leave = log_stay(gate_logits[:-1]), log_exit(gate_logits[:-1])
    nats = -(stay.exp() * stay + leave.exp() * leave)
    return torch.where(decision_mask(gate_logits.shape[0], depths, min_depth), nats, torch.zeros_like(nats)).sum(0)


def log_quantile(quantile: Tensor) -> Tensor:
    """log(1 - q) in fp32: the log survival at which a token with exit quantile q exits."""
    return torch.log1p(-quantile.double()).float()


def exit_quantiles(rule: ExitRule, uniforms: Tensor) -> Tensor:
    """log(1 - q) for each token [n], from one uniform draw per token [n].

    Sampling d from the exit distribution is Q-exit with a random quantile, so `sample` and `threshold` share one rule:
    exit at the first loop with log S_t <= log(1 - q). `iid` samples from another distribution in the same way. `fixed`
    never exits by the gate (see `exits`)."""
    if rule.kind in ("sample", "iid", "simulated"):
        return log_quantile(uniforms)
    level = float(rule.level) if rule.kind == "threshold" else 1.0
    return log_quantile(torch.full_like(uniforms, level, dtype=torch.float64))


def exits(
    rule: ExitRule, log_survival: Tensor, log_quantiles: Tensor, loops: Tensor, max_loops: int, min_depth: int = 1
) -> Tensor:
    """Which rows exit after this loop. `log_survival` includes this loop's gate where it `decides`; `iid` does not
    read it.

    All tensors [n] -> bool [n]."""
    last = min(int(rule.level), max_loops) if rule.kind == "fixed" else max_loops
    if rule.kind == "iid":
        log_survival = _marginal_log_survival(rule.probabilities, loops)
    return (loops >= last) | ((loops >= min_depth) & (log_survival <= log_quantiles))


def _marginal_log_survival(probabilities: tuple[float, ...], loops: Tensor) -> Tensor:
    """log P(depth > loops) under fixed probabilities of depths 1, 2, ...: int [n] -> fp32 [n]."""
    # Constants are filled in one by one: a table would have to be copied to the device, which a CUDA graph forbids.
    log_survival = torch.full_like(loops, -torch.inf, dtype=torch.float32)
    for loop in range(1, len(probabilities)):
        deeper = math.fsum(probabilities[loop:])
        log_survival = log_survival.masked_fill(loops == loop, math.log(deeper) if deeper else -torch.inf)
    return log_survival


def check_depth_policy(policy: DepthPolicy, rule: ExitRule, trained: int) -> None:
    """Raise UserError if the depth bounds are invalid or a fixed depth lies outside of them.

    `trained`: the number of loops the model was trained with."""
    least, most = policy.min_depth, policy.max_loops(trained)
    default = " (the model's total_ut_steps)" if policy.max_depth is None else ""
    if most > MOST_LOOPS:
        raise UserError(
            f"max_depth {most} is more than {MOST_LOOPS} loops, and the model was trained with {trained}: lower it"
        )
    if not 1 <= least <= most:
        raise UserError(
            f"min_depth {least} is not in 1..max_depth, which is {most}{default}: lower min_depth or set max_depth"
        )
    if rule.kind == "fixed" and not least <= rule.level <= most:
        raise UserError(
            f"exit rule `{rule.label()}` is outside of min_depth {least} and max_depth {most}{default}: "
            "change its value, or set max_depth"
        )
