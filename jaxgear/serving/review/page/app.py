"""The server behind the page of `review`: routes, and requests that are refused.

A picture is named by its index in the session; no client can name a file. Nothing is written but
rows of the corrections file.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from jaxgear.serving.guard import Refusal, body_of, page
from jaxgear.serving.review.page.requests import MOST, decisions_of, picture_index, whole_number
from jaxgear.serving.review.predictions import REFUSED, UNKNOWN
from jaxgear.serving.review.session import Session
from jaxgear.text import printable

MAX_BYTES = 2**18  # of one request
PAGE = 60  # pictures of one page
AT_ONCE = 2  # pictures that are decoded at a time
# One key for each of the first classes; the page uses g, m, u and x itself.
KEYS = "1234567890abcdefhijklnopqrstvwyz"


def build(session: Session, title: str, host: str) -> Starlette:
    """The application. `title` is shown as text; `host` is the name that the server is bound to."""
    turn = asyncio.Semaphore(AT_ONCE)
    about = _about(session, title)

    async def whole(request: Request) -> Response:
        return JSONResponse(about)

    def listed(request: Request) -> Response:  # Starlette runs plain functions in threads
        return JSONResponse(_page(session, request.query_params))

    def states(request: Request) -> Response:
        return JSONResponse(_states(session, request.query_params))

    def details(request: Request) -> Response:
        return JSONResponse(_details(session, _path_index(session, request)))

    def image(content: Callable[[Request, int], bytes]) -> Callable[[Request], Any]:
        """A route that answers with a JPEG of the picture with an index."""

        async def route(request: Request) -> Response:
            index = _path_index(session, request)
            async with turn:
                jpeg = await run_in_threadpool(content, request, index)
            return Response(jpeg, media_type="image/jpeg")

        return route

    async def decide(request: Request) -> Response:
        body = await body_of(request, MAX_BYTES)
        return await run_in_threadpool(_decide, session, about["set"], body)

    routes = [
        Route("/set", whole),
        Route("/list", listed),
        Route("/states", states),
        Route("/picture/{index}", details),
        Route("/thumbnail/{index}", image(lambda request, index: session.files.thumbnail(index))),
        Route("/large/{index}", image(lambda request, index: session.files.jpeg(index))),
        Route("/photograph/{index}", image(lambda request, index: session.files.photograph(index))),
        Route("/map/{index}", image(lambda request, index: _heat_map(session, request, index))),
        Route("/decide", decide, methods=["POST"]),
    ]
    return page("jaxgear.serving.review.page", routes, host)


def _about(session: Session, title: str) -> dict[str, Any]:
    """What does not change while the server runs."""
    pictures = session.pictures
    identity = hashlib.sha256()
    for path in (session.decisions.path.resolve(), pictures.root, *pictures.paths):
        identity.update(os.fsencode(path) + b"\0")
    return {
        "set": identity.hexdigest(),  # of a page that outlives its server
        "title": printable(title),
        "classes": list(session.classes),
        "keys": list(KEYS[: len(session.classes)]),
        "count": len(pictures),
        "new": pictures.new,
        "ordered": bool(pictures.reasons),
        "predicts": session.predictions is not None,
        "file": printable(str(session.decisions.path)),
        "by": session.by,
        "page": PAGE,
    }


def _page(session: Session, query: Any) -> dict[str, Any]:
    """A page of pictures: those from one index on, or the last ones before it."""
    show = query.get("show", "all")
    if show not in ("all", "open", "done"):
        raise Refusal(422, "show is all, open or done")
    group = _group(session, query.get("group", ""))
    session.refresh()
    indices = session.matching(show, group)
    if (end := query.get("before")) is not None:
        last = int(indices.searchsorted(whole_number(end)))
        first = max(0, last - PAGE)
    else:
        first = int(indices.searchsorted(whole_number(query.get("from", "0"))))
        last = first + PAGE
    chosen = indices[first:last].tolist()
    if session.predictions is not None:
        session.predictions.want(chosen)
    return _progress(session) | {
        "first": first,
        "matching": len(indices),
        "pictures": [session.describe(index) for index in chosen],
        "groups": _groups(session),
    }


def _groups(session: Session) -> list[dict[str, Any]]:
    """The groups that have pictures, with their numbers."""
    groups = session.groups()
    named = [(name, label) for label, name in enumerate(session.classes)]
    named += [("?", UNKNOWN), ("none", REFUSED)]
    counts = [(label, name, int((groups == label).sum())) for name, label in named]
    return [{"group": g, "name": name, "count": count} for g, name, count in counts if count]


def _group(session: Session, text: str) -> int | None:
    if text in ("", str(UNKNOWN), str(REFUSED)):
        return int(text) if text else None
    if (label := whole_number(text)) >= len(session.classes):
        raise Refusal(422, "no such group")
    return label


def _states(session: Session, query: Any) -> dict[str, Any]:
    """The present states of pictures, for a page that is open."""
    session.refresh()
    numbers = query.get("of", "").split(",")[:MOST]
    indices = [picture_index(session, whole_number(text)) for text in numbers if text]
    return _progress(session) | {"pictures": [session.describe(index) for index in indices]}


def _progress(session: Session) -> dict[str, Any]:
    predictions = session.predictions
    return {"done": int(session.done.sum()), "fault": predictions and predictions.fault}


def _details(session: Session, index: int) -> dict[str, Any]:
    """A picture with all its probabilities, the likeliest first."""
    session.refresh()
    probs = None if session.predictions is None else session.predictions.wait(index, 5)
    found = session.describe(index)
    if probs is None:
        return found | {"classes": [], "side": None}
    order = (-probs).argsort(kind="stable")
    classes = [
        {"name": session.classes[i], "probability": round(float(probs[i]), 6)} for i in order
    ]
    side = session.predictions.bundle.split_of(session.files.known_sha256(index))
    return found | {"classes": classes, "side": side}


def _heat_map(session: Session, request: Request, index: int) -> bytes:
    name = request.query_params.get("class", "")
    if session.predictions is None:
        raise Refusal(404, "there is no model, so no map")
    if name not in session.classes:
        raise Refusal(422, "no such class")
    content = session.predictions.heat_map(index, session.classes.index(name))
    if content is None:
        raise Refusal(404, "this model has no maps")
    return content


def _decide(session: Session, identity: str, body: bytes) -> Response:
    """Writes decisions; 409 with the present states if somebody else was faster."""
    wanted = decisions_of(session, identity, body)
    written, indices = session.decide(wanted)
    answer = _progress(session) | {"pictures": [session.describe(i) for i in indices[:MOST]]}
    if written:
        return JSONResponse(answer)
    return JSONResponse(answer | {"error": "somebody else has decided meanwhile"}, 409)


def _path_index(session: Session, request: Request) -> int:
    return picture_index(session, whole_number(request.path_params["index"]))
