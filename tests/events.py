"""Reads what was written for TensorBoard, and the history that it should equal."""

import struct

import numpy as np

from jaxgear.training import history


def events(run):
    """The events of all files that TensorBoard would read, with checked checksums."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    for path in sorted((run / "tensorboard").glob("*tfevents*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = content[12 : 12 + length]
            for data, at in ((content[:8], 8), (event, 12 + length)):
                assert struct.unpack("<I", content[at : at + 4]) == (masked_crc32c(data),)
            content = content[16 + length :]
            yield Event.FromString(event)


def scalars(run):
    """Each scalar by name and step; fails if a step is there twice."""
    return _values(run, "simple_value")


def shown_histograms(run):
    """Each histogram by name and step, in order; fails if a step is there twice."""
    return _values(run, "histo")


def _values(run, kind):
    found = {}
    for event in events(run):
        for value in event.summary.value:
            if value.HasField(kind):
                assert (value.tag, event.step) not in found, "a step twice"
                found[value.tag, event.step] = getattr(value, kind)
    return found


def as_shown(figures):
    """Figures as TensorBoard has them: seconds and those of the test rounded to float32."""
    rounded = {key for key in figures if key[0] == "seconds" or key[0].startswith("test_")}
    return figures | {key: float(np.float32(figures[key])) for key in rounded}


def of_history(run):
    """Every figure of history.csv by name and epoch."""
    rows = history.from_csv((run / "history.csv").read_text())
    names = [name for name in history.FIELDS if name != "epoch"]
    return {(name, row.epoch): getattr(row, name) for row in rows for name in names}
