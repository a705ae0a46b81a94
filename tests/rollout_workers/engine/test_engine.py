"""The rollout engine against the sequential sampler, the parallel replay, `generate()`, and expected distributions."""

import random
from dataclasses import replace
from itertools import product

import pytest
import torch

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.rollout import Prompt, RolloutRequest
from ouro_rl.core.sampling_params import NO_DEPTH, ExitRule, SamplingParams
from ouro_rl.model.policy.exit_gate import exit_log_pdf
from ouro_rl.model.policy.token_distribution import chosen_logprobs, token_distribution
from rollout_workers.engine.engine import RolloutEngine
from tests.references.exit_distribution import depth_logprobs
from tests.references.sequential import sequential_rollouts
from tests.references.tiny_models import batch_tolerance, random_model, rounding

VOCAB = 41
RULES = [
    ExitRule(),
    ExitRule(kind="threshold", value=0.6),
    ExitRule(kind="fixed", value=2),
    ExitRule(kind="iid", probabilities=(0.5, 0.3, 0.2)),
    ExitRule(kind="confidence", value=0.07),
    ExitRule(kind="entropy", value=3.555),
    ExitRule(kind="kl", value=0.07),
]


def within(rule, loops):
    """The rule for a model with this many loops: a larger fixed depth is an error."""
    return replace(rule, value=min(rule.value, loops)) if rule.kind == "fixed" else rule


def calm_model(seed=0, **shape):
    """A random model with soft attention and logits, so that fp32 rounding is not amplified beyond what is tested."""
    model = random_model(seed, gate_scale=3.0, **shape)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "embed" not in name:
                weight.mul_(0.5)
    return model


def make_requests(lengths, group=3, seed=0, vocab=VOCAB):
    """One group for each prompt length."""
    rng = random.Random(seed)
    return [
        RolloutRequest(
            prompt=Prompt(index=i, token_ids=tuple(rng.randrange(vocab) for _ in range(length))),
            seeds=tuple(rng.getrandbits(63) for _ in range(group)),
        )
        for i, length in enumerate(lengths)
    ]


EXACT = (
    "prompt_index", "sample_index", "prompt_ids", "completion_ids", "depths", "forced", "finish_reason", "temperature",
    "fixed_depth",
)  # fmt: skip


def assert_same(got, expected, tolerance):
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        for name in EXACT:
            assert getattr(ours, name) == getattr(theirs, name), name
        assert ours.token_logprobs == pytest.approx(theirs.token_logprobs, abs=tolerance)
        assert ours.depth_logprobs == pytest.approx(theirs.depth_logprobs, abs=tolerance)
        assert list(ours.exit_shares) == pytest.approx(
            list(theirs.exit_shares), abs=1
        )  # where one rounds the other way


def largest_replay_gap(model, rollouts):
    """Largest difference between recorded and replayed log-probs, all rollouts in one right-padded batch."""
    length = max(len(r.prompt_ids) + len(r.completion_ids) for r in rollouts)
    ids = torch.zeros(len(rollouts), length, dtype=torch.long)
    depths = torch.full_like(ids, NO_DEPTH)
    for row, r in enumerate(rollouts):
        tokens, first = r.prompt_ids + r.completion_ids, len(r.prompt_ids) - 1
        ids[row, : len(tokens)] = torch.tensor(tokens)
        depths[row, :first] = model.config.total_ut_steps
        depths[row, first : first + len(r.depths)] = torch.tensor(r.depths)
    with torch.no_grad():
        output = model(input_ids=ids, depths=depths)
    gap = 0.0
    for row, r in enumerate(rollouts):
        where = slice(len(r.prompt_ids) - 1, len(r.prompt_ids) - 1 + len(r.depths))
        log_probs, _ = token_distribution(output.logits[row, where], r.temperature)
        tokens = chosen_logprobs(log_probs, torch.tensor(r.completion_ids))
        gates = depth_logprobs(output.gate_logits[:, row, where], torch.tensor(r.depths))
        gap = max(gap, (tokens - torch.tensor(r.token_logprobs)).abs().max().item())
        gap = max(gap, (gates - torch.tensor(r.depth_logprobs)).abs().max().item())
    return gap


@pytest.mark.parametrize(
    "loops, layers, kv_heads, hidden", [(4, 2, 4, 32), (6, 1, 2, 64), (3, 3, 1, 128), (1, 2, 2, 64)]
)
@pytest.mark.parametrize("rule", RULES, ids=ExitRule.label)
def test_replay_reproduces_every_logprob(loops, layers, kv_heads, hidden, rule, compute):
    """The project depends on this property."""
    model = calm_model(loops, loops=loops, layers=layers, kv_heads=kv_heads, hidden=hidden)
    engine = RolloutEngine(model, EngineConfig(max_batch=8))
    params = SamplingParams(max_new_tokens=24, exit_rule=within(rule, loops), temperature=0.8, stop_token_ids=(3,))
    rollouts = engine.generate(make_requests([1, 2, 9, 33, 40, 5]), params)
    if rule.kind == "sample" and loops > 1:
        assert {depth for rollout in rollouts for depth in rollout.depths} == set(range(1, loops + 1))
    assert largest_replay_gap(model, rollouts) <= rounding(model)


CASES = [
    # loops, layers, heads, kv heads, max batch, temperature
    (4, 2, 4, 4, 64, 1.0),
    (4, 2, 4, 2, 3, 0.7),
    (6, 1, 2, 1, 5, 1.0),
    (3, 3, 6, 3, 1, 0.0),
    (2, 2, 2, 2, 7, 1.3),
    (1, 1, 4, 4, 4, 1.0),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=ExitRule.label)
def test_agrees_with_the_sequential_sampler(case, rule):
    loops, layers, heads, kv_heads, max_batch, temperature = case
    hidden = 48 if heads == 6 else 32
    shape = {"layers": layers, "heads": heads, "kv_heads": kv_heads, "loops": loops, "hidden": hidden}
    model = calm_model(sum(case[:4]), **shape)
    params = SamplingParams(
        max_new_tokens=7, temperature=temperature, exit_rule=within(rule, loops), stop_token_ids=(1, 2, 3)
    )
    requests = make_requests([6, 1, 11, 2], group=2, seed=loops)
    engine = RolloutEngine(model, EngineConfig(max_batch=max_batch))
    rollouts = engine.generate(requests, params)
    assert_same(rollouts, sequential_rollouts(model, requests, params), rounding(model))
    engine.cache.check_integrity()
    assert engine.cache.owned == 0


def test_fixed_full_depth_greedy_equals_generate():
    model = calm_model(5)
    params = SamplingParams(max_new_tokens=20, temperature=0.0, exit_rule=ExitRule(kind="fixed", value=4))
    requests = make_requests([8, 8, 8, 8], group=1)
    rollouts = RolloutEngine(model, EngineConfig(max_batch=16)).generate(requests, params)
    prompts = torch.tensor([request.prompt.token_ids for request in requests])
    expected = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=20,
        do_sample=False,
        eos_token_id=-1,
        pad_token_id=0,
    )
    assert [list(r.completion_ids) for r in rollouts] == expected[:, prompts.shape[1] :].tolist()


@pytest.mark.parametrize("hidden", [32, 40, 64])
def test_a_sample_is_the_same_alone_and_in_a_batch(hidden, compute):
    """To the bit with the C kernels; plain torch may round by the number of rows."""
    model = calm_model(6, hidden=hidden)
    params = SamplingParams(max_new_tokens=16, stop_token_ids=(4,))
    requests = make_requests([5, 20, 1, 70, 8, 31, 32, 33], group=4)
    together = RolloutEngine(model, EngineConfig(max_batch=64)).generate(requests, params)
    for rollout in together[::5]:
        request = requests[rollout.prompt_index]
        alone = RolloutRequest(prompt=request.prompt, seeds=(request.seeds[rollout.sample_index],))
        (single,) = RolloutEngine(model, EngineConfig(max_batch=1)).generate([alone], params)
        assert_same([single], [replace(rollout, sample_index=0)], batch_tolerance(model))


def test_samples_end_at_stop_tokens_and_at_the_maximum_length():
    model = calm_model(7)
    params = SamplingParams(max_new_tokens=12, stop_token_ids=(0, 1, 2))
    rollouts = RolloutEngine(model, EngineConfig(max_batch=16)).generate(make_requests([4] * 6, group=8), params)
    assert {r.finish_reason for r in rollouts} == {"stop", "length"}
    for r in rollouts:
        stops = [token in (0, 1, 2) for token in r.completion_ids]
        assert not any(stops[:-1])
        assert stops[-1] == (r.finish_reason == "stop")
        assert stops[-1] or len(r.completion_ids) == 12
        assert len(r.completion_ids) == len(r.token_logprobs) == len(r.depths) == len(r.depth_logprobs)


def test_prompts_are_prefilled_once_per_group():
    model = calm_model(8)
    engine = RolloutEngine(model, EngineConfig(max_batch=2))
    progress = []
    rollouts = engine.generate(
        make_requests([10, 1], group=6),
        SamplingParams(max_new_tokens=5),
        policy_version=7,
        on_progress=lambda tokens, finished: progress.append((tokens, finished)),
    )
    assert engine.stats.prefill_rows == 9 * model.config.total_ut_steps
    assert engine.stats.tokens == 12 * 5 == progress[-1][0]
    assert engine.stats.rows == sum(sum(r.depths) for r in rollouts)
    assert progress[-1][1] == len(rollouts) == 12 and progress == sorted(progress)
    assert {r.policy_version for r in rollouts} == {7}
    assert [(r.prompt_index, r.sample_index) for r in rollouts] == list(product(range(2), range(6)))
    assert 0 < engine.stats.peak_pages < 1000


def test_a_failed_call_leaves_a_usable_engine():
    model = calm_model(9)
    engine = RolloutEngine(model, EngineConfig(max_batch=4))
    requests, params = make_requests([6, 3]), SamplingParams(max_new_tokens=6)

    def interrupt(tokens, finished):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.generate(requests, params, on_progress=interrupt)
    engine.cache.check_integrity()
    assert_same(
        engine.generate(requests, params),
        RolloutEngine(model, EngineConfig(max_batch=4)).generate(requests, params),
        batch_tolerance(model),
    )


def test_a_group_that_ends_during_its_prefill():
    """Every sample is one token at loop 1, so that the shared prefix closes at loop 2 of 4."""
    model = calm_model(11)
    engine = RolloutEngine(model, EngineConfig(max_batch=3))
    params = SamplingParams(max_new_tokens=1, exit_rule=ExitRule(kind="fixed", value=1))
    requests = make_requests([9, 4, 1, 40, 5], group=2)
    rollouts = engine.generate(requests, params)
    engine.cache.check_integrity()
    assert_same(rollouts, sequential_rollouts(model, requests, params), rounding(model))


def test_no_requests_and_bad_requests():
    model = calm_model()
    model.config.max_position_embeddings = 16
    engine = RolloutEngine(model, EngineConfig(max_batch=4))
    params = SamplingParams(max_new_tokens=8)
    assert engine.generate([], params) == []
    with pytest.raises(UserError, match="prompt 0 has no tokens"):
        engine.generate(make_requests([0]), params)
    with pytest.raises(UserError, match="lower max_new_tokens"):
        engine.generate(make_requests([4, 9]), params)
    assert len(engine.generate(make_requests([8]), params)) == 3


def chi_square(counts, probs):
    """Pearson's chi-square over the cells with an expected count of at least 5, and its degrees of freedom."""
    expected = probs * counts.sum()
    keep = expected >= 5
    return (((counts - expected) ** 2)[keep] / expected[keep]).sum().item(), int(keep.sum()) - 1


def test_depths_and_tokens_follow_their_distributions():
    """4,000 samples of one position: depths against p(d), tokens against sum_d p(d) softmax(W h^d / tau)."""
    model = random_model(10, gate_scale=1.0)
    (request,) = make_requests([6], group=4000)
    rollouts = RolloutEngine(model, EngineConfig(max_batch=512)).generate(
        [request], SamplingParams(max_new_tokens=1, temperature=2.0)
    )
    with torch.no_grad():
        output = model(torch.tensor([request.prompt.token_ids]))
        depth_probs = exit_log_pdf(output.gate_logits[:, 0, -1]).exp()
        logits = model.lm_head(torch.stack([state[0, -1] for state in output.loop_states]))
    token_probs = depth_probs @ (logits / 2.0).softmax(-1)
    depths = torch.tensor([r.depths[0] for r in rollouts])
    tokens = torch.tensor([r.completion_ids[0] for r in rollouts])
    for values, probs in ((depths - 1, depth_probs), (tokens, token_probs)):
        statistic, freedom = chi_square(values.bincount(minlength=len(probs)).double(), probs.double())
        assert freedom >= 2
        # Wilson-Hilferty: the cube root of chi-square / freedom is nearly normal; 3.3 sigma.
        normal = ((statistic / freedom) ** (1 / 3) - 1 + 2 / (9 * freedom)) / (2 / (9 * freedom)) ** 0.5
        assert normal < 3.3


def test_samples_queued_while_others_run_are_the_same():
    """In another order: one after another, and the rest at once."""
    model = calm_model(4)
    requests, params = make_requests([4, 9, 4, 2], group=3), SamplingParams(max_new_tokens=12, stop_token_ids=(2,))
    expected = RolloutEngine(model, EngineConfig(max_batch=12)).generate(requests, params)
    order = random.Random(5).sample(range(12), 12)
    engine = RolloutEngine(model, EngineConfig(max_batch=3))
    with engine.start(requests, params, queued=False) as call:
        assert call.done, "nothing runs before it is queued"
        for given in ([order[0]], order[1:3], order[3:5], order[5:]):
            call.queue(given)
            for _ in range(3):
                call.advance()
        while not call.done:
            call.advance()
        assert_same(call.result(), expected, batch_tolerance(model))
    engine.cache.check_integrity()
