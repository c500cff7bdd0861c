"""Whether a package's user can read and write a claim: a short pod mounts it and tries.

Kubeflow Pipelines sets no fsGroup, and a fresh block volume belongs to root, so the first write of
a step that is not root fails there.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.kubeflow import short_pod
from pipeline.kubeflow.cluster import MISSING, NOTE, OK, Check, Cluster

_AT = "/mnt/claim"
_ENDED = ("Succeeded", "Failed")
# What it prints is the container's termination message: no right to read logs is needed.
_TRY = f"""\
import json, os
found = os.stat({_AT!r})
said = {{"uid": found.st_uid, "gid": found.st_gid, "mode": oct(found.st_mode & 0o7777)}}
own = {_AT!r} + "/.plateline-preflight-" + os.uname().nodename
for word, attempt in (
    ("lists", lambda: os.listdir({_AT!r})),
    ("writes", lambda: os.rmdir(os.mkdir(own) or own)),
):
    try:
        attempt()
        said[word] = True
    except OSError as error:
        said[word], said["error"] = False, error.strerror
with open("/dev/termination-log", "w") as file:
    json.dump(said, file)
"""


@dataclass(frozen=True, slots=True)
class Mounted:
    """A claim of a package: an image of a step that mounts it, that step's user and group.

    None is the image's own. `writes` tells whether a step is to write to it.
    """

    name: str
    image: str
    user: int | None
    group: int | None
    writes: bool

    @property
    def who(self) -> str:
        """The user in words."""
        return "the image's user" if self.user is None else f"user {self.user}"


def try_claim(
    core: Any, cluster: Cluster, claim: Mounted, secrets: tuple[str, ...], seconds: float,
    pause: float,
) -> Check:  # fmt: skip
    """Start a pod that mounts `claim`, wait up to `seconds` for what it says, and delete it."""
    what = f"claim {claim.name} for {claim.who}"
    try:
        with short_pod.started(core, cluster, _pod(cluster, claim, secrets)) as read:
            until = time.monotonic() + seconds
            while True:
                pod = read()
                if pod.status.phase in _ENDED or time.monotonic() >= until:
                    return _told(what, claim, pod, cluster, seconds)
                time.sleep(pause)
    except short_pod.NotMadeError as error:
        return Check(
            what, NOTE, f"no pod could be made to try it ({error.status})",
            f"check the service account {cluster.service_account}, or give --skip-claims",
        )  # fmt: skip


def _told(what: str, claim: Mounted, pod: Any, cluster: Cluster, seconds: float) -> Check:
    """Return what the pod's termination message says of the claim."""
    state = next((s.state.terminated for s in pod.status.container_statuses or []), None)
    said: Mapping[str, Any] = {}
    with contextlib.suppress(ValueError, TypeError):
        found = json.loads(state.message if state else "")
        said = found if isinstance(found, dict) else {}
    if not said:
        reason = (state.reason if state else "") or f"{pod.status.phase} after {seconds:.0f} s"
        return Check(
            what, NOTE, f"the pod that tries it said nothing ({reason})",
            f"kubectl describe pvc {claim.name} -n {cluster.namespace}; its image "
            f"{claim.image} must have python3",
        )  # fmt: skip
    owner = f"its folder belongs to {said.get('uid')}:{said.get('gid')}, mode {said.get('mode')}"
    if not said.get("lists"):
        return Check(what, MISSING, f"cannot be read: {owner}", _remedy(claim, cluster))
    if claim.writes and not said.get("writes"):
        why = f" ({said['error']})" if said.get("error") else ""
        return Check(what, MISSING, f"cannot be written to{why}: {owner}", _remedy(claim, cluster))
    return Check(what, OK, f"{'writable' if said.get('writes') else 'readable'}; {owner}")


def _remedy(claim: Mounted, cluster: Cluster) -> str:
    return (
        f"give its folder to {claim.who}: deploy/kubernetes/claim-owner is a job that does so in "
        f"{cluster.namespace}; a claim that is read-only by its access mode must be another"
    )


def _pod(cluster: Cluster, claim: Mounted, secrets: tuple[str, ...]) -> dict[str, Any]:
    """Return a pod that tries a claim; the standard `restricted` allows it unless it is root."""
    user: dict[str, Any] = {}
    if claim.user is not None:
        user |= {"runAsNonRoot": claim.user != 0, "runAsUser": claim.user}
    if claim.group is not None:
        user |= {"runAsGroup": claim.group}
    mounted = [{"name": "claim", "mountPath": _AT}]
    trying = short_pod.container(
        "claim", claim.image, ["python3", "-c", _TRY], "16Mi", volumeMounts=mounted
    )
    volumes = [{"name": "claim", "persistentVolumeClaim": {"claimName": claim.name}}]
    return short_pod.pod(cluster, "claim", [trying], secrets, user, volumes=volumes)
