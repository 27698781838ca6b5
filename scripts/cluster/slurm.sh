#!/usr/bin/env bash
# Trains one run on several nodes of a Slurm cluster.
#
#     sbatch --nodes=4 --gpus-per-node=8 scripts/cluster/slurm.sh --data tfds:gear@/shared/gear \
#         --out /shared/runs --batch-size 1536
#
# Arguments after the file's name are flags of the experiment. EXPERIMENT chooses another experiment:
#     EXPERIMENT=experiments.transfer sbatch scripts/cluster/slurm.sh --data ...
#
# - Submit it from the repository's root, with jaxgear installed in .venv there (or set PYTHON).
#   Every node must see the repository, --data and --out under the same path.
# - One task a node; each task uses all devices of its node. `--hosts 0` asks Slurm for
#   the number of tasks, the number of this one, and the address of the first. Open MPI works too:
#   `mpirun -n 4 python -m experiments.scratch --hosts 0 ...`.
# - The first task writes the run folder and prints. A signal to any task, or the end of one, ends
#   all of them, and the state after the last finished step is saved first. Slurm sends SIGTERM 120
#   seconds before the time limit.
# - If a node or a process is lost, the job is queued again, up to RESTARTS times (10), and goes on
#   from the newest state (`--resume latest`), also on fewer nodes. Bad flags, data that cannot be
#   used and a run that diverges (exit codes 2 to 4) end it.
# - Continue by hand with `sbatch scripts/cluster/slurm.sh --resume /shared/runs/scratch-<time>`, on
#   any number of nodes, even one.
# - A batch is shared by all devices: 1536 images on 32 GPUs are 48 a GPU. `--microbatch` sums the
#   gradient over parts of a batch that does not fit.
# - This file was never run: no cluster was available. Two processes on one CPU are tested:
#   `pytest tests/test_hosts.py -m slow`.
#SBATCH --job-name=jaxgear
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

python=${PYTHON:-.venv/bin/python}
restarts=${SLURM_RESTART_COUNT:-0}
if [ "$restarts" -gt 0 ]; then
  set -- "$@" --resume latest
fi
code=0
srun --kill-on-bad-exit "$python" -m "${EXPERIMENT:-experiments.scratch}" --hosts 0 "$@" || code=$?
if [ "$code" = 1 ] || [ "$code" -ge 128 ]; then
  [ "$restarts" -ge "${RESTARTS:-10}" ] || scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
