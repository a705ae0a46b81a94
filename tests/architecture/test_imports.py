"""Import contracts (pyproject.toml), and heavy modules that are only imported when needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.references.places import REPOSITORY

HEAVY = ("torch", "transformers", "trl", "ray", "datasets", "sympy", "matplotlib")


def test_import_contracts() -> None:
    program = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "module", ["ouro_rl", "ouro_rl.cli.main", "ouro_rl.config.loader", "rewards.registry", "rollout_workers.pool"]
)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_importing_the_package_is_enough_for_the_auto_classes(random_checkpoint: Path) -> None:
    load = f"AutoModelForCausalLM.from_pretrained({str(random_checkpoint)!r})"
    program = f"import ouro_rl; from transformers import AutoModelForCausalLM; print(type({load}).__name__)"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "OuroForCausalLM"


@pytest.mark.parametrize(
    "first", ["ouro_rl.model.layers", "ouro_rl.model.transformers_seams", "ouro_rl.kernels.select"]
)
def test_any_part_of_the_model_can_be_imported_first(first: str) -> None:
    """Importing transformers from within it must not come back to it before it is complete."""
    program = f"import {first}, ouro_rl.model.modeling_ouro; from transformers import AutoModelForCausalLM as auto; "
    program += (
        "from ouro_rl.model.configuration_ouro import OuroConfig; print(auto._model_mapping[OuroConfig].__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "OuroForCausalLM"
