"""The page of `serve`: three files, and one address that takes an image.

Uploads are never written to disk, and no file is opened by a name that a client chooses.
"""

import asyncio

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from jaxgear.serving.answer import Classifier
from jaxgear.serving.guard import body_of, page

MAX_BYTES = 20 * 2**20  # of one upload; data/images/decode.py limits the pixels
AT_ONCE = 2  # images that are decoded and classified at a time


def build(classifier: Classifier, title: str, host: str) -> Starlette:
    """The application. `title` is shown escaped; `host` is the name that the server is bound to."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def model(request: Request) -> Response:
        classes = list(classifier.bundle.classes)
        return JSONResponse({"title": title, "classes": classes, "max_bytes": MAX_BYTES})

    async def predict(request: Request) -> Response:
        data = await body_of(request, MAX_BYTES)
        async with turn:
            return JSONResponse(await run_in_threadpool(classifier.answer, data))

    routes = [Route("/model", model), Route("/predict", predict, methods=["POST"])]
    return page("jaxgear.serving", routes, host)
