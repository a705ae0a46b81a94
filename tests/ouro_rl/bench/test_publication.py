"""The benchmark of publication, with real Ray actors and a small model."""

import json
import subprocess
import sys

from ouro_rl.cli import main as cli


def test_what_is_measured_has_the_size_that_is_asked_for(tmp_path, capsys):
    file = tmp_path / "publication.json"
    assert cli.main(["bench", "publication", "--quick", "--layers", "3", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    layer = 4 * 512**2 + 3 * 512 * 1024 + 4 * 512
    assert found["publication"]["bytes"] == 2 * (3 * layer + 2 * 1024 * 512 + 512 + 512 + 1)
    least = 3 * found["publication"]["bytes"] / found["publication"]["copied_bytes_per_second"]
    assert found["publication_seconds"] > least and found["publication_of_copies"] > 1
    assert found["publication_memory"] >= 1, "at least the copy in the store"
    assert "to 2 actors of a node" in capsys.readouterr().out


ALLOCATES = """
import numpy as np
from ouro_rl.bench.publication import _memory_above, _used
from tests.references.patience import comes_true

size = 64 << 20
with _memory_above(_used()) as peak:
    array = np.ones(size, dtype=np.uint8)
    assert comes_true(lambda: peak.value >= 0.9 * size)
    del array
"""


def test_memory_is_noticed():
    """In a process of its own: memory that other tests have left here may be freed meanwhile, and hide as much."""
    subprocess.run([sys.executable, "-c", ALLOCATES], check=True)
