"""A thousand small steps: nothing grows, neither in the driver nor in its actors and reward processes."""

import itertools
import os
import statistics
from pathlib import Path

import pytest
from transformers import TrainerCallback

from ouro_rl import launch
from ouro_rl.core.rollout import Prompt
from tests.references import tiny_training
from tests.references.process_table import processes
from tests.references.stub_training import GROUP, config_of, stub_model, train

STEPS, WARM, WINDOW = 1000, 200, 100
"""The first updates fill caches and memory pools; a window has the updates between two checkpoints."""
MOST_BYTES_PER_WINDOW = 2**20
FEW = 2
"""Threads or descriptors that a library may need for the first time in the second half: there are more windows."""


def usage(pid):
    """Memory of its own in bytes, threads and descriptors of a process."""
    own = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("RssAnon"))
    return (1024 * int(own.split()[1]), *(len(os.listdir(f"/proc/{pid}/{kind}")) for kind in ("task", "fd")))


def command_of(pid):
    """Empty if the process has gone: Ray starts some, and ends them, when it likes."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class Watch(TrainerCallback):
    """Usage of this process, and of others, after every update."""

    def __init__(self, others=lambda: {}):
        self.others = others
        self.rows = {}
        """Of each process, by (name, id): one for every update."""

    def on_step_end(self, args, state, control, **_):
        for name, pid in {"driver": os.getpid(), **self.others()}.items():
            self.rows.setdefault((name, pid), []).append(usage(pid))

    def growth(self):
        """By name, bytes per window, after the first updates. Every process was there all the time, and has no more
        threads and descriptors in the end than before, but for a few."""
        found = {}
        for (name, _), rows in self.rows.items():
            assert len(rows) == STEPS, name
            memory, *counts = zip(*rows[WARM:], strict=True)
            half = len(memory) // 2
            assert all(min(count[-WINDOW:]) <= max(count[:half]) + FEW for count in counts), (name, counts)
            found[name] = steady_growth(memory)
        return found


def steady_growth(memory):
    """From one window to the next, the median: what is left of every update or of every checkpoint is in all of them,
    and what an allocator takes now and then, for its own reasons, in few."""
    levels = [statistics.median(memory[at : at + WINDOW]) for at in range(0, len(memory), WINDOW)]
    return statistics.median(after - before for before, after in itertools.pairwise(levels))


def test_growth_is_that_of_every_window():
    leak, saw = 3000, [(7 * step % 50) * 1000 for step in range(800)]
    assert steady_growth([leak * step + saw[step] for step in range(800)]) == pytest.approx(WINDOW * leak, rel=0.01)
    assert steady_growth([leak * WINDOW * (step // WINDOW) for step in range(800)]) == WINDOW * leak
    assert steady_growth([2**24 * (step > 300) + 2**24 * (step > 610) for step in range(800)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("staleness", [0, 1])
def test_memory_threads_and_descriptors_of_the_driver_stay_what_they_are(tmp_path, staleness, capsys):
    config = config_of(
        tmp_path,
        steps=STEPS,
        prompts_per_step=2,
        micro_batch=2 * GROUP,
        checkpoint_every=WINDOW,
        max_staleness=staleness,
    )
    watch = Watch()
    train(stub_model(), config, [Prompt(index=i, token_ids=(1,)) for i in range(7)], stop=watch)
    report(f"staleness {staleness}", watch, capsys)


def report(title, watch, capsys):
    found = watch.growth()
    sizes = {name: rows[-1][0] / 2**20 for (name, _), rows in watch.rows.items()}
    with capsys.disabled():
        for name, growth in found.items():
            print(f"\n{title}, {name}: {growth / 2**20:.2f} MiB per {WINDOW} steps at {sizes[name]:.0f} MiB", end="")
    assert max(found.values()) < MOST_BYTES_PER_WINDOW


@pytest.mark.slow
def test_nothing_grows_in_actors_and_reward_processes(tmp_path, checkpoint, monkeypatch, capsys):
    """A real run: rollouts, publication and rewards in every step."""
    pools, make, before = [], launch.start_pool, processes()

    def remember(*arguments):
        pools.append(make(*arguments))
        return pools[-1]

    def others():
        actors = {f"actor {one.index}": one.greeting.process.pid for one in pools[0].crew.members}
        rewards = [pid for pid in sorted(processes() - before) if b"rewards.processes" in command_of(pid)]
        return actors | {f"reward process {number}": pid for number, pid in enumerate(rewards)}

    watch, callbacks = Watch(others), launch.callbacks_of_main
    monkeypatch.setattr(launch, "start_pool", remember)
    monkeypatch.setattr(launch, "callbacks_of_main", lambda *arguments: [watch, *callbacks(*arguments)])
    config = tiny_training.config_of(
        checkpoint, tmp_path / "run", trainer__steps=STEPS, trainer__checkpoint_every=WINDOW,
        trainer__keep_checkpoints=1, trainer__prompts_per_step=2, trainer__group_size=2, trainer__micro_batch=4,
        rollout__max_new_tokens=4, rollout__workers=2, rollout__worker_cpus=0.5, eval__source=None,
        run__rollouts="none",
    )  # fmt: skip
    assert launch.run_training(config, resume=False) == 0
    assert len(watch.rows) >= 1 + 2 + 2, "a reward process is two, it and its keeper"
    report("2 actors", watch, capsys)
