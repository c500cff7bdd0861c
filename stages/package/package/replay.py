"""What a function writes, as a file to read, without a copy in memory or on disk."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from typing import BinaryIO


class Replay(io.RawIOBase):
    """The bytes that `write(sink)` writes, made while they are read.

    A step back, as after a cut connection, makes them again from the beginning: `write` has to
    write the same each time. What it raises is raised by `read`.
    """

    def __init__(self, write: Callable[[BinaryIO], object]) -> None:
        super().__init__()
        self._write = write
        self._pipe = -1
        self._position = 0
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to `offset` from the beginning; the end is not known beforehand."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only from the beginning")
        if offset < self._position:
            self._stop()
        while self._position < offset and self.read(min(1 << 20, offset - self._position)):
            pass
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return exactly `size` bytes, fewer only at the end, all without a size."""
        if self._thread is None:
            self._start()
        pieces, left = [], size
        while left and (piece := os.read(self._pipe, left if 0 < left < 1 << 20 else 1 << 20)):
            pieces.append(piece)
            self._position += len(piece)
            left = left - len(piece) if size >= 0 else -1
        if left:
            assert self._thread is not None
            self._thread.join()
            if self._failure is not None:
                raise self._failure
        return b"".join(pieces)

    def close(self) -> None:
        self._stop()
        super().close()

    def _start(self) -> None:
        self._pipe, writing = os.pipe()
        self._thread = threading.Thread(target=self._run, args=(writing,), daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        if self._thread is not None:
            os.close(self._pipe)
            self._thread.join()
        self._thread, self._failure, self._position = None, None, 0

    def _run(self, handle: int) -> None:
        try:
            with os.fdopen(handle, "wb") as sink:
                self._write(sink)
        except BrokenPipeError:
            pass  # nobody reads on
        except BaseException as error:  # noqa: BLE001 - handed to the thread that reads
            self._failure = error
