"""Every outcome of a tiny policy, as another policy samples them: weighted by the importance ratios, the mean gradient
is that of the policy in training."""

import pytest

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
