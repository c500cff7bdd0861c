"""The bodies in memory: how much all requests together hold, and how slowly a body may come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

SLOWEST = 16 << 10  # bytes a second
PATIENCE = 5.0  # s; for so long a peer may send nothing, or be behind SLOWEST
# Where memory is short, nobody who has been waited for longer is safe from faster ones.
LATE = 0.1  # s
Message = MutableMapping[str, Any]


class TooSlowError(Exception):
    """A body did not come in time, or memory was short and it came the slowest."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Bodies:
    """Bodies of at most `most` bytes together, and one more.

    Whatever has come is held; nothing is set aside for what has not. Where there is no room, the
    body that came slowest is dropped. Where none was waited for, the bodies wait for those that
    are being answered, but for one, which goes on: otherwise all could be half there for ever.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._first: Body | None = None  # may go on without room
        self._coming: set[Body] = set()  # their peers are waited for at this moment
        self._queue = asyncio.Lock()
        self._freed = asyncio.Event()

    async def take(self, body: Body, size: int) -> None:
        """Wait until there is room for `size` more bytes of `body`."""
        full = self._held + size > self._most
        if body is not self._first and (full or self._queue.locked()):
            async with self._queue:
                while self._held + size > self._most:
                    if self._drop_slowest():
                        continue
                    if self._first is None:
                        self._first = body
                        break
                    self._freed.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LATE):
                            await self._freed.wait()
        self._held += size
        body.held += size

    def give_back(self, body: Body) -> None:
        """Let others have the room of `body`, which is needed no more."""
        self._held -= body.held
        body.held = 0
        if self._first is body:
            self._first = None
        self._freed.set()

    def began(self, body: Body) -> None:
        """Note that the peer is waited for."""
        self._coming.add(body)

    def ended(self, body: Body) -> None:
        """Note that the peer is waited for no more."""
        self._coming.discard(body)

    def _drop_slowest(self) -> bool:
        now = time.monotonic()
        late = [body for body in self._coming if body.held and body.waited(now) > LATE]
        if not late:
            return False
        slowest = min(late, key=lambda body: body.size / body.waited(now))
        self._coming.discard(slowest)
        self.give_back(slowest)
        slowest.drop()
        return True


class Body:
    """One request's body on its way."""

    def __init__(self, bodies: Bodies) -> None:
        self.size = 0  # bytes that have come
        self.held = 0  # bytes that count for all bodies
        self._bodies = bodies
        self._waited = 0.0  # s, for its peer; not for room
        self._began = 0.0
        self._credit = PATIENCE
        self._timeout: asyncio.Timeout | None = None
        self._dropped = False

    def waited(self, now: float) -> float:
        """Return for how many seconds its peer was waited for; asked while it is."""
        return self._waited + now - self._began

    def drop(self) -> None:
        """Wait for its peer no more."""
        self._dropped = True
        if self._timeout is not None:
            self._timeout.reschedule(asyncio.get_running_loop().time())

    async def read(
        self, receive: Callable[[], Awaitable[Message]], most_seconds: float | None
    ) -> Message:
        """Return the next part, for which `hold` has to make room.

        Raises TooSlowError where the part takes longer than `most_seconds` (None is no limit),
        where the body falls PATIENCE seconds behind SLOWEST, or where it was dropped.
        """
        limit = self._credit if most_seconds is None else min(self._credit, most_seconds)
        self._began = time.monotonic()
        self._bodies.began(self)
        try:
            async with asyncio.timeout(limit) as self._timeout:
                message = await receive()
        except TimeoutError:
            raise self._too_slow(limit) from None
        finally:
            self._timeout = None
            self._bodies.ended(self)
            seconds = time.monotonic() - self._began
            self._waited += seconds
        if self._dropped:
            raise self._too_slow(limit)
        size = len(message.get("body", b""))
        self.size += size
        self._credit = min(PATIENCE, self._credit - seconds + size / SLOWEST)
        return message

    async def hold(self, size: int) -> None:
        """Wait until there is room for `size` bytes that have come."""
        await self._bodies.take(self, size)

    def close(self) -> None:
        """Let others have its room."""
        self._bodies.give_back(self)

    def _too_slow(self, limit: float) -> TooSlowError:
        if self._dropped:
            return TooSlowError(
                503, "memory is short, and the body came the slowest; send it again, or faster"
            )
        if limit < self._credit:
            return TooSlowError(408, "the body did not arrive within read_timeout")
        return TooSlowError(
            408, f"the body came at less than {SLOWEST} bytes a second; send it faster"
        )
