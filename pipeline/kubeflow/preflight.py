"""What a package needs of a cluster, asked before a run: each answer with what to apply."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.definition.claims import IMAGES_CLAIM, SECRET, SOCKET_CLAIM
from pipeline.kubeflow.claim_pod import Mounted, try_claim
from pipeline.kubeflow.cluster import MISSING, NOTE, OK, Check, Cluster, connect, speaking
from pipeline.kubeflow.trial_pod import pull_images
from pipeline.spec.kubernetes import NAMED, accelerator, known_name
from pipeline.spec.package import STUBS, Package

_KEYS = {SECRET: "config.json"}  # what the package stage reads


@dataclass(frozen=True, slots=True)
class Needs:
    """What a package asks for: secret -> whether it may lack, resource -> how many a pod.

    `pull_secrets` are those that its pods show to registries.
    """

    claims: tuple[Mounted, ...]
    secrets: Mapping[str, bool]
    accelerators: Mapping[str, int]
    images: tuple[str, ...]
    pull_secrets: tuple[str, ...] = ()


def needs(package: Package) -> Needs:
    """Read what the package asks for; names that only a run knows are left out."""
    declared = package.spec["root"].get("inputDefinitions", {}).get("parameters", {})
    defaults = {name: found.get("defaultValue", "") for name, found in declared.items()}
    claims: dict[tuple[str, str], Mounted] = {}
    secrets: dict[str, bool] = {}
    pulls: set[str] = set()
    for label, settings in sorted(package.kubernetes.items()):
        user = settings.get("securityContext", {})
        for key, kind in NAMED.items():
            for entry in settings.get(key, []):
                name = known_name(entry, kind, defaults)
                if name and kind == "pvcName":
                    mounted = Mounted(
                        name, package.images().get(label, ""), _number(user, "runAsUser"),
                        _number(user, "runAsGroup"), writes=name != IMAGES_CLAIM,
                    )  # fmt: skip
                    claims.setdefault((name, mounted.who), mounted)
                elif name:
                    secrets[name] = secrets.get(name, True) and bool(entry.get("optional"))
        found = (known_name(e, "secretName", defaults) for e in settings.get("imagePullSecret", []))
        pulls |= set(filter(None, found))
    accelerators: dict[str, int] = {}
    for executor in package.spec["deploymentSpec"].get("executors", {}).values():
        kind, count = accelerator(executor.get("container", {}))
        if kind and count.isdigit():
            accelerators[kind] = max(int(count), accelerators.get(kind, 0))
    images = tuple(sorted({*package.images().values()} - STUBS))
    mounts = tuple(claims[key] for key in sorted(claims))
    return Needs(mounts, secrets, accelerators, images, tuple(sorted(pulls)))


def _number(found: Mapping[str, Any], key: str) -> int | None:
    return int(found[key]) if key in found else None


def preflight(
    package: Package,
    cluster: Cluster,
    *,
    pull: bool = True,
    write: bool = True,
    pull_seconds: float = 600.0,
    pause: float = 2.0,
    said: Callable[[str], None] = lambda _: None,
) -> list[Check]:
    """Ask the cluster for all that `package` needs.

    `pull` starts one pod to try its images, `write` then one for each claim to try its folder.

    Raises PipelineError where the cluster does not answer, or does not let in.
    """
    from kubernetes import client

    wanted = needs(package)
    with speaking(cluster):
        connection = connect(cluster)
        core = client.CoreV1Api(connection)
        version = client.VersionApi(connection).get_code()
        checks = [Check("Kubernetes", OK, f"{version.git_version} answers")]
        checks.append(_namespace(core, cluster))
        checks.append(_kubeflow(core, cluster))
        claims = {one.name: _claim(core, cluster, one.name) for one in wanted.claims}
        checks += claims.values()
        checks += [_secret(core, cluster, *found) for found in wanted.secrets.items()]
        checks += [_pull_secret(core, cluster, name) for name in wanted.pull_secrets]
        checks += [_accelerator(core, *found) for found in wanted.accelerators.items()]
        usable = all(check.state != MISSING for check in checks[:2])
        secrets = wanted.pull_secrets
        if pull and usable:
            said(f"pulling {len(wanted.images)} images on a node; the first time takes minutes")
            checks += pull_images(core, cluster, wanted.images, pull_seconds, pause, secrets)
        for one in wanted.claims:
            socket = one.name == SOCKET_CLAIM
            if write and usable and claims[one.name].state != MISSING and one.image and not socket:
                said(f"trying the claim {one.name} as {one.who}")
                checks.append(try_claim(core, cluster, one, secrets, pull_seconds, pause))
    return checks


def _read(read: Callable[..., Any], *words: str) -> Any:
    """Return the object, or None where there is none."""
    from kubernetes.client import ApiException

    try:
        return read(*words)
    except ApiException as error:
        if error.status == 404:
            return None
        raise


def _namespace(core: Any, cluster: Cluster) -> Check:
    name, what = cluster.namespace, f"namespace {cluster.namespace}"
    if _read(core.read_namespace, name) is None:
        return Check(what, MISSING, "not there", f"kubectl create namespace {name}")
    return Check(what, OK, "there")


def _kubeflow(core: Any, cluster: Cluster) -> Check:
    where = cluster.kfp_namespace
    what = f"Kubeflow Pipelines in {where}"
    found = _read(core.read_namespaced_endpoints, "ml-pipeline", where)
    if found is None:
        return Check(
            what, MISSING, "no service ml-pipeline",
            "install Kubeflow Pipelines v2, or name its namespace by --kfp-namespace",
        )  # fmt: skip
    if not any(subset.addresses for subset in found.subsets or []):
        return Check(
            what, MISSING, "ml-pipeline has no pod that is ready",
            f"kubectl get pods -n {where} -l app=ml-pipeline",
        )  # fmt: skip
    return Check(what, OK, "its API is up")


def _claim(core: Any, cluster: Cluster, name: str) -> Check:
    where, what = cluster.namespace, f"claim {name}"
    folder = "deploy/kubernetes" + ("/docker-builder" if name == SOCKET_CLAIM else "")
    found = _read(core.read_namespaced_persistent_volume_claim, name, where)
    if found is None:
        return Check(what, MISSING, "not there", f"kubectl apply -k {folder}")
    if found.status.phase == "Bound":
        modes = ", ".join(found.status.access_modes or found.spec.access_modes or [])
        return Check(what, OK, f"bound ({modes})")
    if found.status.phase == "Pending":
        return Check(
            what, NOTE, "waits for a volume",
            f"usual until a first pod uses it; otherwise kubectl describe pvc {name} -n {where}",
        )  # fmt: skip
    return Check(
        what, MISSING, f"its volume is gone ({found.status.phase})",
        f"kubectl delete pvc {name} -n {where}, then kubectl apply -k {folder}",
    )  # fmt: skip


def _secret(core: Any, cluster: Cluster, name: str, optional: bool) -> Check:
    what, key = f"secret {name}", _KEYS.get(name, "")
    source = f"{key}=$HOME/.docker/config.json" if key else "KEY=FILE"
    make = f"kubectl create secret generic {name} -n {cluster.namespace} --from-file={source}"
    found = _read(core.read_namespaced_secret, name, cluster.namespace)
    if found is None and optional:
        return Check(what, NOTE, "not there; registries are then asked without a login", make)
    if found is None:
        return Check(what, MISSING, "not there", make)
    if key and key not in (found.data or {}):
        there = ", ".join(sorted(found.data or {})) or "none"
        return Check(
            what, MISSING, f"it has no key {key} (keys: {there})",
            f"kubectl delete secret {name} -n {cluster.namespace}, then {make}",
        )  # fmt: skip
    return Check(what, OK, f"there, with {key}" if key else "there")


def _pull_secret(core: Any, cluster: Cluster, name: str) -> Check:
    """Check a secret with which a kubelet pulls images: its type, and that it is JSON with logins.

    https://kubernetes.io/docs/concepts/configuration/secret/#docker-config-secrets.
    """
    what, key = f"pull secret {name}", ".dockerconfigjson"
    make = (
        f"kubectl create secret docker-registry {name} -n {cluster.namespace} "
        "--docker-server=HOST --docker-username=USER --docker-password=PASSWORD"
    )
    found = _read(core.read_namespaced_secret, name, cluster.namespace)
    if found is None:
        return Check(what, MISSING, "not there", make)
    again = f"kubectl delete secret {name} -n {cluster.namespace}, then {make}"
    if found.type != "kubernetes.io/dockerconfigjson" or key not in (found.data or {}):
        return Check(what, MISSING, f"it is of type {found.type}, which no kubelet reads", again)
    try:
        hosts = json.loads(base64.b64decode(found.data[key]))["auths"]
        named = ", ".join(sorted(hosts)) or "no registry"
    except (ValueError, KeyError, TypeError):
        return Check(what, MISSING, f"its {key} is not a Docker config with `auths`", again)
    return Check(what, OK, f"there, for {named}")


def _accelerator(core: Any, kind: str, count: int) -> Check:
    what = f"{count} {kind} in one node"
    nodes = [node for node in core.list_node().items if not node.spec.unschedulable]
    most = max((int((node.status.allocatable or {}).get(kind, 0)) for node in nodes), default=0)
    if most < count:
        return Check(
            what, MISSING, f"the best of {len(nodes)} nodes offers {most}",
            "add a node with the device plugin, or compile with --gpus "
            f"{most if most else 0}",
        )  # fmt: skip
    return Check(what, OK, f"a node offers {most}")
