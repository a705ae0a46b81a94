"""The line about memory: bounds that must hold for any process."""

from __future__ import annotations

import re
from pathlib import Path

from ouro_rl.cli import main as cli


def test_an_evaluation_says_what_memory_it_took(random_checkpoint: Path, tmp_path: Path, capsys) -> None:
    arguments = ["eval", "--model", str(random_checkpoint), "--benchmark", "arithmetic", "--limit", "3"]
    assert cli.main([*arguments, "--max-new-tokens", "4", "--out", str(tmp_path / "out")]) == 0
    found = re.search(
        r"Peak memory: ([\d.]+) GiB \(one copy of ([\d,]+) weights is ([\d.]+), keys and values ([\d.]+);",
        capsys.readouterr().out,
    )
    assert found is not None
    peak, weights, keys = float(found[1]), int(found[2].replace(",", "")), float(found[4])
    assert 0.1 < peak < 64 and 10_000 < weights < 100_000 and keys < peak
