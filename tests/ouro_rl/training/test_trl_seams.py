"""What the trainer relies on inside TRL and transformers.

If one of these fails after an upgrade, re-read `ouro_rl/training/trainer.py`: a method that it replaces, or a behavior
that it relies on, has changed."""

import inspect

import pytest
import torch
import trl
from transformers import Trainer
from trl import GRPOTrainer
from trl.trainer.utils import shuffle_sequence_dict, split_tensor_dict

from ouro_rl.training.resumable_trainer import ResumableTrainer
from ouro_rl.training.trainer import OuroGRPOTrainer


def test_trl_is_the_version_that_was_reviewed():
    assert trl.__version__.startswith("1.16."), "re-read the overridden methods before raising the pin"


@pytest.mark.parametrize(
    "owner,name,parameters",
    [
        (GRPOTrainer, "_generate_and_score_completions", ["self", "inputs"]),
        (GRPOTrainer, "_compute_loss", ["self", "model", "inputs"]),
        (GRPOTrainer, "_prepare_inputs", ["self", "generation_batch"]),
        (GRPOTrainer, "log", ["self", "logs", "start_time"]),
        (GRPOTrainer, "training_step", ["self", "model", "inputs", "num_items_in_batch"]),
        (Trainer, "create_optimizer", ["self", "model"]),
        (Trainer, "_clip_grad_norm", ["self", "model"]),
        (Trainer, "_save_checkpoint", ["self", "model", "trial"]),
        (Trainer, "_load_optimizer_and_scheduler", ["self", "checkpoint"]),
        (Trainer, "_save_optimizer_and_scheduler", ["self", "output_dir"]),
        (Trainer, "_save_rng_state", ["self", "output_dir"]),
        (Trainer, "save_model", ["self", "output_dir", "_internal_call"]),
        (Trainer, "_load_rng_state", ["self", "checkpoint"]),
        (Trainer, "get_batch_samples", ["self", "epoch_iterator", "num_batches", "device"]),
        (Trainer, "create_scheduler", ["self", "num_training_steps", "optimizer"]),
        (GRPOTrainer, "_get_train_sampler", ["self", "dataset"]),
    ],
)
def test_replaced_methods_are_where_they_were(owner, name, parameters):
    found = list(inspect.signature(getattr(owner, name)).parameters)
    assert found == parameters


def test_every_override_overrides_something():
    classes = (OuroGRPOTrainer, ResumableTrainer)
    own = {name for cls in classes for name, member in vars(cls).items() if inspect.isfunction(member)}
    ours = {"close", "prefetcher_of", "_prompt_order", "_sample", "_credit", "_token_weights", "_record", "_measure",
            "_complete", "_schedule_from", "_check_finite", "_write_checkpoint", "_save_batch",
            "_load_batch"}  # fmt: skip
    assert not [name for name in own - ours - {"__init__"} if not hasattr(GRPOTrainer, name)]
    assert not [name for name in ours if hasattr(GRPOTrainer, name)], "TRL now has a method of that name"


def test_prepare_inputs_generates_once_and_hands_out_slices():
    source = inspect.getsource(GRPOTrainer._prepare_inputs)
    for call in ("_generate_and_score_completions(", "shuffle_sequence_dict(", "split_tensor_dict("):
        assert call in source


def test_per_sample_tensors_of_any_rank_survive_shuffle_and_split():
    batch = {
        "advantages": torch.arange(6.0),
        "gate_returns": torch.arange(6.0).view(6, 1, 1).expand(6, 4, 3),
        "num_items_in_batch": torch.tensor(17.0),
    }
    shuffled = shuffle_sequence_dict(batch)
    assert sorted(shuffled["advantages"].tolist()) == list(range(6))
    assert torch.equal(shuffled["gate_returns"][:, 2, 1], shuffled["advantages"])
    parts = split_tensor_dict(shuffled, 3)
    assert [len(part["advantages"]) for part in parts] == [2, 2, 2]
    assert all(part["num_items_in_batch"].item() == 17.0 for part in parts)


def test_the_loss_is_only_divided_by_our_own_normalizer():
    """transformers would divide the loss by the accumulation steps again if TRL did not declare it as scaled."""
    assert GRPOTrainer.loss_is_scaled_for_ga is True
