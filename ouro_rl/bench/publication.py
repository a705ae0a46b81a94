"""`ouro-rl bench publication`: how long new weights take from the trainer to two rollout actors of one node.

Real Ray actors with real workers, whose model has the shape of Ouro-1.4B in bf16 (or as many layers as asked for), and
weights that change every time. Nothing is sampled.

    publication_seconds    from the call to equal fingerprints on both actors. Not the first time, when the actors and
                           the store get their memory from the system
    publication_of_copies  the same over the time of three copies of the weights, one into the store and one into each
                           actor, at the rate at which all cores together copy memory
    publication_memory     memory of the node beside that of the trainer's and the actors' models, in sizes of a model:
                           what the store and this process have more at the worst moment
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ouro_rl.bench.timing import Say, spread
from ouro_rl.bench.workload import Sizes
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import UserError
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from rollout_workers.fleet.settings import FleetSettings
from rollout_workers.pool import make_pool

WORKERS, ROUNDS = 2, 6
DTYPE = "bfloat16"
COPIES = 1 + WORKERS
"""Of the weights: into the store, and out of it into each actor's model."""
LOOK_S = 0.01
STATUS = Path("/proc/self/status")


def bench_publication(sizes: Sizes, say: Say) -> dict[str, Any]:
    """The section `publication` of the JSON; `ratios` by their top-level names. Raises UserError where there is no
    `/proc`, in which memory is measured."""
    if not STATUS.exists():
        raise UserError(f"bench publication: measures memory in {STATUS}; run it on Linux")
    config = OuroConfig(
        num_hidden_layers=sizes.published_layers, hidden_size=sizes.published_hidden,
        intermediate_size=sizes.published_intermediate, vocab_size=sizes.published_vocabulary,
    )  # fmt: skip
    state = _weights(config)
    size = sum(tensor.nbytes for tensor in state.values())
    rate = _copy_rate(sizes.read_bytes)
    say(f"{size / 1e9:.2f} GB, copied by all cores at {rate / 1e9:.1f} GB/s")
    seconds, memory = [], []
    engine = EngineConfig(dtype=DTYPE, device="cpu", max_batch=1)
    with make_pool(WORKERS, config.to_dict(), engine, FleetSettings()) as pool:
        pool.description()  # waits for the actors
        with _memory_above(_used()) as peak:
            for version in range(ROUNDS):
                state["model.norm.weight"].fill_(version)
                started = time.monotonic()
                pool.publish(state, version)
                seconds.append(time.monotonic() - started)
                memory.append(peak.value / size)
                say(f"{seconds[-1]:.2f} s, {memory[-1]:.2f} models in memory")
    least = COPIES * size / rate
    return {
        "ratios": {
            "publication_seconds": spread(seconds[1:]),
            "publication_of_copies": spread([one / least for one in seconds[1:]]),
            "publication_memory": spread([max(memory)]),
        },
        "bytes": size,
        "first_seconds": seconds[0],
        "copied_bytes_per_second": rate,
    }


def _weights(config: OuroConfig) -> dict[str, Tensor]:
    """A state dict of this shape: random bytes that are no NaN, so that every page is a page of its own."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in OuroForCausalLM(config).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.empty(shape, dtype=torch.bfloat16).normal_(generator=generator) for name, shape in shapes.items()
    }


def _copy_rate(size: int) -> float:
    """Bytes per second that torch copies from memory to memory with a thread per core; the best of several times."""
    source, target = torch.ones(size, dtype=torch.uint8), torch.ones(size, dtype=torch.uint8)
    times = []
    for _ in range(ROUNDS):
        started = time.monotonic()
        target.copy_(source)
        times.append(time.monotonic() - started)
    return size / min(times)


class _Peak:
    value = 0


@contextmanager
def _memory_above(before: int) -> Iterator[_Peak]:
    """In the block, `value` is the most that was used at a time, above `before`."""
    peak, over = _Peak(), threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_S):
            peak.value = max(peak.value, _used() - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


def _used() -> int:
    """Bytes of this process's own memory, and of the store's memory that it has written (Linux)."""
    lines = STATUS.read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
