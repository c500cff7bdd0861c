"""What a package asks of Kubernetes for a step: claims, secrets, memory.

Source: kubernetes_platform/proto/kubernetes_executor_config.proto of kubeflow/pipelines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipeline.errors import PipelineError

# Settings whose entries name an object, and the kind of it.
NAMED = {"pvcMount": "pvcName", "secretAsVolume": "secretName", "secretAsEnv": "secretName"}

GPU = "nvidia.com/gpu"  # what NVIDIA's device plugin calls a GPU


def accelerator(container: Mapping[str, Any]) -> tuple[str, str]:
    """Return the kind and the number of the accelerators of a container, '' where it has none.

    Either may be a parameter. Packages before kfp 2.9 have other fields.
    """
    asked = container.get("resources", {}).get("accelerator", {})
    kind = asked.get("resourceType") or asked.get("type") or ""
    return str(kind), str(asked.get("resourceCount") or asked.get("count") or "")


def source(entry: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Return where the name of `entry` comes from, as the source of a task's input.

    Newer packages have `<kind>Parameter`; older ones have the name itself, and claims a source.
    """
    found: Mapping[str, Any] | None = entry.get(f"{kind}Parameter")
    if found:
        return found
    if "componentInputParameter" in entry or "taskOutputParameter" in entry:
        return entry
    return {"runtimeValue": {"constant": entry.get("constant") or entry.get(kind, "")}}


def constant_name(entry: Mapping[str, Any], kind: str) -> str:
    """Return the name in `entry` where it stands in the package itself, otherwise ""."""
    return str(source(entry, kind).get("runtimeValue", {}).get("constant", ""))


def known_name(
    entry: Mapping[str, Any], kind: str, parameters: Mapping[str, Any] | None = None
) -> str:
    """Return the name in `entry` where no run is needed to know it, otherwise ""."""
    found = source(entry, kind)
    if "runtimeValue" in found:
        return str(found["runtimeValue"]["constant"])
    return str((parameters or {}).get(found.get("componentInputParameter", ""), ""))


# A label of the pod, so that a NetworkPolicy of a cluster can select by it as well.
NETWORK_LABEL = "plateline/network"


def asks_for_network(settings: Mapping[str, Any]) -> bool:
    """Tell whether a package says that a step needs the network: the label of its pod is "yes"."""
    labels: Mapping[str, str] = settings.get("podMetadata", {}).get("labels", {})
    return labels.get(NETWORK_LABEL) == "yes"


_QUANTITY = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)((?:[eE][0-9]{1,2})?)(m|[KMGTP]i|[kMGTP])?")
_UNITS = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
          "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}  # fmt: skip


def memory(text: str) -> int:
    """Return a quantity such as 512Mi or 4G in bytes; raises PipelineError for another text.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/.
    """
    return int(_quantity(text, "the memory", "512Mi or 4G"))


def cpus(text: str) -> float:
    """Return a quantity such as 500m or 2 in processors; raises as `memory`."""
    return _quantity(text, "the CPU", "500m or 2")


def _quantity(text: str, what: str, example: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise PipelineError(f"{what} {text!r} is no quantity; write it as {example}")
    return float(match[1] + match[2]) * _UNITS.get(match[3] or "", 1)
