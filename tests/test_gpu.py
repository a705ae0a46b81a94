"""The engine on a CUDA device: `pytest -m gpu -s`. What can be tested without one is in test_triton_attention.py and test_static_passes.py."""

import math
import random
import time
import warnings
from dataclasses import replace

import pytest
import torch

from ouro_rl.exit_gate import depth_logprobs
from ouro_rl.model import OuroConfig, OuroForCausalLM
from ouro_rl.policy import chosen_logprobs, token_distribution
from ouro_rl.types import NO_DEPTH, ExitRule, Prompt, RolloutRequest, SamplingParams
from rollout_workers.attention import TritonAttention
from rollout_workers.engine import RolloutEngine
from rollout_workers.weight_sync import load_state
from tests.models import random_model
from tests.test_engine import make_requests

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: the engine's speed on one is NOT tested here"),
]
OURO_1_4B = {
    "vocab_size": 49152, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
    "num_attention_heads": 16, "num_key_value_heads": 16, "total_ut_steps": 4,
}  # fmt: skip
LIMIT = {4.0: 8_572, 2.5: 13_488}
"""Tokens/s of an H200 at batch 64 and context 512 by mean depth: bytes of weights and of keys and values over 4.8 TB/s."""


def gpu_model(seed=0, dtype=torch.float32, **shape):
    return random_model(seed, gate_scale=3.0, hidden=256, heads=2, **shape).to(DEVICE, dtype)


def test_triton_attention_works_here():
    """It was chosen, so it compiled and ran; and fp32 agrees with plain torch over prompts and samples of many lengths."""
    model, requests = gpu_model(), make_requests([1, 63, 64, 65, 130])
    engine = RolloutEngine(model, max_batch=32)
    assert isinstance(engine.forward.attention, TritonAttention), engine.description
    print(engine.description)
    params = SamplingParams(max_new_tokens=20, temperature=0.0, exit_rule=ExitRule(kind="fixed", value=3))
    for ours, theirs in zip(engine.generate(requests, params), plain(model, requests, params), strict=True):
        assert ours.token_logprobs[0] == pytest.approx(theirs.token_logprobs[0], abs=1e-3)


def plain(model, requests, params):
    """The same on the CPU."""
    there = OuroForCausalLM(model.config).to(next(model.parameters()).dtype).eval()
    load_state(there, model.state_dict())
    return RolloutEngine(there, max_batch=32).generate(requests, params)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_graphs_give_what_their_passes_give(dtype):
    """To the bit: a graph repeats the same kernels. Over two calls, with other weights in the second, and no capture refused."""
    model, requests = gpu_model(1, dtype), make_requests([1, 9, 70, 33, 5, 20])
    params = SamplingParams(max_new_tokens=40, stop_token_ids=(3,))
    graphed, uncaptured = (RolloutEngine(model, max_batch=13) for _ in range(2))
    uncaptured.static.wrap = lambda run_pass: run_pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scale in (1.0, 0.9):
            load_state(model, {name: scale * tensor for name, tensor in model.state_dict().items()})
            assert graphed.generate(requests, params) == uncaptured.generate(requests, params)
    passes = [run_pass for _, run_pass in graphed.static.known[params].passes.values()]
    assert any(run_pass.graph is not None for run_pass in passes)
    graphed.cache.check_integrity()


def test_static_passes_give_what_ordinary_ones_give():
    """In fp32, where products of other row counts differ in last bits: the same tokens but for a rare draw at an edge."""
    model, requests = gpu_model(2), make_requests([1, 9, 70, 33, 5, 20], group=6)
    params = SamplingParams(max_new_tokens=24, stop_token_ids=(3,))
    static = RolloutEngine(model, max_batch=13).generate(requests, params)
    ordinary = RolloutEngine(model, max_batch=13, static_passes=False).generate(requests, params)
    same = [a for a, b in zip(static, ordinary, strict=True) if (a.completion_ids, a.depths) == (b.completion_ids, b.depths)]
    assert len(same) >= 0.9 * len(static)


def test_bf16_logprobs_of_worker_and_trainer():
    """Mean difference between the log-probs of sampling and those of the trainer's parallel forward: at most 0.01."""
    model, requests = gpu_model(3, torch.bfloat16, layers=4), make_requests([5, 40, 100, 17])
    rollouts = RolloutEngine(model, max_batch=32).generate(requests, SamplingParams(max_new_tokens=48))
    gaps = []
    for rollout in rollouts:
        tokens, first = rollout.prompt_ids + rollout.completion_ids, len(rollout.prompt_ids) - 1
        depths = [4] * first + list(rollout.depths) + [NO_DEPTH]
        with torch.inference_mode():
            output = model(
                input_ids=torch.tensor([tokens], device=DEVICE), depths=torch.tensor([depths], device=DEVICE)
            )
        where = slice(first, first + len(rollout.depths))
        log_probs, _ = token_distribution(output.logits[0, where], 1.0)
        replayed = chosen_logprobs(log_probs, torch.tensor(rollout.completion_ids, device=DEVICE)).cpu()
        gate = depth_logprobs(output.gate_logits[:, 0, where], torch.tensor(rollout.depths, device=DEVICE)).cpu()
        gaps += (replayed - torch.tensor(rollout.token_logprobs)).abs().tolist()
        gaps += (gate - torch.tensor(rollout.depth_logprobs)).abs().tolist()
    print(f"\nbf16 log-probs, worker against trainer: mean {sum(gaps) / len(gaps):.2e}, largest {max(gaps):.2e}")
    assert sum(gaps) / len(gaps) <= 0.01


def decode_rate(engine, requests, params, long=160, short=32):
    """Tokens/s of decoding alone: what the tokens beyond `short` took. Once before, to capture."""
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
    """bf16, a gate that leaves after each loop with a chance that `set_mean_depth` gives."""
    with torch.device(DEVICE):
        model = OuroForCausalLM(OuroConfig(**shape)).to(torch.bfloat16).eval()
    with torch.no_grad():
        model.model.early_exit_gate.weight.zero_()
    return model


def set_mean_depth(model, stay):
    """Every token goes on with chance `stay` after loops 1 to 3: mean depth 1 + s + s^2 + s^3."""
    with torch.no_grad():
        model.model.early_exit_gate.bias.fill_(math.log((1 - stay) / stay))


def test_tokens_per_second_at_the_shapes_of_ouro_1_4b():
    """Printed; asserted is only that loops that are not run are time that is not spent."""
    if torch.cuda.get_device_properties(0).total_memory < 60 * 2**30:
        pytest.skip("64 sequences of 640 tokens at 4 loops take 32 GiB of keys and values: needs a larger device")
    model = random_ouro(OURO_1_4B)
    requests = random_requests(64, 480, 49152)
    free, _ = torch.cuda.mem_get_info()
    engine = RolloutEngine(model, max_batch=64, kv_memory_gib=0.8 * free / 2**30, prefill_rows=4096)
    print(f"\n{engine.description}")
    rates = {}
    for wanted, stay in ((4.0, 0.5), (2.5, 0.6914), (2.0, 0.5437)):
        set_mean_depth(model, stay)
        rule = ExitRule(kind="fixed", value=4) if wanted == 4 else ExitRule()
        rates[wanted], depth = decode_rate(engine, requests, SamplingParams(max_new_tokens=1, exit_rule=rule))
        share = f", {rates[wanted] / LIMIT[wanted]:.0%} of an H200's limit" if wanted in LIMIT else ""
        print(f"mean depth {depth:.2f}: {rates[wanted]:,.0f} tokens/s, {rates[wanted] / rates[4.0]:.2f} x fixed 4{share}")
    assert rates[2.0] > rates[2.5] > rates[4.0]
