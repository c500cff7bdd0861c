"""A stand-in for the Kubernetes API: the few objects that the driver and the launcher read.

Both take its address and token as in a pod (rest.InClusterConfig of client-go), over TLS only.
Objects: backend/src/v2/config and backend/src/v2/cmd/driver of kubeflow/pipelines 2.17.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import re
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NAMESPACE = "plateline"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"  # where a pod finds its namespace, token
_SECRET = "mlpipeline-minio-artifact"  # noqa: S105 - a name


@dataclass(frozen=True)
class Cluster:
    """The API's port, the folder that stands in for a pod's service account, and what was lacking.

    `missing` are the requests for anything else, which were answered by 404.
    """

    port: int
    account: Path
    missing: list[str] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """Return the variables by which a pod finds the API."""
        host = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port)}
        return {**host, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def contents(workflow: str, created: str, objects: int, bucket: str, key: str) -> dict[str, Any]:
    """Return path -> object: where artifacts go and by which key, and when the run began."""
    within = f"/api/v1/namespaces/{NAMESPACE}"
    credentials = {
        "fromEnv": False,
        "secretRef": {
            "secretName": _SECRET, "accessKeyKey": "accesskey", "secretKeyKey": "secretkey"
        },
    }  # fmt: skip
    store = {
        "endpoint": f"127.0.0.1:{objects}", "region": "minio", "disableSSL": True,
        "forcePathStyle": True, "credentials": credentials,
    }  # fmt: skip
    providers = {provider: {"default": store} for provider in ("minio", "s3")}
    encoded = base64.b64encode(key.encode()).decode()
    return {
        f"{within}/configmaps/kfp-launcher": {
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "kfp-launcher", "namespace": NAMESPACE},
            "data": {
                "defaultPipelineRoot": f"minio://{bucket}/v2/artifacts",
                "providers": json.dumps(providers),
            },
        },
        f"{within}/secrets/{_SECRET}": {
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": _SECRET, "namespace": NAMESPACE},
            "data": {"accesskey": encoded, "secretkey": encoded},
        },
        f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}/workflows/{workflow}": {
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
            "metadata": {
                "name": workflow, "namespace": NAMESPACE, "creationTimestamp": created
            },
        },
    }  # fmt: skip


@contextmanager
def serve(folder: Path, objects: Mapping[str, Any]) -> Iterator[Cluster]:
    """Answer GET for `objects` on loopback; `folder` gets the service account's files."""
    folder.mkdir(mode=0o755, exist_ok=True)
    token = "no secret: it opens nothing but this process"  # noqa: S105
    (folder / "namespace").write_text(NAMESPACE)
    (folder / "token").write_text(token)
    private = folder.with_name(f"{folder.name}-key.pem")
    _certify(folder / "ca.crt", private)
    missing: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            found = objects.get(path) or _pod(path)
            if found is None:
                missing.append(f"{self.command} {path}")
                found = {"apiVersion": "v1", "kind": "Status", "status": "Failure",
                         "reason": "NotFound", "code": 404}  # fmt: skip
            data = json.dumps(found).encode()
            self.send_response(found.get("code", 200))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - all of them lack

        def log_message(self, *_: Any) -> None:
            """Say nothing: what lacks is in `missing`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.crt", private)
    private.unlink()
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Cluster(server.server_address[1], folder, missing)
    finally:
        server.shutdown()
        server.server_close()


def _pod(path: str) -> dict[str, Any] | None:
    """Return the pod at `path`, whose annotation the launcher reads where no retries are set."""
    match = re.fullmatch(rf"/api/v1/namespaces/{NAMESPACE}/pods/([^/]+)", path)
    if match is None:
        return None
    annotations = {"workflows.argoproj.io/node-name": match[1]}
    metadata = {"name": match[1], "namespace": NAMESPACE, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}


def _certify(certificate: Path, private: Path) -> None:
    """Write a certificate for 127.0.0.1 that is its own authority, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "plateline")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.touch(mode=0o600)
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
