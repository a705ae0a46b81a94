"""The schedule of the learning rates: never 0, and a function of the update alone."""

import pytest
import torch
from transformers import get_scheduler

from ouro_rl.training.schedule import lr_share

KINDS = ("constant", "linear", "cosine", "constant_with_warmup")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warmup", [0, 1, 3, 10, 20])
def test_no_update_is_made_without_a_learning_rate(kind, warmup):
    shares = [lr_share(kind, update, total=10, warmup=warmup) for update in range(15)]
    assert all(0 < share <= 1 for share in shares)
    if warmup <= 10:
        assert max(shares) == 1


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_without_a_warm_up_it_is_the_schedule_of_transformers(kind):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_scheduler(kind, optimizer, num_warmup_steps=0, num_training_steps=7)
    for update in range(7):
        assert lr_share(kind, update, total=7, warmup=0) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_a_warm_up_rises_in_equal_steps_to_the_peak():
    shares = [lr_share("constant_with_warmup", update, total=9, warmup=4) for update in range(6)]
    assert shares == [0.25, 0.5, 0.75, 1, 1, 1]
