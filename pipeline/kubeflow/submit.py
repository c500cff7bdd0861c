"""A package handed to Kubeflow Pipelines: a version named after its digest, and a run of it."""

from __future__ import annotations

import contextlib
import io
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from builder.errors import BuilderError
from builder.registry.connection import is_loopback
from pipeline.errors import PipelineError
from pipeline.kubeflow import api
from pipeline.spec.documents import load_json
from pipeline.spec.package import Package, arguments, image_digest, load, references

_ENDED = {"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"}
_EQUALS = 1  # backend/api/v2beta1/filter.proto
_PATIENCE = 5  # consecutive failed status requests until waiting ends


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API is and how to get in: a token, or the cookie of a signed-in browser."""

    host: str
    token: str = ""
    cookie: str = ""
    namespace: str = ""
    timeout: float = 30.0  # seconds that one answer may take


@dataclass(frozen=True, slots=True)
class Submitted:
    """A run: its ids, the link to show, and whether the version was there before.

    `state` is what the API said last; empty where nobody waited.
    """

    pipeline_id: str
    version_id: str
    version: str
    run_id: str
    link: str
    reused: bool
    state: str = ""


def submit(
    path: Path,
    access: Access,
    *,
    parameters: Mapping[str, Any],
    experiment: str = "Default",
    check_registry: bool = True,
    insecure: bool = False,
    said: Callable[[str], None] = lambda _: None,
) -> Submitted:
    """Upload the package at `path` unless its version is there, and start a run of it.

    Raises PipelineError before anything is uploaded for a package that cannot run - a parameter
    that does not fit, an image that is not in its registry - and for every answer of the API that
    is not the one asked for, with what to do.
    """
    package = load(path)
    given = arguments(package, parameters)
    if check_registry:
        check_images(package, insecure=insecure)
        said("every image is in its registry")
    else:
        for reference in references(package):
            image_digest(reference)
    name = version_name(package)
    with _speaking(access):
        client = _connect(access)
        pipeline = _pipeline(client, package.name, access)
        version = _version(client, pipeline, name)
        reused = version is not None
        if version is None:
            said(f"uploading {path} as the version {name} of {package.name}")
            version = _upload(client, path, pipeline, name)
        said(f"version {version}" + (" was there already" if reused else ""))
        place = client.create_experiment(experiment, namespace=access.namespace or None)
        run = client.run_pipeline(
            place.experiment_id, f"{package.name} {name.removeprefix('sha256-')[:12]}",
            params=given, pipeline_id=pipeline, version_id=version,
        )  # fmt: skip
    if not run.run_id:
        raise _no_api(access)
    link = f"{access.host.rstrip('/')}/#/runs/details/{run.run_id}"
    return Submitted(pipeline, version, name, run.run_id, link, reused)


def wait(
    submitted: Submitted,
    access: Access,
    *,
    said: Callable[[str], None] = lambda _: None,
    pause: float = 5.0,
) -> str:
    """Wait for the end of a run and return its state: SUCCEEDED, FAILED, SKIPPED or CANCELED.

    A few answers may fail in between; the run goes on all the same. (kfp.Client's own waiting
    never ends for a run that was cancelled.) Raises PipelineError where the API stays away.
    """
    failures, state = 0, ""
    with _speaking(access):
        client = _connect(access)
    while True:
        try:
            with _speaking(access):
                now = str(client.get_run(submitted.run_id).state or "")
        except PipelineError as error:
            failures += 1
            if failures == _PATIENCE:
                raise PipelineError(f"{error}; the run goes on: {submitted.link}") from None
        else:
            failures = 0
            if now != state:
                said(f"run {submitted.run_id}: {now}")
            state = now
            if state in _ENDED:
                return state
        time.sleep(pause)


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


# The API.


def _connect(access: Access) -> Any:
    """Return a kfp.Client whose requests end; raises what `_speaking` translates."""
    import kfp

    parts = urlsplit(access.host if "//" in access.host else f"https://{access.host}")
    secret = access.token or access.cookie
    if secret and parts.scheme != "https" and not is_loopback(parts.netloc):
        raise PipelineError(
            f"the token or cookie for {access.host} would be readable on the network; give an "
            "https:// address, or the loopback address that `kubectl port-forward` has made"
        )

    class Client(kfp.Client):  # type: ignore[misc]
        def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:  # noqa: ARG002
            """Ask once: kfp asks five times, for half a minute, and logs each traceback."""
            api.bound(self._healthz_api.api_client, access.timeout)
            return self._healthz_api.healthz_service_get_healthz()

    client = Client(
        host=access.host, existing_token=access.token or None, cookies=access.cookie or None,
        namespace=access.namespace or "kubeflow",
    )  # fmt: skip
    client.get_kfp_healthz()
    answer = client.healthzs.healthz_service_get_healthz(_preload_content=False)
    try:
        load_json(answer.data, access.host)
    except PipelineError:
        raise _no_api(access) from None
    return client


@contextlib.contextmanager
def _speaking(access: Access) -> Iterator[None]:
    """Keep kfp's own printing away, and turn what goes wrong into one message with a way out."""
    import kfp_server_api
    import urllib3

    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except kfp_server_api.ApiException as error:
        raise PipelineError(_explained(access, error)) from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise PipelineError(
            f"{access.host} gave no answer ({type(error).__name__}); check --host, the network and "
            "the service ml-pipeline. A run that was being started may exist: look before you "
            "submit again"
        ) from None
    except ValueError as error:  # kfp's own refusals
        raise PipelineError(f"{access.host}: {error}") from None


def _explained(access: Access, error: Any) -> str:
    try:
        said = str(load_json(error.body, access.host).get("message") or "")
    except (PipelineError, TypeError, AttributeError):
        said = ""
    what = f"{access.host} answered {error.status}" + (f" ({said[:200]})" if said else "")
    if error.status == 401:
        return f"{what}: who asks is not known; give a fresh --token-file or --cookie-file"
    if error.status == 403:
        return f"{what}: that is not allowed; ask for rights in the namespace, or give --namespace"
    if error.status == 404:
        return f"{what}: no API of Kubeflow Pipelines v2 there; check --host (and its path)"
    if error.status == 409:
        return f"{what}: something of that name is there already; submit again to use it"
    if error.status == 0:
        return f"{what or access.host}: TLS failed ({str(error.reason)[:120]}); check --host"
    return f"{what}; try again, or look at the log of the deployment ml-pipeline"


def _no_api(access: Access) -> PipelineError:
    return PipelineError(
        f"{access.host} is not the API of Kubeflow Pipelines (a page to sign in, perhaps); give "
        "--token-file or --cookie-file, or the address that `kubectl port-forward` has made"
    )


def _named(key: str) -> str:
    predicate = {"operation": _EQUALS, "key": "display_name", "stringValue": key}
    return json.dumps({"predicates": [predicate]})


def _pipeline(client: Any, name: str, access: Access) -> str:
    """Return the id of the pipeline `name`, which is made where it is new - without a version.

    (kfp's upload_pipeline makes one that is named after the pipeline, not after a digest.)
    """
    import kfp_server_api

    def find() -> str | None:
        found = client.list_pipelines(filter=_named(name), namespace=access.namespace or None)
        return str(found.pipelines[0].pipeline_id) if found.pipelines else None

    if known := find():
        return known
    wanted = kfp_server_api.V2beta1Pipeline(display_name=name, namespace=access.namespace or None)
    try:
        made = client.pipelines.pipeline_service_create_pipeline(wanted)
    except kfp_server_api.ApiException as error:
        known = find() if error.status == 409 else None  # somebody was faster
        if known is None:
            raise
        return known
    return str(made.pipeline_id)


def _version(client: Any, pipeline: str, name: str) -> str | None:
    found = client.list_pipeline_versions(pipeline, filter=_named(name)).pipeline_versions or []
    return str(found[0].pipeline_version_id) if found else None


def _upload(client: Any, path: Path, pipeline: str, name: str) -> str:
    import kfp_server_api

    try:
        made = client.upload_pipeline_version(str(path), name, pipeline_id=pipeline)
    except kfp_server_api.ApiException as error:
        known = _version(client, pipeline, name) if error.status == 409 else None
        if known is None:
            raise
        return known
    return str(made.pipeline_version_id)
