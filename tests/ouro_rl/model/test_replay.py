"""The trainer's parallel replay against a slow, obvious reference."""

import pytest
import torch

from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.sampling_params import NO_DEPTH
from ouro_rl.kernels.cpu import select as cpu_kernels
from ouro_rl.kernels.ops import TORCH_OPS, KernelOps
from ouro_rl.model.packed_rows import lay_out, pack
from ouro_rl.training.batch import prompt_owners
from tests.references.sequential import one_by_one
from tests.references.tiny_models import near, random_model

RULES = list(KVRule)


SHAPES = [
    dict(seed=0),
    dict(seed=1, layers=1, heads=4, kv_heads=2, loops=6),
    dict(seed=2, layers=3, heads=4, kv_heads=1, loops=3),
    dict(seed=3, layers=1, loops=1),
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("further", [0, 2], ids=["trained loops", "two loops more"])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_replay_equals_the_sequential_computation(shape, further, rule):
    model = random_model(**shape).double()  # without rounding, only the rule itself is compared
    max_loops = model.config.total_ut_steps + further
    generator = torch.Generator().manual_seed(7)
    lengths, width = [5, 9, 1], 11
    ids = torch.randint(0, 41, (3, width), generator=generator)
    depths = torch.full((3, width), NO_DEPTH)
    for row, length in enumerate(lengths):
        start = 2 * row  # padding on both sides
        depths[row, start : start + length] = torch.randint(1, max_loops + 1, (length,), generator=generator)
    output = model(ids, depths=depths, num_loops=max_loops, kv_rule=rule)
    states = model.model(ids, depths=depths, num_loops=max_loops, kv_rule=rule).last_hidden_state
    assert output.gate_logits.shape == (max_loops, 3, width)
    for row, length in enumerate(lengths):
        span = slice(2 * row, 2 * row + length)
        expected, gates = one_by_one(model, ids[row, span].tolist(), depths[row, span].tolist(), rule, max_loops)
        assert (states[row, span] - expected).abs().max() <= 1e-12
        assert (output.logits[row, span] - model.lm_head(expected)).abs().max() <= 1e-11
        for offset, token_gates in enumerate(gates):
            got = output.gate_logits[: len(token_gates), row, span.start + offset]
            torch.testing.assert_close(got, torch.tensor(token_gates), atol=1e-5, rtol=1e-5)  # gates stay in fp32
            assert not output.gate_logits[len(token_gates) :, row, span.start + offset].any()
    assert states[depths == NO_DEPTH].abs().max() == 0


@torch.no_grad()
def test_the_rules_differ_where_depths_do_and_agree_where_they_do_not():
    model = random_model(seed=4).double()
    ids = torch.randint(0, 41, (2, 9), generator=torch.Generator().manual_seed(0))
    mixed = torch.randint(1, 5, (2, 9), generator=torch.Generator().manual_seed(1))
    mixed[:, -1] = 4
    for depths, same in ((torch.full_like(ids, 3), True), (mixed, False)):
        one, two, three = (model(ids, depths=depths, kv_rule=rule).logits[:, -1] for rule in RULES)
        for a, b in ((one, two), (one, three), (two, three)):
            assert ((a - b).abs().max() <= 1e-12) == same


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("loops", [2, 4, 7])
@torch.no_grad()
def test_full_depth_replay_is_the_plain_forward(rule, loops):
    model = random_model()
    ids = torch.randint(0, 41, (4, 13), generator=torch.Generator().manual_seed(0))
    plain = model(ids, num_loops=loops)
    replayed = model(ids, depths=torch.full_like(ids, loops), num_loops=loops, kv_rule=rule)
    assert near(replayed.logits, plain.logits, model)
    assert near(replayed.gate_logits, plain.gate_logits, model)


@torch.no_grad()
def test_the_full_rule_picks_among_the_states_of_the_plain_forward():
    model = random_model()
    ids = torch.randint(0, 41, (4, 13), generator=torch.Generator().manual_seed(0))
    depths = torch.randint(1, 5, (4, 13), generator=torch.Generator().manual_seed(1))
    plain, replayed = model.model(ids), model.model(ids, depths=depths, kv_rule=KVRule.FULL)
    states = torch.stack(plain.loop_states)
    picked = states.gather(0, (depths - 1)[None, ..., None].expand_as(states[:1]))[0]
    assert near(replayed.last_hidden_state, picked, model)
    assert near(replayed.gate_logits, plain.gate_logits, model)


@pytest.mark.parametrize("rule", RULES)
def test_empty_rows_give_no_nan(rule):
    model = random_model().train()
    ids, depths = torch.zeros(3, 5, dtype=torch.long), torch.full((3, 5), NO_DEPTH)
    depths[1, 2] = 1  # one token in the middle of padding, and two rows without tokens
    output = model(ids, depths=depths, kv_rule=rule)
    assert torch.isfinite(output.logits).all() and torch.isfinite(output.gate_logits).all()
    output.logits[depths != NO_DEPTH].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    with torch.no_grad():
        assert not model.model(ids, depths=torch.full((3, 5), NO_DEPTH), kv_rule=rule).last_hidden_state.any()
        for shape in ((0, 5), (3, 0)):
            nothing = torch.zeros(shape, dtype=torch.long)
            assert model(nothing, depths=nothing, kv_rule=rule).logits.shape == (*shape, 41)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_a_fully_masked_row_of_the_plain_forward_gives_no_nan_and_does_not_affect_others(attention):
    model = random_model()
    model.config._attn_implementation = attention
    ids = torch.randint(0, 41, (3, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1], mask[2, :4] = 0, 0
    output = model(ids, attention_mask=mask)
    assert all(torch.isfinite(x).all() for x in (output.logits, output.gate_logits, *output.loop_states))
    torch.testing.assert_close(output.logits[:1], model(ids[:1]).logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.logits[2:, 4:], model(ids[2:, 4:]).logits, atol=1e-5, rtol=1e-5)


def test_a_depth_beyond_the_loops_is_an_error():
    model, ids = random_model(), torch.zeros(1, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="depth of 5 cannot be replayed with max_loops 4"):
        model(ids, depths=torch.tensor([[1, 5]]))


def gradients(model, ids, depths, owners=None, rule=KVRule.LAST_EXITED):
    model.zero_grad()
    output = model(ids, depths=depths, owners=owners, kv_rule=rule)
    valid = depths != NO_DEPTH
    (output.logits[valid].square().mean() + output.gate_logits[:, valid].square().mean()).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_near(got, wanted, tolerance):
    """Gradients by name: the norm of the difference relative to the norm."""
    for name, grad in wanted.items():
        assert (got[name] - grad).norm() <= tolerance * grad.norm(), name


@pytest.mark.parametrize("rule", RULES)
def test_gradients_reach_everything_and_survive_checkpointing_and_padding(rule):
    model = random_model(seed=5).train()
    ids = torch.randint(0, 41, (2, 8), generator=torch.Generator().manual_seed(0))
    depths = torch.randint(1, 5, (2, 8), generator=torch.Generator().manual_seed(1))
    plain = gradients(model, ids, depths, rule=rule)
    assert all(torch.isfinite(grad).all() and grad.abs().sum() > 0 for grad in plain.values())
    padded_ids, padded_depths = torch.nn.functional.pad(ids, (3, 2)), torch.nn.functional.pad(depths, (3, 2))
    padded = gradients(model, padded_ids, padded_depths, rule=rule)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    checkpointed = gradients(model, ids, depths, rule=rule)
    for name, grad in plain.items():
        torch.testing.assert_close(padded[name], grad, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(checkpointed[name], grad, atol=1e-6, rtol=1e-5)


def test_a_replay_takes_no_cache():
    model = random_model()
    with pytest.raises(ValueError, match="neither takes nor returns a cache"):
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


@pytest.mark.skipif(cpu_kernels.load()[0] is None, reason=cpu_kernels.load()[1])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_the_kernel_of_the_workers_gives_the_same_values_and_gradients(monkeypatch, kv_heads, rule):
    model = random_model(seed=8, hidden=64, heads=2, kv_heads=kv_heads).train()  # heads of 32: the kernel takes them
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(0.2)
    ids = torch.randint(0, 41, (3, 9), generator=torch.Generator().manual_seed(0))
    depths = torch.randint(1, 5, (3, 9), generator=torch.Generator().manual_seed(1))
    depths[0, :4], depths[1, 6:] = NO_DEPTH, NO_DEPTH
    assert isinstance(model.model.row_ops(torch.float32)[0], KernelOps)
    fast_logits = model(ids, depths=depths, kv_rule=rule).logits.detach()
    fast = gradients(model, ids, depths, rule=rule)
    monkeypatch.setattr(model.model, "row_ops", lambda dtype: (TORCH_OPS, "plain"))
    slow_logits = model(ids, depths=depths, kv_rule=rule).logits.detach()
    slow = gradients(model, ids, depths, rule=rule)
    valid = depths != NO_DEPTH
    torch.testing.assert_close(fast_logits[valid], slow_logits[valid], atol=1e-4, rtol=1e-4)
    assert_near(fast, slow, 1e-4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("hidden,heads", [(32, 4), (64, 2)])  # torch's attention, and the kernel of the workers
def test_a_shared_prompt_is_computed_once_with_the_same_result(hidden, heads, rule):
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
    alone = model(ids, depths=depths, kv_rule=rule)
    shared = model(ids, depths=depths, owners=owners, kv_rule=rule)
    valid = depths != NO_DEPTH
    torch.testing.assert_close(shared.logits[valid], alone.logits[valid], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shared.gate_logits[:, valid], alone.gate_logits[:, valid], atol=1e-5, rtol=1e-5)
    wanted, got = gradients(model, ids, depths, rule=rule), gradients(model, ids, depths, owners, rule)
    assert_near(got, wanted, 1e-4)


def test_a_row_for_each_token_that_is_computed_and_none_for_padding():
    valid = torch.tensor([[False, True, True, True], [False, True, True, False]])
    owners = torch.tensor([[0, 1, 2, 3], [4, 1, 6, 7]])  # the second sequence shares its prefix with the first
    packing = pack(valid, owners)
    assert packing.places.tolist() == [1, 2, 3, 6]
    assert packing.unpack(torch.tensor([[1.0], [2.0], [3.0], [6.0]])).tolist() == [
        [0],
        [1],
        [2],
        [3],
        [0],
        [1],
        [6],
        [0],
    ]
    layout = lay_out(valid, packing, masked=False)
    assert [
        layout.pages[table_row, :context].tolist()
        for table_row, context in zip(layout.table_rows, layout.contexts, strict=True)
    ] == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 3],
    ]
