"""The slow, obvious reference: one sequence, token by token and loop by loop, directly from the mathematics.

Keys and values are Python lists indexed [layer][position][loop - 1]; the KV rule says which of them a row reads, one
token at a time. Decisions use plain floats. Only the definition of the rule is shared with `rollout_workers` and the
replay.
"""

from __future__ import annotations

import math

import torch

from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.rollout import Rollout
from ouro_rl.core.sampling_params import DepthPolicy
from ouro_rl.model.policy.counter_rng import DEPTH_STREAM, TOKEN_STREAM, uniforms


def draw(seed, index, stream):
    return uniforms(torch.tensor([seed]), torch.tensor([index]), stream).item()


def turn(x, position, theta):
    """RoPE of [heads, dim]: pairs (i, i + dim / 2) rotated by position * theta^(-2 i / dim)."""
    half = x.shape[-1] // 2
    exponents = torch.arange(half, dtype=torch.float32) * 2 / x.shape[-1]
    angle = position * (1 / theta**exponents)  # in fp32, like the model: rounding of angles is not tested here
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[:, :half], x[:, half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Sequence:
    """One sequence: the keys, values and depth of each token."""

    def __init__(self, model, rule=KVRule.LAST_EXITED, max_loops=None):
        self.model, self.config, self.rule = model, model.config, rule
        self.max_loops = max_loops or model.config.total_ut_steps
        self.memory = [[] for _ in model.model.layers]
        self.depths = []
        self.states = []
        """Of the running token, after each loop so far."""

    def run(self, token, leaves=lambda loop, gates: False):
        """Run the next token until `leaves(loop, gate logits)` or the last loop -> (state, depth, gate logits)."""
        position = len(self.depths)
        self.depths.append(self.max_loops)  # a running token attends to itself
        hidden, gates, state, depth = self.model.model.embed_tokens(torch.tensor(token)), [], None, None
        self.states = []
        for loop in range(1, self.max_loops + 1):
            if depth is not None and loop > self.rule.loops_run(depth, self.max_loops):
                break
            hidden = self.loop(hidden, position, loop)
            self.states.append(hidden)
            gates.append(self.model.model.gate_logits(hidden).item())
            if depth is None and (loop == self.max_loops or leaves(loop, gates)):
                state, depth = hidden, loop
        self.depths[position] = depth
        return state, depth, gates

    def loop(self, hidden, position, loop):
        """One loop of one position: hidden [hidden] -> normed state."""
        for layer, memory in zip(self.model.model.layers, self.memory, strict=True):
            attention, dim = layer.self_attn, self.config.head_dim
            normed = layer.input_layernorm(hidden)
            q, k, v = (p(normed).view(-1, dim) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
            q, k = turn(q, position, self.config.rope_theta), turn(k, position, self.config.rope_theta)
            if loop == 1:
                memory.append([])
            memory[position].append((k, v))
            versions = [self.rule.version_read(loop, depth) for depth in self.depths]
            read = [memory[j][version - 1] for j, version in enumerate(versions) if version is not None]
            # Several query heads share one KV head: repeat it.
            share = q.shape[0] // k.shape[0]
            keys, values = (torch.stack(part).repeat_interleave(share, dim=1) for part in zip(*read, strict=True))
            weights = (torch.einsum("hd,jhd->hj", q, keys) / math.sqrt(dim)).softmax(-1)
            mixed = torch.einsum("hj,jhd->hd", weights, values)
            hidden = hidden + layer.input_layernorm_2(attention.o_proj(mixed.flatten()))
            hidden = hidden + layer.post_attention_layernorm_2(layer.mlp(layer.post_attention_layernorm(hidden)))
        return self.model.model.norm(hidden)


def one_by_one(model, ids, depths, rule=KVRule.LAST_EXITED, max_loops=None):
    """The expected replay of `ids` at `depths`: states [S, hidden] and each token's list of gate logits."""
    sequence = Sequence(model, rule, max_loops)
    ran = [
        sequence.run(token, lambda loop, _, depth=depth: loop == depth)
        for token, depth in zip(ids, depths, strict=True)
    ]
    assert sequence.depths == list(depths)
    return torch.stack([state for state, _, _ in ran]), [gates for _, _, gates in ran]


def survivals(gates, policy: DepthPolicy):
    """Probability of continuing past each of these loops (1 below the minimum depth); the last loop is not among
    them."""
    survival, all_ = 1.0, []
    for loop, gate in enumerate(gates, start=1):
        if loop >= policy.min_depth:
            survival *= 1 - 1 / (1 + math.exp(-gate / policy.gate_temperature))
        all_.append(survival)
    return all_


def depth_logprob(gates, depth, max_loops, policy: DepthPolicy):
    """log p(depth) as the difference of two survivals."""
    before = survivals(gates[: depth - 1], policy)
    after = [0.0] if depth == max_loops else survivals(gates[:depth], policy)
    return math.log((before[-1] if before else 1.0) - after[-1])


def exit_shares(gates, depth, max_loops, policy: DepthPolicy):
    """p(t) for t up to the depth, in 255ths, and 0 beyond it."""
    probs = [math.exp(depth_logprob(gates, loop, max_loops, policy)) for loop in range(policy.min_depth, depth + 1)]
    shares = [0] * (policy.min_depth - 1) + [round(255 * p) for p in probs]
    return shares + [0] * (max_loops - depth)


def reads_exit(rule, heads):
    """Whether a rule that reads the head exits after the last of these distributions, fp64 [vocab] each."""
    probs = heads[-1]
    if rule.kind == "confidence":
        return probs.max() >= rule.value
    if rule.kind == "entropy":
        return -sum(p * math.log(p) for p in probs.tolist()) <= rule.value
    before = heads[-2].tolist() if len(heads) > 1 else None
    return before is not None and sum(
        p * math.log(p / b) for p, b in zip(probs.tolist(), before, strict=True)
    ) <= rule.value  # fmt: skip


def gives_up(early_stop, tokens, logprobs):
    if early_stop is None or len(tokens) % early_stop.every:
        return False
    window = early_stop.repeat_window
    if window is not None and len(tokens) >= window:
        tail = tokens[-window:]
        if any(tail[period:] == tail[:-period] for period in range(1, window // 2 + 1)):
            return True
    floor = early_stop.min_mean_logprob
    return floor is not None and sum(logprobs) / len(logprobs) < floor


def closes_thought(budget, tokens):
    """Whether the token after these is one of those that close the thought."""
    if budget is None or len(tokens) not in range(budget.tokens, budget.tokens + len(budget.closing_ids)):
        return False
    return b"</think>" not in b"".join(budget.end.pieces[token] for token in tokens[: budget.tokens])


def changed(sequence, model, recomputed, ids):
    """The sequence of these tokens under other weights: all of it computed anew, or from here on."""
    if not recomputed:
        sequence.model = model
        return sequence
    anew = Sequence(model, sequence.rule, sequence.max_loops)
    for token, depth in zip(ids, sequence.depths, strict=True):
        anew.run(token, lambda loop, _, depth=depth: loop == depth)
    return anew


@torch.no_grad()
def sequential_rollout(model, request, index, params, policy_version=0, changes=()):
    """`changes`: (number of tokens after which the weights change, the new model, whether it computes what came before
    anew), in order."""
    prompt, seed, rule, policy = request.prompt.token_ids, request.seeds[index], params.exit_rule, params.depth_policy
    fixed = request.fixed_depth(index)
    sequence = Sequence(model, policy.kv_rule, policy.max_depth)
    for token in prompt[:-1]:
        sequence.run(token)
    token, tokens, logprobs, depths, depth_logprobs, finish = prompt[-1], [], [], [], [], "length"
    forced, shares = [], []
    for i in range(params.max_new_tokens):
        for _, model, recomputed in [change for change in changes if change[0] == i]:
            sequence = changed(sequence, model, recomputed, (*prompt, *tokens)[:-1])
        quantile = draw(seed, i, DEPTH_STREAM) if rule.kind in ("sample", "iid") else rule.value

        def leaves(loop, gates, quantile=quantile, sequence=sequence, model=model):
            if fixed is not None:
                return loop == fixed
            if rule.kind == "fixed":
                return loop == rule.value
            if rule.kind in ("confidence", "entropy", "kl"):
                heads = [model.lm_head(state).double().softmax(0) for state in sequence.states]
                return loop >= policy.min_depth and bool(reads_exit(rule, heads))
            if rule.kind == "iid":
                return loop >= policy.min_depth and sum(rule.probabilities[:loop]) >= quantile
            return loop >= policy.min_depth and survivals(gates, policy)[-1] <= 1 - quantile

        state, depth, gates = sequence.run(token, leaves)
        probs = (model.lm_head(state).double() / (params.temperature or 1.0)).softmax(0)
        if params.temperature == 0:
            token = int(probs.argmax())
        else:
            token = int((probs.cumsum(0) <= draw(seed, i, TOKEN_STREAM)).sum())
        if closes_thought(params.thinking_budget, tokens):
            token = params.thinking_budget.closing_ids[len(tokens) - params.thinking_budget.tokens]
            forced.append(i)
        tokens.append(token)
        logprobs.append(0.0 if i in forced else math.log(probs[token]))
        depths.append(depth)
        depth_logprobs.append(depth_logprob(gates, depth, sequence.max_loops, policy))
        shares += exit_shares(gates, depth, sequence.max_loops, policy)
        if token in params.stop_token_ids:
            finish = "stop"
            break
        if len(tokens) < params.max_new_tokens and gives_up(params.early_stop, tokens, logprobs):
            finish = "abort"
            break
    return Rollout(
        prompt_index=request.prompt.index,
        sample_index=index,
        prompt_ids=prompt,
        completion_ids=tuple(tokens),
        token_logprobs=tuple(logprobs),
        depths=tuple(depths),
        depth_logprobs=tuple(depth_logprobs),
        exit_shares=bytes(shares),
        policy_version=policy_version,
        temperature=params.temperature,
        finish_reason=finish,
        depth_policy=policy,
        forced=(forced[0], forced[-1] + 1) if forced else (0, 0),
        fixed_depth=fixed,
    )


def sequential_rollouts(model, requests, params):
    """The expected result of `RolloutEngine.generate`."""
    return [
        sequential_rollout(model, request, index, params) for request in requests for index in range(len(request.seeds))
    ]
