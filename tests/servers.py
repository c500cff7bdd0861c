"""HTTP servers of the standard library on a free port of loopback, that end with the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

Server = TypeVar("Server", bound=ThreadingHTTPServer)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Serve in a thread as long as the block lasts; a request that hangs does not hold its end.

    What is written goes out at once: the body of an answer would wait 40 ms for the receipt of its
    headers.
    """
    handler = server.RequestHandlerClass
    handler = handler.func if isinstance(handler, partial) else handler
    handler.disable_nagle_algorithm = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serving(
    handler: Callable[..., BaseHTTPRequestHandler],
) -> Iterator[str]:
    """Yield HOST:PORT of a server that answers with `handler`."""
    with running(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        yield f"127.0.0.1:{server.server_port}"


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def files(folder: Path) -> Iterator[str]:
    """Yield the address of a server of the files in `folder`."""
    with serving(partial(_Files, directory=str(folder))) as host:
        yield f"http://{host}"
