"""Groups without variance give way to further prompts: which, how many, and in which order."""

import itertools

import pytest

from ouro_rl.core.rollout import Prompt
from ouro_rl.training.refill import further_prompts, refill
from tests.ouro_rl.training.test_rollout_metrics import scored

PROMPTS = [Prompt(index=3 * place, token_ids=(1,)) for place in range(12)]


def group(index, *rewards):
    return [scored(index, (1,), reward) for reward in rewards]


def names(groups):
    return [members[0].rollout.prompt_index for members in groups]


class Sampled:
    """Groups with variance for some prompts; keeps what was asked for."""

    def __init__(self, useful):
        self.useful, self.asked = useful, []

    def __call__(self, prompts):
        self.asked.append([prompt.index for prompt in prompts])
        return [group(p.index, 0.0, 1.0 if p.index in self.useful else 0.0) for p in prompts]


def test_useful_groups_replace_those_without_variance_in_order():
    groups = [group(100, 1, 1), group(101, 0, 1), group(102, 0, 0), group(103, None, 1), group(104, 2, 1)]
    sample = Sampled(useful={3, 6, 9})
    result = refill(groups, iter(PROMPTS), sample, rounds=2)
    assert sample.asked == [[0, 3, 6], [9]]
    assert names(result.groups) == [3, 101, 6, 9, 104]
    assert (result.replaced, result.sampled) == (3, 5 + 4)
    assert names(groups) == [100, 101, 102, 103, 104], "what was given is left as it is"


def test_what_has_no_variance_after_the_last_round_stays():
    groups = [group(100, 1, 1), group(101, 0, 0)]
    sample = Sampled(useful={9})
    result = refill(groups, iter(PROMPTS), sample, rounds=2)
    assert sample.asked == [[0, 3], [6, 9]]
    assert names(result.groups) == [9, 101] and (result.replaced, result.sampled) == (1, 6)


@pytest.mark.parametrize("prompts", [0, 1, 3])
def test_it_ends_when_no_prompt_is_left(prompts):
    sample = Sampled(useful=())
    result = refill([group(100, 1, 1), group(101, 0, 0)], iter(PROMPTS[:prompts]), sample, rounds=9)
    assert sum(map(len, sample.asked)) == prompts and all(sample.asked)
    assert names(result.groups) == [100, 101] and (result.replaced, result.sampled) == (0, 2 + prompts)


@pytest.mark.parametrize(("rounds", "rewards"), [(0, (0, 0)), (5, (0, 1))])
def test_nothing_is_sampled_where_nothing_is_asked_for(rounds, rewards):
    sample = Sampled(useful=())
    result = refill([group(100, *rewards)], iter(PROMPTS), sample, rounds=rounds)
    assert sample.asked == [] and (result.replaced, result.sampled) == (0, 1)


def test_further_prompts_are_all_others_in_an_order_of_the_step():
    taken = PROMPTS[2:5]
    orders = [
        tuple(prompt.index for prompt in further_prompts(PROMPTS, taken, seed=seed, step=step))
        for seed, step in itertools.product(range(3), range(1, 5))
    ]
    others = sorted(prompt.index for prompt in PROMPTS if prompt not in taken)
    assert all(sorted(order) == others for order in orders)
    assert len(set(orders)) == len(orders), "each seed and each step has its own"
    again = further_prompts(PROMPTS, taken, seed=0, step=1)
    assert tuple(prompt.index for prompt in again) == orders[0]
