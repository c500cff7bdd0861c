"""A run on a server as it goes: its steps and their states, and what the failed ones printed."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import PipelineError
from pipeline.kubeflow.server import objects, runs, steps
from pipeline.kubeflow.server.connection import Connection, ServerError
from pipeline.kubeflow.server.steps import Steps
from pipeline.run.record import Step

_PATIENCE = 5  # consecutive failed status requests until waiting ends
_LOG_LINES = 30
_GONE = 404


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: the state that the API says, what the API has of it, and its steps."""

    state: str
    run: Mapping[str, Any]
    steps: Steps


def wait(
    connection: Connection,
    run_id: str,
    *,
    spec: Mapping[str, Any] | None = None,
    link: str = "",
    said: Callable[[str], None] = lambda _: None,
    progress: Callable[[Step], None] = lambda _: None,
    pause: float = 5.0,
) -> Ended:
    """Wait for the end of a run, and say what its steps do meanwhile.

    A few answers may fail in between; the run goes on all the same. A state that is not known here
    counts as none of an end, and is said. Raises PipelineError where the API stays away, and where
    the run is gone.
    """
    failures, state = 0, ""
    shown: dict[str, Step] = {}
    while True:
        try:
            run = runs.get(connection, run_id)
            now = runs.state(run)
            found = steps.of_run(connection, run, spec)
        except ServerError as error:
            failures += 1
            if error.status == _GONE:
                raise PipelineError(f"the run {run_id} is gone: somebody removed it") from None
            if failures == _PATIENCE:
                raise PipelineError(f"{error}; the run goes on: {link or run_id}") from None
        else:
            failures = 0
            if now != state:
                known = "" if now in runs.KNOWN else " (a state that is not known here; waiting on)"
                said(f"run {run_id}: {now}{known}")
                state = now
            for name, step in found.steps.items():
                if step != shown.get(name):
                    progress(step)
            shown = dict(found.steps)
            if state in runs.ENDED:
                return Ended(state, run, found)
        time.sleep(pause)


def failures(connection: Connection, ended: Ended) -> Iterator[str]:
    """Yield what is known of each failed step, and the last lines that it printed."""
    error = (ended.run.get("error") or {}).get("message")
    if error:
        yield f"error of the run: {str(error)[:500]}"
    if not ended.steps.complete:
        yield "the server's metadata store did not answer: only names and states are known"
    for name, step in ended.steps.steps.items():
        if step.state != "failed":
            continue
        yield f"{name} failed" + (f": {step.error}" if step.error else "")
        pod = ended.steps.pods.get(name, "")
        if not pod:
            continue
        try:
            lines = objects.log(connection, str(ended.run["run_id"]), pod).splitlines()
        except ServerError as why:
            yield f"  its log cannot be read: {why}"
            continue
        yield from (f"  {line}" for line in lines[-_LOG_LINES:])


@contextlib.contextmanager
def ending(connection: Connection, run_id: str, said: Callable[[str], None]) -> Iterator[None]:
    """End the run on the server where the block is interrupted: by Ctrl-C, or a request to end."""
    with interruptible():
        try:
            yield
        except KeyboardInterrupt:
            said(f"ending the run {run_id}; press Ctrl-C again to leave it alone")
            runs.terminate(connection, run_id)
            said(f"the run {run_id} was asked to end")
            raise


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt for SIGTERM as well, so that what cleans up does so."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
