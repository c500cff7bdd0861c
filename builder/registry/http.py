"""What a registry answers: documents and addresses, bounded, checked, and fit to be printed."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from builder.errors import BuilderError

if TYPE_CHECKING:  # most who read a document send no request
    from builder.registry.transport import Headers, Response

__all__ = [
    "LARGEST",
    "Answer",
    "DamagedError",
    "RegistryError",
    "is_loopback",
    "join",
    "origin",
    "parse",
    "read",
    "shown",
]

# The most that a document (manifest, config, list of tags) may have: what registries take, by
# https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pushing-manifests.
LARGEST = 4 << 20


class RegistryError(BuilderError):
    """A registry refused, failed, or sent what its digest does not fit; `status` is its answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class DamagedError(RegistryError):
    """A registry sent what cannot be what was asked for; to ask again does not mend it."""


def shown(text: object, limit: int = 300) -> str:
    """Return what a server said as it may be printed: no control characters, and cut."""
    said = str(text)
    cut = "…" if len(said) > limit else ""
    return "".join(c if c.isprintable() else "?" for c in said[:limit]) + cut


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that has been read: its status, headers and body; `url` is what was asked at last.

    `what` is the request in words, for messages.
    """

    status: int
    headers: Headers
    body: bytes
    url: str
    what: str

    def json(self) -> dict[str, Any]:
        """Return the body as the JSON object that it must be; raises RegistryError otherwise."""
        return parse(self.body, self.what)

    def location(self) -> str:
        """Return where to go on, as a whole address; raises RegistryError without a Location."""
        if not (found := self.headers.get("Location", "")):
            raise RegistryError(f"{self.what} answered {self.status} without saying where to go on")
        return join(self.url, found, self.what)

    def location_of(self, address: str) -> str:
        """Return an address of the answer as a whole one; raises RegistryError where it is none."""
        return join(self.url, address, self.what)


def parse(data: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object in `data`; raises DamagedError that names `what` came with others."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        begins = shown(data[:40].decode("utf-8", "replace"))
        raise DamagedError(f"{what} came with something else than a JSON object: {begins!r}")
    return found


def join(base: str, address: str, what: str) -> str:
    """Return `address` as seen from `base`; raises RegistryError where it is none."""
    try:
        joined = urljoin(base, address)
        urlsplit(joined).port  # noqa: B018 - raises ValueError where it is no number
    except ValueError:
        raise RegistryError(f"{what} answered with the address {shown(address)!r}") from None
    return joined


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an address: what may be given the same password."""
    parts = urlsplit(url)
    return (
        parts.scheme,
        parts.hostname or "",
        parts.port or (443 if parts.scheme == "https" else 80),
    )


def read(answer: Response, what: str, *, whole: bool = True) -> bytes:
    """Return the body of an answer; raises RegistryError where it is larger than a document.

    Without `whole`, as for an error that is only shown, such a body is cut instead.
    """
    pieces, size = [], 0
    try:
        if whole and answer.headers.get("Content-Encoding", "identity") != "identity":
            raise DamagedError(f"{what} answered with a compressed body, which was not asked for")
        for piece in answer.pieces():
            size += len(piece)
            if size > LARGEST and not whole:
                break
            if size > LARGEST:
                raise DamagedError(
                    f"{what} answered with more than {LARGEST >> 20} MiB, the most that a "
                    "document may have; it was not read"
                )
            pieces.append(piece)
    finally:
        answer.close()
    return b"".join(pieces)


def is_loopback(host: str) -> bool:
    """Tell whether `host[:port]` is this machine."""
    name = host.rsplit(":", 1)[0].strip("[]")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
