"""A small HTTP load: the same request again and again on kept connections, timed one by one."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """What was measured: seconds of each answer, answers a second, and seconds of each 429."""

    times: tuple[float, ...]
    rate: float
    refused: tuple[float, ...] = ()

    @property
    def p50(self) -> float:
        return statistics.median(self.times)

    def percentile(self, share: float) -> float:
        return sorted(self.times)[min(len(self.times) - 1, int(len(self.times) * share))]


def request(path: str, body: bytes = b"", **headers: str) -> bytes:
    """Return the bytes of a request; GET without a body, POST with one."""
    lines = [f"{'POST' if body else 'GET'} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class BusyError(RuntimeError):
    """The answer was 429: too many requests."""


class Connection:
    """One kept connection. Less work a request than http.client: the load must not be the limit."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, message: bytes) -> bytes:
        """Return the body of a 200; raises BusyError for a 429, RuntimeError for any other."""
        self._socket.sendall(message)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        busy = b" 429 " in head[:20]
        if b" 200 " not in head[:20] and not busy:
            raise RuntimeError(f"the answer was {head[:200]!r} {body[:300]!r}")
        lower = head.lower()
        if b"content-length:" in lower:
            length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
            while len(body) < length:
                body += self._more()
        else:
            while not body.endswith(b"0\r\n\r\n"):
                body += self._more()
        if busy:
            raise BusyError(body[:300].decode(errors="replace"))
        return body

    def _more(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise RuntimeError("the connection was closed")
        return data

    def close(self) -> None:
        self._socket.close()


def load(port: int, message: bytes, connections: int, seconds: float, pause: float = 0) -> Load:
    """Send `message` on so many connections at the same time, for so long.

    With a `pause` who is told 429 asks again so many seconds later; without one it is an error.
    """
    times: list[list[float]] = [[] for _ in range(connections)]
    refused: list[float] = []
    problems: list[BaseException] = []
    end = time.perf_counter() + seconds

    def send(own: list[float]) -> None:
        try:
            connection = Connection(port)
            while time.perf_counter() < end:
                began = time.perf_counter()
                try:
                    connection.ask(message)
                    own.append(time.perf_counter() - began)
                except BusyError:
                    if not pause:
                        raise
                    refused.append(time.perf_counter() - began)
                    time.sleep(pause)
            connection.close()
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            problems.append(error)

    threads = [threading.Thread(target=send, args=(own,)) for own in times]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    done = tuple(value for own in times for value in own)
    return Load(done, len(done) / (time.perf_counter() - began), tuple(refused))


def probe(port: int, message: bytes, stop: threading.Event, pause: float = 0.02) -> Load:
    """Send `message` with pauses until `stop`; for what else goes on meanwhile."""
    times = []
    connection = Connection(port)
    while not stop.wait(pause):
        began = time.perf_counter()
        connection.ask(message)
        times.append(time.perf_counter() - began)
    connection.close()
    return Load(tuple(times), 0.0)
