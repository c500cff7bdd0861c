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
        """Take `text` apart; raises BuilderError where it is not of the form."""
        name, _, digest = text.partition("@")
        host, slash, path = name.partition("/")
        repository, _, tag = path.partition(":")
        if not slash or not ("." in host or ":" in host or host == "localhost"):
            raise BuilderError(
                f"{text!r} does not name its registry; write HOST/REPOSITORY, "
                "for example localhost:5000/plateline/train"
            )
        if not _REPOSITORY.fullmatch(repository) or (tag and not _TAG.fullmatch(tag)):
            raise BuilderError(
                f"{text!r} is not an image name: a repository is lower-case letters, digits and "
                "single . _ - between them, a tag follows a colon"
            )
        if digest and not oci.is_digest(digest):
            raise BuilderError(f"{text!r}: what follows @ is not sha256: and 64 hexadecimal digits")
        return Reference(host=host, repository=repository, tag=tag, digest=digest)
