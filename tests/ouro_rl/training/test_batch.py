"""From rollouts to padded tensors and the inputs of a replay."""

from dataclasses import replace

import torch

from ouro_rl.core.rollout import Rollout
from ouro_rl.training.batch import collate, probed_samples, probed_tokens, prompt_owners, replay_inputs, replayed
from tests.references.credits import no_credits


def rollout(prompt, completion, depths):
    zeros = tuple(-0.5 for _ in completion)
    return Rollout(
        prompt_index=0,
        sample_index=0,
        prompt_ids=prompt,
        completion_ids=completion,
        token_logprobs=zeros,
        depths=depths,
        depth_logprobs=zeros,
        policy_version=0,
        temperature=1.0,
        finish_reason="stop",
    )


def test_recorded_depths_go_to_the_positions_they_belong_to():
    rollouts = [rollout((5, 6, 7), (8, 9), (2, 1)), rollout((5,), (6, 7, 8), (3, 4, 1))]
    inputs = replay_inputs(collate(rollouts, no_credits(rollouts, 4), pad_token_id=0), max_loops=4)
    assert inputs.input_ids.tolist() == [[5, 6, 7, 8, 9, 0], [0, 0, 5, 6, 7, 8]]
    assert inputs.depths.tolist() == [[4, 4, 2, 1, 0, 0], [0, 0, 3, 4, 1, 0]]
    assert inputs.predicting.int().tolist() == [[0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 1, 0]]
    assert inputs.owners.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


def test_identical_prompts_have_one_owner():
    mask = torch.tensor([[1, 1], [0, 1], [1, 1], [0, 1], [1, 1]]).bool()
    owners = prompt_owners(torch.tensor([[5, 6], [0, 6], [5, 6], [0, 6], [0, 6]]), mask, 4)
    assert owners.tolist()[:4] == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 10, 11], [4, 5, 14, 15]]
    assert owners.tolist()[4] == [16, 17, 18, 19]  # a real token 0 is not padding
    assert prompt_owners(torch.zeros(2, 0), torch.zeros(2, 0).bool(), 1).tolist() == [[0], [1]]


def test_credits_of_a_longer_update_are_cut_to_the_completions_at_hand():
    short, long = rollout((5,), (6, 7), (1, 2)), rollout((5,), (6, 7, 8), (1, 2, 1))
    batch = collate([short], no_credits([short, long], 4).rows(slice(0, 1)), pad_token_id=0)
    assert batch["advantages"].shape == (1, 2) and batch["gate_returns"].shape == (1, 2, 3)


def test_samples_are_probed_by_their_own_seeds_alone():
    rollouts = [replace(rollout((5,), (6,), (1,)), prompt_index=i // 8, sample_index=i % 8) for i in range(800)]
    probed = probed_samples(rollouts, 0.25, 3, 7)
    assert 0.2 < probed.float().mean() < 0.3
    assert torch.equal(probed_samples(rollouts[100:300], 0.25, 3, 7), probed[100:300])
    assert (probed <= probed_samples(rollouts, 0.5, 3, 7)).all()  # a larger share keeps those of a smaller one
    assert probed_samples(rollouts, 1.0, 3, 7).all() and not probed_samples(rollouts, 0.0, 3, 7).any()
    for other in (probed_samples(rollouts, 0.25, 4, 7), probed_samples(rollouts, 0.25, 3, 8)):
        assert (other != probed).any()


def test_probes_are_the_predicting_positions_of_the_samples_that_are_probed():
    rollouts = [rollout((5, 6, 7), (8, 9), (2, 1)), rollout((5,), (6, 7, 8), (3, 4, 1))]
    batch = collate(rollouts, no_credits(rollouts, 4), pad_token_id=0)
    assert replay_inputs(batch, max_loops=4).probes is None
    batch["probed"] = torch.tensor([True, False])
    probes = replay_inputs(batch, max_loops=4).probes
    assert probes.int().tolist() == [[0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]]


def test_forced_tokens_have_no_log_prob_no_gradient_and_no_probes():
    rollouts = [
        replace(rollout((5, 6), (7, 8, 9), (1, 2, 3)), forced=(1, 3), token_logprobs=(-0.5, 0.0, 0.0)),
        rollout((5,), (6, 7), (3, 4)),
    ]
    batch = collate(rollouts, no_credits(rollouts, 4), pad_token_id=0)
    batch["probed"] = torch.tensor([True, True])
    assert replay_inputs(batch, max_loops=4).probes.int().tolist() == [[0, 1, 0, 0, 0], [0, 1, 1, 0, 0]]
    assert probed_tokens(batch).int().tolist() == [[1, 0, 0], [1, 1, 0]]
    now = torch.tensor([-0.5, -torch.inf, -7.0, -0.5, -0.5], requires_grad=True)
    taken = replayed(batch, now, torch.zeros(4, 5), torch.ones(5))
    assert torch.equal(taken.token_logprobs, taken.sampler_logprobs)
    taken.token_logprobs.sum().backward()
    assert now.grad.tolist() == [1, 0, 0, 1, 1]


def test_a_batch_in_which_everything_is_lost_has_a_replay():
    """As on one of several processes, whose prompts kill the workers."""
    rollouts = [replace(rollout(prompt, (), ()), finish_reason="lost") for prompt in ((5, 6, 7), (5,))]
    found = rollout((5,), (6, 7), (1, 2))
    batch = collate(rollouts, no_credits([*rollouts, found], 4).rows(slice(0, 2)), pad_token_id=0)
    assert not batch["completion_mask"].any() and batch["advantages"].shape == batch["depths"].shape == (2, 1)
    inputs = replay_inputs(batch, max_loops=4)
    assert inputs.input_ids.shape == inputs.depths.shape == inputs.owners.shape == inputs.predicting.shape == (2, 4)
    assert inputs.depths.tolist() == [[4, 4, 0, 0], [0, 0, 0, 0]] and not inputs.predicting.any()
