"""Classify pictures on a local page: drop, paste or choose them."""

import argparse
import errno
import ipaddress
import socket
from pathlib import Path

from jaxgear.errors import UsageError

CONNECTIONS = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear serve`."""
    parser.add_argument("model", type=Path, metavar="RUN_OR_BUNDLE")
    parser.add_argument("--port", type=int, default=8765, help="0: any that is free")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")


def run(arguments: argparse.Namespace) -> None:
    """Serves until Ctrl-C or SIGTERM."""
    if not 0 <= arguments.port < 2**16:
        raise UsageError(f"--port {arguments.port}: must be 0 to 65535")
    try:
        import uvicorn

        from jaxgear.serving import app
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "starlette"):
            raise
        raise UsageError(
            f"serve needs {error.name}: pip install 'jaxgear[serve]' (in a checkout: '.[serve]')"
        ) from error
    from jaxgear.bundle import Bundle
    from jaxgear.serving.answer import Classifier

    with _listen(arguments.host, arguments.port) as listening:
        classifier = Classifier(Bundle.load(arguments.model))
        application = app.build(classifier, arguments.model.resolve().name, arguments.host)
        config = uvicorn.Config(
            application,
            http="h11",
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=5,
        )
        host, port = listening.getsockname()[:2]
        if not ipaddress.ip_address(host).is_loopback:
            print(f"warning: whoever can reach {host} can use this; there is no password")
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{port}  (Ctrl-C stops)", flush=True)
        # On SIGINT or SIGTERM it finishes open requests, then raises the signal for cli.exit_with.
        uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"--port {port}: in use; name another, or 0 for any that is free"
        elif error.errno == errno.EACCES:
            message = f"--port {port}: not allowed for this user; name one from 1024 up"
        else:
            message = f"--host {host}: cannot listen there ({error.strerror or error})"
        raise UsageError(message) from error
