"""A step's pod, as the driver's patch says it, as a process in a sandbox.

Sources: initPodSpecPatch and extendPodSpecPatch in backend/src/v2/driver (2.17), the template that
they patch in backend/src/v2/compiler/argocompiler/container.go, and the kubelet's expansion of
`$(NAME)`, https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#entrypoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import oci
from builder.sandbox.process import Mount, Process
from pipeline.run import places
from pipeline.run.beneath import Refused
from pipeline.run.step.context import Volume
from pipeline.spec import kubernetes, names

LAUNCHER = "/kfp-launcher"  # the folder of the launcher in every step
SCRATCH = ("gcs", "s3", "minio", ".local", ".cache", ".config")  # emptyDirs of the template
_VARIABLE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
_NO_EFFECT = {"name", "command", "args", "image", "env", "resources", "volumeMounts",
              "imagePullPolicy", "securityContext"}  # fmt: skip
_POD_NO_EFFECT = {"containers", "volumes", "nodeSelector", "tolerations", "affinity",
                  "imagePullSecrets", "activeDeadlineSeconds", "hostUsers"}  # fmt: skip


@dataclass(frozen=True)
class Given:
    """What a run lends its pods: images by reference, claims, secrets, and what all pods have."""

    images: Mapping[str, oci.Image]
    volumes: Mapping[str, Volume]
    secrets: Mapping[str, Path]
    mounts: tuple[Mount, ...]
    env: Mapping[str, str]


def expand(word: str, env: Mapping[str, str]) -> str:
    """Return `word` with `$(NAME)` replaced by the variable, and `$$` by `$`, as the kubelet does.

    A name that is no variable stays as it is.
    """
    return _VARIABLE.sub(
        lambda found: "$" if found[1] is None else env.get(found[1], found[0]), word
    )


def process(patch: Mapping[str, Any], name: str, home: Path, given: Given) -> Process:
    """Return the process of the pod `name`; its scratch folders are made below `home`.

    Raises Refused for what a pod may have on a cluster and not here.
    """
    (container,) = patch["containers"]
    for found, known, of in ((patch, _POD_NO_EFFECT, "pod"), (container, _NO_EFFECT, "container")):
        if lacking := sorted(set(found) - known):
            raise Refused(f"its {of} has {', '.join(lacking)}, which this engine has not")
    env = {**given.env, "KFP_POD_NAME": name, "KFP_POD_UID": name, **_environment(container, given)}
    words = [*container["command"], *container.get("args", [])]
    mounts = {mount.target: mount for mount in given.mounts}
    for folder in SCRATCH:
        (home / folder).mkdir(parents=True, exist_ok=True)
        mounts[f"/{folder}"] = Mount(home / folder, f"/{folder}", writable=True)
    for mount in _mounts(patch, container, home, given):
        if mount.target in mounts:
            raise Refused(f"two things are mounted at {mount.target}; give each its own path")
        mounts[mount.target] = mount
    limits = container.get("resources", {}).get("limits", {})
    seconds = float(patch.get("activeDeadlineSeconds") or 0)
    return Process(
        image=given.images[container["image"]], env=env, mounts=tuple(mounts.values()),
        command=tuple(expand(word, env) for word in words), network=True,
        timeout=seconds or None, user=_user(container.get("securityContext", {})),
        memory=kubernetes.memory(limits["memory"]) if "memory" in limits else None,
    )  # fmt: skip


def _user(context: Mapping[str, Any]) -> str:
    user = str(context.get("runAsUser", ""))
    return f"{user}:{context.get('runAsGroup', user)}" if user else ""


def _environment(container: Mapping[str, Any], given: Given) -> dict[str, str]:
    env: dict[str, str] = {}
    for entry in container.get("env", []):
        name, source = names.variable(entry["name"]), entry.get("valueFrom")
        if source is None:
            env[name] = expand(entry.get("value", ""), env)
            continue
        key = source.get("secretKeyRef")
        if key is None:
            raise Refused(f"the variable {name} comes from {', '.join(source)}, not had here")
        folder = given.secrets.get(key["name"])
        if folder is None:
            if not key.get("optional"):
                raise Refused(f"the secret {key['name']} was not given; use --secret")
            continue
        env[name] = (folder / names.secret_key(key["key"])).read_text()
    return env


def _mounts(
    patch: Mapping[str, Any], container: Mapping[str, Any], home: Path, given: Given
) -> list[Mount]:
    volumes = {volume["name"]: volume for volume in patch.get("volumes", [])}
    found = []
    for mount in container.get("volumeMounts", []):
        volume, target = volumes[mount["name"]], places.mount_point(mount["mountPath"])
        if claim := volume.get("persistentVolumeClaim", {}).get("claimName"):
            if claim not in given.volumes:
                raise Refused(f"it mounts the claim {claim}; give --volume {claim}=DIR")
            lent = given.volumes[claim]
            source = places.in_claim(
                lent.folder, mount.get("subPath", ""), claim, make=lent.writable
            )
            found.append(Mount(source, target, lent.writable and not mount.get("readOnly")))
        elif secret := volume.get("secret"):
            folder = given.secrets.get(secret["secretName"])
            if folder:
                found.append(Mount(folder, target))
            elif not secret.get("optional"):
                raise Refused(f"the secret {secret['secretName']} was not given; use --secret")
        elif "emptyDir" in volume:
            folder = home / "empty" / names.key("the volume", mount["name"])
            folder.mkdir(parents=True, exist_ok=True)
            found.append(Mount(folder, target, writable=True))
        else:
            raise Refused(f"its volume {mount['name']} is of a kind that this engine has not")
    return found
