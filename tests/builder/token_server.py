"""A token server as docker-registry trusts one: RS256 tokens whose certificate is in their header.

Format: https://distribution.github.io/distribution/spec/auth/jwt/.
"""

from __future__ import annotations

import base64
import datetime
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from tests.servers import serving


@dataclass
class Authority:
    """A key and its self-signed certificate, as files: for tokens, and as a private CA."""

    folder: Path
    key: rsa.RSAPrivateKey = field(
        default_factory=lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048)
    )

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
            )
            .sign(self.key, hashes.SHA256())
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.certificate_path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.key_path.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )

    @property
    def certificate_path(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def key_path(self) -> Path:
        return self.folder / "key.pem"

    def token(self, claims: dict[str, object]) -> str:
        """Return the signed token of `claims`."""
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        text = b".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        signature = self.key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        return (text + b"." + _base64url(signature)).decode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@dataclass
class TokenServer:
    """What the server was asked, and the `auth` member that makes a registry trust it."""

    realm: str
    authority: Authority
    scopes: list[list[str]] = field(default_factory=list)

    @property
    def auth(self) -> dict[str, dict[str, str]]:
        return {
            "token": {
                "realm": self.realm,
                "service": "test-registry",
                "issuer": "test-issuer",
                "rootcertbundle": str(self.authority.certificate_path),
            }
        }


@contextmanager
def serve(
    folder: Path, user: str, password: str, lifetime: float = 300, at_once: int = 9
) -> Iterator[TokenServer]:
    """Run a server that gives `user` the scopes it asks for, and nobody else anything.

    Who asks for more than `at_once` scopes is refused.
    """
    authority = Authority(folder)
    wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            scopes = [scope for entry in query.get("scope", []) for scope in entry.split(" ")]
            server.scopes.append(scopes)
            if len(scopes) > at_once:
                self.send_error(403)
                return
            if self.headers.get("Authorization") != wanted:
                self.send_error(401)
                return
            now = int(time.time())
            access = [dict(zip(("type", "name", "actions"), s.split(":"), strict=True))
                      for s in scopes]  # fmt: skip
            claims = {
                "iss": "test-issuer", "sub": user, "aud": query["service"][0], "jti": str(now),
                "iat": now, "nbf": now - 60, "exp": now + int(lifetime),
                "access": [{**entry, "actions": entry["actions"].split(",")} for entry in access],
            }  # fmt: skip
            body = json.dumps({"token": authority.token(claims)}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Answer) as address:
        server = TokenServer(f"http://{address}/token", authority)
        yield server
