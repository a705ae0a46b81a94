"""The slow, obvious engine: one sequence, token by token, loop by loop, straight from the mathematics.

Keys and values are Python lists by [layer][position][loop - 1]; a token that left at loop d has d of them, and whoever attends at
loop t reads number min(t, d). Decisions are taken with plain floats. Shares nothing with `rollout_workers`.
"""

from __future__ import annotations

import math

import torch

from ouro_rl.policy import DEPTH_STREAM, TOKEN_STREAM, uniforms
from ouro_rl.types import Rollout


def draw(seed, index, stream):
    return uniforms(torch.tensor([seed]), torch.tensor([index]), stream).item()


def turn(x, position, theta):
    """RoPE of [heads, dim]: pairs (i, i + dim / 2) turned by position * theta^(-2 i / dim)."""
    half = x.shape[-1] // 2
    angle = position / theta ** (torch.arange(half, dtype=torch.float64) * 2 / x.shape[-1])
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[:, :half], x[:, half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class SequentialSampler:
    def __init__(self, model):
        self.model, self.config = model, model.config
        self.memory = [[] for _ in model.model.layers]

    def loop(self, hidden, position, loop):
        """One loop of one position: hidden [hidden] -> (normed state, gate logit)."""
        for layer, memory in zip(self.model.model.layers, self.memory, strict=True):
            attention, dim = layer.self_attn, self.config.head_dim
            normed = layer.input_layernorm(hidden)
            q, k, v = (p(normed).view(-1, dim) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
            q, k = turn(q, position, self.config.rope_theta), turn(k, position, self.config.rope_theta)
            if loop == 1:
                memory.append([])
            memory[position].append((k, v))
            read = [versions[min(loop, len(versions)) - 1] for versions in memory]
            # Several query heads share one head of keys and values: repeat those.
            share = q.shape[0] // k.shape[0]
            keys, values = (torch.stack(part).repeat_interleave(share, dim=1) for part in zip(*read, strict=True))
            weights = (torch.einsum("hd,jhd->hj", q, keys) / math.sqrt(dim)).softmax(-1)
            mixed = torch.einsum("hj,jhd->hd", weights, values)
            hidden = hidden + layer.input_layernorm_2(attention.o_proj(mixed.flatten()))
            hidden = hidden + layer.post_attention_layernorm_2(layer.mlp(layer.post_attention_layernorm(hidden)))
        hidden = self.model.model.norm(hidden)
        return hidden, self.model.model.gate_logits(hidden).item()

    def run(self, token, position, leaves):
        """Loops of one token until `leaves(loop, survival)`: (state, depth, log p(depth))."""
        hidden = self.model.model.embed_tokens(torch.tensor(token))
        survival, logprob = 1.0, 0.0
        for loop in range(1, self.config.total_ut_steps + 1):
            hidden, gate = self.loop(hidden, position, loop)
            leave = 1 / (1 + math.exp(-gate))
            last = loop == self.config.total_ut_steps
            survival *= 1 - leave
            if last or leaves(loop, survival):
                return hidden, loop, logprob + (0.0 if last else math.log(leave))
            logprob += math.log(1 - leave)

    @torch.no_grad()
    def generate(self, request, index, params, policy_version=0):
        prompt, seed, rule = request.prompt.token_ids, request.seeds[index], params.exit_rule
        for position, token in enumerate(prompt[:-1]):
            self.run(token, position, lambda loop, survival: False)
        token, columns, finish = prompt[-1], [], "length"
        for i in range(params.max_new_tokens):
            quantile = draw(seed, i, DEPTH_STREAM) if rule.kind == "sample" else rule.value

            def leaves(loop, survival, quantile=quantile):
                return loop >= rule.value if rule.kind == "fixed" else survival <= 1 - quantile

            state, depth, depth_logprob = self.run(token, len(prompt) - 1 + i, leaves)
            logits = self.model.lm_head(state).double()
            probs = (logits / (params.temperature or 1.0)).softmax(0)
            if params.temperature == 0:
                token = int(probs.argmax())
            else:
                token = int((probs.cumsum(0) <= draw(seed, i, TOKEN_STREAM)).sum())
            columns.append((token, math.log(probs[token]), depth, depth_logprob))
            if token in params.stop_token_ids:
                finish = "stop"
                break
        tokens, token_logprobs, depths, depth_logprobs = zip(*columns, strict=True)
        return Rollout(
            prompt_index=request.prompt.index,
            sample_index=index,
            prompt_ids=prompt,
            completion_ids=tokens,
            token_logprobs=token_logprobs,
            depths=depths,
            depth_logprobs=depth_logprobs,
            policy_version=policy_version,
            temperature=params.temperature,
            finish_reason=finish,
        )


def sequential_rollouts(model, requests, params):
    """What `RolloutEngine.generate` has to give."""
    return [
        SequentialSampler(model).generate(request, index, params)
        for request in requests
        for index in range(len(request.seeds))
    ]
