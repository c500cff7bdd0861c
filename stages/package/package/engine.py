"""builder=docker: the same image through a Docker Engine's socket, as `docker build` makes it.

The engine pulls the base, builds from two lines and pushes. What it cannot write - the reference to
the artifact, annotations - is added to the manifest in the registry; blobs stay as it pushed them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, cast

from builder import oci
from builder.errors import BuilderError
from builder.oci import canonical
from builder.oci.entry import Entry
from builder.oci.layer import write_tar
from builder.oci.reference import Reference
from builder.registry import authentication
from builder.registry.blobs import Blob
from builder.registry.connection import RegistryError
from builder.registry.http import shown

from . import documents, models
from .packaging import Order, Packaged, artifact_of, keep, readable_tag
from .remote import Remote
from .replay import Replay

_SECONDS = 900  # without a line from the engine; pushing a layer prints some all the time
Lines = Iterable[dict[str, Any]]
_OCI_OF = {oci.DOCKER_LAYER: oci.LAYER}


def package(order: Order, place: Remote) -> Packaged:
    """Package `order` with the engine that DOCKER_HOST or the usual socket names.

    Raises BuilderError where none answers or it fails, RegistryError where a registry does.
    """
    client = _client()
    try:
        _pull(client, order.base, place)
        if isinstance(place.named(order.base), oci.Index):
            raise BuilderError(
                f"{order.base} has images for several platforms, and a Docker Engine builds for "
                "its own; use builder=registry, or compile for one platform"
            )
        artifact, subject = artifact_of(order, place)
        labels = documents.names(order.base, artifact, order.package_digest)
        identity = _build(client, order, labels)
        tag = readable_tag(order.workspace, identity)
        data = _push(client, identity, order.target, tag, place)
    finally:
        client.close()
    manifest, blobs = _referring(data, labels, subject, order.target)
    image, took = keep(order, order.target, place, manifest, blobs, tag)
    return Packaged(image, artifact, "was there" if took.already else "by the Docker Engine")


def _client() -> Any:
    import docker

    try:
        client = docker.from_env(timeout=_SECONDS)
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise BuilderError(
            f"no Docker Engine answers ({shown(error, 120)}); mount its socket at "
            "/var/run/docker.sock, or use builder=registry, which needs none"
        ) from None
    return client


def _pull(client: Any, base: Reference, place: Remote) -> None:
    name = f"{base.host}/{base.repository}"
    login = _login(base.host, place)

    def lines() -> Lines:
        found: Lines = client.api.pull(
            name, tag=base.digest, stream=True, decode=True, auth_config=login
        )
        return found

    _follow(lines, f"pulling {name}@{base.digest}")


def _build(client: Any, order: Order, labels: Mapping[str, str]) -> str:
    """Build base + models and return the image's id, which is its config's digest."""
    base = f"{order.base.host}/{order.base.repository}@{order.base.digest}"
    recipe = f"FROM {base}\nCOPY {models.FOLDER}/ /{models.FOLDER}/\n"
    context = [
        Entry("Dockerfile", "file", content=recipe.encode()),
        *models.entries(order.servable),
    ]

    def lines() -> Lines:
        found: Lines = client.api.build(
            fileobj=_chunks(lambda sink: write_tar(context, sink)),
            custom_context=True,
            labels=dict(labels),
            rm=True,
            forcerm=True,
            decode=True,
        )
        return found

    found = ""
    for line in _each(lines, f"building on {base}", BuilderError):
        found = line.get("aux", {}).get("ID", found)
    if not oci.is_digest(found):
        raise BuilderError(f"the Docker Engine built on {base} and did not say what")
    return found


def _push(client: Any, identity: str, target: Reference, tag: str, place: Remote) -> bytes:
    """Push the image unless it is there under its tag; return its manifest, read back."""
    import docker

    registry = place.registries.at(target.host)
    name = f"{target.host}/{target.repository}"

    def there() -> bytes | None:
        found = registry.get_manifest(target.repository, tag)
        same = found and json.loads(found[1]).get("config", {}).get("digest") == identity
        return found[1] if found and same else None

    if data := there():
        return data
    try:
        client.api.tag(identity, name, tag)
    except docker.errors.DockerException as error:
        raise BuilderError(f"the Docker Engine cannot tag {name}:{tag} ({error})") from None
    login = _login(target.host, place)

    def lines() -> Lines:
        found: Lines = client.api.push(name, tag=tag, stream=True, decode=True, auth_config=login)
        return found

    _follow(lines, f"pushing {name}:{tag}")
    if data := there():
        return data
    raise RegistryError(f"{name}:{tag} does not hold {identity}, which was pushed there")


def _referring(
    data: bytes, labels: Mapping[str, str], subject: oci.Descriptor | None, target: Reference
) -> tuple[bytes, list[Blob]]:
    """Return the engine's manifest as an OCI one with annotations and subject, and its blobs."""
    document = json.loads(data)
    config = {**document["config"], "mediaType": oci.CONFIG}
    layers = [
        {**entry, "mediaType": _OCI_OF.get(entry["mediaType"], entry["mediaType"])}
        for entry in document["layers"]
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "config": config,
        "layers": layers,
        "annotations": dict(labels),
        **({"subject": subject.to_json()} if subject else {}),
    }
    blobs = [_there(oci.Descriptor.from_json(entry), target) for entry in (config, *layers)]
    return canonical.dumps(manifest), blobs


def _there(descriptor: oci.Descriptor, target: Reference) -> Blob:
    def gone() -> BinaryIO:
        raise RegistryError(f"{target} lost the blob {descriptor.digest} that was pushed there")

    return Blob(descriptor, gone, target)


def _login(host: str, place: Remote) -> dict[str, str] | None:
    found = authentication.find(host, place.registries.docker_config)
    if found is None:
        return None
    if found.identity_token:
        return {"identitytoken": found.identity_token}
    return {"username": found.username, "password": found.password}


def _chunks(write: Any) -> Iterator[bytes]:
    with cast("BinaryIO", Replay(write)) as stream:
        while chunk := stream.read(1 << 20):
            yield chunk


def _follow(lines: Callable[[], Lines], what: str) -> None:
    for _ in _each(lines, what, RegistryError):
        pass


def _each(
    lines: Callable[[], Lines], what: str, kind: type[BuilderError]
) -> Iterator[dict[str, Any]]:
    """Yield the engine's progress; raises `kind` at the error that it reports or ends with."""
    import docker
    import requests

    try:
        for line in lines():
            if "error" in line:
                raise _failed(what, str(line["error"]), kind)
            yield line
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise _failed(what, str(error), kind, getattr(error, "status_code", None)) from None


def _failed(
    what: str, reason: str, kind: type[BuilderError], status: int | None = None
) -> BuilderError:
    message = f"{what} with the Docker Engine failed ({shown(reason.strip())})"
    if kind is not RegistryError:
        return kind(message)
    refused = any(word in reason for word in ("unauthorized", "denied", "no basic auth"))
    # The engine answers 500 for whatever the registry did, so only a refusal is final.
    return RegistryError(message, 401 if refused else status if status == 404 else None)
