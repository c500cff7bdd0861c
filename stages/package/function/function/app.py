"""The ASGI application: `POST /` with a picture, `GET /_/health`, `GET /_/ready`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from common.errors import StageError
from common.tiling import tile_picture

from .models import Models

MOST_BYTES = 32 << 20
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class TooLargeError(Exception):
    """A body is longer than MOST_BYTES."""


def classify(models: Models, body: bytes) -> dict[str, Any]:
    """Answer for a picture's bytes: each tile, each model, and their mean.

    Raises StageError where the bytes are no picture that can be classified.
    """
    tiles = tile_picture(body, "the picture")
    each = np.stack([model.run(tiles) for model in models.models])
    mean = float(each.mean())
    return {
        "class": models.classes[int(mean >= models.threshold)],
        "probability": mean,
        "model_digest": models.digest,
        "models": [
            {"name": model.name, "probability": float(values.mean()), "digest": model.digest}
            for model, values in zip(models.models, each, strict=True)
        ],
        "tiles": [float(value) for value in each.mean(axis=0)],
    }


async def read_body(receive: Receive) -> bytes:
    """Return the body; raises TooLargeError once it passes MOST_BYTES, whatever was declared."""
    pieces, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        piece = message.get("body", b"")
        size += len(piece)
        if size > MOST_BYTES:
            raise TooLargeError
        pieces.append(piece)
        if not message.get("more_body"):
            return b"".join(pieces)


async def answer(send: Send, status: int, document: object) -> None:
    """Send `document` as JSON."""
    body = json.dumps(document).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def make(models: Models, pool: ThreadPoolExecutor) -> Any:
    """Return the application that serves `models`, inference in `pool`."""

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        if path in ("/_/health", "/_/ready"):
            good = method == "GET"
            await answer(send, 200 if good else 405, {"status": "ok"} if good else _only("GET"))
        elif path != "/":
            await answer(send, 404, {"error": f"there is no {path}; POST a picture to /"})
        elif method != "POST":
            await answer(send, 405, _only("POST"))
        else:
            try:
                body = await read_body(receive)
                loop = asyncio.get_running_loop()
                await answer(send, 200, await loop.run_in_executor(pool, classify, models, body))
            except TooLargeError:
                await answer(send, 413, {"error": f"the body is longer than {MOST_BYTES} bytes"})
            except StageError as error:
                await answer(send, 400, {"error": str(error)})

    return app


def _only(method: str) -> dict[str, str]:
    return {"error": f"only {method} is answered here"}
