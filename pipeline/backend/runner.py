"""Running a package by the driver and the launcher; the servers they ask are started around it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from builder import oci
from builder.errors import BuilderError
from builder.sandbox.engines import choose
from builder.sandbox.process import Mount
from builder.store import Store
from pipeline.backend import cluster, pod, services
from pipeline.backend.execution import Execution
from pipeline.backend.programs import Programs
from pipeline.backend.walk import SUCCEEDED, Walk
from pipeline.errors import PipelineError
from pipeline.run import beneath
from pipeline.run.record import Record, Result, Step
from pipeline.run.runner import check_lent, find_images, new_folder, to_the_end, write
from pipeline.run.step.context import Stopped, Volume
from pipeline.spec import placeholders
from pipeline.spec.labels import Labels
from pipeline.spec.package import Package, arguments
from pipeline.spec.rules.naming import check_names


def run(
    package: Package,
    store: Store,
    programs: Programs,
    *,
    parameters: Mapping[str, Any],
    volumes: Mapping[str, Volume],
    secrets: Mapping[str, Path],
    runs: Path,
    jobs: int = 2,
    publish: frozenset[str] | None = None,
    use_cache: bool = True,
    find_image: Callable[[str], oci.Image | None] = lambda _: None,
    progress: Callable[[Step], None] = lambda _: None,
    say: Callable[[str], object] = lambda _: None,
) -> Result:
    """Execute `package` by `programs` and return what came of it, as `pipeline.run.runner.run`.

    The metadata, the cache's entries and the artifacts stay beside the store, for the next run.
    Steps run by bubblewrap, with this machine's network, since the servers are on its loopback.
    Raises PipelineError before anything runs for a wrong parameter, a missing image, claim or
    secret, and where the servers cannot be started; KeyboardInterrupt after all has been ended.
    """
    given = arguments(package, parameters)
    for fault in check_names(package):
        raise PipelineError(f"the package cannot run: {fault}")
    images = find_images(package, store, find_image)
    notes = check_lent(package, given, volumes, secrets)
    declared = package.spec["root"].get("inputDefinitions", {}).get("parameters", {})
    began = time.time()
    name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{package.digest[7:19]}"
    folder = new_folder(runs, name)
    record = Record(progress, Labels(package.spec).of)
    phases = ["the run ended by a defect; see above"]
    with ExitStack() as stack:
        for lent in ("account", "launcher"):  # of use while it runs only
            stack.callback(shutil.rmtree, folder / lent, ignore_errors=True)
        served = stack.enter_context(services.serve(store.root.parent / "kfp", say))
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began))
        objects = cluster.contents(
            folder.name, created, served.objects, services.BUCKET, services.KEY
        )
        api = stack.enter_context(cluster.serve(folder / "account", objects))
        backend = Execution(
            package=package, programs=programs, sandbox=choose("bubblewrap", store), store=store,
            folder=folder, created=created, port=served.grpc, use_cache=use_cache, publish=publish,
            given=pod.Given(
                images, volumes, secrets,
                (Mount(api.account, cluster.ACCOUNT), Mount(folder / "launcher", pod.LAUNCHER)),
                api.environment(),
            ),
            slots=threading.Semaphore(jobs), record=record,
        )  # fmt: skip

        def work() -> None:
            try:
                backend.copy_launcher()
                phases[0] = Walk(package.spec, backend).root({**dict.fromkeys(declared), **given})
            except Stopped:
                phases[0] = "stopped"
            except (PipelineError, BuilderError, OSError) as error:
                phases[0] = str(error)

        interrupted = to_the_end(work, backend.stop_all)
        for step in list(record.steps.values()):
            if step.state in ("waiting", "running"):
                record.update(step.name, state="stopped")
        _tell_outputs(record, backend.executions, served.executions(folder.name))
        notes += tuple(f"KFP asked Kubernetes for what is not here: {m}" for m in api.missing)
    for volume in volumes.values():
        if volume.writable:
            beneath.strip_special_bits(volume.folder, began)
    state = "stopped" if interrupted else "succeeded" if phases[0] == SUCCEEDED else "failed"
    errors = [step.error for step in record.steps.values() if step.state == "failed"]
    result = Result(
        name=package.name, state=state, started=began, folder=folder,
        page=folder / "index.html", package_digest=package.digest,
        steps=dict(record.steps), outputs={}, artifacts={}, parameters=given, notes=notes,
        seconds=time.time() - began,
        error="" if state == "succeeded" else (errors or [phases[0]])[0],
    )  # fmt: skip
    write(result)
    if interrupted:
        raise KeyboardInterrupt
    return result


def _tell_outputs(
    record: Record, executions: Mapping[str, str], found: list[dict[str, Any]]
) -> None:
    """Add to each step what the metadata store holds of its execution, also of a cached one."""
    known = {str(execution["id"]): execution for execution in found}
    for name, number in executions.items():
        if number in known:
            artifacts: dict[str, list[dict[str, Any]]] = {}
            for artifact in known[number]["artifacts"]:
                artifacts.setdefault(artifact["name"], []).append(artifact)
            inputs = known[number]["inputs"]
            record.update(
                name, outputs=known[number]["outputs"], artifacts=artifacts,
                parameters=placeholders.filled(inputs, inputs),
            )  # fmt: skip
