"""A short run (scripts/kill_runs.py) whose hosts count as lost after 3 s: `SECONDS FLAG ...`.

The second host's main thread sleeps that long after its second epoch: slow, but alive.
"""

import sys
import time

from jaxgear.machine import devices
from jaxgear.machine.hosts import lost
from jaxgear.training.runs.run import Run
from scripts import kill_runs

lost.SILENCE = 3
pause = float(sys.argv[1])


def slow(run, state, row, record=Run.record):
    record(run, state, row)
    if row.epoch == 2 and not devices.first_host():
        time.sleep(pause)


Run.record = slow
sys.argv[1] = "train"
kill_runs.train()
