"""A stack file -> a function that answers, through the OpenFaaS gateway's REST API.

API: https://github.com/openfaas/faas/blob/master/api-docs/spec.openapi.yml, its FunctionDeployment
and FunctionStatus. Stack file: https://docs.openfaas.com/reference/yaml.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml

from builder.registry.connection import is_loopback
from pipeline.errors import PipelineError
from pipeline.serving.workload import Deployed, pinned

_TRANSIENT = {429, 500, 502, 503, 504}
# Stack file -> FunctionDeployment; `name` is how the function is called in the file.
_FIELDS = {
    "image": "image",
    "namespace": "namespace",
    "environment": "envVars",
    "labels": "labels",
    "annotations": "annotations",
    "limits": "limits",
    "requests": "requests",
    "secrets": "secrets",
    "constraints": "constraints",
    "readonly_root_filesystem": "readOnlyRootFilesystem",
}
_OF_BUILDING = {"skip_build", "lang", "handler"}
_OF_TEXTS = {"environment", "labels", "annotations", "limits", "requests"}


@dataclass(frozen=True)
class Gateway:
    """Where to deploy, and as whom. Times are in seconds.

    `timeout` is how long the function may take to become ready, `pause` how long to wait before
    asking again; `waiting` is told each time what is waited for. Plain HTTP carries the password to
    loopback only, unless `insecure`.
    """

    url: str
    username: str = ""
    password: str = field(default="", repr=False)
    insecure: bool = False
    timeout: float = 300.0
    pause: float = 1.0
    waiting: Callable[[str], object] = lambda _: None


def read_stack(path: Path, image: str = "", name: str = "") -> dict[str, Any]:
    """Return the FunctionDeployment of a stack file's only function, or of the one called `name`.

    `image` takes the place of the file's own. Raises PipelineError where the file is no stack file,
    has a field that would be lost, or names an image that is not pinned or not in a registry.
    """
    try:
        functions = dict(yaml.safe_load(path.read_text(encoding="utf-8"))["functions"])
    except OSError as error:
        raise PipelineError(f"cannot read the stack file {path} ({error.strerror})") from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        raise PipelineError(f"{path} is no stack file with `functions`") from None
    chosen = name or (next(iter(functions)) if len(functions) == 1 else "")
    if chosen not in functions:
        raise PipelineError(
            f"{path} has the functions {', '.join(functions)}; name one with --function"
        )
    entry = {**functions[chosen], **({"image": image} if image else {})}
    if lost := entry.keys() - _FIELDS.keys() - _OF_BUILDING:
        raise PipelineError(f"{path}: {', '.join(sorted(lost))} of {chosen} cannot be deployed")
    if entry.get("image", "${").startswith("${"):
        raise PipelineError(f"{path} names no image; give --image HOST/NAME@sha256:…")
    reference = pinned(entry["image"])
    body: dict[str, Any] = {"service": chosen}
    for key, target in _FIELDS.items():
        if key in entry:
            value: Any = str(reference) if key == "image" else entry[key]
            body[target] = {k: str(v) for k, v in value.items()} if key in _OF_TEXTS else value
    # The function's receipts say which image answered, which a container cannot know.
    body["envVars"] = {**body.get("envVars", {}), "PLATELINE_IMAGE": str(reference)}
    return body


def find_password(url: str, environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """Return user and password for the gateway `url`, empty where none is known.

    $OPENFAAS_PASSWORD (and $OPENFAAS_USERNAME, by default admin) comes first, then what
    `faas-cli login` left in $OPENFAAS_CONFIG/config.yml or ~/.openfaas/config.yml.
    """
    if password := environ.get("OPENFAAS_PASSWORD"):
        return environ.get("OPENFAAS_USERNAME", "admin"), password
    path = Path(environ.get("OPENFAAS_CONFIG") or Path.home() / ".openfaas") / "config.yml"
    try:
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["auths"]:
            if entry["gateway"].rstrip("/") == url.rstrip("/") and entry.get("auth") == "basic":
                user, _, password = base64.b64decode(entry["token"]).decode().partition(":")
                return user, password
    except FileNotFoundError:
        pass
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError):
        raise PipelineError(
            f"{path} cannot be read; run `faas-cli login` again, or set OPENFAAS_PASSWORD"
        ) from None
    return "", ""


def deploy(gateway: Gateway, body: Mapping[str, Any], tile: bytes) -> Deployed:
    """Create or update the function of `body`, wait until it is ready, and ask it about `tile`.

    Raises PipelineError that names the request, what came back, and the next step.
    """
    name, namespace = body["service"], body.get("namespace", "")
    with _connected(gateway) as client:
        end = time.monotonic() + gateway.timeout
        answer = _ask(client, gateway, end, "PUT", "/system/functions", json=dict(body))
        updated = answer.status_code != 404
        if not updated:
            answer = _ask(client, gateway, end, "POST", "/system/functions", json=dict(body))
            if answer.status_code == 404:
                raise _refused(answer, gateway)
        _await(client, gateway, end, name, namespace, body["image"])
        path = f"/function/{name}.{namespace}" if namespace else f"/function/{name}"
        headers = {"Content-Type": "image/png"}
        answer = _ask(client, gateway, end, "POST", path, content=tile, headers=headers)
        try:
            said = dict(answer.json())
        except (ValueError, TypeError):
            raise PipelineError(
                f"{name} answered a tile with {answer.status_code} and no JSON: "
                f"{answer.text[:200]!r}; is it the function's image?"
            ) from None
    return Deployed(name, body["image"], gateway.url.rstrip("/") + path, updated, said)


def deployed(gateway: Gateway) -> dict[str, str]:
    """Return the functions of the gateway's own namespace, name -> image.

    Raises PipelineError that names the request, what came back, and the next step.
    """
    with _connected(gateway) as client:
        end = time.monotonic() + gateway.timeout
        answer = _ask(client, gateway, end, "GET", "/system/functions")
        try:
            return {str(each["name"]): str(each["image"]) for each in answer.json()}
        except (ValueError, TypeError, KeyError):
            raise PipelineError(
                f"{gateway.url} answered {answer.status_code} and no list of functions: "
                f"{answer.text[:200]!r}; is it an OpenFaaS gateway?"
            ) from None


def _connected(gateway: Gateway) -> httpx.Client:
    """Return a client that logs in; raises PipelineError for a password in the clear."""
    parts = urlsplit(gateway.url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise PipelineError(f"the gateway {gateway.url!r} is no http or https address")
    open_wire = parts.scheme == "http" and not is_loopback(parts.netloc)
    if gateway.password and open_wire and not gateway.insecure:
        raise PipelineError(
            f"{gateway.url} would get the password in the clear; use https, or --insecure"
        )
    login = httpx.BasicAuth(gateway.username, gateway.password) if gateway.password else None
    return httpx.Client(
        base_url=gateway.url.rstrip("/"),
        auth=login,
        timeout=60,
        trust_env=not is_loopback(parts.netloc),
    )


def _ask(
    client: httpx.Client, gateway: Gateway, end: float, method: str, path: str, **request: Any
) -> httpx.Response:
    """Send a request, again while the gateway cannot, until `end`; 404 is an answer."""
    while True:
        try:
            answer = client.request(method, path, **request)
            if answer.status_code < 400 or answer.status_code == 404:
                return answer
            error = _refused(answer, gateway)
            if answer.status_code not in _TRANSIENT:
                raise error
        except httpx.TransportError as cause:
            reason = str(cause) or type(cause).__name__
            error = PipelineError(
                f"{method} {path} at {gateway.url} failed ({reason}); check that the gateway runs "
                "and is reached from here (kubectl port-forward)"
            )
        if time.monotonic() + gateway.pause > end:
            raise error from None
        gateway.waiting(f"{error}; asking again for up to {end - time.monotonic():.0f} s")
        time.sleep(gateway.pause)


def _refused(answer: httpx.Response, gateway: Gateway) -> PipelineError:
    hint = {
        401: "; set OPENFAAS_PASSWORD or run `faas-cli login`",
        403: "; the user lacks the right",
        404: "; is it an OpenFaaS gateway, and does the namespace exist?",
    }.get(answer.status_code, "")
    what = f"{answer.request.method} {answer.request.url.path} at {gateway.url}"
    return PipelineError(
        f"{what} answered {answer.status_code} ({answer.text.strip()[:300]}){hint}"
    )


def _await(
    client: httpx.Client, gateway: Gateway, end: float, name: str, namespace: str, image: str
) -> None:
    """Wait until the gateway tells of `image` with every replica available."""
    params = {"namespace": namespace} if namespace else {}
    state = "nothing yet"
    while True:
        answer = _ask(client, gateway, end, "GET", f"/system/function/{name}", params=params)
        if answer.status_code != 404:
            found = answer.json()
            ready, wanted = found.get("availableReplicas") or 0, found.get("replicas") or 1
            state = f"{ready} of {wanted} replicas of {found.get('image')}"
            if found.get("image") == image and ready >= wanted:
                return
        if time.monotonic() + gateway.pause > end:
            raise PipelineError(
                f"{name} was not ready after {gateway.timeout:g} s ({state}); can the cluster pull "
                f"the image? See `kubectl -n {namespace or 'openfaas-fn'} describe deploy/{name}`"
            )
        gateway.waiting(f"waiting for {name}: {state}")
        time.sleep(gateway.pause)
