"""Writes a run for TensorBoard: RUN/tensorboard, for `tensorboard --logdir results/runs`.

Each figure of an epoch is a scalar of its name, and the epoch is its step. Scalars are float32, as
losses, accuracies and rates of history.csv are: those are equal to the bit. Seconds and the figures
of the test are rounded. (The format also has doubles, but TensorBoard's own loader shows none.)
Histograms (histograms.py) have the epoch as their step too.
"""

import collections
import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import HistogramProto, Summary
from tensorboardX.record_writer import masked_crc32c

from jaxgear.tracking import histograms
from jaxgear.tracking.figures import figures, plots
from jaxgear.training.history import Row


class Tracker:
    """Appends epochs to one event file. The first call writes the whole history to a new file.

    So no step is there twice: the files of earlier processes are removed, and a TensorBoard that
    has read them is told to forget them.
    """

    def __init__(self) -> None:
        self._file: Path | None = None
        self._written: set[tuple[str, int]] = set()  # figures and histograms

    def __call__(self, run: Path, rows: Sequence[Row], test: dict[str, Any] | None) -> None:
        """Writes what is not written yet, and the plots of a tested run."""
        if self._file is None:
            self._file, self._written = _new_file(run / "tensorboard"), set()
        path, self._file = self._file, None  # a call that fails lets the next one begin anew
        found, now = _values(run, rows, test), time.time()
        by_step = collections.defaultdict(list)
        for name, step in sorted(found.keys() - self._written):
            by_step[step].append(found[name, step])
        if test is not None:
            by_step[rows[-1].epoch] += map(_image, plots(run))
        content = b""
        for step, values in sorted(by_step.items()):
            later = sum(row.seconds for row in rows if row.epoch > step)
            content += _record(wall_time=now - later, step=step, summary=Summary(value=values))
        with path.open("ab") as file:
            file.write(content)
        self._file, self._written = path, set(found)


def _values(
    run: Path, rows: Sequence[Row], test: dict[str, Any] | None
) -> dict[tuple[str, int], Summary.Value]:
    """The figures and histograms of a run, by name and epoch."""
    scalars = {
        (name, epoch): Summary.Value(tag=name, simple_value=value)
        for (name, epoch), value in figures(rows, test).items()
    }
    return scalars | {
        (name, epoch): Summary.Value(tag=name, histo=_histogram(found))
        for epoch, named in histograms.read(run).items()
        for name, found in named.items()
    }


def _histogram(found: histograms.Histogram) -> HistogramProto:
    """A bucket reaches from the limit before it to its own; the first one, empty, ends at `low`."""
    counts = found["counts"]
    return HistogramProto(
        min=found["low"],
        max=found["high"],
        num=sum(counts),
        sum=found["sum"],
        sum_squares=found["sum_squares"],
        bucket_limit=np.linspace(found["low"], found["high"], len(counts) + 1).tolist(),
        bucket=[0, *counts],
    )


def _new_file(folder: Path) -> Path:
    """A new event file that takes the place of all others in a folder."""
    folder.mkdir(exist_ok=True)
    old = list(folder.glob("events.out.tfevents.*"))
    # TensorBoard goes on to the file whose name comes next; the fourth word is a time in seconds.
    number = max([int(time.time()), *(1 + int(path.name.split(".")[3]) for path in old)])
    for path in old:
        path.unlink()
    path = folder / f"events.out.tfevents.{number:010d}.{os.getpid()}.jaxgear"
    start = SessionLog(status=SessionLog.START)  # forget what is known from step 0 on
    now = time.time()
    path.write_bytes(
        _record(wall_time=now, file_version="brain.Event:2")
        + _record(wall_time=now, step=0, session_log=start)
    )
    return path


def _record(**fields: object) -> bytes:
    """An event in the format of TFRecord: its length and the event, each with a checksum."""
    event = Event(**fields).SerializeToString()
    length = struct.pack("<Q", len(event))
    checksums = [struct.pack("<I", masked_crc32c(data)) for data in (length, event)]
    return length + checksums[0] + event + checksums[1]


def _image(path: Path) -> Summary.Value:
    png = path.read_bytes()
    width, height = struct.unpack(">II", png[16:24])
    image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
    return Summary.Value(tag=path.stem, image=image)
