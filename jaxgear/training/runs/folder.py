"""The files that describe a run: written for a new run folder, compared when it is resumed."""

import datetime
import errno
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxgear.data.dataset import Dataset
from jaxgear.data.recorded import write_splits
from jaxgear.errors import CheckpointError, UsageError
from jaxgear.files import read_json, write_json, write_text
from jaxgear.training.runs.environment import environment


def new_folder(
    out: Path,
    name: str,
    config: dict[str, Any],
    dataset: Dataset,
    source: str,
    made_of: Mapping[str, str | None],
) -> Path:
    """Makes OUT/<name>-<time>[-n] with the files that describe the run; returns it.

    Raises:
        UsageError: OUT cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        # Fill it under another name, so that a run folder always has its description.
        with tempfile.TemporaryDirectory(prefix=".new-", dir=out) as new:
            folder = Path(new) / name
            folder.mkdir()
            write_json(folder / "config.json", config)
            write_json(folder / "environment.json", {**environment(), **made_of})
            write_splits(folder, dataset)
            write_text(folder / "experiment.py", source)
            return _move_in(folder, out, name)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written ({error.strerror})") from error


def check_made_of(path: Path, made_of: Mapping[str, str | None], allow_data_change: bool) -> None:
    """Checks that a run goes on with what it was started with.

    Args:
        made_of: hashes of what a run is trained on beside its set, by flag: the backgrounds that it
            pastes on, the pretrained weights; None: nothing.

    Raises:
        CheckpointError: a hash is another one; of backgrounds, unless `allow_data_change`.
    """
    recorded = read_json(path / "environment.json")
    for flag, sha256 in made_of.items():
        may_change = flag == "backgrounds"
        if recorded.get(flag, sha256) == sha256 or (may_change and allow_data_change):
            continue
        otherwise = ", or continue with --allow-data-change" if may_change else ""
        raise CheckpointError(
            f"{path}: this run was trained with other {flag}; name them with --{flag}{otherwise}"
        )


def _move_in(folder: Path, out: Path, name: str) -> Path:
    stem = f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    for number in range(1, 10_000):
        path = out / (stem if number == 1 else f"{stem}-{number}")
        try:
            return folder.rename(path)
        except OSError as error:  # a run folder is never empty, so `rename` never replaces one
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
    raise UsageError(f"--out {out}: it holds thousands of runs named {stem}")


def resumption(
    path: Path, config: dict[str, Any], source: str, changes: list[str], tested: bool
) -> dict[str, Any]:
    """The differences between the run in `path` and its resumption, for `resumed.json`.

    Prints a note on each difference that can change the run's numbers.
    """
    now, then = environment(), read_json(path / "environment.json")
    stored = read_json(path / "config.json")
    code = [
        f"{name} {version} (now {now['versions'].get(name)})"
        for name, version in then["versions"].items()
        if version != now["versions"].get(name)
    ]
    if then["commit"] != now["commit"]:
        code.append(f"commit {then['commit']} (now {now['commit']})")
    kept = (path / "experiment.py").read_text(encoding="utf-8")
    if source != kept:
        code.append("an experiment file that differs from the run's experiment.py")
    notes = []
    if code:
        notes.append(f"the code has changed since the run, numbers may differ: {'; '.join(code)}")
    if config["epochs"] != stored["epochs"]:
        notes.append(
            f"{config['epochs']} epochs instead of {stored['epochs']}: schedules stretch to the "
            "new length; finished epochs had the rates of the old length"
        )
        if tested:
            notes.append("the test split was used before: the next test figure is a second look")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    changed = {key: [stored.get(key), v] for key, v in config.items() if stored.get(key) != v}
    return now | {"config": changed, "code": code, "pictures": changes, "tested": tested}
