"""A package handed to Kubeflow Pipelines: a version named after its digest, and a run of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import BuilderError
from pipeline.errors import PipelineError
from pipeline.kubeflow.server import pipelines, runs
from pipeline.kubeflow.server.access import Access
from pipeline.kubeflow.server.connection import Connection
from pipeline.spec.package import Package, arguments, image_digest, load, references


@dataclass(frozen=True, slots=True)
class Submitted:
    """A run, or a schedule of runs: ids, its name, and the link to show.

    `reused` tells that the version was there before, `found` that the run was. `state` is what the
    API said last; empty where nobody waited.
    """

    pipeline_id: str
    version_id: str
    version: str
    run_id: str
    name: str
    link: str
    reused: bool
    found: bool = False
    recurring_run_id: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When runs are started: a cron line of six fields (seconds first), and how many at a time."""

    cron: str
    at_once: int = 1


def submit(
    path: Path,
    access: Access,
    *,
    parameters: Mapping[str, Any],
    experiment: str = "Default",
    run_name: str = "",
    service_account: str = "",
    schedule: Schedule | None = None,
    check_registry: bool = True,
    insecure: bool = False,
    said: Callable[[str], None] = lambda _: None,
) -> Submitted:
    """Upload the package at `path` unless its version is there, and start a run of it.

    A run of the name `run_name` that is there already is taken instead of a new one. With a
    `schedule` nothing runs now. Raises PipelineError before anything is uploaded for a package that
    cannot run - a parameter that does not fit, an image that is not in its registry - and for every
    answer of the API that is not the one asked for, with what to do.
    """
    package = load(path)
    given = arguments(package, parameters)
    if schedule:
        check_cron(schedule)
    if check_registry:
        check_images(package, insecure=insecure)
        said("every image is in its registry")
    else:
        for reference in references(package):
            image_digest(reference)
    name = version_name(package)
    with Connection(access, said) as connection:
        connection.get("healthz")
        pipeline = pipelines.pipeline(connection, package.name)
        version = pipelines.version(connection, pipeline, name)
        reused = version is not None
        if version is None:
            said(f"uploading {path} as the version {name} of {package.name}")
            version = pipelines.upload(connection, pipeline, name, path.name, path.read_bytes())
        said(f"version {version}" + (" was there already" if reused else ""))
        # The mark makes the name one that no other run has, so that this one can be looked for.
        mark = secrets.token_hex(4)
        shown = run_name or f"{package.name} {name.removeprefix('sha256-')[:12]} {mark}"
        run = {
            "display_name": shown,
            "experiment_id": pipelines.experiment(connection, experiment),
            "pipeline_version_reference": {
                "pipeline_id": pipeline, "pipeline_version_id": version,
            },
            "runtime_config": {"parameters": given},
        }  # fmt: skip
        if service_account:
            run["service_account"] = service_account
        kind = runs.RECURRING if schedule else runs.RUN
        body = {**run, **_times(schedule)} if schedule else run
        found = _found(connection, kind, body) if run_name else ""
        if found:
            said(f"{run_name!r} is there already; it is not started again")
        started = found or runs.start(connection, kind, body)
    page = "recurringrun" if schedule else "runs"
    return Submitted(
        pipeline, version, name, "" if schedule else started, shown,
        f"{access.url}/#/{page}/details/{started}", reused, bool(found),
        recurring_run_id=started if schedule else "",
    )  # fmt: skip


def _times(schedule: Schedule) -> dict[str, Any]:
    return {
        "max_concurrency": str(schedule.at_once), "mode": "ENABLE", "no_catchup": True,
        "trigger": {"cron_schedule": {"cron": schedule.cron}},
    }  # fmt: skip


def _found(connection: Connection, kind: runs.Kind, run: Mapping[str, Any]) -> str:
    """Return the id of the run of that name, "" without one.

    Raises PipelineError where it is of another version, or has other parameters.
    """
    known = runs.named(connection, kind, run)
    if known is None:
        return ""
    version = "pipeline_version_reference"
    other = ""
    if known.get(version, {}).get("pipeline_version_id") != run[version]["pipeline_version_id"]:
        other = "of another version of the package"
    elif _parameters(known) != _parameters(run):
        other = "with other parameters"
    elif _cron(known) != _cron(run):
        other = "at other times"
    if other:
        raise PipelineError(
            f"{run['display_name']!r} is there already, {other}; give another --run-name"
        )
    return str(known[kind.key])


def _parameters(run: Mapping[str, Any]) -> Any:
    return (run.get("runtime_config") or {}).get("parameters") or {}


def _cron(run: Mapping[str, Any]) -> Any:
    return ((run.get("trigger") or {}).get("cron_schedule") or {}).get("cron")


def check_cron(schedule: Schedule) -> None:
    """Raise PipelineError for a schedule that the backend would not take.

    backend/src/crd/controller/scheduledworkflow/util/cron_schedule.go of kubeflow/pipelines parses
    it by robfig/cron 1: six fields, seconds first. Five would lack the day of the week, not the
    seconds, and mean another time than the one that cron(8) makes of them.
    """
    fields = schedule.cron.split()
    if not (len(fields) == 6 or (len(fields) == 1 and fields[0].startswith("@"))):
        raise PipelineError(
            f"the schedule {schedule.cron!r} has {len(fields)} fields; the backend wants six, "
            "seconds first: '0 30 2 * * *' is every night at 02:30"
        )
    if not 1 <= schedule.at_once <= 10:
        raise PipelineError(f"{schedule.at_once} runs at once: give 1 to 10")


def version_name(package: Package) -> str:
    """Return the name of the package's version, `sha256-<hex>`: also a name for Kubernetes."""
    return package.digest.replace(":", "-")


def check_images(package: Package, *, insecure: bool = False) -> None:
    """Ask the registries for every image by its digest; nothing is downloaded.

    Raises PipelineError that names those that are missing, or only in the local store.
    """
    from builder.oci.reference import Reference
    from builder.registry.client import Registries

    for reference in references(package):
        image_digest(reference)
    missing = []
    with Registries(insecure=insecure) as registries:
        for text in references(package):
            try:
                one = Reference.parse(text)
                if one.local:
                    raise PipelineError(
                        f"{text} is in this machine's store only, where no cluster can pull it; "
                        "run `invoke push-images --registry HOST/PREFIX` and `invoke compile "
                        "--registry HOST/PREFIX`"
                    )
                if registries.at(one.host).head_manifest(one.repository, one.digest) is None:
                    missing.append(text)
            except BuilderError as error:
                raise PipelineError(
                    f"asking for the image {text} failed: {error}; where only the cluster reaches "
                    "its registry, give --skip-registry"
                ) from None
    if missing:
        raise PipelineError(
            f"the registry no longer has {', '.join(missing)}; run `invoke push-images`, and "
            "compile again where the digest has changed"
        )
