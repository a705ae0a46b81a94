#!/bin/bash
# A training job on Slurm: sbatch slurm.sh CONFIG [key=value ...], for example
#
#     sbatch slurm.sh math_ouro_1.4b_thinking rollout.workers=15 rollout.worker_gpus=1 ray.placement=spread
#
# Ray starts on all nodes, the trainer on the first; when it ends, Ray ends everywhere. The trainer uses one GPU of the
# first node, which Ray is not told of. Submitted again with --resume, the job goes on after its last checkpoint.

#SBATCH --job-name=ouro-rl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --signal=B:TERM@300

set -euo pipefail

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
head_ip=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}')
# Jobs on one node do not meet: each has a port of its own.
export RAY_ADDRESS="$head_ip:$((20000 + SLURM_JOB_ID % 10000))"

# 300 s before the limit Slurm sends SIGTERM: the trainer saves a checkpoint after the update that is under way.
trap 'kill -TERM $step; wait $step' TERM
srun --kill-on-bad-exit=1 bash -c '
    gpus=${SLURM_GPUS_ON_NODE:-0}
    if [ "$SLURM_NODEID" = 0 ]; then gpus=$((gpus - 1)); fi
    export RAY_TMPDIR=${TMPDIR:-/tmp}
    exec ray symmetric-run --address "$RAY_ADDRESS" --min-nodes "$SLURM_JOB_NUM_NODES" \
        --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "$gpus" -- ouro-rl train "$@"
' bash "$@" &
step=$!
wait "$step"
