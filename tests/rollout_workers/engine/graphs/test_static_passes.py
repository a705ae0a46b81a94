"""Static passes, on the CPU: the same rollouts as with dynamic passes, without synchronizing with the device.
tests/gpu/test_gpu.py captures them."""

from dataclasses import fields, replace

import pytest
import torch

from ouro_rl.bench.rollout import Lockstep
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.sampling_params import (
    DepthPolicy,
    EarlyStop,
    ExitRule,
    SamplingParams,
    StopStrings,
    ThinkingBudget,
    TokenFilters,
)
from ouro_rl.kernels.cpu import select as cpu_kernels
from rollout_workers.engine.engine import RolloutEngine
from rollout_workers.engine.graphs import static_passes
from rollout_workers.engine.graphs.static_passes import StaticPasses
from rollout_workers.engine.scheduling import scheduler
from rollout_workers.weight_sync import load_state
from tests.references.cuda_graph_stand_ins import FullRowAttention, PlainKernels, RecordedPass, move_to_meta
from tests.references.tiny_models import FP32_UNIT, batch_tolerance
from tests.rollout_workers.engine.test_engine import VOCAB, calm_model, make_requests
from tests.rollout_workers.engine.test_engine_memory import gib_for, most_pages

STOP = StopStrings(strings=("ab", "c"), pieces=tuple(bytes([97 + token % 26]) for token in range(VOCAB)))
FLOATS = ("token_logprobs", "depth_logprobs")
LOGARITHMS = 3 * 16 * FP32_UNIT
"""Three prompts, each shorter than 16 tokens."""
ASKED = [
    SamplingParams(max_new_tokens=17, stop_token_ids=(3, 7)),
    SamplingParams(max_new_tokens=9, depth_policy=DepthPolicy(kv_rule=KVRule.FULL), stop_token_ids=(5,)),
    SamplingParams(max_new_tokens=14, depth_policy=DepthPolicy(kv_rule=KVRule.SKIP, gate_temperature=1.5)),
    SamplingParams(max_new_tokens=12, exit_rule=ExitRule(kind="threshold", value=0.6), temperature=0.0),
    SamplingParams(max_new_tokens=12, exit_rule=ExitRule(kind="fixed", value=2), temperature=0.8),
    SamplingParams(max_new_tokens=12, filters=TokenFilters(top_k=5, min_p=0.1), stop_strings=STOP, temperature=1.3),
    SamplingParams(max_new_tokens=12, depth_policy=DepthPolicy(min_depth=2, max_depth=6), stop_token_ids=(1, 2)),
    SamplingParams(max_new_tokens=12, thinking_budget=ThinkingBudget(tokens=5, closing_ids=(4, 9), end=STOP)),
]


def assert_equal(got, expected, model):
    """Every field of every rollout; log-probs within the rounding of the other code path, and of a few logarithms that
    are summed in another order."""
    tolerance = max(batch_tolerance(model), LOGARITHMS)
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        for field in fields(theirs):
            mine, other = getattr(ours, field.name), getattr(theirs, field.name)
            assert mine == (pytest.approx(other, abs=tolerance) if field.name in FLOATS else other), field.name


@pytest.fixture
def checked(monkeypatch):
    """Check the cache's integrity, null page included, between any two runs of static passes. Returns the number of
    passes in each run."""
    runs, original = [], StaticPasses.run

    def run(self, live):
        report = original(self, live)
        self.cache.check_integrity()
        runs.append(report[0])
        return report

    monkeypatch.setattr(StaticPasses, "run", run)
    return runs


@pytest.mark.parametrize("params", ASKED, ids=range(len(ASKED)))
def test_static_and_dynamic_passes_give_the_same_rollouts(params, compute, checked):
    """Ragged prompts, groups, early ends, more samples than slots, chunked prefill; twice, with the same tensors."""
    model = calm_model(7, kv_heads=2)
    requests = make_requests([1, 9, 33, 2, 40, 5])
    expected = RolloutEngine(model, EngineConfig(max_batch=11, prefill_rows=30)).generate(requests, params)
    engine = RolloutEngine(model, EngineConfig(max_batch=11, prefill_rows=30, static_passes=True))
    for _ in range(2):
        assert_equal(engine.generate(requests, params), expected, model)
        engine.cache.check_integrity()
        assert engine.cache.owned == 0
    assert len(checked) > 4 and engine.stats.finished == 36
    assert engine.stats.tokens == 2 * sum(len(rollout.completion_ids) for rollout in expected)
    if not params.depth_policy.kv_rule.runs_all_loops:  # the passes of samples that have ended are not counted
        assert engine.stats.rows == 2 * sum(sum(rollout.depths) for rollout in expected)


@pytest.mark.parametrize("look_every", [1, 3, 50])
def test_rollouts_do_not_depend_on_when_the_host_checks(look_every, monkeypatch, checked):
    monkeypatch.setattr(static_passes, "LOOK_EVERY", look_every)
    model, requests = calm_model(8), make_requests([4, 20, 7], group=4)
    params = SamplingParams(max_new_tokens=10, stop_token_ids=(3, 7))
    expected = RolloutEngine(model, EngineConfig(max_batch=3)).generate(requests, params)
    assert_equal(
        RolloutEngine(model, EngineConfig(max_batch=3, static_passes=True)).generate(requests, params), expected, model
    )
    assert max(checked) == look_every


@pytest.mark.parametrize("rule", KVRule)
def test_under_a_memory_limit(rule, monkeypatch, checked):
    """With room for one or two samples: shorter runs, preemptions, and the same rollouts."""
    monkeypatch.setattr(scheduler, "SPARE_TOKENS", 0)
    model, requests = calm_model(9), make_requests([3, 17, 30, 1], group=2)
    params = SamplingParams(max_new_tokens=12, stop_token_ids=(3,), depth_policy=DepthPolicy(kv_rule=rule))
    expected = RolloutEngine(model, EngineConfig(max_batch=6)).generate(requests, params)
    needed = most_pages(requests, params, loops=4)
    engine = RolloutEngine(
        model, EngineConfig(max_batch=6, kv_memory_gib=gib_for(model, needed + 1), static_passes=True)
    )
    assert_equal(engine.generate(requests, params), expected, model)
    engine.cache.check_integrity()
    assert engine.stats.preemptions and engine.stats.peak_pages <= needed + 1 and engine.cache.owned == 0
    assert min(checked) < static_passes.LOOK_EVERY
    tight = RolloutEngine(model, EngineConfig(max_batch=6, kv_memory_gib=gib_for(model, needed), static_passes=True))
    with pytest.raises(UserError, match="kv_memory_gib"):  # one page is the idle slot's
        tight.generate(requests, params)


def test_pools_grow_under_samples_that_decode(checked):
    """Before a run of passes, the host allocates the pages of all of them."""
    model, requests = calm_model(17, layers=1), make_requests([2, 3], group=10)
    params = SamplingParams(max_new_tokens=50, exit_rule=ExitRule(kind="fixed", value=4))
    expected = RolloutEngine(model, EngineConfig(max_batch=20)).generate(requests, params)
    engine = RolloutEngine(model, EngineConfig(max_batch=20, static_passes=True))
    assert_equal(engine.generate(requests, params), expected, model)
    assert engine.cache.pages == 4096 and engine.stats.peak_pages > 2048


def test_samples_are_cancelled_between_two_host_checks(checked):
    """A cancelled sample keeps its tokens so far, a prefix of the full completion; the others do not change."""
    model, requests = calm_model(16), make_requests([4, 20, 7], group=2)
    params = SamplingParams(max_new_tokens=20)
    expected = RolloutEngine(model, EngineConfig(max_batch=4)).generate(requests, params)
    engine = RolloutEngine(model, EngineConfig(max_batch=4, static_passes=True))
    with engine.start(requests, params) as call:
        while len(checked) < 2:
            call.advance()
        call.cancel([1, 2])
        rollouts = call.run()
    engine.cache.check_integrity()
    cut = [ours.finish_reason == "cancelled" for ours in rollouts]
    assert sum(cut) == 2 and engine.cache.owned == 0
    for ours, theirs, cancelled in zip(rollouts, expected, cut, strict=True):
        length = len(ours.completion_ids)
        assert (0 < length < 20) == cancelled
        assert ours.completion_ids == theirs.completion_ids[:length] and ours.depths == theirs.depths[:length]


def with_stand_ins(model, max_batch, *, static=True):
    """An engine whose static passes are recorded and repeated; with `static=False` a dynamic one with the same
    attention."""
    engine = RolloutEngine(model, EngineConfig(max_batch=max_batch, static_passes=static))
    engine.forward.attention = FullRowAttention(engine.cache)
    engine.static.wrap = RecordedPass
    return engine


@pytest.mark.parametrize("params", ASKED, ids=range(len(ASKED)))
@pytest.mark.usefixtures("plain_torch")
def test_a_replayed_pass_equals_a_pass(params, monkeypatch):
    """Nothing that Python reads during the capture may matter later: not rows, lengths, or pages."""
    monkeypatch.setattr(RecordedPass, "replays", 0)
    model, requests = calm_model(10, kv_heads=2), make_requests([1, 9, 33, 2, 5])
    expected = with_stand_ins(model, 20, static=False).generate(requests, params)
    assert_equal(with_stand_ins(model, 20).generate(requests, params), expected, model)
    assert RecordedPass.replays > 10


@pytest.mark.usefixtures("plain_torch")
def test_a_pass_that_reads_values_is_detected():
    """The stand-in for graphs can fail: attention planned from the lengths replays stale lengths."""
    model, requests = calm_model(10), make_requests([20, 28])
    params = SamplingParams(max_new_tokens=17)
    expected = RolloutEngine(model, EngineConfig(max_batch=20)).generate(requests, params)
    engine = RolloutEngine(model, EngineConfig(max_batch=20, static_passes=True))
    engine.static.wrap = RecordedPass
    assert [r.token_logprobs for r in engine.generate(requests, params)] != [r.token_logprobs for r in expected]


@pytest.mark.usefixtures("plain_torch")
def test_graphs_are_kept_while_their_tensors_stay(monkeypatch):
    monkeypatch.setattr(RecordedPass, "made", 0)
    model, requests = calm_model(11), make_requests([4, 20, 7], group=2)
    params = SamplingParams(max_new_tokens=10)
    engine = with_stand_ins(model, 6)

    def graphs_for(requests):
        before = RecordedPass.made
        got = engine.generate(requests, params)
        assert_equal(got, with_stand_ins(model, 6, static=False).generate(requests, params), model)
        return RecordedPass.made - before

    assert graphs_for(requests) == 1
    assert graphs_for(requests) == 0
    load_state(model, {name: 0.9 * tensor for name, tensor in model.state_dict().items()})
    assert graphs_for(requests) == 0, "weights are overwritten where they lie"
    engine.generate(requests, replace(params, max_new_tokens=5))
    assert graphs_for(requests) == 0, "an evaluation in between takes nothing away"
    assert graphs_for(make_requests([90], group=2)) == 1, "a wider table is another one"
    assert graphs_for(make_requests([200, 201, 202], group=2)) >= 1, "so are larger pools"
    for layer in model.model.layers:
        layer.mlp.down_proj.weight = torch.nn.Parameter(layer.mlp.down_proj.weight.detach().clone())
    assert graphs_for(requests) == 1, "so are other weights"


@pytest.mark.usefixtures("plain_torch")
def test_graphs_see_new_weights_through_copies(monkeypatch):
    """Matrices that are read together are copied into one tensor, which a graph reads. The copy is updated in place
    before a replay; a graph whose copy was freed is dropped."""
    monkeypatch.setattr(RecordedPass, "made", 0)
    monkeypatch.setattr(RecordedPass, "replays", 0)
    monkeypatch.setattr(cpu_kernels, "choose", lambda *_, **__: (PlainKernels(), "plain"))
    model, requests = calm_model(18), make_requests([4, 20, 7], group=2)
    params = SamplingParams(max_new_tokens=10)
    engine = with_stand_ins(model, 6)

    def graphs_for_the_same(engine):
        before, replays = RecordedPass.made, RecordedPass.replays
        got = engine.generate(requests, params)
        assert RecordedPass.replays > replays
        assert_equal(got, with_stand_ins(model, 6, static=False).generate(requests, params), model)
        return RecordedPass.made - before

    assert graphs_for_the_same(engine) == 1
    copies = engine.forward.ops.refresh()
    assert len(copies) == 4  # of 2 layers: q, k, v; gate, up
    for scale in (0.9, 1.2):
        load_state(model, {name: scale * tensor for name, tensor in model.state_dict().items()})
        assert graphs_for_the_same(engine) == 0, "weights and their copies are overwritten where they lie"
    assert all(a is b for a, b in zip(copies, engine.forward.ops.refresh(), strict=True))
    for other in (engine, with_stand_ins(model, 6)):  # one that has had many calls, and one that has had one
        other.generate(requests, params)
        for layer in model.model.layers:  # another parameter in the same memory: its copy is another one
            layer.mlp.up_proj.weight = torch.nn.Parameter(layer.mlp.up_proj.weight.data)
        load_state(model, {name: 0.8 * tensor for name, tensor in model.state_dict().items()})
        assert graphs_for_the_same(other) == 1


@pytest.mark.usefixtures("plain_torch")
def test_a_static_pass_never_synchronizes_with_the_host():
    """On meta tensors: reading a value, a shape that depends on one, or a tensor made on the host would raise."""
    for params in ASKED:
        model = calm_model(12)
        engine = with_stand_ins(model, 9)
        engine.static.wrap = lambda run_pass: run_pass
        engine.generate(make_requests([3]), params)
        (static,), slots = engine.static.known.values(), torch.full((8,), 9, device="meta")
        model.to("meta")
        for thing in (engine.cache, engine.forward, static, static.sampler, static.sampler.token_draw):
            move_to_meta(thing)
        static.sampler.model.model._row_ops.clear()
        thinking = static.sampler.token_draw.thinking
        for thing in (static.sampler.token_draw.matcher, thinking, thinking and thinking.matcher):
            if thing is not None:
                move_to_meta(thing)
        static._pass(slots)
        with pytest.raises(Exception, match="meta"):
            static.sampler.step(slots, torch.zeros(8, 32, device="meta"))  # the dynamic step does read values


def test_calls_that_need_the_host_say_so_and_run_dynamic_passes():
    model, requests = calm_model(13), make_requests([4, 6])
    asked = [
        (SamplingParams(max_new_tokens=6, filters=TokenFilters(top_p=0.9)), "top_p"),
        (SamplingParams(max_new_tokens=6, early_stop=EarlyStop(repeat_window=4)), "early_stop"),
    ]
    for params, why in asked:
        engine = RolloutEngine(model, EngineConfig(max_batch=6, static_passes=True))
        with pytest.warns(UserWarning, match=f"dynamic passes.*{why}"):
            rollouts = engine.generate(requests, params)
        assert not engine.static.known
        assert_equal(rollouts, RolloutEngine(model, EngineConfig(max_batch=6)).generate(requests, params), model)


def test_which_engines_run_static_passes():
    model = calm_model(14)
    assert (
        "static" not in RolloutEngine(model, EngineConfig(max_batch=2)).description
    )  # on the CPU they would only cost
    assert (
        "static-shape passes without CUDA graphs"
        in RolloutEngine(model, EngineConfig(max_batch=2, static_passes=True)).description
    )
    assert not RolloutEngine(model, EngineConfig(max_batch=2, static_passes=True), policy=Lockstep()).static.wanted


def test_an_exception_leaves_nothing_behind(monkeypatch):
    model, requests = calm_model(15), make_requests([4, 6])
    params = SamplingParams(max_new_tokens=6)
    engine = RolloutEngine(model, EngineConfig(max_batch=6, static_passes=True))

    def fails(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StaticPasses, "_take_pages", fails)
        engine.generate(requests, params)
    assert not engine.static.known and engine.cache.owned == 0
    assert_equal(
        engine.generate(requests, params),
        RolloutEngine(model, EngineConfig(max_batch=6)).generate(requests, params),
        model,
    )
