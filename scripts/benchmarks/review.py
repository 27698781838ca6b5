"""Times `jaxgear review` on many pictures: its start, its first page, its memory.

    python -m scripts.benchmarks.review RUN --count 100000

RUN is a run on the drawn set, or on any folder that is still there. Its pictures are linked again
and again until there are as many as asked for, in a copy of the run whose splits.json names them
all, and once more as new pictures. The last line is JSON, for both:

    start_seconds    from the command to its address, imports and the model included
    page_seconds     the page, its first list, and all 60 thumbnails, over 6 connections
    jump_seconds     the same for a page in the middle, which nobody has seen yet
    decide_seconds   one decision, on disk
    start_mb, page_mb   memory of the process (resident), after its start and after both pages
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

CONNECTIONS = 6  # of a browser to one server


def make(run: Path, folder: Path, count: int) -> Path:
    """A copy of a run with `count` pictures, which are links to its own."""
    from jaxgear.evaluation.finished import FinishedRun
    from jaxgear.serving.review.pictures import of_run

    pictures = of_run(FinishedRun.read(run))
    copy, data = folder / "run", folder / "data"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints", "corrections.csv"))
    splits = json.loads((copy / "splits.json").read_text())
    rows = {row["path"]: row for row in splits["pictures"]}
    linked = []
    for number in range(count):
        index = number % len(pictures)
        old = Path(pictures.paths[index])
        new = old.with_name(f"{number // len(pictures):05d}-{old.name}")
        (data / new).parent.mkdir(parents=True, exist_ok=True)
        (data / new).hardlink_to(_here(pictures.file(index), folder))
        linked.append(rows[str(old)] | {"path": str(new)})
    splits["pictures"] = linked
    (copy / "splits.json").write_text(json.dumps(splits))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"data": str(data)}))
    return copy


def _here(file: str, folder: Path) -> Path:
    """A copy of a file on the file system of `folder`, so that it can be linked."""
    copy = folder / "originals" / file.lstrip("/").replace("/", "_")
    if not copy.exists():
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, copy)
    return copy


@contextlib.contextmanager
def served(arguments: list[str]) -> Iterator[tuple[int, int, float]]:
    """A server's port and process, and the seconds until it said its address."""
    command = [sys.executable, "-m", "jaxgear", "review", *arguments, "--port", "0"]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout:
                if found := re.match(r"http://127\.0\.0\.1:(\d+)", line):
                    yield int(found[1]), process.pid, time.perf_counter() - begin
                    return
            raise SystemExit(f"no server: {command}")
        finally:
            process.terminate()


def ask(port: int, path: str, body: bytes | None = None) -> bytes:
    """The answer to one request; the thread keeps no connection."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        headers = {"x-jaxgear": "1"}
        connection.request("GET" if body is None else "POST", path, body, headers)
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise SystemExit(f"{path}: {response.status} {content[:200]!r}")
        return content


def page(port: int, first: int, *, whole: bool) -> tuple[float, list[dict[str, Any]]]:
    """Seconds until a page with all its thumbnails is there, and its pictures.

    `whole`: the HTML and its files too, as when a browser opens it.
    """
    begin = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        if whole:
            files = re.findall(r'(?:src|href)="([\w.]+)"', ask(port, "/").decode())
            list(pool.map(lambda path: ask(port, f"/{path}"), [*files, "set"]))
        pictures = json.loads(ask(port, f"/list?from={first}"))["pictures"]
        addresses = [f"/thumbnail/{picture['index']}" for picture in pictures]
        list(pool.map(lambda path: ask(port, path), addresses))
    return time.perf_counter() - begin, pictures


def memory(pid: int) -> int:
    """Resident memory of a process in MB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) >> 10


def measure(arguments: list[str], count: int) -> dict[str, Any]:
    """The figures of one command."""
    with served(arguments) as (port, pid, start):
        at_start = memory(pid)
        first, pictures = page(port, 0, whole=True)
        jump, _ = page(port, count // 2, whole=False)
        about = json.loads(ask(port, "/set"))
        decision = {"index": 0, "version": pictures[0]["version"], "action": "remove"}
        begin = time.perf_counter()
        ask(port, "/decide", json.dumps({"set": about["set"], "pictures": [decision]}).encode())
        decide = time.perf_counter() - begin
        time.sleep(5)  # the predictions of both pages
        return {
            "start_seconds": round(start, 2),
            "page_seconds": round(first, 2),
            "jump_seconds": round(jump, 2),
            "decide_seconds": round(decide, 3),
            "start_mb": at_start,
            "page_mb": memory(pid),
        }


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run_folder", type=Path, metavar="RUN")
    parser.add_argument("--count", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = make(arguments.run_folder, Path(folder), arguments.count)
        figures = {
            "pictures": arguments.count,
            "cores": len(os.sched_getaffinity(0)),
            "own": measure([str(run)], arguments.count),
            "new": measure(
                [str(run), f"{folder}/data", "--labels", f"{folder}/new.csv"], arguments.count
            ),
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
