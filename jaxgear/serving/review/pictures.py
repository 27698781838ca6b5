"""The pictures to review and their order, without opening any: those of a run, or new ones.

A queue is a CSV that says which to review first, and why. It has a column `path`; `label`,
`suggested`, `kind`, `score`, `class` and `probability` are shown if they are there. With `left`,
`top`, `right` and `bottom` a row is about a crop, whose path is its address (data/crops).
`jaxgear predict --csv` and `jaxgear clean --csv` write such files.
"""

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int

from jaxgear.data import crops
from jaxgear.data.folder import Refused
from jaxgear.data.labels import ADDED, added_file, list_source, read_labels
from jaxgear.data.sources import default_source, drawn_set, find_pictures
from jaxgear.errors import CheckpointError, DataError, UsageError
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.files import read_regular
from jaxgear.paths import expanded, is_address
from jaxgear.text import printable, text_of

UNKNOWN = -1  # no label
QUEUE_BYTES = 2**30
_LONGEST = 200  # characters of a cell that are shown
_COLUMNS = {  # column -> field of `Reason`
    **{name: name for name in ("label", "suggested", "kind", "score", "probability")},
    "class": "predicted",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """What a queue says about a picture, as text; "" where it says nothing."""

    label: str = ""
    suggested: str = ""
    kind: str = ""
    score: str = ""
    predicted: str = ""  # its column `class`
    probability: str = ""


@dataclass(frozen=True, eq=False)
class Pictures:
    """N pictures in the order of review. Only these files are ever opened."""

    root: str  # absolute path of the folder that `paths` start from
    paths: tuple[str, ...]  # relative, as on disk
    labels: Int[np.ndarray, " N"]  # index of the class, or UNKNOWN
    sha256: tuple[str, ...]  # hex, as the run recorded it; "" unknown
    new: bool  # outside the run's data
    folders: tuple[str, ...]  # absolute paths of what the user named: nothing is written below
    refused: dict[int, str] = field(default_factory=dict)  # files that are not opened: why
    reasons: dict[int, Reason] = field(default_factory=dict)  # of a queue

    def __len__(self) -> int:
        return len(self.paths)

    def file(self, index: int) -> str:
        """The absolute path of a picture."""
        return os.path.join(self.root, self.paths[index])  # noqa: PTH118 - 100,000 strings

    def name(self, index: int) -> str:
        """`path` of a picture in the corrections file: absolute for a new one."""
        return printable(self.file(index) if self.new else self.paths[index])

    def shown(self, index: int) -> str:
        """A short name on one line."""
        return printable(self.paths[index])


def of_run(run: FinishedRun, data: str | None = None) -> Pictures:
    """The pictures of a run, by class, where its config or `data` says that they are.

    Raises:
        DataError: they are not there.
        UsageError: the data are no folder of files.
        CheckpointError: splits.json names a file outside the data folder.
    """
    place = data or run.config.get("data") or default_source()
    if str(place).startswith("tfds:"):
        raise UsageError(f"{place}: a set without files; name their folder with --data FOLDER")
    root = _root(str(place))
    added = _added(run, root)
    for picture in run.pictures:
        path = PurePosixPath(picture.path)
        if path.is_absolute() or ".." in path.parts:
            raise CheckpointError(
                f"{run.path / 'splits.json'}: {printable(picture.path)}: not below the data folder"
            )
    index = {name: label for label, name in enumerate(run.classes)}
    rows = sorted(run.pictures, key=lambda picture: index.get(picture.name, UNKNOWN))
    if rows and not any(Path(root, picture.path).is_file() for picture in rows):
        what = "" if data else " as its config says (a relative path counts from where it started)"
        raise DataError(
            f"{place}: the pictures of {run.path} are not there{what}; name their folder with "
            "--data FOLDER"
        )
    return Pictures(
        root=root,
        paths=tuple(added.get(picture.sha256, picture.path) for picture in rows),
        labels=np.array([index.get(picture.name, UNKNOWN) for picture in rows], np.int32),
        sha256=tuple(picture.sha256 for picture in rows),
        new=False,
        folders=(root,),
    )


def _root(place: str) -> str:
    """The absolute path of the folder on this machine that holds the pictures of a set."""
    if place.split(":")[0] == "drawn":
        return os.path.abspath(drawn_set(place))  # noqa: PTH100
    if is_address(place) or Path(expanded(place)).is_file():  # a table or an archive
        return os.path.abspath(list_source(place)[0])  # noqa: PTH100
    return os.path.abspath(expanded(place))  # noqa: PTH100


def _added(run: FinishedRun, root: str) -> dict[str, str]:
    """sha256 -> path from `root` of the pictures that the run's corrections added."""
    labels = run.config.get("labels")
    if not labels or not Path(labels).is_file():
        return {}
    ours = {p.sha256 for p in run.pictures if p.path.startswith(ADDED)}
    rows = [row for row in read_labels(Path(labels)) if row.action == "add" and row.sha256 in ours]
    files = ((row.sha256, added_file(row.path, Path(labels).parent, Path(root))) for row in rows)
    return {sha256: os.path.relpath(file.absolute(), root) for sha256, file in files}


def of_sources(sources: Iterable[str]) -> Pictures:
    """New pictures: files, folders and patterns, as `jaxgear predict` takes them, in its order.

    Raises:
        DataError: a folder without files, or a pattern without a match.
    """
    sources = list(sources)
    found = find_pictures(sources)
    files = [
        os.path.abspath(file.path if isinstance(file, Refused) else file)  # noqa: PTH100
        for file in found
    ]
    root = os.path.commonpath({os.path.dirname(file) for file in files})  # noqa: PTH120
    start = len(root.rstrip(os.sep)) + 1
    named = {os.path.abspath(expanded(os.fspath(source))) for source in sources}  # noqa: PTH100
    return Pictures(
        root=root,
        paths=tuple(file[start:] for file in files),
        labels=np.full(len(files), UNKNOWN, np.int32),
        sha256=("",) * len(files),
        new=True,
        folders=tuple(sorted(name for name in named if Path(name).is_dir())),
        refused={i: file.reason for i, file in enumerate(found) if isinstance(file, Refused)},
    )


def read_queue(path: Path) -> dict[str, Reason]:
    """The rows of a queue by path, in order; of a path that comes twice the first row counts.

    Raises:
        UsageError: the file cannot be read.
        DataError: it is no CSV with a column `path`, or has no rows.
    """
    try:
        text = read_regular(path, QUEUE_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"--queue {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"--queue {path}: not a CSV in UTF-8") from None
    rows = csv.DictReader(io.StringIO(text, newline=""), restval="")
    queue: dict[str, Reason] = {}
    try:
        columns = rows.fieldnames or ()
        if "path" not in columns:
            raise DataError(f"--queue {path}: a CSV with a column `path` is needed")
        shown, of_crops = _COLUMNS.keys() & columns, set(crops.SIDES) <= set(columns)
        for row in rows:
            if not row["path"]:
                raise DataError(f"--queue {path}, line {rows.line_num}: no path")
            cells = {_COLUMNS[name]: printable(row[name][:_LONGEST]) for name in shown}
            if not (name := crops.address_in(row) if of_crops else row["path"]):
                raise DataError(f"--queue {path}, line {rows.line_num}: no box")
            queue.setdefault(name, Reason(**cells))
    except csv.Error as error:
        raise DataError(f"--queue {path}, line {rows.line_num}: {error}") from None
    if not queue:
        raise DataError(f"--queue {path}: no rows")
    return queue


def in_order(
    pictures: Pictures, queue: dict[str, Reason], path: Path
) -> tuple[Pictures, list[str]]:
    """The pictures of a queue in its order, and its paths that name none of `pictures`.

    A path counts from the data folder, from a folder of new pictures, or from here. A crop of new
    pictures is a picture of its own.

    Raises:
        DataError: it names none of the pictures.
    """
    index = {text_of(pictures.file(i)): i for i in range(len(pictures))}
    bases = (pictures.root, *pictures.folders, os.getcwd())  # noqa: PTH109
    order: dict[tuple[int, crops.Box | None], Reason] = {}
    unknown = []
    for name, reason in queue.items():
        photograph, box = crops.parted(name)
        # Joined to an absolute path, a base changes nothing.
        places = [os.path.normpath(os.path.join(base, photograph)) for base in bases]  # noqa: PTH118
        found = next((index[place] for place in places if place in index), None)
        if found is None or (box and not pictures.new):
            unknown.append(printable(name))
        else:
            order.setdefault((found, box), reason)
    if not order:
        what = "new pictures" if pictures.new else "run's pictures"
        raise DataError(
            f"--queue {path}: none of its {len(queue)} paths is one of the {what}, for example "
            f"{unknown[0]}; they count from {pictures.root}"
        )
    rows = [found for found, _ in order]
    return replace(
        pictures,
        paths=tuple(
            pictures.paths[i] if box is None else crops.address(pictures.paths[i], box)
            for i, box in order
        ),
        labels=pictures.labels[rows],
        sha256=tuple(pictures.sha256[i] for i in rows),
        refused={k: pictures.refused[i] for k, i in enumerate(rows) if i in pictures.refused},
        reasons=dict(enumerate(order.values())),
    ), unknown
