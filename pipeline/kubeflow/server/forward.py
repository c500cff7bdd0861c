"""A server reached through kubectl, with the login of a kubeconfig's context."""

from __future__ import annotations

import contextlib
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pipeline.errors import PipelineError

_FORWARDS = re.compile(r"Forwarding from (127\.0\.0\.1:\d+) ->")
SERVICE = "ml-pipeline-ui"  # the web page, which hands on to the API, the metadata and the objects


@contextlib.contextmanager
def forwarded(
    context: str, namespace: str = "kubeflow", kubeconfig: Path | None = None,
    seconds: float = 30.0,
) -> Iterator[str]:  # fmt: skip
    """Yield the address on loopback that `kubectl port-forward` makes, and end it after.

    Raises PipelineError where there is no kubectl, and what it said where it fails.
    """
    program = shutil.which("kubectl")
    if program is None:
        raise PipelineError(
            "--context needs kubectl, which is not on PATH; install it, or give --host"
        )
    words = [
        program, f"--context={context}", f"--namespace={namespace}",
        *([f"--kubeconfig={kubeconfig}"] if kubeconfig else []),
        "port-forward", "--address=127.0.0.1", f"service/{SERVICE}", ":80",
    ]  # fmt: skip
    started = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,  # Ctrl-C must not end it before what cleans up over it
    )  # fmt: skip
    try:
        yield f"http://{_address(started, seconds)}"
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        for pipe in (started.stdout, started.stderr):
            if pipe:
                pipe.close()


def _address(started: subprocess.Popen[str], seconds: float) -> str:
    """Return HOST:PORT out of what kubectl prints."""
    lines: queue.Queue[str] = queue.Queue()
    told: list[str] = []

    def read(pipe: IO[str] | None, take: bool) -> None:
        with contextlib.suppress(ValueError):  # closed at the end
            for line in pipe or ():
                if take:
                    lines.put(line)
                else:
                    told.append(line.strip())
        if take:
            lines.put("")

    reader = threading.Thread(target=read, args=(started.stderr, False), daemon=True)
    reader.start()
    threading.Thread(target=read, args=(started.stdout, True), daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=seconds)
        except queue.Empty:
            raise PipelineError(
                f"kubectl made no way to the service {SERVICE} within {seconds:.0f} s; check the "
                "network and VPN, or give --host"
            ) from None
        if found := _FORWARDS.match(line):
            return found[1]
        if not line:
            started.wait()
            reader.join(1)
            why = " ".join(told)[-300:] or f"exit code {started.returncode}"
            raise PipelineError(
                f"kubectl made no way to the service {SERVICE} ({why}); check --context and "
                "--kfp-namespace, or give --host"
            )
