"""The objective of a config, made of the few settings that a test is about."""

from ouro_rl.config.train import TrainConfig
from ouro_rl.training.objective.objective import Objective


def make_objective(max_loops: int, **settings) -> Objective:
    """`settings`: by `section__key`. Groups are of two unless they say so."""
    values = {
        "model": {"path": "m"},
        "trainer": {"steps": 1, "group_size": 2, "prompts_per_step": 1, "micro_batch": 2},
    }
    for key, value in settings.items():
        section, name = key.split("__")
        values.setdefault(section, {})[name] = value
    return Objective(TrainConfig.model_validate(values), max_loops)
