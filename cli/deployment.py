"""The tasks that put a packaged model to work on a host, and go back to an earlier one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cli import policy as policies
from cli.command import command
from cli.output import JSON_HELP, ROOT, facts, say
from cli.policy import POLICY_HELP
from cli.progress import sometimes

STACK = str(ROOT / "deploy" / "openfaas" / "stack.yaml")
GATEWAY_HELP = "address of the OpenFaaS gateway ($OPENFAAS_URL)"
PLAIN_HELP = (
    "plain HTTP beyond this machine: to a gateway, which gets the password, and to a registry"
)
TILE_HELP = "an image file to send at the end (a drawn one)"
TIMEOUT_HELP = "seconds that it may take to become ready"
_SHOWN = ("class", "probability", "model_digest")

CLUSTERS = ("knative", "kserve", "kubernetes")
MACHINES = ("compose", "quadlet")
TARGETS = ("openfaas", *CLUSTERS, *MACHINES)
# An option -> the targets that it means something to.
_OPTIONS = {
    "gateway": ("openfaas",),
    "stack": ("openfaas",),
    "namespace": CLUSTERS,
    "context": CLUSTERS,
    "kubeconfig": CLUSTERS,
    "modelcar": ("kserve",),
    "port": MACHINES,
}


def gateway_at(url: str, timeout: int, *, insecure: bool) -> Any:
    """Return the Gateway of --gateway or $OPENFAAS_URL; raises PipelineError without either."""
    from pipeline.errors import PipelineError
    from pipeline.serving.openfaas import Gateway, find_password

    url = url or os.environ.get("OPENFAAS_URL", "")
    if not url:
        raise PipelineError("no gateway was named; give --gateway URL or set OPENFAAS_URL")
    return Gateway(
        url, *find_password(url), insecure=insecure, timeout=timeout, waiting=sometimes(say)
    )


def _tile(path: str) -> bytes:
    from pipeline.definition.plates import sample_tile
    from pipeline.errors import PipelineError

    try:
        return Path(path).read_bytes() if path else sample_tile()
    except OSError as error:
        raise PipelineError(f"cannot read the tile {path} ({error.strerror})") from None


@command(
    help={
        "target": f"where to: {', '.join(TARGETS)}",
        "image": "the packaged image, HOST/REPOSITORY@sha256:… (openfaas: the stack file's own)",
        "function": "the function's name there (model); openfaas: which one of the stack file",
        "dry_run": "print what would be applied, and change nothing",
        "gateway": f"openfaas: {GATEWAY_HELP}",
        "stack": "openfaas: a stack file, such as the package stage puts out "
        "(deploy/openfaas/stack.yaml)",
        "namespace": "clusters: where it runs (default)",
        "context": "clusters: a context of the kubeconfig (the current one)",
        "kubeconfig": "clusters: the kubeconfig ($KUBECONFIG, or ~/.kube/config)",
        "modelcar": "kserve: run the function image, and mount the packaged one for its models",
        "port": "compose, quadlet: the port of this machine's loopback (8080; 0: any)",
        "tile": TILE_HELP,
        "timeout": TIMEOUT_HELP,
        "policy": POLICY_HELP,
        "insecure": PLAIN_HELP,
        "json": JSON_HELP,
    }
)
def deploy(
    target: str = "openfaas",
    image: str = "",
    function: str = "",
    dry_run: bool = False,
    gateway: str = "",
    stack: str = "",
    namespace: str = "",
    context: str = "",
    kubeconfig: str = "",
    modelcar: bool = False,
    port: int = -1,
    tile: str = "",
    timeout: int = 300,
    policy: str = "",
    insecure: bool = False,
    json: bool = False,
) -> None:
    """Deploy a packaged image to a host by its digest, wait until it is ready, and send it a tile.

    One image for all hosts: docs/deploy.md. An image that does not keep to `policy`, a file, is not
    deployed.
    """
    from pipeline.serving.workload import workload

    given = {"gateway": gateway, "stack": stack, "namespace": namespace, "context": context,
             "kubeconfig": kubeconfig, "modelcar": modelcar, "port": port >= 0}  # fmt: skip
    _check(target, [name for name, value in given.items() if value])
    asked, picture = policies.read(policy), _tile(tile)
    if target == "openfaas":
        from pipeline.serving.openfaas import read_stack

        body = read_stack(Path(stack or STACK), image, function)
        _hold(asked, body["image"], insecure=insecure)
        if dry_run:
            _printed(target, [body], as_json=json)
            return
        _openfaas(gateway_at(gateway, timeout, insecure=insecure), body, picture, as_json=json)
        return
    made = workload(function or "model", image, namespace)
    base = _hold(asked, str(made.image), insecure=insecure, base=modelcar)
    at = port if port >= 0 else 8080
    if target == "quadlet":
        _quadlet(made, at, dry_run=dry_run, as_json=json)
    elif target == "compose":
        _compose(made, at, picture, timeout, dry_run=dry_run, as_json=json)
    else:
        from pipeline.serving import manifests

        objects = (
            manifests.kserve(made, base) if target == "kserve" else getattr(manifests, target)(made)
        )
        if dry_run:
            _printed(target, objects, as_json=json)
            return
        where = (context, namespace or "default", kubeconfig)
        _cluster(where, objects, picture, timeout, as_json=json)


def _check(target: str, options: Sequence[str]) -> None:
    """Refuse a target that is not known, and options that mean nothing to it."""
    from pipeline.errors import PipelineError

    if target not in TARGETS:
        raise PipelineError(f"there is no target {target!r}; take one of {', '.join(TARGETS)}")
    for option in options:
        if target not in _OPTIONS[option]:
            raise PipelineError(
                f"--{option} means nothing to the target {target}; it is for "
                f"{', '.join(_OPTIONS[option])}"
            )


def _hold(policy: Any, image: str, *, insecure: bool, base: bool = False) -> Any:
    """Hold a packaged image against a policy; return the function image that it stands on.

    That is looked for, and what the image adds to it checked, only where a policy or `base` asks
    for it; otherwise None. Raises BuilderError that lists every breach.
    """
    from builder.oci.reference import Reference
    from builder.policy.evidence import Own
    from builder.registry.client import Registries
    from builder.store import Store
    from pipeline.release.basis import base_of

    if policy is None and not base:
        return None
    store, reference = Store.open(), Reference.parse(image)
    with store.in_use(), Registries(insecure=insecure, notice=say) as registries:
        under = base_of(registries, store, reference)
    if policy is not None:
        # Models have no licence, advisory or test of a stage; all else is in the base, held beside.
        own = {reference.digest: Own(bill=lambda: b'{"components": []}', tested=lambda: True)}
        policies.check(policy, [image, str(under)], own=own, insecure=insecure)
    return under


def _openfaas(where: Any, body: Mapping[str, Any], picture: bytes, *, as_json: bool) -> None:
    from pipeline.serving.openfaas import deploy as put

    found = put(where, body, picture)
    facts(asdict(found), _answered(found), as_json=as_json)


def _cluster(
    where: tuple[str, str, str], objects: Sequence[Any], picture: bytes, timeout: int,
    *, as_json: bool,
) -> None:  # fmt: skip
    from pipeline.kubeflow.cluster import Cluster, connect, speaking
    from pipeline.serving import cluster as kubernetes
    from pipeline.serving.workload import Deployed

    context, namespace, kubeconfig = where
    at = Cluster(context, namespace, kubeconfig=Path(kubeconfig) if kubeconfig else None)
    first = objects[0]
    name = first["metadata"]["name"]
    with connect(at) as client, speaking(at):
        existed = kubernetes.apply(client, objects, namespace)
        ready = kubernetes.await_ready(
            client, first, namespace, timeout=timeout, waiting=sometimes(say)
        )
        if first["kind"] == "Deployment":
            url = f"http://{name}.{namespace}"
            answer = kubernetes.ask(client, name, namespace, picture)
        else:
            url, answer = str(ready["status"].get("url", "")), {}
            say(f"ready, by its probes; ask it by: curl --data-binary @well.png {url}")
    image = first["spec"].get("template", first["spec"].get("predictor", {}))
    image = image.get("spec", image)["containers"][0]["image"]
    found = Deployed(name, image, url, existed, answer)
    facts(asdict(found), _answered(found), as_json=as_json)


def _compose(
    function: Any, port: int, picture: bytes, timeout: int, *, dry_run: bool, as_json: bool
) -> None:
    from pipeline.errors import PipelineError
    from pipeline.serving import composed
    from pipeline.serving.function import classify, ready
    from pipeline.serving.units import compose
    from pipeline.serving.workload import Deployed

    document = compose(function, port)
    if dry_run:
        _printed("compose", [document], as_json=as_json)
        return
    file = ROOT / "dist" / f"{function.name}.compose.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(_yaml([document]), encoding="utf-8")
    existed, url = composed.up(file, function.name)
    if not ready(url, timeout):
        raise PipelineError(
            f"{function.name} was not ready after {timeout} s; see `docker logs "
            f"{function.name}_{function.name}_1`"
        )
    found = Deployed(function.name, str(function.image), url, existed, classify(url, picture))
    facts(asdict(found), _answered(found), as_json=as_json)
    say(f"end it by: docker-compose --file {file} --project-name {function.name} down")


def _quadlet(function: Any, port: int, *, dry_run: bool, as_json: bool) -> None:
    from pipeline.errors import PipelineError
    from pipeline.serving.units import quadlet

    name = f"{function.name}.container"
    if not dry_run:
        raise PipelineError(
            "a quadlet is started by systemd of the machine that it is for; write it by --dry-run "
            f"> ~/.config/containers/systemd/{name} there, then `systemctl --user daemon-reload` "
            f"and `systemctl --user start {function.name}`"
        )
    text = quadlet(function, port)
    if as_json:
        facts({"target": "quadlet", "files": {name: text}}, [], as_json=True)
    else:
        print(text, end="")


def _printed(target: str, documents: Sequence[Any], *, as_json: bool) -> None:
    if as_json:
        facts({"target": target, "manifests": list(documents)}, [], as_json=True)
    else:
        print(_yaml(documents), end="")


def _yaml(documents: Sequence[Any]) -> str:
    import yaml

    texts = [yaml.safe_dump(each, sort_keys=False, width=200) for each in documents]
    return "---\n".join(texts)


@command(
    help={
        "to": "the image to go back to: its digest or a tag, or HOST/REPOSITORY@sha256:…",
        "gateway": GATEWAY_HELP,
        "stack": "the stack file of the function (deploy/openfaas/stack.yaml)",
        "function": "which function of the stack file",
        "tile": TILE_HELP,
        "timeout": TIMEOUT_HELP,
        "dry_run": "only say what would change",
        "policy": POLICY_HELP,
        "insecure": PLAIN_HELP,
        "json": JSON_HELP,
    }
)
def rollback(
    to: str,
    gateway: str = "",
    stack: str = STACK,
    function: str = "",
    tile: str = "",
    timeout: int = 300,
    dry_run: bool = False,
    policy: str = "",
    insecure: bool = False,
    json: bool = False,
) -> None:
    """Deploy an earlier image of a function again, and say what changes by that.

    A digest or a tag is looked for in the repository of the image that is deployed now.
    """
    from dataclasses import replace

    from builder import oci
    from builder.oci.reference import Reference
    from builder.store import Store
    from pipeline.errors import PipelineError
    from pipeline.release.trace import Places, changes
    from pipeline.release.trace import trace as walk
    from pipeline.serving.openfaas import deploy as put
    from pipeline.serving.openfaas import deployed, read_stack

    asked, where = policies.read(policy), gateway_at(gateway, timeout, insecure=insecure)
    # Read before the gateway is asked; which image it names does not matter here.
    name = read_stack(Path(stack), f"none.invalid/none@sha256:{'0' * 64}", function)["service"]
    running = deployed(where).get(name)
    if running is None:
        raise PipelineError(
            f"{where.url} has no function {name}, so there is nothing to go back from; deploy one "
            "with `invoke deploy`, or name another with --function"
        )
    with Places(Store.open(), insecure=insecure, notice=say) as places:
        now = places.pinned(Reference.parse(running))
        if "/" in to:
            wanted = Reference.parse(to)
        elif oci.is_digest(to):
            wanted = replace(now, tag="", digest=to)
        else:
            wanted = replace(now, tag=to, digest="")
        wanted = replace(places.pinned(wanted), tag="")
        if wanted.digest == now.digest:
            raise PipelineError(f"{name} runs {wanted} already; name the image to go back to")
        before, after = walk(now, places, ROOT), walk(wanted, places, ROOT)
    if not after.base:
        raise PipelineError(f"{wanted} is no image that the package stage made; nothing changed")
    _hold(asked, str(wanted), insecure=insecure)
    differ = changes(before, after)
    for change in differ:
        say(
            f"{change.kind} {change.name}".strip() + f": {change.old or '-'} -> {change.new or '-'}"
        )
    for said in after.missing:
        say(f"not known of {wanted.digest}: {said}")
    found: dict[str, Any] = {"changes": [asdict(change) for change in differ], "deployed": None}
    rows = [("what", "found"), ("function", name), ("would be", str(wanted))]
    if not dry_run:
        done = put(where, read_stack(Path(stack), str(wanted), function), _tile(tile))
        found["deployed"], rows = asdict(done), _answered(done)
    facts(found, rows, as_json=json)


def _answered(found: Any) -> list[tuple[str, str]]:
    rows = [("what", "found"), ("function", found.name), ("image", found.image)]
    rows += [("address", found.url), ("was", "updated" if found.updated else "created")]
    return rows + [(key, str(value)) for key, value in found.answer.items() if key in _SHOWN]
