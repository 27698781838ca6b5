"""The task `input` of scripts/bench.py: files -> letterboxed pixels in memory."""

import argparse
import os
import tempfile
import time
from typing import Any
from unittest import mock


def read_pictures(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second with an empty cache, and again with the filled cache.

    The work is that at the start of a run: read and hash every file, decode it unless it is cached,
    compute its descriptor for near-duplicates, and letterbox it.
    """
    if not arguments.data:
        raise SystemExit("input: --data FOLDER is needed")
    from jaxgear.data.folder import pixels, read_folder

    seconds = []
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, JAXGEAR_CACHE=cache):
        for _ in range(2):
            start = time.perf_counter()
            folder = read_folder(arguments.data, size=arguments.size)
            images = pixels(folder, arguments.size)
            seconds.append(time.perf_counter() - start)
    cold, cached = (len(images) / duration for duration in seconds)
    return {
        "images": len(images),
        "images_per_second": round(cold, 1),
        "cached_images_per_second": round(cached, 1),
    }
