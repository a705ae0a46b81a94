"""The trainer's parallel replay against a slow, obvious reference."""

import pytest
import torch

from ouro_rl import native_attention
from ouro_rl.batch import prompt_owners
from ouro_rl.model.layers import rotate
from ouro_rl.types import NO_DEPTH
from tests.models import random_model


def one_by_one(model, ids, depths):
    """States at each token's depth and its gate logits, token by token, loop by loop, straight from the last-exited rule."""
    inner, config = model.model, model.config
    memory = {}  # (layer, position) -> list over loops of (k, v)
    states, gates = [], []
    for i, token in enumerate(ids):
        hidden, token_gates = inner.embed_tokens.weight[token], []
        rope = inner.rotary_emb(torch.tensor(i), hidden.dtype)
        for loop in range(depths[i]):
            for index, layer in enumerate(inner.layers):
                attention = layer.self_attn
                normed = layer.input_layernorm(hidden)
                q = rotate(attention.q_proj(normed).view(-1, config.head_dim), rope)
                k = rotate(attention.k_proj(normed).view(-1, config.head_dim), rope)
                v = attention.v_proj(normed).view(-1, config.head_dim)
                memory.setdefault((index, i), []).append((k, v))
                heads = []
                for head in range(config.num_attention_heads):
                    group = head // attention.num_key_value_groups
                    read = [memory[index, j][min(loop, len(memory[index, j]) - 1)] for j in range(i + 1)]
                    scores = torch.stack([(q[head] * key[group]).sum() * attention.scaling for key, _ in read])
                    weights = scores.softmax(0)
                    heads.append(sum(w * value[group] for w, (_, value) in zip(weights, read, strict=True)))
                mixed = attention.o_proj(torch.cat(heads))
                hidden = hidden + layer.input_layernorm_2(mixed)
                hidden = hidden + layer.post_attention_layernorm_2(layer.mlp(layer.post_attention_layernorm(hidden)))
            hidden = inner.norm(hidden)
            token_gates.append(inner.gate_logits(hidden))
        states.append(hidden)
        gates.append(token_gates)
    return torch.stack(states), gates


SHAPES = [
    dict(seed=0),
    dict(seed=1, layers=1, heads=4, kv_heads=2, loops=6),
    dict(seed=2, layers=3, heads=4, kv_heads=1, loops=3),
    dict(seed=3, layers=1, loops=1),
]


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_replay_equals_the_sequential_computation(shape):
    model = random_model(**shape).double()  # rounding out of the way: what is left is the rule itself
    generator = torch.Generator().manual_seed(7)
    lengths, width = [5, 9, 1], 11
    ids = torch.randint(0, 41, (3, width), generator=generator)
    depths = torch.full((3, width), NO_DEPTH)
    for row, length in enumerate(lengths):
        start = 2 * row  # padding on both sides
        depths[row, start : start + length] = torch.randint(
            1, model.config.total_ut_steps + 1, (length,), generator=generator
        )
    output = model(ids, depths=depths)
    states = model.model(ids, depths=depths).last_hidden_state
    for row, length in enumerate(lengths):
        span = slice(2 * row, 2 * row + length)
        expected, gates = one_by_one(model, ids[row, span], depths[row, span].tolist())
        assert (states[row, span] - expected).abs().max() <= 1e-12
        assert (output.logits[row, span] - model.lm_head(expected)).abs().max() <= 1e-11
        for offset, token_gates in enumerate(gates):
            got = output.gate_logits[: len(token_gates), row, span.start + offset]
            torch.testing.assert_close(got, torch.stack(token_gates), atol=1e-5, rtol=1e-5)  # gates stay in fp32
    assert states[depths == NO_DEPTH].abs().max() == 0


@torch.no_grad()
def test_full_depth_replay_is_the_plain_forward():
    model = random_model()
    ids = torch.randint(0, 41, (4, 13), generator=torch.Generator().manual_seed(0))
    plain, replayed = model(ids), model(ids, depths=torch.full_like(ids, 4))
    assert (plain.logits - replayed.logits).abs().max() <= 1e-5
    assert (plain.gate_logits - replayed.gate_logits).abs().max() <= 1e-5


def gradients(model, ids, depths, owners=None):
    model.zero_grad()
    output = model(ids, depths=depths, owners=owners)
    valid = depths != NO_DEPTH
    (output.logits[valid].square().mean() + output.gate_logits[:, valid].square().mean()).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_gradients_reach_everything_and_survive_checkpointing_and_padding():
    model = random_model(seed=5).train()
    ids = torch.randint(0, 41, (2, 8), generator=torch.Generator().manual_seed(0))
    depths = torch.randint(1, 5, (2, 8), generator=torch.Generator().manual_seed(1))
    plain = gradients(model, ids, depths)
    assert all(torch.isfinite(grad).all() and grad.abs().sum() > 0 for grad in plain.values())
    padded_ids, padded_depths = torch.nn.functional.pad(ids, (3, 2)), torch.nn.functional.pad(depths, (3, 2))
    padded = gradients(model, padded_ids, padded_depths)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    checkpointed = gradients(model, ids, depths)
    for name, grad in plain.items():
        torch.testing.assert_close(padded[name], grad, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(checkpointed[name], grad, atol=1e-6, rtol=1e-5)


def test_a_replay_takes_no_cache():
    model = random_model()
    with pytest.raises(ValueError, match="takes and gives no cache"):
        model(torch.zeros(1, 2, dtype=torch.long), depths=torch.ones(1, 2, dtype=torch.long), use_cache=True)


def test_a_bf16_forward_of_fp32_masters_is_that_of_bf16_weights():
    model = random_model(seed=6, kv_heads=2).train()
    copy = random_model(seed=6, kv_heads=2).bfloat16()
    model.model.compute_dtype = torch.bfloat16
    ids = torch.randint(0, 41, (2, 8), generator=torch.Generator().manual_seed(0))
    depths = torch.randint(1, 5, (2, 8), generator=torch.Generator().manual_seed(1))
    ours, theirs = model(ids, depths=depths), copy(ids, depths=depths)
    assert ours.logits.dtype == torch.bfloat16 and torch.equal(ours.logits, theirs.logits)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    grads = gradients(model, ids, depths)
    assert all(grad.dtype == torch.float32 and grad.abs().sum() > 0 for grad in grads.values())


@pytest.mark.skipif(native_attention.load()[0] is None, reason=native_attention.load()[1])
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_the_kernel_of_the_workers_gives_the_same_values_and_gradients(monkeypatch, kv_heads):
    model = random_model(seed=8, hidden=64, heads=2, kv_heads=kv_heads).train()  # heads of 32: the kernel takes them
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(0.2)
    ids = torch.randint(0, 41, (3, 9), generator=torch.Generator().manual_seed(0))
    depths = torch.randint(1, 5, (3, 9), generator=torch.Generator().manual_seed(1))
    depths[0, :4], depths[1, 6:] = NO_DEPTH, NO_DEPTH
    used = []
    kernel = native_attention.attend_rows
    monkeypatch.setattr(native_attention, "attend_rows", lambda *a: used.append(1) or kernel(*a))
    fast_logits, fast = model(ids, depths=depths).logits.detach(), gradients(model, ids, depths)
    assert used
    monkeypatch.setattr(native_attention, "choose", lambda keys: (None, "plain"))
    slow_logits, slow = model(ids, depths=depths).logits.detach(), gradients(model, ids, depths)
    valid = depths != NO_DEPTH
    torch.testing.assert_close(fast_logits[valid], slow_logits[valid], atol=1e-4, rtol=1e-4)
    for name, grad in slow.items():
        torch.testing.assert_close(fast[name], grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("hidden,heads", [(32, 4), (64, 2)])  # torch's attention, and the kernel of the workers
def test_a_shared_prompt_is_computed_once_with_the_same_result(hidden, heads):
    model = random_model(seed=9, hidden=hidden, heads=heads, kv_heads=heads // 2).train()
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(0.2)
    generator = torch.Generator().manual_seed(0)
    ids, depths = torch.randint(0, 41, (6, 9), generator=generator), torch.randint(1, 5, (6, 9), generator=generator)
    ids[:, :4] = ids[[0, 1, 0, 1, 1, 5], :4]
    depths[:, :4] = 4
    depths[[1, 3, 4], 0] = NO_DEPTH
    ids[[1, 3, 4], 0] = 0
    owners = prompt_owners(ids[:, :4], depths[:, :4] > 0, 9)
    assert (owners != torch.arange(54).view(6, 9)).sum() == 12
    alone, shared = model(ids, depths=depths), model(ids, depths=depths, owners=owners)
    valid = depths != NO_DEPTH
    torch.testing.assert_close(shared.logits[valid], alone.logits[valid], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shared.gate_logits[:, valid], alone.gate_logits[:, valid], atol=1e-5, rtol=1e-5)
    wanted, got = gradients(model, ids, depths), gradients(model, ids, depths, owners)
    for name, grad in wanted.items():
        torch.testing.assert_close(got[name], grad, atol=1e-5, rtol=1e-3)
