"""The package stage: validated models and the function image in, a pinned servable image out."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from common import digest
from common.errors import StageError
from common.stage_io import StageIO

from builder import oci
from builder.errors import BuilderError
from builder.oci.reference import Reference
from builder.registry.authentication import config_path
from builder.registry.client import Registries
from builder.registry.connection import RegistryError
from builder.store import Store

from . import engine, models
from .local import Local
from .packaging import Order, Packaged, package
from .remote import Remote

SECRET = Path("/var/run/secrets/dockercreds/config.json")
BUILDERS = ("registry", "docker")
TRIES = 3
PAUSE = 2.0  # seconds; the client itself has tried each request for longer than that

# As deploy/openfaas/stack.yaml.
STACK = """\
version: 1.0
provider:
  name: openfaas
functions:
  {name}:
    image: {image}
    skip_build: true
    readonly_root_filesystem: true
    environment:
      PLATELINE_IMAGE: {image}
      exec_timeout: 30s
      read_timeout: 35s
      write_timeout: 35s
    requests:
      cpu: 500m
      memory: 512Mi
    limits:
      memory: 2Gi
"""


def package_models(task: StageIO) -> None:
    """Run the stage: put out the pinned names, stack.yaml and digests.md."""
    builder = task.parameter("builder", str, "registry")
    if builder not in BUILDERS:
        raise StageError(f"builder={builder} is none of {', '.join(BUILDERS)}")
    try:
        order = read_order(task)
        models.check(order.servable)
        task.check_handed("servable_digest", digest.folder_digest(order.servable))
        with Registries(credentials_file(), notice=_say) as registries:
            packaged = _patiently(order, builder, registries)
    except RegistryError as error:
        advice = ""
        if error.status in (401, 403):
            advice = f"; in a pipeline that is the secret dockercreds, {SECRET}"
        raise StageError(f"{error}{advice}") from None
    except BuilderError as error:
        raise StageError(str(error)) from None
    put_out(task, order, packaged)


def _say(line: str) -> None:
    print(line, flush=True)


def read_order(task: StageIO) -> Order:
    """Return what the task asks for. Raises StageError or BuilderError that names the parameter."""
    base = Reference.parse(task.parameter("function_image", str))
    if not base.digest:
        raise StageError(f"the function image {base} is not pinned; name it by @sha256:…")
    target = Reference.parse(task.parameter("model_repo", str))
    shelf_name = task.parameter("artifact_repo", str, "")
    shelf = Reference.parse(shelf_name) if shelf_name else None
    for name, reference in (("model_repo", target), ("artifact_repo", shelf)):
        if reference and reference.digest:
            raise StageError(f"{name} = {reference} names a digest; what it holds gives that")
    if shelf and shelf.local != target.local:
        raise StageError(
            f"model_repo = {target} and artifact_repo = {shelf} must both be localhost/… or both "
            "be in a registry"
        )
    package_digest = task.parameter("package_digest", str, "")
    if package_digest and not oci.is_digest(package_digest):
        raise StageError(f"package_digest = {package_digest!r} is not sha256:<64 hex digits>")
    return Order(
        base=base,
        target=target,
        shelf=shelf,
        servable=task.input("servable").path,
        metrics=task.input("metrics").path if shelf else None,
        report=task.input("report").path if shelf else None,
        workspace=task.parameter("workspace_name", str, ""),
        package_digest=package_digest,
    )


def credentials_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the Docker config: of $DOCKER_CONFIG, of the mounted secret, or of the user."""
    if not environ.get("DOCKER_CONFIG") and SECRET.is_file():
        return SECRET
    return config_path(environ)


def _patiently(order: Order, builder: str, registries: Registries) -> Packaged:
    """Package, again after what may have been damage on the way; what arrived is not sent again."""
    for attempt in range(TRIES):
        try:
            return _package(order, builder, registries)
        except RegistryError as error:
            if attempt == TRIES - 1 or error.status not in (None, 400):
                raise
            print(f"trying again: {error}", flush=True)
            time.sleep(PAUSE)
    raise AssertionError


def _package(order: Order, builder: str, registries: Registries) -> Packaged:
    if builder == "docker":
        if order.target.local:
            raise StageError(f"builder=docker needs a registry; {order.target} is the store")
        return engine.package(order, Remote(registries))
    if order.target.local:
        return package(order, Local(Store.open(), registries))
    return package(order, Remote(registries))


def put_out(task: StageIO, order: Order, packaged: Packaged) -> None:
    """Set the output parameters and write the stack file and the table of digests."""
    image, artifact = str(packaged.image), str(packaged.artifact or "")
    task.set_parameter("image", image)
    task.set_parameter("artifact", artifact)
    stack = STACK.format(name=function_name(order.target), image=image)
    task.output("stack").write_text(stack, encoding="utf-8")
    rows = {
        "image": image,
        "base": str(order.base),
        "artifact": artifact,
        "package": order.package_digest,
    }
    lines = [f"| {name} | `{value}` |\n" for name, value in rows.items() if value]
    task.output("digests").write_text(
        "| what | digest |\n|---|---|\n" + "".join(lines), encoding="utf-8"
    )
    print(f"packaged {image} ({packaged.how})", flush=True)


def function_name(target: Reference) -> str:
    """Return the repository's last part as a name that Kubernetes takes: a DNS label."""
    name = target.repository.rpartition("/")[2]
    return re.sub(r"[^a-z0-9]+", "-", name)[:63].strip("-")
