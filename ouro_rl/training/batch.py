"""From rollouts to padded tensors, and from those to the inputs of a replay.

Prompts are padded on the left and completions on the right, as in TRL, so that every tensor of a batch can be shuffled
and split by sample. Depths are padded with `NO_DEPTH`, which is not a valid depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict, cast

import torch
from torch import Tensor

from ouro_rl.core.errors import RunError
from ouro_rl.core.rollout import NO_VERSION, Rollout, ScoredRollout
from ouro_rl.core.sampling_params import NO_DEPTH, DepthPolicy, TokenFilters
from ouro_rl.core.seeds import sample_seed
from ouro_rl.model.policy.counter_rng import PROBE_STREAM, uniforms
from ouro_rl.training.objective.records import Credits, Probes, Replayed, Sampled


class Batch(TypedDict):
    """n samples as padded tensors: P prompt tokens, C completion tokens, T loops.

    A plain dict, because TRL shuffles and splits every entry along its first dimension; scalars go to all parts."""

    prompt_ids: Tensor
    """int64 [n, P], padded on the left."""
    prompt_mask: Tensor
    """int64 [n, P], 0 at padding."""
    completion_ids: Tensor
    """int64 [n, C], padded on the right, like all following ones."""
    completion_mask: Tensor
    """int64 [n, C], 0 at padding."""
    depths: Tensor
    """int64 [n, C], 1-based; `NO_DEPTH` at padding."""
    sampler_logprobs: Tensor
    """float32 [n, C]: the tokens' log-probs in nats, as the sampler recorded them."""
    depth_logprobs: Tensor
    """float32 [n, C]: the depths' log-probs in nats, as the sampler recorded them."""
    support_sizes: Tensor
    """int64 [n, C]: how many tokens the filters kept; 0 where nothing filters."""
    forced: Tensor
    """bool [n, C]: tokens that were given, not drawn."""
    advantages: Tensor
    """float32 [n, C], of the token head."""
    gate_returns: Tensor
    """float32 [n, C, T - 1], of the gate's decisions."""
    gate_advantages: Tensor
    """float32 [n, C]: what the returns hold besides the loops of the token itself."""
    loop_prices: Tensor
    """float32 [n, C]: the price of one more loop of each token."""
    stay_costs: Tensor
    """float32 [n, T - 1]."""
    hazards: Tensor
    """float32 [n, T - 1]."""
    by_gate: Tensor
    """bool [n]: the gate chose the depths."""
    probed: NotRequired[Tensor]
    """bool [n]: the samples whose tokens are probed at all loops; absent if none is."""
    num_items_in_batch: NotRequired[Tensor]
    """float32, no dimension: completion tokens in the loss of the whole update. The trainer adds it, and what
    follows."""
    sequences_in_update: NotRequired[Tensor]
    """float32, no dimension: completions in the loss of the whole update."""
    in_loss: NotRequired[Tensor]
    """bool [n]: False for completions that are left out of the loss and its denominators."""
    replay_versions: Tensor
    """int64 [n, C]: the policy version under which a replay gives the recorded log-probs; `NO_VERSION` where several
    had a part in them, and at padding."""
    policy_version: NotRequired[Tensor]
    """int64, no dimension: the newest in the whole update."""
    mean_version: NotRequired[Tensor]
    """float64, no dimension: the mean over the completions of the update, each that of its tokens."""
    gate_temperature: NotRequired[Tensor]
    """float64, no dimension: of the depth policy that the rollouts were sampled under."""


def apply(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with every tensor changed in the same way."""
    return cast("Batch", {name: change(tensor) for name, tensor in cast("dict[str, Tensor]", batch).items()})


def collate(rollouts: Sequence[Rollout], credits: Credits, pad_token_id: int) -> Batch:
    """Pad n rollouts with their credits, whose tensors may be padded to a longer completion than theirs. C is at least
    1, also where all are lost: the replay of a process then has its shapes."""
    prompts = [rollout.prompt_ids for rollout in rollouts]
    completions = [rollout.completion_ids for rollout in rollouts]
    longest = max(1, *map(len, completions))
    return {
        "prompt_ids": _pad(prompts, pad_token_id, left=True),
        "prompt_mask": _pad([[1] * len(row) for row in prompts], 0, left=True),
        "completion_ids": _pad(completions, pad_token_id),
        "completion_mask": _pad([[1] * len(row) for row in completions], 0),
        "depths": _pad([rollout.depths for rollout in rollouts], NO_DEPTH),
        "sampler_logprobs": _pad([rollout.token_logprobs for rollout in rollouts], 0.0),
        "depth_logprobs": _pad([rollout.depth_logprobs for rollout in rollouts], 0.0),
        "support_sizes": _pad([rollout.support_sizes or (0,) * len(rollout.completion_ids) for rollout in rollouts], 0),
        "forced": _between([rollout.forced for rollout in rollouts], longest),
        "replay_versions": _pad([rollout.replay_versions for rollout in rollouts], NO_VERSION),
        "advantages": credits.advantages[:, :longest],
        "gate_returns": credits.gate_returns[:, :longest],
        "gate_advantages": credits.gate_advantages[:, :longest],
        "loop_prices": credits.loop_prices[:, :longest],
        "stay_costs": credits.stay_costs,
        "hazards": credits.hazards,
        "by_gate": credits.by_gate,
    }


def sampled(scored: Sequence[ScoredRollout]) -> Sampled:
    """The rollouts of an update as the objective takes them."""
    rollouts = [item.rollout for item in scored]
    return Sampled(
        rewards=torch.tensor(
            [math.nan if item.reward is None else item.reward for item in scored], dtype=torch.float64
        ),
        depths=depth_matrix(rollouts),
        finished=torch.tensor([rollout.finish_reason == "stop" for rollout in rollouts]),
        by_gate=torch.tensor([rollout.fixed_depth is None for rollout in rollouts]),
    )


def in_loss(scored: Sequence[ScoredRollout], *, mask_truncated: bool) -> Tensor:
    """Which completions are trained on, bool [n]: those that could be scored and, with `mask_truncated`, that ended by
    themselves."""
    return torch.tensor(
        [item.reward is not None and (item.rollout.finish_reason == "stop" or not mask_truncated) for item in scored]
    )


def replayed(
    batch: Batch, token_logprobs: Tensor, gate_logits: Tensor, weights: Tensor, probes: Probes | None = None
) -> Replayed:
    """A micro batch as the objective takes it: `token_logprobs` [n] and `gate_logits` [T, n] of its n completion
    tokens, with gradient, the tokens' weights [n] in the loss, and what probes found.

    Forced tokens have log-prob 0, as recorded: the policy gives them probability 1, and they have no gradient."""
    mask = batch["completion_mask"].bool()
    lengths = mask.sum(1)
    return Replayed(
        token_logprobs=token_logprobs.masked_fill(batch["forced"][mask], 0.0),
        gate_logits=gate_logits,
        depths=batch["depths"][mask],
        sampler_logprobs=batch["sampler_logprobs"][mask],
        depth_logprobs=batch["depth_logprobs"][mask],
        advantages=batch["advantages"][mask],
        gate_returns=batch["gate_returns"][mask],
        gate_advantages=batch["gate_advantages"][mask],
        loop_prices=batch["loop_prices"][mask],
        stay_costs=batch["stay_costs"].repeat_interleave(lengths, dim=0),
        hazards=batch["hazards"].repeat_interleave(lengths, dim=0),
        by_gate=batch["by_gate"].repeat_interleave(lengths),
        lengths=lengths,
        weights=weights,
        probes=probes,
    )


def probed_samples(rollouts: Sequence[Rollout], share: float, run_seed: int, step: int) -> Tensor:
    """Which samples of the update `step` are probed, bool [n]: about `share` of them, each by its own seed alone.

    None at fixed depths: what is learned from probes is about the depths that the gate draws."""
    seeds = [sample_seed(run_seed, step, rollout.prompt_index, rollout.sample_index) for rollout in rollouts]
    drawn = uniforms(torch.tensor(seeds), torch.zeros(len(seeds), dtype=torch.long), PROBE_STREAM) < share
    return drawn & torch.tensor([rollout.fixed_depth is None for rollout in rollouts])


def check_depth_policies(rollouts: Sequence[Rollout], policy: DepthPolicy) -> None:
    """Raise RunError unless all rollouts were sampled under `policy`: another policy would give other log-probs."""
    if others := {rollout.depth_policy for rollout in rollouts} - {policy}:
        raise RunError(
            f"rollouts were sampled under {others.pop()},\nbut the trainer replays {policy}: take both from one config"
        )


def check_filters(rollouts: Sequence[Rollout], temperature: float, filters: TokenFilters) -> None:
    """Raise RunError unless all rollouts were sampled at this temperature with these filters."""
    if others := {(rollout.temperature, rollout.filters) for rollout in rollouts} - {(temperature, filters)}:
        raise RunError(
            f"rollouts were sampled under (temperature, filters) {others.pop()},\n"
            f"but the trainer replays {(temperature, filters)}: take both from one config"
        )


def depth_matrix(rollouts: Sequence[Rollout]) -> Tensor:
    """Depths of the completion tokens [n, C], `NO_DEPTH` at padding."""
    return _pad([rollout.depths for rollout in rollouts], NO_DEPTH)


def _pad(rows: Sequence[Sequence], value, left: bool = False) -> Tensor:
    length = max(1, *map(len, rows))
    padded = [
        [*row, *[value] * (length - len(row))] if not left else [*[value] * (length - len(row)), *row] for row in rows
    ]
    return torch.tensor(padded, dtype=torch.float32 if isinstance(value, float) else torch.long)


def _between(spans: Sequence[tuple[int, int]], length: int) -> Tensor:
    """Half-open spans -> bool [n, length]."""
    places, bounds = torch.arange(length), torch.tensor(spans)
    return (places >= bounds[:, :1]) & (places < bounds[:, 1:])


@dataclass(frozen=True, kw_only=True)
class ReplayInputs:
    """Inputs of the model for a batch of n sequences of length S = P + C."""

    input_ids: Tensor
    """[n, S]."""
    depths: Tensor
    """[n, S]: full depth in the prompt, then the recorded depths; `NO_DEPTH` at padding and at the last completion
    token, which predicts nothing."""
    owners: Tensor
    """int64 [n, S]: the flat index at which each position is computed. Identical prompts are computed once."""
    predicting: Tensor
    """bool [n, S]: positions whose next token is a completion token (the last prompt position is the first)."""
    probes: Tensor | None
    """bool [n, S]: those of the samples that are probed; None: no probes."""


def replay_inputs(batch: Batch, max_loops: int) -> ReplayInputs:
    """Align the recorded depths with positions: depths[i] belongs to the position that predicts completion token i."""
    prompt_mask, completion_mask = batch["prompt_mask"].bool(), batch["completion_mask"].bool()
    nothing = torch.full_like(batch["depths"][:, :1], NO_DEPTH)
    prompt_depths = prompt_mask[:, :-1].long() * max_loops
    predicting = _at_predictions(prompt_mask, completion_mask)
    input_ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    return ReplayInputs(
        input_ids=input_ids,
        owners=prompt_owners(batch["prompt_ids"][:, :-1], prompt_mask[:, :-1], input_ids.shape[1]),
        depths=torch.cat([prompt_depths, batch["depths"], nothing], 1),
        predicting=predicting,
        probes=_at_predictions(prompt_mask, probed_tokens(batch)) if "probed" in batch else None,
    )


def probed_tokens(batch: Batch) -> Tensor:
    """The completion tokens that are probed, bool [n, C]: those of the probed samples, without forced ones, whose
    log-prob no loop changes."""
    samples = batch["probed"] if "probed" in batch else torch.zeros_like(batch["forced"][:, 0])
    return batch["completion_mask"].bool() & samples.unsqueeze(1) & ~batch["forced"]


def _at_predictions(prompt_mask: Tensor, of_tokens: Tensor) -> Tensor:
    """Completion tokens bool [n, C] -> the positions that predict them, bool [n, P + C]."""
    nothing = torch.zeros_like(of_tokens[:, :1])
    return torch.cat([torch.zeros_like(prompt_mask[:, :-1]), of_tokens, nothing], 1)


def prompt_owners(beginnings: Tensor, mask: Tensor, length: int) -> Tensor:
    """Owners int64 [n, length] of rows that start with `beginnings` [n, P]: the flat index that computes each position.

    A position owns itself, unless an earlier row has the same beginning: then that row's position owns it. Left padding
    (`mask` [n, P] false) is part of the beginning, so identical beginnings are at the same columns."""
    rows, width = beginnings.shape
    places = torch.arange(rows * length, device=beginnings.device).view(rows, length)
    if width == 0:
        return places
    _, kind = torch.cat([beginnings, mask.long()], 1).unique(dim=0, return_inverse=True)
    numbers = torch.arange(rows, device=beginnings.device)
    first = torch.full_like(numbers, rows).scatter_reduce(0, kind, numbers, "amin")
    return torch.cat([places[first[kind], :width], places[:, width:]], 1)
