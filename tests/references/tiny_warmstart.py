"""The config of a warm start that takes seconds, and the one that a checkpoint here was made by."""

import json
from pathlib import Path
from typing import Any

from ouro_rl.config.loader import load_config
from ouro_rl.config.warmstart import WarmstartConfig
from tests.references.places import REPOSITORY


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


def assert_is_of_its_config(checkpoint: Path, config_file: str) -> None:
    """The checkpoint's record holds the config in this file of the repository, wherever it was written to."""
    record = json.loads((checkpoint / "warmstart.json").read_text())
    config = load_config(WarmstartConfig, [REPOSITORY / config_file])
    expected = config.model_dump(mode="json", exclude={"output": True, "corpus": config.unread_corpus()})
    assert {key: value for key, value in record["config"].items() if key != "output"} == expected
