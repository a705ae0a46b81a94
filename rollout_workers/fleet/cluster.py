"""The Ray cluster that workers run on: an existing one, or a local one that ends with this process."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ouro_rl.core.errors import UserError
from ouro_rl.core.own_names import pinning_hook, working_directory_clashes
from ouro_rl.core.ray_address import LOCAL, check_ray_address, ray_folder, wanted_address
from rollout_workers.fleet.guard import Guard
from rollout_workers.fleet.settings import FleetSettings

PROBE_S = 30.0
"""How long a cluster's head has to answer."""
_PROBE = "import sys, ray; ray._raylet.GcsClient(address=sys.argv[1]).get_all_node_info()"


class Cluster:
    """A connection to Ray. Closing it ends what it started: its Ray, or only its reservations on another's."""

    def __init__(self, workers: int, settings: FleetSettings):
        self._guard: Guard | None = None
        self.owns_ray = not ray.is_initialized()
        if self.owns_ray:
            self._connect(workers, settings)
        self._group: PlacementGroup = placement_group(
            [_bundle(settings)] * workers, strategy="PACK" if settings.placement == "pack" else "SPREAD"
        )
        self._settings = settings

    def actor_options(self, index: int) -> dict[str, Any]:
        """Options for the actor of worker `index`: its part of what is reserved."""
        place = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=index)
        return {"num_cpus": self._settings.cpus, "num_gpus": self._settings.gpus, "scheduling_strategy": place}

    def close(self) -> None:
        remove_placement_group(self._group)
        if self.owns_ray:
            self._disconnect()

    def _disconnect(self) -> None:
        ray.shutdown()
        if self._guard is not None:
            self._guard.close()

    def _connect(self, workers: int, settings: FleetSettings) -> None:
        """Reports enough CPUs to a local Ray even on a smaller machine, which is then slow, not stuck."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's coming default; naming it keeps a warning off the progress bar. Workers are told their device anyway.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # Ray's own is 15: on a machine with other work the trainer would wait for workers that hardly run.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Ray's own is 100 objects or a second: new weights would get new memory while the old ones still have theirs.
        os.environ.setdefault("RAY_free_objects_batch_size", "1")
        address = wanted_address(settings.address)
        if address != LOCAL:
            address = check_ray_address(address)
            _probe(address)
        # Ray puts the working directory first on the workers' search path.
        environment = {"worker_process_setup_hook": pinning_hook()} if working_directory_clashes() else None
        cpus = max(os.cpu_count() or 1, math.ceil(workers * settings.cpus)) if address == LOCAL else None
        try:
            ray.init(
                address=address,
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env=environment,
            )
        except OSError as error:
            if "AF_UNIX path length" not in str(error):
                raise
            raise UserError(
                f"the path {ray_folder()} is too long for the names of Ray's sockets; "
                "set RAY_TMPDIR to a shorter folder, such as /tmp"
            ) from error
        if address == LOCAL:
            node = ray._private.worker._global_node
            assert node is not None, "ray.init has started it"
            self._guard = Guard(node.get_session_dir_path())
        found = ray.cluster_resources().get("GPU", 0)
        if address == LOCAL and found < workers * settings.gpus:
            self._disconnect()
            raise UserError(
                f"{settings.describe(workers)}, but this machine has {found:g}: "
                "lower rollout.workers or rollout.worker_gpus"
            )


def _bundle(settings: FleetSettings) -> dict[str, float]:
    wanted = {"CPU": settings.cpus, "GPU": settings.gpus}
    return {name: amount for name, amount in wanted.items() if amount}


def _probe(address: str) -> None:
    """Ask the head of a cluster in a process of its own: where something else listens, Ray would wait for minutes.
    Raises UserError if there is no answer."""
    command = [sys.executable, "-c", _PROBE, address]
    problem = f"Ray cluster {address}: no Ray head answers there; start one (`ray start --head`) or correct the address"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(problem) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise UserError(f"{problem}\n  {last}")
