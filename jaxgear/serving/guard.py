"""What the local pages share: how their files are served, and the requests that they refuse.

A page serves the person at this machine, and no web page that this person has open. Requests must
name this server by address (against DNS rebinding), and those that send something carry a header
that other pages may not send (against cross-site requests).
"""

import asyncio
import ipaddress
import re
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import PurePath

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jaxgear.data.images import ImageError
from jaxgear.errors import DataError, GearError
from jaxgear.text import printable

UPLOAD_SECONDS = 60
HEADER = "x-jaxgear"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
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


def page(package: str, routes: Iterable[Route], host: str) -> Starlette:
    """The application of a page: the files of a package and routes, behind `Guard`.

    A route may raise: the client gets a refusal. `host` is the name that the server is bound to.
    """
    errors = (Refusal, GearError, MemoryError)
    app = Starlette(
        routes=[*_files(package), *routes], exception_handlers=dict.fromkeys(errors, _refused)
    )
    app.add_middleware(Guard, host=host)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    """The refusal that an error of a route means."""
    match error:
        case Refusal():
            return refuse(error.status, str(error))
        case ImageError():
            return refuse(422, error.reason)
        case DataError():
            return refuse(422, str(error))
        case MemoryError():
            return refuse(503, "the server has too little memory for this picture")
    return refuse(500, str(error))


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
            response = refuse(421, "this server is reached by its address, not by this name")
        elif headers.get("origin", f"http://{host}") != f"http://{host}":
            response = refuse(403, "a request from another page")
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


class Refusal(Exception):
    """A request that is refused: an HTTP status, and the reason as its message."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


async def body_of(request: Request, most: int) -> bytes:
    """The body of a request that our own page sent, of at most `most` bytes.

    Raises:
        Refusal: without our header (403), too large (413), too slow (408), or cut off (400).
    """
    if HEADER not in request.headers:
        raise Refusal(403, f"the header {HEADER} is missing")
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            data = await _read(request, most)
    except TimeoutError:
        raise Refusal(408, "the upload took too long") from None
    except ClientDisconnect:
        raise Refusal(400, "the upload was cut off") from None
    if data is None:
        large = f"{most >> 20} MB" if most >> 20 else f"{most >> 10} kB"
        raise Refusal(413, f"larger than {large}")
    return data


async def _read(request: Request, most: int) -> bytes | None:
    """The body of a request, or None as soon as it is too large."""
    try:
        if int(request.headers.get("content-length", 0)) > most:
            return None
    except ValueError:
        return None
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            return None
        parts.append(part)
    return b"".join(parts)


def refuse(status: int, reason: str) -> JSONResponse:
    """The answer to a refused request."""
    return JSONResponse({"error": printable(reason)}, status)


def _files(package: str) -> Iterator[Route]:
    """The routes of files: `/` is page.html of a package; its .css and .js files have theirs."""
    for path in resources.files(package).iterdir():
        suffix = PurePath(path.name).suffix
        if suffix in _KINDS:
            content = path.read_bytes()

            async def file(request: Request, content=content, kind=_KINDS[suffix]) -> Response:
                return Response(content, media_type=kind)

            yield Route("/" if path.name == "page.html" else f"/{path.name}", file)
