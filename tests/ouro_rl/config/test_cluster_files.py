"""The files for clusters: a manifest with KubeRay's fields, a script that bash reads, and commands that are ours."""

import re
import shlex
import subprocess
from importlib.metadata import version

import pytest
import yaml

from ouro_rl.cli.commands import split_configs
from ouro_rl.config.loader import load_config
from ouro_rl.config.train import TrainConfig
from tests.references.places import REPOSITORY

CLUSTER = REPOSITORY / "configs" / "cluster"
ANY = object()
POD = {"spec": {"containers": [ANY], "volumes": [ANY]}}
GROUP = {"rayStartParams": ANY, "template": POD}
RAY_JOB = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {"name": str},
    "spec": {
        "entrypoint": str,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "backoffLimit": int,
        "runtimeEnvYAML": str,
        "rayClusterSpec": {
            "rayVersion": str,
            "headGroupSpec": GROUP,
            "workerGroupSpecs": [
                {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, **GROUP},
            ],
        },
    },
}
"""Fields and types of KubeRay's API v1 (https://ray-project.github.io/kuberay/reference/api/), as far as they are
used."""


def misfits(value, schema, at=""):
    if schema is ANY:
        return []
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [f"{at}: no mapping"]
        odd = [f"{at}.{key}: missing or unknown" for key in value.keys() ^ schema.keys()]
        return odd + [
            bad for key in value.keys() & schema.keys() for bad in misfits(value[key], schema[key], f"{at}.{key}")
        ]
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [f"{at}: no list"]
        return [bad for i, item in enumerate(value) for bad in misfits(item, schema[0], f"{at}[{i}]")]
    if isinstance(schema, type):
        return [] if type(value) is schema else [f"{at}: {value!r}"]
    return [] if value == schema else [f"{at}: {value!r}"]


@pytest.fixture(scope="module")
def job():
    return yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())


def test_the_manifest_has_the_fields_of_kuberay(job):
    assert misfits(job, RAY_JOB) == []
    assert misfits({**job, "kind": "RayCluster", "more": 1}, RAY_JOB) == [
        ".more: missing or unknown",
        ".kind: 'RayCluster'",
    ]
    parameters = job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]
    assert all(isinstance(value, str) for value in parameters.values()), "options of `ray start` are strings"
    yaml.safe_load(job["spec"]["runtimeEnvYAML"])


def test_the_manifest_names_the_tested_ray(job):
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == version("ray")


def test_the_job_fits_the_cluster(job):
    program, command, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert (program, command) == ("ouro-rl", "train")
    config = load_config(TrainConfig, *split_configs(arguments, TrainConfig))
    cluster = job["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    gpus = [
        int(pod["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
        for pod in (cluster["headGroupSpec"], group)
    ]
    assert gpus[0] == 1 and config.rollout.workers * config.rollout.worker_gpus == group["replicas"] * gpus[1]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-gpus"] == "0"


def test_bash_reads_the_slurm_script():
    script = CLUSTER / "slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    example = re.search(r"sbatch slurm.sh (math\S+ .*)", script.read_text())
    assert example is not None
    load_config(TrainConfig, *split_configs(shlex.split(example[1]), TrainConfig))
