"""Flags of an experiment: a config from the command line."""

import contextlib
import dataclasses
import io
import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxgear.errors import UsageError
from jaxgear.experiment.config import C, check_resumed, stored_config

LATEST = "latest"


def parse(config: type[C], argv: Sequence[str]) -> C:
    """A config from flags; with `--resume`, the run's config, which flags must not contradict.

    Raises:
        UsageError: a flag is unknown (the message has the nearest name), its value is bad, or a
            resumed run has another value for it.
    """
    chosen = _parse(config, argv, None)
    run = chosen.resume
    if run == LATEST:
        run = str(latest_run(config, Path(chosen.out)) or "")
        chosen = dataclasses.replace(chosen, resume=run)
    if run:
        stored = stored_config(config, run)
        chosen = dataclasses.replace(_parse(config, argv, stored), resume=run)
        chosen = check_resumed(chosen, stored)
    chosen.check()
    return chosen


def latest_run(config: type, out: Path) -> Path | None:
    """The newest run in the folder `out` of the file that defines `config`; None: there is none."""
    file = getattr(sys.modules.get(config.__module__), "__file__", None)
    name = re.escape(Path(file).stem) if file else "notebook"
    runs = []
    for folder in out.glob("*"):
        match = re.fullmatch(rf"{name}-(\d{{8}}-\d{{6}})(?:-(\d+))?", folder.name)
        if match and (folder / "config.json").is_file():
            runs.append((match[1], int(match[2] or 1), folder))
    return max(runs)[2] if runs else None


def _parse(config: type[C], argv: Sequence[str], default: C | None) -> C:
    import tyro

    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            default = default or config()
            return tyro.cli(config, prog=_typed(), args=list(argv), default=default).expanded()
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise UsageError(_one_line(message.getvalue()) + _to_edit(config, argv)) from None


def _typed() -> str:
    """The command as people type it: `python -m experiments.scratch`, `python mine.py`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python {sys.argv[0]}" if spec is None else f"python -m {spec.name}"


# Start of a line of an experiment file -> flags that people try to change it.
_LINES = {
    r"\s*optimizer=": ("optimizer", "optim"),
    r"\s*model = |\s*model=": ("model", "network", "arch", "layers"),
    r"\s*loss=": ("loss",),
    r"\s*rate=": ("lr", "learning-rate", "schedule", "scheduler"),
    r"\s*augment=": ("augment", "augmentation"),
}
DECISIONS = {flag: line for line, flags in _LINES.items() for flag in flags}


def _to_edit(config: type, argv: Sequence[str]) -> str:
    """A hint at the line of the experiment file to edit instead of an unknown flag, or ""."""
    known = {field.name for field in dataclasses.fields(config)}
    names = [word[2:].partition("=")[0].replace("_", "-") for word in argv if word[:2] == "--"]
    file = getattr(sys.modules.get(config.__module__), "__file__", None)
    for name in names:
        if name.replace("-", "_") in known or name not in DECISIONS or file is None:
            continue
        lines = Path(file).read_text(encoding="utf-8").splitlines()
        number = next((n for n, line in enumerate(lines, 1) if re.match(DECISIONS[name], line)), 1)
        return f"; --{name} is no flag: change it in {file}, line {number}"
    return ""


def _one_line(box: str) -> str:
    """tyro's framed message as one line: the error, and the nearest flag."""
    lines = [line.strip("╭╮╰╯│─ \n") for line in box.splitlines()]
    lines = [line for line in lines[1:] if line.strip("-")]  # a frame without Unicode is dashes
    message = lines[0] if lines else "bad flags"
    for line, following in itertools.pairwise(lines):
        if line.startswith("Perhaps you meant"):
            message += f"; perhaps you meant {following.split()[0]}"
    return message
