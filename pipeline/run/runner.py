"""Running a compiled package on this machine, in the very images it pins."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from builder import oci
from builder.errors import BuilderError
from builder.platform import KNOWN, here
from builder.sandbox import gpu
from builder.sandbox.engines import choose
from builder.sandbox.gpu import Gpus
from builder.store import Store, origins
from pipeline.errors import PipelineError
from pipeline.run import beneath, page, places
from pipeline.run.inputs import Outcome
from pipeline.run.record import Record, Result, Step
from pipeline.run.scheduler import Graph
from pipeline.run.slurm.engine import Slurm
from pipeline.run.step.cache import Cache
from pipeline.run.step.context import RunContext, Volume
from pipeline.spec.kubernetes import GPU, accelerator, known_name
from pipeline.spec.labels import Labels
from pipeline.spec.package import Package, arguments, image_digest, load
from pipeline.spec.rules.inputs import check_inputs
from pipeline.spec.rules.naming import check_names
from pipeline.spec.rules.wiring import check_wiring

__all__ = ["Package", "Result", "Step", "Volume", "load", "run"]

_HAD_HERE = {"pvcMount", "secretAsVolume", "secretAsEnv", "activeDeadlineSeconds",
             "imagePullPolicy", "securityContext", "podMetadata"}  # fmt: skip
# Images that a registry is asked about at the same time.
_AT_ONCE = 4


def run(
    package: Package,
    store: Store,
    *,
    parameters: Mapping[str, Any],
    volumes: Mapping[str, Volume],
    secrets: Mapping[str, Path],
    runs: Path,
    engine: str = "auto",
    jobs: int = 2,
    network: bool = False,
    gpus: bool = False,
    publish: frozenset[str] | None = None,
    use_cache: bool = True,
    find_image: Callable[[str], oci.Image | None] = lambda _: None,
    progress: Callable[[Step], None] = lambda _: None,
) -> Result:
    """Execute `package` and return what came of it; a step that fails is in the result.

    `find_image` brings an image that the store lacks (from a registry). `network` gives it to every
    step, not only to those that ask; `gpus` hands this machine's to
    those that ask; `publish` are the repositories of the store that steps may
    publish to (None: any that parameters name). Raises PipelineError before anything runs for a
    wrong parameter, a missing image, claim or secret, and KeyboardInterrupt after every container
    has been stopped and the page written.
    """
    given = arguments(package, parameters)
    for fault in (*check_names(package), *check_wiring(package), *check_inputs(package, given)):
        raise PipelineError(f"the package cannot run: {fault}")
    images = find_images(package, store, find_image)
    notes = check_lent(package, given, volumes, secrets, gpus=gpus)
    lent = lent_gpus(package, engine, store) if gpus else None
    began, name = time.time(), time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    folder = new_folder(runs, f"{name}-{package.digest.removeprefix('sha256:')[:12]}")
    record = Record(progress, Labels(package.spec).of)
    around = RunContext(
        folder=folder, store=store, images=images,
        sandbox=Slurm.find(store, folder, record) if engine == "slurm" else choose(engine, store),
        kubernetes=package.kubernetes, volumes=volumes, secrets=secrets, network=network,
        publish=publish, gpus=lent,
        facts={
            "pipeline_job_name": folder.name, "pipeline_job_uuid": folder.name,
            "pipeline_job_resource_name": f"runs/{folder.name}", "pipeline_root": "/kfp",
            "pipeline_job_create_time_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
            "pipeline_job_schedule_time_utc":
                time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        },
        cache=Cache(store.root.parent / "steps") if use_cache else None,
        slots=threading.Semaphore(jobs), record=record,
    )  # fmt: skip
    ends: list[Outcome] = []
    interrupted = to_the_end(
        lambda: ends.append(Graph(package.spec, around).root(given)), around.stop_all
    )
    end = ends[0] if ends else Outcome("failed", error="the run ended by a defect; see above")
    try:
        _settle(around, began)
    except (PipelineError, OSError) as error:
        end = Outcome("failed", error=f"looking at what the steps left failed: {error}")
    result = Result(
        name=package.name, state="stopped" if around.stop.is_set() else end.state, started=began,
        folder=folder, page=folder / "index.html",
        package_digest=package.digest, steps=dict(record.steps), outputs=end.parameters,
        artifacts=end.artifacts, parameters=given, notes=notes, seconds=time.time() - began,
        error=end.error,
    )  # fmt: skip
    write(result)
    if interrupted:
        raise KeyboardInterrupt
    return result


def write(result: Result) -> None:
    """Write a run's page and facts into its folder; raises PipelineError where that fails."""
    try:
        result.page.write_text(page.render(result))
        (result.folder / "run.json").write_text(json.dumps(page.document(result), indent=1))
    except OSError as error:
        raise PipelineError(
            f"the run ended ({result.state}), but writing its page to {result.folder} failed "
            f"({error.strerror}); {places.advice(error)}"
        ) from None


def to_the_end(work: Callable[[], object], stop: Callable[[], object]) -> bool:
    """Do `work` in a thread; at Ctrl-C `stop`, which must end it. Tell whether that was so."""
    over = threading.Event()

    def working() -> None:
        try:
            work()
        finally:
            over.set()

    with _noticed() as signals:
        threading.Thread(target=working).start()
        stopped = False
        while not over.wait(0.05):
            if signals and not stopped:
                stopped = True
                stop()
    return bool(signals)


def _settle(around: RunContext, began: float) -> None:
    """Note which files of claims the steps left, and strip the special bits of those."""
    if around.cache:
        for fingerprint, claims, started, ended in around.wrote:
            around.cache.left(fingerprint, claims, started, ended)
    for volume in around.volumes.values():
        if volume.writable:
            beneath.strip_special_bits(volume.folder, began)


@contextmanager
def _noticed() -> Iterator[list[int]]:
    """Yield a list to which Ctrl-C (and a request to end) is added, where they would end a run.

    KeyboardInterrupt could be raised between the start of a container and the note that it runs;
    a container of an engine would then outlive its run.
    """
    signals: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {
        number: signal.signal(number, lambda found, _: signals.append(found))
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)
    }
    try:
        yield signals
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def new_folder(runs: Path, name: str) -> Path:
    """Make the folder of a run, which only its owner may read, and `runs` where that is missing."""
    for number in range(1, 1000):
        folder = runs / (name if number == 1 else f"{name}-{number}")
        try:
            places.make_private(runs)
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        except OSError as error:
            raise PipelineError(
                f"making {folder} failed ({error.strerror}); {places.advice(error)}"
            ) from None
        return folder.resolve()
    raise PipelineError(f"{runs} has too many runs called {name}")


def find_images(
    package: Package, store: Store, find_image: Callable[[str], oci.Image | None]
) -> dict[str, oci.Image]:
    """Return the image of each name that a package runs; of an index that for this machine.

    Those that the store lacks are found beside each other. Raises PipelineError where there is
    none.
    """

    def found(reference: str) -> oci.Image:
        digest = image_digest(reference)
        image = _stored(store, digest)
        if image is None:
            image = find_image(reference)
            if image and image.digest != digest and image != _stored(store, digest):
                image = None
        if image is None:
            raise PipelineError(
                f"the image {reference} is neither in the store {store.root} nor in a registry; "
                "run `invoke build-images`, or compile the package again"
            )
        said = f"{image.config.get('os')}/{image.config.get('architecture')}"
        if said in KNOWN and said != here().name:
            raise PipelineError(
                f"the image {reference} is for {said} and this machine is {here().name}; "
                "run it on another machine, or compile with --platform for both"
            )
        return image

    references = sorted(set(package.images().values()))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(references, pool.map(found, references), strict=True))


def _stored(store: Store, digest: str) -> oci.Image | None:
    """Return the image that a digest names for this machine, if it is whole or can be brought."""
    from builder.registry import pull  # costs time

    try:
        image = pull.stored(store, digest)
    except BuilderError:
        return None
    return image if origins.at_hand(store, image) else None


def check_lent(
    package: Package,
    given: Mapping[str, Any],
    volumes: Mapping[str, Volume],
    secrets: Mapping[str, Path],
    *,
    gpus: bool = False,
) -> tuple[str, ...]:
    """Check that claims are there; return what the package asks that cannot be had here."""
    notes = set()
    for label, settings in package.kubernetes.items():
        for mount in settings.get("pvcMount", []):
            claim = known_name(mount, "pvcName", given)
            if claim and claim not in volumes:
                raise PipelineError(
                    f"{label} mounts the claim {claim}; give a folder with --volume {claim}=DIR"
                )
            folder = volumes[claim].folder if claim else Path("/")
            if not folder.is_dir():
                raise PipelineError(f"the folder {folder} for the claim {claim} is not there")
        for secret in [*settings.get("secretAsVolume", []), *settings.get("secretAsEnv", [])]:
            name = known_name(secret, "secretName", given)
            if name and name not in secrets and not secret.get("optional"):
                notes.add(f"the secret {name} was not given (--secret {name}=DIR)")
        notes |= {
            f"{key} has no effect on this machine" for key in settings if key not in _HAD_HERE
        }
    for executor in package.spec["deploymentSpec"].get("executors", {}).values():
        kind, _ = accelerator(executor.get("container", {}))
        if kind == GPU and not gpus:
            notes.add(f"no step gets the {GPU} it asks for; --gpus hands it this machine's")
        elif kind and kind != GPU:
            notes.add(f"{kind} cannot be had on this machine")
    return tuple(sorted(notes))


def lent_gpus(package: Package, engine: str, store: Store) -> Gpus:
    """Return the GPUs that the steps get which ask for one.

    Raises PipelineError where none asks and for an engine that hands on none, BuilderError where
    this machine has none. A Docker Engine looks for them by itself.
    """
    executors = package.spec["deploymentSpec"].get("executors", {}).values()
    if not any(accelerator(executor.get("container", {}))[0] == GPU for executor in executors):
        raise PipelineError(
            f"--gpus: no step of the package asks for {GPU}; compile it with --gpus 1, or leave "
            "--gpus out"
        )
    chosen = engine if engine == "slurm" else choose(engine, store).name
    if chosen not in ("bubblewrap", "docker"):
        raise PipelineError(
            f"--gpus: the engine {chosen} is handed no GPUs; give --engine bubblewrap or docker"
        )
    return gpu.find() if chosen == "bubblewrap" else Gpus({}, {})
