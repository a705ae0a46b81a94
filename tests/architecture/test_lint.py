"""What `make lint` checks besides the import contracts: style, formatting, types."""

import importlib.util
import subprocess
import sys

import pytest

from tests.references.places import REPOSITORY


@pytest.mark.parametrize("command", ["ruff check .", "ruff format --check .", "mypy --cache-dir={cache}"])
def test_lint(command: str, tmp_path) -> None:
    tool, *arguments = command.format(cache=tmp_path).split()
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed: it comes with the extra `dev`")
    done = subprocess.run(
        [sys.executable, "-m", tool, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
