"""Trains trials in processes, so that one that runs out of memory ends alone."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from jaxgear.errors import DivergedError, GearError, UsageError
from jaxgear.experiment.flags import parse
from jaxgear.study.executors import Executor, Interrupted, Job, load, rows_of, run_of
from jaxgear.study.variants import as_flags

POLL = 0.2  # seconds between looks at a process and its history
LOG = "log.txt"
# Starts Python anew. PR_SET_PDEATHSIG sends SIGTERM when the parent ends, so the process saves its
# state. (`preexec_fn` could deadlock with JAX's threads.)
WITH_PARENT = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
VECTORIZED = (
    "from jaxgear import cli; from jaxgear.study.vectorized import main; cli.exit_with(main)"
)


class Command(Executor):
    """Trains each trial in a process of its own."""

    def __init__(self, experiment: str, flags: Sequence[str] = (), device: str | None = None):
        """Finds an experiment: a file such as experiments/scratch.py, or the name of a module.

        Args:
            flags: flags of all trials.
            device: number of the GPU to use; None: all devices.

        Raises:
            UsageError: there is no such experiment.
        """
        self.module, self._root = load(experiment)
        self.config = self.module.Config
        self.name, self.flags = self.module.__name__, tuple(flags)
        self.source = Path(self.module.__file__).read_text(encoding="utf-8")
        self._device = device
        self._process: subprocess.Popen | None = None

    def __call__(self, jobs: Sequence[Job]) -> list[str]:
        (job,) = jobs
        code, log = self._run(["-m", self.name, *self._flags_of(job)], jobs)
        return ["pruned" if code is None else _state(code, log)]

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def _flags_of(self, job: Job) -> list[str]:
        flags = as_flags(job.values)
        return flags if "resume" in job.values else [*self.flags, *flags]

    def _run(self, arguments: Sequence[str], jobs: Sequence[Job]) -> tuple[int | None, Path]:
        """The exit code of a Python process that trains the jobs, or None if a watch ended it; and
        its log, in the folder of the first job.
        """
        paths = [str(self._root), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        if self._device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self._device
        first = ["-P", "-c", WITH_PARENT] if sys.platform == "linux" else []
        log = jobs[0].folder / LOG
        with log.open("ab") as output:
            # -P: a folder of the same name in the current folder must not take the file's place.
            # The process holds the locks too: until it ends, no other study takes these trials.
            # In a session of its own it gets no Ctrl-C of the terminal beside our SIGTERM: a second
            # signal would end it before its state is saved.
            process = self._process = subprocess.Popen(
                [sys.executable, *first, "-P", *arguments],
                stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=[job.lock for job in jobs if job.lock is not None],
                start_new_session=True,
            )  # fmt: skip
            try:
                pruned = _follow(process, jobs)
            except BaseException:
                process.terminate()
                process.wait()
                raise
        return None if pruned else process.returncode, log


class Vectorized(Command):
    """Trains several trials in one process, as programs of many runs each (vectorized.py)."""

    def __init__(self, experiment: str, flags: Sequence[str] = (), at_once: int = 8):
        """Finds an experiment, as `Command`; it uses all devices.

        Raises:
            UsageError: there is no such experiment, it has no `recipe`, or the flags are bad.
        """
        super().__init__(experiment, flags)
        self.at_once = at_once
        if not hasattr(self.module, "recipe"):
            raise UsageError(f"{self.name}: has no `recipe`, which --vectorize needs")
        if parse(self.config, flags).profile:
            raise UsageError("--profile: traces one run; --vectorize trains several")

    def __call__(self, jobs: Sequence[Job]) -> list[str]:
        if len(jobs) == 1:
            return super().__call__(jobs)
        flags = json.dumps([self._flags_of(job) for job in jobs])
        code, log = self._run(["-c", VECTORIZED, self.name, flags], jobs)
        if code:
            return [_state(code, log)] * len(jobs)
        # A run that diverged has no bundle.
        done = [(run_of(job.folder) / "model").is_dir() for job in jobs]
        return ["complete" if complete else "diverged" for complete in done]


def _follow(process: subprocess.Popen, jobs: Sequence[Job]) -> bool:
    """Waits for a process, and shows each new epoch to the jobs' watches; whether one ended it."""
    seen = [len(rows_of(job.folder)) for job in jobs]
    while process.poll() is None:
        time.sleep(POLL)
        for i, job in enumerate(jobs):
            rows = rows_of(job.folder)
            for row in rows[seen[i] :]:
                if job.watch(row):
                    process.terminate()
                    process.wait()
                    return True
            seen[i] = len(rows)
    return False


def _state(code: int, log: Path) -> str:
    """The state in which a process ended, from its exit code and its last line."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
    if code == 0:
        return "complete"
    if code == DivergedError.exit_code:
        return "diverged"
    if code in (-9, 137) or (code == 1 and "memory" in lines[-1]):
        return "out of memory"
    if code in (130, 143, -2, -15):
        raise Interrupted(code if code > 0 else 128 - code)
    if code == 1 or code < 0:
        return "failed"
    error = GearError(f"{log}: {lines[-1].removeprefix('error: ')}")
    error.exit_code = code
    raise error
