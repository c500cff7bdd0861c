"""Names of images in registries."""

from __future__ import annotations

import re
from dataclasses import dataclass

from builder import oci
from builder.errors import BuilderError

# https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-manifests
_REPOSITORY = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
# Docker Hub: its name in image names, another one for it, and the host that has its API. Source:
# https://pkg.go.dev/github.com/distribution/reference (normalize.go).
DOCKER_HUB = "docker.io"
_HUB_ALIAS = "index.docker.io"
_HUB_API = "registry-1.docker.io"


def api_host(host: str) -> str:
    """Return the host that is asked for images of `host`: another one for Docker Hub alone."""
    return _HUB_API if host in (DOCKER_HUB, _HUB_ALIAS) else host


def is_tag(text: str) -> bool:
    """Tell whether `text` can be a tag."""
    return _TAG.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Reference:
    """`host[:port]/repository[:tag][@sha256:...]`, taken apart.

    The host is always written: there is no default registry, so nothing is ever looked up in one
    that nobody named.
    """

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.host}/{self.repository}{tag}{digest}"

    @property
    def local(self) -> bool:
        """Whether the image is of the local store: the host `localhost` without a port."""
        return self.host == "localhost"

    @staticmethod
    def parse(text: str) -> Reference:
        """Take `text` apart; raises BuilderError where it is not of the form.

        Docker Hub is written as Docker writes it: `docker.io/python` is `docker.io/library/python`.
        """
        name, _, digest = text.partition("@")
        host, slash, path = name.partition("/")
        repository, _, tag = path.partition(":")
        if not slash or not ("." in host or ":" in host or host == "localhost"):
            raise BuilderError(
                f"{text!r} does not name its registry; write HOST/REPOSITORY, "
                "for example localhost:5000/plateline/train"
            )
        if not _REPOSITORY.fullmatch(repository) or (tag and not is_tag(tag)):
            raise BuilderError(
                f"{text!r} is not an image name: a repository is lower-case letters, digits and "
                "single . _ - between them, a tag follows a colon"
            )
        if host == _HUB_ALIAS:
            host = DOCKER_HUB
        if host == DOCKER_HUB and "/" not in repository:
            repository = f"library/{repository}"
        if digest and not oci.is_digest(digest):
            raise BuilderError(f"{text!r}: what follows @ is not sha256: and 64 hexadecimal digits")
        return Reference(host=host, repository=repository, tag=tag, digest=digest)
