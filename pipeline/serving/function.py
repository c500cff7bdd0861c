"""A packaged function, served on this machine for as long as someone asks it."""

from __future__ import annotations

import json
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from builder import oci
from builder.sandbox.process import Process, Sandbox
from pipeline.errors import PipelineError

START_LIMIT = 60.0
_PORTS = {8080: "PORT", 8081: "METRICS_PORT"}
_ENV = {"healthcheck_interval": "0s"}  # nobody else asks it, so it need not announce its end


@contextmanager
def serving(sandbox: Sandbox, image: oci.Image) -> Iterator[str]:
    """Yield the URL of the function `image`, which is stopped at the end.

    Raises PipelineError with its log where it does not become ready.
    """
    with tempfile.TemporaryFile() as log:
        running = sandbox.start(Process(image=image, env=_ENV, network=True, ports=_PORTS), log)
        try:
            url = f"http://127.0.0.1:{running.ports[8080]}"
            if not ready(url, START_LIMIT):
                running.stop(grace=0)
                log.seek(0)
                text = log.read().decode(errors="replace")[-2000:]
                raise PipelineError(f"the function {image.digest} does not answer; it says: {text}")
            yield url
        finally:
            running.stop(grace=2)


def ready(url: str, timeout: float) -> bool:
    """Tell whether the function at `url` is ready to answer within `timeout` seconds."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{url}/_/ready", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    return False


def classify(url: str, tile: bytes) -> dict[str, Any]:
    """Return the function's answer to an image file; raises PipelineError for a refusal."""
    request = urllib.request.Request(url, tile, {"Content-Type": "image/png"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        reason = error.read().decode(errors="replace")[:500]
        raise PipelineError(f"the function refused the picture ({error.code}): {reason}") from None
    except OSError as error:
        raise PipelineError(f"asking the function at {url} failed ({error})") from None
