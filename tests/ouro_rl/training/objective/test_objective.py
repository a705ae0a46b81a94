"""The objective as the trainer calls it: credit and losses of a config."""

import torch

from ouro_rl.config.train import TrainConfig
from ouro_rl.training.objective.objective import Objective
from ouro_rl.training.objective.records import Credits, Sampled


def objective(max_loops=3, **sections) -> Objective:
    values = {"model": {"path": "m"}, "trainer": {"steps": 1, "group_size": 2, "prompts_per_step": 1, "micro_batch": 2}}
    for key, value in sections.items():
        section, name = key.split("__")
        values.setdefault(section, {})[name] = value
    return Objective(TrainConfig.model_validate(values), max_loops)


def test_credit_has_a_value_for_every_token_and_decision():
    sampled = Sampled(
        rewards=torch.tensor([1.0, 0.0]), depths=torch.tensor([[1, 3], [2, 0]]), finished=torch.tensor([True, True])
    )
    credits = objective(gate__price=0.0, trainer__scale_rewards="none").credit(sampled, 0)
    assert credits.of_rollouts.tolist() == [0.5, -0.5]
    assert credits.advantages[0].tolist() == [0.5, 0.5] and credits.advantages[1, 0] == -0.5
    assert credits.gate_returns.tolist() == [[[0.5, 0.0], [0.5, 0.5]], [[-0.5, -0.5], [0.0, 0.0]]]
    assert credits.metrics["gate/price"] == 0


def test_rows_are_those_of_some_rollouts():
    credits = Credits(
        advantages=torch.arange(6.0).view(3, 2),
        gate_returns=torch.arange(6.0).view(3, 2, 1),
        loop_prices=torch.arange(6.0).view(3, 2),
        of_rollouts=torch.arange(3.0),
        metrics={"gate/price": 1.0},
    ).rows(slice(1, 3))
    assert credits.advantages.tolist() == [[2, 3], [4, 5]] and credits.of_rollouts.tolist() == [1, 2]
    assert credits.gate_returns.flatten().tolist() == [2, 3, 4, 5] and credits.metrics == {"gate/price": 1.0}
