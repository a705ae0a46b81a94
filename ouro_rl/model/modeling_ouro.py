"""Ouro on transformers 5: one stack of layers applied T times, with an exit gate after every loop.

The final norm is applied after every loop; the normed state is the input of the next loop, of the gate and of the head.
`generate()` and a plain forward run a fixed number of loops for every token (the reference semantics). The rollout
engine implements per-token depth; `forward(depths=...)` replays it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, DynamicCache, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer
from transformers.masking_utils import create_causal_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, slice_logits_to_keep
from transformers.models.llama.modeling_llama import eager_attention_forward

from ouro_rl.core.kv_rule import KVRule
from ouro_rl.kernels.ops import TORCH_OPS, Ops, Rope
from ouro_rl.kernels.select import choose_ops, torch_ops
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.layers import (
    ExitGate,
    LoopedParts,
    OuroDecoderLayer,
    OuroLinear,
    OuroRMSNorm,
    OuroRotaryEmbedding,
    in_tiles,
)
from ouro_rl.model.outputs import OuroCausalLMOutput, OuroModelOutput
from ouro_rl.model.replay import replay
from ouro_rl.model.replay_probes import Probed
from ouro_rl.model.transformers_seams import CACHE_NAMES, given_cache, named

GATE_PARAMETERS = ("early_exit_gate.weight", "early_exit_gate.bias")
"""Suffixes of the exit gate's parameter names, also for a wrapped model. The MLPs' `gate_proj` are not exit gates."""


class OuroPreTrainedModel(PreTrainedModel):
    config_class = OuroConfig
    config: OuroConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["OuroDecoderLayer"]
    _skip_keys_device_placement = list(CACHE_NAMES)
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _keep_in_fp32_modules_strict = ["early_exit_gate"]
    """What `from_pretrained` leaves in fp32 in bf16 models, too; `ExitGate` does the same for later casts."""


class OuroModel(OuroPreTrainedModel):
    def __init__(self, config: OuroConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([OuroDecoderLayer(config, index) for index in range(config.num_hidden_layers)])
        self.norm = OuroRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.early_exit_gate = ExitGate(config.hidden_size)
        self.rotary_emb = OuroRotaryEmbedding(config)
        self.gradient_checkpointing = False
        self.compute_dtype: torch.dtype | None = None
        """Precision of the forward pass if it differs from the weights' (a trainer's master weights are fp32)."""
        self.batch_invariant = True
        """Whether rows are computed batch-invariantly, so that workers and replay agree bitwise; see `KernelOps`."""
        self.gate_reaches_body = True
        """Whether a replay's gate logits have a gradient in the states that the gate reads, too."""
        self.torch_ops = torch_ops(config)
        self._row_ops: dict[tuple, tuple[Ops, str]] = {}
        self.post_init()

    @property
    def decoder_layers(self) -> Sequence[OuroDecoderLayer]:
        """`layers`, whose own type says `Module` alone."""
        return cast("Sequence[OuroDecoderLayer]", self.layers)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: packed weights belong to this object, and a copy packs its own."""
        return self.__dict__ | {"_row_ops": {}}

    def row_ops(self, dtype: torch.dtype) -> tuple[Ops, str]:
        """The operations that rollout workers and a replay use for rows [n, hidden] of this precision, and why.

        Every call returns the same object, which keeps packed weights."""
        device = self.embed_tokens.weight.device
        key = device, dtype, self.batch_invariant
        if key not in self._row_ops:
            self._row_ops[key] = choose_ops(self.config, device, dtype, batch_invariant=self.batch_invariant)
        return self._row_ops[key]

    def gate_logits(self, states: Tensor, ops: Ops = TORCH_OPS) -> Tensor:
        """Gate logits z with lambda = sigmoid(z), always in fp32. [..., hidden] -> [...]."""
        gate = self.early_exit_gate
        return ops.product(states.float(), gate.weight).squeeze(-1) + gate.bias.float()

    def _gate_logits_alone(self, states: Tensor, ops: Ops) -> Tensor:
        """The same numbers, with a gradient in the gate's weights alone."""
        return self.gate_logits(states.detach(), ops)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        num_loops: int | None = None,
        depths: Tensor | None = None,
        owners: Tensor | None = None,
        probes: Tensor | None = None,
        kv_rule: KVRule = KVRule.LAST_EXITED,
        cache: Cache | None = None,
        **kwargs,
    ) -> OuroModelOutput:
        """Run `num_loops` loops for every token (default: the config's), or replay the depths of each token.

        `depths` [B, S], at most `num_loops` each, are replayed under `kv_rule`; `owners` [B, S] marks shared prefixes,
        `probes` bool [B, S] tokens whose further loops are computed as well (see `replay`). The cache can be passed,
        and is returned, as `cache` or as `past_key_values`. Raises ValueError for arguments that exclude each other."""
        embeds = self._embed(input_ids, inputs_embeds)
        loops = self.config.total_ut_steps if num_loops is None else num_loops
        cache = given_cache(cache, past_key_values)
        if depths is not None:
            if cache is not None or use_cache:
                raise ValueError("a replay (depths=...) runs whole sequences: it neither takes nor returns a cache")
            return self._replay(embeds, position_ids, depths, owners, probes, loops, kv_rule)
        if probes is not None:
            raise ValueError("probes are part of a replay: give depths too")

        use_cache = self.config.use_cache if use_cache is None else use_cache
        if self.training and self.gradient_checkpointing:
            use_cache = False
        if use_cache:
            cache = looped_cache(cache, loops * len(self.layers))
        seen = cache.get_seq_length() if cache is not None else 0
        if position_ids is None:
            position_ids = self._positions(attention_mask, embeds, seen)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **named(cache),
        )
        cache = cache if use_cache else None
        states = self._loop(embeds, self.rotary_emb(position_ids, embeds.dtype), mask, cache, loops)
        return OuroModelOutput(
            last_hidden_state=states[-1],
            loop_states=tuple(states),
            gate_logits=torch.stack([self.gate_logits(state) for state in states]),
            **named(cache),
        )

    def _loop(self, hidden: Tensor, rope: Rope, mask: Tensor | None, cache: Cache | None, loops: int) -> list[Tensor]:
        """The normed states [B, S, hidden] after each loop."""
        states: list[Tensor] = []
        for loop in range(loops):
            attend = partial(attend_dense, mask=mask, cache=cache, loop=loop)
            for layer in self.decoder_layers:
                hidden, _ = layer(hidden, rope, attend, ops=self.torch_ops)
            hidden = self.norm(hidden)
            states.append(hidden)
        return states

    def _embed(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """[B, S, hidden] in the precision of the forward."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        embeds = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        return embeds.to(self.compute_dtype or embeds.dtype)

    def _replay(
        self,
        embeds: Tensor,
        position_ids: Tensor | None,
        depths: Tensor,
        owners: Tensor | None,
        probes: Tensor | None,
        loops: int,
        kv_rule: KVRule,
    ) -> OuroModelOutput:
        if position_ids is None:
            position_ids = positions_of((depths > 0).long())
        ops, _ = self.row_ops(embeds.dtype)
        parts = LoopedParts(
            layers=self.decoder_layers,
            norm=self.norm,
            rotary_emb=self.rotary_emb,
            gate_logits=self.gate_logits if self.gate_reaches_body else self._gate_logits_alone,
            ops=ops,
        )
        states, gates, probed = replay(
            parts, embeds, position_ids, depths, owners, max_loops=loops, rule=kv_rule, probes=probes
        )
        return OuroModelOutput(last_hidden_state=states, gate_logits=gates, probed=probed)

    def _positions(self, attention_mask: Tensor | None, embeds: Tensor, seen: int) -> Tensor:
        length = embeds.shape[1]
        if attention_mask is not None and attention_mask.dim() == 2:
            return positions_of(attention_mask)[:, -length:]
        return torch.arange(seen, seen + length, device=embeds.device).unsqueeze(0).expand(embeds.shape[0], -1)


class OuroForCausalLM(OuroPreTrainedModel, GenerationMixin):
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: OuroConfig):
        super().__init__(config)
        self.model = OuroModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = OuroLinear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def row_logits(self, states: Tensor) -> Tensor:
        """Batch-invariant logits of rows: [n, hidden] -> [n, vocab] (see `OuroModel.row_ops`)."""
        ops, _ = self.model.row_ops(states.dtype)
        return ops.product(in_tiles(states, ops), self.lm_head.weight)[: len(states)]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_loops: int | None = None,
        depths: Tensor | None = None,
        owners: Tensor | None = None,
        probes: Tensor | None = None,
        kv_rule: KVRule = KVRule.LAST_EXITED,
        read_head: Callable[[OuroForCausalLM, Tensor, Probed | None], Any] | None = None,
        cache: Cache | None = None,
        **kwargs,
    ) -> OuroCausalLMOutput:
        """See `OuroModel.forward`.

        With `labels`, the loss is the next-token loss of the last loop; `ouro_rl.training.warmstart.losses` trains all
        loops.
        `read_head`, called with this model, the kept states [n, hidden] and what the probes found, replaces the logits:
        for callers that need a few numbers per row, not the whole vocabulary (`ouro_rl.training.token_logprobs`)."""
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=given_cache(cache, past_key_values),
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            num_loops=num_loops,
            depths=depths,
            owners=owners,
            probes=probes,
            kv_rule=kv_rule,
        )
        kept = slice_logits_to_keep(output.last_hidden_state, logits_to_keep)
        if read_head is not None:
            reading = read_head(self, kept, output.probed)
            return OuroCausalLMOutput(reading=reading, gate_logits=output.gate_logits, probed=output.probed)
        logits = self.lm_head(kept) if kept.dim() == 3 else self.row_logits(kept)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)
        return OuroCausalLMOutput(
            loss=loss,
            logits=logits,
            loop_states=output.loop_states,
            gate_logits=output.gate_logits,
            probed=output.probed,
            **named(output.cache),
        )


def positions_of(attention_mask: Tensor) -> Tensor:
    """Position of each token among the real tokens of its row, [B, S]; 0 at padding (left or right)."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def looped_cache(cache: Cache | None, slots: int) -> Cache:
    """A dynamic cache with one slot for every (loop, layer): slot = loop * layers + layer.

    `generate()` passes a cache with one slot per layer only; it is extended in place. Other caches are a ValueError."""
    if cache is None:
        return DynamicCache()
    if cache.layer_class_to_replicate is None:
        if not all(type(layer) is DynamicLayer for layer in cache.layers):
            raise ValueError(
                "Ouro has cache entries for every loop: use a DynamicCache (cache_implementation='dynamic')"
            )
        cache.layers.extend(DynamicLayer() for _ in range(slots - len(cache.layers)))
    return cache


def attend_dense(
    module, q: Tensor, k: Tensor, v: Tensor, *, mask, cache: Cache | None, loop: int
) -> tuple[Tensor, None]:
    """Attention over whole sequences; q, k, v [B, S, heads, dim]. Each loop has keys and values of its own."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if cache is not None:
        k, v = cache.update(k, v, loop * module.config.num_hidden_layers + module.layer_idx)
    attention = ALL_ATTENTION_FUNCTIONS.get_interface(module.config._attn_implementation, eager_attention_forward)
    dropout = module.attention_dropout if module.training else 0.0
    return attention(module, q, k, v, mask, dropout=dropout, scaling=module.scaling)[0], None


AutoModel.register(OuroConfig, OuroModel, exist_ok=True)
AutoModelForCausalLM.register(OuroConfig, OuroForCausalLM, exist_ok=True)
