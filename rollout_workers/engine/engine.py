"""Loop-level continuous batching: one pass runs the layers once for every live row, each at its own loop.

All loops share their weights, so rows at different loops, samples as well as prompts in prefill, share the same matrix
products. After a pass the rows that the gate lets exit get a token and continue at loop 1; the others continue one loop
deeper. Nothing waits: a prompt at loop t and its samples' first position at loop t run in the same pass, because a
layer writes the keys of all its rows before it attends.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.rollout import Rollout, RolloutRequest
from ouro_rl.core.sampling_params import SamplingParams
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.model.policy.exit_gate import check_depth_policy
from rollout_workers.engine.attention import padded_lengths
from rollout_workers.engine.forward import Forward
from rollout_workers.engine.generation import EngineParts, Generation
from rollout_workers.engine.graphs.static_passes import StaticChoice
from rollout_workers.engine.kv_cache import KVCache
from rollout_workers.engine.limits import pages_within, prompt_limit
from rollout_workers.engine.scheduling.policy import SchedulingPolicy
from rollout_workers.engine.scheduling.scheduler import SPARE_PREFIXES
from rollout_workers.engine.stats import EngineStats, OnRollout, Progress


class RolloutEngine:
    """Samples completions from a model whose depth varies per token.

    `dtype`, `device` and `batch_invariant` of `config` are ignored: the model has its own. The cache's pools stay
    allocated between calls. `policy` decides what runs in a pass, never what is sampled; the default is the fastest."""

    def __init__(
        self, model: OuroForCausalLM, config: EngineConfig | None = None, *, policy: SchedulingPolicy | None = None
    ):
        self.model, self.config, self.policy = model, config or EngineConfig(), policy or SchedulingPolicy()
        weights, max_batch, max_pages = model.model.embed_tokens.weight, self.config.max_batch, None
        if self.config.kv_memory_gib is not None:
            max_pages = pages_within(model.config, self.config.kv_memory_gib, weights.dtype)
        self.cache = KVCache(
            model.config, slots=2 * max_batch + SPARE_PREFIXES, dtype=weights.dtype, device=weights.device,
            max_pages=max_pages,
        )  # fmt: skip
        self.forward = Forward(model, self.cache)
        static_passes = self.config.static_passes if self.policy.runs_all_rows else False
        self.static = StaticChoice(self.forward, max_batch, static_passes)
        parts = (self.forward.description, self.static.description)
        self.description = "; ".join(part for part in parts if part is not None)
        """Which implementation runs, and why."""
        self.stats = EngineStats()

    def generate(
        self,
        requests: Sequence[RolloutRequest],
        params: SamplingParams,
        *,
        policy_version: int = 0,
        on_progress: Progress | None = None,
        on_rollout: OnRollout | None = None,
    ) -> list[Rollout]:
        """All samples of all requests, in the order of the requests and of their seeds.

        A sample depends only on the weights, its prompt, its seed and `params`. Raises `UserError` for a prompt without
        tokens, or one that with `max_new_tokens` exceeds the model's positions or the memory for keys and values."""
        with self.start(requests, params, policy_version=policy_version, on_rollout=on_rollout) as generation:
            return generation.run(on_progress)

    @torch.inference_mode()
    def start(
        self,
        requests: Sequence[RolloutRequest],
        params: SamplingParams,
        *,
        policy_version: int = 0,
        on_rollout: OnRollout | None = None,
        queued: bool = True,
    ) -> Generation:
        """The generation that `generate` runs, to be advanced pass by pass inside a `with` block: for engines that take
        turns, to cancel samples, or (`queued=False`) to queue them while others run. An engine runs one generation at a
        time. Raises the same errors as `generate`."""
        self._check(requests, params)
        longest = max((len(request.prompt.token_ids) for request in requests), default=0) + params.max_new_tokens
        self.cache.reshape(
            int(padded_lengths(torch.tensor(longest))),
            loops=params.depth_policy.max_loops(self.model.config.total_ut_steps),
            rule=params.depth_policy.kv_rule,
        )
        try:
            generation = Generation(self._parts(), requests, params, policy_version, on_rollout)
            if queued:
                generation.queue(range(len(generation.rollouts)))
            return generation
        except BaseException:
            self.clear()
            raise

    def _parts(self) -> EngineParts:
        return EngineParts(
            model=self.model, cache=self.cache, forward=self.forward, static=self.static, stats=self.stats,
            config=self.config, policy=self.policy, clear=self.clear,
        )  # fmt: skip

    def clear(self) -> None:
        """Clear what an unfinished generation left in the cache."""
        if self.cache.references:
            self.cache.reset()
            self.static.forget()

    def _check(self, requests: Sequence[RolloutRequest], params: SamplingParams) -> None:
        if params.max_new_tokens < 1:
            raise UserError("max_new_tokens must be at least 1")
        check_depth_policy(params.depth_policy, params.exit_rule, self.model.config.total_ut_steps)
        dtype = self.model.model.embed_tokens.weight.dtype
        limit = prompt_limit(self.model.config, params, self.config, dtype, spare_pages=self.static.spare_pages)
        most = params.depth_policy.max_loops(self.model.config.total_ut_steps)
        for request in requests:
            check_fixed_depths(request, params.depth_policy.min_depth, most)
            length = len(request.prompt.token_ids)
            if length == 0:
                raise UserError(
                    f"prompt {request.prompt.index} has no tokens: give it at least one (the beginning-of-text token)"
                )
            if length > limit.tokens:
                raise UserError(f"prompt {request.prompt.index} has {length} tokens; {limit.reason}")


def check_fixed_depths(request: RolloutRequest, least: int, most: int) -> None:
    """Raise UserError unless the request fixes no depth, or gives one (or None) per sample within these bounds."""
    fixed = request.fixed_depths
    if fixed and len(fixed) != len(request.seeds):
        raise UserError(
            f"prompt {request.prompt.index}: {len(fixed)} fixed depths for {len(request.seeds)} samples; give one "
            "each, None where the exit rule chooses"
        )
    for depth in fixed:
        if depth is not None and not least <= depth <= most:
            raise UserError(
                f"prompt {request.prompt.index}: a fixed depth of {depth} is outside of min_depth {least} and "
                f"max_depth {most}: change it, or the bounds"
            )
