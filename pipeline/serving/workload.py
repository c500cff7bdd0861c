"""What a host is told of a packaged function: its image by digest, and what it needs to run well.

Where a number comes from stands beside it. docs/deploy.md has the same in a table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from builder.errors import BuilderError
from builder.oci.reference import Reference
from pipeline.errors import PipelineError

PORT, METRICS_PORT = 8080, 8081
HEALTH, READY = "/_/health", "/_/ready"
USER = 65532  # of stages/base/Dockerfile; a number, since runAsNonRoot cannot check a name

# Seconds. 16 million pixels, the most in a picture, are 256 tiles of at most 0.11 s on one core.
REQUEST_LIMIT = 30
# The function answers on for so long after SIGTERM, while hosts learn that it ends.
ANNOUNCED = 5
# A host waits longer than both together before it kills: what was accepted is answered.
GRACE = REQUEST_LIMIT + ANNOUNCED + 10
LOAD_LIMIT = 120  # the default model loads in less than a second, large ones on a slow disk do not

CORES, CORES_WANTED = 2, 1
MEMORY_MIB, MEMORY_WANTED_MIB = 2048, 512  # as deploy/openfaas/stack.yaml has it
SCRATCH_MIB = 64  # of /tmp, where the function writes an empty file and libraries might write
PROCESSES = 256  # threads count; the function has some 20 on two cores

LEAST, MOST = 1, 5  # replicas, as OpenFaaS has them by default
# Requests at a time from which one more gets no more answers a second out of CORES cores, so that
# another replica helps. Measured: docs/deploy.md, "Numbers".
CONCURRENCY = 4

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Workload:
    """A function to be deployed: `image` is pinned and in a registry, `namespace` may be empty."""

    name: str
    image: Reference
    namespace: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The function's settings: docs/function.md."""
        return {
            # The function's receipts say which image answered, which a container cannot know.
            "PLATELINE_IMAGE": str(self.image),
            "exec_timeout": f"{REQUEST_LIMIT}s",
            "healthcheck_interval": f"{ANNOUNCED}s",
        }


@dataclass(frozen=True)
class Deployed:
    """The function's name and address, whether it was there before, and its answer to a tile."""

    name: str
    image: str
    url: str
    updated: bool
    answer: Mapping[str, Any]


def workload(name: str, image: str, namespace: str = "") -> Workload:
    """Return a Workload; raises PipelineError for an image or a name that no host can take."""
    for what, text in (("name", name), *([("namespace", namespace)] if namespace else [])):
        if not _NAME.fullmatch(text):
            raise PipelineError(
                f"the {what} {text!r} cannot be one of Kubernetes; take up to 63 small letters, "
                "digits and -, beginning with a letter and not ending with -"
            )
    return Workload(name, pinned(image), namespace)


def pinned(image: str) -> Reference:
    """Return an image's name without its tag; raises PipelineError unless hosts can pull just it.

    A name without a digest can be another image tomorrow, and no host pulls from this machine's
    store.
    """
    if not image:
        raise PipelineError("no image was named; give --image HOST/NAME@sha256:…")
    try:
        reference = Reference.parse(image)
    except BuilderError as error:
        raise PipelineError(str(error)) from None
    if not reference.digest:
        raise PipelineError(f"{reference} can be another image tomorrow; name it by @sha256:…")
    if reference.local:
        raise PipelineError(
            f"{reference} is in this machine's store, from which no host pulls; package with "
            "model_repo=HOST/NAME, or try it here with `invoke serve`"
        )
    return replace(reference, tag="")
