"""Fixtures shared by several test files."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from ouro_rl.core.lock import describe_differences

# Set before torch is imported, for this process and its subprocesses: models this small do not benefit from more
# threads, and threads that wait for each other are many times slower on a busy machine. Tests of several threads
# request them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in every run, so that a failure says something of the change that was made; no limits of time, which
# a busy machine would break. `--hypothesis-profile=default` looks for other examples.
settings.register_profile(
    "steady", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


def pytest_report_header() -> str:
    """Prints the libraries' versions first, since a failure may be due to an untested version."""
    return f"packages: {describe_differences()}"


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """What a test draws does not depend on the tests that ran before it."""
    random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete random checkpoint: 2 layers of width 32, 4 loops, the tiny tokenizer. Copy it before changing it."""
    import torch

    from ouro_rl.model.configuration_ouro import OuroConfig
    from ouro_rl.model.modeling_ouro import OuroForCausalLM
    from ouro_rl.model.tiny_tokenizer import make_tokenizer

    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    model = OuroForCausalLM(
        OuroConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs without the C kernels."""
    from ouro_rl.kernels.cpu import select as cpu_kernels

    monkeypatch.setattr(cpu_kernels, "load", lambda: (None, "plain torch (requested by a test)"))


@pytest.fixture(params=["kernels", "torch"])
def compute(request: pytest.FixtureRequest) -> str:
    """The test runs with the C kernels, if available, and in plain torch."""
    if request.param == "torch":
        request.getfixturevalue("plain_torch")
    return request.param


@pytest.fixture
def threads():
    """Sets the number of torch's threads, until the test ends."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
