"""Makes small runs with pictures to review, and serves them."""

import contextlib
import hashlib
import http.client
import json
import socket
import threading
import time
from pathlib import Path

import numpy as np
import PIL.Image
import uvicorn
from made_runs import write_run
from small_bundle import CLASSES, make_bundle

from jaxgear.serving.review.opening import open_session
from jaxgear.serving.review.page import app

OURS = {"x-jaxgear": "1"}


def write_picture(path: Path, seed: int, size=(24, 18)) -> str:
    """A PNG of random colours; returns its sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), np.uint8)
    PIL.Image.fromarray(pixels).resize(size, PIL.Image.Resampling.NEAREST).save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_with_pictures(folder: Path, each=4, classes=CLASSES, model=False) -> Path:
    """A run folder with `each` pictures of every class in FOLDER/data; returns FOLDER/run."""
    for label, name in enumerate(classes):
        for number in range(each):
            write_picture(folder / "data" / name / f"{number:03d}.png", 1000 * label + number)
    run = run_of(folder / "run", folder / "data")
    if model:
        make_bundle(classes=tuple(classes)).save(run / "model")
    return run


def run_of(run: Path, data: Path) -> Path:
    """A run folder without a model, on the pictures DATA/<class>/<file>."""
    rows = []
    for path in sorted(data.glob("*/*.*")):
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        row = {"path": path.relative_to(data).as_posix(), "sha256": sha256, "group": sha256}
        rows.append(row | {"class": path.parent.name, "side": "train"})
    classes = sorted({row["class"] for row in rows})
    splits = {"fingerprint": "f" * 64, "classes": classes, "pictures": rows}
    write_run(run, data=str(data))
    (run / "splits.json").write_text(json.dumps(splits))
    return run


class Client:
    """A tab: asks a server, and remembers the set that it shows."""

    def __init__(self, port: int):
        self.port = port
        self.about = json.loads(self.ask("/set")[1])

    def ask(self, path, body=None, method=None, headers=OURS):
        """Status, content and headers of one answer."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port)) as connection:
            connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
            response = connection.getresponse()
            return response.status, response.read(), dict(response.getheaders())

    def get(self, path):
        """The JSON of a good answer."""
        status, content, _ = self.ask(path)
        assert status == 200, content
        return json.loads(content)

    def decide(self, *pictures):
        """Status and JSON of a request with decisions."""
        body = json.dumps({"set": self.about["set"], "pictures": pictures})
        status, content, _ = self.ask("/decide", body)
        return status, json.loads(content)

    def pictures(self, query="from=0"):
        """The pictures of a page."""
        return self.get(f"/list?{query}")["pictures"]


@contextlib.contextmanager
def serving(session):
    """The port of a server of a session in this process."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        application = app.build(session, "a run <b>", "127.0.0.1")
        config = uvicorn.Config(
            application, http="h11", ws="none", lifespan="off", log_level="warning"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
            session.close()


@contextlib.contextmanager
def reviewing(run, new=(), by="ana", **more):
    """A client of a review that is served in this process."""
    session, _ = open_session(run, [str(source) for source in new], by=by, **more)
    with serving(session) as port:
        yield Client(port)
