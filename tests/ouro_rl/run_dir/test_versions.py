"""The software versions stored in records."""

from __future__ import annotations

import platform

import torch

import ouro_rl
from ouro_rl.run_dir.versions import versions_of


def test_versions_are_those_of_the_running_software() -> None:
    found = versions_of(["torch"])
    assert found.keys() == {"ouro-rl", "python", "torch"}
    assert found["ouro-rl"] == ouro_rl.__version__ and found["python"] == platform.python_version()
    assert torch.__version__.startswith(found["torch"].partition("+")[0])
