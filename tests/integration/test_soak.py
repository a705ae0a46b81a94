"""A thousand small steps: nothing grows in the driver."""

import os
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from ouro_rl.core.rollout import Prompt
from tests.references.stub_training import GROUP, config_of, stub_model, train

STEPS, WARM = 1000, 200
"""The first updates fill caches and memory pools."""
MOST_BYTES_PER_100_STEPS = 2**20


class Watch(TrainerCallback):
    """Resident memory, threads and descriptors of this process after every update."""

    def __init__(self):
        self.rows = []

    def on_step_end(self, args, state, control, **_):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        count = [len(os.listdir(f"/proc/self/{kind}")) for kind in ("task", "fd")]
        self.rows.append((pages * os.sysconf("SC_PAGE_SIZE"), *count))


def slope(values):
    """Of a least-squares line, per step."""
    at = torch.arange(len(values), dtype=torch.float64)
    at -= at.mean()
    return (at @ torch.tensor(values, dtype=torch.float64) / (at @ at)).item()


@pytest.mark.slow
@pytest.mark.parametrize("staleness", [0, 1])
def test_memory_threads_and_descriptors_of_the_driver_stay_what_they_are(tmp_path, staleness, capsys):
    config = config_of(
        tmp_path, steps=STEPS, prompts_per_step=2, micro_batch=2 * GROUP, checkpoint_every=100, max_staleness=staleness
    )
    watch = Watch()
    train(stub_model(), config, [Prompt(index=i, token_ids=(1,)) for i in range(7)], stop=watch)
    memory, threads, descriptors = zip(*watch.rows[WARM:], strict=True)
    growth = 100 * slope(memory)
    with capsys.disabled():
        print(f"\nstaleness {staleness}: {growth / 2**20:.2f} MiB per 100 steps at {memory[-1] / 2**20:.0f} MiB")
    assert growth < MOST_BYTES_PER_100_STEPS
    assert max(threads) == min(threads) and max(descriptors) == min(descriptors)
