"""Kernels, engine and replay on a CUDA device: `pytest -m gpu -s`.

test_gpu_kernels.py and test_static_passes.py test what does not need one."""

import gc
import math
import random
import time
import warnings
from dataclasses import replace

import pytest
import torch

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.rollout import Prompt, RolloutRequest
from ouro_rl.core.sampling_params import NO_DEPTH, ExitRule, SamplingParams
from ouro_rl.kernels.gpu import select as gpu_kernels
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.model.policy.token_distribution import chosen_logprobs, token_distribution
from rollout_workers.engine.attention import KernelAttention
from rollout_workers.engine.engine import RolloutEngine
from rollout_workers.weight_sync import load_state
from tests.ouro_rl.model.test_replay import assert_near, gradients
from tests.references.exit_distribution import depth_logprobs
from tests.references.tiny_models import random_model
from tests.rollout_workers.engine.test_engine import make_requests

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="no CUDA device: the GPU kernels and engine are NOT tested here"
    ),
]
OURO_1_4B = {
    "vocab_size": 49152,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "total_ut_steps": 4,
}
ROOFLINE = {4.0: 8_572, 2.5: 13_488}
"""Roofline of an H200 at batch 64 and context 512, in tokens/s by mean depth: weight and KV bytes at 4.8 TB/s."""


def gpu_model(seed=0, dtype=torch.float32, **shape):
    return random_model(seed, gate_scale=3.0, hidden=256, heads=2, **shape).to(DEVICE, dtype)


def test_triton_kernels_work_here():
    """They are selected, so they compiled and passed their self-test; fp32 agrees with the CPU for many lengths."""
    model, requests = gpu_model(), make_requests([1, 63, 64, 65, 130])
    engine = RolloutEngine(model, EngineConfig(max_batch=32))
    assert isinstance(engine.forward.attention, KernelAttention), engine.description
    print(engine.description)
    params = SamplingParams(max_new_tokens=20, temperature=0.0, exit_rule=ExitRule(kind="fixed", value=3))
    for ours, theirs in zip(engine.generate(requests, params), plain(model, requests, params), strict=True):
        assert ours.token_logprobs[0] == pytest.approx(theirs.token_logprobs[0], abs=1e-3)


def plain(model, requests, params):
    """The same rollouts on the CPU."""
    there = OuroForCausalLM(model.config).to(next(model.parameters()).dtype).eval()
    load_state(there, model.state_dict())
    return RolloutEngine(there, EngineConfig(max_batch=32)).generate(requests, params)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_graphs_give_the_results_of_their_passes(dtype, exact):
    """Bitwise: a graph replays the same kernels. Over two calls, the second with other weights; all are captured."""
    model, requests = gpu_model(1, dtype), make_requests([1, 9, 70, 33, 5, 20])
    model.model.batch_invariant = exact
    params = SamplingParams(max_new_tokens=40, stop_token_ids=(3,))
    graphed, uncaptured = (RolloutEngine(model, EngineConfig(max_batch=13)) for _ in range(2))
    uncaptured.static.wrap = lambda run_pass: run_pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scale in (1.0, 0.9):
            load_state(model, {name: scale * tensor for name, tensor in model.state_dict().items()})
            assert graphed.generate(requests, params) == uncaptured.generate(requests, params)
    passes = [run_pass for _, run_pass in graphed.static.known[params].passes.values()]
    assert any(run_pass.graph is not None for run_pass in passes)
    graphed.cache.check_integrity()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_static_and_dynamic_passes_give_the_same_rollouts(dtype):
    """Bitwise: rows are batch-invariant, in buckets and in compacted passes."""
    model, requests = gpu_model(2, dtype), make_requests([1, 9, 70, 33, 5, 20], group=6)
    params = SamplingParams(max_new_tokens=24, stop_token_ids=(3,))
    static = RolloutEngine(model, EngineConfig(max_batch=13)).generate(requests, params)
    assert static == RolloutEngine(model, EngineConfig(max_batch=13, static_passes=False)).generate(requests, params)


def replayed(model, rollouts):
    """The trainer's log-probs minus those of sampling, for tokens and depths, with all rollouts in one padded batch."""
    lengths = [len(rollout.prompt_ids) + len(rollout.completion_ids) for rollout in rollouts]
    ids = torch.zeros(len(rollouts), max(lengths), dtype=torch.int64)
    depths, predicting = torch.full_like(ids, NO_DEPTH), torch.zeros_like(ids, dtype=torch.bool)
    for row, rollout in enumerate(rollouts):
        first = len(rollout.prompt_ids) - 1
        ids[row, : lengths[row]] = torch.tensor(rollout.prompt_ids + rollout.completion_ids)
        depths[row, :first] = model.config.total_ut_steps
        depths[row, first : lengths[row] - 1] = torch.tensor(rollout.depths)
        predicting[row, first : lengths[row] - 1] = True
    where = predicting.to(DEVICE)
    with torch.no_grad():
        output = model(input_ids=ids.to(DEVICE), depths=depths.to(DEVICE), logits_to_keep=where)
    chosen, sampled, sampled_depths = (
        torch.tensor([x for rollout in rollouts for x in getattr(rollout, name)])
        for name in ("completion_ids", "token_logprobs", "depth_logprobs")
    )
    log_probs, _ = token_distribution(output.logits, 1.0)
    gates = depth_logprobs(output.gate_logits[:, where], depths.to(DEVICE)[where])
    return chosen_logprobs(log_probs, chosen.to(DEVICE)).cpu() - sampled, gates.cpu() - sampled_depths


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_worker_and_trainer_agree_on_every_log_prob(dtype, exact):
    """Bitwise with `exact`, in graphs and in prefill; otherwise the mean difference in bf16 is at most 0.01."""
    model, requests = gpu_model(3, dtype, layers=4), make_requests([5, 40, 100, 17])
    model.model.batch_invariant = exact
    rollouts = RolloutEngine(model, EngineConfig(max_batch=32)).generate(requests, SamplingParams(max_new_tokens=48))
    tokens, depths = (gap.abs() for gap in replayed(model, rollouts))
    for name, gap in (("tokens", tokens), ("depths", depths)):
        print(f"\n{dtype}, exact {exact}, {name}: mean {gap.mean():.2e}, largest {gap.max():.2e}")
    if exact:
        assert not tokens.any()
        assert depths.max() <= 1e-5  # up to three logarithms, summed in another order
    assert tokens.mean() <= 0.01 and depths.mean() <= 0.01


def test_gradients_are_those_of_the_cpu_and_the_same_twice():
    model = gpu_model(4).train()
    ids = torch.randint(0, 41, (3, 70), generator=torch.Generator().manual_seed(0))
    depths = torch.randint(1, 5, (3, 70), generator=torch.Generator().manual_seed(1))
    depths[0, :9] = NO_DEPTH
    there = OuroForCausalLM(model.config).train()
    load_state(there, model.state_dict())
    first, again = (gradients(model, ids.to(DEVICE), depths.to(DEVICE)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert_near({name: grad.cpu() for name, grad in first.items()}, gradients(there, ids, depths), 1e-3)


def milliseconds(function, runs=20):
    """Milliseconds per call, with the device kept busy."""
    for _ in range(3):
        function()
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(runs):
        function()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop) / runs


@torch.inference_mode()
def test_cost_of_batch_invariant_products():
    """Prints batch-invariant tiles against cuBLAS: Ouro-1.4B's matrices in bf16, from decoding to replay."""
    kernels, why = gpu_kernels.choose(torch.device(DEVICE), torch.bfloat16, heads=16, kv_heads=16, head_dim=128)
    assert kernels is not None, why
    print("\noutputs x inputs, rows: exact ms, cuBLAS ms, exact GB/s of weights, exact TFLOP/s")
    for outputs, inputs in [(6144, 2048), (2048, 2048), (11264, 2048), (2048, 5632), (49152, 2048)]:
        weights = [torch.randn(outputs, inputs, device=DEVICE, dtype=torch.bfloat16)]
        exact, plain = (
            kernels.product(weights, torch.bfloat16, batch_invariant=exact, old=None) for exact in (True, False)
        )
        for rows in (8, 64, 256, 4096):
            x = torch.randn(rows, inputs, device=DEVICE, dtype=torch.bfloat16)
            ours, theirs = milliseconds(lambda: exact(x)), milliseconds(lambda: plain(x))  # noqa: B023
            numbers = outputs * inputs
            print(
                f"{outputs} x {inputs}, {rows}: {ours:.4f}, {theirs:.4f}, {2e-6 * numbers / ours:.0f}, "
                f"{2e-9 * numbers * rows / ours:.0f}"
            )
            assert (exact(x).float() - plain(x).float()).norm() <= 0.01 * plain(x).float().norm()


def decode_rate(engine, requests, params, long=160, short=32):
    """Tokens/s of decoding, from the time of the tokens beyond `short`; after a first run that captures the graphs."""
    seconds = {}
    for tokens in (long, short):
        asked = replace(params, max_new_tokens=tokens)
        for _ in range(2):
            started = time.monotonic()
            rollouts = engine.generate(requests, asked)
            seconds[tokens] = time.monotonic() - started
        if tokens == long:
            depths = [depth for rollout in rollouts for depth in rollout.depths]
    samples = sum(len(request.seeds) for request in requests)
    return samples * (long - short) / (seconds[long] - seconds[short]), sum(depths) / len(depths)


def random_requests(prompts, length, vocab):
    rng = random.Random(0)
    return [
        RolloutRequest(prompt=Prompt(index=i, token_ids=tuple(rng.randrange(vocab) for _ in range(length))), seeds=(i,))
        for i in range(prompts)
    ]


def random_ouro(shape):
    """A bf16 model whose gate exits after each loop with a probability set by `set_mean_depth`."""
    with torch.device(DEVICE):
        model = OuroForCausalLM(OuroConfig(**shape)).to(torch.bfloat16).eval()
    with torch.no_grad():
        model.model.early_exit_gate.weight.zero_()
    return model


def set_mean_depth(model, stay):
    """Every token continues with probability s = `stay` after loops 1 to 3: mean depth 1 + s + s^2 + s^3."""
    with torch.no_grad():
        model.model.early_exit_gate.bias.fill_(math.log((1 - stay) / stay))


@pytest.mark.parametrize("exact", [True, False])
def test_tokens_per_second_at_the_shapes_of_ouro_1_4b(exact):
    """Prints the rates; only asserts that skipped loops save time."""
    if torch.cuda.get_device_properties(0).total_memory < 60 * 2**30:
        pytest.skip("64 sequences of 640 tokens at 4 loops need 32 GiB of KV cache: use a larger device")
    gc.collect()  # free the previous test's memory, including graphs
    torch.cuda.empty_cache()
    model = random_ouro(OURO_1_4B)
    model.model.batch_invariant = exact
    requests = random_requests(64, 480, 49152)
    free, _ = torch.cuda.mem_get_info()
    engine = RolloutEngine(model, EngineConfig(max_batch=64, kv_memory_gib=0.8 * free / 2**30, prefill_rows=4096))
    print(f"\n{engine.description}")
    rates = {}
    for wanted, stay in ((4.0, 0.5), (2.5, 0.6914), (2.0, 0.5437)):
        set_mean_depth(model, stay)
        rule = ExitRule(kind="fixed", value=4) if wanted == 4 else ExitRule()
        rates[wanted], depth = decode_rate(engine, requests, SamplingParams(max_new_tokens=1, exit_rule=rule))
        share = f", {rates[wanted] / ROOFLINE[wanted]:.0%} of an H200's roofline" if wanted in ROOFLINE else ""
        print(
            f"mean depth {depth:.2f}: {rates[wanted]:,.0f} tokens/s, {rates[wanted] / rates[4.0]:.2f} x fixed 4{share}"
        )
    assert rates[2.0] > rates[2.5] > rates[4.0]
