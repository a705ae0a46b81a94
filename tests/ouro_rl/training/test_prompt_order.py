"""The order of prompts: by epoch, from the seed alone, and from any update on."""

import pytest
from trl.trainer.utils import RepeatSampler

from ouro_rl.core.errors import UserError
from ouro_rl.core.rollout import Prompt
from ouro_rl.training.prompt_order import PromptOrder, UpdateSampler, fixed_order


def prompts_of(*levels):
    return [Prompt(index=i, token_ids=(1,), columns={"level": level}) for i, level in enumerate(levels)]


def sampler_of(order, first=0, **sizes):
    sizes = {"updates": 6, "updates_per_batch": 1, "micro_steps": 1, "group_size": 1} | sizes
    return UpdateSampler(order, first_update=lambda: first, **sizes)


def test_uninterrupted_it_is_the_order_of_trl():
    """TRL's sampler keeps its generator from epoch to epoch: right until the run is resumed."""
    theirs = RepeatSampler(range(10), mini_repeat_count=2, batch_size=3, repeat_count=4, seed=7)
    expected = [place for _ in range(4) for place in theirs]
    sizes = {"updates": 24, "updates_per_batch": 2, "micro_steps": 2, "group_size": 2}
    assert list(sampler_of(PromptOrder(10, 3, seed=7), **sizes)) == expected


@pytest.mark.parametrize("first", range(13))
def test_from_any_update_on_it_is_the_rest_of_the_whole(first):
    sizes = {"updates": 12, "updates_per_batch": 2, "micro_steps": 3, "group_size": 2}
    order = PromptOrder(8, 3, seed=1)
    whole = list(sampler_of(order, **sizes))
    assert list(sampler_of(PromptOrder(8, 3, seed=1), first, **sizes)) == whole[first * 18 :]
    assert list(sampler_of(order, first, **sizes)) == whole[first * 18 :]  # also backwards, in the same process
    assert len(sampler_of(order, first, **sizes)) == len(whole) == 216


def test_an_epoch_takes_no_prompt_twice_and_no_two_are_alike():
    order = PromptOrder(9, 2, seed=0)
    epochs = [[place for batch in range(4) for place in order.batch(4 * epoch + batch)] for epoch in range(5)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert epochs != [[place for batch in range(4) for place in PromptOrder(9, 2, seed=1).batch(batch)]] * 5


def test_sequential_and_curriculum():
    prompts = prompts_of(3, 1, 2, 1.5)
    assert fixed_order(prompts, "shuffle", None) is None
    assert fixed_order(prompts, "sequential", None) == [0, 1, 2, 3]
    order = PromptOrder(4, 2, seed=5, fixed=fixed_order(prompts, "curriculum", "level"))
    assert [order.batch(number) for number in range(3)] == [[1, 3], [2, 0], [1, 3]]
    assert fixed_order(prompts_of("b", "a", "b"), "curriculum", "level") == [1, 0, 2]


@pytest.mark.parametrize(
    "levels,part", [((1, None), "row 2"), ((1, "a"), "a text and some"), ((float("nan"),), "row 1")]
)
def test_a_curriculum_that_gives_no_order(levels, part):
    with pytest.raises(UserError, match=part):
        fixed_order(prompts_of(*levels), "curriculum", "level")
