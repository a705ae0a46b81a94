"""All layers in one call of the C library: bitwise against separate calls, and against the slow sequential sampler."""

import weakref
from dataclasses import replace

import pytest
import torch

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.sampling_params import DepthPolicy, ExitRule, SamplingParams
from ouro_rl.kernels.cpu import select as cpu_kernels
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.layers import OuroRMSNorm
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from rollout_workers.engine.engine import RolloutEngine
from rollout_workers.engine.forward import Forward
from tests.ouro_rl.kernels.test_cpu_kernels import KERNELS, WHY
from tests.references.sequential import sequential_rollouts
from tests.references.tiny_models import rounding
from tests.rollout_workers.engine.test_engine import assert_same, calm_model, make_requests

pytestmark = pytest.mark.skipif(KERNELS is None, reason=WHY)
DTYPES = [
    torch.float32,
    pytest.param(
        torch.bfloat16,
        marks=pytest.mark.skipif(cpu_kernels.has_amx(), reason="oneDNN's products are not in the stack"),
    ),
]
SHAPES = [
    {"layers": 1, "heads": 1, "kv_heads": 1, "hidden": 32, "loops": 1},
    {"layers": 3, "heads": 4, "kv_heads": 2, "hidden": 128, "loops": 4},
    {"layers": 2, "heads": 3, "kv_heads": 3, "hidden": 192, "loops": 3},
]
PARAMS = SamplingParams(max_new_tokens=9, temperature=1.0, exit_rule=ExitRule(kind="sample"), stop_token_ids=(1,))


def model_of(seed: int, shape: dict[str, int]) -> OuroForCausalLM:
    """A random model in which no two norms have the same weights."""
    model = calm_model(seed, **shape)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, OuroRMSNorm):
                module.weight.uniform_(0.5, 1.5)
    return model


def both_ways(monkeypatch) -> list[int]:
    """Computes every pass by the stack and by separate calls: states, keys and values must be equal.

    Returns a list that receives the number of rows of each pass."""
    seen = []

    def call(self: Forward, rows, pages, states):
        def written() -> list[torch.Tensor]:
            return [pool[pages].clone() for pool in (*self.cache.keys, *self.cache.values)]

        whole, stack = forward(self, rows, pages, states), self.stack
        assert stack.current() is not None
        by_stack, self.stack = written(), None
        single = forward(self, rows, pages, states)
        self.stack = stack
        assert torch.equal(whole, single) and all(map(torch.equal, by_stack, written()))
        seen.append(len(pages))
        return whole

    forward = Forward.__call__
    monkeypatch.setattr(Forward, "__call__", call)
    return seen


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rule", KVRule, ids=str)
def test_is_bitwise_equal_to_separate_calls(dtype, shape, rule, monkeypatch, threads):
    """Decoding, chunked and unchunked prefill, one thread and more threads than cores."""
    model = model_of(3, shape).to(dtype)
    params = replace(PARAMS, depth_policy=DepthPolicy(kv_rule=rule))
    seen = both_ways(monkeypatch)
    for workers, chunk in ((1, None), (3, 5)):
        threads(workers)
        monkeypatch.setattr("ouro_rl.kernels.cpu.ctypes_calls.WORK_PER_THREAD", 1)
        RolloutEngine(model, EngineConfig(max_batch=20, prefill_rows=chunk)).generate(
            make_requests([50, 1, 7, 61], group=6), params
        )
    assert max(seen) > 60 and min(seen) < 14


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_the_sequential_sampler(shape):
    model, requests = model_of(1, shape), make_requests([6, 1, 11, 2], group=2)
    engine = RolloutEngine(model, EngineConfig(max_batch=5))
    assert engine.forward.stack.current() is not None
    assert_same(engine.generate(requests, PARAMS), sequential_rollouts(model, requests, PARAMS), rounding(model))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("static", [False, True])
def test_heads_that_are_wider_than_the_rows_and_many_rows(dtype, static, monkeypatch):
    """More rows than a product handles at once; static passes, in which dummy slots share a page."""
    torch.manual_seed(0)
    config = OuroConfig(
        hidden_size=64,
        intermediate_size=4096,
        head_dim=128,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_hidden_layers=2,
        vocab_size=41,
        total_ut_steps=3,
        initializer_range=0.1,
    )
    seen = both_ways(monkeypatch)
    engine = RolloutEngine(OuroForCausalLM(config).to(dtype).eval(), EngineConfig(max_batch=11, static_passes=static))
    engine.generate(make_requests([150, 9], group=6), PARAMS)
    assert max(seen) > 2 * 64


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_uses_updated_weights(dtype):
    """Weights (norms, too, of which bf16 has copies) changed in place, by a fused optimizer, moved or replaced."""
    model, requests = model_of(1, SHAPES[1]).to(dtype), make_requests([6, 3], group=4)
    engine = RolloutEngine(model, EngineConfig(max_batch=8))
    layer, stack = model.model.layers[1], engine.forward.stack

    def step(weight: torch.nn.Parameter) -> None:
        weight.grad = torch.randn_like(weight)
        torch.optim.AdamW([weight], lr=0.1, fused=True).step()

    def move(weight: torch.nn.Parameter) -> None:
        weight.data = torch.rand_like(weight) * 0.1

    for change in (lambda weight: weight.mul_(-1), step, move):
        for weight in (
            layer.mlp.down_proj.weight,
            layer.input_layernorm_2.weight,
            model.model.norm.weight,
            layer.self_attn.k_proj.weight,
        ):
            old = stack.current()
            assert stack.current() is old
            with torch.no_grad():
                change(weight)
            got, engine.forward.stack = engine.generate(requests, PARAMS), None
            assert stack.current() is not old
            assert_same(got, engine.generate(requests, PARAMS), 0)
            engine.forward.stack = stack
    old, gone = stack.current(), weakref.ref(layer.mlp.up_proj.weight)
    layer.mlp.up_proj.weight = torch.nn.Parameter(
        layer.mlp.up_proj.weight.data
    )  # at the same address, with the same version
    assert gone() is None and stack.current() is not old


def test_uses_threads_for_long_contexts(monkeypatch):
    """A few rows of a narrow model read many pages."""
    model = model_of(1, SHAPES[1])
    engine, asked = RolloutEngine(model, EngineConfig(max_batch=1)), []
    monkeypatch.setattr("ouro_rl.kernels.cpu.layer_stack.threads_for", lambda work: asked.append(work) or 1)
    engine.generate(make_requests([3, 200], group=1), PARAMS)
    assert max(asked) > 200 * 200 / 2 * 128 > 8 * min(asked)


def test_without_rows_nothing_happens():
    model = model_of(1, SHAPES[1])
    engine = RolloutEngine(model, EngineConfig(max_batch=2))
    engine.cache.reshape(32, loops=4)
    none = torch.empty(0, dtype=torch.int64)
    rows = KERNELS.plan_rows(engine.cache.table, none, none)
    stack = engine.forward.stack.current()
    angles = tuple(part[:0] for part in engine.forward.angles())
    assert stack(torch.empty(0, 128), angles, none, rows, engine.cache.keys, engine.cache.values).shape == (0, 128)
