"""Every outcome of a tiny policy, as another policy samples them: weighted by the importance ratios, the mean gradient
is that of the policy in training."""

import pytest
import torch

from ouro_rl.training.objective.loop_costs import exit_hazards
from tests.references.tabular_policy import (
    EVERYONE_PAYS,
    GROUP,
    PRICE,
    TabularPolicy,
    assert_equal_gradients,
    difference,
    mean_gradients,
)


def test_whole_completions_weighted_by_the_joint_ratio_give_the_same_gradient():
    policy, sampler = TabularPolicy(5), TabularPolicy(6)
    worth = (1 - 1 / GROUP) * policy.rewards
    wanted = policy.gradients(-(policy.logprobs().exp() * worth).sum())
    got = mean_gradients(policy, sampler, gate__price=0.0, trainer__importance="sequence")
    assert_equal_gradients(got, wanted)
    assert difference(mean_gradients(policy, sampler, gate__price=0.0), wanted) > 1e-3, "of longer answers"


@pytest.mark.parametrize("importance", ["token", "sequence"])
@pytest.mark.parametrize("loops, floor", [(2, 1), (3, 2)])
def test_of_a_token_that_is_the_answer_the_joint_ratio_is_exact(importance, loops, floor):
    """Reward and price: nothing comes before such a token, whose chance the ratio could lack."""
    policy, sampler = (TabularPolicy(seed, loops=loops, length=1) for seed in (5, 6))
    worth = (1 - 1 / GROUP) * policy.rewards - PRICE * policy.depths[:, 0].clamp(min=floor)
    wanted = policy.gradients(-(policy.logprobs().exp() * worth).sum())
    settings = EVERYONE_PAYS | {"gate__depth_floor": floor}
    assert_equal_gradients(mean_gradients(policy, sampler, trainer__importance=importance, **settings), wanted)
    truncated = mean_gradients(policy, sampler, trainer__importance_cap=1.0, **settings)
    assert difference(truncated, wanted) > 1e-3


NOT_BY_REWARD = {
    "off": {"gate__mode": "off"},
    "stage2": {"gate__mode": "stage2", "gate__probe_share": 1.0, "gate__loss_weight": 0.0},
}


@pytest.mark.parametrize("importance, length", [("token", 1), ("sequence", 1), ("sequence", 2)])
@pytest.mark.parametrize("mode", NOT_BY_REWARD)
def test_drawn_depths_are_part_of_the_ratio_also_where_the_gate_does_not_learn_from_rewards(mode, importance, length):
    policy, sampler = (TabularPolicy(seed, length=length) for seed in (5, 6))
    logprobs = (policy.tokens + policy.of_depths.detach()).sum(1)
    wanted = policy.gradients(-(1 - 1 / GROUP) * (logprobs.exp() * policy.rewards).sum())
    got = mean_gradients(policy, sampler, trainer__importance=importance, **NOT_BY_REWARD[mode])
    assert_equal_gradients(got, wanted)
    assert wanted[1].abs().max() > 0.01


@pytest.mark.parametrize(
    "rule, keys",
    [
        ({"kind": "iid", "probabilities": (0.5, 0.5)}, "last_exited"),
        ({"kind": "threshold", "value": 0.5}, "last_exited"),
        ({"kind": "simulated"}, "full"),
    ],
)
def test_depths_that_were_not_drawn_from_the_gate_are_in_no_ratio(rule, keys):
    """They come as often under every policy: in the table, with the chances of the sampler's gate."""
    policy, sampler = (TabularPolicy(seed, length=1) for seed in (5, 6))
    logprobs = (policy.tokens + sampler.of_depths.detach()).sum(1)
    wanted = policy.gradients(-(1 - 1 / GROUP) * (logprobs.exp() * policy.rewards).sum())
    settings = {"gate__mode": "off", "rollout__exit_rule": rule, "rollout__kv_rule": keys}
    assert_equal_gradients(mean_gradients(policy, sampler, **settings), wanted)


@pytest.mark.parametrize("importance", ["token", "sequence"])
def test_the_bonus_of_variety_is_that_of_the_gate_in_training(importance):
    """KL(p || q) against the mean q of the update, which is a constant: of one-token answers, without a reward. Three
    loops: with two, every depth has the one decision."""
    policy, sampler = (TabularPolicy(seed, loops=3, length=1) for seed in (5, 6))
    depths = sampler.depths[torch.tensor(policy.pairs).flatten()]
    hazards = exit_hazards(depths, torch.ones(len(depths), dtype=torch.bool), 3)
    stays = torch.cat([torch.ones(1), (1 - hazards).cumprod(0)])
    mean = stays * torch.cat([hazards, torch.ones(1)])
    log_pdf = policy.log_pdf[:, 0, 0]
    wanted = policy.gradients(-0.5 * (log_pdf.exp() * (log_pdf - mean.log())).sum())
    settings = {"gate__price": 0.0, "gate__variety_bonus": 0.5, "trainer__importance": importance}
    got = mean_gradients(policy, sampler, torch.zeros(len(policy.outcomes)), **settings)
    assert_equal_gradients(got, wanted)
    assert wanted[0].abs().max() > 0.01


def test_the_ratio_of_the_bonus_is_truncated():
    """Two loops: all of the bonus is the direct term, KL(p || q) of the one decision, weighted by the depth's ratio."""
    policy, sampler = (TabularPolicy(seed, length=1) for seed in (5, 6))
    depths = sampler.depths[torch.tensor(policy.pairs).flatten()]
    hazard = exit_hazards(depths, torch.ones(len(depths), dtype=torch.bool), 2)
    log_pdf, sampled = policy.log_pdf[:, 0, 0], sampler.log_pdf[:, 0, 0].exp().detach()
    information = (log_pdf.exp() * (log_pdf - torch.cat([hazard, 1 - hazard]).log())).sum()
    ratios = log_pdf.exp().detach() / sampled
    assert ratios.max() > 1.1
    weight = (sampled * ratios.clamp(max=1.1)).sum()
    settings = {"gate__price": 0.0, "gate__variety_bonus": 0.5, "gate__clip_high": 0.1}
    got = mean_gradients(policy, sampler, torch.zeros(len(policy.outcomes)), **settings)
    assert_equal_gradients(got, policy.gradients(-0.5 * weight * information))
