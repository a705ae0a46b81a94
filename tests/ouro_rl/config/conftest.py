"""The smallest config file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.references.config_cases import MINIMAL


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(MINIMAL)
    return path
