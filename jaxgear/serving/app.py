"""The server behind the page: three files, and one address that takes an image.

It serves the person at this machine, and no web page that this person has open. Requests must name
this server by address (against DNS rebinding) and carry a header that other pages may not send
(against cross-site requests). Uploads are never written to disk, and no file is opened by a name
that a client chooses.
"""

import asyncio
import ipaddress
import re
from importlib import resources

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jaxgear.data.images import ImageError
from jaxgear.errors import GearError
from jaxgear.serving.answer import Classifier

MAX_BYTES = 20 * 2**20  # of one upload; data/images/decode.py limits the pixels
AT_ONCE = 2  # images that are decoded and classified at a time
UPLOAD_SECONDS = 60
HEADER = "x-jaxgear"
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


def build(classifier: Classifier, title: str, host: str) -> Starlette:
    """The application. `title` is shown escaped; `host` is the name that the server is bound to."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def page(request: Request) -> Response:
        return HTMLResponse(_file("page.html"))

    async def style(request: Request) -> Response:
        return Response(_file("page.css"), media_type="text/css")

    async def script(request: Request) -> Response:
        return Response(_file("page.js"), media_type="text/javascript")

    async def model(request: Request) -> Response:
        classes = list(classifier.bundle.classes)
        return JSONResponse({"title": title, "classes": classes, "max_bytes": MAX_BYTES})

    async def predict(request: Request) -> Response:
        if HEADER not in request.headers:
            return _refuse(403, f"the header {HEADER} is missing")
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                data = await _body(request)
        except TimeoutError:
            return _refuse(408, "the upload took too long")
        except ClientDisconnect:
            return _refuse(400, "the upload was cut off")
        if data is None:
            return _refuse(413, f"larger than {MAX_BYTES // 2**20} MB")
        try:
            async with turn:
                return JSONResponse(await run_in_threadpool(classifier.answer, data))
        except ImageError as error:
            return _refuse(422, error.reason)
        except MemoryError:
            return _refuse(503, "the server has too little memory for this picture")
        except GearError as error:
            return _refuse(500, str(error))

    routes = [
        Route("/", page),
        Route("/page.css", style),
        Route("/page.js", script),
        Route("/model", model),
        Route("/predict", predict, methods=["POST"]),
    ]
    app = Starlette(routes=routes)
    app.add_middleware(Guard, host=host)
    return app


class Guard:
    """Middleware: answers only requests to this server's address, from its own pages."""

    def __init__(self, app: ASGIApp, host: str):
        self.app = app
        self.host = host.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_ours(host):
            response = _refuse(421, "this server is reached by its address, not by this name")
        elif headers.get("origin", f"http://{host}") != f"http://{host}":
            response = _refuse(403, "a request from another page")
        else:
            response = self.app

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await response(scope, receive, guarded)

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header is an address or `localhost`, which DNS cannot point elsewhere."""
        name = re.sub(r":\d+$", "", host.lower()).strip("[]")
        if name in ("localhost", self.host):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


async def _body(request: Request) -> bytes | None:
    """The body of a request, or None as soon as it is too large."""
    try:
        if int(request.headers.get("content-length", 0)) > MAX_BYTES:
            return None
    except ValueError:
        return None
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


def _refuse(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": reason}, status)


def _file(name: str) -> str:
    return resources.files("jaxgear.serving").joinpath(name).read_text(encoding="utf-8")
