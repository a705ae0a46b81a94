"""A completion is suspended and restored, possibly into another slot."""

import torch

from rollout_workers.engine.sampling.completion import Completion, CompletionTensors

FIRST = Completion(
    token_ids=(5, 6), token_logprobs=(-0.5, -1.0), depths=(1, 3), depth_logprobs=(-0.25, -2.0),
    exit_shares=bytes([200, 0, 0, 30, 40, 50]),
)  # fmt: skip
SECOND = Completion(
    token_ids=(7,), token_logprobs=(-3.0,), depths=(2,), depth_logprobs=(0.0,), exit_shares=bytes([0, 255, 0])
)


def tensors(support_sizes=None):
    return CompletionTensors.empty(4, 3, 3, torch.device("cpu"), support_sizes=support_sizes)


def test_completions_are_read_back_up_to_their_length():
    completions = tensors()
    completions.write(3, FIRST)
    completions.write(1, SECOND)
    completions.write(2, Completion())
    assert completions.read(torch.tensor([1, 3, 2]), [1, 2, 0]) == [SECOND, FIRST, Completion()]
    assert completions.read(torch.tensor([3]), [1])[0].depths == (1,)


def test_what_an_earlier_sample_left_beyond_a_depth_is_not_read():
    completions = tensors()
    completions.exit_shares.fill_(99)
    completions.write(3, FIRST)
    completions.exit_shares[3, 0, 1:] = 77
    assert completions.read(torch.tensor([3]), [2])[0].exit_shares == FIRST.exit_shares


def test_support_sizes_are_recorded_only_with_filters():
    completions = tensors(torch.zeros(4, 3, dtype=torch.int64))
    completions.write(0, Completion(**vars(FIRST) | {"support_sizes": (9, 8)}))
    completions.write(1, Completion(**vars(SECOND) | {"support_sizes": (4,)}))
    assert [each.support_sizes for each in completions.read(torch.tensor([0, 1]), [2, 1])] == [(9, 8), (4,)]
