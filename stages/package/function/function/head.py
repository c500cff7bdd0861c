"""What a request's head may be: https://www.rfc-editor.org/rfc/rfc9112, less what is dangerous."""

from __future__ import annotations

import re
from collections.abc import Sequence

LONGEST = 64 << 10  # bytes of request line, names and values; trailers count too
MOST_FIELDS = 128
# RFC 3986, 3.2.2 and 3.2.3: a name, an IPv4 address or an IPv6 address in brackets; a port.
_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,}\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?"
)
_TARGET = re.compile(rb"[\x21-\x7e]+")
_VALUE = re.compile(rb"[^\x00\r\n]*")
Field = tuple[bytes, bytes]  # name in lower case, value


class RefusedError(Exception):
    """A head that is refused, with the answer's status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def too_long() -> RefusedError:
    """Return the refusal of a head, or of a body's framing, that has too many bytes."""
    return RefusedError(
        431, f"the request has more than {LONGEST} bytes beside its body; send fewer headers"
    )


def check(version: str, fields: Sequence[Field]) -> None:
    """Raise RefusedError where `fields` leave open who is asked, or where the body ends."""
    hosts, codings = [], []
    for name, value in fields:
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding":
            codings.append(value.lower())
    if len(hosts) != 1 and (hosts or version != "1.0"):
        raise RefusedError(400, f"the request has {len(hosts)} Host headers; send one")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise RefusedError(400, "the Host header is no host; send a name or an address, and a port")
    if codings and version == "1.0":
        raise RefusedError(400, "HTTP/1.0 has no Transfer-Encoding; send a Content-Length")
    if codings and codings != [b"chunked"]:
        raise RefusedError(501, "only the Transfer-Encoding chunked is understood; send that")


def without_upgrade(method: bytes, target: bytes, version: str, fields: Sequence[Field]) -> bytes:
    """Return the head of a request that offers another protocol, without the offer.

    A server may ignore the offer (RFC 9110, 7.8), and must for HTTP/2 to read the body at all.
    Raises RefusedError for CONNECT, which leaves nothing to answer, and for what cannot be
    written again.
    """
    if method == b"CONNECT":
        raise RefusedError(405, "this is no proxy; send GET or POST")
    lines = [b"%s %s HTTP/%s" % (method, target, version.encode())]
    lines += [b"%s: %s" % field for field in fields if field[0] != b"upgrade"]
    if not _TARGET.fullmatch(target) or not all(map(_VALUE.fullmatch, lines)):
        raise RefusedError(400, "a header of the request has more than one line")
    return b"\r\n".join(lines) + b"\r\n\r\n"
