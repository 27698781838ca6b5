"""The server of a local page: its flags, its address and its limits."""

import argparse
import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from jaxgear.errors import UsageError

CONNECTIONS = 32


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of every command that serves a page."""
    parser.add_argument(
        "--port", type=int, default=8765, help="TCP port (default 8765); 0: a free one"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )


def serve_page(arguments: argparse.Namespace, build: Callable[[], Any]) -> None:
    """Serves an application until Ctrl-C or SIGTERM.

    The port is taken first: `build`, which makes the application, may take long.

    Raises:
        UsageError: a package is missing, or the address cannot be had.
    """
    if not 0 <= arguments.port < 2**16:
        raise UsageError(f"--port {arguments.port}: must be 0 to 65535")
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "starlette"):
            raise
        raise UsageError(
            f"{arguments.command} needs {error.name}: pip install 'jaxgear[serve]' "
            "(in a checkout: '.[serve]')"
        ) from error
    with _listen(arguments.host, arguments.port) as listening:
        config = uvicorn.Config(
            build(),
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
