"""The config of a warm start that takes seconds."""

from pathlib import Path
from typing import Any

from ouro_rl.config.warmstart import WarmstartConfig


def config_of(output: Path | str, *, one: int = 0, two: int = 0, settling: int = 0, **sections: Any) -> WarmstartConfig:
    """Config with `one`, `two` and `settling` updates of the stages, three loops, and a stage I batch of eight."""
    return WarmstartConfig.model_validate(
        {
            "model": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "total_ut_steps": 3},
            "stage_one": {"steps": one, "batch_size": 8, "lr_warmup": 2},
            "stage_two": {"steps": two, "batch_size": 8},
            "settling": {"steps": settling, "batch_size": 8},
            "eval_problems": 4,
            "output": str(output),
            **sections,
        },
        strict=False,
    )
