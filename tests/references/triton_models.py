"""Cases of tests/references/triton_cases.py with a whole small model, computed by interpreted kernels."""

import contextlib
import functools
from unittest import mock

import torch

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.sampling_params import NO_DEPTH, DepthPolicy, SamplingParams
from ouro_rl.kernels.cpu import select as cpu_kernels
from ouro_rl.kernels.gpu import attention, linear
from ouro_rl.kernels.gpu import self_test as self_test_module
from ouro_rl.kernels.gpu.kernels import TritonKernels
from ouro_rl.kernels.gpu.self_test import MANY, check, widen
from rollout_workers.engine.attention import KernelAttention
from rollout_workers.engine.engine import RolloutEngine
from tests.integration.test_sampling_replay import replayed
from tests.ouro_rl.model.test_replay import assert_near, gradients
from tests.ouro_rl.model.test_replay_probes import loop_by_loop, probe_gradients
from tests.references.tiny_models import rounding
from tests.rollout_workers.engine.test_engine import assert_same, calm_model, make_requests

HEADS = {"heads": 2, "kv_heads": 1}


@contextlib.contextmanager
def triton_everywhere():
    """Makes models use the Triton kernels for CPU tensors."""
    chosen = mock.patch.object(cpu_kernels, "choose", lambda *_, **__: (TritonKernels(sharing=2), "interpreted"))
    with chosen, mock.patch.object(attention, "BLOCK", 16):  # so that short contexts have several blocks
        yield


def small(seed=3, dtype=torch.float32):
    return calm_model(seed, layers=1, loops=2, **HEADS).to(dtype)


def self_test():
    """The self-test at the start of a run passes, and can fail."""
    kernels = TritonKernels(sharing=2)
    check(kernels, torch.device("cpu"), torch.bfloat16, heads=2, kv_heads=1, head_dim=24)
    assert MANY >= linear.WIDE_FROM
    same_order = linear.linear
    with mock.patch.object(self_test_module, "MANY", 70):  # the interpreter is slow
        with mock.patch.object(linear, "linear", lambda x, weights, wide: same_order(x, weights)):
            assert widen(kernels, torch.device("cpu"), torch.bfloat16) == "" and kernels.wide
        with mock.patch.object(
            linear, "linear", lambda x, weights, wide: same_order(x, weights) * (1.01 if wide else 1)
        ):
            assert "another order" in widen(kernels, torch.device("cpu"), torch.bfloat16) and not kernels.wide
    for name, what in [("rms_norm", "norm"), ("attend", "attention")]:
        broken = TritonKernels(sharing=2)
        right = getattr(broken, name)
        for wrong, why in [
            (lambda *a, right=right: right(*a) * 1.3, "wrong results"),
            (lambda *a, right=right: right(*a) * (1 + 1e-6 * len(a[0])), "not batch-invariant"),
        ]:
            setattr(broken, name, wrong)
            try:
                check(broken, torch.device("cpu"), torch.float32, heads=2, kv_heads=1, head_dim=8)
            except RuntimeError as error:
                assert why in str(error) and what in str(error), error
            else:
                raise AssertionError(f"{name}: {why}")


def exact():
    """The trainer's replay is bitwise equal to the workers' log-probs, in fp32 and bf16, dynamic and static passes.

    The trainer has fp32 weights that compute in `dtype`, the worker has weights of `dtype`, and both an fp32 gate."""
    for dtype, static, rule in [
        (torch.float32, False, KVRule.LAST_EXITED),
        (torch.bfloat16, True, KVRule.LAST_EXITED),
        (torch.bfloat16, False, KVRule.SKIP),
    ]:
        with triton_everywhere():
            model = small(dtype=dtype)
            engine = RolloutEngine(model, EngineConfig(max_batch=3, static_passes=static))
            assert (
                isinstance(engine.forward.attention, KernelAttention) and not engine.forward.attention.needs_host_sync
            )
            params = SamplingParams(max_new_tokens=3, depth_policy=DepthPolicy(kv_rule=rule))
            rollouts = engine.generate(make_requests([1, 5, 19], group=1), params)
            assert len({depth for rollout in rollouts for depth in rollout.depths}) == 2
            trainer = small()
            trainer.model.compute_dtype = dtype
            with mock.patch.object(trainer, "forward", functools.partial(trainer.forward, kv_rule=rule)):
                tokens, depths, sampled, sampled_depths = replayed(trainer, rollouts, params)
        assert torch.equal(tokens, sampled), (dtype, (tokens - sampled).abs().max())
        assert torch.equal(depths, sampled_depths), dtype
        if dtype == torch.float32:
            plain = RolloutEngine(small(), EngineConfig(max_batch=3)).generate(
                make_requests([1, 5, 19], group=1), params
            )
            assert_same(rollouts, plain, rounding(model))


def training():
    """Values and gradients of a replay, including shared prefixes and padding, agree with those of the CPU."""
    ids = torch.randint(0, 41, (3, 7), generator=torch.Generator().manual_seed(0))
    depths = torch.randint(1, 3, (3, 7), generator=torch.Generator().manual_seed(1))
    depths[0, :2], ids[2, :3], depths[:, 2:3] = NO_DEPTH, ids[1, :3], 2
    depths[2, :3] = depths[1, :3]
    owners = torch.arange(21).view(3, 7)
    owners[2, :3] = owners[1, :3]
    wanted = gradients(small(4).train(), ids, depths, owners)
    with triton_everywhere():
        got = gradients(small(4).train(), ids, depths, owners)
    assert_near(got, wanted, 1e-4)


def probes():
    """Probe rows with the Triton kernels: bits of a deeper replay, gradients of the CPU."""
    generator = torch.Generator().manual_seed(0)
    ids, depths = torch.randint(0, 41, (2, 5), generator=generator), torch.tensor([[2, 1, 2, 1, 1], [2, 1, 1, 0, 0]])
    asked = (depths != NO_DEPTH) & (torch.arange(5) > 0)

    def computed(model):
        probed = model.model(ids, depths=depths, probes=asked).probed
        return probed, probe_gradients(model, probed.states, probed.gate_logits)

    wanted = computed(small(4).train())[1]
    with triton_everywhere():
        model = small(4).train()
        probed, got = computed(model)
        with torch.no_grad():
            states, gates = loop_by_loop(model, ids, depths, asked, KVRule.LAST_EXITED, loops=2)
    assert torch.equal(probed.states, states) and torch.equal(probed.gate_logits, gates)
    assert_near(got, wanted, 1e-4)
