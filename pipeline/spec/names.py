"""What the names and paths of a package may be: one grammar, for lint and for running.

A package comes from strangers, and its names become files, folders, mounts and variables of this
machine or of a cluster's node. Every function returns what it was given, taken apart where a path
is meant, or raises PipelineError that says which name is refused and why. None asks the disk:
whether a link leads somewhere else is seen by whoever opens the path.

Sources: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/, the validation of
VolumeMount, EnvVar and Secret in pkg/apis/core/validation/validation.go of kubernetes, and
backend/src/v2/driver/k8s.go and component/launcher_v2.go of kubeflow/pipelines.
"""

from __future__ import annotations

import re
from typing import Any

from pipeline.errors import PipelineError

# What the launcher, the kernel and the runner put into a container; below these nothing is mounted.
_TAKEN = (
    "/kfp", "/kfp-launcher", "/proc", "/sys", "/dev", "/gcs", "/s3", "/minio",
    "/var/lib/plateline", "/var/run/secrets/kubernetes.io", "/run/secrets/kubernetes.io",
)  # fmt: skip
# What an image cannot do without: a mount there hides the programs or the users of the image.
_SYSTEM = (
    "/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/run", "/sbin", "/usr",
    "/usr/bin", "/usr/lib", "/usr/lib64", "/usr/local", "/usr/sbin", "/usr/share", "/var",
    "/var/lib", "/var/run", "/var/run/secrets",
)  # fmt: skip
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the usual place of a volume in memory

_KEY = re.compile(r"[\w][\w-]*")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_SECRET_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_URI = re.compile(r"([a-z][a-z0-9+.-]*)://(.+)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_KEY = 200  # bytes; a file's name may have 255, and some are made longer by a suffix
_LONGEST_PATH = 4095  # bytes; PATH_MAX of Linux without the closing NUL
_LONGEST_PART = 255  # bytes; NAME_MAX
KFP = "/kfp/"  # where a step's outputs lie inside its container: /kfp/<step>/<name>


def _refused(what: str, text: str, why: str) -> PipelineError:
    return PipelineError(f"{what} {text[:120]!r} is refused: {why}")


def key(what: str, text: str) -> str:
    """Return the name of a task, component, executor, parameter or artifact.

    It becomes a file or folder; a dot joins the names of nested tasks, so none may hold one.
    Raises PipelineError; `what` says whose name it is.
    """
    if not _KEY.fullmatch(text) or len(text.encode()) > _LONGEST_KEY:
        raise _refused(
            what, text,
            "use letters, digits, _ and -, not - in front, "
            f"at most {_LONGEST_KEY} bytes; compile again with such a name",
        )  # fmt: skip
    return text


def _parts(what: str, text: str) -> tuple[str, ...]:
    """Return the parts of a path; raises PipelineError for `..`, control signs and great length."""
    if _CONTROL.search(text):
        raise _refused(what, text, "it has a control character; write it without")
    parts = tuple(part for part in text.split("/") if part not in ("", "."))
    if ".." in parts:
        raise _refused(what, text, "it leads out of its folder by '..'; write it without")
    if len(text.encode()) > _LONGEST_PATH or any(len(p.encode()) > _LONGEST_PART for p in parts):
        raise _refused(
            what, text, f"a path has at most {_LONGEST_PATH} bytes, a part of it {_LONGEST_PART}; "
            "shorten it",
        )  # fmt: skip
    return parts


def sub_path(text: str) -> tuple[str, ...]:
    """Return the parts of a path inside a claim; () is the whole claim.

    Raises PipelineError where it is absolute or leads out of the claim.
    """
    if text.startswith("/"):
        raise _refused("the subPath", text, "it is absolute; name a folder inside the claim")
    return _parts("the subPath", text)


def mount_path(text: str) -> str:
    """Return the folder of a container at which something is mounted, without needless slashes.

    Raises PipelineError where it is relative, leads out, or hides what the image or the backend
    needs there.
    """
    what = "the mountPath"
    if not text.startswith("/"):
        raise _refused(what, text, "it is not absolute; write it with a / in front")
    if ":" in text:
        raise _refused(what, text, "Kubernetes allows no colon in it; choose another folder")
    path = "/" + "/".join(_parts(what, text))
    taken = path == "/" or path in _SYSTEM or any(f"{path}/".startswith(f"{p}/") for p in _TAKEN)
    if taken and path != _SHARED_MEMORY:
        raise _refused(
            what, text,
            "it would hide what the image or the launcher needs there; mount below /mnt or /data",
        )  # fmt: skip
    return path


def label(what: str, text: str) -> str:
    """Return a name of at most 63 characters, such as a volume's; raises PipelineError otherwise.

    The backend names a pod's volume after its claim, secret or config map, so these are labels.
    """
    if not _LABEL.fullmatch(text) or len(text) > 63:
        raise _refused(
            what, text,
            "a pod's volume is named after it: at most 63 small letters, digits and -, "
            "a letter or digit at both ends; rename it",
        )  # fmt: skip
    return text


def subdomain(what: str, text: str) -> str:
    """Return the name of an object of Kubernetes, labels joined by dots; raises PipelineError."""
    if not all(map(_LABEL.fullmatch, text.split("."))) or len(text) > 253:
        raise _refused(
            what, text,
            "Kubernetes allows at most 253 small letters, digits, - and . in it, "
            "a letter or digit at both ends; rename it",
        )  # fmt: skip
    return text


def secret_key(text: str) -> str:
    """Return the key of a secret or config map, which is a file's name; raises PipelineError."""
    if not _SECRET_KEY.fullmatch(text) or text.startswith("..") or text == "." or len(text) > 253:
        raise _refused(
            "the key of a secret", text,
            "use letters, digits, -, _ and ., at most 253, no .. in front; rename it",
        )  # fmt: skip
    return text


def variable(text: str) -> str:
    """Return the name of an environment variable; raises PipelineError."""
    if not _VARIABLE.fullmatch(text) or len(text) > _LONGEST_PART:
        raise _refused(
            "the environment variable", text,
            "use letters, digits, _, - and ., no digit in front; rename it",
        )  # fmt: skip
    return text


def imported(uri: str) -> str:
    """Return where an importer takes an artifact from; raises PipelineError.

    Files of the machine that runs the step are never meant: a backend could not read them, and
    here they would be somebody's own.
    """
    found = _URI.fullmatch(uri)
    if found is None or found[1] == "file":
        raise _refused(
            "the importer's URI", uri,
            "it names no object store; use s3://, gs://, minio://, oci:// or https://, or mount a "
            "claim that holds the data",
        )  # fmt: skip
    _parts("the importer's URI", found[2])
    return uri


def scheme(uri: str) -> str:
    """Return what stands before `://` in an address; empty where it is none."""
    found = _URI.fullmatch(uri)
    return found[1] if found else ""


def place(uri: str) -> tuple[str, tuple[str, ...]] | None:
    """Return the step and the path inside its outputs that `uri` names, None for another store.

    `/kfp/<step>/<name>[/…]` gives (step, (name, …)). Raises PipelineError for any other path of a
    container and for one that leads out of the step's outputs.
    """
    path = uri.removeprefix("file://")
    if _URI.fullmatch(path):
        _parts("the artifact's URI", path)
        return None
    step, *inner = _parts("the artifact's URI", path.removeprefix(KFP)) or ("",)
    if not path.startswith(KFP) or not inner:
        raise _refused(
            "the artifact's URI", uri,
            "it is outside of the step's outputs, so no other step could get it; write the "
            "artifact below the path that the step was given",
        )  # fmt: skip
    return step, tuple(inner)


def reaches_store(value: Any) -> bool:
    """Return whether a parameter's value names a repository of this machine's own store."""
    return isinstance(value, str) and value.startswith("localhost/")
