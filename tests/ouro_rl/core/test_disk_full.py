"""A full disk, as each library that writes files reports it, in a process whose files may not be large."""

import json
import subprocess
import sys

import pytest
import torch

from ouro_rl.core.disk_full import disk_full

WRITERS = {
    "plain": "open('x', 'w').write(text := 'x' * 10**6)",
    "json": "import json, pathlib; pathlib.Path('x').write_text(json.dumps(['x' * 10**6]))",
    "torch": "import torch; torch.save(torch.zeros(10**6), 'x')",
    "safetensors": "import torch; from safetensors.torch import save_file; save_file({'a': torch.zeros(10**6)}, 'x')",
}
PROGRAM = """
import json, resource
from ouro_rl.core.disk_full import disk_full
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
try:
    {writer}
except Exception as error:
    print(json.dumps(disk_full(error)))
"""


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_is_understood(name, tmp_path):
    program = PROGRAM.format(writer=WRITERS[name])
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == (
        "torch could not write a file to its end" if name == "torch" else "File too large"
    )


@pytest.mark.parametrize("missing", [1, 100, 1000])
def test_torch_at_the_end_of_its_file(missing, tmp_path):
    """Where the disk is full decides which of its layers reports it."""
    torch.save(torch.zeros(10**4), tmp_path / "x")
    size = (tmp_path / "x").stat().st_size
    program = PROGRAM.replace("(10000, 10000)", f"({size - missing},) * 2")
    program = program.format(writer="import torch; torch.save(torch.zeros(10**4), 'x')")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == "torch could not write a file to its end"


def test_other_errors_are_not():
    others = [FileNotFoundError(2, "No such file"), ValueError("x"), RuntimeError("I/O error (os error 5)")]
    assert [disk_full(error) for error in others] == [None] * 3
    assert disk_full(OSError(28, "anything")) == "No space left on device"
    assert disk_full(RuntimeError("I/O error: No space left on device (os error 28)")) == "No space left on device"
