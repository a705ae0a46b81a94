"""KV rules and depth bounds in the engine: against the slow sequential computation, the trainer's replay, and the
published code's semantics."""

import pytest
import torch

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import RunError, UserError
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.sampling_params import DepthPolicy, ExitRule, SamplingParams
from ouro_rl.model.policy.exit_gate import decision_logprobs
from ouro_rl.training.batch import check_depth_policies, collate, replay_inputs
from rollout_workers.engine.engine import RolloutEngine
from tests.references.credits import no_credits
from tests.references.exit_distribution import threshold_depths
from tests.references.sequential import sequential_rollouts
from tests.references.tiny_models import batch_tolerance, rounding
from tests.rollout_workers.engine.test_engine import assert_same, calm_model, make_requests

RULES = list(KVRule)


def replay_gap(model, rollouts, policy):
    """Largest difference between recorded and replayed log-probs, on the trainer's code path."""
    max_loops = policy.max_loops(model.config.total_ut_steps)
    batch = collate(rollouts, no_credits(rollouts, max_loops), pad_token_id=0)
    inputs, mask = replay_inputs(batch, max_loops), batch["completion_mask"].bool()
    with torch.no_grad():
        output = model(
            input_ids=inputs.input_ids, depths=inputs.depths, owners=inputs.owners, logits_to_keep=inputs.predicting,
            num_loops=max_loops, kv_rule=policy.kv_rule,
        )  # fmt: skip
    log_probs = (output.logits.float() / rollouts[0].temperature).log_softmax(-1)
    tokens = log_probs.gather(1, batch["completion_ids"][mask].unsqueeze(1)).squeeze(1)
    gates = output.gate_logits[:, inputs.predicting]
    depths = decision_logprobs(gates, batch["depths"][mask], policy.min_depth).sum(0)
    gaps = [tokens - batch["sampler_logprobs"][mask], depths - batch["depth_logprobs"][mask]]
    return max(gap.abs().max().item() for gap in gaps)


SHAPES = [
    # loops, layers, heads, kv heads, hidden (heads of 32 are attended by the kernel, where there is one)
    (4, 2, 4, 2, 32),
    (6, 1, 2, 1, 64),
    (3, 3, 2, 2, 64),
    (2, 1, 4, 4, 32),
    (1, 2, 2, 2, 32),
]
THRESHOLD = ExitRule(kind="threshold", value=0.6)
CASES = [(shape, ExitRule(), rule) for shape in SHAPES for rule in RULES] + [
    (SHAPES[0], THRESHOLD, rule) for rule in RULES
]


@pytest.mark.parametrize(("shape", "exit_rule", "rule"), CASES, ids=str)
def test_engine_sequential_computation_and_replay_agree(shape, exit_rule, rule):
    loops, layers, heads, kv_heads, hidden = shape
    model = calm_model(sum(shape), loops=loops, layers=layers, heads=heads, kv_heads=kv_heads, hidden=hidden)
    policy = DepthPolicy(kv_rule=rule)
    params = SamplingParams(
        max_new_tokens=7, temperature=0.8, exit_rule=exit_rule, stop_token_ids=(1, 2), depth_policy=policy
    )
    requests = make_requests([6, 1, 9], group=2, seed=loops)
    engine = RolloutEngine(model, EngineConfig(max_batch=5))
    rollouts = engine.generate(requests, params)
    engine.cache.check_integrity()
    assert engine.cache.owned == 0
    assert_same(rollouts, sequential_rollouts(model, requests, params), rounding(model))
    assert {rollout.depth_policy for rollout in rollouts} == {policy}
    assert replay_gap(model, rollouts, policy) <= rounding(model)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bounds", [(2, None), (1, 2), (2, 3), (1, 6), (3, 7), (4, None), (1, 1)], ids=str)
def test_depth_bounds_and_more_loops_than_were_trained(bounds, rule):
    model = calm_model(3)
    policy = DepthPolicy(kv_rule=rule, min_depth=bounds[0], max_depth=bounds[1])
    params = SamplingParams(max_new_tokens=8, depth_policy=policy)
    requests = make_requests([5, 1], group=2, seed=2)
    rollouts = RolloutEngine(model, EngineConfig(max_batch=4)).generate(requests, params)
    depths = {depth for rollout in rollouts for depth in rollout.depths}
    assert (min(depths), max(depths)) == (bounds[0], policy.max_loops(4))
    assert_same(rollouts, sequential_rollouts(model, requests, params), rounding(model))
    assert replay_gap(model, rollouts, policy) <= rounding(model)
    if len(depths) == 1:  # everything is forced
        assert {logprob for rollout in rollouts for logprob in rollout.depth_logprobs} == {0.0}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("heads", [2, 4])
def test_replay_in_bf16(rule, heads):
    model = calm_model(4, heads=heads, kv_heads=2).bfloat16()
    policy = DepthPolicy(kv_rule=rule)
    params = SamplingParams(max_new_tokens=16, depth_policy=policy)
    rollouts = RolloutEngine(model, EngineConfig(max_batch=16)).generate(make_requests([5, 1, 12, 40]), params)
    assert replay_gap(model, rollouts, policy) <= 0.1


def test_one_engine_changes_rules_and_loops_from_call_to_call():
    model, requests = calm_model(5), make_requests([5, 9])
    engine = RolloutEngine(model, EngineConfig(max_batch=4))
    for policy in (
        DepthPolicy(kv_rule=KVRule.SKIP), DepthPolicy(), DepthPolicy(max_depth=6),
        DepthPolicy(kv_rule=KVRule.FULL, max_depth=2),
        DepthPolicy(kv_rule=KVRule.SKIP),
    ):  # fmt: skip
        params = SamplingParams(max_new_tokens=6, depth_policy=policy)
        assert_same(
            engine.generate(requests, params),
            RolloutEngine(model, EngineConfig(max_batch=4)).generate(requests, params),
            batch_tolerance(model),
        )
        engine.cache.check_integrity()


@pytest.mark.parametrize("depth", [1, 4, 6])
def test_at_a_fixed_depth_all_rules_equal_a_model_with_that_many_loops(depth):
    """Greedy decoding, against transformers' generate() on a model with this number of loops."""
    model, requests = calm_model(5), make_requests([7, 3, 12, 1], group=1)
    outcomes = []
    for rule in RULES:
        params = SamplingParams(
            max_new_tokens=12, temperature=0.0, exit_rule=ExitRule(kind="fixed", value=depth),
            depth_policy=DepthPolicy(kv_rule=rule, max_depth=max(4, depth)),
        )  # fmt: skip
        rollouts = RolloutEngine(model, EngineConfig(max_batch=3)).generate(requests, params)
        outcomes.append([list(rollout.completion_ids) for rollout in rollouts])
        assert {d for rollout in rollouts for d in rollout.depths} == {depth}
    model.config.total_ut_steps = depth
    assert outcomes == [generate(model, requests, 12)] * len(RULES)


def generate(model, requests, new_tokens):
    """Greedy completions by transformers, from left-padded prompts."""
    longest = max(len(request.prompt.token_ids) for request in requests)
    rows = [[0] * (longest - len(request.prompt.token_ids)) + list(request.prompt.token_ids) for request in requests]
    mask = [
        [0] * (longest - len(request.prompt.token_ids)) + [1] * len(request.prompt.token_ids) for request in requests
    ]
    tokens = model.generate(
        torch.tensor(rows), attention_mask=torch.tensor(mask), max_new_tokens=new_tokens, do_sample=False,
        eos_token_id=-1,
        pad_token_id=0,
    )  # fmt: skip
    return tokens[:, longest:].tolist()


@pytest.mark.parametrize("threshold", [0.4, 0.7])
def test_the_full_rule_is_the_published_early_exit(threshold):
    """That code runs all loops for every token and picks the state of the first loop whose CDF reaches the threshold:
    greedy decoding by one plain forward for each token."""
    model, (request,) = calm_model(6), make_requests([6], group=1)
    params = SamplingParams(
        max_new_tokens=10, temperature=0.0, exit_rule=ExitRule(kind="threshold", value=threshold),
        depth_policy=DepthPolicy(kv_rule=KVRule.FULL),
    )  # fmt: skip
    engine = RolloutEngine(model, EngineConfig(max_batch=2))
    (rollout,) = engine.generate([request], params)
    tokens, depths = list(request.prompt.token_ids), []
    with torch.no_grad():
        for _ in range(10):
            output = model.model(torch.tensor([tokens]), use_cache=False)
            depths.append(int(threshold_depths(output.gate_logits[:, 0, -1:], threshold)))
            tokens.append(int(model.lm_head(output.loop_states[depths[-1] - 1][0, -1]).argmax()))
    assert list(rollout.completion_ids) == tokens[6:] and list(rollout.depths) == depths
    assert len(set(depths)) > 1 and engine.stats.rows == 10 * 4  # and it saves nothing


def test_early_exits_save_loops_and_skipping_saves_reads_too():
    model, requests = calm_model(8), make_requests([4, 4], group=6)
    for rule in (KVRule.LAST_EXITED, KVRule.SKIP):
        engine = RolloutEngine(model, EngineConfig(max_batch=16))
        rollouts = engine.generate(requests, SamplingParams(max_new_tokens=12, depth_policy=DepthPolicy(kv_rule=rule)))
        assert engine.stats.rows == sum(sum(rollout.depths) for rollout in rollouts) < 12 * 12 * 4


def test_rollouts_of_another_policy_are_refused():
    model, requests = calm_model(1), make_requests([3], group=2)
    rollouts = RolloutEngine(model, EngineConfig(max_batch=2)).generate(requests, SamplingParams(max_new_tokens=2))
    check_depth_policies(rollouts, DepthPolicy())
    for other in (DepthPolicy(kv_rule=KVRule.SKIP), DepthPolicy(min_depth=2), DepthPolicy(max_depth=4)):
        with pytest.raises(RunError, match="sampled under .*last_exited.*\n.* trainer replays"):
            check_depth_policies(rollouts, other)


def test_a_fixed_depth_beyond_the_bounds_is_refused():
    engine = RolloutEngine(calm_model(1), EngineConfig(max_batch=2))
    params = SamplingParams(max_new_tokens=2, exit_rule=ExitRule(kind="fixed", value=5))
    with pytest.raises(UserError, match="`fixed 5` .* max_depth 4 .* set max_depth"):
        engine.generate(make_requests([3]), params)


def test_a_simulated_exit_records_depths_that_did_not_make_the_tokens():
    """The tokens are those of full depth; depths are sampled from the gate at the same states."""
    model, requests = calm_model(3), make_requests([6, 1, 9], group=2)
    full = DepthPolicy(kv_rule=KVRule.FULL)

    def run(rule):
        params = SamplingParams(max_new_tokens=10, exit_rule=rule, depth_policy=full)
        return RolloutEngine(model, EngineConfig(max_batch=4)).generate(requests, params)

    simulated, deep = run(ExitRule(kind="simulated")), run(ExitRule(kind="fixed", value=4))
    assert [r.completion_ids for r in simulated] == [r.completion_ids for r in deep]
    assert [r.token_logprobs for r in simulated] == [r.token_logprobs for r in deep]
    assert {depth for r in simulated for depth in r.depths} == {1, 2, 3, 4}
    firsts = [(r.depths[0], r.depth_logprobs[0]) for r in simulated]
    assert firsts == [(r.depths[0], r.depth_logprobs[0]) for r in run(ExitRule())], "as sampled depths are"
