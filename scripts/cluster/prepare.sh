#!/usr/bin/env bash
# Prepares a set on several nodes of a Slurm cluster, where no Ray runs.
#
#     sbatch --array=1-16 scripts/cluster/prepare.sh FOLDER /shared/gear --size 128
#
# Each task of the array decodes a part (`--part I/N`); the last line of the first task's output
# says how to write the set when all are done. Of tens of millions of images let the same array look
# for near-duplicates before that: `COMPARE=1 sbatch --array=1-16 --dependency=afterok:JOB ...`.
#
#     sbatch --dependency=afterok:JOB --wrap '.venv/bin/python -m jaxgear prepare FOLDER ... --join'
#
# - Every node must see FOLDER and the place of the set under the same path.
# - Submit it again with the same array if a task fails: what is decoded stays.
# - Under Kubernetes, an indexed job does the same: `--part $((JOB_COMPLETION_INDEX + 1))/16`.
# - Where Ray runs, `python -m jaxgear prepare FOLDER /shared/gear --size 128 --ray ADDRESS` does
#   both, and needs no array.
# - This file was never run: no cluster was available. Its commands are tested on one machine.
#SBATCH --job-name=jaxgear-prepare
#SBATCH --cpus-per-task=16
set -euo pipefail

python=${PYTHON:-.venv/bin/python}
if [ "$SLURM_ARRAY_TASK_ID" = 1 ]; then
  printf 'when all parts are done: %s -m jaxgear prepare' "$python"
  printf ' %q' "$@" --join
  echo
fi
stage=${COMPARE:+--compare}
exec "$python" -m jaxgear prepare "$@" "${stage:---part}" "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
