"""Filters, processors, stop strings and gate temperature through engine, batch, replay and reader."""

from dataclasses import replace

import pytest
import torch

from ouro_rl.config.train import RolloutConfig
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import RunError, UserError
from ouro_rl.core.sampling_params import DepthPolicy, ExitRule, SamplingParams, StopStrings, TokenFilters
from ouro_rl.data.sampling import sampling_params
from ouro_rl.model.policy.counter_rng import uniforms
from ouro_rl.model.policy.exit_gate import decision_logprobs, exit_log_pdf, policy_logits
from ouro_rl.model.policy.token_distribution import sample_tokens, token_distribution
from ouro_rl.model.tiny_tokenizer import make_tokenizer
from ouro_rl.training.batch import check_filters, collate, replay_inputs
from ouro_rl.training.token_logprobs import head_reader
from rollout_workers.engine.engine import RolloutEngine
from rollout_workers.engine.scheduling import scheduler
from tests.ouro_rl.model.policy.test_token_distribution import normal_of_chi_square
from tests.references.credits import no_credits
from tests.references.tiny_models import rounding
from tests.rollout_workers.engine.test_engine import VOCAB, calm_model, make_requests
from tests.rollout_workers.engine.test_engine_memory import gib_for, most_pages

FILTERS = {
    "none": TokenFilters(),
    "top-k": TokenFilters(top_k=6),
    "top-p": TokenFilters(top_p=0.8),
    "min-p": TokenFilters(min_p=0.2),
    "top-k top-p": TokenFilters(top_k=12, top_p=0.7),
    "all": TokenFilters(top_k=20, top_p=0.9, min_p=0.05),
}
PIECES = tuple(bytes([97 + i % 26]) * (1 + i // 26) for i in range(VOCAB))
STOP = StopStrings(strings=("ab", "qq"), pieces=PIECES)
PROCESSOR = """
def no_repeats(logits, token_ids):
    for row, ids in enumerate(token_ids):
        logits[row, ids[-2:]] = -float("inf")
        logits[row, len(ids) % logits.shape[1]] += 1.0
    return logits
"""


@pytest.fixture
def processor(tmp_path):
    (tmp_path / "mine.py").write_text(PROCESSOR)
    return (f"{tmp_path}/mine.py:no_repeats",)


def replayed(model, rollouts, params):
    """What the trainer computes: log-probs of tokens and depths, for all completion tokens concatenated."""
    max_loops = model.config.total_ut_steps
    batch = collate(rollouts, no_credits(rollouts, max_loops), pad_token_id=0)
    inputs, mask = replay_inputs(batch, max_loops), batch["completion_mask"].bool()
    with torch.no_grad():
        output = model(
            input_ids=inputs.input_ids,
            depths=inputs.depths,
            owners=inputs.owners,
            logits_to_keep=inputs.predicting,
            use_cache=False,
            read_head=head_reader(batch, params.temperature, params.filters),
        )
    gates = policy_logits(output.gate_logits[:, inputs.predicting], params.depth_policy)
    depth_logprobs = decision_logprobs(gates, batch["depths"][mask]).sum(0)
    return output.reading.logprobs, depth_logprobs, batch["sampler_logprobs"][mask], batch["depth_logprobs"][mask]


@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("temperature, gate_temperature, exploration", [(1.0, 0.5, 0.1), (0.7, 2.5, 0.0)])
def test_worker_and_trainer_agree_on_every_log_prob(filters, temperature, gate_temperature, exploration, processor):
    """Bitwise with the C kernels, within rounding in plain torch."""
    model = calm_model(1, hidden=64)
    exact = model.model.row_ops(torch.float32)[0].tile == 1
    for processors, rows in (((), 3), (processor, 8)):
        params = SamplingParams(
            max_new_tokens=20,
            temperature=temperature,
            filters=replace(filters, logit_processors=processors),
            depth_policy=DepthPolicy(gate_temperature=gate_temperature, exploration=exploration),
            stop_token_ids=(3,),
            stop_strings=STOP,
        )
        rollouts = RolloutEngine(model, EngineConfig(max_batch=rows)).generate(make_requests([1, 9, 33, 5]), params)
        tokens, depths, sampled, sampled_depths = replayed(model, rollouts, params)
        assert tokens.isfinite().all()
        if exact:
            assert torch.equal(tokens, sampled) and torch.equal(depths, sampled_depths)
        assert (tokens - sampled).abs().max() <= rounding(model)
        assert (depths - sampled_depths).abs().max() <= rounding(model)
        check_filters(rollouts, temperature, params.filters)
        for rollout in rollouts:
            wanted = len(rollout.completion_ids) if filters.restrict else 0
            assert len(rollout.support_sizes) == wanted and all(1 <= size <= VOCAB for size in rollout.support_sizes)
            if filters.top_k:
                assert max(rollout.support_sizes) <= filters.top_k
            if processors:
                ids = rollout.prompt_ids + rollout.completion_ids
                assert all(ids[i] not in ids[max(0, i - 2) : i] for i in range(len(rollout.prompt_ids), len(ids)))
    if filters.restrict or temperature != 1:  # the comparison can fail
        other = replace(params, filters=TokenFilters(logit_processors=params.filters.logit_processors), temperature=1.0)
        assert (replayed(model, rollouts, other)[0] - sampled).abs().max() > 0.01
    if gate_temperature != 1:
        other = replace(params, depth_policy=DepthPolicy())
        assert (replayed(model, rollouts, other)[1] - sampled_depths).abs().max() > 0.01


@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
def test_bf16_gaps_are_small_and_never_infinite(filters):
    """Workers in bf16, replay in fp32: differences far beyond rounding, but no recorded token has probability 0."""
    model, rough = calm_model(2, hidden=64), calm_model(2, hidden=64).bfloat16()
    params = SamplingParams(max_new_tokens=24, temperature=0.9, filters=filters)
    rollouts = RolloutEngine(rough, EngineConfig(max_batch=16)).generate(make_requests([3, 9, 14], group=6), params)
    gaps = []
    for policy in (rough, model):
        tokens, _, sampled, _ = replayed(policy, rollouts, params)
        gaps.append((tokens - sampled).abs())
        assert gaps[-1].isfinite().all()
    assert gaps[0].mean() <= 0.01 and gaps[1].mean() <= 0.1


def test_samples_are_batch_invariant_with_all_options(processor, monkeypatch):
    """Alone, in a batch, in another order, and with preemption under a memory limit."""
    monkeypatch.setattr(scheduler, "SPARE_TOKENS", 0)
    model = calm_model(3, hidden=64)
    params = SamplingParams(
        max_new_tokens=40,
        temperature=0.8,
        stop_token_ids=(3,),
        stop_strings=STOP,
        filters=TokenFilters(top_k=15, top_p=0.9, min_p=0.02, logit_processors=processor),
        depth_policy=DepthPolicy(gate_temperature=1.5),
    )
    requests = make_requests([3, 9, 1, 5, 17], group=3)
    together = RolloutEngine(model, EngineConfig(max_batch=64)).generate(requests, params)
    assert {"stop", "length"} == {r.finish_reason for r in together} and any(r.stop_string for r in together)
    tight = RolloutEngine(
        model, EngineConfig(max_batch=8, kv_memory_gib=gib_for(model, most_pages(requests, params, 4)))
    )
    in_parts = tight.generate(requests, params)
    assert tight.stats.preemptions > 0
    backwards = RolloutEngine(model, EngineConfig(max_batch=4)).generate(requests[::-1], params)
    backwards = [r for start in range(len(backwards) - 3, -1, -3) for r in backwards[start : start + 3]]
    alone = [
        RolloutEngine(model, EngineConfig(max_batch=1)).generate([replace(request, seeds=(seed,))], params)[0]
        for request in requests
        for seed in request.seeds
    ]
    for others in (in_parts, backwards, alone):
        for ours, theirs in zip(together, others, strict=True):
            for name in ("completion_ids", "depths", "finish_reason", "stop_string", "support_sizes"):
                assert getattr(ours, name) == getattr(theirs, name), name
            assert ours.token_logprobs == pytest.approx(theirs.token_logprobs, abs=2e-6)


@pytest.mark.parametrize("gate_temperature", [0.5, 3.0])
@pytest.mark.parametrize("filters", [FILTERS["top-p"], FILTERS["all"]], ids=["top-p", "all"])
def test_tokens_and_depths_follow_the_filtered_policy(filters, gate_temperature):
    """4,000 samples of one position: depths against the tempered gate, tokens against sum_d p(d) pi(y | h^d)."""
    model = calm_model(4)
    (request,) = make_requests([6], group=4000)
    params = SamplingParams(
        max_new_tokens=1, temperature=1.5, filters=filters, depth_policy=DepthPolicy(gate_temperature=gate_temperature)
    )
    rollouts = RolloutEngine(model, EngineConfig(max_batch=512)).generate([request], params)
    with torch.no_grad():
        output = model(torch.tensor([request.prompt.token_ids]))
        depth_probs = exit_log_pdf(policy_logits(output.gate_logits[:, 0, -1], params.depth_policy)).exp()
        logits = model.lm_head(torch.stack([state[0, -1] for state in output.loop_states]))
        token_probs = depth_probs @ token_distribution(logits, 1.5, filters)[0].exp()
    depths, tokens = (torch.tensor([getattr(r, name)[0] for r in rollouts]) for name in ("depths", "completion_ids"))
    for values, probs in ((depths - 1, depth_probs), (tokens, token_probs)):
        counts = values.bincount(minlength=len(probs)).double()
        assert not counts[probs == 0].any()
        assert normal_of_chi_square(counts, probs.double()) < 3.3


def test_greedy_ignores_filters_and_obeys_processors(processor):
    model, requests = calm_model(5), make_requests([6, 3], group=1)
    params = SamplingParams(max_new_tokens=12, temperature=0.0, exit_rule=ExitRule(kind="fixed", value=4))
    plain = RolloutEngine(model, EngineConfig(max_batch=2)).generate(requests, params)
    filtered = RolloutEngine(model, EngineConfig(max_batch=2)).generate(
        requests, replace(params, filters=FILTERS["all"])
    )
    assert [r.completion_ids for r in plain] == [r.completion_ids for r in filtered]
    obeying = replace(params, filters=TokenFilters(logit_processors=processor))
    for rollout in RolloutEngine(model, EngineConfig(max_batch=2)).generate(requests, obeying):
        ids = rollout.completion_ids
        assert all(a != b for a, b in zip(ids, ids[1:], strict=False))


def test_rollouts_of_another_policy_are_refused():
    model, params = calm_model(6), SamplingParams(max_new_tokens=2, filters=TokenFilters(top_k=3))
    rollouts = RolloutEngine(model, EngineConfig(max_batch=2)).generate(make_requests([4]), params)
    with pytest.raises(RunError, match="take both from one config"):
        check_filters(rollouts, 1.0, TokenFilters())
    with pytest.raises(RunError, match="take both from one config"):
        check_filters(rollouts, 0.9, params.filters)


def test_the_gate_temperature_changes_depths_but_not_their_order():
    gates = torch.tensor([2.0, -1.0, 0.5]).view(3, 1)
    sharp, flat = (
        exit_log_pdf(policy_logits(gates, DepthPolicy(gate_temperature=t))).exp().squeeze(1) for t in (0.1, 100.0)
    )
    assert sharp[0] > 0.999 and flat.tolist() == pytest.approx([0.5, 0.25, 0.25], abs=0.01)
    assert torch.equal(policy_logits(gates, DepthPolicy()), gates)


def test_draws_are_batch_invariant():
    """Sampling alone: row by row and as a batch, in fp64, with a large vocabulary."""
    logits = torch.randn(33, 20_000, generator=torch.Generator().manual_seed(0)) * 3
    numbers = uniforms(torch.arange(33), torch.arange(33), 0)
    for filters in FILTERS.values():
        log_probs, _ = token_distribution(logits, 1.0, filters)
        together = sample_tokens(log_probs, numbers)
        for row in range(0, 33, 8):
            alone, _ = token_distribution(logits[row : row + 1], 1.0, filters)
            assert sample_tokens(alone, numbers[row : row + 1]).item() == together[row].item()


def test_sampling_params_come_from_the_config():
    tokenizer = make_tokenizer()
    rollout = RolloutConfig(
        temperature=0.5,
        top_k=3,
        top_p=0.5,
        min_p=0.1,
        stop_token_ids=(7, 2),
        stop_strings=("\n\n",),
        gate_temperature=2.0,
    )
    params = sampling_params(rollout, tokenizer)
    assert params.filters == TokenFilters(top_k=3, top_p=0.5, min_p=0.1) and params.temperature == 0.5
    assert params.stop_token_ids == (0, 2, 7) and params.stop_strings.strings == ("\n\n",)
    assert params.depth_policy.gate_temperature == 2.0 and len(params.stop_strings.pieces) == len(tokenizer)
    with pytest.raises(UserError, match="rollout.stop_token_ids: 5000 is not a token id, the tokenizer has"):
        sampling_params(RolloutConfig(stop_token_ids=(5000,)), tokenizer)
